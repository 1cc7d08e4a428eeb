package cassandra

import (
	"context"
	"errors"
	"fmt"

	"github.com/gocql/gocql"

	"licensed/internal/planted"
	"licensed/persistence"
)

// pageRows bounds the rows of one answer, so that a large request is several small ones.
const pageRows = 1000

// TopRoot implements persistence.Journal.
func (s *Store) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	// The clustering order puts the highest epoch and version first.
	roots, err := s.readRoots(ctx, aggregate, 1, selectRoots, aggregate, 1)
	if err == nil && len(roots) == 0 {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Root{}, fmt.Errorf("top root of %s: %w", aggregate, err)
	}
	return roots[0], nil
}

// ReadRoot implements persistence.Journal.
func (s *Store) ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error) {
	var roots []persistence.Root
	var err error
	// A number above 2^63 cannot have been stored: the root does not exist.
	if fits(key.Epoch, key.Version) {
		roots, err = s.readRoots(ctx, key.Aggregate, 1, selectRoot, key.Aggregate, int64(key.Epoch), int64(key.Version))
	}
	if err == nil && len(roots) == 0 {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", key, err)
	}
	return roots[0], nil
}

// ReadRoots implements persistence.Journal.
func (s *Store) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	statement, values := selectRoots, []any{aggregate, limit}
	// Roots have epochs and versions of at most 2^63-1, what a bigint holds, so a key
	// with a higher epoch is above all of them: no condition is needed.
	if !below.IsZero() && fits(below.Epoch) {
		if !fits(below.Version) {
			// Every root of this epoch is below the key.
			below.Epoch, below.Version = below.Epoch+1, 0
		}
		statement, values = selectBelow, []any{aggregate, int64(below.Epoch), int64(below.Version), limit}
	}
	roots, err := s.readRoots(ctx, aggregate, limit, statement, values...)
	if err != nil {
		return nil, fmt.Errorf("roots of %s: %w", aggregate, err)
	}
	return roots, nil
}

// readRoots reads up to limit roots with one of the select statements of roots. It fails
// at the first root whose columns are corrupt; one whose snapshot alone is damaged is
// returned with its Damage. The tombstone of the aggregate is read at the same time.
func (s *Store) readRoots(
	ctx context.Context, aggregate string, limit int, statement string, values ...any,
) ([]persistence.Root, error) {
	forgotten := make(chan error, 1)
	go func() { forgotten <- s.forgotten(ctx, aggregate) }()
	var roots []persistence.Root
	err := s.scan(limit, []byte(aggregate), s.query(ctx, statement, values...), func(iter *gocql.Iter) (bool, error) {
		var row rootRow
		if !row.scan(iter) {
			return false, nil
		}
		r, err := row.root(aggregate)
		roots = append(roots, r)
		return true, err
	})
	if other := <-forgotten; err == nil || errors.Is(other, persistence.ErrForgotten) {
		err = other
	}
	if err != nil {
		return nil, err
	}
	return roots, nil
}

// ReadRecords implements persistence.Journal.
func (s *Store) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	if !fits(p.Epoch, p.Version, after) {
		limit = 0 // there can be none
	}
	rowID := p.RowID()
	// Cassandra's LIMIT is an int32.
	values := []any{rowID, int64(p.Epoch), gocql.UUID(p.Incarnation), int64(after), min(limit, 1<<30)}
	var records []persistence.Record
	err := s.scan(limit, eventsKey(&p, rowID),
		s.query(ctx, selectEvents, values...), func(iter *gocql.Iter) (bool, error) {
			var row eventRow
			if !row.scan(iter) {
				return false, nil
			}
			r, err := row.record(&p)
			records = append(records, r)
			return true, err
		})
	if err != nil {
		return nil, fmt.Errorf("records of %v: %w", p, err)
	}
	return records, nil
}

