package node_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// TestStopInAStall stops a node while its store does not answer: its lease ends, and with it all that there was to hand
// over. That is no failure of the stop.
func TestStopInAStall(t *testing.T) {
	store := faulty.New(memory.New(), nil)
	c := newCompany(t)
	c.store = store
	log := new(harness.Log)
	c.with = func(config *node.Config) {
		config.Logger = slog.New(slog.NewTextHandler(log, nil))
		config.Cluster.LeaseTTL, config.DrainDelay, config.DrainTimeout = 500*time.Millisecond, 0, time.Minute
	}
	n := c.start("n1", node.RoleNode|node.RoleGateway)
	settle(t, admin(n), "n1")
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Fatal(err)
	}
	store.SetScript(func(faulty.Call) faulty.Fault { return faulty.Fault{Kind: faulty.LoseRequest} })
	if err := n.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if text := "level=WARN msg=\"shards not handed over: the lease had ended"; countLines(log, text) != 1 {
		t.Errorf("the log does not have %q once:\n%s", text, log)
	}
}
