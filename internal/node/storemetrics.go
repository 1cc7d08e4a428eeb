package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/persistence/pebble"
)

// storeMetrics collects the figures of the embedded store when they are asked for.
type storeMetrics struct {
	store *pebble.Store

	writes, syncs, disk, debt, amplification, hits, misses *prometheus.Desc
}

func newStoreMetrics(s *pebble.Store) *storeMetrics {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &storeMetrics{
		store:  s,
		writes: desc("licensed_store_writes_total", "Mutations and roots acknowledged as durable."),
		syncs:  desc("licensed_store_syncs_total", "Groups of writes made durable by one sync each."),
		disk:   desc("licensed_store_disk_bytes", "Space that the store's files take."),
		debt: desc("licensed_store_compaction_debt_bytes",
			"What is to be rewritten before the store is in order; growing means that the disk is behind."),
		amplification: desc("licensed_store_read_amplification", "Files that a read may have to look at."),
		hits:          desc("licensed_store_cache_hits_total", "Blocks that were read from the cache."),
		misses:        desc("licensed_store_cache_misses_total", "Blocks that were read from disk."),
	}
}

// Describe implements prometheus.Collector.
func (m *storeMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.writes, m.syncs, m.disk, m.debt, m.amplification, m.hits, m.misses} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *storeMetrics) Collect(to chan<- prometheus.Metric) {
	s, err := m.store.Metrics(context.Background())
	if err != nil {
		return // Closed, or stopped by an error; the health check tells.
	}
	e := s.Engine
	counter := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter(m.writes, float64(s.Writes))
	counter(m.syncs, float64(s.Groups))
	gauge(m.disk, float64(e.DiskSpaceUsage()))
	gauge(m.debt, float64(e.Compact.EstimatedDebt))
	gauge(m.amplification, float64(e.ReadAmp()))
	counter(m.hits, float64(e.BlockCache.Hits))
	counter(m.misses, float64(e.BlockCache.Misses))
}
