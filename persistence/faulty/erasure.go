package faulty

import (
	"context"

	"licensed/persistence"
)

// TombstoneKey implements persistence.Erasure.
func (s *Store) TombstoneKey(ctx context.Context, aggregate string) (persistence.TombstoneKey, error) {
	return call(ctx, s, Call{Op: TombstoneKey, Key: aggregate},
		func(ctx context.Context) (persistence.TombstoneKey, error) {
			return s.inner.TombstoneKey(ctx, aggregate)
		})
}

// PutTombstone implements persistence.Erasure.
func (s *Store) PutTombstone(ctx context.Context, t persistence.Tombstone) error {
	_, err := call(ctx, s, Call{Op: PutTombstone, Key: t.Key.String()}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.inner.PutTombstone(ctx, t)
	})
	return err
}

// Tombstone implements persistence.Erasure.
func (s *Store) Tombstone(ctx context.Context, key persistence.TombstoneKey) (persistence.Tombstone, error) {
	return call(ctx, s, Call{Op: Tombstone, Key: key.String()},
		func(ctx context.Context) (persistence.Tombstone, error) { return s.inner.Tombstone(ctx, key) })
}

// Tombstones implements persistence.Erasure.
func (s *Store) Tombstones(
	ctx context.Context, after persistence.TombstoneKey, limit int,
) ([]persistence.Tombstone, error) {
	return call(ctx, s, Call{Op: Tombstones}, func(ctx context.Context) ([]persistence.Tombstone, error) {
		return s.inner.Tombstones(ctx, after, limit)
	})
}

// EraseAggregate implements persistence.Erasure.
func (s *Store) EraseAggregate(ctx context.Context, aggregate string) (persistence.Erased, error) {
	return call(ctx, s, Call{Op: EraseAggregate, Key: aggregate},
		func(ctx context.Context) (persistence.Erased, error) { return s.inner.EraseAggregate(ctx, aggregate) })
}
