// Package archive moves closed history from the hot tier to the archive tier.
//
// # The model
//
// A partition is closed when a child of its root is durable and final (persistence.Head reports it); it
// never changes again. The archiver takes closed partitions of one aggregate, oldest first, and does
// to each group of them:
//
//	copy    their records, exactly those up to the base of the next root, into one compressed segment
//	verify  read the segment back and compare it with what was copied
//	mark    each root with the segment's name, durably
//	trim    delete the records from the hot tier
//	strip   each root to the fields that hold the chain together
//
// The top root is what an aggregate is recovered from. Of one that was idle for long its snapshot moves,
// too; what is left of the root, the stub, says where it is. When the aggregate was woken, by a root on
// top of the stub, that closes the stub like any other; the snapshot is then deleted before it is stripped
// of the name.
//
// A crash between any two steps leaves a state from which the next run continues: what is marked is
// never read in the hot tier again, what is not marked is still present whole. Segments have names that
// were never used before and are never overwritten, so an archiver that was fenced can do no harm but
// leave a segment that nothing names ([R12]). While marking fails and is tried again, the segment that was
// verified is used again; one that nothing names remains only where an archiver gave up or ended. The doctor
// lists it, nobody deletes it.
//
// Small partitions wait until together they are worth a segment, or until they are old.
//
// # Where to start
//
// archiver.go has the five steps, worker.go who calls it and when, scan.go the search for
// what is due. segment.go and columns.go are the format of a segment, byte by byte.
package archive
