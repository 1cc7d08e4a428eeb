package ownership_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

func TestOneNodeTakesAll(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.see(a)
	h.run(100 * time.Millisecond)
	h.settled(a)
	for _, row := range h.rows() {
		if row.Epoch != 1 {
			t.Fatalf("row %+v", row)
		}
	}
	h.run(time.Minute)
	h.settled(a)
}

func TestNobodyClaimsBeforeItsTurn(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.run(time.Minute) // nobody told it that it is a member
	if n := len(a.open()); n != 0 {
		t.Fatalf("%d shards are open", n)
	}
}

// TestJoin has a second node come: shards are handed over one by one, each released with its successor
// named, and no other shard moves.
func TestJoin(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.see(a)
	h.run(100 * time.Millisecond)
	b := h.start("b", nil)
	h.see(a, b)
	h.run(2 * time.Second)
	h.settled(a, b)
	if n := len(b.open()); n < 6 || n > 18 {
		t.Fatalf("b has %d of 24 shards", n)
	}
	if len(a.closed) != len(b.open()) {
		t.Errorf("%d shards were closed for %d that moved", len(a.closed), len(b.open()))
	}
	for _, row := range h.rows() {
		want := uint64(1)
		if row.Owner == b.incarnation {
			want = 2
		}
		if row.Epoch != want {
			t.Errorf("row %+v, want epoch %d", row, want)
		}
	}
}

func TestMovesAreLimited(t *testing.T) {
	h := newHarness(t)
	slow := func(c *ownership.Config) { c.MovesPerSecond, c.MaxMoves = 2, 1 }
	a := h.start("a", slow)
	h.see(a)
	h.run(time.Second)
	b := h.start("b", slow)
	h.see(a, b)
	h.run(2 * time.Second)
	if n := len(a.closed); n < 3 || n > 6 {
		t.Fatalf("%d shards were moved in 2 s at 2 a second", n)
	}
}

// TestMovesGoInBundles sees that shards of a group are handed over together, and no faster for it.
func TestMovesGoInBundles(t *testing.T) {
	h := newHarness(t)
	change := func(c *ownership.Config) { c.Shards, c.Groups, c.MovesPerSecond = 96, 4, 50 }
	a := h.start("a", change)
	h.see(a)
	h.run(time.Second)
	b := h.start("b", change)
	h.see(a, b)
	h.run(400 * time.Millisecond)
	if n := len(a.closed); n < 15 || n > 30 {
		t.Fatalf("%d shards were moved in 0.4 s at 50 a second", n)
	}
	together := 0
	for i, id := range a.closed[1:] {
		if id%4 == a.closed[i]%4 {
			together++
		}
	}
	if together < len(a.closed)*2/3 {
		t.Errorf("shards were moved in the order %v", a.closed)
	}
	h.run(3 * time.Second)
	h.settled(a, b)
}

// TestBundlesHaveOneTaker sees that a node that gives to two has but one of them claim in a group at a time.
func TestBundlesHaveOneTaker(t *testing.T) {
	h := newHarness(t)
	change := func(c *ownership.Config) { c.Shards, c.Groups, c.MovesPerSecond = 96, 4, 50 }
	a, b, c := h.start("a", change), h.start("b", change), h.start("c", change)
	h.see(a, b, c)
	h.run(10 * time.Second)
	h.settled(a, b, c)
	a.closed = nil
	a.step(ownership.Input{Kind: ownership.InputDrain})
	h.run(5 * time.Second)
	h.settled(b, c)
	taker := map[uint32]*node{}
	for _, n := range []*node{b, c} {
		for _, id := range n.open() {
			taker[id] = n
		}
	}
	together := 0
	for i, id := range a.closed[1:] {
		if former := a.closed[i]; id%4 == former%4 && taker[id] == taker[former] {
			together++
		}
	}
	if together < len(a.closed)/2 {
		t.Errorf("%d of the shards %v follow one of their group for the same node", together, a.closed)
	}
}

