package ownership_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// harness drives machines against one store in virtual time. Everything takes a millisecond.
type harness struct {
	shards int // of the cluster
	t      *testing.T
	store  *memory.Store
	now    lease.Instant
	todo   []task
	nodes  []*node
	// lose decides what becomes of an operation: not done, or done and its reply lost.
	lose func(n *node, op ownership.Op) (request, reply bool)
	// reject decides which operations the store refuses.
	reject func(op ownership.Op) bool
}

type task struct {
	at lease.Instant
	do func()
}

// node is one incarnation.
type node struct {
	h           *harness
	name        string
	incarnation persistence.Incarnation
	machine     *ownership.Participant
	gates       map[uint32]ownership.Gate
	closed      []uint32 // shards that were closed, in order
	changed     []persistence.Shard
	raised      []uint32
	stopped     bool          // crashed or paused
	busy        bool          // requests never end
	wakeAt      lease.Instant // when a tick is planned
	valid       bool          // the lease, at the last step
	ended       error
	reach       ownership.Reach
	ops         map[ownership.OpKind]int
}

const ms = lease.Instant(time.Millisecond)

func newHarness(t *testing.T) *harness {
	return &harness{t: t, store: memory.New(), now: 1000 * ms,
		lose:   func(*node, ownership.Op) (bool, bool) { return false, false },
		reject: func(ownership.Op) bool { return false }}
}

