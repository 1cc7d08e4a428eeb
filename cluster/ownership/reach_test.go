package ownership_test

import (
	"context"
	"testing"
	"time"

	"licensed/cluster/ownership"
	"licensed/persistence"
)

// company is witnessed nodes and gateways that reach each other, or not, and report it.
type company struct {
	*harness
	gateways int
	beat     uint64
	// cut says that a process, named by its number (nodes first, then gateways), cannot reach a node.
	cut func(from, to int) bool
	// hidden says that gossip does not show one node to another, nor to gateways.
	hidden func(from, to int) bool
}

// newCompany starts that many nodes and gateways.
func newCompany(t *testing.T, nodes, gateways int) *company {
	none := func(int, int) bool { return false }
	c := &company{harness: newHarness(t), gateways: gateways, cut: none, hidden: none}
	for i := range nodes {
		c.add(string(rune('a' + i)))
	}
	return c
}

func (c *company) add(name string) *node {
	return c.start(name, func(o *ownership.Config) { o.Witnessed, o.ScanEvery = true, time.Minute })
}

// voter returns the identity of a process.
func voter(number int) persistence.Incarnation { return persistence.Incarnation{15: byte(number + 1)} }

// live lets time pass, with a round of gossip, pings and votes every half second.
func (c *company) live(d time.Duration) {
	c.t.Helper()
	for range d / (500 * time.Millisecond) {
		c.round()
		c.run(500 * time.Millisecond)
	}
}

func (c *company) round() {
	ctx := context.Background()
	c.beat++
	processes := len(c.nodes) + c.gateways
	for to, n := range c.nodes {
		if n.stopped {
			continue
		}
		var reached []persistence.Incarnation
		var members []ownership.Member
		seen := 0
		for from := range processes {
			if from < len(c.nodes) && c.nodes[from].stopped {
				continue
			}
			if from < len(c.nodes) && (from == to || !c.hidden(to, from)) {
				members = append(members, c.nodes[from].member())
			}
			if from == to {
				continue
			}
			if !c.hidden(to, from) {
				seen++
			}
			var err error
			switch {
			case c.hidden(from, to) && len(n.open()) == 0: // nobody knows that it exists
			case c.cut(from, to) || c.hidden(from, to):
				err = c.store.PutVote(ctx,
					persistence.Vote{Accused: n.incarnation, Voter: voter(from), Name: "p", Beat: c.beat})
			default:
				reached = append(reached, voter(from))
				err = c.store.WithdrawVote(ctx, n.incarnation, voter(from))
			}
			if err != nil {
				c.t.Fatal(err)
			}
		}
		n.step(ownership.Input{Kind: ownership.InputReach, Reached: reached, Witnesses: seen})
		n.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	}
}

// served fails the test unless every shard is open at one of the nodes.
func (c *company) served() {
	c.t.Helper()
	open := 0
	for _, n := range c.nodes {
		if !n.stopped {
			open += len(n.open())
		}
	}
	if open != c.shards {
		c.t.Errorf("%d of %d shards are served", open, c.shards)
	}
}

func (c *company) holds(n *node, some bool) {
	c.t.Helper()
	if held := len(n.open()); held > 0 != some {
		c.t.Errorf("%s, %v, holds %d shards", n.name, n.reach, held)
	}
}

// everyone cuts a node's port off from all other processes.
func everyone(node int) func(from, to int) bool { return func(_, to int) bool { return to == node } }

func TestAloneTakesAll(t *testing.T) {
	c := newCompany(t, 1, 0)
	c.live(time.Second)
	c.settled(c.nodes...)
	if c.nodes[0].reach != ownership.Unproven {
		t.Errorf("%v", c.nodes[0].reach)
	}
	c.gateways = 1 // which does not reach it: nobody else would serve
	c.cut = everyone(0)
	c.live(20 * time.Second)
	c.settled(c.nodes...)
}

