package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/persistence"
)

// PutRoot implements persistence.Journal. The context is looked at once: a write that
// began is carried out. The callback runs on the goroutine that acknowledges all writes
// and must not block. It runs before PutRoot returns if the write is refused.
func (s *Store) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	if err := s.putRoot(ctx, r, done); err != nil {
		done(putRootError(r, err))
	}
}

// putRoot adds the two rows of a root to the open group: what holds the chain together,
// and the snapshot. An error means that done will not be called.
func (s *Store) putRoot(ctx context.Context, r *persistence.Root, done func(error)) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if size := r.Size(); size > s.opts.MaxMutation {
		return s.tooLarge(size)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	// Writers hold s.mu only to copy rows into the batch; the disk is the committer's.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	g := s.openGroup(r.Key.Aggregate)
	// The batch copies key and value, so both buffers serve for the next row.
	s.key, s.value = appendRootKey(s.key[:0], r.Key), appendChain(s.value[:0], r)
	s.put(g, s.key, s.value)
	s.key, s.value = appendSnapshotKey(s.key[:0], r.Key), appendSnapshot(s.value[:0], r)
	s.put(g, s.key, s.value)
	g.waiters = append(g.waiters, waiter{done: done, root: r})
	s.wakeCommitter()
	return nil
}

// Append implements persistence.Journal; otherwise as PutRoot.
func (s *Store) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	if err := s.append(ctx, m, done); err != nil {
		done(appendError(m, err))
	}
}

// append adds the rows of a mutation to the open group, all to the same one: a batch is
// applied as a whole, also by a recovery from the log.
func (s *Store) append(ctx context.Context, m *persistence.Mutation, done func(error)) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if size := m.Size(); size > s.opts.MaxMutation {
		return s.tooLarge(size)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	g := s.openGroup(m.Partition.Aggregate)
	// The keys of a partition have a common prefix, which is encoded once.
	s.key = appendPartition(s.key[:0], &m.Partition)
	prefix := len(s.key)
	for i := range m.Records {
		s.key = appendNumber(s.key[:prefix], m.Records[i].Sequence)
		s.value = persistence.AppendRecord(s.value[:0], &m.Records[i])
		s.put(g, s.key, s.value)
	}
	g.waiters = append(g.waiters, waiter{done: done, mutation: m})
	s.wakeCommitter()
	return nil
}

// MaxMutation implements persistence.Journal.
func (s *Store) MaxMutation() int { return s.opts.MaxMutation }

// tooLarge returns the error of a mutation or root above Options.MaxMutation.
func (s *Store) tooLarge(size int) error {
	return fmt.Errorf("%w: %d bytes, more than %d", persistence.ErrRejected, size, s.opts.MaxMutation)
}

// appendError names the mutation in an error.
func appendError(m *persistence.Mutation, err error) error {
	return fmt.Errorf("append to %v: %w", m.Partition, err)
}

// putRootError names the root in an error.
func putRootError(r *persistence.Root, err error) error {
	return fmt.Errorf("put root %v: %w", r.Key, err)
}

// TopRoot implements persistence.Journal.
func (s *Store) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	return s.readRoot(ctx, aggregate, aggregate, appendAggregate(nil, kindRoot, aggregate))
}

// ReadRoot implements persistence.Journal.
func (s *Store) ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error) {
	return s.readRoot(ctx, key, key.Aggregate, appendRootKey(nil, key))
}

// readRoot returns the aggregate's first root whose key starts with prefix; name is what to call it in errors.
func (s *Store) readRoot(ctx context.Context, name any, aggregate string, prefix []byte) (persistence.Root, error) {
	var roots []persistence.Root
	err := s.forgotten(ctx, aggregate)
	if err == nil {
		roots, err = read(ctx, s, aggregate, func() ([]persistence.Root, error) {
			return s.scanRoots(prefix, append(slices.Clone(prefix), 0xff), 1)
		})
	}
	if err != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", name, err)
	}
	if len(roots) == 0 {
		return persistence.Root{}, fmt.Errorf("root %v: %w", name, persistence.ErrNotFound)
	}
	return roots[0], nil
}

// ReadRoots implements persistence.Journal.
func (s *Store) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	lower := appendAggregate(nil, kindRoot, aggregate)
	upper := append(slices.Clone(lower), 0xff)
	if !below.IsZero() {
		below.Aggregate = aggregate
		// Keys of roots sort the highest first: below is what follows in the order of
		// keys.
		lower = append(appendRootKey(nil, below), afterRoot)
	}
	var roots []persistence.Root
	err := s.forgotten(ctx, aggregate)
	if err == nil {
		roots, err = read(ctx, s, aggregate,
			func() ([]persistence.Root, error) { return s.scanRoots(lower, upper, limit) })
	}
	if err != nil {
		return nil, fmt.Errorf("roots of %s: %w", aggregate, err)
	}
	return roots, nil
}

