package actors

import "licensed/persistence"

// Authority tells for which aggregates this process may speak. It is safe for concurrent use; Holds
// is on the path of every reply and must be cheap.
type Authority interface {
	// Incarnation of this process, under which it writes.
	Incarnation() persistence.Incarnation
	// Shard returns the shard of an aggregate (its id with the kind).
	Shard(aggregate string) uint32
	// Epoch returns the epoch under which this process holds the shard, or false. It is known to be
	// applied before any read that follows ([R3]).
	Epoch(shard uint32) (epoch uint64, ok bool)
	// Holds says whether the shard is held under that epoch at this very moment, by the clock itself
	// and not by a flag that a timer keeps ([R9]).
	Holds(shard uint32, epoch uint64) bool
	// Suspended reports whether this process owns no aggregate at this moment, and perhaps will again: its
	// lease ran out and was not renewed yet. Requests do not get here meanwhile, and nobody is evicted for idleness.
	Suspended() bool
	// StaleEpoch reports that a root of an epoch above the held one was read, or of the same one by another
	// incarnation: another process owns the shard, or ownership was restored from a backup and its epoch must
	// be raised above that.
	StaleEpoch(shard uint32, aggregate string, epoch uint64)
}
