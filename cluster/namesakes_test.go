package cluster_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"licensed/cluster"
	"licensed/persistence"
	"licensed/persistence/faulty"
)

// TestNameTakenMeanwhile: a node loses its lease, and an orchestrator starts the node elsewhere. The first process
// gives way when it can reach the store again, says where the other one is, and takes nothing.
func TestNameTakenMeanwhile(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	ns.until("a has all", settled(a))
	ns.leave(a)
	a.loseLease(ns)
	second := ns.start("a", calm, func(c *cluster.NodeConfig) { c.Address = "second:7800" })
	ns.pass(second, "the second process has all", settled(second))
	var reads atomic.Int64
	a.store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Leases {
			reads.Add(1)
		}
		return faulty.Fault{}
	})
	ns.until("the first process has read the lease of the second", func() bool { return reads.Load() > 1 })
	// Time passes at both, and the second process renews its lease between two reads of the first.
	for a.count(cluster.Ended) < 2 {
		renewals := ns.counter(second)
		ns.pass(second, "the second process renews its lease", func() bool { return ns.counter(second) > renewals })
		if a.Status().Lease > 40*time.Second { // it renews with 44 s left
			a.clock.jump(10 * time.Second)
		}
		before := reads.Load()
		ns.until("the first process has read leases again, or stops", func() bool {
			return reads.Load() > before+1 || a.count(cluster.Ended) == 2
		})
	}
	if cause := a.ended(); !errors.Is(cause, cluster.ErrNameTaken) || !strings.Contains(cause.Error(), "second:7800") {
		t.Errorf("the first process stopped for %v, want an error that names the address of the second", cause)
	}
	if l, err := ns.store.Lease(t.Context(), a.Status().Incarnation); err != nil || !l.Dead {
		t.Errorf("the lease of the first process: %+v, %v, want a dead one", l, err)
	}
	for name, err := range map[string]error{"drain": a.Drain(t.Context()), "undrain": a.Undrain(t.Context())} {
		if err != nil {
			t.Errorf("%s of a node that gave way: %v", name, err)
		}
	}
	if a.count(cluster.Began) != 1 || a.hosts != 2 || !settled(second)() || second.count(cluster.Ended) != 0 {
		t.Errorf("first: %+v; second: %+v", a.happens, second.happens)
	}
}

// TestNamesakesAtTheStart: a process that starts finds another live one of its name by two renewals of its lease,
// however slow one of the reads is. One renewal may be the last of a process that crashed, which was late. Of two that
// start at the same time, the one of the greater incarnation gives way first, and the other one if that one does not.
func TestNamesakesAtTheStart(t *testing.T) {
	const ttl = time.Minute
	older := persistence.Lease{
		Incarnation: persistence.Incarnation{0: 255, 15: 1}, Node: "a", Address: "other:7800", Counter: 1,
	}
	smaller := older
	smaller.Incarnation[0] = 0
	for name, test := range map[string]struct {
		other   persistence.Lease
		created int // before which read
		renewed int // how often, a read each
		dead    bool
		slow    []int // reads that take a TTL
		taken   bool
	}{
		"renewed":                           {older, 0, 2, false, nil, true},
		"renewed, first read slow":          {older, 0, 2, false, []int{0}, true},
		"renewed, second read slow":         {older, 0, 2, false, []int{1}, true},
		"renewed, third read slow":          {older, 0, 2, false, []int{2}, true},
		"renewed, fourth read slow":         {older, 0, 2, false, []int{3}, true},
		"silent":                            {older, 0, 0, false, []int{2}, false},
		"one renewal was late":              {older, 0, 1, false, []int{3}, false},
		"at the same time, smaller":         {smaller, 1, 9, false, []int{3, 5}, true},
		"at the same time, smaller, silent": {smaller, 1, 1, false, []int{4}, false},
		"at the same time, gives way":       {smaller, 1, 2, true, nil, false},
		"at the same time, greater":         {older, 1, 9, true, []int{3, 5}, false},
		"at the same time, greater, silent": {older, 1, 9, false, []int{3, 12}, false},
		"at the same time, greater, stays":  {older, 1, 9, false, []int{3, 5, 7}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNodes(t)
			now, reads, slow := persistence.Lease{}, 0, atomic.Bool{}
			become := func(next persistence.Lease) {
				ns.swap(now, next)
				now = next
			}
			a := ns.start("a", calm, func(c *cluster.NodeConfig) {
				c.Ownership.(*faulty.Store).SetScript(func(call faulty.Call) faulty.Fault {
					switch {
					case call.Op == faulty.CompareAndSetLease && slow.Load():
						return faulty.Fault{Kind: faulty.LoseRequest} // No other incarnation follows that reads, too.
					case call.Op != faulty.Leases:
						return faulty.Fault{}
					}
					next := now
					switch after := reads - max(test.created, 1); {
					case reads == test.created:
						become(test.other)
					case after > 0 && after <= test.renewed:
						next.Counter++
						become(next)
					case after == test.renewed+1 && test.dead:
						next.Dead = true
						become(next)
					}
					if slices.Contains(test.slow, reads) {
						slow.Store(reads > 0)
						c.Clock.(*clock).jump(ttl)
					}
					reads++
					return faulty.Fault{}
				})
			})
			err := a.AwaitName(t.Context())
			if errors.Is(err, cluster.ErrNameTaken) != test.taken || (err != nil) != test.taken {
				t.Errorf("%v, want taken: %t", err, test.taken)
			}
			if err != nil && !strings.Contains(err.Error(), test.other.Address) {
				t.Errorf("%v, want the address of the other process", err)
			}
		})
	}
}

