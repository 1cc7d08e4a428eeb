package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"licensed/persistence"
)

// MarkArchived implements persistence.Housekeeping.
func (s *Store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	row := append(appendRootKey(nil, key), suffixMark...)
	// The mark of a root that was erased would be a row of no root.
	err := s.forgotten(ctx, key.Aggregate)
	if err != nil {
		return fmt.Errorf("mark root %v: %w", key, err)
	}
	err = s.write(ctx, key.Aggregate, func(g *group) { s.put(g, row, persistence.AppendArchiveMark(nil, &m)) })
	if err != nil {
		return fmt.Errorf("mark root %v: %w", key, err)
	}
	return nil
}

// maxSingleDeletes is the number of records of a partition that are deleted one by one. The engine sorts all ranges
// that were deleted lately whenever one is added and something is read, this many small ones are slow.
const maxSingleDeletes = 1000

// DeleteRecords implements persistence.Housekeeping.
func (s *Store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	first := appendPartition(nil, &p)
	// The records are read first: with their keys at hand, single deletions are possible,
	// and a partition that is empty costs no write.
	end := partitionEnd(slices.Clone(first))
	keys, err := read(ctx, s, p.Aggregate, func() (keys [][]byte, err error) {
		err = s.scan(first, end, maxSingleDeletes+1, func(key, _ []byte) error {
			keys = append(keys, slices.Clone(key))
			return nil
		})
		return keys, err
	})
	if err == nil && len(keys) > 0 {
		err = s.write(ctx, p.Aggregate, func(g *group) { s.delete(g, first, end, keys) })
	}
	if err != nil {
		return fmt.Errorf("delete records of %v: %w", p, err)
	}
	return nil
}

// delete deletes the keys, which are all there are from first to end, unless they are too many. Requires s.mu.
func (s *Store) delete(g *group, first, end []byte, keys [][]byte) {
	var err error
	// For very large partitions the range is cheaper, however slow.
	if len(keys) > maxSingleDeletes {
		err = g.batch.DeleteRange(first, end, nil)
	} else {
		for _, key := range keys {
			err = errors.Join(err, g.batch.Delete(key, nil))
		}
	}
	if err != nil {
		panic(fmt.Sprintf("pebble: plain batch refused a deletion: %v", err)) // it never does
	}
}

// StripRoot implements persistence.Housekeeping. The snapshot is deleted, for the space; the row beside the root's is
// what counts. The root's own row is written again, because one of the first format has the snapshot.
func (s *Store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	r, err := s.ReadRoot(ctx, key)
	if err != nil {
		return fmt.Errorf("strip: %w", err)
	}
	row, snapshot := appendRootKey(nil, key), appendSnapshotKey(nil, key)
	err = s.write(ctx, key.Aggregate, func(g *group) {
		s.put(g, row, appendChain(nil, &r))
		s.put(g, append(row, suffixStrip...), encodeStrip(snapshotAt))
		s.delete(g, snapshot, nil, [][]byte{snapshot})
	})
	if err != nil {
		return fmt.Errorf("strip root %v: %w", key, err)
	}
	return nil
}

// addToRoot processes a row that belongs to a root.
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

// write adds rows of an aggregate to the open group, by calling fill under s.mu, and
// waits until it is durable. Errors: ErrUnknownOutcome, also when ctx ends first, and
// ErrClosed.
func (s *Store) write(ctx context.Context, aggregate string, fill func(*group)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	// Room for the outcome: the acknowledger must not wait for a caller that left.
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
