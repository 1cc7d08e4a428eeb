package node_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/persistence/memory"
	"licensed/persistence/pebble"
)

func TestMain(m *testing.M) { os.Exit(cassandratest.Main(m)) }

// smallRoots is a store that takes small roots only.
type smallRoots struct{ persistence.Store }

const largestRoot = 4000

func (smallRoots) MaxMutation() int { return largestRoot }

func (s smallRoots) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	if n := r.Size(); n > largestRoot {
		done(fmt.Errorf("%w: %d bytes", persistence.ErrRejected, n))
		return
	}
	s.Store.PutRoot(ctx, r, done)
}

// TestOverlargeCustomer: a customer whose state is too large for the store is answered for, also by a new owner.
// Commands that add to the state are refused, and those that free something are executed.
func TestOverlargeCustomer(t *testing.T) {
	stores := map[string]func(t *testing.T) persistence.Store{
		"memory": func(*testing.T) persistence.Store { return memory.New() },
		"pebble": func(t *testing.T) persistence.Store {
			s, err := pebble.Open(t.TempDir(), pebble.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		"cassandra": func(t *testing.T) persistence.Store {
			s, err := cassandra.Open(t.Context(), cassandratest.Keyspace(t, cassandratest.Shared(t), 1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) { testOverlargeCustomer(t, store(t)) })
	}
}

func testOverlargeCustomer(t *testing.T, store persistence.Store) {
	c := newCompany(t)
	c.store = smallRoots{store}
	c.with = func(config *node.Config) { config.Runtime.SnapshotEvery = 5 }
	first := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	rejected := func(err error) bool {
		return connect.CodeOf(err) == connect.CodeFailedPrecondition &&
			strings.Contains(err.Error(), "too large for the store")
	}
	acquired := 0
	for {
		err := acquireOf(t.Context(), g, "Bayley", fmt.Sprintf("%050d", acquired))
		if rejected(err) {
			break
		}
		if acquired++; err != nil || acquired > 1000 {
			t.Fatalf("after %d commands: %v", acquired, err)
		}
	}
	c.start("n2", node.RoleNode)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, admin(g), "n2")
	h := historyClient(g)
	events := uint64(len(recordsOf(t, g, "Bayley")))
	if list, err := client(g).ListLicenses(
		t.Context(), connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"}),
	); err != nil || len(list.Msg.Licenses) != 1 {
		t.Errorf("licences: %v, %v", list, err)
	}
	state, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
	if err != nil || len(state.Msg.Gaps) > 0 || state.Msg.Moment.Sequence != events ||
		state.Msg.State.ActiveLicenses != 1 {
		t.Errorf("state: %v, %v", state, err)
	}
	at := &licensedv1.GetStateRequest{
		CustomerId: "Bayley",
		At:         &licensedv1.GetStateRequest_Sequence{Sequence: events - 1},
	}
	if state, err = h.GetState(t.Context(), connect.NewRequest(at)); err != nil ||
		state.Msg.Moment.Sequence != events-1 || state.Msg.State.ActiveLicenses != 1 {
		t.Errorf("an earlier state: %v, %v", state, err)
	}
	why, err := h.Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01"}))
	if err != nil || len(why.Msg.Gaps) > 0 || why.Msg.License == nil {
		t.Errorf("why: %v, %v", why, err)
	}
	checked := func() {
		t.Helper()
		report := verifyOf(t, g)
		if report.HeadSequence == 0 || !report.LiveStateCompared {
			t.Errorf("verify: %v", report)
		}
		for _, f := range report.Findings {
			if f.Severity != licensedv1.Severity_SEVERITY_NOTE {
				t.Errorf("verify: %s: %s", f.Check, f.Message)
			}
		}
	}
	checked()
	if err := acquireOf(t.Context(), g, "Bayley", "more"); !rejected(err) {
		t.Errorf("a command that adds to the state: %v", err)
	}
	released, err := client(g).ReleaseLicense(t.Context(), connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "release",
	}))
	if err != nil || released.Msg.Sequence != events+1 {
		t.Errorf("release: %v, %v", released, err)
	}
	if got := uint64(len(recordsOf(t, g, "Bayley"))); got != events+1 {
		t.Errorf("%d events, before the release %d", got, events)
	}
	checked()
}
