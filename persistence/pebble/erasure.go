package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

// TombstoneKey implements persistence.Erasure.
func (s *Store) TombstoneKey(ctx context.Context, aggregate string) (persistence.TombstoneKey, error) {
	var id persistence.ClusterID
	err := s.view(ctx, func() { id = s.rows.ClusterID() })
	if err == nil && id.IsZero() {
		err = fmt.Errorf("cluster: %w", persistence.ErrNotFound)
	}
	if err != nil {
		return persistence.TombstoneKey{}, fmt.Errorf("tombstone key: %w", err)
	}
	return persistence.TombstoneKeyOf(id, aggregate), nil
}

// tombstoneRow returns the key of a tombstone's row.
func tombstoneRow(key persistence.TombstoneKey) []byte {
	return append([]byte{kindTombstone}, key[:]...)
}

// PutTombstone implements persistence.Erasure.
func (s *Store) PutTombstone(ctx context.Context, t persistence.Tombstone) error {
	err := t.Validate()
	if err == nil && t.Erased.IsZero() {
		var former persistence.Tombstone
		if former, err = s.Tombstone(ctx, t.Key); errors.Is(err, persistence.ErrNotFound) {
			err = nil
		}
		t.Erased = former.Erased
	}
	if err == nil {
		err = s.write(ctx, string(t.Key[:]), func(g *group) {
			s.tombstones.Store(true)
			s.put(g, tombstoneRow(t.Key), persistence.AppendTombstone(nil, &t))
		})
	}
	if err != nil {
		return fmt.Errorf("put tombstone %s: %w", t.Key, err)
	}
	return nil
}

// Tombstone implements persistence.Erasure.
func (s *Store) Tombstone(ctx context.Context, key persistence.TombstoneKey) (persistence.Tombstone, error) {
	row := tombstoneRow(key)
	found, err := read(ctx, s, string(key[:]), func() ([]persistence.Tombstone, error) {
		return s.scanTombstones(row, append(slices.Clone(row), 0), 1)
	})
	if err == nil && len(found) == 0 {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Tombstone{}, fmt.Errorf("tombstone %s: %w", key, err)
	}
	return found[0], nil
}

// Tombstones implements persistence.Erasure.
func (s *Store) Tombstones(
	ctx context.Context, after persistence.TombstoneKey, limit int,
) ([]persistence.Tombstone, error) {
	found, err := read(ctx, s, "", func() ([]persistence.Tombstone, error) {
		return s.scanTombstones(append(tombstoneRow(after), 0), []byte{kindTombstone + 1}, limit)
	})
	if err != nil {
		return nil, fmt.Errorf("tombstones: %w", err)
	}
	return found, nil
}

// scanTombstones returns up to limit tombstones, in the order of keys.
func (s *Store) scanTombstones(lower, upper []byte, limit int) (found []persistence.Tombstone, err error) {
	err = s.scan(lower, upper, limit, func(key, value []byte) error {
		t, err := persistence.DecodeTombstone(value)
		if err == nil && copy(t.Key[:], key[1:]) != len(t.Key) {
			err = fmt.Errorf("%w: key %x", persistence.ErrCorrupt, key)
		}
		found = append(found, t)
		return err
	})
	return found, err
}

// forgotten returns a *ForgottenError if the aggregate has a tombstone. Errors: also ErrUnavailable, ErrCorrupt.
func (s *Store) forgotten(ctx context.Context, aggregate string) error {
	if !s.tombstones.Load() {
		return nil
	}
	key, err := s.TombstoneKey(ctx, aggregate)
	if err == nil {
		var t persistence.Tombstone
		if t, err = s.Tombstone(ctx, key); err == nil {
			return &persistence.ForgottenError{At: t.Time}
		}
	}
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	return err
}

// EraseAggregate implements persistence.Erasure. The deletions of all kinds are one batch, so a crash leaves all or
// nothing; then the files are rewritten that have the deleted rows. What is written of the aggregate before the batch
// goes with it.
func (s *Store) EraseAggregate(ctx context.Context, aggregate string) (persistence.Erased, error) {
	erased, err := s.eraseAggregate(ctx, aggregate)
	if err != nil {
		return persistence.Erased{}, fmt.Errorf("erase %s: %w", aggregate, err)
	}
	return erased, nil
}

