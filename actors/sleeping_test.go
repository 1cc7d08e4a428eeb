package actors_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/memory"
)

func (s *setup) head(t *testing.T, id string) persistence.Head {
	t.Helper()
	h, err := s.Head(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *setup) leave(t *testing.T, id string) {
	t.Helper()
	until(t, id+" is out of memory", func() bool { _, left := s.Passivate(t.Context(), id); return left })
}

// TestHeadDoesNotLoad: a request for the head loads no aggregate, and returns what the aggregate itself would answer.
func TestHeadDoesNotLoad(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) { o.Config.ReadPage = 2 })
	if h := s.head(t, "nobody"); h != (persistence.Head{}) || s.Resident("nobody") {
		t.Errorf("head of nobody: %+v, in memory: %v", h, s.Resident("nobody"))
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
	s.leave(t, "Bayley")
	for range 100 {
		if h := s.head(t, "Bayley"); h != want.Head {
			t.Fatalf("head %+v, want %+v", h, want.Head)
		}
	}
	if st := s.Stats(); st.Resident != 0 || st.InFlight != 0 {
		t.Errorf("%+v", st)
	}
}

// TestHeadIsSettledOnce: after a change of owner the last events may be undecided. The aggregate settles them, once.
func TestHeadIsSettledOnce(t *testing.T) {
	store := memory.New()
	s := start(t, store, nil)
	if _, err := s.Execute(t.Context(), "Bayley", add("c", 1)); err != nil {
		t.Fatal(err)
	}
	s.leave(t, "Bayley")
	s.authority.epoch.Store(2)
	for range 10 {
		if h := s.head(t, "Bayley"); h.Sequence != 1 || h.Partition.Epoch != 2 {
			t.Fatalf("head %+v", h)
		}
		s.leave(t, "Bayley")
	}
	roots, err := store.ReadRoots(t.Context(), actors.AggregateID("Bayley", actorstest.Ledger{}),
		persistence.RootKey{}, 100)
	if err != nil || len(roots) != 2 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	s.authority.epoch.Store(0)
	if h, err := s.Head(t.Context(), "Bayley"); err == nil {
		t.Errorf("told without the shard: %+v", h)
	}
}

// meanwhile is a journal that does something while records are read.
type meanwhile struct {
	persistence.Journal
	do func()
}

func (m *meanwhile) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.Journal.ReadRecords(ctx, p, after, limit)
}

// TestHeadOfWhoWasLoadedMeanwhile: the records below the root that was read may be in the archive, and gone, by the
// time they are read. Then the aggregate itself is asked.
func TestHeadOfWhoWasLoadedMeanwhile(t *testing.T) {
	hot := memory.New()
	store := &meanwhile{Journal: hot}
	s := start(t, store, func(o *actors.Options) { o.Config.SnapshotEvery = 3 })
	execute := func(command string) {
		t.Helper()
		if _, err := s.Execute(t.Context(), "Bayley", add(command, 1)); err != nil {
			t.Fatal(err)
		}
	}
	execute("c1")
	execute("c2")
	s.leave(t, "Bayley")
	old := s.head(t, "Bayley")
	store.do = func() {
		for i := range 5 {
			execute(fmt.Sprint("d", i))
		}
		s.leave(t, "Bayley")
		if err := hot.DeleteRecords(t.Context(), old.Partition); err != nil {
			t.Fatal(err)
		}
	}
	if h := s.head(t, "Bayley"); h.Sequence != 7 {
		t.Errorf("the history ends at event %d, want 7", h.Sequence)
	}
}

// TestHeadRacesWithCommands: no head is before what was acknowledged when it was asked for.
func TestHeadRacesWithCommands(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) { o.Config.SnapshotEvery, o.Config.ReadPage = 5, 3 })
	const commands = 300
	var wg sync.WaitGroup
	done := make(chan struct{})
	acked := make(chan uint64, 1)
	acked <- 0
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := <-acked
				acked <- least
				h, err := s.Head(t.Context(), "Bayley")
				if err != nil || h.Sequence < least {
					t.Errorf("head at %d, %v; event %d was acknowledged", h.Sequence, err, least)
					return
				}
			}
		})
	}
	for i := range commands {
		r, err := s.Execute(t.Context(), "Bayley", add(fmt.Sprint("c", i), 1))
		if err != nil {
			t.Fatal(err)
		}
		<-acked
		acked <- r.Sequence
		if i%3 == 0 {
			s.Passivate(t.Context(), "Bayley")
		}
	}
	close(done)
	wg.Wait()
	s.leave(t, "Bayley")
	if h := s.head(t, "Bayley"); h.Sequence != commands {
		t.Errorf("head at %d", h.Sequence)
	}
}
