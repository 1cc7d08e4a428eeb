package node

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/messages/licensedv1"
)

// statusMetrics show the last status of the cluster that this process computed.
type statusMetrics struct {
	level    prometheus.Gauge
	at       prometheus.Gauge
	shards   *prometheus.GaugeVec
	findings *prometheus.GaugeVec
}

func newStatusMetrics() *statusMetrics {
	return &statusMetrics{
		level: prometheus.NewGauge(prometheus.GaugeOpts{Name: "licensed_cluster_status", Help: "Level of the cluster's status as last computed by this gateway: 0 OK, 1 degraded, 2 critical."}),
		at:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "licensed_cluster_status_timestamp_seconds", Help: "Time of that status, in seconds since 1970."}),
		shards: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "licensed_cluster_status_shards", Help: "Shards in that status, by state: served, moving, unserved, unconfirmed.",
		}, []string{"state"}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "licensed_cluster_status_findings", Help: "Findings in that status, by kind.",
		}, []string{"kind"}),
	}
}

// statusLevels are the levels as numbers: metrics and monitors have the same.
var statusLevels = map[licensedv1.ClusterLevel]float64{
	licensedv1.ClusterLevel_CLUSTER_LEVEL_OK: 0, licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED: 1, licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL: 2,
}

// show sets the metrics to a status.
func (m *statusMetrics) show(s *licensedv1.ClusterStatus) {
	m.level.Set(statusLevels[s.Level])
	m.at.Set(float64(s.AsOf.AsTime().UnixMilli()) / 1000)
	for state, n := range map[string]uint32{
		"served": s.ShardsServed, "moving": s.ShardsMoving, "unserved": s.ShardsUnserved, "unconfirmed": s.ShardsUnconfirmed,
	} {
		m.shards.WithLabelValues(state).Set(float64(n))
	}
	count := make(map[licensedv1.FindingKind]int)
	for _, w := range s.Warnings {
		count[w.Kind]++
	}
	for kind, name := range licensedv1.FindingKind_name {
		word := strings.ToLower(strings.TrimPrefix(name, "FINDING_KIND_"))
		if kind == 0 {
			word = "other"
		}
		m.findings.WithLabelValues(word).Set(float64(count[licensedv1.FindingKind(kind)]))
	}
}

// readEvery is the interval at which a gateway computes the status for its metrics, if nobody asks for it.
const readEvery = 10 * time.Second

// readStatus computes the status of the cluster every few seconds until the process stops.
func (n *Node) readStatus(ctx context.Context) {
	t := time.NewTicker(readEvery)
	defer t.Stop()
	m, shown := n.statusMetrics, false
	for {
		// After an error the metrics keep the time of the last status. Before the first one there are none: 0 is OK.
		if _, err := n.clusterStatus(ctx); err == nil && !shown {
			n.registry.MustRegister(m.level, m.at, m.shards, m.findings)
			shown = true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// startStatus has a gateway compute the status for its metrics, and each member of a cluster log unserved shards.
func (n *Node) startStatus(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	if n.config.Roles.Has(RoleGateway) {
		running.Go(func() { n.readStatus(ctx) })
	}
	if m := n.member.Load(); m != nil {
		running.Go(func() { m.watchShards(ctx) })
	}
	n.push("status", func(context.Context) error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}
