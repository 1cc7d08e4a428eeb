// Package faulty lays faults over any store: for the tests of what stands on it, and for failing on
// purpose in a running process.
//
// A [Script] is asked before each call what is to go wrong with it. What can go wrong is what the
// contract of package persistence allows, and what networks and disks do:
//
//   - a call is refused, and certainly did nothing (Refuse);
//   - a request is lost: nothing happens, and the caller cannot know (LoseRequest);
//   - a reply is lost: it happens, and the caller cannot know (LoseReply);
//   - a request is late: the caller was told that the outcome is unknown, and it happens afterwards,
//     perhaps long afterwards, when others have written (Late);
//   - a call takes long (Hold);
//   - a mutation is torn: part of it happens, and the caller cannot know (Tear).
//
// Late and held calls wait until the test releases them, one by one and in any order, or until their
// Delay has ended. So a test needs no sleep to cause the order of events that it is about.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"licensed/persistence"
)

// Op is a method of a store.
type Op uint8

// The methods of a store.
const (
	TopRoot Op = iota
	ReadRoot
	ReadRoots
	ReadRecords
	Aggregates
	PutRoot
	Append
	CreateCluster
	Leases
	Lease
	PeekLease
	CompareAndSetLease
	Shards
	PeekShards
	Shard
	CompareAndSetShard
	MarkArchived
	DeleteRecords
	StripRoot
	PutVote
	WithdrawVote
	Votes
	TombstoneKey
	PutTombstone
	Tombstone
	Tombstones
	EraseAggregate
)

// opNames are in the order of the methods above.
var opNames = [...]string{
	"TopRoot", "ReadRoot", "ReadRoots", "ReadRecords", "Aggregates", "PutRoot", "Append", "CreateCluster", "Leases",
	"Lease", "PeekLease", "CompareAndSetLease", "Shards", "PeekShards", "Shard", "CompareAndSetShard",
	"MarkArchived", "DeleteRecords", "StripRoot",
	"PutVote", "WithdrawVote", "Votes",
	"TombstoneKey", "PutTombstone", "Tombstone", "Tombstones", "EraseAggregate",
}

// String returns the method's name.
func (o Op) String() string { return opNames[o] }

// IsWrite reports whether the method writes.
func (o Op) IsWrite() bool {
	switch o {
	case PutRoot, Append, CreateCluster, CompareAndSetLease, CompareAndSetShard, MarkArchived, DeleteRecords, StripRoot,
		PutVote, WithdrawVote, PutTombstone, EraseAggregate:
		return true
	}
	return false
}

// Call is a call that a script decides on.
type Call struct {
	Op Op
	// Key is what the call is about: the aggregate, or the id of the lease or shard; empty for calls
	// about all.
	Key string
	// N counts the calls of Op with Key, from 0.
	N uint64
	// Root is the root written or read, or that of the partition; zero for other calls.
	Root persistence.RootKey
	// Records is the number of records of an append.
	Records int
}

// Kind is a kind of fault.
type Kind uint8

// The kinds of faults. What the caller hears is ErrUnavailable for reads, and ErrUnknownOutcome for
// writes unless said otherwise, each wrapping ErrInjected.
const (
	// None is no fault.
	None Kind = iota
	// Refuse does nothing. The caller of a write hears ErrRejected.
	Refuse
	// LoseRequest does nothing.
	LoseRequest
	// LoseReply makes the call.
	LoseReply
	// Late makes the call when it is released; the caller hears at once.
	Late
	// Hold makes the call when it is released, and the caller hears the outcome.
	Hold
	// Tear appends the first Fault.Records records. It is LoseReply for other calls.
	Tear

	kinds
)

var kindNames = [...]string{"None", "Refuse", "LoseRequest", "LoseReply", "Late", "Hold", "Tear"}

// String returns the kind's name.
func (k Kind) String() string { return kindNames[k] }

// Fault is what happens to a call.
type Fault struct {
	Kind Kind
	// Records is the number of records of a torn append that are written.
	Records int
	// Delay, if not zero, is after what time a Late or Hold is released by itself.
	Delay time.Duration
	// Err, if not nil, is what the caller hears, wrapped by nothing.
	Err error
}

// ErrInjected is wrapped by every error that this package makes.
var ErrInjected = errors.New("injected fault")

// Store is a store with faults. It is safe for concurrent use.
type Store struct {
	inner persistence.Store
	// AfterFunc calls f after d, time.AfterFunc by default. It may be set before the first call.
	AfterFunc func(d time.Duration, f func())

	mu       sync.Mutex
	script   Script
	calls    map[callKey]uint64
	injected [kinds]uint64
	held     []*Held
	closed   bool
}

// callKey is what calls are counted by.
type callKey struct {
	op  Op
	key string
}

var _ persistence.Store = (*Store)(nil)

// New returns a store that lays the script's faults over inner, none if script is nil.
func New(inner persistence.Store, script Script) *Store {
	return &Store{
		inner:     inner,
		AfterFunc: func(d time.Duration, f func()) { time.AfterFunc(d, f) },
		script:    script,
		calls:     make(map[callKey]uint64),
	}
}

// SetScript replaces the script from the next call on; nil is no faults.
func (s *Store) SetScript(script Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// Injected returns the number of faults of that kind that happened.
func (s *Store) Injected(k Kind) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.injected[k]
}

