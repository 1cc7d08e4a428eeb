package fallback

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// settlements are how commands end, and reasons why one is not accepted, as labels of metrics.
var (
	settlements = []Settlement{Executed, Refused, Superseded, Replaced, Lapsed, Gap, Forgotten, Denied}
	reasons     = []struct {
		err  error
		name string
	}{
		{ErrNotActive, "not_active"}, {ErrNoTerms, "not_allowed"}, {ErrRenewedBefore, "renewed_before"},
		{ErrOtherContent, "other_content"}, {ErrNotLent, "not_lent"}, {ErrManyFacts, "many_facts"}, {ErrFull, "full"},
		{context.DeadlineExceeded, "late"}, {context.Canceled, "late"}, {nil, "disk"},
	}
)

// reasonOf returns the label of an error of Defer.
func reasonOf(err error) string {
	for _, r := range reasons {
		if r.err == nil || errors.Is(err, r.err) {
			return r.name
		}
	}
	panic("unreachable: the last reason is that of all others")
}

// metrics of a Fallback.
type metrics struct {
	accepted, declined, settled, stale *prometheus.CounterVec
	unanswered                         prometheus.Counter
}

// newMetrics registers the metrics. usage is Fallback.Usage.
func newMetrics(
	r prometheus.Registerer, now func() time.Time, usage func() (Usage, int), kept *formerAnswers,
	allowances func() int,
) *metrics {
	m := &metrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_deferred_commands_accepted_total",
			Help: "Commands that were accepted while the owner could not be reached.",
		}, []string{"command"}),
		declined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_deferred_commands_declined_total",
			Help: "Commands that were not accepted while the owner could not be reached, by reason.",
		}, []string{"command", "reason"}),
		settled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_deferred_commands_settled_total",
			Help: "Accepted commands that were handed in, by how they ended.",
		}, []string{"command", "end"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_stale_answers_total",
			Help: "Answers marked as stale, because the owner could not be reached, by where they are from.",
		}, []string{"source"}),
		unanswered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_gateway_questions_unanswered_total",
			Help: "Questions whose owner could not be reached, and that were not answered otherwise.",
		}),
	}
	for _, s := range []Source{FromStore, FromFormer} {
		m.stale.WithLabelValues(s.String())
	}
	for _, k := range kinds { // Each series exists with 0 before the first event.
		m.accepted.WithLabelValues(k.name)
		for _, reason := range reasons {
			m.declined.WithLabelValues(k.name, reason.name)
		}
		for _, s := range settlements {
			m.settled.WithLabelValues(k.name, s.String())
		}
	}
	gauge := func(o prometheus.GaugeOpts, value func(Usage, int) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(o, func() float64 { return value(usage()) })
	}
	r.MustRegister(m.accepted, m.declined, m.settled, m.stale, m.unanswered,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_former_answers_bytes",
			Help: "Size of the answers that are kept for when owners and store cannot be reached, in bytes.",
		}, func() float64 { return float64(kept.usage()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_former_answers_max_bytes",
			Help: "Size that those answers may have, in bytes (--fallback-answers-bytes).",
		}, func() float64 { return float64(kept.max) }),
		gauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_deferred_commands",
			Help: "Accepted commands that are not handed in yet.",
		}, func(u Usage, _ int) float64 { return float64(u.Commands) }),
		gauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_deferred_bytes",
			Help: "Size of those commands, in bytes.",
		}, func(u Usage, _ int) float64 { return float64(u.Bytes) }),
		gauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_deferred_max_bytes",
			Help: "Size that those commands may have, in bytes (--fallback-max-bytes).",
		}, func(u Usage, _ int) float64 { return float64(u.MaxBytes) }),
		gauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_deferred_age_seconds",
			Help: "Time since there were no such commands, in seconds; 0 if there are none.",
		}, func(u Usage, _ int) float64 {
			if u.Since.IsZero() {
				return 0
			}
			return max(0, now().Sub(u.Since).Seconds())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_allowances",
			Help: "Allowances that this gateway may redeem.",
		}, func() float64 { return float64(allowances()) }),
		gauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_owners_unavailable",
			Help: "Nodes to which requests fail, so that commands are deferred or refused at once.",
		}, func(_ Usage, unavailable int) float64 { return float64(unavailable) }),
	)
	return m
}
