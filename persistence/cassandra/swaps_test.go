package cassandra_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/persistence"
)

const manyShards = 256

// TestSwapsTogether: two processes take the same shards at once, each all of them. Every shard has one
// owner then, both were told it and nothing else, and the loser was shown the row.
func TestSwapsTogether(t *testing.T) {
	o := keyspace(t)
	var won [2][manyShards]bool
	var taking sync.WaitGroup
	for k := range won {
		s, self := open(t, o), persistence.Incarnation{byte(k + 1)}
		for id := range uint32(manyShards) {
			taking.Go(func() {
				next := persistence.Shard{ID: id, Epoch: 1, Owner: self}
				applied, now, err := s.CompareAndSetShard(t.Context(), persistence.Shard{}, next)
				if err != nil || now.ID != id || now.Epoch != 1 || (now.Owner == self) != applied {
					t.Errorf("shard %d: %t, %+v, %v", id, applied, now, err)
				}
				won[k][id] = applied
			})
		}
	}
	taking.Wait()
	s := open(t, o)
	rows, err := s.Shards(t.Context())
	if err != nil || len(rows) != manyShards {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if won[0][row.ID] == won[1][row.ID] || row.Owner == (persistence.Incarnation{1}) != won[0][row.ID] {
			t.Errorf("%+v was told %t and %t", row, won[0][row.ID], won[1][row.ID])
		}
	}
}

// TestSwapWhoseCallerLeft: one that waits behind others and whose caller gives up leaves no trace, or an
// unknown outcome; those around it are not affected.
func TestSwapWhoseCallerLeft(t *testing.T) {
	s := open(t, keyspace(t))
	var left atomic.Int64
	var taking sync.WaitGroup
	for id := range uint32(manyShards) {
		taking.Go(func() {
			ctx := t.Context()
			if id%3 == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(id+1)*50*time.Microsecond)
				defer cancel()
			}
			_, _, err := s.CompareAndSetShard(ctx, persistence.Shard{},
				persistence.Shard{ID: id, Epoch: 1, Owner: persistence.Incarnation{1}})
			switch {
			case err == nil:
			case id%3 == 0 && errors.Is(err, persistence.ErrUnknownOutcome):
				left.Add(1)
			default:
				t.Errorf("shard %d: %v", id, err)
			}
		})
	}
	taking.Wait()
	if left.Load() == 0 {
		t.Error("nobody left")
	}
	for id := range uint32(manyShards) {
		old, err := s.Shard(t.Context(), id)
		if errors.Is(err, persistence.ErrNotFound) && id%3 == 0 {
			old, err = persistence.Shard{}, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		next := persistence.Shard{ID: id, Epoch: old.Epoch + 1, Owner: persistence.Incarnation{2}}
		if applied, now, err := s.CompareAndSetShard(t.Context(), old, next); err != nil || !applied || now != next {
			t.Errorf("shard %d: %t, %+v, %v", id, applied, now, err)
		}
	}
}

// BenchmarkTakeOver measures how long a process takes to claim the shards of another.
func BenchmarkTakeOver(b *testing.B) {
	s := open(b, keyspace(b))
	rows := make([]persistence.Shard, manyShards)
	for b.Loop() {
		var taking sync.WaitGroup
		for id := range uint32(manyShards) {
			taking.Go(func() {
				next := persistence.Shard{ID: id, Epoch: rows[id].Epoch + 1, Owner: persistence.NewIncarnation()}
				applied, now, err := s.CompareAndSetShard(b.Context(), rows[id], next)
				if err != nil || !applied {
					b.Errorf("shard %d: %t, %v", id, applied, err)
				}
				rows[id] = now
			})
		}
		taking.Wait()
	}
}
