package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/cluster"
	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/cluster/placement"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

const shards = 16

// clock is the machine's, ahead by some time; or it stands still.
type clock struct {
	lease.Clock
	ahead  atomic.Int64
	frozen atomic.Int64 // the reading, 0 while it continues
}

func newClock(t testing.TB) *clock {
	c, err := lease.SystemClock()
	if err != nil {
		t.Fatal(err)
	}
	return &clock{Clock: c}
}

func (c *clock) Now() lease.Instant {
	if f := c.frozen.Load(); f != 0 {
		return lease.Instant(f)
	}
	return c.Clock.Now() + lease.Instant(c.ahead.Load())
}

func (c *clock) jump(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) freeze()              { c.frozen.Store(int64(c.Now())) }

// nodes are the nodes of one cluster, in one process, on one store.
type nodes struct {
	t     testing.TB
	store *memory.Store

	mu  sync.Mutex
	all []*testNode
}

// testNode is a node with what is around it.
type testNode struct {
	*cluster.Node
	name  string
	store *faulty.Store
	clock *clock

	mu      sync.Mutex
	happens []cluster.Happening
	hosts   int
	gone    bool // cut off from the others, or dead; under the lock of nodes
	drains  bool // and reports it
}

func newNodes(t testing.TB) *nodes { return &nodes{t: t, store: memory.New()} }

// calm has leases that last, for tests about other things.
func calm(c *cluster.NodeConfig) {
	c.Protocol.Timing = lease.Timing{TTL: time.Minute, Allowance: time.Second}
}

// start adds a node.
func (ns *nodes) start(name string, change ...func(*cluster.NodeConfig)) *testNode {
	ns.t.Helper()
	info, err := cluster.Open(ns.t.Context(), ns.store, "test", shards)
	if err != nil {
		ns.t.Fatal(err)
	}
	n := &testNode{name: name, store: faulty.New(ns.store.Reopen(), nil), clock: newClock(ns.t)}
	c := cluster.NodeConfig{
		Ownership: n.store, Cluster: info, Name: name, Kind: actorstest.Ledger{}.Name(),
		Protocol: ownership.DefaultConfig(), Clock: n.clock,
		NewHost: n.newHost, Listener: cluster.Listener{
			Changed: func(news cluster.News) { ns.spread(n, news) }, Happened: n.happened,
		}, Log: slog.New(slog.DiscardHandler),
	}
	c.Protocol.Settle = 0
	for _, f := range change {
		f(&c)
	}
	if n.Node, err = cluster.StartNode(ns.t.Context(), c); err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() { n.kill(ns.t) })
	ns.mu.Lock()
	ns.all = append(ns.all, n)
	ns.mu.Unlock()
	return n
}

func (n *testNode) newHost(a actors.Authority) (cluster.Host, error) {
	n.mu.Lock()
	n.hosts++
	n.mu.Unlock()
	rt, err := actors.New(actors.Options{
		Kind: actorstest.Ledger{}, Journal: n.store, Authority: a, Config: actors.DefaultConfig(),
		System: quiet,
	})
	return testHost{rt}, err
}

// testHost answers operators with what they ask.
type testHost struct{ *actors.Runtime }

func (testHost) Operate(_ context.Context, _ string, request any) (actors.Answer, error) {
	return actors.Answer{Value: request}, nil
}

// quiet is the actor system of all hosts.
var quiet = actors.NewActorSystem(slog.New(slog.DiscardHandler))

func (n *testNode) happened(h cluster.Happening) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.happens = append(n.happens, h)
}

// count returns how often something happened.
func (n *testNode) count(kind cluster.HappeningKind) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := 0
	for _, h := range n.happens {
		if h.Kind == kind {
			c++
		}
	}
	return c
}

// kill ends the node as a crash does.
func (n *testNode) kill(t testing.TB) {
	t.Helper()
	n.store.SetScript(nil)
	n.store.ReleaseAll()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

// spread is gossip: quick, and nobody waits for it.
func (ns *nodes) spread(from *testNode, news cluster.News) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for _, n := range ns.all {
		if n != from && !n.gone {
			n.Hear(news)
		}
	}
}

// see tells all nodes who is present: those started, but for the ones that are gone.
func (ns *nodes) see() {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	var members []ownership.Member
	for _, n := range ns.all {
		if i := n.Incarnation(); !n.gone && !i.IsZero() {
			members = append(members,
				ownership.Member{Name: n.name, Incarnation: i, Eligible: !n.ClockWrong() && !n.drains})
		}
	}
	for _, n := range ns.all {
		if !n.gone {
			n.SetMembers(members)
		}
	}
}

