package status

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/messages/licensedv1"
)

// metrics show the last status of the cluster that this process computed. Its age is a
// metric of its own: an alert must not rely on a status that is old.
type metrics struct {
	level    prometheus.Gauge
	at       prometheus.Gauge
	shards   *prometheus.GaugeVec
	findings *prometheus.GaugeVec
}

// newMetrics returns metrics that are not registered yet: before the first status, 0 would mean OK.
func newMetrics() *metrics {
	return &metrics{
		level: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "licensed_cluster_status",
			Help: "Level of the cluster's status as last computed by this gateway: 0 OK, 1 degraded, 2 critical.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "licensed_cluster_status_timestamp_seconds",
			Help: "Time of that status, in seconds since 1970.",
		}),
		shards: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "licensed_cluster_status_shards",
			Help: "Shards in that status, by state: served, moving, unserved, unconfirmed.",
		}, []string{"state"}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "licensed_cluster_status_findings", Help: "Findings in that status, by kind.",
		}, []string{"kind"}),
	}
}

// statusLevels are the levels as numbers: metrics and monitors have the same.
var statusLevels = map[licensedv1.ClusterLevel]float64{
	licensedv1.ClusterLevel_CLUSTER_LEVEL_OK:       0,
	licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED: 1,
	licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL: 2,
}

// show sets the metrics to a status.
func (m *metrics) show(s *licensedv1.ClusterStatus) {
	m.level.Set(statusLevels[s.Level])
	m.at.Set(float64(s.AsOf.AsTime().UnixMilli()) / 1000)
	for state, n := range map[string]uint32{
		"served":      s.ShardsServed,
		"moving":      s.ShardsMoving,
		"unserved":    s.ShardsUnserved,
		"unconfirmed": s.ShardsUnconfirmed,
	} {
		m.shards.WithLabelValues(state).Set(float64(n))
	}
	count := make(map[licensedv1.FindingKind]int)
	for _, w := range s.Warnings {
		count[w.Kind]++
	}
	// Every kind has a series, also with 0: an alert needs the change from 0 to 1.
	for kind, name := range licensedv1.FindingKind_name {
		word := strings.ToLower(strings.TrimPrefix(name, "FINDING_KIND_"))
		if kind == 0 {
			word = "other"
		}
		m.findings.WithLabelValues(word).Set(float64(count[licensedv1.FindingKind(kind)]))
	}
}

// register registers the metrics.
func (m *metrics) register(r prometheus.Registerer) {
	r.MustRegister(m.level, m.at, m.shards, m.findings)
}
