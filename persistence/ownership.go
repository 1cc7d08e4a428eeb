package persistence

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// ClusterID tells clusters apart, whatever people call them. It is random, and every process of a cluster has it
// from the cluster's row in the store.
type ClusterID [16]byte

// NewClusterID returns a random cluster id.
func NewClusterID() ClusterID { return ClusterID(uuid.New()) }

// ParseClusterID returns the id in a message; that of no bytes is zero.
func ParseClusterID(b []byte) (id ClusterID, err error) {
	if len(b) != 0 && len(b) != len(id) {
		return id, fmt.Errorf("cluster id of %d bytes, want %d", len(b), len(id))
	}
	copy(id[:], b)
	return id, nil
}

// String returns the id as a UUID.
func (i ClusterID) String() string { return uuid.UUID(i).String() }

// IsZero reports whether i is the zero id, which no cluster has.
func (i ClusterID) IsZero() bool { return i == ClusterID{} }

// ClusterInfo is fixed when a cluster is created.
type ClusterInfo struct {
	// ID of the cluster. Zero asks CreateCluster for a random one.
	ID ClusterID
	// Name of the cluster.
	Name string
	// Shards is the number of shards that aggregates are hashed to.
	Shards uint32
}

// Lease is one row per incarnation. A node keeps itself alive by raising Counter; a challenger that
// saw Counter unchanged for long enough sets Dead, after which the incarnation never comes back.
type Lease struct {
	Incarnation Incarnation
	// Node is the configured name of the node.
	Node string
	// Address is where other processes reach the node, host:port. It is written when the row is created and never
	// changed. Rows of earlier releases, and of a node that is alone, have none.
	Address string
	Counter uint64
	Dead    bool
}

// ShardGroups is the number of groups shards form: of one group are those whose ids are equal modulo it. A store
// may change rows of one group, that it is asked to change at the same time, at the price of one; a caller that
// changes many should go group by group.
const ShardGroups = 16

// MaxEpoch is the highest epoch that a shard can have. No cluster lives to see it: a row above it is damaged or forged.
const MaxEpoch = 1 << 62

// Shard is one row per shard: its owner and the epoch, raised by one whenever the owner changes.
type Shard struct {
	ID    uint32
	Epoch uint64
	// Owner is zero before the first claim and after an orderly release.
	Owner Incarnation
	// Successor is whom an orderly release named; zero otherwise.
	Successor Incarnation
}

// Ownership keeps the rows that decide who may write: the only compare-and-set of the protocol. It is
// safe for concurrent use.
//
// A compare-and-set whose outcome is unknown (ErrUnknownOutcome) must not be repeated blindly: read
// the row and see. Every read here but PeekLease and PeekShards is linearizable with the compare-and-sets
// (SERIAL in Cassandra's words). These two cost what a plain read does. What they show was decided and is never
// undone, and they show each compare-and-set of which somebody knew before the call, by its reply or by a
// linearizable read, that it was applied. They may miss one that is still in progress or whose outcome is unknown, even
// one that an earlier call showed. So a later row is news; an earlier row, or none, tells nothing.
type Ownership interface {
	// CreateCluster writes info unless the store has one already, and returns what the store then has. A cluster that
	// an earlier release created has no ID: it gets that of the first call that brings one.
	CreateCluster(ctx context.Context, info ClusterInfo) (ClusterInfo, error)

	// Leases returns all leases, dead ones included, in no order.
	Leases(ctx context.Context) ([]Lease, error)
	// Lease returns one lease. Errors: ErrNotFound.
	Lease(ctx context.Context, i Incarnation) (Lease, error)
	// PeekLease returns one lease as a plain read shows it. Errors: ErrNotFound.
	PeekLease(ctx context.Context, i Incarnation) (Lease, error)
	// CompareAndSetLease replaces old by next if the row equals old; a zero old means that there must
	// be no row. It returns whether it did and the row as it then is. A change of Address is rejected.
	CompareAndSetLease(ctx context.Context, old, next Lease) (applied bool, now Lease, err error)

	// Shards returns all shard rows that exist, in no order.
	Shards(ctx context.Context) ([]Shard, error)
	// PeekShards returns all shard rows that a plain read shows, in no order.
	PeekShards(ctx context.Context) ([]Shard, error)
	// Shard returns one shard row. Errors: ErrNotFound.
	Shard(ctx context.Context, id uint32) (Shard, error)
	// CompareAndSetShard replaces old by next if the row equals old; an old with Epoch 0 means that
	// there must be no row. It returns whether it did and the row as it then is.
	CompareAndSetShard(ctx context.Context, old, next Shard) (applied bool, now Shard, err error)
}