// TestTakeOver kills a node: its shards, and no others, go to the rest, not before the TTL and the
// allowance have passed since its last sign of life.
func TestTakeOver(t *testing.T) {
	h := newHarness(t)
	a, b, c := h.start("a", nil), h.start("b", nil), h.start("c", nil)
	h.see(a, b, c)
	h.run(4 * time.Second)
	h.settled(a, b, c)
	before := len(a.open()) + len(b.open())
	c.stopped = true
	lost := len(c.open())
	timing := lease.DefaultTiming()
	h.run(timing.TTL + timing.Allowance - timing.TTL/4 - 10*time.Millisecond)
	if got := len(a.open()) + len(b.open()); got != before {
		t.Fatalf("%d shards were taken while the lease may be valid", got-before)
	}
	h.run(time.Second)
	h.settled(a, b)
	if got := len(a.open()) + len(b.open()); got != before+lost || len(a.closed)+len(b.closed) != 0 {
		t.Fatalf("%d shards are open, %d were closed", got, len(a.closed)+len(b.closed))
	}
	// Gossip notices later: nothing moves any more.
	h.see(a, b)
	h.run(2 * time.Second)
	h.settled(a, b)
}

// TestGossipGoneButAlive has gossip lose sight of a node that continues renewing: it keeps its shards.
func TestGossipGoneButAlive(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	h.see(a, b)
	h.run(4 * time.Second)
	mine := len(a.open())
	members := []ownership.Member{{Name: "a", Incarnation: a.incarnation, Eligible: true}}
	a.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	h.run(20 * time.Second)
	if len(a.open()) != mine {
		t.Fatalf("a took %d shards of a node that is alive", len(a.open())-mine)
	}
	h.settled(a, b)
}

func TestPausedNodeFindsItselfOver(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	h.see(a, b)
	h.run(4 * time.Second)
	b.stopped = true
	h.run(10 * time.Second)
	b.stopped = false
	b.step(ownership.Input{})
	if b.valid {
		t.Fatal("valid after a pause")
	}
	h.run(100 * time.Millisecond) // Its renewal finds the mark.
	if !errors.Is(b.ended, lease.ErrEnded) || len(b.open()) != 0 {
		t.Fatalf("ended: %v, %d shards open", b.ended, len(b.open()))
	}
}

// TestStoreOutage has all leases run out. A node that finds the store again has what it had, and nobody is marked dead,
// whichever finds it first.
func TestStoreOutage(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	h.see(a, b)
	h.run(5 * time.Second)
	h.settled(a, b)
	before := h.rows()
	h.lose = func(*node, ownership.Op) (bool, bool) { return true, false }
	h.run(20 * time.Second)
	if a.valid || b.valid || a.ended != nil || b.ended != nil {
		t.Fatalf("valid: %t and %t, ended: %v and %v", a.valid, b.valid, a.ended, b.ended)
	}
	h.lose = func(n *node, _ ownership.Op) (bool, bool) { return n == b, false }
	h.run(time.Second) // Less than patience.
	h.lose = func(*node, ownership.Op) (bool, bool) { return false, false }
	h.run(5 * time.Second)
	h.settled(a, b)
	if after := h.rows(); !slices.Equal(before, after) {
		t.Fatalf("before: %v; after: %v", before, after)
	}
}

// TestRestart has a new process find the shards of its former one, about which it knows nothing.
func TestRestart(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.see(a)
	h.run(time.Second)
	a.stopped = true
	again := h.start("a", nil)
	h.see(again)
	h.run(2600 * time.Millisecond)
	if n := len(again.open()); n != 0 {
		t.Fatalf("%d shards were taken too early", n)
	}
	h.run(300 * time.Millisecond)
	h.settled(again)
}

