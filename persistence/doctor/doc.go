// Package doctor checks all that is stored of an aggregate: that its history is whole, and that it comes
// to what snapshots and memory say.
//
// # The model
//
// An examination starts at a head, which the owner vouches for; of a store that nobody writes to,
// Recover finds it. It follows the roots back to the first and then reads the events forward:
//
//	roots      each has the parent, base and incarnation that its child names, and is older
//	records    sequence without a gap, commands whole, times in order, orders of each aggregate id dense
//	checksums  everything is decoded, the data of events included
//	archive    what a mark names is present and whole; what is marked is gone from the hot tier; segments
//	           that no root names
//	replay     the replay equals each snapshot that can be read, and the live state
//
// What is wrong is a finding, with the range it concerns and what to do. An examination changes nothing,
// unless it is asked to repair. Then it repeats, of the archiver's steps, the two that destroy nothing that
// is not known to be safe at that moment: records of a partition are trimmed whose mark is durable and
// whose every record was just read from the archive, and roots are stripped for which that holds, their
// snapshots in the archive included. All else is for people.
package doctor
