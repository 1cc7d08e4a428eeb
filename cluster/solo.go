package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"licensed/persistence"
)

// Solo is the authority of a process that has its store to itself. It is safe for concurrent use.
type Solo struct {
	incarnation persistence.Incarnation
	ownership   persistence.Ownership
	shards      uint32
	epochs      []atomic.Uint64 // by shard; 0 while it is being raised
	// lost is set for good by Lose.
	lost atomic.Bool
	log  *slog.Logger
}

// SoloConfig of a new Solo.
type SoloConfig struct {
	// Cluster is the name of the cluster, fixed when it is created.
	Cluster string
	// Node is the name of this node, for people.
	Node string
	// Shards of a cluster that is created now; an existing one keeps its own (default DefaultShards).
	Shards uint32
	// Log hears of what should not happen (default slog.Default).
	Log *slog.Logger
}

// OpenSolo takes all shards for a new incarnation. The caller vouches that no other process uses the
// store: it holds the exclusive lock on its directory. Every former incarnation is marked dead, and
// every shard goes to a new epoch, so that nothing of a former run can be mistaken for this one's.
func OpenSolo(ctx context.Context, ownership persistence.Ownership, c SoloConfig) (*Solo, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	info, err := Open(ctx, ownership, c.Cluster, c.Shards)
	if err != nil {
		return nil, err
	}
	s := &Solo{
		incarnation: persistence.NewIncarnation(), ownership: ownership, log: c.Log,
		shards: info.Shards, epochs: make([]atomic.Uint64, info.Shards),
	}
	if err := s.buryFormer(ctx); err != nil {
		return nil, err
	}
	lease := persistence.Lease{Incarnation: s.incarnation, Node: c.Node, Counter: 1}
	if applied, _, err := ownership.CompareAndSetLease(ctx, persistence.Lease{}, lease); err != nil || !applied {
		return nil, fmt.Errorf("create lease %s (applied: %t): %w", s.incarnation, applied, err)
	}
	return s, s.claimAll(ctx)
}

// buryFormer marks the leases of former runs dead.
func (s *Solo) buryFormer(ctx context.Context) error {
	leases, err := s.ownership.Leases(ctx)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	for _, l := range leases {
		if l.Dead {
			continue
		}
		dead := l
		dead.Dead = true
		if applied, now, err := s.ownership.CompareAndSetLease(ctx, l, dead); err != nil || !applied {
			return fmt.Errorf("mark former run %s dead (applied: %t, now %+v): %w", l.Incarnation, applied, now, err)
		}
	}
	return nil
}

// claimAll takes every shard at its next epoch.
func (s *Solo) claimAll(ctx context.Context) error {
	rows, err := s.ownership.Shards(ctx)
	if err != nil {
		return fmt.Errorf("read shards: %w", err)
	}
	former := make([]persistence.Shard, s.shards)
	for _, row := range rows {
		if row.ID >= s.shards {
			return fmt.Errorf("the store has shard %d, the cluster %d shards: %w",
				row.ID, s.shards, persistence.ErrCorrupt)
		}
		former[row.ID] = row
	}
	g, ctx := errgroup.WithContext(ctx)
	// A store behind a network takes milliseconds for each; one on disk syncs them
	// together.
	g.SetLimit(64)
	for id := range s.shards {
		g.Go(func() error { return s.claim(ctx, id, former[id], former[id].Epoch+1) })
	}
	return g.Wait()
}

// claim takes one shard, which must still be as its former row says. The epoch counts for
// callers once the store has it.
func (s *Solo) claim(ctx context.Context, id uint32, former persistence.Shard, epoch uint64) error {
	applied, now, err := s.ownership.CompareAndSetShard(ctx, former,
		persistence.Shard{ID: id, Epoch: epoch, Owner: s.incarnation})
	if err != nil {
		return fmt.Errorf("claim shard %d at epoch %d: %w", id, epoch, err)
	}
	if !applied {
		return fmt.Errorf("claim shard %d at epoch %d: it is at epoch %d of %s", id, epoch, now.Epoch, now.Owner)
	}
	s.epochs[id].Store(epoch)
	return nil
}

// Incarnation implements actors.Authority.
func (s *Solo) Incarnation() persistence.Incarnation { return s.incarnation }

// Shards returns the number of shards.
func (s *Solo) Shards() uint32 { return s.shards }

// Shard implements actors.Authority.
func (s *Solo) Shard(aggregate string) uint32 { return ShardOf(aggregate, s.shards) }

// Epoch implements actors.Authority.
func (s *Solo) Epoch(shard uint32) (uint64, bool) {
	epoch := s.epochs[shard].Load()
	return epoch, epoch != 0 && !s.lost.Load()
}

// Held returns the number of shards that are held, and the lowest and highest of their epochs; 0 if none is.
func (s *Solo) Held() (count int, lowest, highest uint64) {
	for id := range s.shards {
		if epoch, ok := s.Epoch(id); ok {
			count++
			lowest, highest = cmp.Or(min(lowest, epoch), epoch), max(highest, epoch)
		}
	}
	return count, lowest, highest
}

// Holds implements actors.Authority. The lock on the store is the process's for as long as it lives,
// so there is no clock to ask; only a store that failed ends it.
func (s *Solo) Holds(shard uint32, epoch uint64) bool {
	return epoch != 0 && s.epochs[shard].Load() == epoch && !s.lost.Load()
}

// Lose gives up all shards for good: the store failed.
func (s *Solo) Lose() { s.lost.Store(true) }

// Suspended implements actors.Authority.
func (s *Solo) Suspended() bool { return false }

// StaleEpoch implements actors.Authority. With the store to itself, a root of a higher epoch means
// that the ownership rows are older than the history, as after restoring a backup in part: the shard
// goes above that epoch.
func (s *Solo) StaleEpoch(shard uint32, aggregate string, epoch uint64) {
	held := s.epochs[shard].Load()
	// One caller of several raises it: the shard is not held (its epoch is 0) until the
	// claim is stored.
	if held == 0 || held > epoch || !s.epochs[shard].CompareAndSwap(held, 0) {
		return
	}
	s.log.Error("shard epoch raised: ownership was older than history; was it restored from a backup?",
		"shard", shard, "aggregate", aggregate, "epoch", held, "found", epoch)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		former := persistence.Shard{ID: shard, Epoch: held, Owner: s.incarnation}
		if err := s.claim(ctx, shard, former, epoch+1); err != nil && !errors.Is(err, persistence.ErrClosed) {
			s.log.Error("the shard is out of service until the next start", "shard", shard, "error", err)
		}
	}()
}
