package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/hideids"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// damagedCustomer starts a cluster with a customer of some events that is not in memory, whose newest snapshot is
// damaged.
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
	if _, err := admin(g).PassivateCustomer(t.Context(),
		connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
		t.Fatal(err)
	}
	store.DamageSnapshot("Bayley:LicenseAggregate")
	return store, n, g
}

func verifyOf(t *testing.T, g *node.Node) (report *licensedv1.CustomerReport) {
	stream, err := admin(g).VerifyCustomer(t.Context(),
		connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
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
	during := rehearse(t, scrapers{"n": scraped(t, n)}, "LicensedSnapshotDamaged")
	if err := acquireOf(t.Context(), g, "Bayley", "after"); err != nil {
		t.Fatal(err)
	}
	shows(t, n, []string{"licensed_customers_rebuilt_total 1"}, nil)
	during(scrapers{"n": scraped(t, n)})
	if !slices.ContainsFunc(status(t, admin(g)).Happenings, func(h *licensedv1.Happening) bool {
		return h.Kind == licensedv1.HappeningKind_HAPPENING_KIND_SNAPSHOT_DAMAGED && strings.Contains(h.Text, "Bayley")
	}) {
		t.Error("the status does not list the damaged snapshot among what happened")
	}
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
	hash := hideids.Hash("Bayley")
	if !strings.Contains(log.String(), "snapshot damaged, state rebuilt from events") ||
		!strings.Contains(log.String(), "customer_hash="+hash+" row="+hash+":LicenseAggregate:") {
		t.Errorf("not in the log:\n%s", log.String())
	}
}

// TestDamagedHistoryIsShown: where events are missing too, commands fail, and what is left can be read and examined.
func TestDamagedHistoryIsShown(t *testing.T) {
	store, n, g := damagedCustomer(t, slog.New(slog.DiscardHandler))
	during := rehearse(t, scrapers{"n": scraped(t, n)}, "LicensedHistoryCorrupt")
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
	during(scrapers{"n": scraped(t, n)})
	gaps, errs := 0, 0
	stream, err := historyClient(g).ListEvents(t.Context(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
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
	state, err := historyClient(g).GetState(t.Context(),
		connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
	if err != nil || len(state.Msg.Gaps) != 1 || state.Msg.Moment.Sequence != state.Msg.Gaps[0].FromSequence-1 ||
		state.Msg.State.ActiveLicenses == 0 {
		t.Errorf("what is left of the state: %v, %v", state, err)
	}
	why, err := historyClient(g).Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01"}))
	if err != nil || len(why.Msg.Gaps) != 1 || !strings.Contains(why.Msg.Verdict, "cannot be rebuilt") ||
		len(why.Msg.Steps) == 0 {
		t.Errorf("why: %v, %v", why, err)
	}
	if stream.Err() != nil || gaps != 1 || errs == 0 {
		t.Errorf("%d gaps, %v; %d errors were found", gaps, stream.Err(), errs)
	}
}

// TestDamagedSnapshotIsReadAround: readers get the whole history of a customer whose snapshot is damaged, and load no
// customer.
func TestDamagedSnapshotIsReadAround(t *testing.T) {
	_, n, g := damagedCustomer(t, slog.New(slog.DiscardHandler))
	h := historyClient(g)
	stream, err := h.ListEvents(t.Context(), connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	var end *licensedv1.HistoryEnd
	for stream.Receive() {
		end = stream.Msg().End
	}
	if err := stream.Err(); err != nil || end.GetGaps() != 0 || end.GetEvents() == 0 ||
		end.GetEvents() != end.GetHeadSequence() {
		t.Errorf("events: %v, %v", end, err)
	}
	state, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
	if err != nil || len(state.Msg.Gaps) > 0 || state.Msg.Moment.Sequence != end.GetHeadSequence() {
		t.Errorf("state: %v, %v", state, err)
	}
	why, err := h.Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01"}))
	if err != nil || len(why.Msg.Gaps) > 0 || why.Msg.License == nil {
		t.Errorf("why: %v, %v", why, err)
	}
	found := false
	for _, f := range verifyOf(t, g).Findings {
		found = found || strings.Contains(f.Message, "snapshot")
	}
	if !found || n.InMemory() != 0 {
		t.Errorf("the damage was found: %v; %d customers in memory", found, n.InMemory())
	}
}
