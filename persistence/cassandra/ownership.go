package cassandra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"licensed/persistence"
)

const (
	insertLease = `INSERT INTO leases (bucket, incarnation, node, address, counter, dead)
		VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS`
	updateLease = `UPDATE leases SET node = ?, counter = ?, dead = ?
		WHERE bucket = ? AND incarnation = ?
		IF node = ? AND address = ? AND counter = ? AND dead = ?`
	selectLeases = `SELECT incarnation, node, address, counter, dead FROM leases WHERE bucket = ?`
	selectLease  = selectLeases + ` AND incarnation = ?`

	insertShard = `INSERT INTO shards (bucket, shard, epoch, owner, successor) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS`
	updateShard = `UPDATE shards SET epoch = ?, owner = ?, successor = ?
		WHERE bucket = ? AND shard = ?
		IF epoch = ? AND owner = ? AND successor = ?`
	selectShards = `SELECT shard, epoch, owner, successor FROM shards WHERE bucket = ?`
	selectShard  = selectShards + ` AND shard = ?`
	peekShards   = `SELECT shard, epoch, owner, successor FROM shards WHERE bucket IN ?`

	insertCluster = `INSERT INTO cluster (id, name, shards, cluster_id, serial_consistency, data_center, created_at)
		VALUES ('cluster', ?, ?, ?, ?, ?, ?) IF NOT EXISTS`
	nameCluster   = `UPDATE cluster SET cluster_id = ? WHERE id = 'cluster' IF cluster_id = null`
	selectCluster = `SELECT name, shards, cluster_id, serial_consistency, data_center FROM cluster WHERE id = 'cluster'`
)

// buckets is the number of partitions that leases, and shards, are spread over; those of shards are their
// groups. It is part of the schema: rows are looked for where it says.
const buckets = persistence.ShardGroups

// locks let this process have one serial operation per bucket in progress. Conditional updates of one
// partition exclude each other in Cassandra too, but there by trying, failing and trying again.
type locks []chan struct{}

func newLocks(n int) locks {
	l := make(locks, n)
	for i := range l {
		l[i] = make(chan struct{}, 1)
	}
	return l
}

// with runs an operation that has a bucket to itself. Errors that are not op's wrap errNotSent.
func (l locks) with(ctx context.Context, bucket int, op func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	select {
	case l[bucket] <- struct{}{}:
		defer func() { <-l[bucket] }()
		return op()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNotSent, ctx.Err())
	}
}

func leaseBucket(i persistence.Incarnation) int { return int(i[len(i)-1]) % buckets }
func shardBucket(id uint32) int                 { return int(id % buckets) }

// serial runs an operation that has a bucket to itself.
func (s *Store) serial(ctx context.Context, l locks, bucket int, op func() error) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	return s.count(l.with(ctx, bucket, op))
}

// errNotSent marks an operation that did not begin. Callers turn it into the error of their kind.
var errNotSent = errors.New("not sent")

func (s *Store) count(err error) error {
	switch {
	case errors.Is(err, persistence.ErrUnknownOutcome):
		s.stats.unknown.Add(1)
	case errors.Is(err, persistence.ErrUnavailable):
		s.stats.readErrors.Add(1)
	}
	return err
}

// serialRead reads rows of one bucket at the serial consistency.
func (s *Store) serialRead(
	ctx context.Context, l locks, bucket int, next func(*gocql.Iter) (more bool, err error), query *gocql.Query,
) error {
	err := s.serial(ctx, l, bucket, func() error { return eachRow(query, next) })
	if errors.Is(err, errNotSent) {
		return readError(err)
	}
	return err
}

// plainRead reads rows of leases or shards at the plain consistency. A compare-and-set is known to be applied when a
// quorum has its commit, so the quorum that is read has a replica with it. A replica holds a row only after a quorum
// accepted its ballot.
func (s *Store) plainRead(next func(*gocql.Iter) (more bool, err error), query *gocql.Query) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	return s.rows(query, next)
}

// swap is a compare-and-set of one row of a bucket.
func (s *Store) swap(
	ctx context.Context, l locks, bucket int, statement string, values ...any,
) (applied bool, row map[string]any, err error) {
	err = s.serial(ctx, l, bucket, func() error {
		var err error
		applied, row, err = s.session.compareAndSet(ctx, statement, values...)
		return err
	})
	if errors.Is(err, errNotSent) {
		err = writeError(err)
	}
	return applied, row, err
}

// CreateCluster implements persistence.Ownership.
func (s *Store) CreateCluster(ctx context.Context, info persistence.ClusterInfo) (persistence.ClusterInfo, error) {
	err := info.Validate()
	var now clusterRow
	if err == nil {
		now, err = s.createCluster(ctx, info.WithID())
	}
	if err != nil {
		return persistence.ClusterInfo{}, fmt.Errorf("create cluster %q: %w", info.Name, err)
	}
	return now.ClusterInfo, nil
}

