package node

import (
	"context"
	"log/slog"
	"time"

	"licensed/internal/tracing"
	"licensed/internal/version"
)

// collector returns where traces and audit records go, and what the process says of itself there.
func (n *Node) collector() tracing.Config {
	c := n.config.Traces
	c.Instance, c.Version = n.name, version.Version()
	return c
}

// startTraces starts exporting traces, if that is configured. A collector that is missing costs traces
// and nothing else.
func (n *Node) startTraces(ctx context.Context) (err error) {
	if n.tracer, err = tracing.Start(ctx, n.collector()); err != nil || n.tracer == nil {
		return err
	}
	n.log = slog.New(n.tracer.Log(n.log.Handler()))
	n.parts.Push("traces", n.closeTraces)
	return nil
}

// closeTraces sends what is left.
func (n *Node) closeTraces(ctx context.Context) error {
	return n.sendLast(ctx, "last traces lost", n.tracer.Close)
}

// sendLast sends the collector what is left. That it does not accept it is no reason for a stop to fail.
func (n *Node) sendLast(ctx context.Context, lost string, send func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, lastTraces)
	defer cancel()
	if err := send(ctx); err != nil {
		n.log.Warn(lost, "error", err)
	}
	return nil
}

// lastTraces is the time a stop waits for a collector.
const lastTraces = 3 * time.Second
