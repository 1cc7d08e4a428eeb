package siege

import (
	"bytes"
	"context"
	"net"
	"sync"

	collectlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collecttraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// collector takes traces and logs over OTLP, and keeps what they say, up to keptBytes.
type collector struct {
	server  *grpc.Server
	address string

	mu     sync.Mutex
	traces bytes.Buffer
}

// keptBytes bounds what is kept to look for secrets.
const keptBytes = 64 << 20

type (
	traceService struct {
		collecttraces.UnimplementedTraceServiceServer
		*collector
	}
	logService struct {
		collectlogs.UnimplementedLogsServiceServer
		*collector
	}
)

// newCollector starts one on a free port of this machine.
func newCollector() (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &collector{server: grpc.NewServer(grpc.MaxRecvMsgSize(keptBytes)), address: l.Addr().String()}
	collecttraces.RegisterTraceServiceServer(c.server, traceService{collector: c})
	collectlogs.RegisterLogsServiceServer(c.server, logService{collector: c})
	go func() { _ = c.server.Serve(l) }() // It ends by stop.
	return c, nil
}

func (c *collector) url() string { return "http://" + c.address }

func (c *collector) stop() { c.server.Stop() }

// keep keeps traces. Strings of protobuf are in its bytes as they are.
func (c *collector) keep(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.traces.Len()+len(b) <= keptBytes {
		c.traces.Write(b)
	}
	return nil
}

// Export implements collecttraces.TraceServiceServer.
func (t traceService) Export(
	_ context.Context, r *collecttraces.ExportTraceServiceRequest,
) (*collecttraces.ExportTraceServiceResponse, error) {
	return &collecttraces.ExportTraceServiceResponse{}, t.keep(r)
}

// Export implements collectlogs.LogsServiceServer. The audit log names customers, as it must: it is not kept.
func (logService) Export(
	context.Context, *collectlogs.ExportLogsServiceRequest,
) (*collectlogs.ExportLogsServiceResponse, error) {
	return &collectlogs.ExportLogsServiceResponse{}, nil
}

// text returns what was collected of traces.
func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.traces.String()
}
