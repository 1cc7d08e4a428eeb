// Package tracing follows requests through the service: OpenTelemetry spans from the gateway to the
// owner of the customer, its actor and the store.
//
// # The model
//
//	licensed.v1.LicenseService/AcquireLicense    the call, at the gateway
//	└ actor execute                              at the owner: waiting, waking, deciding, the store, confirming
//	  ├ store read                               only if the customer had to be read from the store
//	  └ store append                             the write that the command waited for
//
// A call continues the trace of its client (W3C traceparent). Between the processes of a cluster the
// traceparent travels with the request. Inside of an owner there is no context to carry it: an actor
// works for many requests at once, and one write makes the commands of several durable. So the tracer
// remembers which traced commands are in progress, and a write is a span in the trace of each command that
// has records in it.
//
// What is traced is decided where a trace enters the service, by the configured ratio, and then holds for
// all of it; also a client that asks for each of its calls to be traced gets the ratio. A nil *Tracer
// traces nothing and costs nothing.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"licensed/internal/hideids"
)

// Config of a tracer.
type Config struct {
	// Endpoint of a collector that takes OTLP over gRPC: http://HOST:4317, or https for TLS; empty for no
	// traces.
	Endpoint string
	// Ratio of the traces that are kept, 0 to 1. More: more is seen, at the price of some microseconds and
	// a kilobyte to the collector for each call.
	Ratio float64
	// Instance and Version of the process.
	Instance, Version string
}

// Check returns what is wrong with a configuration.
func (c Config) Check() error {
	if c.Ratio < 0 || c.Ratio > 1 {
		return fmt.Errorf("trace-ratio: is %v, must be 0 to 1", c.Ratio)
	}
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("otlp-endpoint: %q is not like http://127.0.0.1:4317", c.Endpoint)
	}
	return nil
}

// Resource returns what the process says of itself to a collector.
func (c Config) Resource() *resource.Resource {
	return resource.NewSchemaless(attribute.String("service.name", "licensed"),
		attribute.String("service.instance.id", c.Instance), attribute.String("service.version", c.Version))
}

// Tracer makes spans. A nil *Tracer makes none. Safe for concurrent use.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer

	mu sync.Mutex
	// underWay are the spans of traced requests by aggregate and command; queries have no command.
	underWay map[string]map[string]trace.SpanContext
}

// Start returns a tracer that exports to the endpoint; nil if there is none. It does not wait for the
// collector, and what the collector does not take is dropped.
func Start(ctx context.Context, c Config) (*Tracer, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", c.Endpoint, err)
	}
	return New(c, sdktrace.WithBatcher(withoutTexts{exporter})), nil
}

// New returns a tracer with span processors of the caller's.
func New(c Config, options ...sdktrace.TracerProviderOption) *Tracer {
	ratio := sdktrace.TraceIDRatioBased(c.Ratio)
	options = append(options, sdktrace.WithResource(c.Resource()),
		// Without the second option, a client could have each of its calls traced.
		sdktrace.WithSampler(sdktrace.ParentBased(ratio, sdktrace.WithRemoteParentSampled(ratio))))
	provider := sdktrace.NewTracerProvider(options...)
	return &Tracer{
		provider: provider,
		tracer:   provider.Tracer("licensed"),
		underWay: make(map[string]map[string]trace.SpanContext),
	}
}

// Close exports what is left, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// withoutTexts exports spans of calls of the API without the texts of their errors. They are the answers to callers,
// which know the customer that they asked about; the code says what went wrong, and the spans below have the cause.
type withoutTexts struct{ sdktrace.SpanExporter }

// ExportSpans implements sdktrace.SpanExporter.
func (e withoutTexts) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	hidden := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		if hidden[i] = span; span.InstrumentationScope().Name == apiScope {
			hidden[i] = withoutText{span}
		}
	}
	return e.SpanExporter.ExportSpans(ctx, hidden)
}

// apiScope is the scope of the spans of Interceptors.
const apiScope = "connectrpc.com/otelconnect"

// withoutText is a span without the text of its error.
type withoutText struct{ sdktrace.ReadOnlySpan }

// Status implements sdktrace.ReadOnlySpan.
func (s withoutText) Status() sdktrace.Status {
	return sdktrace.Status{Code: s.ReadOnlySpan.Status().Code}
}

