package actors_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// forgettable returns a store that has a cluster.
func forgettable(t *testing.T) *memory.Store {
	t.Helper()
	store := memory.New()
	if _, err := store.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "c", Shards: 1}); err != nil {
		t.Fatal(err)
	}
	return store
}

// forget has the runtime's process forget an aggregate.
func (s *setup) forget(t *testing.T, store persistence.Erasure, id string) (actors.Forgotten, error) {
	f := actors.Forgetting{
		Store: store, Now: time.Now,
		End:  func(ctx context.Context, cause error) error { return s.End(ctx, id, cause) },
		Held: func(context.Context) bool { return true },
	}
	return f.Forget(t.Context(), actors.AggregateID(id, actorstest.Ledger{}))
}

// TestForget: an aggregate that is forgotten while it is in memory refuses all that comes, and so does one that was
// not.
func TestForget(t *testing.T) {
	store := forgettable(t)
	s := start(t, store, nil)
	for _, id := range []string{"Ada", "Bayley"} {
		if _, err := s.Execute(t.Context(), id, add("c1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.leave(t, "Bayley")
	for _, id := range []string{"Ada", "Bayley"} {
		for _, before := range []bool{false, true} {
			done, err := s.forget(t, store, id)
			want := persistence.Erased{Roots: 1, Records: 1}
			if before {
				want = persistence.Erased{}
			}
			if err != nil || done.Before != before || done.Removed != want || done.Erased.IsZero() {
				t.Errorf("forget %s: %+v, %v", id, done, err)
			}
		}
		_, executed := s.Execute(t.Context(), id, add("c2", 1))
		_, repeated := s.Execute(t.Context(), id, add("c1", 1))
		_, answered := s.Query(t.Context(), id, actorstest.Total{})
		_, imported := s.Import(t.Context(), id, actors.Import{End: true})
		_, head := s.Head(t.Context(), id)
		for what, err := range map[string]error{
			"command": executed, "repeat": repeated, "query": answered, "import": imported, "head": head,
		} {
			var forgotten *persistence.ForgottenError
			if !errors.As(err, &forgotten) || time.Since(forgotten.At) > time.Minute {
				t.Errorf("%s of %s: %v", what, id, err)
			}
		}
	}
	if _, err := s.Execute(t.Context(), "Charlie", add("c1", 1)); err != nil {
		t.Errorf("another: %v", err)
	}
}

// TestForgetIsResumed: a forgetting that fails at any call of the store is completed by another, and from the tombstone
// on the aggregate is forgotten.
func TestForgetIsResumed(t *testing.T) {
	for _, op := range []faulty.Op{
		faulty.TombstoneKey, faulty.Tombstone, faulty.PutTombstone, faulty.EraseAggregate,
	} {
		for _, kind := range []faulty.Kind{faulty.LoseRequest, faulty.LoseReply} {
			store := faulty.New(forgettable(t), nil)
			s := start(t, store, nil)
			if _, err := s.Execute(t.Context(), "Ada", add("c1", 1)); err != nil {
				t.Fatal(err)
			}
			store.SetScript(func(c faulty.Call) faulty.Fault {
				if c.Op == op {
					return faulty.Fault{Kind: kind}
				}
				return faulty.Fault{}
			})
			if _, err := s.forget(t, store, "Ada"); !errors.Is(err, actors.ErrUnavailable) &&
				!errors.Is(err, actors.ErrUnknownOutcome) {
				t.Errorf("%v %v: %v", kind, op, err)
			}
			store.SetScript(nil)
			_, err := s.Execute(t.Context(), "Ada", add("c2", 1))
			if op == faulty.EraseAggregate && !errors.Is(err, actors.ErrForgotten) {
				t.Errorf("%v %v: a command after the tombstone: %v", kind, op, err)
			}
			if done, err := s.forget(t, store, "Ada"); err != nil || done.Erased.IsZero() {
				t.Errorf("%v %v: again: %+v, %v", kind, op, done, err)
			}
			if _, err := s.Execute(t.Context(), "Ada", add("c3", 1)); !errors.Is(err, actors.ErrForgotten) {
				t.Errorf("%v %v: a command afterwards: %v", kind, op, err)
			}
		}
	}
}

// TestForgetDisturbsHeads: no head is told of what was read before the aggregate was forgotten.
func TestForgetDisturbsHeads(t *testing.T) {
	store := faulty.New(forgettable(t), nil)
	s := start(t, store, nil)
	if _, err := s.Execute(t.Context(), "Ada", add("c1", 1)); err != nil {
		t.Fatal(err)
	}
	s.leave(t, "Ada")
	store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.ReadRecords {
			return faulty.Fault{Kind: faulty.Hold}
		}
		return faulty.Fault{}
	})
	result := make(chan error, 1)
	go func() { _, err := s.Head(t.Context(), "Ada"); result <- err }()
	until(t, "the records are being read", func() bool { return len(store.Held()) == 1 })
	if _, err := s.forget(t, store, "Ada"); err != nil {
		t.Fatal(err)
	}
	store.ReleaseAll()
	if err := <-result; !errors.Is(err, actors.ErrForgotten) {
		t.Errorf("head: %v", err)
	}
}
