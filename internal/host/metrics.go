package host

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

// recoveryBuckets reach from an aggregate in the block cache to a store in trouble.
var recoveryBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// runtimeMetrics hears what happens in the runtime.
type runtimeMetrics struct {
	activations prometheus.Histogram
	replayed    prometheus.Counter
	ahead       prometheus.Counter
	rebuilt     prometheus.Counter
	large       prometheus.Counter
	passivated  prometheus.Counter
	ended       *prometheus.CounterVec
}

// newRuntimeMetrics registers what runtimes report. Counters continue across the
// incarnations of a node.
func newRuntimeMetrics(r prometheus.Registerer) *runtimeMetrics {
	m := &runtimeMetrics{
		activations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "licensed_activation_duration_seconds",
			Help:    "Time to read an aggregate from the store and replay its events.",
			Buckets: recoveryBuckets,
		}),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_replayed_events_total",
			Help: "Events replayed when aggregates were read from the store.",
		}),
		large: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_customers_large_total",
			Help: "Times that a customer reached half of the policy's limit of remembered licences or uses, " +
				"or another tenth of it.",
		}),
		rebuilt: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_customers_rebuilt_total",
			Help: "Customers whose newest snapshot was damaged, and whose state was rebuilt from their events.",
		}),
		ahead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_customers_ahead_total",
			Help: "Customers loaded with a last event more than 5 minutes ahead of the clock.",
		}),
		passivated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_passivations_total",
			Help: "Idle aggregates evicted from memory.",
		}),
		ended: endCauses.counter("licensed_activations_failed_total",
			"Activations that gave up, by cause; the next request reads the aggregate anew."),
	}
	r.MustRegister(m.activations, m.replayed, m.ahead, m.rebuilt, m.large, m.passivated, m.ended)
	return m
}

// counts are the same for callers that ask the node instead of its metrics.
type counts struct {
	activations, replayed, passivations, failed atomic.Uint64
	commands                                    atomic.Uint64 // that reached the node's customers

	mu      sync.Mutex
	samples []commandSample // of the last ten seconds, the oldest first
}

// commandSample is the number of commands at a time.
type commandSample struct {
	at       time.Time
	commands uint64
}

// Rates are means over the last rateWindow, of samples that are taken each sampleEvery.
const (
	rateWindow  = 10 * time.Second
	sampleEvery = time.Second
)

// sample notes how many commands there were until now.
func (c *counts) sample(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, commandSample{now, c.commands.Load()})
	for len(c.samples) > 1 && now.Sub(c.samples[0].at) > rateWindow {
		c.samples = c.samples[1:]
	}
}

// rate returns the commands per second of the last ten seconds. Reading it does not change it.
func (c *counts) rate() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) < 2 {
		return 0
	}
	first, last := c.samples[0], c.samples[len(c.samples)-1]
	return uint64(math.Round(float64(last.commands-first.commands) / last.at.Sub(first.at).Seconds()))
}

// CommandsPerSecond returns the mean rate of commands in the last ten seconds.
func (s *Hosts) CommandsPerSecond() uint64 { return s.counts.rate() }

// AddActivity adds what the customers of the process did since its start.
func (s *Hosts) AddActivity(a *licensedv1.NodeActivity) {
	c := &s.counts
	a.Activations, a.ReplayedEvents = c.activations.Load(), c.replayed.Load()
	a.Passivations, a.FailedActivations = c.passivations.Load(), c.failed.Load()
}

// sampleRates takes samples until the hosts are closed.
func (s *Hosts) sampleRates() {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		s.counts.sample(time.Now())
		select {
		case <-t.C:
		case <-s.closed:
			return
		}
	}
}

// observe adds gauges of the runtime's state, which are read when they are scraped.
func observe(r prometheus.Registerer, stats func() actors.Stats) {
	gauge := func(name, help string, value func(actors.Stats) int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value(stats())) }))
	}
	gauge("licensed_resident_aggregates", "Aggregates in memory.",
		func(s actors.Stats) int64 { return s.Resident })
	gauge("licensed_resident_bytes", "Estimated memory of the aggregates.",
		func(s actors.Stats) int64 { return s.ResidentBytes })
	gauge("licensed_requests_waiting", "Requests whose callers wait for the runtime.",
		func(s actors.Stats) int64 { return s.InFlight })
	gauge("licensed_requests_stuck",
		"Requests, including abandoned ones, for customers whose reads or writes have no outcome from the store.",
		func(s actors.Stats) int64 { return s.Stuck })
}
