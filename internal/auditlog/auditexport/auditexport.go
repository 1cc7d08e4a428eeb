// Package auditexport sends the records of an audit log to a collector, beside the file: OpenTelemetry logs over OTLP.
//
// # The model
//
// The file is the audit log; the export is a copy of it on another machine, where who can write the file cannot change
// it. The body of a log record is the line of the file, so that `licensectl audit verify` can check a file of bodies,
// too. The attributes have its fields, for searches.
//
// A record is exported after it is in the file, and nobody waits for it. At most maxWaiting records wait for the
// collector; further ones are dropped, and counted, and so are those that the collector does not accept in time. Their
// lines are in the file.
package auditexport

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"

	"licensed/internal/auditlog"
	"licensed/internal/tracing"
)

// maxWaiting bounds the records that wait for the collector.
const maxWaiting = 2048

// Exporter sends records. A nil *Exporter sends none. It is safe for concurrent use.
type Exporter struct {
	provider *sdklog.LoggerProvider
	logger   log.Logger
	waiting  atomic.Int64
	results  *prometheus.CounterVec
}

// Results of records.
const (
	sent     = "sent"
	rejected = "rejected" // by the collector, or it could not be reached
	full     = "full"     // too many wait
)

// Start returns an exporter to the endpoint for traces; nil if there is none. It does not wait for the collector. The
// logger hears when the collector begins and ceases to accept records.
func Start(ctx context.Context, c tracing.Config, registry prometheus.Registerer, logger *slog.Logger) (
	*Exporter, error,
) {
	if c.Endpoint == "" {
		return nil, nil
	}
	client, err := otlploggrpc.New(ctx, otlploggrpc.WithEndpointURL(c.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("audit log to %s: %w", c.Endpoint, err)
	}
	return start(c, client, registry, logger)
}

func start(c tracing.Config, client sdklog.Exporter, registry prometheus.Registerer, logger *slog.Logger) (
	*Exporter, error,
) {
	e := &Exporter{results: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "licensed_audit_export_records_total",
		Help: "Records of the audit log for the collector, by result: sent; rejected and full are in the file only.",
	}, []string{"result"})}
	for _, result := range []string{sent, rejected, full} {
		e.results.WithLabelValues(result) // Alerts need it before the first one.
	}
	if err := registry.Register(e.results); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	// The queue never fills up: Appended counts what is in it.
	e.provider = sdklog.NewLoggerProvider(sdklog.WithResource(c.Resource()), sdklog.WithProcessor(
		sdklog.NewBatchProcessor(&counting{Exporter: client, to: e, logger: logger},
			sdklog.WithMaxQueueSize(2*maxWaiting))))
	e.logger = e.provider.Logger("licensed/audit")
	return e, nil
}

// Appended sends a record that is in the file, and its line there. It implements auditlog.Listener.Appended, and does
// not wait.
func (e *Exporter) Appended(r auditlog.Record, line []byte) {
	if e == nil {
		return
	}
	if e.waiting.Add(1) > maxWaiting {
		e.waiting.Add(-1)
		e.results.WithLabelValues(full).Inc()
		return
	}
	var out log.Record
	out.SetEventName("licensed.audit")
	out.SetTimestamp(r.Time)
	out.SetObservedTimestamp(time.Now())
	out.SetBody(attribute.StringValue(string(line)))
	out.SetSeverity(log.SeverityInfo)
	if r.Decision != auditlog.Allowed {
		out.SetSeverity(log.SeverityWarn)
	}
	out.AddAttributes(attribute.Int64("audit.number", int64(r.Number)))
	for _, a := range [][2]string{
		{"audit.principal", r.Principal}, {"audit.roles", r.Roles}, {"audit.source", r.Source},
		{"audit.method", r.Method}, {"audit.customer", r.Customer}, {"audit.reason", r.Reason},
		{"audit.decision", r.Decision},
	} {
		if a[1] != "" {
			out.AddAttributes(attribute.String(a[0], a[1]))
		}
	}
	e.logger.Emit(context.Background(), out)
}

// Close sends what is left, until ctx ends.
func (e *Exporter) Close(ctx context.Context) error {
	if e == nil {
		return nil
	}
	return e.provider.Shutdown(ctx)
}

// counting counts what becomes of records.
type counting struct {
	sdklog.Exporter
	to      *Exporter
	logger  *slog.Logger
	failing atomic.Bool
}

// Export implements sdklog.Exporter. Errors are counted here, and end here.
func (c *counting) Export(ctx context.Context, records []sdklog.Record) error {
	err := c.Exporter.Export(ctx, records)
	result := sent
	if err != nil {
		result = rejected
	}
	c.to.waiting.Add(-int64(len(records)))
	c.to.results.WithLabelValues(result).Add(float64(len(records)))
	if c.failing.Swap(err != nil) != (err != nil) {
		if err != nil {
			c.logger.Warn("audit log not exported, it is in the file only", "error", err)
		} else {
			c.logger.Info("audit log exported again")
		}
	}
	return nil
}
