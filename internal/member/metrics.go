package member

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/cluster"
	"licensed/cluster/routing"
	"licensed/cluster/transport"
	"licensed/gateway/auth"
	"licensed/internal/optional"
)

// moveBuckets reach from a hand-over between idle nodes to a failover on a slow store, in seconds.
var moveBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 4, 5, 7.5, 10, 30}

// Metrics hear what happens between this process and its cluster. A node with a store of its own
// has none.
type Metrics struct {
	members      prometheus.Gauge
	shards       prometheus.Gauge
	incarnations prometheus.Counter
	lapses       prometheus.Counter
	happenings   *prometheus.CounterVec
	moves        *prometheus.HistogramVec
	routed       *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	waited       prometheus.Counter
	connections  *prometheus.CounterVec
	rejected     *prometheus.CounterVec
	denied       *prometheus.CounterVec
}

// NewMetrics returns the metrics, registered. A process that holds shards also has those of node, once there is one.
func NewMetrics(r prometheus.Registerer, node *optional.Value[cluster.Node], holds bool) *Metrics {
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &Metrics{
		members: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "licensed_cluster_members",
			Help: "Processes of the cluster that gossip lists as alive, including this one.",
		}),
		shards: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "licensed_cluster_shards", Help: "Shards of the cluster.",
		}),
		incarnations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_cluster_incarnations_total",
			Help: "Incarnations of this node that began: more than one means that others marked it dead.",
		}),
		lapses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_cluster_lease_lapses_total",
			Help: "Times that this node's lease ran out, since the store did not renew it.",
		}),
		happenings: counters("licensed_cluster_shard_changes_total",
			"Changes of shard ownership, by kind: claimed, taken_over, released, lost, epoch_raised.", "change"),
		moves: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "licensed_cluster_shard_change_duration_seconds", Buckets: moveBuckets,
			Help: "Time for which requests for a shard waited: from when it was expected here until it was held, " +
				"or from when its intake was closed until it was released.",
		}, []string{"change"}),
		routed: counters("licensed_cluster_requests_total",
			"Requests forwarded to shard owners, by location of the owner: local or remote.", "to"),
		attempts: counters("licensed_cluster_repeated_attempts_total",
			"Attempts after the first, by cause: redirect, unknown outcome, wait.", "cause"),
		waited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "licensed_cluster_wait_seconds_total", Help: "Time that requests spent between attempts.",
		}),
		connections: counters("licensed_cluster_connections_total",
			"Connections to other processes, by result: made, failed, lost.", "event"),
		rejected: counters("licensed_cluster_rejected_messages_total",
			"Messages of other processes that were refused, by reason.", "reason"),
		denied: counters("licensed_cluster_denied_requests_total",
			"Requests of other processes whose callers may not do what they ask for, by reason. Gateways deny those "+
				"themselves.", "reason"),
	}
	gauge := func(name, help string, value func(*cluster.Node) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if node, ok := node.Get(); ok {
				return value(node)
			}
			// Scraped before the node started.
			return 0
		})
	}
	r.MustRegister(m.members, m.shards, m.incarnations, m.lapses, m.happenings, m.moves, m.routed, m.attempts, m.waited,
		m.connections, m.rejected, m.denied)
	for _, reason := range denials {
		m.denied.WithLabelValues(reason)
	}
	for _, change := range changes {
		m.happenings.WithLabelValues(change) // A series that begins with its first event increases unseen by alerts.
	}
	if !holds {
		return m
	}
	r.MustRegister(
		gauge("licensed_cluster_shards_held", "Shards that this node holds.", func(c *cluster.Node) float64 {
			held, _, _ := c.Held()
			return float64(held)
		}),
		gauge("licensed_cluster_has_lease", "Whether this node has a valid lease: 1 or 0.",
			func(c *cluster.Node) float64 { return oneIf(!c.Incarnation().IsZero()) }),
		gauge("licensed_cluster_reachable",
			"1 if other processes reach the node port of this node, or if no other process runs; otherwise 0.",
			func(c *cluster.Node) float64 { return oneIf(c.Unreachable() == nil) }),
		gauge("licensed_cluster_draining", "Whether this node is draining: 1 or 0.",
			func(c *cluster.Node) float64 { return oneIf(c.Draining()) }),
	)
	return m
}

// oneIf returns a condition as the value of a gauge.
func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// changes are the happenings that metrics count, by the names that they have there.
var changes = map[cluster.HappeningKind]string{
	cluster.Claimed: "claimed", cluster.TakenOver: "taken_over", cluster.Released: "released",
	cluster.Lost: "lost", cluster.Raised: "epoch_raised",
}

// SetShards sets the number of shards of the cluster.
func (m *Metrics) SetShards(n uint32) { m.shards.Set(float64(n)) }

// Happened counts what happened to the node of this process.
func (m *Metrics) Happened(h *cluster.Happening) {
	switch h.Kind {
	case cluster.Began:
		m.incarnations.Inc()
	case cluster.Lapsed:
		m.lapses.Inc()
	}
	change := changes[h.Kind]
	// The other kinds are no changes of a shard.
	if change == "" {
		return
	}
	m.happenings.WithLabelValues(change).Inc()
	if h.Took > 0 {
		m.moves.WithLabelValues(change).Observe(h.Took.Seconds())
	}
}

// hear is told of each request that has ended.
func (m *Metrics) hear(i routing.DoneInfo) {
	to := "local"
	if i.Remote > 0 {
		to = "remote"
	}
	m.routed.WithLabelValues(to).Inc()
	// The usual request has one attempt, and no cause to count.
	if i.Attempts < 2 {
		return
	}
	m.attempts.WithLabelValues("redirect").Add(float64(i.Redirects))
	m.attempts.WithLabelValues("unknown_outcome").Add(float64(i.Unknown))
	m.attempts.WithLabelValues("wait").Add(float64(max(0, i.Attempts-1-i.Redirects)))
	m.waited.Add(i.Waited.Seconds())
}

// listener returns what counts connections.
func (m *Metrics) listener() transport.Listener {
	return transport.Listener{
		Connected: func(_ string, _ time.Duration, err error) {
			event := "made"
			if err != nil {
				event = "failed"
			}
			m.connections.WithLabelValues(event).Inc()
		},
		Disconnected: func(string, error) { m.connections.WithLabelValues("lost").Inc() },
		Rejected:     func(reason string) { m.rejected.WithLabelValues(reason).Inc() },
	}
}

// denials are why requests of other processes are denied: the reasons of package auth, and those of the token that
// operators need.
var denials = append([]string{"no_token", "bad_token", "gateway"}, func() (all []string) {
	for _, d := range auth.Denials {
		all = append(all, string(d))
	}
	return all
}()...)
