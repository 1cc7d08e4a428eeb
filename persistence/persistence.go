// Package persistence is the contract between the runtime of event-sourced aggregates and the stores
// that keep their history: opaque bytes under ordered keys, no protobuf, no domain.
//
// # The model
//
// An aggregate's history is a chain of partitions. A partition is what one activation of the
// aggregate (or one stretch of it between two snapshots) appended:
//
//	root       (aggregate, epoch, version) → base, parent, incarnation, snapshot at base
//	partition  (aggregate, epoch, version, incarnation) → records base+1, base+2, …
//
// A root is written before anything that was decided on it is acknowledged, by a plain insert under a
// key that no other write ever uses; the partition below it is written by its own activation only.
// So no append needs a compare-and-set: a writer that lost its shard continues writing into a partition
// that no later root continues, and what it wrote past the base of the next root does not exist.
// Reading therefore starts at the root with the highest (epoch, version) and follows parents back,
// taking from each partition exactly the records up to the base of its child. docs/design/write-path.md
// gives the rules and why each is needed.
//
// Ownership of shards (leases, shard rows) is the only place where a store compares and sets; see
// [Ownership].
package persistence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"licensed/internal/planted"
)

// Errors of a store. Stores wrap them with the operation and key; test with errors.Is.
var (
	// ErrNotFound says that the row asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrUnknownOutcome says that a write may or may not have happened, or may yet happen: a timeout,
	// a lost connection, a partial failure. The identical write may be repeated, except a
	// compare-and-set, whose outcome must be read.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrRejected says that a write certainly did not and will not happen: it is invalid or too large.
	ErrRejected = errors.New("rejected")
	// ErrUnavailable says that a read could not be served now.
	ErrUnavailable = errors.New("store unavailable")
	// ErrCorrupt says that stored bytes fail their checksum or cannot be decoded.
	ErrCorrupt = errors.New("corrupt record")
	// ErrLocked says that another process holds the store's directory.
	ErrLocked = errors.New("store is locked by another process")
	// ErrClosed says that the store was closed, or stopped itself after a disk error; a write that
	// was in progress then has an unknown outcome and reports ErrUnknownOutcome as well.
	ErrClosed = errors.New("store is closed")
)

// Incarnation identifies one run of one node process. It is never reused: a restarted process is a
// unknown process to its former one.
type Incarnation [16]byte

// NewIncarnation returns a random incarnation.
func NewIncarnation() Incarnation { return Incarnation(uuid.New()) }

// ParseIncarnation reads the form that String writes.
func ParseIncarnation(s string) (Incarnation, error) {
	u, err := uuid.Parse(s)
	if err != nil {
		return Incarnation{}, fmt.Errorf("incarnation %q: %w", s, err)
	}
	return Incarnation(u), nil
}

// String returns the incarnation as a UUID.
func (i Incarnation) String() string { return uuid.UUID(i).String() }

// MarshalText returns what String does.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// IsZero reports whether i is the zero incarnation, which no process has.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// RootKey names a root. The keys of one aggregate are ordered by (Epoch, Version).
type RootKey struct {
	// Aggregate is the aggregate's id with its kind, "Bayley:LicenseAggregate".
	Aggregate string
	// Epoch is the epoch of the aggregate's shard under which the root was written, at least 1.
	Epoch uint64
	// Version is at least 1 and rises within an aggregate from root to child.
	Version uint64
}

// RowID returns the row id of the root's partition, "Bayley:LicenseAggregate:3".
func (k RootKey) RowID() string { return k.Aggregate + ":" + strconv.FormatUint(k.Version, 10) }

// IsZero reports whether k is the zero key: no root.
func (k RootKey) IsZero() bool { return k == RootKey{} }

// Less orders keys of one aggregate by epoch, then version.
func (k RootKey) Less(o RootKey) bool {
	if k.Epoch != o.Epoch {
		return k.Epoch < o.Epoch
	}
	return k.Version < o.Version
}

// String returns the row id with the epoch, "Bayley:LicenseAggregate:3@e7".
func (k RootKey) String() string { return k.RowID() + "@e" + strconv.FormatUint(k.Epoch, 10) }

// Header tells how the bytes beside it were made, so that another codec, compression or encryption
// needs no migration.
type Header struct {
	// Codec of the bytes; 0 is protobuf.
	Codec uint8
	// Compression of the bytes; 0 is none.
	Compression uint8
	// KeyID names the encryption key; empty means not encrypted.
	KeyID string
	// PolicyVersion names the policy in force when the bytes were made.
	PolicyVersion string
}

