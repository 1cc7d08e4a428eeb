package cassandra

import (
	"context"
	"fmt"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// Exec runs statements on the keyspace as nobody but a test may.
func Exec(ctx context.Context, o Options, statements ...string) error {
	return withSession(ctx, o, o.Keyspace, func(s *session) error {
		for _, statement := range statements {
			if err := s.change(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// ExecBare is Exec on no keyspace.
func ExecBare(ctx context.Context, o Options, statement string, values ...any) error {
	return withSession(ctx, o, "",
		func(s *session) error { return s.Query(statement, values...).WithContext(ctx).Exec() })
}

func withSession(ctx context.Context, o Options, keyspace string, run func(*session) error) error {
	o.Timeout = schemaTimeout
	s, err := connect(ctx, &o, keyspace)
	if err != nil {
		return err
	}
	defer s.Close()
	return run(s)
}

// Truncate empties the tables of a schema.
func Truncate(ctx context.Context, o Options, which Schema) error {
	tables := []string{"events", "snapshots", "leases", "shards", "cluster", "votes", "tombstones"}
	if which == ArchiveSchema {
		tables = []string{"segment_names", "segment_chunks"}
	}
	statements := make([]string, 0, len(tables))
	for _, table := range tables {
		statements = append(statements, "TRUNCATE "+table)
	}
	return Exec(ctx, o, statements...)
}

// CorruptRoot damages the base of a root, which the chain needs. See DamageSnapshot for the rest.
func CorruptRoot(ctx context.Context, o Options, key persistence.RootKey) error {
	const row = " WHERE aggregate = ? AND epoch = ? AND version = ?"
	return withSession(ctx, o, o.Keyspace, func(s *session) error {
		var base int64
		if err := s.Query("SELECT base FROM snapshots"+row, key.Aggregate, int64(key.Epoch), int64(key.Version)).
			WithContext(ctx).Scan(&base); err != nil {
			return err
		}
		return s.Query("UPDATE snapshots SET base = ?"+row, base+1, key.Aggregate, int64(key.Epoch),
			int64(key.Version)).WithContext(ctx).Exec()
	})
}

// CorruptRecord damages event_data of a record.
func CorruptRecord(ctx context.Context, o Options, p persistence.Partition, sequence uint64) error {
	return corruptColumn(ctx, o, "event_data", "events",
		"row_id = ? AND epoch = ? AND incarnation = ? AND sequence = ?",
		p.RowID(), int64(p.Epoch), gocql.UUID(p.Incarnation), int64(sequence))
}

// CorruptSegment damages the first chunk of a segment.
func CorruptSegment(ctx context.Context, o Options, name string) error {
	var id gocql.UUID
	err := withSession(ctx, o, o.Keyspace, func(s *session) error {
		return s.Query("SELECT id FROM segment_names WHERE bucket = ? AND name = ?", nameBucket(name), name).
			WithContext(ctx).Scan(&id)
	})
	if err != nil {
		return err
	}
	return corruptColumn(ctx, o, "data", "segment_chunks", "id = ? AND chunk = 0", id)
}

func corruptColumn(ctx context.Context, o Options, column, table, where string, key ...any) error {
	return withSession(ctx, o, o.Keyspace, func(s *session) error {
		var data []byte
		if err := s.Query(fmt.Sprintf("SELECT %s FROM %s WHERE %s", column, table, where), key...).WithContext(ctx).
			Scan(&data); err != nil {
			return err
		}
		data[len(data)/2] ^= 0x10
		return s.Query(fmt.Sprintf("UPDATE %s SET %s = ? WHERE %s", table, column, where),
			append([]any{data}, key...)...).WithContext(ctx).Exec()
	})
}
