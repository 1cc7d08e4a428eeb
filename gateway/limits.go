package gateway

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"licensed/internal/budget"
)

// Limits bound what requests use at a time, so that no client can use up the memory, or the places of others. What
// meets one is refused at once and certainly not executed.
type Limits struct {
	// Memory is what all requests together may use, in bytes, about: an eighth for bodies that are being received, a
	// quarter for requests in flight, a quarter for replies that clients have not read, and an eighth each for streams,
	// for imports, and for operators. Higher: larger bursts are served; lower: less memory is taken from customers.
	Memory int64
	// AddressShare is what part of each limit the requests of one address may use, above 0 up to 1. Higher: fewer
	// addresses suffice to use a limit up; 1 if all clients come through one proxy.
	AddressShare float64
	// ServiceShare and CustomerShare are that of one principal, whatever addresses it uses: of a service or a person of
	// the operator, and of a customer with credentials of its own.
	ServiceShare, CustomerShare float64
	// Rates are the requests a second of one address, service and customer; 0 is no limit. Who did nothing for a while
	// may send those of rateBurst at once. Those of operators do not count.
	Rates budget.Each
	// NewCustomers is the number of customers a minute that one address, and one principal, may send the first command
	// of; 0 is no limit, and costs nothing. Otherwise a command of a customer that the gateway has not seen for long
	// costs a question to its owner.
	NewCustomers int
	// MaxInFlight is the number of requests of customers that are handled at once.
	MaxInFlight int
	// MaxOperators is the number of requests and streams of AdminService and the dashboard that are handled at once.
	// They have limits of their own: an operator must be able to look at an overloaded cluster and to drain a node
	// of it.
	MaxOperators int
	// MaxStreams is the number of streams of HistoryService that are open at once; those of Follow keep their
	// customer in memory.
	MaxStreams int
	// MaxImports is the number of calls of ImportCustomer that are handled at once.
	MaxImports int
}

// DefaultLimits returns the limits that a gateway has unless told otherwise.
func DefaultLimits() Limits {
	return Limits{
		Memory: 256 << 20, AddressShare: 0.25, ServiceShare: 1, CustomerShare: 0.04, Rates: budget.Each{Customer: 10},
		MaxInFlight: 10_000, MaxOperators: 128, MaxStreams: 1000, MaxImports: 32,
	}
}

// rateBurst is the time whose worth of requests a holder may send at once.
const rateBurst = 10 * time.Second

// What requests are counted with, beside what they carry: goroutine, headers, and what the handler allocates.
const (
	receivingBytes = 8 << 10
	requestBytes   = 16 << 10
	streamBytes    = 32 << 10
	commandReply   = 2 << 10
)

// replyFactor is the number of times that the encoded size of a reply is counted: the message in memory, and its
// encoding.
const replyFactor = 3

// budgets of requests of one class. Those of operators share one amount of memory.
type budgets struct {
	// receiving, requests, replies and streams are bytes; slots and open are places of requests and streams.
	receiving, requests, replies, streams *budget.Budget
	slots, open                           *budget.Budget
}

// limits are the budgets of a gateway.
type limits struct {
	customers, operators, imports budgets
	// requests and created bound how often holders send requests, and first commands of customers.
	requests, created *budget.Rate
	// seen are customers that exist; nil if first commands have no limit.
	seen *lru.Cache[string, struct{}]
	// All budgets, for the metrics.
	all []*budget.Budget
}

// maxSeen is the number of customers that the gateway remembers to exist.
const maxSeen = 65536

// newLimits returns the budgets. All shares are the same part of their limit.
func newLimits(c Limits) *limits {
	created := float64(c.NewCustomers) / 60
	l := &limits{
		requests: budget.NewRate("request_rate", c.Rates, rateBurst),
		created: budget.NewRate("new_customers",
			budget.Each{Address: created, Service: created, Customer: created}, time.Minute),
	}
	if c.NewCustomers > 0 {
		l.seen, _ = lru.New[string, struct{}](maxSeen) // The size is positive.
	}
	shares := budget.Each{Address: c.AddressShare, Service: c.ServiceShare, Customer: c.CustomerShare}
	of := func(name string, limit int64) *budget.Budget {
		b := budget.New(name, limit, shares)
		l.all = append(l.all, b)
		return b
	}
	eighth := c.Memory / 8
	l.customers = budgets{
		receiving: of("receiving_bytes", eighth),
		requests:  of("request_bytes", 2*eighth),
		replies:   of("reply_bytes", 2*eighth),
		streams:   of("stream_bytes", eighth),
		slots:     of("requests", int64(c.MaxInFlight)),
		open:      of("streams", int64(c.MaxStreams)),
	}
	// Operators have one amount of memory and one number of places for everything that
	// they do.
	memory, places := of("operator_bytes", eighth), of("operators", int64(c.MaxOperators))
	l.operators = budgets{
		receiving: memory, requests: memory, replies: memory, streams: memory, slots: places, open: places,
	}
	l.imports = l.operators
	// Imports differ from other requests of operators by large bodies; their replies are
	// short.
	bodies := of("import_bytes", eighth)
	l.imports.receiving, l.imports.requests, l.imports.slots = bodies, bodies, of("imports", int64(c.MaxImports))
	return l
}

// limitWords say in an error which limit was met.
var limitWords = map[string]string{
	"receiving_bytes": "too many request bodies are being received",
	"request_bytes":   "too many requests in flight",
	"requests":        "too many requests in flight",
	"reply_bytes":     "too many replies wait to be read",
	"stream_bytes":    "too many streams are open",
	"streams":         "too many streams are open",
	"operator_bytes":  "too many requests of operators in flight",
	"operators":       "too many requests of operators in flight",
	"import_bytes":    "too many imports in flight",
	"imports":         "too many imports in flight",
	"request_rate":    "too many requests in a short time",
	"new_customers":   "too many new customers in a short time",
}

// streamRetry is the time to wait before a retry when too many streams are open: they stay open for long.
const streamRetry = time.Second

// budgetMetrics shows budgets and rates. Labels are the names of limits and scopes.
type budgetMetrics struct {
	budgets []*budget.Budget
	rates   []*budget.Rate
}

// Descriptions of the metrics that budgetMetrics collects.
var (
	refusedDesc = prometheus.NewDesc("licensed_gateway_limit_refusals_total",
		"Requests and connections refused because a limit was reached, by limit, "+
			"and whether the limit of all clients was, the share of one address, or that of one principal.",
		[]string{"limit", "scope"}, nil)
	usedDesc = prometheus.NewDesc("licensed_gateway_limit_used", "Current use of a limit, in bytes or as a number.",
		[]string{"limit"}, nil)
	limitDesc = prometheus.NewDesc("licensed_gateway_limit", "Limits, in bytes or as a number.", []string{"limit"}, nil)
)

// Describe implements prometheus.Collector.
func (budgetMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{refusedDesc, usedDesc, limitDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m budgetMetrics) Collect(to chan<- prometheus.Metric) {
	refused := func(of interface{ Refused(s budget.Scope) uint64 }, name string) {
		for _, s := range budget.Scopes {
			to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(of.Refused(s)),
				name, string(s))
		}
	}
	for _, r := range m.rates {
		refused(r, r.Name())
	}
	for _, b := range m.budgets {
		refused(b, b.Name())
		to <- prometheus.MustNewConstMetric(usedDesc, prometheus.GaugeValue, float64(b.Used()), b.Name())
		to <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(b.Limit()), b.Name())
	}
}