// Root is the head of a partition: a snapshot of the aggregate and the way back.
type Root struct {
	Key         RootKey
	Incarnation Incarnation
	// Base is the sequence of the last event contained in Snapshot; 0 before the first.
	Base uint64
	// Parent is the root continued by this one (same aggregate); zero for the first. Its partition
	// ends at Base.
	Parent RootKey
	// ParentIncarnation completes the name of the parent's partition.
	ParentIncarnation Incarnation
	// Time is when the root was written, by its writer's clock, in milliseconds precision.
	Time time.Time
	// Mapper names type and version of the snapshot, "LicenseSnapshot/1". See IsBare.
	Mapper   string
	Header   Header
	Snapshot []byte
	// ArchivedThrough is a hint for the archiver: the history up to that sequence was in the archive
	// when the root was written.
	ArchivedThrough uint64

	// The rest is not written by PutRoot: see Housekeeping.

	// Archive, if not nil, says that the root's partition is in the archive, and its records in the
	// hot tier, if any are left, must not be read any more.
	Archive *ArchiveMark
	// Stripped says that only the fields that hold the chain together are left: Key, Incarnation,
	// Base, Parent, ParentIncarnation, Time and those above.
	Stripped bool
	// SnapshotAt names where the archive has the root as it was before it was stripped; empty for a
	// root that nothing will be recovered from.
	SnapshotAt string

	// Damage, if not nil, says why the snapshot cannot be read: an ErrCorrupt. Mapper, Header and Snapshot are empty
	// then; the other fields have a checksum of their own and are right. Set by reads, never written.
	Damage error
}

// Damaged returns the root without its snapshot, which cannot be read.
func (r Root) Damaged(cause error) Root {
	r.Mapper, r.Header, r.Snapshot = "", Header{}, nil
	r.Damage = cause
	return r
}

// Past is what the state at a root's base is built from where its snapshot cannot be read.
type Past struct {
	// Start is the newest root of the history below that one whose snapshot can be read; nil: the history starts with
	// no state.
	Start *Root
	// Above are the roots between Start and that root, oldest first, without snapshots.
	Above []Root
	// Records are all from the base of Start, or the first, to the base of that root.
	Records []Record
}

// IsBare reports whether the root was written without the state, because that was too large for the store: what is left
// of the snapshot names no mapper. The state at its base is built from the newest root below it that is not bare, and
// the events since (Past).
func (r *Root) IsBare() bool { return r.Mapper == "" && len(r.Snapshot) > 0 }

// IsArchived reports whether nothing is left for an archiver to do for the root and its partition.
func (r *Root) IsArchived() bool { return r.Archive != nil && r.Stripped && r.SnapshotAt == "" }

// Partition returns the name of the root's partition.
func (r *Root) Partition() Partition { return PartitionOf(r.Key, r.Incarnation) }

// PartitionOf returns the name of the partition below a root that this incarnation wrote ([R7]).
func PartitionOf(root RootKey, by Incarnation) Partition {
	if planted.Bug(planted.SharePartitions) {
		return Partition{RootKey: RootKey{Aggregate: root.Aggregate, Version: root.Version}}
	}
	return Partition{RootKey: root, Incarnation: by}
}

// ParentPartition returns the name of the parent's partition; meaningless if Parent is zero.
func (r *Root) ParentPartition() Partition {
	return Partition{RootKey: r.Parent, Incarnation: r.ParentIncarnation}
}

// Partition names the records below one root.
type Partition struct {
	RootKey
	Incarnation Incarnation
}

// Head is the end of an aggregate's history as its owner vouches for it: all up to Sequence is
// durable, and every root that leads there from Root is final.
type Head struct {
	Partition Partition
	// Bare says that the partition's root is (Root.IsBare), so that roots below it are still needed. Known in the
	// process that owns the aggregate; the answers to other processes leave it out.
	Bare bool
	// Base, Parent and ParentIncarnation are those of the partition's root.
	Base              uint64
	Parent            RootKey
	ParentIncarnation Incarnation
	Sequence          uint64
}

