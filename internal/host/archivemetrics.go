package host

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/persistence/archive"
)

// archiveMetrics hears what the archiver does.
type archiveMetrics struct {
	events, segments, bytes, snapshots, scanned prometheus.Counter
	failures                                    *prometheus.CounterVec
}

// newArchiveMetrics registers the metrics; size may be nil.
func newArchiveMetrics(
	r prometheus.Registerer, stats func() archive.WorkerStats, size func(context.Context) (uint64, error),
) *archiveMetrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string, value func(archive.WorkerStats) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return value(stats()) }))
	}
	m := &archiveMetrics{
		events:    counter("licensed_archive_events_total", "Events moved to the archive."),
		segments:  counter("licensed_archive_segments_total", "Segments written to the archive."),
		bytes:     counter("licensed_archive_bytes_total", "Bytes of the segments written."),
		snapshots: counter("licensed_archive_snapshots_total", "Snapshots of idle customers moved to the archive."),
		scanned:   counter("licensed_archive_scanned_customers_total", "Customers examined by complete scans."),
		failures: archiveCauses.counter("licensed_archive_failures_total",
			"Failed attempts to archive, by cause; each is retried."),
	}
	r.MustRegister(m.failures)
	gauge("licensed_archive_waiting_customers", "Customers that wait for the archiver.",
		func(s archive.WorkerStats) float64 { return float64(s.Waiting) })
	gauge("licensed_archive_lag_seconds", "Longest time that a customer has waited for the archiver, in seconds.",
		func(s archive.WorkerStats) float64 { return s.Lag.Seconds() })
	gauge("licensed_archive_failing_seconds",
		"Time for which archiving has failed, in seconds; 0 if the last attempt succeeded.",
		func(s archive.WorkerStats) float64 { return s.Failing.Seconds() })
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "licensed_archive_dropped_customers_total",
		Help: "Customers not queued because the archiver's queue was full; its scan finds them later.",
	}, func() float64 { return float64(stats().Dropped) }))
	// A Cassandra archive has no size of its own.
	if size == nil {
		return m
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "licensed_archive_disk_bytes", Help: "Space used by the archive's files, in bytes; 0 if unknown.",
	}, func() float64 {
		// A scrape must not hang on a disk that does.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		bytes, err := size(ctx)
		if err != nil {
			return 0
		}
		return float64(bytes)
	}))
	return m
}

// archived counts one customer's move.
func (m *archiveMetrics) archived(i archive.ArchivedInfo) {
	m.events.Add(float64(i.Records))
	m.segments.Add(float64(i.Segments))
	m.bytes.Add(float64(i.Bytes))
	if i.Snapshot {
		m.snapshots.Inc()
	}
}
