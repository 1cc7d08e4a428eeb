package actors_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/persistence/tiered"
)

// damagedStart starts a runtime that can look below damaged roots, and a channel of what was rebuilt.
func damagedStart(t *testing.T, store *memory.Store, every int) (*setup, chan actors.ActivatedInfo) {
	rebuilt := make(chan actors.ActivatedInfo, 16)
	reader := tiered.NewReader(store, nil, nil)
	return start(t, store, func(o *actors.Options) {
		o.Config.SnapshotEvery = every
		o.Past = func(ctx context.Context, top persistence.Root) (persistence.Past, error) {
			return reader.Past(ctx, top, nil)
		}
		o.Listener.Activated = func(i actors.ActivatedInfo) {
			if i.Damage != nil {
				rebuilt <- i
			}
		}
	}), rebuilt
}

// TestDamagedSnapshot: a customer whose newest snapshots cannot be read is rebuilt from its events, with the window
// of its commands, and has a new root; without all events it is corrupt.
func TestDamagedSnapshot(t *testing.T) {
	const aggregate = "Bayley:Ledger"
	for _, every := range []int{3, 100} { // with older roots, and with the first root only
		store := memory.New()
		s, rebuilt := damagedStart(t, store, every)
		issued := time.Now()
		for i := range 11 {
			c := add(fmt.Sprint("c", i), 1)
			c.IssuedAt = issued
			if _, err := s.Execute(t.Context(), "Bayley", c); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // the new root is damaged as well
			if _, left := s.Passivate(t.Context(), "Bayley"); !left {
				t.Fatal("is at work")
			}
			before, err := store.TopRoot(t.Context(), aggregate)
			if err != nil {
				t.Fatal(err)
			}
			store.DamageSnapshot(aggregate)
			if got := s.total(t, "Bayley"); got != 11 {
				t.Errorf("every %d: the total is %d, want 11", every, got)
			}
			if i := <-rebuilt; i.Damaged != before.Key || !errors.Is(i.Damage, persistence.ErrCorrupt) ||
				i.Rebuilt > 11 {
				t.Errorf("every %d: told of %+v", every, i)
			}
			if top, err := store.TopRoot(t.Context(), aggregate); err != nil || top.Damage != nil ||
				top.Parent != before.Key || top.Base != 11 {
				t.Errorf("every %d: top root %+v, %v", every, top, err)
			}
			for i := range 11 {
				c := add(fmt.Sprint("c", i), 1)
				c.IssuedAt = issued
				if r, err := s.Execute(t.Context(), "Bayley", c); err != nil || !r.Duplicate ||
					r.Sequence != uint64(i+1) {
					t.Errorf("every %d: c%d again: %+v, %v", every, i, r, err)
				}
			}
		}
	}
}

// TestDamagedHistory: if events are missing as well, nothing is decided.
func TestDamagedHistory(t *testing.T) {
	store := memory.New()
	s, _ := damagedStart(t, store, 3)
	for i := range 4 {
		if _, err := s.Execute(t.Context(), "Bayley", add(fmt.Sprint("c", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Passivate(t.Context(), "Bayley")
	top, err := store.TopRoot(t.Context(), "Bayley:Ledger")
	if err != nil {
		t.Fatal(err)
	}
	store.DamageSnapshot("Bayley:Ledger")
	if err := store.DeleteRecords(t.Context(), top.ParentPartition()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Query(t.Context(), "Bayley", actorstest.Total{}); !errors.Is(err, actors.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}