func TestLostRelease(t *testing.T) {
	for name, request := range map[string]bool{"request": true, "reply": false} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			a := h.start("a", nil)
			h.see(a)
			h.run(time.Second)
			lost := 0
			h.lose = func(n *node, op ownership.Op) (bool, bool) {
				if op.Kind == ownership.OpSwapShard && op.NextShard.Owner.IsZero() && lost < 3 {
					lost++
					return request, true
				}
				return false, false
			}
			b := h.start("b", nil)
			h.see(a, b)
			h.run(3 * time.Second)
			h.settled(a, b)
			if lost != 3 || len(b.open()) == 0 {
				t.Fatalf("lost %d, b has %d", lost, len(b.open()))
			}
		})
	}
}

// TestSuccessorGoesAway has the successor leave while a release is unresolved: the shard stays, at a
// higher epoch.
func TestSuccessorGoesAway(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.see(a)
	h.run(time.Second)
	h.lose = func(n *node, op ownership.Op) (bool, bool) {
		return op.Kind == ownership.OpSwapShard && op.NextShard.Owner.IsZero(), false
	}
	b := h.start("b", nil)
	h.see(a, b)
	h.run(50 * time.Millisecond)
	if len(a.closed) == 0 {
		t.Fatal("nothing moves")
	}
	b.stopped = true
	h.see(a)
	h.run(5 * time.Second)
	h.settled(a)
	raised := 0
	for _, row := range h.rows() {
		if row.Epoch == 2 {
			raised++
		}
	}
	if raised == 0 {
		t.Error("no epoch was raised")
	}
}

func TestSuccessorGoesAwayWhileClosing(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	a.busy = true
	h.see(a)
	h.run(time.Second)
	b := h.start("b", nil)
	h.see(a, b)
	h.run(500 * time.Millisecond)
	if n := len(a.closed); n == 0 || len(a.open())+n != 24 {
		t.Fatalf("%d are closing, %d open", n, len(a.open()))
	}
	h.see(a)
	h.run(0)
	h.settled(a)
}

// TestCloseTimeout hands over though requests do not end.
func TestCloseTimeout(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	a.busy = true
	h.see(a)
	h.run(time.Second)
	b := h.start("b", nil)
	h.see(a, b)
	h.run(5 * time.Second)
	h.settled(a, b)
	if len(b.open()) == 0 {
		t.Fatal("nothing moved")
	}
}

// TestSuccessorIsNotTold loses the news of releases: the rows tell.
func TestSuccessorIsNotTold(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", func(c *ownership.Config) { c.ScanEvery = time.Second })
	h.see(a, b)
	h.run(4 * time.Second)
	c := h.start("c", func(c *ownership.Config) { c.ScanEvery = time.Second })
	nodes := h.nodes
	h.nodes = nil // nobody to tell
	members := []ownership.Member{}
	for _, n := range nodes {
		members = append(members, ownership.Member{Name: n.name, Incarnation: n.incarnation, Eligible: true})
	}
	for _, n := range nodes {
		n.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	}
	h.run(3 * time.Second)
	h.settled(a, b, c)
	if len(c.open()) == 0 {
		t.Fatal("nothing moved")
	}
}

// TestLateClaim has a claim take effect after the claimer has given it up: its row names an owner that
// does not know it, until it reads the row.
func TestLateClaim(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", func(c *ownership.Config) { c.ScanEvery = 2 * time.Second })
	b := h.start("b", nil)
	h.see(a, b)
	h.run(4 * time.Second)
	id := b.open()[0]
	before, err := h.store.Shard(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	late := persistence.Shard{ID: id, Epoch: before.Epoch + 1, Owner: a.incarnation}
	b.stopped = true // as if dead; the claim of a was sent and forgotten
	if ok, _, err := h.store.CompareAndSetShard(t.Context(), before, late); !ok || err != nil {
		t.Fatal(ok, err)
	}
	h.run(2500 * time.Millisecond)
	if !slices.Contains(a.changed, late) {
		t.Fatalf("gate %+v", a.gates[id])
	}
}

func TestLostClaim(t *testing.T) {
	for name, request := range map[string]bool{"request": true, "reply": false} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			a := h.start("a", nil)
			lost := 0
			h.lose = func(n *node, op ownership.Op) (bool, bool) {
				if op.Kind == ownership.OpSwapShard && lost < 30 {
					lost++
					return request, true
				}
				return false, false
			}
			h.see(a)
			h.run(80 * time.Millisecond)
			if n := len(a.open()); n != 0 {
				t.Fatalf("%d shards are open whose claim is not known to be applied", n)
			}
			h.run(2 * time.Second)
			h.settled(a)
		})
	}
}

