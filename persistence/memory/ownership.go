package memory

import (
	"context"
	"fmt"

	"licensed/persistence"
)

// CreateCluster implements persistence.Ownership.
func (s *Store) CreateCluster(ctx context.Context, info persistence.ClusterInfo) (persistence.ClusterInfo, error) {
	err := s.writable(ctx)
	if err == nil {
		err = info.Validate()
	}
	if err != nil {
		return persistence.ClusterInfo{}, fmt.Errorf("create cluster: %w", err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	// The id is made before the compare-and-set: of two callers one id wins, and both get
	// it.
	now, _ := s.rows.ownership.CreateCluster(info.WithID())
	return now, nil
}

// Leases implements persistence.Ownership.
func (s *Store) Leases(ctx context.Context) ([]persistence.Lease, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	return s.rows.ownership.Leases(), nil
}

// Lease implements persistence.Ownership.
func (s *Store) Lease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Lease{}, fmt.Errorf("lease %v: %w", i, err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	l, ok := s.rows.ownership.Lease(i)
	if !ok {
		return persistence.Lease{}, fmt.Errorf("lease %v: %w", i, persistence.ErrNotFound)
	}
	return l, nil
}

// PeekLease implements persistence.Ownership. It is Lease, which is cheap here.
func (s *Store) PeekLease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	return s.Lease(ctx, i)
}

// CompareAndSetLease implements persistence.Ownership.
func (s *Store) CompareAndSetLease(ctx context.Context, old, next persistence.Lease) (bool, persistence.Lease, error) {
	err := s.writable(ctx)
	if err == nil {
		err = persistence.ValidateLeaseSwap(old, next)
	}
	if err != nil {
		return false, persistence.Lease{}, fmt.Errorf("set lease %v: %w", next.Incarnation, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	applied, now := s.rows.ownership.SwapLease(old, next)
	return applied, now, nil
}

// Shards implements persistence.Ownership.
func (s *Store) Shards(ctx context.Context) ([]persistence.Shard, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("shards: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	return s.rows.ownership.Shards(), nil
}

// PeekShards implements persistence.Ownership. It is Shards, which is cheap here.
func (s *Store) PeekShards(ctx context.Context) ([]persistence.Shard, error) { return s.Shards(ctx) }

// Shard implements persistence.Ownership.
func (s *Store) Shard(ctx context.Context, id uint32) (persistence.Shard, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Shard{}, fmt.Errorf("shard %d: %w", id, err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	row, ok := s.rows.ownership.Shard(id)
	if !ok {
		return persistence.Shard{}, fmt.Errorf("shard %d: %w", id, persistence.ErrNotFound)
	}
	return row, nil
}

// CompareAndSetShard implements persistence.Ownership.
func (s *Store) CompareAndSetShard(ctx context.Context, old, next persistence.Shard) (bool, persistence.Shard, error) {
	err := s.writable(ctx)
	if err == nil {
		err = persistence.ValidateShardSwap(old, next)
	}
	if err != nil {
		return false, persistence.Shard{}, fmt.Errorf("set shard %d: %w", next.ID, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	applied, now := s.rows.ownership.SwapShard(old, next)
	return applied, now, nil
}

// PutVote implements persistence.Votes.
func (s *Store) PutVote(ctx context.Context, v persistence.Vote) error {
	err := s.writable(ctx)
	if err == nil {
		err = v.Validate()
	}
	if err != nil {
		return fmt.Errorf("vote against %v: %w", v.Accused, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	s.rows.ownership.PutVote(v)
	return nil
}

// WithdrawVote implements persistence.Votes.
func (s *Store) WithdrawVote(ctx context.Context, accused, voter persistence.Incarnation) error {
	if err := s.writable(ctx); err != nil {
		return fmt.Errorf("withdraw vote against %v: %w", accused, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	s.rows.ownership.WithdrawVote(accused, voter)
	return nil
}

// Votes implements persistence.Votes.
func (s *Store) Votes(ctx context.Context) ([]persistence.Vote, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("votes: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	return s.rows.ownership.Votes(), nil
}
