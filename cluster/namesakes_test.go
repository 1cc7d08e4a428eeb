package cluster_test

import (
	"errors"
	"strings"
	"sync"
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
	renewals := ns.counter(second)
	ns.pass(second, "the second process renews its lease", func() bool { return ns.counter(second) > renewals })
	ns.pass(a, "the first process stops", func() bool { return a.count(cluster.Ended) == 2 })
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

// TestSlowReadsOfLeases: however slow the reads of a process that starts are, it finds that another one has its name:
// that one has a TTL to renew its lease between two reads.
func TestSlowReadsOfLeases(t *testing.T) {
	for name, slow := range map[string]faulty.Op{
		"of the names at first": faulty.Leases, "of the other lease": faulty.Lease,
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNodes(t)
			other := persistence.Lease{
				Incarnation: persistence.NewIncarnation(), Node: "a", Address: "other:7800", Counter: 1,
			}
			ns.swap(persistence.Lease{}, other)
			next := other
			next.Counter++
			var once sync.Once
			var reads atomic.Int64
			a := ns.start("a", calm, func(c *cluster.NodeConfig) {
				c.Ownership.(*faulty.Store).SetScript(func(call faulty.Call) faulty.Fault {
					if call.Op == slow {
						once.Do(func() { c.Clock.(*clock).jump(time.Minute) }) // a TTL
					}
					if call.Op == faulty.Lease && reads.Add(1) == 2 {
						ns.swap(other, next) // between the first and the second read
					}
					return faulty.Fault{}
				})
			})
			err := a.AwaitName(t.Context())
			if !errors.Is(err, cluster.ErrNameTaken) || !strings.Contains(err.Error(), other.Address) {
				t.Errorf("%v, want an error that names the address of the other process", err)
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

// loseLease keeps a node from the store until its incarnation has ended.
func (n *testNode) loseLease(ns *nodes) {
	n.store.SetScript(func(faulty.Call) faulty.Fault { return faulty.Fault{Kind: faulty.LoseRequest} })
	n.clock.jump(2 * time.Minute)
	ns.until("the incarnation has ended", func() bool { return n.count(cluster.Ended) == 1 })
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
