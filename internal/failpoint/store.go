//go:build failpoints

package failpoint

import (
	"context"
	"time"

	"licensed/persistence"
)

// store lays points over a store. Calls that have none go through.
type store struct{ persistence.Store }

// Store lays the points over a store.
func Store(s persistence.Store) persistence.Store { return store{s} }

// call is a call with a point before and one after it. The point after it is hit by calls
// that succeeded only: of the others nothing is certain.
func call[T any](name string, do func() (T, error)) (T, error) {
	time.Sleep(hit(Before(name)))
	v, err := do()
	if err == nil {
		time.Sleep(hit(After(name)))
	}
	return v, err
}

// later is call for writes that tell their outcome to done. Nobody is made to wait but done.
func later(name string, done func(error), do func(func(error))) {
	after := func(err error) {
		if err != nil {
			done(err)
			return
		}
		pause(hit(After(name)), func() { done(nil) })
	}
	pause(hit(Before(name)), func() { do(after) })
}

// pause calls then after d, at once if it is 0, without holding the caller.
func pause(d time.Duration, then func()) {
	if d == 0 {
		then()
		return
	}
	time.AfterFunc(d, then)
}

// TopRoot implements persistence.Journal.
func (s store) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	return call(ReadTop, func() (persistence.Root, error) { return s.Store.TopRoot(ctx, aggregate) })
}

// ReadRecords implements persistence.Journal.
func (s store) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	return call(ReadRecords, func() ([]persistence.Record, error) { return s.Store.ReadRecords(ctx, p, after, limit) })
}

// PutRoot implements persistence.Journal. Which point it hits shows by the root: a
// rollover continues a root of the same incarnation and epoch.
func (s store) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	name := RootActivation
	if r.ParentIncarnation == r.Incarnation && r.Parent.Epoch == r.Key.Epoch && !r.Parent.IsZero() {
		name = RootRollover // Or an activation of what the same process had passivated: the same write.
	}
	later(name, done, func(done func(error)) { s.Store.PutRoot(ctx, r, done) })
}

// Append implements persistence.Journal.
func (s store) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	noteTimes(m.Records)
	later(Append, done, func(done func(error)) { s.Store.Append(ctx, m, done) })
}

// noteTimes counts the records that bear a time of the clock that is wrong.
func noteTimes(records []persistence.Record) {
	by := time.Duration(offset.Load())
	if by == 0 {
		return
	}
	now := time.Now()
	for i := range records {
		if off := records[i].Time.Sub(now); (off - by).Abs() < by.Abs()/2 {
			wrong.Add(1)
		}
	}
}

// swap is what a compare-and-set returns.
type swap[T any] struct {
	applied bool
	now     T
}

// CompareAndSetLease implements persistence.Ownership; marking a lease dead is a
// challenge.
func (s store) CompareAndSetLease(ctx context.Context, old, next persistence.Lease) (bool, persistence.Lease, error) {
	name := LeaseRenew
	if next.Dead {
		name = LeaseChallenge
	}
	r, err := call(name, func() (r swap[persistence.Lease], err error) {
		r.applied, r.now, err = s.Store.CompareAndSetLease(ctx, old, next)
		return r, err
	})
	return r.applied, r.now, err
}

// CompareAndSetShard implements persistence.Ownership; a row without an owner is a
// release.
func (s store) CompareAndSetShard(ctx context.Context, old, next persistence.Shard) (bool, persistence.Shard, error) {
	name := ShardTake
	if next.Owner.IsZero() {
		name = ShardRelease
	}
	r, err := call(name, func() (r swap[persistence.Shard], err error) {
		r.applied, r.now, err = s.Store.CompareAndSetShard(ctx, old, next)
		return r, err
	})
	return r.applied, r.now, err
}

// MarkArchived implements persistence.Housekeeping.
func (s store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	return perform(ArchiveMark, func() error { return s.Store.MarkArchived(ctx, key, m) })
}

// DeleteRecords implements persistence.Housekeeping.
func (s store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	return perform(ArchiveDelete, func() error { return s.Store.DeleteRecords(ctx, p) })
}

// StripRoot implements persistence.Housekeeping.
func (s store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	return perform(ArchiveStrip, func() error { return s.Store.StripRoot(ctx, key, snapshotAt) })
}

// perform is call for what returns nothing else.
func perform(name string, do func() error) error {
	_, err := call(name, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// archive lays points over an archive.
type archive struct{ persistence.Archive }

// Archive lays the points over an archive.
func Archive(a persistence.Archive) persistence.Archive { return archive{a} }

// PutSegment implements persistence.Archive.
func (a archive) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	return perform(ArchivePut, func() error { return a.Archive.PutSegment(ctx, name, data, expires) })
}

// ReadSegment implements persistence.Archive; the archiver reads each segment back to
// verify it.
func (a archive) ReadSegment(ctx context.Context, name string) ([]byte, error) {
	return call(ArchiveVerify, func() ([]byte, error) { return a.Archive.ReadSegment(ctx, name) })
}
