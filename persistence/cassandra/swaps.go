package cassandra

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// swaps are compare-and-sets of shards. A bucket of shards is one partition, on which one
// of them is in progress at a time; those that arrive meanwhile go together in the next
// conditional batch, which is applied as a whole or not at all. So the shards of a dead
// node are taken over in some thirty rounds of Paxos, not in one for each. A batch that
// is not applied, because one of its rows is not as expected, is repeated one by one.
//
// A bucket has one goroutine while something waits for it, [swaps.run], and none
// otherwise.
type swaps struct {
	store *Store
	mu    sync.Mutex
	// By bucket, in the order of arrival; guarded by mu.
	waiting [buckets][]*swap
	// Whether a goroutine executes the bucket; guarded by mu.
	running [buckets]bool
}

// swap is one compare-and-set.
type swap struct {
	// The caller's; after it has ended the swap is not sent any more, but one that was
	// sent may be applied.
	ctx       context.Context
	old, next persistence.Shard
	done      chan swapped // capacity 1
}

// swapped is the outcome of a swap, as [persistence.Ownership] returns it.
type swapped struct {
	applied bool
	now     persistence.Shard
	err     error
}

const (
	// maxSwaps bounds a batch.
	maxSwaps = 64
	// gather is the time the first of a batch waits for others: shards of a group that are handed over
	// together are asked for one after the other, and a round of Paxos takes many times as long.
	gather = 500 * time.Microsecond
)

// do has a compare-and-set executed, and waits. Errors: as [persistence.Ownership];
// ErrUnknownOutcome also when ctx ends first.
func (w *swaps) do(ctx context.Context, old, next persistence.Shard) (applied bool, now persistence.Shard, err error) {
	s := &swap{ctx: ctx, old: old, next: next, done: make(chan swapped, 1)}
	bucket := shardBucket(next.ID)
	w.mu.Lock()
	w.waiting[bucket] = append(w.waiting[bucket], s)
	start := !w.running[bucket]
	w.running[bucket] = true
	w.mu.Unlock()
	if start {
		go func() {
			time.Sleep(gather)
			w.run(bucket)
		}()
	}
	select {
	case r := <-s.done:
		return r.applied, r.now, r.err
	case <-ctx.Done():
		return false, persistence.Shard{}, writeError(ctx.Err())
	}
}

// run executes what waits for a bucket until nothing does.
func (w *swaps) run(bucket int) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), w.store.opts.Timeout)
		// The batch is taken only when the bucket is free, so that it has all that
		// arrived until then.
		err := w.store.serial(ctx, w.store.shardLocks, bucket, func() error {
			w.execute(ctx, w.take(bucket))
			return nil
		})
		cancel()
		// Nothing was sent; those that wait had their chance.
		if err != nil {
			if errors.Is(err, errNotSent) {
				err = writeError(err)
			}
			finish(w.take(bucket), swapped{err: err})
		}
		// Whether to stop is decided under the lock that do appends under, so that no
		// swap is left without a goroutine.
		w.mu.Lock()
		if len(w.waiting[bucket]) == 0 {
			w.running[bucket] = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
}

// take returns the next batch, without those whose callers have gone: nothing of these happens. Of those on
// one row only the first is in it, since a batch compares all of them with the row as it was before.
func (w *swaps) take(bucket int) (batch []*swap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := map[uint32]bool{}
	w.waiting[bucket] = slices.DeleteFunc(w.waiting[bucket], func(s *swap) bool {
		switch {
		case s.ctx.Err() != nil:
			return true
		case taken[s.next.ID] || len(batch) == maxSwaps:
			return false
		}
		taken[s.next.ID] = true
		batch = append(batch, s)
		return true
	})
	return batch
}

// finish tells all swaps of a batch the same outcome. The row that a swap which was
// applied leaves is its next.
func finish(batch []*swap, r swapped) {
	for _, s := range batch {
		if r.now = s.next; r.err != nil {
			r.now = persistence.Shard{}
		}
		s.done <- r
	}
}

// execute sends a batch. It has the bucket to itself. A batch of unknown outcome is not
// repeated one by one: each of its swaps may have been applied, and the callers read the
// rows to find out.
func (w *swaps) execute(ctx context.Context, batch []*swap) {
	if len(batch) > 1 {
		applied, err := w.together(ctx, batch)
		if err != nil {
			err = w.store.count(writeError(err))
		}
		if err != nil && !errors.Is(err, persistence.ErrRejected) || applied {
			finish(batch, swapped{applied: applied, err: err})
			return
		}
	}
	for _, s := range batch {
		w.alone(s)
	}
}

// together sends the batch as one conditional batch. The rows that it met are not used:
// each swap of a batch that was not applied is sent alone, and gets its own.
func (w *swaps) together(ctx context.Context, batch []*swap) (applied bool, err error) {
	b := w.store.session.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
	for _, s := range batch {
		statement, values := s.statement()
		b.Entries = append(b.Entries, gocql.BatchEntry{Stmt: statement, Args: values})
	}
	applied, rows, err := w.store.session.MapExecuteBatchCAS(b, map[string]any{})
	if rows != nil {
		err = errors.Join(err, rows.Close())
	}
	return applied, err
}

// alone sends one compare-and-set, and reports the row that was in its place if it was
// not applied.
func (w *swaps) alone(s *swap) {
	statement, values := s.statement()
	applied, row, err := w.store.session.compareAndSet(s.ctx, statement, values...)
	r := swapped{applied: applied, now: s.next, err: w.store.count(err)}
	if err != nil {
		r.now = persistence.Shard{}
	} else if !applied {
		r.now = shardOf(s.next.ID, row)
	}
	s.done <- r
}

// statement returns the conditional update: an insert where the caller expects no row.
func (s *swap) statement() (statement string, values []any) {
	bucket, id := shardBucket(s.next.ID), int64(s.next.ID)
	owner, successor := gocql.UUID(s.next.Owner), gocql.UUID(s.next.Successor)
	if s.old.Epoch == 0 {
		return insertShard, []any{bucket, id, int64(s.next.Epoch), owner, successor}
	}
	return updateShard, []any{
		int64(s.next.Epoch), owner, successor, bucket, id,
		int64(s.old.Epoch), gocql.UUID(s.old.Owner), gocql.UUID(s.old.Successor),
	}
}

// shardOf returns the row that a compare-and-set met; zero if there is none.
func shardOf(id uint32, row map[string]any) persistence.Shard {
	if len(row) == 0 {
		return persistence.Shard{}
	}
	epoch, _ := row["epoch"].(int64)
	owner, _ := row["owner"].(gocql.UUID)
	successor, _ := row["successor"].(gocql.UUID)
	return persistence.Shard{
		ID:        id,
		Epoch:     uint64(epoch),
		Owner:     persistence.Incarnation(owner),
		Successor: persistence.Incarnation(successor),
	}
}