func TestNobodyReachesTheFirst(t *testing.T) {
	c := newCompany(t, 1, 2)
	c.cut = everyone(0)
	c.live(20 * time.Second)
	c.settled(c.nodes...)
}

// A node that holds all gives none to one that nobody has reached either.
func TestUnprovenKeeps(t *testing.T) {
	c := newCompany(t, 1, 0)
	c.live(2 * time.Second)
	c.settled(c.nodes...)
	n := c.add("b")
	c.cut = func(int, int) bool { return true }
	c.live(20 * time.Second)
	c.holds(n, false)
	c.settled(c.nodes...)
	c.cut = everyone(0) // the other one is reached: it shall serve
	c.live(10 * time.Second)
	c.holds(c.nodes[0], false)
	c.settled(c.nodes...)
}

// A node takes no shards before another process has reached it.
func TestUnprovenTakesNothing(t *testing.T) {
	c := newCompany(t, 2, 1)
	c.live(5 * time.Second)
	c.settled(c.nodes...)
	n := c.add("c")
	c.cut = everyone(2)
	for range 40 {
		c.live(500 * time.Millisecond)
		if len(n.open()) > 0 || n.ops[ownership.OpSwapShard] > 0 {
			t.Fatalf("it holds %d shards after %d attempts", len(n.open()), n.ops[ownership.OpSwapShard])
		}
	}
	c.nodes[0].stopped = true // the others take its shards
	c.live(20 * time.Second)
	c.served()
	c.holds(n, false)
	c.cut = func(int, int) bool { return false }
	c.live(5 * time.Second)
	c.served()
	c.holds(n, true)
}

// A node that a majority cannot reach hands its shards over, and gets shards again when it is reached.
func TestAccusedHandsOver(t *testing.T) {
	c := newCompany(t, 3, 1)
	c.live(5 * time.Second)
	c.settled(c.nodes...)
	n := c.nodes[2]
	c.holds(n, true)
	c.cut = everyone(2)
	c.live(4 * time.Second)
	c.holds(n, false)
	c.settled(c.nodes...)
	if _, accusers := n.machine.Reach(c.now); n.reach != ownership.Accused || len(accusers) != 3 {
		t.Errorf("%v, accused by %v", n.reach, accusers)
	}
	c.live(20 * time.Second)
	c.holds(n, false)
	c.cut = func(int, int) bool { return false }
	c.live(6 * time.Second)
	c.holds(n, true)
	c.settled(c.nodes...)
	if n.reach != ownership.Reached {
		t.Errorf("%v", n.reach)
	}
}

// The same when gossip does not reach it either.
func TestAccusedIslandHandsOver(t *testing.T) {
	c := newCompany(t, 3, 1)
	c.live(5 * time.Second)
	c.settled(c.nodes...)
	c.hidden = func(from, to int) bool { return from == 2 || to == 2 }
	c.live(10 * time.Second)
	c.holds(c.nodes[2], false)
	c.settled(c.nodes...)
	c.hidden = func(int, int) bool { return false }
	c.live(6 * time.Second)
	c.holds(c.nodes[2], true)
	c.settled(c.nodes...)
}

// A node that gossip never reached takes nothing while others live, whichever of them dies.
func TestIslandTakesNothing(t *testing.T) {
	c := newCompany(t, 2, 1)
	c.live(5 * time.Second)
	n := c.add("c")
	c.hidden = func(from, to int) bool { return from == 2 || to == 2 }
	c.live(5 * time.Second)
	c.nodes[0].stopped = true
	c.lose = func(o *node, op ownership.Op) (bool, bool) { // the island is the first to know
		return o == c.nodes[1] && op.Kind == ownership.OpSwapLease && op.Lease.Next.Dead, false
	}
	c.live(20 * time.Second)
	if c.holds(n, false); n.ops[ownership.OpSwapShard] > 0 {
		t.Errorf("the island tried to take %d shards", n.ops[ownership.OpSwapShard])
	}
	c.settled(c.nodes[1], n)
	c.nodes[1].stopped = true // nobody is left
	c.live(30 * time.Second)
	c.settled(n)
}

