package memory

import (
	"context"
	"fmt"

	"licensed/persistence"
)

// MarkArchived implements persistence.Housekeeping.
func (s *Store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	err := s.changeRoot(ctx, key, func(r *root) error {
		r.mark = persistence.AppendArchiveMark(nil, &m)
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark root %v: %w", key, err)
	}
	return nil
}

// DeleteRecords implements persistence.Housekeeping.
func (s *Store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	if err := s.writable(ctx); err != nil {
		return fmt.Errorf("delete records of %v: %w", p, err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	delete(s.rows.partitions, p)
	return nil
}

// StripRoot implements persistence.Housekeeping.
func (s *Store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	err := s.changeRoot(ctx, key, func(r *root) error {
		// The archive mark of the root is kept beside its bytes, and stays.
		whole, err := persistence.DecodeRoot(r.bytes)
		if err != nil {
			return err
		}
		bare := whole.Strip("")
		r.bytes, r.strip = persistence.AppendRoot(nil, &bare), &snapshotAt
		return nil
	})
	if err != nil {
		return fmt.Errorf("strip root %v: %w", key, err)
	}
	return nil
}

// changeRoot replaces a stored root by what change makes of it, under the lock. Errors:
// ErrNotFound, ErrClosed, and those of change.
func (s *Store) changeRoot(ctx context.Context, key persistence.RootKey, change func(*root) error) error {
	if err := s.writable(ctx); err != nil {
		return err
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	row, ok := s.rows.root(key)
	if !ok {
		return persistence.ErrNotFound
	}
	if err := change(&row); err != nil {
		return err
	}
	s.rows.setRoot(row)
	return nil
}