// TestStaleOwnership raises the epoch of a shard above that of a history which is newer, as after
// restoring a backup of the ownership rows.
func TestStaleOwnership(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.see(a)
	h.run(time.Second)
	a.step(ownership.Input{Kind: ownership.InputStale, Shard: 3, Epoch: 9})
	if g := a.gates[3]; g.Kind == ownership.GateOpen {
		t.Fatalf("served under an epoch below the history's: %+v", g)
	}
	h.run(100 * time.Millisecond)
	if g := a.gates[3]; g.Kind != ownership.GateOpen || g.Epoch != 10 || len(a.raised) != 1 {
		t.Fatalf("gate %+v, raised %v", g, a.raised)
	}
	h.settled(a)
	// The same epoch, of another incarnation: it was claimed again after the rows had been restored.
	a.step(ownership.Input{Kind: ownership.InputStale, Shard: 3, Epoch: 10})
	h.run(100 * time.Millisecond)
	if g := a.gates[3]; g.Kind != ownership.GateOpen || g.Epoch != 11 || len(a.raised) != 2 {
		t.Fatalf("gate %+v, raised %v", g, a.raised)
	}
	// One below is old news.
	a.step(ownership.Input{Kind: ownership.InputStale, Shard: 3, Epoch: 10})
	h.run(100 * time.Millisecond)
	if g := a.gates[3]; g.Kind != ownership.GateOpen || g.Epoch != 11 || len(a.raised) != 2 {
		t.Fatalf("gate %+v, raised %v", g, a.raised)
	}
	h.settled(a)
	// The other way round: another node has the shard, and a is about to learn it.
	row, _ := h.store.Shard(t.Context(), 4)
	other := persistence.Shard{ID: 4, Epoch: 5, Owner: persistence.Incarnation{9}}
	if ok, _, err := h.store.CompareAndSetShard(t.Context(), row, other); !ok || err != nil {
		t.Fatal(ok, err)
	}
	a.step(ownership.Input{Kind: ownership.InputStale, Shard: 4, Epoch: 5})
	h.run(100 * time.Millisecond)
	if now, _ := h.store.Shard(t.Context(), 4); now != other || a.gates[4].Kind != ownership.GateShut {
		t.Fatalf("row %+v, gate %+v", now, a.gates[4])
	}
}