// TestNamesakesThatGiveWay: a node that lost its lease takes part again once all others of its name are dead or silent.
func TestNamesakesThatGiveWay(t *testing.T) {
	for name, id := range map[string]persistence.Incarnation{"smaller": {0: 0}, "greater": {0: 255}} {
		id[15] = 1
		other := persistence.Lease{Incarnation: id, Node: "a", Address: "other:7800", Counter: 1}
		for _, renewed := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", dead soon", false: ", silent"}[renewed], func(t *testing.T) {
				ns := newNodes(t)
				a := ns.start("a", calm)
				ns.until("a has all", settled(a))
				a.loseLease(ns)
				ns.swap(persistence.Lease{}, other)
				a.store.SetScript(nil)
				ns.until("a has a lease again", func() bool { return a.Status().Lease > 0 })
				ns.see()
				if a.count(cluster.Began) != 1 || !a.Incarnation().IsZero() {
					t.Errorf("a takes part though another process may have its name: %+v", a.happens)
				}
				if !renewed {
					ns.pass(a, "a has all again", settled(a))
				} else { // A process that starts sees the lease of a, and ends, before its time to give way has passed.
					next := other
					next.Counter++
					ns.swap(other, next)
					dead := next
					dead.Dead = true
					ns.swap(next, dead)
					ns.until("a has all again", settled(a))
				}
				if a.count(cluster.Began) != 2 || a.count(cluster.Ended) != 1 {
					t.Errorf("%+v", a.happens)
				}
			})
		}
	}
}

// loseLease keeps a node from the store until its lease has run out and is marked dead, as others do.
func (n *testNode) loseLease(ns *nodes) {
	id := n.Incarnation()
	n.store.SetScript(func(faulty.Call) faulty.Fault { return faulty.Fault{Kind: faulty.LoseRequest} })
	n.clock.jump(2 * time.Minute)
	ns.until("the lease has run out", func() bool { return n.count(cluster.Lapsed) == 1 })
	ns.mark(id)
}

// mark marks the lease of an incarnation dead, as another node does that sees no renewal.
func (ns *nodes) mark(id persistence.Incarnation) {
	ns.until("the lease is marked dead", func() bool {
		l, err := ns.store.Lease(ns.t.Context(), id)
		if err != nil {
			ns.t.Fatal(err)
		}
		dead := l
		dead.Dead = true
		applied, _, err := ns.store.CompareAndSetLease(ns.t.Context(), l, dead)
		return applied && err == nil
	})
}

// ended returns why the last incarnation that has ended did.
func (n *testNode) ended() (cause error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.happens {
		if h.Kind == cluster.Ended {
			cause = h.Cause
		}
	}
	return cause
}

// counter returns the counter of a node's lease.
func (ns *nodes) counter(n *testNode) uint64 {
	l, err := ns.store.Lease(ns.t.Context(), n.Incarnation())
	if err != nil {
		ns.t.Fatal(err)
	}
	return l.Counter
}

// swap changes a lease.
func (ns *nodes) swap(old, next persistence.Lease) {
	ns.t.Helper()
	if applied, now, err := ns.store.CompareAndSetLease(ns.t.Context(), old, next); err != nil || !applied {
		ns.t.Fatal(applied, now, err)
	}
}