// MaxMutation implements persistence.Journal: it is the store's below.
func (s *Store) MaxMutation() int { return s.inner.MaxMutation() }

// Close drops the calls that are held, waits for those in progress and closes the store below.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, h := range s.Held() {
		h.Drop()
	}
	return s.inner.Close()
}

// next asks the script for the fault of a call, and counts it. A call that begins after
// Close has none: the store below refuses it.
func (s *Store) next(c Call) Fault {
	s.mu.Lock()
	k := callKey{c.Op, c.Key}
	c.N = s.calls[k]
	s.calls[k]++
	script := s.script
	if s.closed {
		script = nil // the store below answers
	}
	s.mu.Unlock()
	if script == nil {
		return Fault{}
	}
	f := script(c) // without the lock: a script may call the store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injected[f.Kind]++
	return f
}

// failure returns what the caller of op hears.
func (f Fault) failure(op Op) error {
	switch {
	case f.Err != nil:
		return f.Err
	case !op.IsWrite():
		return fmt.Errorf("%v: %w: %w: %v", op, persistence.ErrUnavailable, ErrInjected, f.Kind)
	case f.Kind == Refuse:
		return fmt.Errorf("%v: %w: %w: %v", op, persistence.ErrRejected, ErrInjected, f.Kind)
	default:
		return fmt.Errorf("%v: %w: %w: %v", op, persistence.ErrUnknownOutcome, ErrInjected, f.Kind)
	}
}

// Held is a call that waits to be released or dropped. Only the first of the two counts.
type Held struct {
	// Call is the call, Fault is Late or Hold.
	Call  Call
	Fault Fault

	store   *Store
	once    sync.Once
	release func()
	drop    func()
}

// Release makes the call. It returns when a synchronous call was made or its caller woken, and an
// append or root was handed to the store below.
func (h *Held) Release() {
	h.once.Do(func() {
		h.store.forget(h)
		h.release()
	})
}

// Drop makes the call never happen; the caller of a Hold hears so much as that of a LoseRequest.
func (h *Held) Drop() {
	h.once.Do(func() {
		h.store.forget(h)
		h.drop()
	})
}

// Held returns the calls that wait, in the order in which they came.
func (s *Store) Held() []*Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.held)
}

// ReleaseAll releases all calls that wait, in the order in which they came.
func (s *Store) ReleaseAll() {
	for _, h := range s.Held() {
		h.Release()
	}
}

// forget removes a call from those that wait.
func (s *Store) forget(h *Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.held, h); i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
	}
}

// hold keeps a call until it is released or dropped. Exactly one of the two functions is
// called, once. After Close a call is dropped at once.
func (s *Store) hold(c Call, f Fault, release, drop func()) *Held {
	h := &Held{Call: c, Fault: f, store: s, release: release, drop: drop}
	s.mu.Lock()
	closed := s.closed
	// Dropped outside of the lock, which Drop takes itself.
	if !closed {
		s.held = append(s.held, h)
	}
	s.mu.Unlock()
	switch {
	case closed:
		h.Drop()
	case f.Delay > 0:
		s.AfterFunc(f.Delay, h.Release)
	}
	return h
}

// call makes a synchronous call as the script says. The value of a call with a fault is
// zero: the caller must not see what the store did.
func call[T any](ctx context.Context, s *Store, c Call, do func(context.Context) (T, error)) (T, error) {
	var zero T
	f := s.next(c)
	switch f.Kind {
	case None:
		return do(ctx)
	case LoseReply, Tear:
		_, _ = do(ctx)
	case Late:
		// The caller's context ends when it gets its answer; the late call must not end
		// with it.
		late := context.WithoutCancel(ctx)
		s.hold(c, f, func() { _, _ = do(late) }, func() {})
	case Hold:
		return held(ctx, s, c, f, do)
	}
	return zero, f.failure(c.Op)
}

// held waits for the release. If the caller gives up before, a write may still happen.
func held[T any](ctx context.Context, s *Store, c Call, f Fault, do func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	// The write happens even if its caller has left, as that of a request that was sent
	// does.
	late := context.WithoutCancel(ctx)
	s.hold(c, f,
		func() {
			v, err := do(late)
			results <- result{v, err}
		},
		func() { results <- result{err: f.failure(c.Op)} })
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("%w: %w", f.failure(c.Op), ctx.Err())
	}
}

// write makes an asynchronous write as the script says. done is called exactly once.
func (s *Store) write(c Call, done func(error), w asyncWrite) {
	f := s.next(c)
	lost := func(error) { done(f.failure(c.Op)) }
	switch f.Kind {
	case None:
		w.send(done)
	case Refuse, LoseRequest:
		lost(nil)
	case LoseReply:
		w.send(lost)
	case Late:
		late := w.copy() // the caller may use the memory again as soon as it was told
		s.hold(c, f, func() { late(func(error) {}) }, func() {})
		lost(nil)
	case Hold:
		s.hold(c, f, func() { w.send(done) }, func() { lost(nil) })
	case Tear:
		w.tear(f.Records, lost)
	}
}

// asyncWrite is a write in the forms that faults need.
type asyncWrite struct {
	// send makes the write, tear the first n of its parts.
	send func(done func(error))
	tear func(n int, done func(error))
	// copy returns send for a copy of what is written, without the caller's context.
	copy func() (send func(done func(error)))
}