// TestRowsGoBack: ownership is restored from a backup, or deleted, while nodes run. Who hands over finds the rows
// as they are, after a pause, and nobody claims an epoch again that was held.
func TestRowsGoBack(t *testing.T) {
	for name, backup := range map[string]func(persistence.Shard) []persistence.Shard{
		"deleted": func(persistence.Shard) []persistence.Shard { return nil },
		"own":     func(row persistence.Shard) []persistence.Shard { row.Epoch = 1; return []persistence.Shard{row} },
		"released": func(row persistence.Shard) []persistence.Shard {
			return []persistence.Shard{{ID: row.ID, Epoch: 3}}
		},
		"other's": func(row persistence.Shard) []persistence.Shard {
			return []persistence.Shard{{ID: row.ID, Epoch: 3, Owner: persistence.Incarnation{99}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			a := h.start("a", nil)
			h.see(a)
			h.run(time.Second)
			for id := range uint32(24) {
				a.step(ownership.Input{Kind: ownership.InputStale, Shard: id, Epoch: 9})
			}
			h.run(time.Second)
			b := h.start("b", nil)
			h.run(time.Second) // b knows the rows, and is no member
			var rows []persistence.Shard
			for _, row := range h.rows() {
				if row != (persistence.Shard{ID: row.ID, Epoch: 10, Owner: a.incarnation}) {
					t.Fatalf("row %+v", row)
				}
				rows = append(rows, backup(row)...)
			}
			h.restore(rows...)
			before := a.ops[ownership.OpSwapShard]
			a.step(ownership.Input{Kind: ownership.InputDrain})
			h.see(b)
			h.run(time.Minute)
			if !errors.Is(a.ended, ownership.ErrRetired) {
				t.Errorf("the drain did not end: %v", a.ended)
			}
			h.settled(b)
			for _, row := range h.rows() {
				if row.Epoch <= 10 {
					t.Errorf("row %+v: an epoch was used again", row)
				}
			}
			if n := a.ops[ownership.OpSwapShard] - before; n > 24*4 {
				t.Errorf("a made %d compare-and-sets to hand over 24 shards", n)
			}
			if n := b.ops[ownership.OpSwapShard]; n > 24*4 {
				t.Errorf("b made %d compare-and-sets to take 24 shards", n)
			}
		})
	}
}

// TestStoreRejects: a store that refuses is asked again after a pause, for releases as for claims.
func TestStoreRejects(t *testing.T) {
	for name, of := range map[string]func(ownership.Op) bool{
		"claims":   func(op ownership.Op) bool { return !op.NextShard.Owner.IsZero() },
		"releases": func(op ownership.Op) bool { return op.NextShard.Owner.IsZero() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			a := h.start("a", nil)
			h.see(a)
			h.run(time.Second)
			b := h.start("b", nil)
			refused := 0
			h.reject = func(op ownership.Op) bool {
				no := op.Kind == ownership.OpSwapShard && of(op)
				if no {
					refused++
				}
				return no
			}
			h.see(a, b)
			h.run(2 * time.Second)
			// A pause is a 50th of the TTL: 40 in 2 s, for each of at most 24 shards.
			if refused < 16 || refused > 24*41 {
				t.Errorf("%d were refused in 2 s", refused)
			}
			h.reject = func(ownership.Op) bool { return false }
			h.run(2 * time.Second)
			h.settled(a, b)
		})
	}
}

func TestDrain(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	h.see(a, b)
	h.run(4 * time.Second)
	b.step(ownership.Input{Kind: ownership.InputDrain})
	h.run(time.Second)
	if !errors.Is(b.ended, ownership.ErrRetired) {
		t.Fatalf("ended: %v, holds %v", b.ended, b.open())
	}
	h.settled(a)
	if l, err := h.store.Lease(t.Context(), b.incarnation); err != nil || !l.Dead {
		t.Fatalf("lease %+v, %v", l, err)
	}
	// The last one has nobody to hand over to, and leaves nothing to wait for.
	a.step(ownership.Input{Kind: ownership.InputDrain})
	h.run(time.Second)
	if !errors.Is(a.ended, ownership.ErrRetired) {
		t.Fatalf("ended: %v, holds %v", a.ended, a.open())
	}
	c := h.start("c", nil)
	h.see(c)
	h.run(200 * time.Millisecond)
	h.settled(c)
}

// TestRetiringHoldsNothing: a claim that was given up and took effect after all is not held by a machine that
// is ending its lease; a member that reads the dead lease may take the shard at once.
func TestRetiringHoldsNothing(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", nil)
	h.run(100 * time.Millisecond)
	h.lose = func(_ *node, op ownership.Op) (bool, bool) {
		return op.Kind == ownership.OpSwapLease && op.Lease.Next.Dead, false
	}
	a.step(ownership.Input{Kind: ownership.InputDrain})
	late := persistence.Shard{ID: 3, Epoch: 9, Owner: a.incarnation}
	a.step(ownership.Input{
		Kind: ownership.InputDone, Op: ownership.Op{Kind: ownership.OpReadShards}, Rows: []persistence.Shard{late},
	})
	if a.ended != nil || len(a.open()) > 0 || len(a.closed) > 0 {
		t.Fatalf("ended %v, holds %v, held %v", a.ended, a.open(), a.closed)
	}
	h.lose = func(*node, ownership.Op) (bool, bool) { return false, false }
	h.run(time.Second)
	if !errors.Is(a.ended, ownership.ErrRetired) {
		t.Fatalf("ended: %v", a.ended)
	}
}