// Interceptors returns those that make a span of each call of the API.
func (t *Tracer) Interceptors() ([]connect.Interceptor, error) {
	if t == nil {
		return nil, nil
	}
	i, err := otelconnect.NewInterceptor(otelconnect.WithTracerProvider(t.provider),
		otelconnect.WithPropagator(propagation.TraceContext{}),
		otelconnect.WithTrustRemote(), otelconnect.WithoutMetrics(), otelconnect.WithoutServerPeerAttributes(),
		otelconnect.WithoutTraceEvents())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	return []connect.Interceptor{i}, nil
}

// traceparent is the field of W3C Trace Context.
const traceparent = "traceparent"

// Inject returns the traceparent of a request to another process of the cluster; empty for none.
func (t *Tracer) Inject(ctx context.Context) string {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := make(propagation.MapCarrier, 1)
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparent]
}

// Extract continues the trace of a request of another process of the cluster, which decided already that
// it is traced.
func (t *Tracer) Extract(ctx context.Context, parent string) context.Context {
	if t == nil || parent == "" {
		return ctx
	}
	there := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{traceparent: parent})
	return trace.ContextWithSpanContext(ctx, trace.SpanContextFromContext(there).WithRemote(false))
}

// Request begins the span of a command, or of a query if the command's id is empty, at the aggregate's
// owner. The function returned ends it.
func (t *Tracer) Request(ctx context.Context, aggregate, command string) (context.Context, func(error)) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, func(error) {}
	}
	name := "actor execute"
	if command == "" {
		name = "actor query"
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(
		attribute.String("licensed.customer_hash", hashOf(aggregate)),
		attribute.String("licensed.command_id", command)))
	t.begin(aggregate, command, span.SpanContext())
	return ctx, func(err error) {
		t.end(aggregate, command)
		finish(span, aggregate, err)
	}
}

// begin records that a traced request is in progress. Two with the same command's id
// share an entry: the second is a repetition, which waits for the same write.
func (t *Tracer) begin(aggregate, command string, s trace.SpanContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.underWay[aggregate] == nil {
		t.underWay[aggregate] = make(map[string]trace.SpanContext)
	}
	t.underWay[aggregate][command] = s
}

// end records that it is answered.
func (t *Tracer) end(aggregate, command string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.underWay[aggregate], command); len(t.underWay[aggregate]) == 0 {
		delete(t.underWay, aggregate)
	}
}

// parents returns the spans of the traced requests of an aggregate that are in progress.
func (t *Tracer) parents(aggregate string, wanted func(command string) bool) []trace.SpanContext {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []trace.SpanContext
	for command, s := range t.underWay[aggregate] {
		if wanted(command) {
			out = append(out, s)
		}
	}
	return out
}

// hashOf returns what stands for a customer in traces.
func hashOf(aggregate string) string { return hideids.Hash(customerOf(aggregate)) }

// customerOf returns the id of an aggregate's customer.
func customerOf(aggregate string) string {
	if i := strings.LastIndexByte(aggregate, ':'); i >= 0 {
		return aggregate[:i]
	}
	return aggregate
}

// spans are those of one piece of work for an aggregate in the traces of all requests that wait for it.
type spans struct {
	aggregate string
	all       []trace.Span
}

// start begins a span in the trace of each request that is wanted. There are none for work that no traced request
// waits for.
func (t *Tracer) start(
	name, aggregate string, wanted func(command string) bool, attributes ...attribute.KeyValue,
) spans {
	out := spans{aggregate: aggregate}
	for _, p := range t.parents(aggregate, wanted) {
		_, s := t.tracer.Start(trace.ContextWithSpanContext(context.Background(), p), name,
			trace.WithAttributes(attributes...))
		out.all = append(out.all, s)
	}
	return out
}

// end ends the spans.
func (s spans) end(err error) {
	for _, span := range s.all {
		finish(span, s.aggregate, err)
	}
}

// finish ends a span; a request whose client gave up is no error of the service. What the error says of the customer
// is hidden, as in hashOf.
func finish(s trace.Span, aggregate string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.SetStatus(codes.Error, hideids.Text(err.Error(), customerOf(aggregate)))
	}
	s.End()
}
