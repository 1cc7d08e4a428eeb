package cassandra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

const (
	// Two statements: a null for erased_at would delete that of an earlier write.
	putTombstone     = `INSERT INTO tombstones (bucket, key, forgotten_at) VALUES (?, ?, ?)`
	putErased        = `INSERT INTO tombstones (bucket, key, forgotten_at, erased_at) VALUES (?, ?, ?, ?)`
	selectTombstone  = `SELECT key, forgotten_at, erased_at FROM tombstones WHERE bucket = ? AND key = ?`
	selectTombstones = `SELECT key, forgotten_at, erased_at FROM tombstones WHERE bucket = ? AND key > ? LIMIT ?`

	// The raw keys: rows that cannot be decoded are erased as well.
	selectRootKeys = `SELECT epoch, version, incarnation FROM snapshots WHERE aggregate = ?`
	countEvents    = `SELECT COUNT(*) FROM events WHERE row_id = ? AND epoch = ? AND incarnation = ?`
	eraseRoots     = `DELETE FROM snapshots USING TIMESTAMP ? WHERE aggregate = ?`
)

// eraseAhead is how far ahead of the clock an erasure is stamped. Nothing is ever written again for an aggregate that
// was forgotten, so a deletion may hold against all writes to come, for as long as Cassandra keeps its tombstones
// (gc_grace_seconds): those of a process that was frozen, and late repeats.
const eraseAhead = 30 * 24 * time.Hour

// tombstoneBuckets is the number of partitions that tombstones are spread over.
const tombstoneBuckets = 16

// tombstoneBucket returns the partition of a key: buckets and keys have the same order.
func tombstoneBucket(key persistence.TombstoneKey) int { return int(key[0] >> 4) }

// TombstoneKey implements persistence.Erasure. The id of the cluster is read once.
func (s *Store) TombstoneKey(ctx context.Context, aggregate string) (persistence.TombstoneKey, error) {
	id := s.clusterID.Load()
	if id == nil {
		if err := s.begin(); err != nil {
			return persistence.TombstoneKey{}, fmt.Errorf("tombstone key: %w", err)
		}
		defer s.end()
		c, err := s.session.readCluster(ctx)
		if err == nil && c.ID.IsZero() {
			err = persistence.ErrNotFound
		}
		if err != nil {
			return persistence.TombstoneKey{}, fmt.Errorf("tombstone key: cluster: %w", err)
		}
		id = &c.ID
		s.clusterID.Store(id)
	}
	return persistence.TombstoneKeyOf(*id, aggregate), nil
}

// PutTombstone implements persistence.Erasure.
func (s *Store) PutTombstone(ctx context.Context, t persistence.Tombstone) error {
	err := t.Validate()
	if err == nil {
		statement, values := putTombstone, []any{tombstoneBucket(t.Key), t.Key[:], t.Time}
		if !t.Erased.IsZero() {
			statement, values = putErased, append(values, t.Erased)
		}
		err = s.housekeep(ctx, s.session.Query(statement, values...))
	}
	if err != nil {
		return fmt.Errorf("put tombstone %s: %w", t.Key, err)
	}
	return nil
}

// Tombstone implements persistence.Erasure.
func (s *Store) Tombstone(ctx context.Context, key persistence.TombstoneKey) (persistence.Tombstone, error) {
	found, err := s.readTombstones(s.session.read(ctx, selectTombstone, tombstoneBucket(key), key[:]))
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
) (all []persistence.Tombstone, err error) {
	for bucket := tombstoneBucket(after); bucket < tombstoneBuckets && len(all) < limit; bucket++ {
		page, err := s.readTombstones(
			s.session.read(ctx, selectTombstones, bucket, after[:], limit-len(all)).PageSize(pageRows))
		if err != nil {
			return nil, fmt.Errorf("tombstones: %w", err)
		}
		all = append(all, page...)
	}
	return all, nil
}

// readTombstones returns the rows of a query.
func (s *Store) readTombstones(q *gocql.Query) (found []persistence.Tombstone, err error) {
	err = s.plainRead(collect(&found, tombstoneRow.scan), q)
	return found, err
}

// forgotten returns a *ForgottenError if the aggregate has a tombstone. Errors: also ErrUnavailable, ErrCorrupt.
func (s *Store) forgotten(ctx context.Context, aggregate string) error {
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

// EraseAggregate implements persistence.Erasure. It finds the events by the roots above them. Events below a root that
// was never recorded cannot be found: Cassandra has no index from a customer to them. Cassandra drops deleted rows from
// its files when it compacts them, after the gc_grace_seconds of the tables.
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
	var partitions []persistence.Partition
	err = s.plainRead(func(iter *gocql.Iter) (bool, error) {
		var epoch, version int64
		var by gocql.UUID
		if !iter.Scan(&epoch, &version, &by) {
			return false, nil
		}
		key := persistence.RootKey{Aggregate: aggregate, Epoch: uint64(epoch), Version: uint64(version)}
		partitions = append(partitions, persistence.PartitionOf(key, persistence.Incarnation(by)))
		return true, nil
	}, s.query(ctx, selectRootKeys, aggregate))
	if err != nil {
		return erased, err
	}
	ahead := time.Now().Add(eraseAhead).UnixMicro()
	for _, p := range partitions {
		values := []any{p.RowID(), int64(p.Epoch), gocql.UUID(p.Incarnation)}
		n := 0
		if err := s.plainRead(func(iter *gocql.Iter) (bool, error) { return iter.Scan(&n), nil },
			s.session.read(ctx, countEvents, values...)); err != nil {
			return erased, err
		}
		if err := s.housekeep(ctx, s.session.Query(deleteEvents, append([]any{ahead}, values...)...)); err != nil {
			return erased, err
		}
		erased.Roots, erased.Records = erased.Roots+1, erased.Records+n
	}
	return erased, s.housekeep(ctx, s.session.Query(eraseRoots, ahead, aggregate))
}