// Record is one event of an aggregate.
type Record struct {
	// Sequence is the event's position in the aggregate's history, from 1, without a gap.
	Sequence uint64
	// Index and Count place the record among the records of its command: Index from 0, Count at
	// least 1. The command's records are Sequence-Index … Sequence-Index+Count-1.
	Index, Count uint32
	// CommandID is the client's id of the command.
	CommandID string
	// Fingerprint and IssuedAt (milliseconds) belong to the command; set on its first record only.
	Fingerprint uint64
	IssuedAt    time.Time
	// Principal gave the command, "ISSUER:SUBJECT", and Reason is what it stated. Empty: not known, or none was stated.
	// Each record of a command has them, so that one can be read without the others.
	Principal, Reason string
	// AggregateID is the part of the aggregate that the event is about, "iphone/GlowS01E01".
	AggregateID string
	// Order is the eventOrderNumber, from 0 per AggregateID.
	Order uint64
	// Time of the event, milliseconds, never before that of the record before it.
	Time time.Time
	// Mapper names type and version of Data, "LicenseAcquired/1".
	Mapper string
	Header Header
	Data   []byte
}

// Mutation is what one append writes: the records of one or several commands, in sequence, into one
// partition, all or nothing once acknowledged. While its outcome is unknown a reader may see any part
// of it.
type Mutation struct {
	Partition Partition
	Records   []Record
}

// recordOverhead is what a record or root takes beside its strings and data, roughly.
const recordOverhead = 64

// Size returns what a root takes of [Journal.MaxMutation], in bytes.
func (r *Root) Size() int {
	return recordOverhead + len(r.Key.Aggregate) + len(r.Mapper) + len(r.Snapshot)
}

// Size returns what a record takes of [Journal.MaxMutation] in a partition of that aggregate, in bytes.
func (r *Record) Size(aggregate string) int {
	return recordOverhead + len(aggregate) + len(r.CommandID) + len(r.Principal) + len(r.Reason) + len(r.AggregateID) +
		len(r.Mapper) + len(r.Data)
}

// Size returns what the mutation takes of [Journal.MaxMutation], in bytes.
func (m *Mutation) Size() int {
	size := 0
	for i := range m.Records {
		size += m.Records[i].Size(m.Partition.Aggregate)
	}
	return size
}

// Journal keeps roots and records. It is safe for concurrent use.
//
// Plain writes are durable when they are acknowledged, and a read that starts after that sees them;
// what one read saw, later reads see too, also after a power loss: a write of unknown outcome that was read once is
// as good as acknowledged. (Cassandra does so by blocking read repair at a quorum, the embedded store by not answering
// before what was read is on disk.) Nothing is compared: the caller never writes two contents under one key.
//
// Roots of an aggregate that has a tombstone are not shown ([Erasure]): TopRoot, ReadRoot and ReadRoots fail with a
// *ForgottenError then.
type Journal interface {
	// TopRoot returns the root with the highest key of the aggregate. A root whose snapshot alone is damaged is
	// returned with its Damage. Errors: ErrNotFound if it has none, ErrUnavailable, ErrCorrupt.
	TopRoot(ctx context.Context, aggregate string) (Root, error)

	// ReadRoot returns one root. Errors: as TopRoot.
	ReadRoot(ctx context.Context, key RootKey) (Root, error)

	// ReadRoots returns up to limit roots of the aggregate with keys below the given one, or all
	// if it is zero, highest first. Also leftovers of fenced writers are among them.
	ReadRoots(ctx context.Context, aggregate string, below RootKey, limit int) ([]Root, error)

	// ReadRecords returns up to limit records of the partition with sequences above after, in order.
	// There may be gaps and torn commands where a mutation's outcome is or was unknown; fewer than
	// limit records mean that there were no more. The records belong to the caller.
	ReadRecords(ctx context.Context, p Partition, after uint64, limit int) ([]Record, error)

	// PutRoot writes a root and calls done exactly once, from any goroutine, possibly before PutRoot
	// returns: with nil when it is durable, ErrRejected when it certainly will never be, and any
	// other error when the outcome is unknown. The root must not change until then.
	PutRoot(ctx context.Context, r *Root, done func(error))

	// Append writes a mutation; otherwise as PutRoot.
	Append(ctx context.Context, m *Mutation, done func(error))

	// MaxMutation returns the size, in bytes, of the largest mutation, and of the largest root, that the store takes;
	// 0 for no limit. Larger ones are rejected. It does not change.
	MaxMutation() int

	// Aggregates returns up to limit ids of aggregates that have a root, above after in an order of
	// the store's own ("" starts); after is the last id of the former page. An aggregate made
	// meanwhile may be missing.
	Aggregates(ctx context.Context, after string, limit int) ([]string, error)
}

// Store is the hot tier with ownership, as a node uses it.
type Store interface {
	Journal
	Ownership
	Votes
	Housekeeping
	Erasure
	// Close waits for writes in progress and releases the store. Later calls fail with ErrClosed.
	Close() error
}