// Votes of a minority change nothing.
func TestMinority(t *testing.T) {
	for name, cut := range map[string]func(from, to int) bool{
		"a gateway whose network is broken":  func(from, _ int) bool { return from == 3 },
		"a node that does not reach another": func(from, to int) bool { return from == 0 && to == 1 },
		"two that do not reach each other":   func(from, to int) bool { return from+to == 1 },
		"a tie":                              func(from, to int) bool { return to == 0 && from >= 3 },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCompany(t, 3, 2)
			c.live(5 * time.Second)
			c.settled(c.nodes...)
			moved := len(c.nodes[0].closed) + len(c.nodes[1].closed) + len(c.nodes[2].closed)
			c.cut = cut
			c.live(20 * time.Second)
			c.settled(c.nodes...)
			if now := len(c.nodes[0].closed) + len(c.nodes[1].closed) + len(c.nodes[2].closed); now != moved {
				t.Errorf("%d shards moved", now-moved)
			}
		})
	}
}

// Whatever the accusations, all shards are served.
func TestSomebodyServes(t *testing.T) {
	for name, cut := range map[string]func(from, to int) bool{
		"all cannot be reached":             func(int, int) bool { return true },
		"nodes reach nobody":                func(from, _ int) bool { return from < 3 },
		"gateways reach nobody":             func(from, _ int) bool { return from >= 3 },
		"two nodes are reached by nobody":   func(_, to int) bool { return to < 2 },
		"a node is reached by the gateways": func(from, to int) bool { return to > 0 || from < 3 },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCompany(t, 3, 2)
			c.live(5 * time.Second)
			c.settled(c.nodes...)
			c.cut = cut
			c.live(20 * time.Second)
			c.settled(c.nodes...)
			c.nodes[2].stopped = true // what is free then is taken
			c.live(30 * time.Second)
			c.settled(c.nodes[:2]...)
			c.cut = func(int, int) bool { return false }
			c.live(10 * time.Second)
			c.settled(c.nodes[:2]...)
			c.holds(c.nodes[0], true)
			c.holds(c.nodes[1], true)
		})
	}
	t.Run("two nodes, each other's only witness", func(t *testing.T) {
		c := newCompany(t, 2, 0)
		c.live(5 * time.Second)
		c.cut = func(int, int) bool { return true }
		c.live(20 * time.Second)
		c.settled(c.nodes...)
		c.holds(c.nodes[0], true)
		c.holds(c.nodes[1], true)
	})
	t.Run("all are hidden from each other", func(t *testing.T) {
		c := newCompany(t, 3, 1)
		c.live(5 * time.Second)
		c.settled(c.nodes...)
		c.hidden = func(int, int) bool { return true }
		c.live(20 * time.Second)
		c.settled(c.nodes...)
	})
}

// Votes whose voters are gone do not count forever.
func TestVotesExpire(t *testing.T) {
	c := newCompany(t, 2, 4)
	c.live(5 * time.Second)
	c.cut = func(from, to int) bool { return to == 0 && from >= 2 }
	c.live(5 * time.Second)
	c.holds(c.nodes[0], false)
	c.gateways = 0 // all crash; their votes stay in the store
	c.live(12 * time.Second)
	c.holds(c.nodes[0], true)
	c.settled(c.nodes...)
}

// While somebody reaches a node, it reads the votes once in a TTL.
func TestVotesAreCheap(t *testing.T) {
	c := newCompany(t, 2, 1)
	c.live(5 * time.Second)
	n := c.nodes[0]
	before := n.ops[ownership.OpReadVotes]
	c.live(25 * time.Second)
	if reads := n.ops[ownership.OpReadVotes] - before; reads > 10 {
		t.Errorf("%d reads of the votes in 10 TTLs", reads)
	}
}
