package pebble

import (
	"context"
	"fmt"
	"slices"

	"licensed/persistence"
)

// MarkArchived implements persistence.Housekeeping.
func (s *Store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	row := append(appendRootKey(nil, key), suffixMark...)
	err := s.write(ctx, key.Aggregate, func(g *group) { s.put(g, row, persistence.AppendArchiveMark(nil, &m)) })
	if err != nil {
		return fmt.Errorf("mark root %v: %w", key, err)
	}
	return nil
}

// DeleteRecords implements persistence.Housekeeping.
func (s *Store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	first := appendPartition(nil, &p)
	end := partitionEnd(slices.Clone(first))
	err := s.write(ctx, p.Aggregate, func(g *group) {
		if err := g.batch.DeleteRange(first, end, nil); err != nil {
			panic(fmt.Sprintf("pebble: plain batch refused a deletion: %v", err)) // it never does
		}
	})
	if err != nil {
		return fmt.Errorf("delete records of %v: %w", p, err)
	}
	return nil
}

// StripRoot implements persistence.Housekeeping. The root's own row is written again without what is
// dropped, for the space; the row beside it is what counts.
func (s *Store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	r, err := s.ReadRoot(ctx, key)
	if err != nil {
		return fmt.Errorf("strip: %w", err)
	}
	bare := r.Strip(snapshotAt)
	row := appendRootKey(nil, key)
	err = s.write(ctx, key.Aggregate, func(g *group) {
		s.put(g, row, persistence.AppendRoot(nil, &bare))
		s.put(g, append(row, suffixStrip...), encodeStrip(snapshotAt))
	})
	if err != nil {
		return fmt.Errorf("strip root %v: %w", key, err)
	}
	return nil
}

// addToRoot takes in a row that belongs to a root.
func addToRoot(r *persistence.Root, suffix, value []byte) error {
	switch string(suffix) {
	case suffixMark:
		m, err := persistence.DecodeArchiveMark(value)
		if err != nil {
			return fmt.Errorf("root %v: %w", r.Key, err)
		}
		r.Archive = &m
	case suffixStrip:
		at, err := decodeStrip(value)
		if err != nil {
			return fmt.Errorf("root %v: stripped: %w", r.Key, err)
		}
		*r = r.Strip(at)
	default:
		return fmt.Errorf("root %v: %w: row %x", r.Key, persistence.ErrCorrupt, suffix)
	}
	return nil
}

// write adds rows of an aggregate to the open group and waits until it is durable.
func (s *Store) write(ctx context.Context, aggregate string, fill func(*group)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	outcome := make(chan error, 1)
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	g := s.openGroup(aggregate)
	fill(g)
	g.waiters = append(g.waiters, waiter{done: func(err error) { outcome <- err }})
	s.wakeCommitter()
	s.mu.Unlock()
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, ctx.Err())
	}
}
