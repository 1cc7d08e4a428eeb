package actors_test

import (
	"fmt"
	"testing"

	"licensed/actors"
	"licensed/persistence/memory"
)

// TestPassivatedHead: an aggregate that leaves says where its history ends, if the shard is held, and
// what it was told of the archive goes into its next root.
func TestPassivatedHead(t *testing.T) {
	store := memory.New()
	passivated := make(chan actors.PassivatedInfo, 1)
	s := start(t, store, func(o *actors.Options) {
		o.Listener.Passivated = func(i actors.PassivatedInfo) { passivated <- i }
		o.Config.SnapshotEvery = 2
	})
	leave := func() actors.PassivatedInfo {
		t.Helper()
		if resident, left := s.Passivate(t.Context(), "Bayley"); !resident || !left {
			t.Fatalf("resident %v, left %v", resident, left)
		}
		return <-passivated // may be told after the aggregate is gone
	}
	for i := range 5 {
		if _, err := s.Execute(t.Context(), "Bayley", add(fmt.Sprint("c", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := s.Query(t.Context(), "Bayley", actors.HeadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if got := leave(); got.Head == nil || *got.Head != want.Head || got.Head.Sequence != 5 || got.Head.Base != 4 ||
		got.ArchivedThrough != 0 {
		t.Fatalf("%+v, want the head %+v", got, want.Head)
	}
	s.total(t, "Bayley")
	s.NoteArchived("Bayley", 4)
	s.NoteArchived("Bayley", 3) // late news
	s.NoteArchived("nobody", 9)
	for i := range 3 { // until a new root is due
		if _, err := s.Execute(t.Context(), "Bayley", add(fmt.Sprint("d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := leave(); got.ArchivedThrough != 4 {
		t.Errorf("%+v, want 4", got)
	}
	if top, err := store.TopRoot(t.Context(), "Bayley:Ledger"); err != nil || top.ArchivedThrough != 4 {
		t.Errorf("top root says %d, %v, want 4", top.ArchivedThrough, err)
	}
	s.total(t, "Bayley") // a waking writes a root of its own
	if top, err := store.TopRoot(t.Context(), "Bayley:Ledger"); err != nil || top.ArchivedThrough != 4 {
		t.Errorf("next root says %d, %v, want 4", top.ArchivedThrough, err)
	}
	s.authority.epoch.Store(2)
	if got := leave(); got.ID != "Bayley" || got.Head != nil {
		t.Errorf("shard is not held: %+v", got)
	}
}