func (h *harness) start(name string, change func(*ownership.Config)) *node {
	h.t.Helper()
	c := ownership.DefaultConfig()
	c.Node, c.Shards, c.Settle = name, 24, 0
	c.Incarnation = persistence.Incarnation{byte(len(h.nodes) + 1)}
	if change != nil {
		change(&c)
	}
	m, err := ownership.New(c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.shards = int(c.Shards)
	n := &node{h: h, name: name, incarnation: c.Incarnation, machine: m,
		wakeAt: lease.Never, gates: map[uint32]ownership.Gate{}, ops: map[ownership.OpKind]int{}}
	h.nodes = append(h.nodes, n)
	n.step(ownership.Input{})
	return n
}

func (h *harness) after(d lease.Instant, f func()) {
	h.todo = append(h.todo, task{h.now + d, f})
}

// run lets time pass.
func (h *harness) run(d time.Duration) {
	end := h.now.Add(d)
	for {
		next := -1
		for i, t := range h.todo {
			if t.at <= end && (next < 0 || t.at < h.todo[next].at) {
				next = i
			}
		}
		if next < 0 {
			h.now = end
			return
		}
		t := h.todo[next]
		h.todo = slices.Delete(h.todo, next, next+1)
		h.now = max(h.now, t.at)
		t.do()
	}
}

// see tells every node which nodes there are.
func (h *harness) see(nodes ...*node) {
	members := make([]ownership.Member, len(nodes))
	for i, n := range nodes {
		members[i] = n.member()
	}
	for _, n := range h.nodes {
		n.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
	}
}

// member returns the node as gossip shows it.
func (n *node) member() ownership.Member {
	return ownership.Member{
		Name: n.name, Incarnation: n.incarnation, Eligible: true, Unreachable: n.reach != ownership.Reached,
	}
}

func (n *node) step(in ownership.Input) {
	if n.stopped || n.ended != nil {
		return
	}
	in.Now = n.h.now
	out := n.machine.Step(in)
	for _, g := range out.Gates {
		n.gates[g.Shard] = g
		if g.Kind == ownership.GateClosing {
			n.closed = append(n.closed, g.Shard)
			if !n.busy {
				n.h.after(ms, func() { n.step(ownership.Input{Kind: ownership.InputQuiet, Shard: g.Shard}) })
			}
		}
	}
	n.valid = out.Until > n.h.now
	n.changed = append(n.changed, out.Changed...)
	n.raised = append(n.raised, out.Raised...)
	n.reach = out.Reach
	for _, row := range out.Changed { // the shell tells others
		for _, o := range n.h.nodes {
			if o != n {
				n.h.after(ms, func() { o.step(ownership.Input{Kind: ownership.InputRow, Row: row}) })
			}
		}
	}
	for _, op := range out.Ops {
		n.do(op)
	}
	if out.Ended {
		n.ended = out.Cause
		return
	}
	if at := out.Wake; at < n.wakeAt {
		n.wakeAt = at
		n.h.after(max(at-n.h.now, 0), func() {
			if n.wakeAt == at {
				n.wakeAt = lease.Never
				n.step(ownership.Input{})
			}
		})
	}
}

// do runs an operation on the store.
func (n *node) do(op ownership.Op) {
	n.ops[op.Kind]++
	request, reply := n.h.lose(n, op)
	in := ownership.Input{Kind: ownership.InputDone, Op: op, Err: persistence.ErrUnknownOutcome}
	lost := in
	if !request {
		n.h.after(ms, func() {
			ctx := context.Background()
			if h := n.h; h.reject(op) {
				in.Err = persistence.ErrRejected
				return
			}
			switch op.Kind {
			case ownership.OpSwapLease:
				in.Applied, in.Lease, in.Err = n.h.store.CompareAndSetLease(ctx, op.Lease.Old, op.Lease.Next)
			case ownership.OpReadLease:
				in.Lease, in.Err = n.h.store.Lease(ctx, op.Incarnation)
			case ownership.OpPeekLease:
				in.Lease, in.Err = n.h.store.PeekLease(ctx, op.Incarnation)
			case ownership.OpSwapShard:
				in.Applied, in.Row, in.Err = n.h.store.CompareAndSetShard(ctx, op.OldShard, op.NextShard)
			case ownership.OpReadShard:
				in.Row, in.Err = n.h.store.Shard(ctx, op.Shard)
			case ownership.OpReadShards:
				in.Rows, in.Err = n.h.store.Shards(ctx)
			case ownership.OpPeekShards:
				in.Rows, in.Err = n.h.store.PeekShards(ctx)
			case ownership.OpReadVotes:
				in.Votes, in.Err = n.h.store.Votes(ctx)
			}
			if errors.Is(in.Err, persistence.ErrNotFound) {
				in.Err = nil
			}
		})
	}
	switch {
	case request || reply:
		n.h.after(100*ms, func() { n.step(lost) })
	default:
		n.h.after(2*ms, func() { n.step(in) })
	}
}

// open returns the shards that the node serves.
func (n *node) open() []uint32 {
	var ids []uint32
	for id, g := range n.gates {
		if g.Kind == ownership.GateOpen {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// rows returns the rows of all shards by id.
func (h *harness) rows() []persistence.Shard {
	rows, err := h.store.Shards(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return rows
}

// restore makes the rows of the shards these, whatever they were.
func (h *harness) restore(rows ...persistence.Shard) {
	h.t.Helper()
	store, ctx := memory.New(), context.Background()
	for _, n := range h.nodes {
		if l, err := h.store.Lease(ctx, n.incarnation); err == nil {
			if ok, _, err := store.CompareAndSetLease(ctx, persistence.Lease{}, l); !ok || err != nil {
				h.t.Fatal(ok, err)
			}
		}
	}
	for _, row := range rows {
		if ok, _, err := store.CompareAndSetShard(ctx, persistence.Shard{}, row); !ok || err != nil {
			h.t.Fatal(ok, err)
		}
	}
	h.store = store
}

// settled fails the test unless every shard is open at exactly one of the nodes, the one its row names.
func (h *harness) settled(nodes ...*node) {
	h.t.Helper()
	total := 0
	for _, n := range nodes {
		total += len(n.open())
	}
	rows := h.rows()
	if total != h.shards || len(rows) != h.shards {
		h.t.Fatalf("%d shards are open, %d have rows, of %d", total, len(rows), h.shards)
	}
	for _, row := range rows {
		for _, n := range nodes {
			g := n.gates[row.ID]
			if open := g.Kind == ownership.GateOpen; open != (row.Owner == n.incarnation) ||
				open && g.Epoch != row.Epoch {
				h.t.Fatalf("shard %d is owned by %v at %d; %s has %+v", row.ID, row.Owner, row.Epoch, n.name, g)
			}
		}
	}
}
