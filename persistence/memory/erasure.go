package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"licensed/persistence"
)

// TombstoneKey implements persistence.Erasure.
func (s *Store) TombstoneKey(ctx context.Context, aggregate string) (persistence.TombstoneKey, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.TombstoneKey{}, fmt.Errorf("tombstone key: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	key, ok := s.rows.tombstoneKey(aggregate)
	if !ok {
		return key, fmt.Errorf("tombstone key: cluster: %w", persistence.ErrNotFound)
	}
	return key, nil
}

// tombstoneKey returns the key of an aggregate, or false if there is no cluster. Requires mu.
func (r *rows) tombstoneKey(aggregate string) (persistence.TombstoneKey, bool) {
	id := r.ownership.ClusterID()
	return persistence.TombstoneKeyOf(id, aggregate), !id.IsZero()
}

// forgotten returns a *ForgottenError if the aggregate has a tombstone. Requires mu.
func (r *rows) forgotten(aggregate string) error {
	if len(r.tombstones) == 0 {
		return nil
	}
	if key, ok := r.tombstoneKey(aggregate); ok {
		if t, ok := r.tombstones[key]; ok {
			return &persistence.ForgottenError{At: t.Time}
		}
	}
	return nil
}

// PutTombstone implements persistence.Erasure.
func (s *Store) PutTombstone(ctx context.Context, t persistence.Tombstone) error {
	err := s.writable(ctx)
	if err == nil {
		err = t.Validate()
	}
	if err != nil {
		return fmt.Errorf("put tombstone %s: %w", t.Key, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if t.Erased.IsZero() {
		t.Erased = s.rows.tombstones[t.Key].Erased
	}
	s.rows.tombstones[t.Key] = t
	return nil
}

// Tombstone implements persistence.Erasure.
func (s *Store) Tombstone(ctx context.Context, key persistence.TombstoneKey) (persistence.Tombstone, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Tombstone{}, fmt.Errorf("tombstone %s: %w", key, err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	t, ok := s.rows.tombstones[key]
	if !ok {
		return t, fmt.Errorf("tombstone %s: %w", key, persistence.ErrNotFound)
	}
	return t, nil
}

// Tombstones implements persistence.Erasure.
func (s *Store) Tombstones(
	ctx context.Context, after persistence.TombstoneKey, limit int,
) ([]persistence.Tombstone, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("tombstones: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	all := slices.SortedFunc(maps.Values(s.rows.tombstones),
		func(a, b persistence.Tombstone) int { return a.Key.Compare(b.Key) })
	start := slices.IndexFunc(all, func(t persistence.Tombstone) bool { return t.Key.Compare(after) > 0 })
	if start < 0 {
		return nil, nil
	}
	return firstN(all[start:], limit), nil
}

// EraseAggregate implements persistence.Erasure.
func (s *Store) EraseAggregate(ctx context.Context, aggregate string) (persistence.Erased, error) {
	if err := s.writable(ctx); err != nil {
		return persistence.Erased{}, fmt.Errorf("erase %s: %w", aggregate, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.forgotten(aggregate) == nil {
		return persistence.Erased{}, fmt.Errorf("erase %s: %w: it has no tombstone", aggregate, persistence.ErrRejected)
	}
	erased := persistence.Erased{Roots: len(s.rows.aggregates[aggregate])}
	delete(s.rows.aggregates, aggregate)
	maps.DeleteFunc(s.rows.partitions, func(p persistence.Partition, records []record) bool {
		if p.Aggregate != aggregate {
			return false
		}
		erased.Records += len(records)
		return true
	})
	return erased, nil
}
