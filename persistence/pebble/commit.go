package pebble

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/cespare/xxhash/v2"
	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Group commit works as follows. Callers encode their rows into the group that is open, under s.mu,
// and continue. The committer takes the group and hands its batch to the engine, which puts it into the
// log's buffer and makes it visible; the acknowledger waits until the log is synced, and calls the
// callbacks. While one group is being synced the next one is put into the log, to be covered by the
// sync after, and another one collects writes.
//
// A group is taken as soon as it is at least as large as all that is in progress. So a lone write goes
// at once, groups grow with the load and with the time that a sync takes, and a group that just
// missed a sync still makes it into the next: there is no timer and nothing to set.

const (
	// maxGroup is the size of a batch, in bytes, from which on a new group is opened. Beyond the
	// engine's limit for keeping the memory of a batch there is nothing to gain.
	maxGroup = 512 << 10
	// maxFlying bounds the groups between committer and acknowledger; there are rarely more than two.
	maxFlying = 4
	// maxIdle bounds the groups kept for use again.
	maxIdle = 4
)

// group is writes that share one batch and one sync. Store.mu guards it, except for the
// batch once the committer took the group. A group is first pending, then flying, and
// then landed; group commit never reorders groups, so that the numbers of landed ones are
// a prefix.
type group struct {
	number  uint64 // in the order of the log, from 1
	batch   *pebbledb.Batch
	waiters []waiter
	writes  int // waiters and compare-and-sets
	// durable, if anyone waits for it, is closed when the group is durable.
	durable chan struct{}
}

// waiter is the caller of a write, who is told its outcome exactly once.
type waiter struct {
	done func(error)
	// One of these names the write in errors.
	mutation *persistence.Mutation
	root     *persistence.Root
}

// tell tells an outcome that is not success, with the name of the write; see the function
// tell for success.
func (w waiter) tell(err error) {
	switch {
	case err == nil:
	case w.mutation != nil:
		err = appendError(w.mutation, err)
	case w.root != nil:
		err = putRootError(w.root, err)
	}
	w.done(err)
}

// openGroup returns the group that collects writes, for one more, of that aggregate; "" if it is of none.
// Requires s.mu.
func (s *Store) openGroup(aggregate string) *group {
	g := s.lastGroup()
	g.writes++
	s.pendingWrites++
	if aggregate != "" {
		*s.touched.by(aggregate) = g.number
	}
	return g
}

// touched has the number of the last group that writes something of an aggregate, by hash of its id. A
// read of another aggregate that shares the place waits for a sync that does not concern it.
type touched [1 << 13]uint64

// by returns the place of an aggregate.
func (t *touched) by(aggregate string) *uint64 {
	return &t[xxhash.Sum64String(aggregate)%uint64(len(t))]
}

// lastGroup returns the last pending group, or opens one. A group that reached maxGroup
// takes no more writes. Requires s.mu.
func (s *Store) lastGroup() *group {
	if n := len(s.pending); n > 0 && s.pending[n-1].batch.Len() < maxGroup {
		return s.pending[n-1]
	}
	g := &group{}
	if n := len(s.idle); n > 0 {
		g, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	g.batch = s.db.NewBatch()
	s.lastNumber++
	g.number = s.lastNumber
	s.pending = append(s.pending, g)
	return g
}

// wakeCommitter tells the committer if there is something to do. Requires s.mu.
func (s *Store) wakeCommitter() {
	if s.ready() {
		s.work.Signal()
	}
}

// ready reports whether the committer is to take a group, or to end. Requires s.mu. This
// is the rule above: what waits is at least as much as what is in progress.
func (s *Store) ready() bool {
	return s.pendingWrites > 0 && s.pendingWrites >= s.flyingWrites || s.err != nil
}

// put adds a row to a group. Requires s.mu.
func (s *Store) put(g *group, key, value []byte) {
	if err := g.batch.Set(key, value, nil); err != nil {
		panic(fmt.Sprintf("pebble: plain batch refused a row: %v", err)) // it never does
	}
}

// commit hands groups to the engine until the store is closed or stopped. It is the only
// caller of [Store.apply], so the log has the groups in the order of their numbers.
func (s *Store) commit() {
	defer close(s.syncing)
	for {
		g := s.nextGroup()
		if g == nil {
			return
		}
		s.synced.stamp(g.batch)
		if err := s.apply(g.batch); err != nil {
			s.stop(err)
			return
		}
		// With maxFlying groups not yet acknowledged the channel is full: the committer
		// then waits for the disk.
		select {
		case s.syncing <- g:
		case <-s.stopped:
			return
		}
	}
}

// nextGroup waits for a group and moves it to flying; nil means that none will come.
func (s *Store) nextGroup() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.ready() {
		s.work.Wait()
	}
	if len(s.pending) == 0 {
		return nil
	}
	g := s.pending[0]
	// Shifted down, so that the slice keeps its space.
	s.pending = append(s.pending[:0], s.pending[1:]...)
	s.flying = append(s.flying, g)
	s.pendingWrites -= g.writes
	s.flyingWrites += g.writes
	return g
}

