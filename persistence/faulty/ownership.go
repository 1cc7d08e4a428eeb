package faulty

import (
	"context"
	"strconv"

	"licensed/persistence"
)

// CreateCluster implements persistence.Ownership.
func (s *Store) CreateCluster(ctx context.Context, info persistence.ClusterInfo) (persistence.ClusterInfo, error) {
	return call(ctx, s, Call{Op: CreateCluster}, func(ctx context.Context) (persistence.ClusterInfo, error) {
		return s.inner.CreateCluster(ctx, info)
	})
}

// Leases implements persistence.Ownership.
func (s *Store) Leases(ctx context.Context) ([]persistence.Lease, error) {
	return call(ctx, s, Call{Op: Leases}, s.inner.Leases)
}

// Lease implements persistence.Ownership.
func (s *Store) Lease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	return call(ctx, s, Call{Op: Lease, Key: i.String()}, func(ctx context.Context) (persistence.Lease, error) {
		return s.inner.Lease(ctx, i)
	})
}

// PeekLease implements persistence.Ownership.
func (s *Store) PeekLease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	return call(ctx, s, Call{Op: PeekLease, Key: i.String()}, func(ctx context.Context) (persistence.Lease, error) {
		return s.inner.PeekLease(ctx, i)
	})
}

// outcome is what a compare-and-set returns.
type outcome[Row any] struct {
	applied bool
	now     Row
}

// CompareAndSetLease implements persistence.Ownership.
func (s *Store) CompareAndSetLease(ctx context.Context, old, next persistence.Lease) (bool, persistence.Lease, error) {
	c := Call{Op: CompareAndSetLease, Key: next.Incarnation.String()}
	o, err := call(ctx, s, c, func(ctx context.Context) (o outcome[persistence.Lease], err error) {
		o.applied, o.now, err = s.inner.CompareAndSetLease(ctx, old, next)
		return o, err
	})
	return o.applied, o.now, err
}

// Shards implements persistence.Ownership.
func (s *Store) Shards(ctx context.Context) ([]persistence.Shard, error) {
	return call(ctx, s, Call{Op: Shards}, s.inner.Shards)
}

// PeekShards implements persistence.Ownership.
func (s *Store) PeekShards(ctx context.Context) ([]persistence.Shard, error) {
	return call(ctx, s, Call{Op: PeekShards}, s.inner.PeekShards)
}

// Shard implements persistence.Ownership.
func (s *Store) Shard(ctx context.Context, id uint32) (persistence.Shard, error) {
	return call(ctx, s, Call{Op: Shard, Key: shardKey(id)}, func(ctx context.Context) (persistence.Shard, error) {
		return s.inner.Shard(ctx, id)
	})
}

// CompareAndSetShard implements persistence.Ownership.
func (s *Store) CompareAndSetShard(ctx context.Context, old, next persistence.Shard) (bool, persistence.Shard, error) {
	c := Call{Op: CompareAndSetShard, Key: shardKey(next.ID)}
	o, err := call(ctx, s, c, func(ctx context.Context) (o outcome[persistence.Shard], err error) {
		o.applied, o.now, err = s.inner.CompareAndSetShard(ctx, old, next)
		return o, err
	})
	return o.applied, o.now, err
}

// shardKey returns the key of calls about a shard.
func shardKey(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// PutVote implements persistence.Votes.
func (s *Store) PutVote(ctx context.Context, v persistence.Vote) error {
	_, err := call(ctx, s, Call{Op: PutVote, Key: v.Accused.String()}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.inner.PutVote(ctx, v)
	})
	return err
}

// WithdrawVote implements persistence.Votes.
func (s *Store) WithdrawVote(ctx context.Context, accused, voter persistence.Incarnation) error {
	_, err := call(ctx, s, Call{Op: WithdrawVote, Key: accused.String()}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.inner.WithdrawVote(ctx, accused, voter)
	})
	return err
}

// Votes implements persistence.Votes.
func (s *Store) Votes(ctx context.Context) ([]persistence.Vote, error) {
	return call(ctx, s, Call{Op: Votes}, s.inner.Votes)
}
