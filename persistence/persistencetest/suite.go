// Package persistencetest is the conformance suite that every store passes. It is a package of its
// own so that production code never imports testing.
//
// A [Driver] tells how to open one kind of store and how it differs from the others, as data: what a
// store cannot do (lose power, have its rows damaged) is a nil function, and the cases that need it
// are skipped by name. What all stores must do has no switch.
//
//	func TestConformance(t *testing.T) {
//		persistencetest.Run(t, persistencetest.Driver{New: ...})
//	}
package persistencetest

import (
	"context"
	"sync/atomic"
	"testing"

	"licensed/persistence"
)

// Driver tells the suite how to handle one kind of store.
type Driver struct {
	// New returns an empty place for a store to keep its rows. What it holds is released by
	// t.Cleanup. Each case gets a place of its own.
	New func(t testing.TB) *Place

	// AtomicMutations says that a mutation whose outcome a crash left unknown is present as a whole or
	// not at all. Other stores may show any part of it.
	AtomicMutations bool

	// MaxMutationBytes is the size of data above which Append reports ErrRejected; 0 if there is none
	// that a test should try.
	MaxMutationBytes int
}

// Place is where one store keeps its rows. At most one store is open in a place at a time.
type Place struct {
	// Open opens the store, also again after Close or PowerLoss.
	Open func() (persistence.Store, error)

	// PowerLoss makes the open store's machine lose power at this moment: what is not durable may
	// vanish, in part or as a whole. The store that was open may still be called, but changes
	// nothing that the next Open sees. Nil if the store cannot be treated like that.
	PowerLoss func(t testing.TB)

	// CorruptRoot and CorruptRecord damage one stored row while no store is open. Nil if impossible.
	CorruptRoot   func(t testing.TB, key persistence.RootKey)
	CorruptRecord func(t testing.TB, p persistence.Partition, sequence uint64)

	// DamageSnapshot damages the snapshot of a stored root, and nothing else of it, while no store is open. Nil if
	// impossible.
	DamageSnapshot func(t testing.TB, key persistence.RootKey)
}

// Run runs all cases against the driver's store.
func Run(t *testing.T, d Driver) {
	t.Run("Journal", func(t *testing.T) { runJournal(t, d) })
	t.Run("Durability", func(t *testing.T) { runDurability(t, d) })
	t.Run("Ownership", func(t *testing.T) { runOwnership(t, d) })
	t.Run("Votes", func(t *testing.T) { runVotes(t, d) })
	t.Run("Erasure", func(t *testing.T) { runErasure(t, d) })
	t.Run("Housekeeping", func(t *testing.T) { runHousekeeping(t, d) })
}

// fixture is a place and the store open in it.
type fixture struct {
	testing.TB
	driver Driver
	place  *Place
	store  persistence.Store
}

// open opens a store in a new place, and closes it at the end of the test.
func open(t testing.TB, d Driver) *fixture {
	t.Helper()
	f := &fixture{TB: t, driver: d, place: d.New(t)}
	f.open()
	t.Cleanup(func() {
		if f.store != nil {
			f.close()
		}
	})
	return f
}

// open opens the store of the place.
func (f *fixture) open() {
	f.Helper()
	s, err := f.place.Open()
	if err != nil {
		f.Fatalf("open: %v", err)
	}
	f.store = s
}

// close closes the store, which must succeed.
func (f *fixture) close() {
	f.Helper()
	if err := f.store.Close(); err != nil {
		f.Errorf("close: %v", err)
	}
	f.store = nil
}

// reopen closes the store and opens it again: what is read next comes from where rows are
// kept.
func (f *fixture) reopen() {
	f.Helper()
	f.close()
	f.open()
}

// start starts a write and returns the channel that its outcome arrives on. The test fails if done is
// called again.
func (f *fixture) start(write func(done func(error))) <-chan error {
	outcome := make(chan error, 1)
	var calls atomic.Int32
	write(func(err error) {
		if calls.Add(1) > 1 {
			f.Errorf("done was called %d times", calls.Load())
			return
		}
		outcome <- err
	})
	return outcome
}

// startAppend starts an append.
func (f *fixture) startAppend(m *persistence.Mutation) <-chan error {
	return f.start(func(done func(error)) { f.store.Append(f.Context(), m, done) })
}

// startPutRoot starts the write of a root.
func (f *fixture) startPutRoot(r *persistence.Root) <-chan error {
	return f.start(func(done func(error)) { f.store.PutRoot(f.Context(), r, done) })
}

// append writes a mutation that must succeed.
func (f *fixture) append(p persistence.Partition, records ...persistence.Record) {
	f.Helper()
	if err := <-f.startAppend(&persistence.Mutation{Partition: p, Records: records}); err != nil {
		f.Fatalf("append to %v: %v", p, err)
	}
}

// putRoot writes roots that must succeed.
func (f *fixture) putRoot(roots ...persistence.Root) {
	f.Helper()
	for i := range roots {
		if err := <-f.startPutRoot(&roots[i]); err != nil {
			f.Fatalf("put root %v: %v", roots[i].Key, err)
		}
	}
}

// ctx is short for Context.
func (f *fixture) ctx() context.Context { return f.Context() }
