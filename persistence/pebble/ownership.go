package pebble

import (
	"context"
	"fmt"

	"licensed/persistence"
)

// Ownership rows are few, so they live in memory and on the disk. A compare-and-set compares and sets
// in memory, under s.mu, and puts the new row into the open group; so the order in which rows change
// is the order in which they become durable. A process that sees a row, a reader or the loser of a
// compare-and-set, waits until it is durable.

// loadOwnership reads the rows that the store has into memory, when it is opened. Errors:
// ErrCorrupt: a store without sound ownership rows must not be used.
func (s *Store) loadOwnership() error {
	load := func(what string, kind byte, row func(value []byte) error) error {
		err := s.scan([]byte{kind}, []byte{kind + 1}, 1<<30, func(key, value []byte) error {
			if err := row(value); err != nil {
				return fmt.Errorf("%s %x: %w", what, key, err)
			}
			return nil
		})
		return err
	}
	return firstError(
		load("cluster", kindCluster, func(value []byte) error {
			c, err := decodeCluster(value)
			// The row is applied even if it is damaged: the error ends the opening.
			s.rows.CreateCluster(c)
			return err
		}),
		load("cluster id", kindClusterID, func(value []byte) error {
			id, err := decodeClusterID(value)
			s.rows.CreateCluster(persistence.ClusterInfo{ID: id})
			return err
		}),
		load("lease", kindLease, func(value []byte) error {
			l, err := decodeLease(value)
			s.rows.PutLease(l)
			return err
		}),
		load("shard", kindShard, func(value []byte) error {
			sh, err := decodeShard(value)
			s.rows.PutShard(sh)
			return err
		}),
	)
}

// change runs a compare-and-set under s.mu and waits until what it saw or set is durable.
// swap returns the row to write; a nil key means none. Errors: ErrUnknownOutcome, also
// when ctx ends first, and ErrClosed if nothing was compared.
func (s *Store) change(ctx context.Context, swap func() (key, value []byte)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	if key, value := swap(); key != nil {
		g := s.openGroup("")
		s.put(g, key, value)
		s.rowsIn = g
		s.wakeCommitter()
	}
	// Nothing that is not durable was seen: a compare-and-set that lost may answer at
	// once.
	if s.rowsIn == nil {
		s.mu.Unlock()
		return nil
	}
	landing := s.rowsIn.landing()
	s.mu.Unlock()

	err := s.await(ctx, landing, persistence.ErrUnknownOutcome)
	if err != nil && ctx.Err() == nil { // stopped
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	return err
}

// view runs a read of the rows under s.mu and waits until what it saw is durable. Errors:
// ErrUnavailable when ctx ends first, ErrClosed.
func (s *Store) view(ctx context.Context, look func()) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
	}
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	look()
	// rowsIn is the last group with a change of these rows that is not durable yet.
	if s.rowsIn == nil {
		s.mu.Unlock()
		return nil
	}
	landing := s.rowsIn.landing()
	s.mu.Unlock()
	return s.await(ctx, landing, persistence.ErrUnavailable)
}

// CreateCluster implements persistence.Ownership. The ID has a row of its own, which an earlier release passes over.
func (s *Store) CreateCluster(
	ctx context.Context, info persistence.ClusterInfo,
) (now persistence.ClusterInfo, err error) {
	if err = info.Validate(); err == nil {
		// Two changes: a store that an earlier release created has the first row only.
		err = s.change(ctx, func() (key, value []byte) {
			if created, ok := s.rows.CreateCluster(persistence.ClusterInfo{Name: info.Name, Shards: info.Shards}); ok {
				return []byte{kindCluster}, encodeCluster(created)
			}
			return nil, nil
		})
	}
	if err == nil {
		err = s.change(ctx, func() (key, value []byte) {
			var changed bool
			if now, changed = s.rows.CreateCluster(info.WithID()); changed {
				return []byte{kindClusterID}, encodeClusterID(now.ID)
			}
			return nil, nil
		})
	}
	if err != nil {
		return persistence.ClusterInfo{}, fmt.Errorf("create cluster: %w", err)
	}
	return now, nil
}

