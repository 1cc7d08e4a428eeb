package gateway

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"licensed/internal/budget"
	"licensed/messages/licensedv1"
)

// commandMethods are those that go into a customer's history. The name of a service's
// method is unique among all services.
var commandMethods = map[string]bool{
	"AcquireLicense": true, "RenewLicense": true, "ReleaseLicense": true, "RecordPlayback": true,
	"DeactivateDevice": true, "ChangePlan": true, "SyncDevice": true, "SelectDevices": true,
	"GrantException": true, "WithdrawException": true,
	"LendAllowance": true, "ReturnAllowance": true,
}

// queryMethods are those that a customer's owner answers from its state. What is read
// from stored history is in neither set: its duration says nothing about the owners.
var queryMethods = map[string]bool{
	"ListLicenses": true, "ListDownloads": true, "ListDevices": true, "GetCustomer": true,
}

// answered has the codes of a reply that tells what was asked: success, and what a rule
// refused. Anything else is an error of the service or of the request.
var answered = map[string]bool{"ok": true, "failed_precondition": true, "not_found": true}

// Activity returns what the gateway did since its start, as its metrics have it: one
// count for both, so that the dashboard and Prometheus cannot disagree. What its
// aggregates did is for others to add. The message is the caller's.
func (g *Gateway) Activity() *licensedv1.NodeActivity {
	a := &licensedv1.NodeActivity{
		LatencyBoundsSeconds: latencyBuckets, LatencyCounts: make([]uint64, len(latencyBuckets)+1),
	}
	failed := make(map[string]uint64)
	eachMetric(g.metrics.duration, func(m *dto.Metric) {
		var method, code string
		for _, l := range m.GetLabel() {
			switch l.GetName() {
			case "method":
				method = l.GetValue()
			case "code":
				code = l.GetValue()
			}
		}
		h := m.GetHistogram()
		switch {
		case !answered[code]:
			failed[code] += h.GetSampleCount()
		case commandMethods[method]:
			a.Commands += h.GetSampleCount()
			addLatency(a.LatencyCounts, h)
		case queryMethods[method]:
			a.Queries += h.GetSampleCount()
		}
	})
	for code, n := range failed {
		a.Errors = append(a.Errors, &licensedv1.CodeCount{Code: code, Count: n})
	}
	slices.SortFunc(a.Errors, func(x, y *licensedv1.CodeCount) int { return cmp.Compare(x.Code, y.Code) })
	for rule, c := range g.metrics.rules {
		if n := valueOf(c); n > 0 {
			a.Refusals = append(a.Refusals, &licensedv1.RuleCount{Rule: rule, Count: n})
		}
	}
	slices.SortFunc(a.Refusals, func(x, y *licensedv1.RuleCount) int { return cmp.Compare(x.Rule, y.Rule) })
	return a
}

// InFlight returns the requests and streams that were admitted and not yet replied to.
func (g *Gateway) InFlight() (n int64) {
	for _, b := range []*budget.Budget{
		g.limits.customers.slots, g.limits.customers.open, g.limits.operators.slots, g.limits.imports.slots,
	} {
		n += b.Used()
	}
	return n
}

// addLatency adds a histogram, whose buckets each have the counts of all before, to counts of their own.
func addLatency(counts []uint64, h *dto.Histogram) {
	var before uint64
	for i, b := range h.GetBucket() {
		counts[i] += b.GetCumulativeCount() - before
		before = b.GetCumulativeCount()
	}
	counts[len(counts)-1] += h.GetSampleCount() - before
}

// eachMetric calls f with the present metrics of a collector.
func eachMetric(c prometheus.Collector, f func(*dto.Metric)) {
	// The channel has no room, so that Collect ends with the loop.
	metrics := make(chan prometheus.Metric)
	go func() {
		c.Collect(metrics)
		close(metrics)
	}()
	for m := range metrics {
		var d dto.Metric
		if m.Write(&d) == nil { // Only metrics that were made wrongly fail.
			f(&d)
		}
	}
}

// valueOf returns the value of a counter; 0 for one that cannot be read.
func valueOf(c prometheus.Metric) uint64 {
	var d dto.Metric
	if c.Write(&d) != nil {
		return 0
	}
	return uint64(d.GetCounter().GetValue())
}
