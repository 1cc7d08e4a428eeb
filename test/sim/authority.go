package sim

import (
	"encoding/binary"

	"licensed/actors"
	"licensed/persistence"
)

// authority says which node owns which shard.
type authority interface {
	begin()
	started(n *node)
	paused(n *node)
	// guess returns the node that clients send requests for the shard to, or nil.
	guess(shard int) *node
	epoch(n *node, shard int) (uint64, bool)
	holds(n *node, shard int, epoch uint64) bool
	// turnsAway reports whether the node refuses all requests, since its lease ran out.
	turnsAway(n *node) bool
	// say has a request answered, now, later, or never if the process is gone by then.
	say(h *host, r *actors.Request, reply func())
	// held asks for an archiver whether the node holds the shard, as for a reply.
	held(n *node, shard int, epoch uint64, done func(bool))
	// stale reports a root above the epoch of the host.
	stale(h *host, epoch uint64)
	// check looks at the shards after the world was healed.
	check()
}

func (w *world) shardOf(aggregate string) int { return int(aggregate[0]) % w.params.Shards }

func (w *world) newIncarnation() persistence.Incarnation {
	var inc persistence.Incarnation
	binary.BigEndian.PutUint64(inc[:], w.Uint64())
	binary.BigEndian.PutUint64(inc[8:], w.Uint64())
	return inc
}
