package actors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// failing is a journal whose next appends have an unknown outcome.
type failing struct {
	persistence.Journal
	fail atomic.Int64
}

func (f *failing) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	if f.fail.Add(-1) >= 0 {
		done(persistence.ErrUnknownOutcome)
		return
	}
	f.Journal.Append(ctx, m, done)
}

// TestPassivationReleasesMemory: an evicted aggregate is not kept by the timer of a snapshot interval, nor by one of
// the timers that retries need meanwhile.
func TestPassivationReleasesMemory(t *testing.T) {
	journal := &failing{Journal: memory.New()}
	s := start(t, journal, func(o *actors.Options) {
		o.Config.SnapshotInterval = 24 * time.Hour
		o.Config.CompactAfter, o.Config.IdleAfter = time.Hour, time.Hour
	})
	journal.fail.Store(4)
	if _, err := s.Execute(t.Context(), "a", add("c1", 1)); err != nil {
		t.Fatal(err)
	}
	activated, hotKept := s.Track("a")
	for left := false; !left; { // it may still be active on the reply
		_, left = s.Passivate(t.Context(), "a")
	}
	collected(t, "what the machine worked with", hotKept)
	s.total(t, "b") // the runtime knows the activation it spawned last
	collected(t, "the activation", activated)
}

// collected waits until the garbage collector has taken something.
func collected(t *testing.T, what string, kept func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); kept(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(until) {
			t.Errorf("%s is still in memory", what)
			return
		}
	}
}

// TestIdleTimesKnowNoWallClock sets the wall clock back and ahead: what is idle leaves all the same, and what is
// not stays.
func TestIdleTimesKnowNoWallClock(t *testing.T) {
	var wall, elapsed, sweeps atomic.Int64 // while no request is made, only sweeps ask what has elapsed
	wall.Store(time.Now().UnixNano())
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Now = func() time.Time { return time.Unix(0, wall.Load()) }
		o.Elapsed = func() time.Duration {
			sweeps.Add(1)
			return time.Duration(elapsed.Load())
		}
		o.Config.SweepEvery = time.Millisecond
	})
	s.total(t, "before")
	wall.Add(int64(-time.Hour))
	s.total(t, "after")
	elapsed.Add(int64(time.Minute))
	for s.Stats().Unpacked > 0 {
		time.Sleep(time.Millisecond)
	}
	s.total(t, "busy")
	wall.Add(int64(24 * time.Hour))
	elapsed.Add(int64(90 * time.Second))
	for s.Stats().Resident > 1 {
		time.Sleep(time.Millisecond)
	}
	elapsed.Add(int64(29 * time.Second))
	for n := sweeps.Load(); sweeps.Load() < n+2; { // one of them begins after that time
		time.Sleep(time.Millisecond)
	}
	if !s.Resident("busy") {
		t.Fatal("left memory before its time")
	}
}

// counted counts how often an aggregate is restored from a snapshot.
type counted struct {
	actorstest.Ledger
	restored *atomic.Int64
}

func (c counted) Restore(id string, s actors.Snapshot) (actors.Aggregate, error) {
	c.restored.Add(1)
	return c.Ledger.Restore(id, s)
}

// TestPackedAggregatesAreDroppedAsTheyAre: a lost lease drops very many aggregates at once. Those that are packed are
// not unpacked for it, neither by the drop nor by a request that comes before it.
func TestPackedAggregatesAreDroppedAsTheyAre(t *testing.T) {
	const aggregates = 100
	kind := counted{restored: &atomic.Int64{}}
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Kind = kind
		o.Config.CompactAfter, o.Config.SweepEvery = 10*time.Millisecond, time.Millisecond
	})
	for i := range aggregates {
		if _, err := s.Execute(t.Context(), fmt.Sprint("a", i), add("c1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all are packed", func() bool { return s.Stats().Unpacked == 0 })
	before := kind.restored.Load()
	s.authority.epoch.Store(0)
	if _, err := s.Execute(t.Context(), "a0", add("c2", 1)); !errors.Is(err, actors.ErrNotOwner) {
		t.Errorf("after the lease was lost: %v", err)
	}
	s.Drop(func(string) bool { return true })
	until(t, "all are dropped", func() bool { return s.Stats().Resident == 0 })
	if n := kind.restored.Load() - before; n != 0 {
		t.Errorf("%d aggregates were unpacked to be dropped", n)
	}
	if n := s.Stats().ResidentBytes; n != 0 {
		t.Errorf("%d bytes are counted for nothing", n)
	}
}

// TestDeadlinesKnowNoWallClock sets the wall clock by ten days, either way: requests are in time all the same, and
// what is repeated after a failure is repeated as soon as ever.
func TestDeadlinesKnowNoWallClock(t *testing.T) {
	for _, jump := range []time.Duration{240 * time.Hour, -240 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			var ahead atomic.Int64
			store := faulty.New(memory.New(), nil)
			now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			s := start(t, store, func(o *actors.Options) { o.Now = now })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			command := func(id string) actors.Command {
				c := add(id, 1)
				c.IssuedAt = now()
				return c
			}
			if _, err := s.Execute(ctx, "Bayley", command("before")); err != nil {
				t.Fatal(err)
			}
			fails := 3
			store.SetScript(func(c faulty.Call) faulty.Fault {
				if c.Op != faulty.Append || fails == 0 {
					return faulty.Fault{}
				}
				if fails--; fails == 0 {
					ahead.Store(int64(jump)) // while a pause is in progress
				}
				return faulty.Fault{Kind: faulty.LoseRequest}
			})
			if _, err := s.Execute(ctx, "Bayley", command("while it jumps")); err != nil {
				t.Errorf("while the clock jumps: %v", err)
			}
			r, err := s.Execute(ctx, "Bayley", command("after"))
			if err != nil {
				t.Errorf("after the jump: %v", err)
			}
			if jump > 0 && time.Until(r.Time) < jump-time.Hour {
				t.Errorf("the event has the time %v, not that of the wall clock", r.Time)
			}
		})
	}
}
