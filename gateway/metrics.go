package gateway

import (
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/reflect/protoreflect"

	"licensed/gateway/auth"
	"licensed/messages/licensedv1"
)

// latencyBuckets reach from a command on a warm aggregate without fsync to the longest deadline.
var latencyBuckets = []float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30,
}

// metrics of the gateway. Labels come from closed sets only (methods, codes and rules of
// the API), so that no client can make series. Children are resolved when the gateway
// starts: a series exists with 0 before the first event, and a request needs no look-up.
type metrics struct {
	duration   *prometheus.HistogramVec
	malformed  *prometheus.CounterVec
	cut        *prometheus.CounterVec
	duplicates *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	denied     *prometheus.CounterVec
	audited    prometheus.Counter
	unaudited  prometheus.Counter
	panics     prometheus.Counter
	signed     prometheus.Counter
	badSigned  *prometheus.CounterVec
	sessions   prometheus.Gauge
	ends       *prometheus.CounterVec // of sessions, by code
	// methods has the metrics of each method by its path, rules the counter of each rule.
	methods map[string]*methodMetrics
	rules   map[licensedv1.Rule]prometheus.Counter
}

// methodMetrics are the children of one method, found once rather than per request.
type methodMetrics struct {
	name      string
	stream    bool // of replies
	all       *metrics
	succeeded prometheus.Observer
	duplicate prometheus.Counter
	malformed prometheus.Counter
	cut       prometheus.Counter
}

// newMetrics returns the metrics, not yet registered.
func newMetrics() *metrics {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "licensed_gateway_request_duration_seconds",
			Help:    "Time from the headers of a request to the end of its reply, by method and code.",
			Buckets: latencyBuckets,
		}, []string{"method", "code"}),
		malformed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_malformed_requests_total",
			Help: "Requests that could not be read as a call: undecodable, too large, cut off, " +
				"of an unknown content type.",
		}, []string{"method"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_cut_lists_total",
			Help: "First pages of longer lists, given to clients that asked for no page: " +
				"such a client may take the page for the whole list.",
		}, []string{"method"}),
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_duplicate_commands_total",
			Help: "Commands answered with the outcome of an earlier request.",
		}, []string{"method"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_refusals_total",
			Help: "Commands refused, by rule.",
		}, []string{"rule"}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_denied_total",
			Help: "Requests denied, by reason: the credentials are wrong (missing, unknown, forged, expired, ...), " +
				"or the caller may not do this (not_allowed, other_customer, reason_required).",
		}, []string{"reason"}),
		audited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_gateway_audit_records_total",
			Help: "Records written to the audit log.",
		}),
		unaudited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_gateway_audit_failures_total",
			Help: "Calls refused because the audit log could not be written.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_gateway_panics_total",
			Help: "Panics while a request was handled.",
		}),
		signed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_gateway_signed_licenses_total",
			Help: "Licences signed for devices.",
		}),
		badSigned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_rejected_signed_licenses_total",
			Help: "Commands with a signed licence that is not accepted, by fault.",
		}, []string{"fault"}),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "licensed_gateway_sessions",
			Help: "Open streams of Session.",
		}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "licensed_gateway_sessions_ended_total",
			Help: "Ended streams of Session, by code: ok if the client ended it, unavailable if the gateway stopped.",
		}, []string{"code"}),
		methods: make(map[string]*methodMetrics),
		rules:   make(map[licensedv1.Rule]prometheus.Counter),
	}
	m.resolve()
	return m
}

// resolve makes the children of all methods and rules.
func (m *metrics) resolve() {
	for _, file := range []protoreflect.FileDescriptor{
		licensedv1.File_licensed_v1_license_service_proto, licensedv1.File_licensed_v1_history_service_proto,
		licensedv1.File_licensed_v1_admin_service_proto,
	} {
		m.resolveService(file.Services().Get(0))
	}
	for _, kind := range auth.Kinds {
		m.denied.WithLabelValues(string(kind))
	}
	for _, denial := range auth.Denials {
		m.denied.WithLabelValues(string(denial))
	}
	for _, fault := range []string{
		"malformed", "unknown_key", "signature", "other_customer", "other_device", "other_title",
	} {
		m.badSigned.WithLabelValues(fault)
	}
	for number, name := range licensedv1.Rule_name {
		m.rules[licensedv1.Rule(number)] = m.refusals.WithLabelValues(name)
	}
}

// resolveService makes the children of the methods of a service.
func (m *metrics) resolveService(service protoreflect.ServiceDescriptor) {
	methods := service.Methods()
	for i := range methods.Len() {
		// Children are resolved once, so that a request looks none up by its labels.
		name := string(methods.Get(i).Name())
		m.methods["/"+string(service.FullName())+"/"+name] = &methodMetrics{
			name:      name,
			stream:    methods.Get(i).IsStreamingServer(),
			all:       m,
			succeeded: m.duration.WithLabelValues(name, "ok"),
			duplicate: m.duplicates.WithLabelValues(name),
			malformed: m.malformed.WithLabelValues(name),
			cut:       m.cut.WithLabelValues(name),
		}
	}
}

// collectors returns what is to be registered; the functions return the present number of
// requests and followers.
func (m *metrics) collectors(inFlight, followers func() float64) []prometheus.Collector {
	return []prometheus.Collector{
		m.duration, m.malformed, m.cut, m.duplicates, m.refusals, m.denied, m.audited, m.unaudited,
		m.panics, m.sessions, m.ends,
		m.signed, m.badSigned,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_requests_in_flight",
			Help: "Requests that were admitted and not yet replied to.",
		}, inFlight),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_followers",
			Help: "Streams that follow a customer's events.",
		}, followers),
	}
}

// refused counts a refusal. A rule that this version does not know counts as unspecified.
func (m *metrics) refused(rule licensedv1.Rule) {
	c, ok := m.rules[rule]
	if !ok {
		c = m.rules[licensedv1.Rule_RULE_UNSPECIFIED]
	}
	c.Inc()
}

// sessionEnded counts the end of a session.
func (m *metrics) sessionEnded(err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	m.sessions.Dec()
	m.ends.WithLabelValues(code).Inc()
}

// observe records a finished call; code 0 is success.
func (m *methodMetrics) observe(code connect.Code, took time.Duration) {
	if code == 0 {
		m.succeeded.Observe(took.Seconds())
		return
	}
	m.all.duration.WithLabelValues(m.name, code.String()).Observe(took.Seconds())
}