// createAttempts is the number of times that the creation of the cluster is tried while its outcome is unknown, which
// it may be when all nodes of a new cluster start at once.
const createAttempts = 5

func (s *Store) createCluster(ctx context.Context, info persistence.ClusterInfo) (now clusterRow, err error) {
	err = s.serial(ctx, s.clusterLock, 0, func() error {
		var unknown error
		for range createAttempts {
			// Unlike the other compare-and-sets these may be repeated: what the first one wrote never
			// changes after that.
			now, err = s.tryCreateCluster(ctx, info)
			if errors.Is(err, persistence.ErrUnknownOutcome) {
				unknown = err
			} else if unknown == nil || !errors.Is(err, persistence.ErrUnavailable) {
				return err
			}
		}
		return unknown
	})
	if errors.Is(err, errNotSent) {
		err = writeError(err)
	}
	return now, err
}

func (s *Store) tryCreateCluster(ctx context.Context, info persistence.ClusterInfo) (clusterRow, error) {
	now, err := s.session.readCluster(ctx)
	switch {
	case err == nil && now.ID.IsZero(): // of an earlier release
		applied, row, err := s.session.compareAndSet(ctx, nameCluster, gocql.UUID(info.ID))
		if now.ID = info.ID; !applied {
			id, _ := row["cluster_id"].(gocql.UUID)
			now.ID = persistence.ClusterID(id)
		}
		return now, err
	case !errors.Is(err, persistence.ErrNotFound):
		return now, err
	}
	want := clusterRow{ClusterInfo: info, serial: s.opts.levels().serial.String()}
	if s.opts.Consistency == LocalQuorum {
		want.dataCenter = s.dataCenter
	}
	applied, row, err := s.session.compareAndSet(ctx, insertCluster,
		info.Name, int64(info.Shards), gocql.UUID(info.ID), want.serial, want.dataCenter, time.Now())
	if err != nil || applied {
		return want, err
	}
	id, _ := row["cluster_id"].(gocql.UUID)
	if now.ID = persistence.ClusterID(id); now.ID.IsZero() { // an earlier release created it meanwhile
		return s.tryCreateCluster(ctx, info)
	}
	shards, _ := row["shards"].(int64)
	now.Name, _ = row["name"].(string)
	now.Shards, err = shardNumber(shards)
	return now, err
}

// clusterRow is the row of table cluster.
type clusterRow struct {
	persistence.ClusterInfo
	serial, dataCenter string
}

func (s *session) readCluster(ctx context.Context) (clusterRow, error) {
	var c clusterRow
	var shards int64
	var id gocql.UUID
	if err := s.readSerial(ctx, selectCluster).Scan(&c.Name, &shards, &id, &c.serial, &c.dataCenter); err != nil {
		return clusterRow{}, readError(err)
	}
	var err error
	c.ID = persistence.ClusterID(id)
	c.Shards, err = shardNumber(shards)
	return c, err
}

// Leases implements persistence.Ownership.
func (s *Store) Leases(ctx context.Context) ([]persistence.Lease, error) {
	return inBuckets(ctx, "leases", func(ctx context.Context, bucket int) ([]persistence.Lease, error) {
		return s.readLeases(ctx, bucket, selectLeases, bucket)
	})
}

// Lease implements persistence.Ownership.
func (s *Store) Lease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	bucket := leaseBucket(i)
	return one("lease", i, func() ([]persistence.Lease, error) {
		return s.readLeases(ctx, bucket, selectLease, bucket, gocql.UUID(i))
	})
}

// PeekLease implements persistence.Ownership.
func (s *Store) PeekLease(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	return one("lease", i, func() (leases []persistence.Lease, err error) {
		err = s.plainRead(collect(&leases, leaseRow.scan),
			s.session.read(ctx, selectLease, leaseBucket(i), gocql.UUID(i)))
		return leases, err
	})
}

func (s *Store) readLeases(
	ctx context.Context, bucket int, statement string, values ...any,
) (leases []persistence.Lease, err error) {
	err = s.serialRead(ctx, s.leaseLocks, bucket, collect(&leases, leaseRow.scan),
		s.session.readSerial(ctx, statement, values...))
	return leases, err
}

// CompareAndSetLease implements persistence.Ownership.
func (s *Store) CompareAndSetLease(
	ctx context.Context, old, next persistence.Lease,
) (applied bool, now persistence.Lease, err error) {
	applied, now, err = s.swapLease(ctx, old, next)
	if err != nil {
		return false, persistence.Lease{}, fmt.Errorf("lease %v: %w", next.Incarnation, err)
	}
	return applied, now, nil
}