// until waits for a condition, with gossip continuing.
func (ns *nodes) until(what string, ok func() bool) {
	ns.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for k := 0; !ok(); k++ {
		if time.Now().After(deadline) {
			for _, n := range ns.all {
				ns.t.Logf("%s: %+v", n.name, n.Status())
			}
			ns.t.Fatalf("waited in vain: %s", what)
		}
		if k%20 == 0 {
			ns.see()
		}
		time.Sleep(time.Millisecond)
	}
}

// pass waits for a condition while time passes at a node, no faster than it renews its lease.
func (ns *nodes) pass(n *testNode, what string, ok func() bool) {
	ns.t.Helper()
	ns.until(what, func() bool {
		if ok() {
			return true
		}
		if n.Status().Lease > 40*time.Second { // it renews with 44 s left
			n.clock.jump(10 * time.Second)
		}
		return false
	})
}

// leave takes a node from what the others see and hear.
func (ns *nodes) leave(n *testNode) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	n.gone = true
}

// agreed reports whether each of the nodes has heard who holds each shard.
func agreed(ns ...*testNode) func() bool {
	return func() bool {
		for id := range uint32(shards) {
			for _, n := range ns {
				row := n.Row(id)
				if !slices.ContainsFunc(ns, func(o *testNode) bool {
					epoch, held := o.Epoch(id)
					return held && epoch == row.Epoch && o.Incarnation() == row.Owner
				}) {
					return false
				}
			}
		}
		return true
	}
}

// settled reports whether each shard is held by the one of the nodes that should have it, so that none of
// them has anything more to move.
func settled(ns ...*testNode) func() bool {
	var all []placement.Node
	for _, n := range ns {
		all = append(all, placement.Node{Name: n.name})
	}
	should := placement.New(all)
	return func() bool {
		for _, n := range ns {
			if s := n.Status(); s.Moving > 0 || s.Expected > 0 {
				return false
			}
			for id := range uint32(shards) {
				owner, _ := should.Owner(id)
				if _, held := n.Epoch(id); held != (owner == n.name) {
					return false
				}
			}
		}
		return true
	}
}

// add executes a command at a node.
func (n *testNode) add(ctx context.Context, ledger, id string) error {
	_, err := n.Execute(ctx, ledger, actors.Command{
		ID: id, Fingerprint: 1, IssuedAt: time.Now(), Payload: actorstest.Add{Amount: 1},
	})
	return err
}

// total asks a node.
func (n *testNode) total(ctx context.Context, ledger string) (uint64, error) {
	a, err := n.Query(ctx, ledger, actorstest.Total{})
	if err != nil {
		return 0, err
	}
	return a.Value.(uint64), nil
}

// ledgerOf returns the id of an aggregate in a shard.
func ledgerOf(n *testNode, shard uint32) string {
	for k := 0; ; k++ {
		if id := fmt.Sprint("ledger-", k); n.Shard(id+":"+actorstest.Ledger{}.Name()) == shard {
			return id
		}
	}
}

// router sends requests where the shard is said to be, as a gateway does.
type router struct {
	ns *nodes
	// wrong are answers other than success and "not the owner", and redirects those.
	mu        sync.Mutex
	wrong     []error
	redirects atomic.Int64
}

// add executes a command somewhere until it is done.
func (r *router) add(ctx context.Context, ledger, id string) {
	var to *testNode
	for ctx.Err() == nil {
		if to == nil {
			to = r.any()
		}
		err := to.add(ctx, ledger, id)
		var not *cluster.NotOwnerError
		switch {
		case err == nil:
			return
		case errors.As(err, &not):
			r.redirects.Add(1)
			next := r.of(not.Row)
			if next == nil || next == to {
				time.Sleep(time.Millisecond)
			}
			to = next
		default:
			r.mu.Lock()
			r.wrong = append(r.wrong, err)
			r.mu.Unlock()
			to = nil
		}
	}
}

func (r *router) any() *testNode {
	r.ns.mu.Lock()
	defer r.ns.mu.Unlock()
	for {
		if n := r.ns.all[rand.N(len(r.ns.all))]; !n.gone {
			return n
		}
	}
}

func (r *router) of(row persistence.Shard) *testNode {
	r.ns.mu.Lock()
	defer r.ns.mu.Unlock()
	k := slices.IndexFunc(r.ns.all, func(n *testNode) bool {
		i := n.Incarnation()
		return !i.IsZero() && (i == row.Owner || i == row.Successor)
	})
	if k < 0 {
		return nil
	}
	return r.ns.all[k]
}
