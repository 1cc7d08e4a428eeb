package node_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/internal/hideids"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// talkative is a store whose errors name the customer, as those of the real ones do.
type talkative struct {
	persistence.Store
	failing atomic.Bool
}

func (s *talkative) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	if s.failing.Load() {
		return persistence.Root{}, fmt.Errorf("roots of %s: %w", aggregate, persistence.ErrCorrupt)
	}
	return s.Store.TopRoot(ctx, aggregate)
}

func (s *talkative) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	if s.failing.Load() {
		done(fmt.Errorf("append to %v: %w", m.Partition, persistence.ErrRejected))
		return
	}
	s.Store.Append(ctx, m, done)
}

// canaryCluster is a cluster that logs everything about a canary customer: its commands, refusals, errors, archive
// and erasure. It returns what was logged, and the metrics of its processes.
func canaryCluster(t *testing.T, logIDs bool) (log *harness.Log, metrics string) {
	t.Helper()
	c := newCompany(t)
	store := &talkative{Store: memory.New()}
	c.store, log = store, new(harness.Log)
	c.with = func(config *node.Config) {
		config.LogCustomerIDs = logIDs
		config.Runtime.SnapshotEvery = 5
		config.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	a := admin(g)
	settle(t, a, "n1")
	ctx := t.Context()
	passivate := func() {
		t.Helper()
		if _, err := a.PassivateCustomer(ctx,
			connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: canaries[0]})); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		_ = acquireCanary(ctx, g, fmt.Sprint("c", i)) // Some are refused by the rules.
	}
	passivate()
	store.failing.Store(true)
	if err := acquireCanary(ctx, g, "damaged"); err == nil {
		t.Fatal("a damaged customer acquires")
	}
	_, _ = a.ImportCustomer(ctx, connect.NewRequest(&licensedv1.ImportCustomerRequest{
		CustomerId: canaries[0], Records: [][]byte{{1, 2, 3}}, Last: true,
	}))
	_, _ = a.ArchiveCustomer(ctx,
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: canaries[0], All: true}))
	_, _ = client(g).GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: canaries[0]}))
	for _, path := range []string{"customers/", "customers/%00", "devices/"} {
		if res, err := http.Get("http://" + g.Admin().String() + "/dashboard/" + path + canaries[0]); err == nil {
			_ = res.Body.Close()
		}
	}
	store.failing.Store(false)
	if _, err := forget(ctx, a, canaries[0]); err != nil {
		t.Fatal(err)
	}
	for _, process := range []*node.Node{n, g} {
		res, err := http.Get("http://" + process.Admin().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		metrics += string(page)
	}
	return log, metrics
}

// TestLogsHideCustomers: at no level, and in no error, a line or metric has the id of a customer, unless the operator
// wants it.
func TestLogsHideCustomers(t *testing.T) {
	log, metrics := canaryCluster(t, false)
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, canaries[0]) {
			t.Errorf("the log has an id: %s", line)
		}
	}
	if !strings.Contains(log.String(), hideids.HashKey+"="+hideids.Hash(canaries[0])) {
		t.Error("no line is about the customer")
	}
	if strings.Contains(metrics, canaries[0]) || !strings.Contains(metrics, "licensed_gateway_") {
		t.Error("metrics have an id, or were not read")
	}
	if log, _ := canaryCluster(t, true); !strings.Contains(log.String(), "customer="+canaries[0]) {
		t.Error("no line has an id, though the operator wants it")
	}
}
