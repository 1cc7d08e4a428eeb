package node_test

import (
	"context"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	collectlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// otlp is a collector of traces.
type otlp struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]*v1.Span // by name
	logs  []*logs.LogRecord
}

// logService is the part of it for logs.
type logService struct {
	collectlogs.UnimplementedLogsServiceServer
	*otlp
}

func (c logService) Export(
	_ context.Context, r *collectlogs.ExportLogsServiceRequest,
) (*collectlogs.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			c.logs = append(c.logs, scope.LogRecords...)
		}
	}
	return &collectlogs.ExportLogsServiceResponse{}, nil
}

func (c *otlp) Export(
	_ context.Context, r *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans[s.Name] = s
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// startCollector starts a collector and returns its address.
func startCollector(t *testing.T) (*otlp, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &otlp{spans: make(map[string]*v1.Span)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	collectlogs.RegisterLogsServiceServer(server, logService{otlp: c})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return c, "http://" + l.Addr().String()
}

// path returns the names of a span and all above it, and its trace.
func (c *otlp) path(name string) (names []string, trace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := make(map[string]*v1.Span)
	for _, s := range c.spans {
		byID[string(s.SpanId)] = s
	}
	for s := c.spans[name]; s != nil; s = byID[string(s.ParentSpanId)] {
		names, trace = append(names, s.Name), hexOf(s.TraceId)
	}
	return names, trace
}

// TestTraceOfTwo: a trace continues from the gateway's process to the node's.
func TestTraceOfTwo(t *testing.T) {
	spans, endpoint := startCollector(t)
	c := newCompany(t)
	c.with = func(config *node.Config) { config.Traces.Endpoint, config.Traces.Ratio = endpoint, 1 }
	n, g := c.start("n", node.RoleNode), c.start("g", node.RoleGateway)
	settle(t, admin(g), "n")
	r := connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1",
	})
	const id = "0af7651916cd43dd8448eb211c80319c"
	r.Header().Set("traceparent", "00-"+id+"-b7ad6b7169203331-01")
	if _, err := client(g).AcquireLicense(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node.Node{g, n} {
		if err := n.Stop(context.Background()); err != nil { // Sends what is left.
			t.Fatal(err)
		}
	}
	names, trace := spans.path("store append")
	if trace != id || len(names) < 3 || names[1] != "actor execute" ||
		names[len(names)-1] != "licensed.v1.LicenseService/AcquireLicense" {
		t.Errorf("the append lies in trace %s, below %q", trace, names)
	}
}

// TestTrace follows a command from its client to the store.
func TestTrace(t *testing.T) {
	c, log := config(t)
	spans, endpoint := startCollector(t)
	c.Traces.Endpoint, c.Traces.Ratio = endpoint, 1
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	client := licensedv1connect.NewLicenseServiceClient(http.DefaultClient, "http://"+n.API().String())
	r := connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1",
	})
	const id = "0af7651916cd43dd8448eb211c80319c"
	r.Header().Set("traceparent", "00-"+id+"-b7ad6b7169203331-01")
	if _, err := client.AcquireLicense(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(context.Background()); err != nil { // Sends what is left.
		t.Fatal(err)
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	const call, actor = "licensed.v1.LicenseService/AcquireLicense", "actor execute"
	for name, parent := range map[string]string{
		actor: call, "store read": actor, "store put root": actor, "store append": actor,
	} {
		s := spans.spans[name]
		switch {
		case s == nil:
			t.Errorf("there is no span %q among %d; the log says\n%s", name, len(spans.spans), log)
		case string(s.ParentSpanId) != string(spans.spans[parent].GetSpanId()):
			t.Errorf("%q is not below %q", name, parent)
		}
	}
	if s := spans.spans[call]; s == nil || !strings.EqualFold(hexOf(s.TraceId), id) ||
		hexOf(s.ParentSpanId) != "b7ad6b7169203331" {
		t.Errorf("the call does not continue its client's trace: %v", s)
	}
}

// TestNoCollector: a collector that is missing costs traces and nothing else.
func TestNoCollector(t *testing.T) {
	c, log := config(t)
	c.Traces.Endpoint, c.Traces.Ratio = "http://127.0.0.1:1", 1
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Error(err)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
