// Package pebble is the embedded store: roots, records and ownership rows in one directory, kept by
// the LSM engine github.com/cockroachdb/pebble.
//
// # Layout
//
// Keys start with a letter that tells the kind of row. An aggregate's id ends with a zero byte, which
// no id contains; so ids sort by their bytes, and none is a prefix of another. Numbers are written
// as their length in bytes and then the bytes, big-endian, so they sort as numbers and small ones
// take two bytes. A tilde marks numbers whose bits are all inverted, so that they sort downwards.
//
//	!                                                  marker: format of the store
//	c                                                  cluster
//	e aggregate 0 epoch version incarnation sequence   record
//	i                                                  id of the cluster
//	l incarnation                                      lease
//	n aggregate 0 ~epoch ~version                      snapshot of that root
//	r aggregate 0 ~epoch ~version                      root
//	r aggregate 0 ~epoch ~version m                    archive mark of that root
//	r aggregate 0 ~epoch ~version s                    that root is stripped
//	s id                                               shard
//	t key                                              tombstone of a forgotten aggregate, under an HMAC of its id
//
// So the top root of an aggregate is found by one seek, with the rows that belong to it right behind;
// the records of a partition lie side by side in order, and neither scan meets another aggregate's
// rows. Snapshots lie apart from the roots, in other blocks of the tables: a damaged block of snapshots leaves the
// chain readable, and the state is rebuilt from the events (persistence.Root.Damage). Values are the encodings of
// package persistence, or of rows.go here: each with its layout number and a checksum of its own, so also a bit that
// flips above the engine's checksums is found when the row is read. Records are written once and never changed until
// the archiver deletes their partition; so are roots, but the snapshot of one that is stripped is deleted. What a
// fenced writer left stays. Nothing of an aggregate stays that was forgotten, but its tombstone; erasure.go has what
// the engine's files then still have of it.
//
// # Where to start
//
//   - pebble.go opens and closes the store; keys.go and rows.go have keys and values byte by byte.
//   - journal.go reads and writes roots and records, commit.go makes them durable in groups.
//   - ownership.go has the rows that are compared and set, housekeeping.go what the archiver changes.
//   - erasure.go deletes what there is of a forgotten aggregate, and has the engine's files rewritten.
//   - fatal.go, watch.go and patience.go decide what an error of the disk means.
//   - archive.go is the archive tier, archive_engine.go how it survives its disk, fence.go what makes that safe.
//
// # Durability
//
// A write is acknowledged when the write-ahead log that has it was synced to the disk. Writes of all
// aggregates that come in while a sync is in progress go into one batch and share the next sync; see
// commit.go. What a read returns is durable too: it waits for the sync of what it may have seen, which
// is what was written of its aggregate and is not synced yet.
//
// # Lock
//
// Open takes an exclusive lock on the directory, which the operating system releases when the process
// that holds it ends, and not before. So the holder of the lock knows that no other process writes
// there any more. Lease rows are kept all the same, so that the protocol above needs no special case.
//
// # Failure
//
// The first error of a write, a sync or a background flush or compaction stops the store: which
// pages a failed sync wrote is unknown, and trying again may wrongly succeed. From then on nothing
// is acknowledged, every call fails with ErrClosed and the cause, and Options.Failed is told, so
// that the process can end and be started again. A row or a table's block that fails its checksum is
// the matter of the readers of it alone (ErrCorrupt).
package pebble