func (s *Store) eraseAggregate(ctx context.Context, aggregate string) (erased persistence.Erased, err error) {
	switch err := s.forgotten(ctx, aggregate); {
	case err == nil:
		return erased, fmt.Errorf("%w: it has no tombstone", persistence.ErrRejected)
	case !errors.Is(err, persistence.ErrForgotten):
		return erased, err
	}
	var ranges []span
	for _, kind := range []byte{kindRecord, kindSnapshot, kindRoot} {
		first := appendAggregate(nil, kind, aggregate)
		end := slices.Clone(first)
		end[len(end)-1] = afterAggregate
		ranges = append(ranges, span{first, end})
	}
	erased, err = read(ctx, s, aggregate, func() (n persistence.Erased, err error) {
		err = s.scan(ranges[0].first, ranges[0].end, 1<<30, func([]byte, []byte) error { n.Records++; return nil })
		return n, firstError(err, s.scan(ranges[2].first, ranges[2].end, 1<<30, func(key, _ []byte) error {
			if suffix, ok := rootSuffix(key); ok && len(suffix) == 0 {
				n.Roots++
			}
			return nil
		}))
	})
	if err != nil {
		return erased, err
	}
	err = s.write(ctx, aggregate, func(g *group) {
		for _, r := range ranges {
			if err := g.batch.DeleteRange(r.first, r.end, nil); err != nil {
				panic(fmt.Sprintf("pebble: plain batch refused a deletion: %v", err)) // it never does
			}
		}
	})
	if err != nil {
		return erased, err
	}
	_, err = read(ctx, s, "", func() (struct{}, error) {
		return struct{}{}, purge(ctx, s.db, &s.freshLogs, ranges, func() error {
			return s.write(ctx, "", func(g *group) { s.put(g, []byte{kindMarker}, encodeMarker(format)) })
		})
	})
	return erased, err
}

// span is a range of keys, without its end.
type span struct{ first, end []byte }

// purge has the engine rewrite the tables that have keys of the ranges, which were deleted, and write new logs in
// place of those that have them. The logs of an engine are files of earlier logs, written anew from the beginning;
// fresh makes them new files for as long as that takes. touch writes a row that changes nothing: an engine that has
// nothing to flush keeps its log.
//
// The list of tables (the MANIFEST) keeps the first and last keys of tables that are gone, and with these perhaps the
// id. The engine writes a new list at each start, and keeps one former list.
func purge(ctx context.Context, db *pebbledb.DB, fresh *atomic.Int32, ranges []span, touch func() error) error {
	fresh.Add(1)
	defer fresh.Add(-1)
	// The engine keeps up to memTables + 1 old logs, and may be flushing as many.
	for range 2 * (memTables + 1) {
		if err := touch(); err != nil {
			return err
		}
		if err := db.Flush(); err != nil {
			return classify(err)
		}
	}
	for _, r := range ranges {
		if err := db.Compact(ctx, r.first, r.end, false); err != nil {
			return classify(err)
		}
	}
	return nil
}

// logFS gives an engine new files for its logs while fresh is above 0, in place of old ones that it would write over.
type logFS struct {
	vfs.FS
	fresh *atomic.Int32
}

// ReuseForWrite implements vfs.FS.
func (l *logFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if l.fresh.Load() == 0 {
		return l.FS.ReuseForWrite(oldname, newname, c)
	}
	if err := l.Remove(oldname); err != nil {
		return nil, err
	}
	return l.Create(newname, c)
}

// Unwrap implements vfs.FS.
func (l *logFS) Unwrap() vfs.FS { return l.FS }

// EraseSegments implements persistence.Archive.
func (a *Archive) EraseSegments(ctx context.Context, aggregate string) (int, error) {
	first := segmentKey(persistence.SegmentPrefix(aggregate))
	end := slices.Clone(first)
	end[len(end)-1]++
	found := make(chan int, 1)
	err := a.use(ctx, persistence.ErrUnknownOutcome, func(e *archiveEngine) error {
		spans, err := deleteSegments(e.db, first, end)
		found <- len(spans)
		if err != nil || len(spans) == 0 {
			return err
		}
		spans = append(spans, span{first, end})
		return purge(ctx, e.db, &a.freshLogs, spans, func() error { return touchMarker(e.db) })
	})
	if err != nil {
		return 0, fmt.Errorf("erase segments of %s: %w", aggregate, err)
	}
	return <-found, nil
}

// touchMarker writes the marker again, as it is.
func touchMarker(db *pebbledb.DB) error {
	value, closer, err := db.Get([]byte{kindMarker})
	if err != nil {
		return classify(err)
	}
	value = slices.Clone(value)
	return classify(firstError(closer.Close(), db.Set([]byte{kindMarker}, value, pebbledb.Sync)))
}

// deleteSegments deletes the segments from first to end with their rows of expiry. It returns the keys that named one,
// a span for each segment.
func deleteSegments(db *pebbledb.DB, first, end []byte) ([]span, error) {
	iter, err := db.NewIter(&pebbledb.IterOptions{LowerBound: first, UpperBound: end})
	if err != nil {
		return nil, classify(err)
	}
	b := db.NewBatch()
	defer b.Close()
	var spans []span
	for ok := iter.First(); ok && err == nil; ok = iter.Next() {
		key := slices.Clone(iter.Key())
		value, valueErr := iter.ValueAndErr()
		err = firstError(classify(valueErr), classify(b.Delete(key, nil)))
		// A damaged segment is deleted as well; its row of expiry goes when that time has come.
		if _, expires, bad := decodeSegment(value); bad == nil && !expires.IsZero() {
			key = expiryKey(expires, string(key[1:]))
			err = firstError(err, classify(b.Delete(key, nil)))
		}
		spans = append(spans, span{key, append(slices.Clone(key), 0)})
	}
	if err := firstError(err, classify(iter.Error()), classify(iter.Close())); err != nil || len(spans) == 0 {
		return nil, err
	}
	if err := b.Commit(pebbledb.Sync); err != nil {
		return nil, fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	return spans, nil
}