// TestDrainInTime: a node that holds more than MovesPerSecond could hand over in the time there is hurries.
func TestDrainInTime(t *testing.T) {
	h := newHarness(t)
	change := func(c *ownership.Config) {
		c.Shards, c.MovesPerSecond, c.MaxMoves, c.DrainWithin = 400, 20, 1, 5*time.Second
	}
	a := h.start("a", change)
	h.see(a)
	h.run(2 * time.Second)
	b := h.start("b", change)
	a.step(ownership.Input{Kind: ownership.InputDrain})
	h.see(a, b)
	h.run(time.Second)
	if n := len(a.closed); n < 60 || n > 110 {
		t.Errorf("%d shards of 400 were handed over in a fifth of the time", n)
	}
	h.run(5 * time.Second)
	if !errors.Is(a.ended, ownership.ErrRetired) {
		t.Fatalf("%d shards of 400 were handed over in time: %v", len(a.closed), a.ended)
	}
	h.settled(b)
}

func TestDrainBeforeAnything(t *testing.T) {
	h := newHarness(t)
	h.lose = func(*node, ownership.Op) (bool, bool) { return true, false }
	a := h.start("a", nil)
	a.step(ownership.Input{Kind: ownership.InputDrain})
	h.run(time.Second)
	h.lose = func(*node, ownership.Op) (bool, bool) { return false, false }
	h.run(time.Second)
	if !errors.Is(a.ended, ownership.ErrRetired) {
		t.Fatalf("ended: %v", a.ended)
	}
}

// TestIneligibleNodeTakesNothing is for a node whose clock is wrong.
func TestIneligibleNodeTakesNothing(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	members := []ownership.Member{
		{Name: "a", Incarnation: a.incarnation, Eligible: true},
		{Name: "b", Incarnation: b.incarnation},
	}
	for _, n := range h.nodes {
		n.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	}
	h.run(20 * time.Second)
	h.settled(a)
}

// TestCapacity: a member with more capacity gets more shards.
func TestCapacity(t *testing.T) {
	for _, large := range []string{"a", "b"} {
		h := newHarness(t)
		a, b := h.start("a", nil), h.start("b", nil)
		var members []ownership.Member
		for _, n := range h.nodes {
			m := ownership.Member{Name: n.name, Incarnation: n.incarnation, Capacity: 1, Eligible: true}
			if n.name == large {
				m.Capacity = 1e6
			}
			members = append(members, m)
		}
		for _, n := range h.nodes {
			n.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
		}
		h.run(4 * time.Second)
		h.settled(a, b)
		for _, n := range h.nodes {
			if n.name != large && len(n.open()) > 0 {
				t.Errorf("%s has %v, though %s has a million times its capacity", n.name, n.open(), large)
			}
		}
	}
}

// TestGossipIsCheap: what changes nothing for the machine costs nothing that grows with shards or members, and a
// step does not allocate. The loop that takes these steps renews the lease.
func TestGossipIsCheap(t *testing.T) {
	h := newHarness(t)
	a := h.start("a", func(c *ownership.Config) { c.MaxMoves = 1 })
	a.busy = true
	h.see(a)
	h.run(time.Second)
	members := []ownership.Member{{Name: "a", Incarnation: a.incarnation, Eligible: true}}
	for k := range 200 {
		members = append(members, ownership.Member{
			Name: "m" + strconv.Itoa(k), Incarnation: persistence.Incarnation{9, byte(k)}, Eligible: true,
		})
	}
	a.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	h.run(10 * time.Millisecond) // one shard is closing, which does not end, and others wait for their turn
	if len(a.closed) != 1 {
		t.Fatalf("%d shards were closed", len(a.closed))
	}
	again := ownership.Input{Kind: ownership.InputMembers, Now: h.now, Members: members}
	if n := testing.AllocsPerRun(100, func() { a.machine.Step(again) }); n > 2 {
		t.Errorf("to be told the same 201 members takes %v allocations", n)
	}
	tick := ownership.Input{Now: h.now}
	if n := testing.AllocsPerRun(100, func() { a.machine.Step(tick) }); n > 0 {
		t.Errorf("a tick takes %v allocations", n)
	}
}

