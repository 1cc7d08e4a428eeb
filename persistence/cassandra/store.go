package cassandra

import (
	"context"
	"fmt"
	"sync/atomic"

	"licensed/persistence"
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	*keyspace
	// Plain writes, bounded and grouped for each set of replicas.
	groups *groups
	// Conditional updates of shards, several in a batch.
	swaps swaps
	// One lock for each partition of conditional updates: two of one process on one
	// partition would contend in Paxos, and both be slower.
	leaseLocks, shardLocks, clusterLock locks
	// Plain reads, bounded for each set of replicas.
	reads *reads
	// clusterID is that of the cluster once it was read: it never changes.
	clusterID atomic.Pointer[persistence.ClusterID]
	stats     struct{ writes, rows, unknown, rejected, readErrors atomic.Uint64 }
}

var _ persistence.Store = (*Store)(nil)

// Open connects, checks the schema and what endangers the promise, and returns the store. Errors:
// persistence.ErrUnavailable, ErrCredentials, ErrSchema, and ErrUnsafe for a severe [Risk] that
// Options.AcceptRisks does not name. Risks that do not fail are logged; see [Store.Risks].
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("cassandra: %w", err)
	}
	return s, nil
}

// open is Open, without the name of the store in its errors.
func open(ctx context.Context, o Options) (*Store, error) {
	k, found, err := openKeyspace(ctx, o, HotSchema)
	if err != nil {
		return nil, err
	}
	s := &Store{keyspace: k, leaseLocks: newLocks(buckets), shardLocks: newLocks(buckets), clusterLock: newLocks(1)}
	s.reads = newReads(o.ReadsInFlight, s.session.policy.replicaSet, s.session.policy.replicaSets)
	s.groups = newGroups(s, found)
	s.swaps.store = s
	return s, nil
}

// Close waits for what is in progress and closes the connections. That takes about a timeout for a write, two
// for a conditional one that waits for its turn, and up to three, one for each node that is asked, for each
// page of a read.
func (s *Store) Close() error {
	return s.keyspace.Close()
}

// Stats are counters since Open.
type Stats struct {
	// Requests sent for Writes, which had Rows: writes per request tell how well grouping works.
	Requests, Writes, Rows uint64
	// Unknown and Rejected are writes and compare-and-sets with those outcomes.
	Unknown, Rejected uint64
	// ReadErrors counts reads that could not be served.
	ReadErrors uint64
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	return Stats{
		Requests: s.groups.requests.Load(), Writes: s.stats.writes.Load(), Rows: s.stats.rows.Load(),
		Unknown: s.stats.unknown.Load(), Rejected: s.stats.rejected.Load(), ReadErrors: s.stats.readErrors.Load(),
	}
}
