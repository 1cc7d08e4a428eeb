// Package archive moves closed history from the hot tier to the archive tier.
//
// # The model
//
// A partition is closed when a child of its root is durable and final (persistence.Head says so); it
// never changes again. The archiver takes closed partitions of one aggregate, oldest first, and does
// to each group of them:
//
//	copy    their records, exactly those up to the base of the next root, into one compressed segment
//	verify  read the segment back and compare it with what was copied
//	mark    each root with the segment's name, durably
//	trim    delete the records from the hot tier
//	strip   each root to the fields that hold the chain together
//
// A crash between any two steps leaves a state from which the next run goes on: what is marked is
// never read in the hot tier again, what is not marked is still there whole. Segments have names that
// were never used before and are never overwritten, so an archiver that was fenced can do no harm but
// leave a segment that nothing names ([R12]).
//
// Small partitions wait until together they are worth a segment, or until they are old.
package archive
