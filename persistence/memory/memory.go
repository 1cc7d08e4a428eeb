// Package memory is a store in the memory of one process, for tests, and the baseline that the
// simulation and the other stores are held against.
//
// Rows are kept in the encoding of package persistence, so what is read never shares memory with
// what was written, and damaged rows behave as on a disk. A write is present when its done is called,
// which is before PutRoot and Append return. Rows outlive Close: a Store is a handle, and Reopen
// gives another one on the same rows, as a restarted process would open its directory again. Several
// handles may be open at a time, as the nodes of a cluster share one store.
package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"licensed/persistence"
	"licensed/persistence/internal/ownership"
)

// Store is a handle on rows in memory. It is safe for concurrent use.
type Store struct {
	rows   *rows
	closed atomic.Bool
}

var _ persistence.Store = (*Store)(nil)

// rows is what the handles share.
type rows struct {
	// mu guards all rows. It is not held while rows are decoded, nor during a callback.
	mu sync.RWMutex
	// aggregates has the roots of each aggregate, ascending by key; partitions the
	// records, ascending by sequence.
	aggregates map[string][]root
	partitions map[persistence.Partition][]record
	ownership  ownership.Table
	tombstones map[persistence.TombstoneKey]persistence.Tombstone
}

// root has apart what is written apart. The slices are never changed in place: readers decode after
// they released the lock.
type root struct {
	key persistence.RootKey
	// The encoding of the root with its snapshot.
	bytes []byte
	mark  []byte // archive mark, nil for none
	// Where the archive has the snapshot, if the root is stripped.
	strip *string
	// damaged says that the snapshot cannot be read.
	damaged bool
}

// record is one event as it is stored.
type record struct {
	sequence uint64
	bytes    []byte
}

// New returns an empty store.
func New() *Store {
	return &Store{rows: &rows{
		aggregates: make(map[string][]root),
		partitions: make(map[persistence.Partition][]record),
		tombstones: make(map[persistence.TombstoneKey]persistence.Tombstone),
	}}
}

// Reopen returns another handle on the same rows.
func (s *Store) Reopen() *Store { return &Store{rows: s.rows} }

// Close closes this handle.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return fmt.Errorf("close: %w", persistence.ErrClosed)
	}
	return nil
}

// usable returns why a read cannot be served, or nil. Errors: ErrClosed, ErrUnavailable
// if ctx has ended.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
	}
	return nil
}

// writable returns why a write is not done, or nil. Errors: ErrClosed, ErrUnknownOutcome
// if ctx has ended, although nothing was done: callers must not learn more than from
// other stores.
func (s *Store) writable(ctx context.Context) error {
	if s.closed.Load() {
		return persistence.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
	}
	return nil
}

// MaxMutation implements persistence.Journal: there is no limit.
func (s *Store) MaxMutation() int { return 0 }

// TopRoot implements persistence.Journal.
func (s *Store) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	roots, err := s.ReadRoots(ctx, aggregate, persistence.RootKey{}, 1)
	if err != nil {
		return persistence.Root{}, err
	}
	if len(roots) == 0 {
		return persistence.Root{}, fmt.Errorf("top root of %s: %w", aggregate, persistence.ErrNotFound)
	}
	return roots[0], nil
}

// ReadRoot implements persistence.Journal.
func (s *Store) ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error) {
	if err := s.usable(ctx); err != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", key, err)
	}
	s.rows.mu.RLock()
	row, ok := s.rows.root(key)
	forgotten := s.rows.forgotten(key.Aggregate)
	s.rows.mu.RUnlock()
	if forgotten != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", key, forgotten)
	}
	if !ok {
		return persistence.Root{}, fmt.Errorf("root %v: %w", key, persistence.ErrNotFound)
	}
	return row.decode()
}

// ReadRoots implements persistence.Journal.
func (s *Store) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("roots of %s: %w", aggregate, err)
	}
	s.rows.mu.RLock()
	stored := s.rows.aggregates[aggregate]
	end := len(stored)
	if !below.IsZero() {
		end = searchRoot(stored, below)
	}
	// Copied under the lock: rows are replaced in place later. Their bytes are never
	// changed, and are decoded without the lock.
	stored = slices.Clone(stored[end-max(0, min(limit, end)) : end])
	forgotten := s.rows.forgotten(aggregate)
	s.rows.mu.RUnlock()
	if forgotten != nil {
		return nil, fmt.Errorf("roots of %s: %w", aggregate, forgotten)
	}

	roots := make([]persistence.Root, 0, len(stored))
	for _, row := range slices.Backward(stored) {
		r, err := row.decode()
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// ReadRecords implements persistence.Journal.
func (s *Store) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("records of %v: %w", p, err)
	}
	s.rows.mu.RLock()
	stored := s.rows.partitions[p]
	start := sort.Search(len(stored), func(i int) bool { return stored[i].sequence > after })
	stored = firstN(stored[start:], limit)
	s.rows.mu.RUnlock()

	records := make([]persistence.Record, 0, len(stored))
	for _, row := range stored {
		// Decoding keeps parts of the bytes, which the caller may change.
		r, err := persistence.DecodeRecord(slices.Clone(row.bytes))
		if err != nil {
			return nil, fmt.Errorf("record %d of %v: %w", row.sequence, p, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// PutRoot implements persistence.Journal.
func (s *Store) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	err := s.writable(ctx)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		done(fmt.Errorf("put root %v: %w", r.Key, err))
		return
	}
	s.rows.mu.Lock()
	// A root that is written again keeps its marks, as in the other stores, where they
	// are other columns or rows.
	row, _ := s.rows.root(r.Key)
	row.key, row.bytes, row.damaged = r.Key, persistence.AppendRoot(nil, r), false
	s.rows.setRoot(row)
	s.rows.mu.Unlock()
	done(nil)
}

// Append implements persistence.Journal.
func (s *Store) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	err := s.writable(ctx)
	if err == nil {
		err = m.Validate()
	}
	if err != nil {
		done(fmt.Errorf("append to %v: %w", m.Partition, err))
		return
	}
	// All records become visible at once, as those of a partition do in the other stores.
	s.rows.mu.Lock()
	for i := range m.Records {
		r := &m.Records[i]
		s.rows.setRecord(m.Partition, record{sequence: r.Sequence, bytes: persistence.AppendRecord(nil, r)})
	}
	s.rows.mu.Unlock()
	done(nil)
}