func (s *Store) swapLease(ctx context.Context, old, next persistence.Lease) (bool, persistence.Lease, error) {
	if err := persistence.ValidateLeaseSwap(old, next); err != nil {
		return false, persistence.Lease{}, err
	}
	if !fits(old.Counter, next.Counter) {
		return false, persistence.Lease{}, fmt.Errorf("%w: a counter above 2^63", persistence.ErrRejected)
	}
	bucket, id := leaseBucket(next.Incarnation), gocql.UUID(next.Incarnation)
	statement := insertLease
	values := []any{bucket, id, next.Node, textOrNull(next.Address), int64(next.Counter), next.Dead}
	if old != (persistence.Lease{}) {
		statement = updateLease
		values = []any{next.Node, int64(next.Counter), next.Dead, bucket, id, old.Node, textOrNull(old.Address),
			int64(old.Counter), old.Dead}
	}
	applied, row, err := s.swap(ctx, s.leaseLocks, bucket, statement, values...)
	if err != nil || applied {
		return applied, next, err
	}
	if len(row) == 0 {
		return false, persistence.Lease{}, nil
	}
	now := persistence.Lease{Incarnation: next.Incarnation}
	counter, _ := row["counter"].(int64)
	now.Node, _ = row["node"].(string)
	now.Address, _ = row["address"].(string)
	now.Dead, _ = row["dead"].(bool)
	now.Counter = uint64(counter)
	return false, now, nil
}

// textOrNull is null for no text: rows of earlier releases have none.
func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Shards implements persistence.Ownership.
func (s *Store) Shards(ctx context.Context) ([]persistence.Shard, error) {
	return inBuckets(ctx, "shards", func(ctx context.Context, bucket int) ([]persistence.Shard, error) {
		return s.readShards(ctx, bucket, selectShards, bucket)
	})
}

// Shard implements persistence.Ownership.
func (s *Store) Shard(ctx context.Context, id uint32) (persistence.Shard, error) {
	bucket := shardBucket(id)
	return one("shard", id, func() ([]persistence.Shard, error) {
		return s.readShards(ctx, bucket, selectShard, bucket, int64(id))
	})
}

// PeekShards implements persistence.Ownership. One query for all buckets costs the store less than one for each.
func (s *Store) PeekShards(ctx context.Context) (shards []persistence.Shard, err error) {
	var all [buckets]int
	for b := range all {
		all[b] = b
	}
	if err := s.plainRead(collect(&shards, shardRow.scan),
		s.session.read(ctx, peekShards, all[:])); err != nil {
		return nil, fmt.Errorf("shards: %w", err)
	}
	return shards, nil
}

func (s *Store) readShards(
	ctx context.Context, bucket int, statement string, values ...any,
) (shards []persistence.Shard, err error) {
	err = s.serialRead(ctx, s.shardLocks, bucket, collect(&shards, shardRow.scan),
		s.session.readSerial(ctx, statement, values...))
	return shards, err
}

// CompareAndSetShard implements persistence.Ownership.
func (s *Store) CompareAndSetShard(
	ctx context.Context, old, next persistence.Shard,
) (applied bool, now persistence.Shard, err error) {
	applied, now, err = s.swapShard(ctx, old, next)
	if err != nil {
		return false, persistence.Shard{}, fmt.Errorf("shard %d: %w", next.ID, err)
	}
	return applied, now, nil
}

func (s *Store) swapShard(ctx context.Context, old, next persistence.Shard) (bool, persistence.Shard, error) {
	if err := persistence.ValidateShardSwap(old, next); err != nil {
		return false, persistence.Shard{}, err
	}
	if !fits(old.Epoch, next.Epoch) {
		return false, persistence.Shard{}, fmt.Errorf("%w: an epoch above 2^63", persistence.ErrRejected)
	}
	return s.swaps.do(ctx, old, next)
}

// inBuckets reads all buckets at once and joins what they hold.
func inBuckets[T any](
	ctx context.Context, what string, read func(ctx context.Context, bucket int) ([]T, error),
) ([]T, error) {
	var found [buckets][]T
	g, ctx := errgroup.WithContext(ctx)
	for b := range buckets {
		g.Go(func() (err error) {
			found[b], err = read(ctx, b)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var all []T
	for _, rows := range found {
		all = append(all, rows...)
	}
	return all, nil
}

// one reads the only row that there can be.
func one[T any](what string, id any, read func() ([]T, error)) (T, error) {
	rows, err := read()
	if err == nil && len(rows) == 0 {
		err = persistence.ErrNotFound
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%s %v: %w", what, id, err)
	}
	return rows[0], nil
}
