package node

import (
	"context"
	"log/slog"
	"time"

	"licensed/internal/tracing"
	"licensed/internal/version"
)

// startTraces starts exporting traces, if that is configured. A collector that is missing costs traces
// and nothing else.
func (n *Node) startTraces(ctx context.Context) (err error) {
	c := n.config.Traces
	c.Instance, c.Version = n.name, version.Version()
	if n.tracer, err = tracing.Start(ctx, c); err != nil || n.tracer == nil {
		return err
	}
	n.log = slog.New(n.tracer.Log(n.log.Handler()))
	n.parts.Push("traces", n.closeTraces)
	return nil
}

// closeTraces sends what is left. That the collector does not take it is no reason for a stop to fail.
func (n *Node) closeTraces(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastTraces)
	defer cancel()
	if err := n.tracer.Close(ctx); err != nil {
		n.log.Warn("last traces lost", "error", err)
	}
	return nil
}

// lastTraces is the time a stop waits for a collector.
const lastTraces = 3 * time.Second
