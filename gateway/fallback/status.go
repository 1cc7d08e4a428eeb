package fallback

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// Status returns what the gateway has deferred, and how that ended since its start.
func (f *Fallback) Status() *licensedv1.FallbackFigures {
	u := f.config.Journal.Usage()
	s := &licensedv1.FallbackFigures{
		DeferredCommands: uint64(u.Commands), DeferredCustomers: uint64(u.Customers),
		Bytes: uint64(u.Bytes), MaxBytes: uint64(u.MaxBytes),
		StaleFromStore:      count(f.metrics.stale.WithLabelValues(FromStore.String())),
		StaleFormerAnswers:  count(f.metrics.stale.WithLabelValues(FromFormer.String())),
		UnansweredQuestions: count(f.metrics.unanswered),
	}
	for _, owner := range f.breakers.failing() {
		name := ""
		if !owner.IsZero() {
			name = owner.String()
		}
		s.UnavailableOwners = append(s.UnavailableOwners, name)
	}
	slices.Sort(s.UnavailableOwners)
	if !u.Since.IsZero() {
		s.DeferredSince = timestamppb.New(u.Since)
	}
	for _, k := range kinds {
		ended := func(of ...Settlement) (n uint64) {
			for _, s := range of {
				n += count(f.metrics.settled.WithLabelValues(k.name, s.String()))
			}
			return n
		}
		o := &licensedv1.DeferredOutcomes{
			Command: k.name, Accepted: count(f.metrics.accepted.WithLabelValues(k.name)), Executed: ended(Executed),
			Refused: ended(Refused), Superseded: ended(Superseded),
			NotExecuted: ended(Replaced, Lapsed, Gap, Forgotten, Denied),
		}
		for _, reason := range slices.Compact(reasonNames()) {
			o.Declined += count(f.metrics.declined.WithLabelValues(k.name, reason))
		}
		s.Outcomes = append(s.Outcomes, o)
	}
	return s
}

// reasonNames returns the labels of reasons, sorted.
func reasonNames() (names []string) {
	for _, r := range reasons {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// count returns the value of a counter.
func count(c prometheus.Counter) uint64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return 0
	}
	return uint64(m.GetCounter().GetValue())
}
