// Package cassandra is the store of a cluster: package persistence's contract on Apache Cassandra.
//
// # The model
//
// A record is a row of table events, a root a row of table snapshots; schema/*.cql has both, with the
// reason of every choice. Their partitions follow from the protocol: the records of one root are one
// partition, named by the root's aggregate, version, epoch and incarnation, and the roots of one
// aggregate are another, the highest first. What a row holds beside its columns (the place of the
// record in its command, the header) travels in event_data and snapshot_data, under a checksum that
// covers the columns too, so a row that was changed or put in another's place does not pass.
//
// A write is a plain insert at a quorum. The driver stamps each attempt with this machine's clock, and
// Cassandra lets the latest win, so under one key only identical content may ever be sent: then it does
// not matter which attempt wins, nor what the clocks say. The protocol sees to that (a root's key is
// never used again, a partition is written by its own activation only); nothing here compares.
//
// The records of one mutation are one unlogged batch on one partition, which every replica applies as
// a whole. A reader may still see part of it while it is in progress (Cassandra pages), so callers look
// at Index and Count.
//
// Leases and shards are the opposite: conditional updates (lightweight transactions) and SERIAL reads
// only. The driver never repeats one of those.
//
// # Outcomes
//
// Only what was refused before it was sent, or what two nodes of Cassandra call invalid, is ErrRejected. A
// timeout, an unavailable quorum, a lost connection, a node that does not know the schema yet, and everything
// else is ErrUnknownOutcome, and the caller repeats the identical write. A read is tried at another node before it
// is ErrUnavailable.
//
// # Group commit
//
// Writes of customers whose first replica is the same node travel together while Cassandra is busy, as one unlogged
// batch to that node. A write is sent at once while nothing is in progress; beyond that, what arrives waits until it is
// as large as what is in progress, or fills a batch (pace.go). Up to Options.BatchesInFlight requests to a node are in
// progress. Sets of replicas that do not answer have batches of their own (lanes.go).
// The load decides when a write is sent, and with which others, and nothing else: for its caller a write that waits is
// one in progress, and a partition has one at a time ([R7]).
//
// Such a batch shares transport, not fate: it is no transaction, and
// each write is told its own outcome and is repeated by its own caller, alone or in other company. A
// batch that Cassandra refuses (rather than fails) was not applied, and its writes are sent one by one,
// so that one customer's bad write is not another's.
//
// # Where to start
//
//   - store.go opens the store and names its parts; keyspace.go is what it shares with the archive.
//   - journal.go has the reads and writes of roots and records, rows.go how they become rows.
//   - group.go, pace.go and lanes.go bound and group what is in progress; policy.go chooses the node that is asked.
//   - ownership.go and swaps.go have leases and shards.
//   - schema.go applies schema/*.cql; check.go finds the risks.
//   - archive.go is the archive tier, a second keyspace or the same one.
//
// # What Cassandra must give
//
// Quorums that overlap, a monotonic read (read_repair = 'BLOCKING'), one data centre for everybody who
// uses the LOCAL levels, and durability on acknowledgement as far as commitlog_sync provides it. [Open]
// checks what can be checked and names what endangers the promise as a [Risk]; docs/guide/cassandra.md tells
// operators the rest.
package cassandra
