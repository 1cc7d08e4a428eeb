package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// damagedCustomer starts a cluster with a customer of some events that is not in memory, whose newest snapshot is damaged.
func damagedCustomer(t *testing.T, log *slog.Logger) (*memory.Store, *node.Node, *node.Node) {
	store := memory.New()
	c := newCompany(t)
	c.store = store
	c.with = func(config *node.Config) {
		config.Runtime.SnapshotEvery = 3
		if log != nil {
			config.Logger = log
		}
	}
	n := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	for i := range 5 {
		if err := acquireOf(t.Context(), g, "Bayley", fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin(g).PassivateCustomer(t.Context(), connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
		t.Fatal(err)
	}
	store.DamageSnapshot("Bayley:LicenseAggregate")
	return store, n, g
}

func verifyOf(t *testing.T, g *node.Node) (report *licensedv1.CustomerReport) {
	stream, err := admin(g).VerifyCustomer(t.Context(), connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
		report = stream.Msg().Report
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestDamagedSnapshotIsRebuilt: it is an alarm, and the customer is served as before.
func TestDamagedSnapshotIsRebuilt(t *testing.T) {
	var log bytes.Buffer // of both processes; a handler locks it
	_, n, g := damagedCustomer(t, slog.New(slog.NewTextHandler(&log, nil)))
	if err := acquireOf(t.Context(), g, "Bayley", "after"); err != nil {
		t.Fatal(err)
	}
	shows(t, n, []string{"licensed_customers_rebuilt_total 1"}, nil)
	for _, f := range verifyOf(t, g).Findings {
		if f.Severity == licensedv1.Severity_SEVERITY_ERROR {
			t.Errorf("%s: %s", f.Check, f.Message)
		}
	}
	for _, stop := range []*node.Node{g, n} { // before the log is read
		if err := stop.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(log.String(), "snapshot damaged, state rebuilt from events") || !strings.Contains(log.String(), "customer=Bayley row=Bayley:LicenseAggregate:") {
		t.Errorf("not in the log:\n%s", log.String())
	}
}

// TestDamagedHistoryIsShown: where events are missing too, commands fail, and what is left can be read and examined.
func TestDamagedHistoryIsShown(t *testing.T) {
	store, _, g := damagedCustomer(t, slog.New(slog.DiscardHandler))
	roots, err := store.ReadRoots(t.Context(), "Bayley:LicenseAggregate", persistence.RootKey{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.DeleteRecords(context.Background(), roots[0].ParentPartition()); err != nil {
		t.Fatal(err)
	}
	if err := acquireOf(t.Context(), g, "Bayley", "after"); connect.CodeOf(err) != connect.CodeDataLoss {
		t.Errorf("a command: %v, want DATA_LOSS", err)
	}
	gaps, errs := 0, 0
	stream, err := historyClient(g).ListEvents(t.Context(), connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			if i.GetGap() != nil {
				gaps++
			}
		}
	}
	for _, f := range verifyOf(t, g).Findings {
		if f.Severity == licensedv1.Severity_SEVERITY_ERROR {
			errs++
		}
	}
	if stream.Err() != nil || gaps != 1 || errs == 0 {
		t.Errorf("%d gaps, %v; %d errors were found", gaps, stream.Err(), errs)
	}
}
