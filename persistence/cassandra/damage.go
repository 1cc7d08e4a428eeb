package cassandra

import (
	"context"
	"fmt"

	"github.com/gocql/gocql"
)

// DamageSnapshot overwrites the newest snapshot of an aggregate ("Bayley:LicenseAggregate") with two bytes that are
// none, and leaves the rest of the row: for tests of what survives that. Errors: if there is no root, or Cassandra
// does not answer.
func DamageSnapshot(ctx context.Context, o Options, aggregate string) error {
	if err := o.Validate(); err != nil {
		return err
	}
	s, err := connect(ctx, &o, o.Keyspace)
	if err != nil {
		return err
	}
	defer s.Close()
	var epoch, version int64
	err = s.Query(`SELECT epoch, version FROM snapshots WHERE aggregate = ? LIMIT 1`, aggregate).WithContext(ctx).
		Consistency(gocql.Quorum).Scan(&epoch, &version)
	if err == nil {
		err = s.Query(`UPDATE snapshots SET snapshot_data = 0x00ff WHERE aggregate = ? AND epoch = ? AND version = ?`,
			aggregate, epoch, version).WithContext(ctx).Consistency(gocql.Quorum).Exec()
	}
	if err != nil {
		return fmt.Errorf("damage the snapshot of %s: %w", aggregate, err)
	}
	return nil
}
