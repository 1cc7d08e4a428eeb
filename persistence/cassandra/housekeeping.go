package cassandra

import (
	"context"
	"fmt"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

const (
	// archive_mark says where the archive has the events of a root, snapshot_at where it
	// has the snapshot that was taken out ([R12]).
	markArchived = `UPDATE snapshots SET archive_mark = ? WHERE aggregate = ? AND epoch = ? AND version = ?`
	deleteEvents = `DELETE FROM events USING TIMESTAMP ? WHERE row_id = ? AND epoch = ? AND incarnation = ?`
	markStripped = `UPDATE snapshots SET snapshot_at = ? WHERE aggregate = ? AND epoch = ? AND version = ?`
	stripRoot    = `DELETE snapshot_mapper, snapshot_data FROM snapshots USING TIMESTAMP ?
		WHERE aggregate = ? AND epoch = ? AND version = ?`
)

// deleteAhead is how far ahead of the clock deletions are stamped: they hold against writes by a
// machine whose clock is ahead of this one's, and against repeats that arrive later. Nothing is ever
// written again under the keys that are deleted, so it can do no harm.
const deleteAhead = time.Hour

// MarkArchived implements persistence.Housekeeping.
func (s *Store) MarkArchived(ctx context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	if err := s.housekeep(ctx, s.session.Query(markArchived, persistence.AppendArchiveMark(nil, &m),
		key.Aggregate, int64(key.Epoch), int64(key.Version))); err != nil {
		return fmt.Errorf("mark root %v: %w", key, err)
	}
	return nil
}

// DeleteRecords implements persistence.Housekeeping.
func (s *Store) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	if err := s.housekeep(ctx, s.session.Query(deleteEvents, deletionTime(), p.RowID(), int64(p.Epoch),
		gocql.UUID(p.Incarnation))); err != nil {
		return fmt.Errorf("delete records of %v: %w", p, err)
	}
	return nil
}

// StripRoot implements persistence.Housekeeping. The mark is what counts; the deletion is for the space.
func (s *Store) StripRoot(ctx context.Context, key persistence.RootKey, snapshotAt string) error {
	epoch, version := int64(key.Epoch), int64(key.Version)
	err := s.housekeep(ctx, s.session.Query(markStripped, snapshotAt, key.Aggregate, epoch, version))
	if err == nil {
		err = s.housekeep(ctx, s.session.Query(stripRoot, deletionTime(), key.Aggregate, epoch, version))
	}
	if err != nil {
		return fmt.Errorf("strip root %v: %w", key, err)
	}
	return nil
}

// deletionTime returns the timestamp of a deletion, in microseconds as Cassandra has
// them.
func deletionTime() int64 { return time.Now().Add(deleteAhead).UnixMicro() }

// housekeep executes a write that may be repeated by the driver: each sets the same
// values, or deletes what is never written again. Errors: ErrClosed, ErrRejected,
// ErrUnknownOutcome.
func (s *Store) housekeep(ctx context.Context, q *gocql.Query) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := q.WithContext(ctx).Idempotent(true).Exec(); err != nil {
		return writeError(err)
	}
	return nil
}