// Leases implements persistence.Ownership.
func (s *Store) Leases(ctx context.Context) (leases []persistence.Lease, err error) {
	if err := s.view(ctx, func() { leases = s.rows.Leases() }); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	return leases, nil
}

// Lease implements persistence.Ownership.
func (s *Store) Lease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	var l persistence.Lease
	var ok bool
	err := s.view(ctx, func() { l, ok = s.rows.Lease(i) })
	if err == nil && !ok {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Lease{}, fmt.Errorf("lease %v: %w", i, err)
	}
	return l, nil
}

// PeekLease implements persistence.Ownership. It is Lease, which is cheap here.
func (s *Store) PeekLease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	return s.Lease(ctx, i)
}

// CompareAndSetLease implements persistence.Ownership.
func (s *Store) CompareAndSetLease(
	ctx context.Context, old, next persistence.Lease,
) (applied bool, now persistence.Lease, err error) {
	if err = persistence.ValidateLeaseSwap(old, next); err == nil {
		err = s.change(ctx, func() (key, value []byte) {
			if applied, now = s.rows.SwapLease(old, next); applied {
				return leaseKey(next.Incarnation), encodeLease(next)
			}
			return nil, nil
		})
	}
	if err != nil {
		return false, persistence.Lease{}, fmt.Errorf("set lease %v: %w", next.Incarnation, err)
	}
	return applied, now, nil
}

// Shards implements persistence.Ownership.
func (s *Store) Shards(ctx context.Context) (shards []persistence.Shard, err error) {
	if err := s.view(ctx, func() { shards = s.rows.Shards() }); err != nil {
		return nil, fmt.Errorf("shards: %w", err)
	}
	return shards, nil
}

// PeekShards implements persistence.Ownership. It is Shards, which is cheap here.
func (s *Store) PeekShards(ctx context.Context) ([]persistence.Shard, error) { return s.Shards(ctx) }

// Shard implements persistence.Ownership.
func (s *Store) Shard(ctx context.Context, id uint32) (persistence.Shard, error) {
	var sh persistence.Shard
	var ok bool
	err := s.view(ctx, func() { sh, ok = s.rows.Shard(id) })
	if err == nil && !ok {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Shard{}, fmt.Errorf("shard %d: %w", id, err)
	}
	return sh, nil
}

// CompareAndSetShard implements persistence.Ownership.
func (s *Store) CompareAndSetShard(
	ctx context.Context, old, next persistence.Shard,
) (applied bool, now persistence.Shard, err error) {
	if err = persistence.ValidateShardSwap(old, next); err == nil {
		err = s.change(ctx, func() (key, value []byte) {
			if applied, now = s.rows.SwapShard(old, next); applied {
				return shardKey(next.ID), encodeShard(next)
			}
			return nil, nil
		})
	}
	if err != nil {
		return false, persistence.Shard{}, fmt.Errorf("set shard %d: %w", next.ID, err)
	}
	return applied, now, nil
}

// Votes live in memory only: one process has the store, and votes need not outlive it.

// PutVote implements persistence.Votes.
func (s *Store) PutVote(ctx context.Context, v persistence.Vote) error {
	err := v.Validate()
	if err == nil {
		err = s.vote(ctx, persistence.ErrUnknownOutcome, func() { s.rows.PutVote(v) })
	}
	if err != nil {
		return fmt.Errorf("vote against %v: %w", v.Accused, err)
	}
	return nil
}

// WithdrawVote implements persistence.Votes.
func (s *Store) WithdrawVote(ctx context.Context, accused, voter persistence.Incarnation) error {
	if err := s.vote(ctx, persistence.ErrUnknownOutcome, func() { s.rows.WithdrawVote(accused, voter) }); err != nil {
		return fmt.Errorf("withdraw vote against %v: %w", accused, err)
	}
	return nil
}

// Votes implements persistence.Votes.
func (s *Store) Votes(ctx context.Context) (votes []persistence.Vote, err error) {
	if err := s.vote(ctx, persistence.ErrUnavailable, func() { votes = s.rows.Votes() }); err != nil {
		return nil, fmt.Errorf("votes: %w", err)
	}
	return votes, nil
}

// vote reads or changes votes under s.mu.
func (s *Store) vote(ctx context.Context, late error, do func()) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", late, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		do()
	}
	return s.err
}