// Aggregates implements persistence.Journal, in the order of Cassandra's tokens.
func (s *Store) Aggregates(ctx context.Context, after string, limit int) ([]string, error) {
	// The page has one row more than the limit: without after, or if other ids share its
	// token, the row of after is not among those returned.
	query := s.query(ctx, selectAggregates)
	if after != "" {
		query = s.query(ctx, selectAggregatesAfter, after)
	}
	query = query.PageSize(max(1, min(limit, pageRows-1)) + 1)
	var ids []string
	var first int64
	seen := 0
	err := s.scan(limit, allRows, query, func(iter *gocql.Iter) (bool, error) {
		var id string
		var token int64
		if len(ids) == limit || !iter.Scan(&id, &token) {
			return false, nil
		}
		if seen++; seen == 1 {
			first = token
		}
		// The first token is that of after; ids that share it come in the order of their bytes.
		if after == "" || token != first || id > after {
			ids = append(ids, id)
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("aggregates: %w", err)
	}
	return ids, nil
}

// query returns a read of up to [pageRows] rows per answer; the driver asks for further
// pages when the caller has scanned the first.
func (s *Store) query(ctx context.Context, statement string, values ...any) *gocql.Query {
	return s.session.read(ctx, statement, values...).PageSize(pageRows)
}

// scan runs a read of the partition with that key, or of [allRows], calling next until it
// returns false or an error. It waits for the turn of the set of replicas, up to
// Options.Timeout. It does nothing if limit is not above 0. Errors: ErrClosed,
// ErrUnavailable, and those of next.
func (s *Store) scan(
	limit int, partitionKey []byte, query *gocql.Query, next func(*gocql.Iter) (more bool, err error),
) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := query.Context().Err(); err != nil {
		return readError(err)
	}
	if limit <= 0 {
		return nil
	}
	// Reads of replicas that hang may have taken all the room of their lane. The callers of further ones should hear
	// so.
	turn, cancel := context.WithTimeout(query.Context(), s.opts.Timeout)
	defer cancel()
	err := s.reads.with(turn, partitionKey, func() error {
		if s.isClosed() { // while it waited
			return persistence.ErrClosed
		}
		return s.rows(query, next)
	})
	if errors.Is(err, errNotSent) {
		s.stats.readErrors.Add(1)
		return readError(err)
	}
	return err
}

// rows reads, calling next for row after row. The error of next is returned as it is;
// that of Cassandra as ErrUnavailable.
func (s *Store) rows(query *gocql.Query, next func(*gocql.Iter) (more bool, err error)) error {
	return s.count(eachRow(query, next))
}

// eachRow is rows without the statistics.
func eachRow(query *gocql.Query, next func(*gocql.Iter) (more bool, err error)) error {
	iter := query.Iter()
	for {
		more, err := next(iter)
		if err != nil {
			_ = iter.Close()
			return err
		}
		if !more {
			break
		}
	}
	if err := iter.Close(); err != nil {
		return readError(err)
	}
	return nil
}

// PutRoot implements persistence.Journal.
func (s *Store) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	w := &write{what: r.Key, statement: insertRoot, done: done}
	// Validated before it counts as in flight: a root that is not valid is rejected
	// without a request.
	err := r.Validate()
	switch {
	case err != nil:
	case !fits(r.Key.Epoch, r.Key.Version, r.Base, r.ArchivedThrough):
		err = fmt.Errorf("%w: a number above 2^63", persistence.ErrRejected)
	case len(r.Snapshot) > s.opts.MaxMutationBytes:
		err = fmt.Errorf("%w: snapshot of %d bytes, the limit is %d",
			persistence.ErrRejected, len(r.Snapshot), s.opts.MaxMutationBytes)
	default:
		w.key = []byte(r.Key.Aggregate)
		w.add(rootValues(r))
	}
	s.start(ctx, w, err)
}

// Append implements persistence.Journal.
func (s *Store) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	w := &write{what: m.Partition.RootKey, statement: insertEvent, done: done}
	err := s.validate(m)
	if err == nil {
		rowID := m.Partition.RowID()
		w.key = eventsKey(&m.Partition, rowID)
		w.rows = make([][]any, 0, len(m.Records))
		for i := range m.Records {
			w.add(eventValues(&m.Partition, rowID, &m.Records[i]))
		}
	}
	s.start(ctx, w, err)
}

// validate returns ErrRejected for a mutation that the contract or this store does not
// allow. What passes fits into Cassandra's limits, as far as [Open] could read them.
func (s *Store) validate(m *persistence.Mutation) error {
	if err := m.Validate(); err != nil {
		return err
	}
	// Only the data counts: keys and ids have limits of their own, and inspect allows for
	// an eighth more.
	size := 0
	for i := range m.Records {
		r := &m.Records[i]
		if !fits(r.Sequence, r.Order) {
			return fmt.Errorf("%w: record %d: a number above 2^63", persistence.ErrRejected, r.Sequence)
		}
		size += len(r.Data)
	}
	if !fits(m.Partition.Epoch, m.Partition.Version) {
		return fmt.Errorf("%w: a number above 2^63", persistence.ErrRejected)
	}
	if size > s.opts.MaxMutationBytes {
		return fmt.Errorf("%w: %d bytes of data, the limit is %d",
			persistence.ErrRejected, size, s.opts.MaxMutationBytes)
	}
	return nil
}

// MaxMutation implements persistence.Journal.
func (s *Store) MaxMutation() int { return s.opts.MaxMutationBytes }

// start sends a write in flight, or calls done at once with the reason why not: err, if
// the write is invalid, ErrClosed, or the caller's context. The context is not looked at
// after that: a write that was sent is not taken back, and its caller needs the outcome.
func (s *Store) start(ctx context.Context, w *write, err error) {
	if closed := s.begin(); closed != nil {
		w.done(fmt.Errorf("write %v: %w", w.what, closed))
		return
	}
	// From here on the write holds the store open, until finish has told its outcome.
	w.ended = s.end
	if err == nil {
		if cause := ctx.Err(); cause != nil {
			err = fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, cause)
		}
	}
	if err != nil {
		s.finish(w, err)
		return
	}
	s.groups.submit(w)
}

// finish tells a write its outcome, and is called once for each that passed begin. An
// error must be one of package persistence already.
func (s *Store) finish(w *write, err error) {
	// Writes count when they end, with their rows, also those that failed.
	s.stats.writes.Add(1)
	s.stats.rows.Add(uint64(len(w.rows)))
	switch {
	case err == nil:
	case errors.Is(err, persistence.ErrRejected):
		s.stats.rejected.Add(1)
	case planted.Bug(planted.CassandraUnknownIsSuccess):
		err = nil
	default:
		s.stats.unknown.Add(1)
	}
	if err != nil {
		err = fmt.Errorf("write %v: %w", w.what, err)
	}
	// The caller hears first: Close, which waits for ended, must not return before that.
	w.done(err)
	w.ended()
}
