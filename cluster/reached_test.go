package cluster_test

import (
	"strings"
	"testing"

	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// A node that reaches the store and nobody else takes no shards, also when another node crashes. When it is the last
// one alive, it takes all; and a node that others reach is like any other.
func TestIsland(t *testing.T) {
	ns := newNodes(t)
	a, b := ns.start("a"), ns.start("b")
	ns.until("settled", settled(a, b))
	island := ns.start("c", func(c *cluster.NodeConfig) { c.Votes = ns.store })
	ns.leave(island)
	alone := func() {
		island.SetMembers([]ownership.Member{{Name: "c", Incarnation: island.Incarnation(), Eligible: true}})
		island.SetReached(nil, 0)
	}
	ns.until("the island knows why", func() bool {
		alone()
		err := island.Unreachable()
		return err != nil && strings.Contains(err.Error(), "gossip") && island.Reach() == ownership.Unproven
	})
	ns.leave(a)
	a.kill(t)
	ns.until("b has all", func() bool { alone(); held, _, _ := b.Held(); return held == shards })
	if claimed := island.count(cluster.Claimed) + island.count(cluster.TakenOver); claimed != 0 {
		t.Errorf("the island took %d shards", claimed)
	}
	ns.leave(b)
	b.kill(t)
	ns.until("the island has all, since nobody else lives",
		func() bool { alone(); held, _, _ := island.Held(); return held == shards })
	island.SetReached([]persistence.Incarnation{{1}}, 1)
	ns.until("it is reached", func() bool { return island.Reach() == ownership.Reached && island.Unreachable() == nil })
	if island.count(cluster.Reachable) != 1 {
		t.Errorf("%d happenings", island.count(cluster.Reachable))
	}
}