// apply gives a batch to the engine, which panics on some errors of its log: a store with
// a panic stops like one with an error, and tells its writers. It returns before the
// sync, when the rows are visible to readers.
func (s *Store) apply(b *pebbledb.Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			cause, ok := p.(error)
			if !ok {
				cause = fmt.Errorf("%v\n%s", p, debug.Stack())
			}
			err = fmt.Errorf("write-ahead log: %w", cause)
		}
	}()
	if planted.Bug(planted.AcknowledgeUnsynced) {
		return s.db.Apply(b, pebbledb.NoSync)
	}
	return s.db.ApplyNoSyncWait(b, pebbledb.Sync)
}

// acknowledge waits for the sync of each group and tells its writers. Callbacks run here,
// or on goroutines that it waits for: one that blocks holds back all writers.
func (s *Store) acknowledge() {
	for g := range s.syncing {
		if err := g.batch.SyncWait(); err != nil {
			s.stop(fmt.Errorf("sync of the write-ahead log: %w", err))
			return
		}
		s.synced.raise(g.batch)
		waiters, ok := s.landed(g)
		if !ok {
			return
		}
		tell(waiters)
		// The batch's memory is the engine's; it must be closed only after the sync.
		if err := g.batch.Close(); err != nil {
			s.stop(fmt.Errorf("batch: %w", err))
			return
		}
		clear(waiters)
		s.recycle(g, waiters[:0])
	}
}

// share is the number of callbacks one goroutine runs: they may do what callers do next, and a large group
// keeps all processors busy.
const share = 64

// tell tells writers that they are durable, and returns when all were told. Within a
// share the order is that of the writes.
func tell(waiters []waiter) {
	var others sync.WaitGroup
	for len(waiters) > share {
		part := waiters[:share]
		waiters = waiters[share:]
		others.Go(func() {
			for i := range part {
				part[i].done(nil)
			}
		})
	}
	for i := range waiters {
		waiters[i].done(nil)
	}
	others.Wait()
}

// landed takes a durable group, the first one flying, out of the books and returns the
// writers to tell. It returns false if the store stopped meanwhile: they are then being
// told otherwise.
func (s *Store) landed(g *group) ([]waiter, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed {
		return nil, false
	}
	s.flying = append(s.flying[:0], s.flying[1:]...)
	s.durable = g.number
	if s.rowsIn == g {
		s.rowsIn = nil
	}
	if g.durable != nil {
		close(g.durable)
	}
	s.flyingWrites -= g.writes
	// The committer's condition compares with what is flying, which is less now.
	s.wakeCommitter()
	waiters := g.waiters
	g.waiters, g.durable, g.writes = nil, nil, 0
	s.stats.Writes += uint64(len(waiters))
	s.stats.Groups++
	return waiters, true
}

// recycle keeps a group, and the array of its waiters, for the next one.
func (s *Store) recycle(g *group, waiters []waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) < maxIdle {
		g.waiters, g.batch = waiters, nil
		s.idle = append(s.idle, g)
	}
}

// landing returns a channel that is closed when the group is durable. Requires s.mu.
func (g *group) landing() <-chan struct{} {
	if g.durable == nil {
		g.durable = make(chan struct{})
	}
	return g.durable
}
