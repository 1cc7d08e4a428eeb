// Package failpoint names the points of the write path where a process can be made to die, to wait, or to
// see another time, so that test/chaos can hit each of them in a real cluster.
//
// # The model
//
// A point is before or after one call to a store, named for what the call is for: "append.after" is hit
// when an append is durable and nobody was told, "root.rollover.before" when a partition is about to be
// closed. [Store] and [Archive] lay the points over a store. [Clock] lets the wall clock jump; leases do
// not read it.
//
// All of this is in programs built with the tag failpoints only. In others Store, Archive and Clock return
// what they are given, and nothing of the rest is linked: points cost nothing where they are off. With
// the tag, a process listens on the unix socket that the environment variable LICENSED_FAILPOINTS names,
// for HTTP:
//
//	GET /                 the points with their hits and actions, as JSON
//	PUT /append.after     with the body "exit", "sleep 200ms" or "off"
//	PUT /clock            with the body "5m" or "-30s": how far the wall clock is off
//
// "exit" is kill -9 to the process itself, at once, in the middle of whatever else it does.
package failpoint

// Variable of the environment that names the socket to listen on.
const Variable = "LICENSED_FAILPOINTS"

// The calls that have a point before and one after them.
const (
	Append         = "append"
	RootActivation = "root.activation"
	RootRollover   = "root.rollover"
	ReadTop        = "read.top"
	ReadRecords    = "read.records"
	LeaseRenew     = "lease.renew"
	LeaseChallenge = "lease.challenge"
	ShardTake      = "shard.take"
	ShardRelease   = "shard.release"
	ArchivePut     = "archive.put"
	ArchiveVerify  = "archive.verify"
	ArchiveMark    = "archive.mark"
	ArchiveDelete  = "archive.delete"
	ArchiveStrip   = "archive.strip"
)

// Calls lists them.
var Calls = []string{
	Append, RootActivation, RootRollover, ReadTop, ReadRecords, LeaseRenew, LeaseChallenge, ShardTake, ShardRelease,
	ArchivePut, ArchiveVerify, ArchiveMark, ArchiveDelete, ArchiveStrip,
}

// Before and After name the points of a call.
func Before(call string) string { return call + ".before" }

// After is the point when the call has returned without an error.
func After(call string) string { return call + ".after" }

// WallClock is the name of the wall clock on the socket. Its hits are the events that were recorded with a wrong time.
const WallClock = "clock"

// ClockReads counts the readings of the wall clock while it was wrong. Only its hits can be asked for.
const ClockReads = "clock.reads"

// Points lists all points.
func Points() []string {
	var points []string
	for _, c := range Calls {
		points = append(points, Before(c), After(c))
	}
	return points
}
