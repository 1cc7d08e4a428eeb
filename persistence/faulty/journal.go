package faulty

import (
	"context"
	"slices"

	"licensed/persistence"
)

// TopRoot implements persistence.Journal.
func (s *Store) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	return call(ctx, s, Call{Op: TopRoot, Key: aggregate}, func(ctx context.Context) (persistence.Root, error) {
		return s.inner.TopRoot(ctx, aggregate)
	})
}

// ReadRoot implements persistence.Journal.
func (s *Store) ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error) {
	return call(ctx, s,
		Call{Op: ReadRoot, Key: key.Aggregate, Root: key}, func(ctx context.Context) (persistence.Root, error) {
			return s.inner.ReadRoot(ctx, key)
		})
}

// ReadRoots implements persistence.Journal.
func (s *Store) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	return call(ctx, s, Call{Op: ReadRoots, Key: aggregate}, func(ctx context.Context) ([]persistence.Root, error) {
		return s.inner.ReadRoots(ctx, aggregate, below, limit)
	})
}

// ReadRecords implements persistence.Journal.
func (s *Store) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	c := Call{Op: ReadRecords, Key: p.Aggregate, Root: p.RootKey}
	return call(ctx, s, c, func(ctx context.Context) ([]persistence.Record, error) {
		return s.inner.ReadRecords(ctx, p, after, limit)
	})
}

// Aggregates implements persistence.Journal.
func (s *Store) Aggregates(ctx context.Context, after string, limit int) ([]string, error) {
	return call(ctx, s, Call{Op: Aggregates}, func(ctx context.Context) ([]string, error) {
		return s.inner.Aggregates(ctx, after, limit)
	})
}

// PutRoot implements persistence.Journal.
func (s *Store) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	send := func(done func(error)) { s.inner.PutRoot(ctx, r, done) }
	s.write(Call{Op: PutRoot, Key: r.Key.Aggregate, Root: r.Key}, done, asyncWrite{
		send: send,
		tear: func(_ int, done func(error)) { send(done) },
		copy: func() func(func(error)) {
			c := *r
			c.Snapshot = slices.Clone(r.Snapshot)
			return func(done func(error)) { s.inner.PutRoot(context.WithoutCancel(ctx), &c, done) }
		},
	})
}

// Append implements persistence.Journal.
func (s *Store) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	c := Call{Op: Append, Key: m.Partition.Aggregate, Root: m.Partition.RootKey, Records: len(m.Records)}
	s.write(c, done, asyncWrite{
		send: func(done func(error)) { s.inner.Append(ctx, m, done) },
		tear: func(n int, done func(error)) {
			if n = min(n, len(m.Records)); n <= 0 {
				done(nil)
				return
			}
			// The capacity is cut as well, so that nothing can be appended over the
			// records that are left out.
			s.inner.Append(ctx, &persistence.Mutation{Partition: m.Partition, Records: m.Records[:n:n]}, done)
		},
		copy: func() func(func(error)) {
			c := &persistence.Mutation{Partition: m.Partition, Records: slices.Clone(m.Records)}
			for i := range c.Records {
				c.Records[i].Data = slices.Clone(c.Records[i].Data)
			}
			return func(done func(error)) { s.inner.Append(context.WithoutCancel(ctx), c, done) }
		},
	})
}

// MarkArchived implements persistence.Housekeeping.
func (s *Store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	return s.keepHouse(ctx, Call{Op: MarkArchived, Key: key.Aggregate, Root: key}, func(ctx context.Context) error {
		return s.inner.MarkArchived(ctx, key, m)
	})
}

// DeleteRecords implements persistence.Housekeeping.
func (s *Store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	return s.keepHouse(ctx,
		Call{Op: DeleteRecords, Key: p.Aggregate, Root: p.RootKey}, func(ctx context.Context) error {
			return s.inner.DeleteRecords(ctx, p)
		})
}

// StripRoot implements persistence.Housekeeping.
func (s *Store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	return s.keepHouse(ctx, Call{Op: StripRoot, Key: key.Aggregate, Root: key}, func(ctx context.Context) error {
		return s.inner.StripRoot(ctx, key, snapshotAt)
	})
}

// keepHouse makes a call that returns only an error.
func (s *Store) keepHouse(ctx context.Context, c Call, do func(context.Context) error) error {
	_, err := call(ctx, s, c, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}