// TestFewWatch counts the nodes that look at one lease in a large cluster, and that a failure is still noticed.
func TestFewWatch(t *testing.T) {
	h := newHarness(t)
	var nodes []*node
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		nodes = append(nodes, h.start(name, nil))
	}
	h.see(nodes...)
	h.run(5 * time.Second)
	h.settled(nodes...)
	before := 0
	for _, n := range nodes {
		before += n.ops[ownership.OpPeekLease]
	}
	h.run(10 * time.Second)
	reads := -before
	for _, n := range nodes {
		reads += n.ops[ownership.OpPeekLease]
	}
	// 8 leases × 3 watchers × 1.8 a second × 10 s
	if want := 8 * 3 * 18; reads > want*11/10 || reads < want/2 {
		t.Errorf("%d reads of leases in 10 s, want about %d", reads, want)
	}
	nodes[3].stopped = true
	h.run(4 * time.Second)
	alive := append(nodes[:3:3], nodes[4:]...)
	h.see(alive...)
	h.run(time.Second)
	h.settled(alive...)
}

// TestCalmClusterPeeks: while nothing is amiss, all rows are read by plain reads alone. Once a member leaves, the next
// read is linearizable.
func TestCalmClusterPeeks(t *testing.T) {
	h := newHarness(t)
	a, b := h.start("a", nil), h.start("b", nil)
	h.see(a, b)
	h.run(5 * time.Second)
	h.settled(a, b)
	reads, peeks := a.ops[ownership.OpReadShards], a.ops[ownership.OpPeekShards]
	h.run(60 * time.Second)
	if n := a.ops[ownership.OpReadShards] - reads; n > 0 {
		t.Errorf("%d linearizable reads of all shards in a calm minute", n)
	}
	if n := a.ops[ownership.OpPeekShards] - peeks; n < 5 || n > 7 {
		t.Errorf("%d plain reads of all shards in a calm minute, want about 6", n)
	}
	reads, peeks = a.ops[ownership.OpReadShards], a.ops[ownership.OpPeekShards]
	b.stopped = true
	h.see(a)
	h.run(100 * time.Millisecond)
	if a.ops[ownership.OpReadShards] == reads || a.ops[ownership.OpPeekShards] != peeks {
		t.Errorf("after a member left: %d linearizable reads of all shards and %d plain ones",
			a.ops[ownership.OpReadShards]-reads, a.ops[ownership.OpPeekShards]-peeks)
	}
}

func TestConfigValidates(t *testing.T) {
	c := ownership.DefaultConfig()
	if c.Validate() == nil {
		t.Error("a configuration without a node is accepted")
	}
	c.Incarnation, c.Node, c.Shards = persistence.Incarnation{1}, "a", 1
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.MaxMoves = 0
	if _, err := ownership.New(c); err == nil {
		t.Error("no moves at all are accepted")
	}
}

// TestShardIsNotHandedBack: a node that leaves gives its shards away before gossip says that it does. Who
// gets one and still thinks it the other's keeps it for a while.
func TestShardIsNotHandedBack(t *testing.T) {
	h := newHarness(t)
	settle := func(c *ownership.Config) { c.Settle = time.Second }
	a, b := h.start("a", settle), h.start("b", settle)
	h.see(a, b)
	h.run(4 * time.Second)
	a.step(ownership.Input{Kind: ownership.InputDrain})
	h.run(800 * time.Millisecond)
	if len(b.closed) > 0 {
		t.Fatalf("b handed back %d shards within 800 ms", len(b.closed))
	}
	h.see(b)
	h.run(time.Second)
	h.settled(b)
	if len(b.closed) > 0 {
		t.Errorf("b handed back %d shards", len(b.closed))
	}
}
