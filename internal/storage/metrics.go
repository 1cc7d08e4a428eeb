package storage

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/persistence/cassandra"
	"licensed/persistence/pebble"
)

// pebbleMetrics collects the figures of the embedded store when they are asked for.
type pebbleMetrics struct {
	store *pebble.Store

	writes, syncs, disk, debt, amplification, hits, misses *prometheus.Desc
}

// newPebbleMetrics returns the collector of a store.
func newPebbleMetrics(s *pebble.Store) *pebbleMetrics {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &pebbleMetrics{
		store:  s,
		writes: desc("licensed_store_writes_total", "Mutations and roots acknowledged as durable."),
		syncs:  desc("licensed_store_syncs_total", "Groups of writes made durable by one sync each."),
		disk:   desc("licensed_store_disk_bytes", "Space used by the store's files, in bytes."),
		debt: desc("licensed_store_compaction_debt_bytes",
			"Bytes that compaction has yet to rewrite; growth means that the disk is too slow."),
		amplification: desc("licensed_store_read_amplification", "Files that a read may have to look at."),
		hits:          desc("licensed_store_cache_hits_total", "Blocks that were read from the cache."),
		misses:        desc("licensed_store_cache_misses_total", "Blocks that were read from disk."),
	}
}

// Describe implements prometheus.Collector.
func (m *pebbleMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.writes, m.syncs, m.disk, m.debt, m.amplification, m.hits, m.misses} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *pebbleMetrics) Collect(to chan<- prometheus.Metric) {
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

// cassandraMetrics collects the figures of the store on Cassandra when they are asked for.
type cassandraMetrics struct {
	store *cassandra.Store

	writes, requests, rows, outcomes, readErrors *prometheus.Desc
}

// newCassandraMetrics returns the collector of a store.
func newCassandraMetrics(s *cassandra.Store) *cassandraMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &cassandraMetrics{
		store:    s,
		writes:   desc("licensed_store_writes_total", "Mutations and roots sent, repeats included."),
		requests: desc("licensed_store_requests_total", "Requests to Cassandra that writes shared."),
		rows:     desc("licensed_store_rows_total", "Rows written."),
		outcomes: desc("licensed_store_failed_writes_total",
			"Writes and compare-and-sets that were not acknowledged; unknown ones are repeated.", "outcome"),
		readErrors: desc("licensed_store_read_errors_total", "Reads that could not be served."),
	}
}

// Describe implements prometheus.Collector.
func (m *cassandraMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.writes, m.requests, m.rows, m.outcomes, m.readErrors} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *cassandraMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.store.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(m.writes, s.Writes)
	counter(m.requests, s.Requests)
	counter(m.rows, s.Rows)
	counter(m.outcomes, s.Unknown, "unknown")
	counter(m.outcomes, s.Rejected, "rejected")
	counter(m.readErrors, s.ReadErrors)
}