// scanRoots returns up to limit roots, each with what belongs to it, highest first. The
// rows that belong to a root follow it, so a root is complete when the next one begins.
// Errors: ErrCorrupt if a row of the chain is damaged; a damaged snapshot is the Damage
// of its root.
func (s *Store) scanRoots(lower, upper []byte, limit int) ([]persistence.Root, error) {
	if limit <= 0 {
		return nil, nil
	}
	iter, err := s.db.NewIter(&pebbledb.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, classify(err)
	}
	var found rootScan
	for ok := iter.First(); ok && err == nil; ok = iter.Next() {
		suffix, known := rootSuffix(iter.Key())
		// The next root begins, and the last one that is wanted is complete.
		if known && len(suffix) == 0 && len(found.roots) == limit {
			break
		}
		value, valueErr := iter.ValueAndErr()
		switch {
		case valueErr != nil:
			err = classify(valueErr)
		case !known:
			err = fmt.Errorf("%w: key %x", persistence.ErrCorrupt, iter.Key())
		default:
			err = found.add(iter.Key(), suffix, slices.Clone(value))
		}
	}
	if err = firstError(err, classify(iter.Error())); err == nil {
		err = found.readSnapshots(iter)
	}
	// The iterator repeats the error of a damaged snapshot, which its root has.
	if closeErr := iter.Close(); err == nil && !pebbledb.IsCorruptionError(closeErr) {
		err = classify(closeErr)
	}
	if err != nil {
		return nil, err
	}
	return found.roots, nil
}

// rootScan collects the rows of roots.
type rootScan struct {
	roots []persistence.Root
	split []bool // whose snapshots are in rows of their own
	key   []byte // of the last root
}

// add processes the next row: a root, or what belongs to the last one.
func (s *rootScan) add(key, suffix, value []byte) error {
	if len(suffix) == 0 {
		r, split, err := decodeRoot(value)
		if err == nil && string(appendRootKey(nil, r.Key)) != string(key) {
			// A row under another's key has a sound checksum, and is wrong all the same.
			err = fmt.Errorf("%w: root %v under another's key", persistence.ErrCorrupt, r.Key)
		}
		s.roots, s.split, s.key = append(s.roots, r), append(s.split, split), append(s.key[:0], key...)
		return err
	}
	// Rows of a root that no longer exists, or never became durable, are skipped.
	if len(s.roots) == 0 || string(key[:len(key)-len(suffix)]) != string(s.key) {
		return nil // of no root
	}
	return addToRoot(&s.roots[len(s.roots)-1], suffix, value)
}

