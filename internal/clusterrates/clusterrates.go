// Package clusterrates computes what a cluster did between two readings of its status: rates per second, and
// percentiles of latencies. What nodes report are counts since their start; a node that came between the
// readings, or began anew, has no rates yet.
package clusterrates

import (
	"slices"
	"strings"
	"time"

	"licensed/messages/licensedv1"
)

// Sample is what a cluster did in a short time: rates per second, and latencies in
// milliseconds. Its JSON is what the charts of the dashboard read.
type Sample struct {
	// At is the end of the time, in milliseconds since 1970.
	At       int64   `json:"at"`
	Commands float64 `json:"commands"`
	Queries  float64 `json:"queries"`
	// Percentiles of the time that commands took; null if there were none.
	P50  *float64 `json:"p50"`
	P99  *float64 `json:"p99"`
	P999 *float64 `json:"p999"`
	// By rule and by code; what is 0 is left out.
	Refusals map[string]float64 `json:"refusals"`
	Errors   map[string]float64 `json:"errors"`

	Refused      float64 `json:"refused"`
	Failed       float64 `json:"failed"`
	Recoveries   float64 `json:"recoveries"`
	Passivations float64 `json:"passivations"`
	GaveUp       float64 `json:"gaveUp"`
	// Lag of the archiver that is furthest behind, in seconds.
	Lag float64 `json:"lag"`
	// Cores that each node had busy on average, by Key. What its customers get is in NodeStatus.CommandsPerSecond.
	Cores map[string]float64 `json:"-"`
}

// Key tells one run of one process from all others; a process without shards has no incarnation.
func Key(n *licensedv1.NodeStatus) string { return n.Name + "/" + n.Incarnation }

// serverErrors are the codes that are the service's doing, not the client's.
var serverErrors = map[string]bool{
	"unavailable": true, "deadline_exceeded": true, "resource_exhausted": true, "internal": true, "data_loss": true,
	"unknown": true,
	"aborted": true,
}

// ErrorWords are the names of the errors that Sample.Errors has, in order.
func ErrorWords() []string {
	names := make([]string, 0, len(serverErrors))
	for code := range serverErrors {
		names = append(names, strings.ReplaceAll(code, "_", " "))
	}
	slices.Sort(names)
	return names
}

// Between returns what was done between two readings, the second of which was made at a
// time and so long after the first, which must be above 0. Percentiles are those of the
// whole cluster: the buckets of all nodes are added, which averages of percentiles could
// not replace.
func Between(before, after *licensedv1.ClusterStatus, at time.Time, took time.Duration) Sample {
	s := Sample{
		At:       at.UnixMilli(),
		Refusals: make(map[string]float64),
		Errors:   make(map[string]float64),
		Cores:    make(map[string]float64),
	}
	former := make(map[string]*licensedv1.NodeStatus, len(before.GetNodes()))
	for _, n := range before.GetNodes() {
		former[Key(n)] = n
	}
	seconds := took.Seconds()
	var bounds []float64
	var latencies []uint64
	for _, n := range after.GetNodes() {
		s.Lag = max(s.Lag, n.GetArchive().GetLag().AsDuration().Seconds())
		was, ok := former[Key(n)]
		if !ok || n.Activity == nil || was.Activity == nil {
			continue // A node that came since has no rate yet.
		}
		s.addNode(n, was, seconds)
		// A node of another release may have other buckets. Its counts cannot be added,
		// and it is left out of the percentiles.
		if b := n.Activity.LatencyBoundsSeconds; bounds == nil || slices.Equal(b, bounds) {
			bounds = b
			latencies = addDifferences(latencies, n.Activity.LatencyCounts, was.Activity.LatencyCounts)
		}
	}
	s.P50 = percentile(bounds, latencies, 0.5)
	s.P99 = percentile(bounds, latencies, 0.99)
	s.P999 = percentile(bounds, latencies, 0.999)
	return s
}

// addNode adds the rates of a node. A count that went down counts as no change: the
// process is the same, so that only a fault explains it.
func (s *Sample) addNode(n, was *licensedv1.NodeStatus, seconds float64) {
	rate := func(now, before uint64) float64 {
		if now < before {
			return 0
		}
		return float64(now-before) / seconds
	}
	a, b := n.Activity, was.Activity
	s.Cores[Key(n)] = max(0, (n.CpuTime.AsDuration()-was.CpuTime.AsDuration()).Seconds()/seconds)
	s.Commands += rate(a.Commands, b.Commands)
	s.Queries += rate(a.Queries, b.Queries)
	s.Recoveries += rate(a.Activations, b.Activations)
	s.Passivations += rate(a.Passivations, b.Passivations)
	s.GaveUp += rate(a.FailedActivations, b.FailedActivations)
	refused := make(map[licensedv1.Rule]uint64)
	for _, r := range b.Refusals {
		refused[r.Rule] = r.Count
	}
	for _, r := range a.Refusals {
		if f := rate(r.Count, refused[r.Rule]); f > 0 {
			s.Refusals[RuleWords(r.Rule)] += f
			s.Refused += f
		}
	}
	failed := make(map[string]uint64)
	for _, c := range b.Errors {
		failed[c.Code] = c.Count
	}
	for _, c := range a.Errors {
		if f := rate(c.Count, failed[c.Code]); f > 0 && serverErrors[c.Code] {
			s.Errors[strings.ReplaceAll(c.Code, "_", " ")] += f
			s.Failed += f
		}
	}
}

// addDifferences adds now − before to sums, bucket by bucket, and returns sums.
func addDifferences(sums, now, before []uint64) []uint64 {
	if sums == nil {
		sums = make([]uint64, len(now))
	}
	for i := range min(len(sums), len(now), len(before)) {
		if now[i] > before[i] {
			sums[i] += now[i] - before[i]
		}
	}
	return sums
}

// percentile estimates one from counts between bounds, in milliseconds, as if the values
// lay evenly between two bounds; nil if there are none. bounds are in seconds; counts has
// one more, for values above all bounds, of which only the last bound is known.
// Prometheus' histogram_quantile does the same.
func percentile(bounds []float64, counts []uint64, p float64) *float64 {
	var total uint64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return nil
	}
	target, sum := p*float64(total), 0.0
	for i, n := range counts {
		if sum+float64(n) < target || n == 0 {
			sum += float64(n)
			continue
		}
		if i >= len(bounds) {
			break // Above all bounds.
		}
		low := 0.0
		if i > 0 {
			low = bounds[i-1]
		}
		ms := 1000 * (low + (bounds[i]-low)*(target-sum)/float64(n))
		return &ms
	}
	ms := 1000 * bounds[len(bounds)-1]
	return &ms
}

// RuleWords names a rule for people: "device limit".
func RuleWords(r licensedv1.Rule) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(r.String(), "RULE_"), "_", " "))
}