// Aggregates implements persistence.Journal, in the order of the ids' bytes.
func (s *Store) Aggregates(ctx context.Context, after string, limit int) ([]string, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("aggregates: %w", err)
	}
	s.rows.mu.RLock()
	defer s.rows.mu.RUnlock()
	ids := slices.Sorted(maps.Keys(s.rows.aggregates))
	start := sort.Search(len(ids), func(i int) bool { return ids[i] > after })
	return firstN(ids[start:], limit), nil
}

// CorruptRoot damages a stored root, which must exist, for tests.
func (s *Store) CorruptRoot(key persistence.RootKey) {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	row, ok := s.rows.root(key)
	if !ok {
		panic(fmt.Sprintf("memory: no root %v", key))
	}
	row.bytes = damaged(row.bytes)
	s.rows.setRoot(row)
}

// CorruptRecord damages a stored record, which must exist, for tests.
func (s *Store) CorruptRecord(p persistence.Partition, sequence uint64) {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	stored := s.rows.partitions[p]
	i := searchRecord(stored, sequence)
	if i == len(stored) || stored[i].sequence != sequence {
		panic(fmt.Sprintf("memory: no record %d in %v", sequence, p))
	}
	s.rows.setRecord(p, record{sequence: sequence, bytes: damaged(stored[i].bytes)})
}

// DamageSnapshot makes the snapshot of the aggregate's top root unreadable, and leaves the rest of the row.
func (s *Store) DamageSnapshot(aggregate string) {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	stored := s.rows.aggregates[aggregate]
	if len(stored) == 0 {
		panic("memory: no root of " + aggregate)
	}
	row := stored[len(stored)-1]
	row.damaged = true
	s.rows.setRoot(row)
}

// damaged returns a copy with a flipped bit in the middle: the stored slice may be in
// use.
func damaged(b []byte) []byte {
	b = slices.Clone(b)
	b[len(b)/2] ^= 0x10
	return b
}

// decode returns the root as a read returns it. Errors: ErrCorrupt.
func (r *root) decode() (persistence.Root, error) {
	decoded, err := persistence.DecodeRoot(slices.Clone(r.bytes))
	if err != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", r.key, err)
	}
	switch {
	case r.strip != nil:
		decoded = decoded.Strip(*r.strip)
	case r.damaged:
		decoded = decoded.Damaged(fmt.Errorf("snapshot of root %v: %w", r.key, persistence.ErrCorrupt))
	}
	if r.mark != nil {
		m, err := persistence.DecodeArchiveMark(r.mark)
		if err != nil {
			return persistence.Root{}, fmt.Errorf("root %v: %w", r.key, err)
		}
		decoded.Archive = &m
	}
	return decoded, nil
}

// root returns a stored root, or false. Requires mu.
func (r *rows) root(key persistence.RootKey) (root, bool) {
	stored := r.aggregates[key.Aggregate]
	i := searchRoot(stored, key)
	if i == len(stored) || stored[i].key != key {
		return root{}, false
	}
	return stored[i], true
}

// setRoot puts a root in its place, or replaces it. Requires mu.
func (r *rows) setRoot(row root) {
	stored := r.aggregates[row.key.Aggregate]
	i := searchRoot(stored, row.key)
	if i < len(stored) && stored[i].key == row.key {
		stored[i] = row
		return
	}
	r.aggregates[row.key.Aggregate] = slices.Insert(stored, i, row)
}

// setRecord puts a record in its place, or replaces it. Requires mu.
func (r *rows) setRecord(p persistence.Partition, row record) {
	stored := r.partitions[p]
	i := searchRecord(stored, row.sequence)
	if i < len(stored) && stored[i].sequence == row.sequence {
		stored[i] = row
		return
	}
	r.partitions[p] = slices.Insert(stored, i, row)
}

// firstN returns a copy of up to n first elements.
func firstN[E any](s []E, n int) []E { return slices.Clone(s[:max(0, min(n, len(s)))]) }

// searchRoot returns the index of the first root not below key.
func searchRoot(stored []root, key persistence.RootKey) int {
	return sort.Search(len(stored), func(i int) bool { return !stored[i].key.Less(key) })
}

// searchRecord returns the index of the first record not below sequence.
func searchRecord(stored []record, sequence uint64) int {
	return sort.Search(len(stored), func(i int) bool { return stored[i].sequence >= sequence })
}