// readSnapshots reads the snapshots of the roots that were collected, from the same state of the store. A root whose
// snapshot is damaged or missing is reported.
func (s *rootScan) readSnapshots(iter *pebbledb.Iterator) error {
	for i := range s.roots {
		r := &s.roots[i]
		if !s.split[i] || r.Stripped {
			continue
		}
		err := readSnapshot(iter, r)
		if errors.Is(err, persistence.ErrCorrupt) {
			*r, err = r.Damaged(fmt.Errorf("snapshot of root %v: %w", r.Key, err)), nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readSnapshot completes a root with its snapshot. Errors: ErrCorrupt, also if it is
// missing; ErrUnavailable. The iterator is moved to other bounds.
func readSnapshot(iter *pebbledb.Iterator, r *persistence.Root) error {
	key := appendSnapshotKey(nil, r.Key)
	iter.SetBounds(key, append(slices.Clone(key), 0))
	if !iter.First() {
		return firstError(classify(iter.Error()), fmt.Errorf("%w: it is missing", persistence.ErrCorrupt))
	}
	value, err := iter.ValueAndErr()
	if err != nil {
		return classify(err)
	}
	return decodeSnapshot(r, slices.Clone(value))
}

// ReadRecords implements persistence.Journal.
func (s *Store) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	prefix := appendPartition(nil, &p)
	lower := append(appendNumber(slices.Clone(prefix), after), 0) // just above that key
	upper := partitionEnd(slices.Clone(prefix))
	records, err := read(ctx, s, p.Aggregate, func() ([]persistence.Record, error) {
		return s.scanRecords(prefix, lower, upper, limit)
	})
	if err != nil {
		return nil, fmt.Errorf("records of %v after %d: %w", p, after, err)
	}
	return records, nil
}

// scanRecords returns up to limit records, in order. A record is checked against its key.
func (s *Store) scanRecords(prefix, lower, upper []byte, limit int) ([]persistence.Record, error) {
	var records []persistence.Record
	err := s.scan(lower, upper, limit, func(key, value []byte) error {
		sequence, _, ok := takeNumber(key[len(prefix):])
		r, err := persistence.DecodeRecord(value)
		// A record under another's key was moved by a tool or a fault below the engine's
		// checksums.
		if err == nil && (!ok || sequence != r.Sequence) {
			err = fmt.Errorf("%w: record %d under another's key", persistence.ErrCorrupt, r.Sequence)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", sequence, err)
		}
		records = append(records, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// Aggregates implements persistence.Journal, in the order of the ids' bytes.
func (s *Store) Aggregates(ctx context.Context, after string, limit int) ([]string, error) {
	ids, err := read(ctx, s, "", func() ([]string, error) { return s.scanAggregates(after, limit) })
	if err != nil {
		return nil, fmt.Errorf("aggregates: %w", err)
	}
	return ids, nil
}

// scanAggregates returns up to limit ids of aggregates that have a root. It seeks from
// one aggregate's first root to the next aggregate, so that the number of roots does not
// matter.
func (s *Store) scanAggregates(after string, limit int) ([]string, error) {
	iter, err := s.db.NewIter(&pebbledb.IterOptions{LowerBound: []byte{kindRoot}, UpperBound: []byte{kindRoot + 1}})
	if err != nil {
		return nil, classify(err)
	}
	var ids []string
	for len(ids) < limit {
		// Just above all keys of that aggregate.
		seek := append(append([]byte{kindRoot}, after...), afterAggregate)
		if after == "" {
			seek = seek[:1]
		}
		if !iter.SeekGE(seek) {
			break
		}
		id, ok := rootAggregate(iter.Key())
		if !ok {
			err = fmt.Errorf("%w: key %x", persistence.ErrCorrupt, iter.Key())
			break
		}
		ids = append(ids, id)
		after = id
	}
	if err := firstError(err, classify(iter.Error()), classify(iter.Close())); err != nil {
		return nil, err
	}
	return ids, nil
}

// scan calls row for up to limit rows from lower to below upper, until it returns an
// error. The key is valid during the call, the value for good. Errors: those of row,
// ErrCorrupt, ErrUnavailable.
func (s *Store) scan(lower, upper []byte, limit int, row func(key, value []byte) error) error {
	iter, err := s.db.NewIter(&pebbledb.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return classify(err)
	}
	n := 0
	for ok := n < limit && iter.First(); ok && err == nil; ok = n < limit && iter.Next() {
		n++
		value, valueErr := iter.ValueAndErr()
		if err = classify(valueErr); err == nil {
			err = row(iter.Key(), slices.Clone(value))
		}
	}
	return firstError(err, classify(iter.Error()), classify(iter.Close()))
}

// firstError returns the first error that is not nil. errors.Join would report those that
// follow from it, too.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// read runs f and returns its value when all that f may have seen is durable: what one
// read saw, later reads must see, also after a power loss. f sees rows of that aggregate
// only; "" means any. If ctx can end, f runs on another goroutine, so that the caller
// need not wait longer for a disk that hangs. Errors: ErrUnavailable when ctx ends,
// ErrClosed, and those of f.
func read[T any](ctx context.Context, s *Store, aggregate string, f func() (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
	}
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return zero, s.err
	}
	// Counted under s.mu, so that Close waits for it.
	s.reads.Add(1)
	s.mu.Unlock()

	run := func() (T, error) {
		defer s.reads.Done()
		return f()
	}
	if ctx.Done() != nil {
		run = elsewhere(ctx, s, run)
	}
	value, err := run()
	// The order matters: what f saw was given to the engine before f ended, so it is in a
	// group up to the last one that flies now.
	if err == nil {
		err = s.awaitSeen(ctx, aggregate)
	}
	if err != nil {
		return zero, err
	}
	return value, nil
}

// elsewhere returns a function that runs f on another goroutine, and gives up with ctx or
// the store. f continues then, and its value is dropped.
func elsewhere[T any](ctx context.Context, s *Store, f func() (T, error)) func() (T, error) {
	type result struct {
		value T
		err   error
	}
	return func() (zero T, err error) {
		results := make(chan result, 1)
		go func() {
			v, err := f()
			results <- result{v, err}
		}()
		select {
		case r := <-results:
			return r.value, r.err
		case <-ctx.Done():
			return zero, fmt.Errorf("%w: %w", persistence.ErrUnavailable, ctx.Err())
		case <-s.stopped:
			return zero, s.refusal()
		}
	}
}

// awaitSeen waits until all that the engine was given of an aggregate is durable. Groups
// that are pending need no waiting: the engine does not have them, so no reader saw them.
func (s *Store) awaitSeen(ctx context.Context, aggregate string) error {
	s.mu.Lock()
	untouched := aggregate != "" && *s.touched.by(aggregate) <= s.durable
	if untouched || len(s.flying) == 0 || s.failed {
		defer s.mu.Unlock()
		return s.failure()
	}
	landing := s.flying[len(s.flying)-1].landing()
	s.mu.Unlock()
	return s.await(ctx, landing, persistence.ErrUnavailable)
}

// failure returns why the store stopped itself, if it did. Requires s.mu.
func (s *Store) failure() error {
	if s.failed {
		return s.err
	}
	return nil
}

// await waits for a landing. If ctx ends first, the error wraps verdict and ctx's error.
func (s *Store) await(ctx context.Context, landing <-chan struct{}, verdict error) error {
	select {
	case <-landing:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", verdict, ctx.Err())
	case <-s.stopped:
		return s.refusal()
	}
}
