// Package ownership decides for which shards one incarnation of a node speaks.
//
// # The model
//
// [Participant] is the node's part of the protocol, a pure state machine: Step takes an input (the time, the
// result of an operation on the store, who the members seem to be) and returns what is to be done. It has
// no goroutine, clock or I/O. Two things drive it: the node's shell in package cluster, and the simulator
// in test/sim, against a store whose compare-and-sets are delayed, lost and late.
//
// It keeps the incarnation's lease, watches the leases of the owners of shards, and takes each shard
// through
//
//	idle → claiming → held → closing → releasing → idle
//
// A shard is claimed by one compare-and-set on its row, to the next epoch, only where the row has no owner
// or the owner was seen to be marked dead ([R2]). It is held only once that is known to be applied, by the
// reply or by a read ([R3]). It is handed over by closing it (no new requests, those in progress finish),
// and a compare-and-set that takes the owner off and names the successor; from the moment before this is
// sent the shard is not held, whatever comes of it. An outcome that is unknown is resolved, or superseded
// at a higher epoch. Rows are read again now and then, so that a claim that took effect after it was given
// up is found, and no shard stays without an owner.
//
// Who should own what is a matter of placement over the members that seem to be alive: a wish that only
// says which claims and releases to try. Every wish may be wrong without harm.
//
// The holder of a lease that ran out has ended, with all its shards; the process continues as another
// incarnation, with a new machine that marks the former one dead without waiting for it.
package ownership
