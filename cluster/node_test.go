package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/cluster"
	"licensed/persistence"
	"licensed/persistence/faulty"
)

// TestNodesShareShards: every shard has one owner, who answers; the others point to it.
func TestNodesShareShards(t *testing.T) {
	ns := newNodes(t)
	a, b, c := ns.start("a", calm), ns.start("b", calm), ns.start("c", calm)
	ns.until("shards are spread", settled(a, b, c))
	ns.until("all know where", agreed(a, b, c))
	for shard := range uint32(shards) {
		ledger := ledgerOf(a, shard)
		owners := 0
		for _, n := range ns.all {
			err := n.add(t.Context(), ledger, "c1")
			answer, e := n.Operate(t.Context(), ledger, "evict")
			if errors.Is(e, actors.ErrNotOwner) != errors.Is(err, actors.ErrNotOwner) ||
				e == nil && answer.Value != "evict" {
				t.Errorf("an operator's request: %v, %v; a command: %v", answer.Value, e, err)
			}
			var not *cluster.NotOwnerError
			switch {
			case err == nil:
				owners++
			case !errors.As(err, &not) || !errors.Is(err, actors.ErrNotOwner):
				t.Fatal(err)
			default:
				if epoch, held := holder(ns, not.Row.Owner).Epoch(shard); !held || epoch != not.Row.Epoch {
					t.Errorf("%s says %v", n.name, err)
				}
			}
		}
		if owners != 1 {
			t.Errorf("shard %d has %d owners", shard, owners)
		}
	}
}

func holder(ns *nodes, i persistence.Incarnation) *testNode {
	return (&router{ns: ns}).of(persistence.Shard{Owner: i})
}

func TestOpenRefusesAnotherCluster(t *testing.T) {
	ns := newNodes(t)
	ns.start("a", calm)
	_, err := cluster.Open(t.Context(), ns.store, "other", shards)
	if !errors.Is(err, cluster.ErrOtherCluster) || !strings.Contains(err.Error(), `"test"`) {
		t.Error(err)
	}
}

// TestNodeWithoutAStoreDoesNotStart: StartNode returns an error if it cannot write a lease.
func TestNodeWithoutAStoreDoesNotStart(t *testing.T) {
	ns := newNodes(t)
	store := faulty.New(ns.store,
		faulty.On(faulty.Always(faulty.Fault{Kind: faulty.LoseRequest}), faulty.CompareAndSetLease))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	host := &testNode{store: store}
	_, err := cluster.StartNode(ctx, cluster.NodeConfig{
		Ownership: store, Cluster: persistence.ClusterInfo{Name: "test", Shards: shards}, Name: "a", Kind: "Ledger",
		NewHost: host.newHost,
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestTakeOver [R2]: the shards of a node that crashed go to the others, once it is marked dead.
func TestTakeOver(t *testing.T) {
	ns := newNodes(t)
	a, b := ns.start("a", calm), ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	dead := a.Incarnation()
	ledger := ""
	for shard := range uint32(shards) {
		if _, held := a.Epoch(shard); held {
			ledger = ledgerOf(a, shard)
			break
		}
	}
	if err := a.add(t.Context(), ledger, "c1"); err != nil {
		t.Fatal(err)
	}
	former, _ := a.Epoch(a.Shard(ledger + ":Ledger"))
	a.kill(t)
	ns.leave(a)
	ns.pass(b, "b has all", settled(b))
	if l, err := ns.store.Lease(t.Context(), dead); err != nil || !l.Dead {
		t.Errorf("lease of the dead: %+v, %v", l, err)
	}
	if epoch, _ := b.Epoch(b.Shard(ledger + ":Ledger")); epoch <= former {
		t.Errorf("epoch %d after %d", epoch, former)
	}
	if err := b.add(t.Context(), ledger, "c1"); err != nil {
		t.Error(err)
	}
	if total, err := b.total(t.Context(), ledger); err != nil || total != 1 {
		t.Errorf("total %d, %v: the command was lost or doubled", total, err)
	}
	if b.count(cluster.TakenOver) == 0 || b.count(cluster.Died) != 1 {
		t.Errorf("%+v", b.happens)
	}
}

// perLedger is the number of commands one aggregate gets, fewer than it remembers.
const perLedger = 200

// TestHandOverUnderLoad: nodes come and go while customers are active, and nobody hears of it but by
// being sent elsewhere.
func TestHandOverUnderLoad(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	ns.until("a has all", settled(a))
	r := &router{ns: ns}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acknowledged [32]atomic.Uint64
	ledger := func(client, command int) string { return fmt.Sprintf("ledger-%d-%d", client, command/perLedger) }
	var clients sync.WaitGroup
	for k := range acknowledged {
		clients.Go(func() {
			for id := 0; ctx.Err() == nil; id++ {
				r.add(context.WithoutCancel(ctx), ledger(k, id), fmt.Sprint("c", id))
				acknowledged[k].Add(1)
			}
		})
	}
	work := func() {
		t.Helper()
		var before [len(acknowledged)]uint64
		for k := range before {
			before[k] = acknowledged[k].Load()
		}
		for k := range before {
			ns.until("every customer is served", func() bool { return acknowledged[k].Load() > before[k] })
		}
	}
	work()
	b := ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	work()
	c := ns.start("c", calm)
	ns.until("shards are spread", settled(a, b, c))
	work()
	a.drains = true
	ns.see()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	ns.until("b and c have all", settled(b, c))
	work()
	stop()
	clients.Wait()
	ns.until("all know where", agreed(b, c))
	for _, err := range r.wrong {
		t.Error(err)
	}
	if a.count(cluster.Released) == 0 || a.count(cluster.Lost) > 0 {
		t.Errorf("%+v", a.happens)
	}
	for k := range acknowledged {
		for id := 0; id < int(acknowledged[k].Load()); id += perLedger {
			name := ledger(k, id)
			total, err := holder(ns, b.Row(b.Shard(name+":Ledger")).Owner).total(t.Context(), name)
			if want := min(perLedger, acknowledged[k].Load()-uint64(id)); err != nil || total != want {
				t.Errorf("%s: total %d, acknowledged %d, %v", name, total, want, err)
			}
		}
	}
}

// TestDrain: a drained node has given all away, is dead by its own hand, and says where the shards are.
func TestDrain(t *testing.T) {
	ns := newNodes(t)
	a, b := ns.start("a", calm), ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	incarnation := a.Incarnation()
	a.drains = true
	ns.see()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l, err := ns.store.Lease(t.Context(), incarnation); err != nil || !l.Dead {
		t.Errorf("%+v, %v", l, err)
	}
	ns.until("b has all", settled(b))
	var not *cluster.NotOwnerError
	if err := a.add(t.Context(), "x", "c1"); !errors.As(err, &not) {
		t.Error(err)
	} else if not.Row.Owner != b.Incarnation() && not.Row.Successor != b.Incarnation() {
		t.Error(err)
	}
	if !a.Incarnation().IsZero() || a.count(cluster.Ended) != 1 {
		t.Error("goes on after it was drained")
	}
}

// TestDrainWithoutALease: a store that does not answer lets the lease end before all is handed over, or keeps a
// former owner from getting another. There is nothing to hand over then.
func TestDrainWithoutALease(t *testing.T) {
	outage := func(faulty.Call) faulty.Fault { return faulty.Fault{Kind: faulty.LoseRequest} }
	t.Run("the lease runs out meanwhile", func(t *testing.T) {
		ns := newNodes(t)
		a := ns.start("a", calm)
		ns.until("a has all", settled(a))
		a.store.SetScript(outage)
		drained := make(chan error)
		go func() { drained <- a.Drain(t.Context()) }()
		ns.until("it drains", a.Draining)
		a.clock.jump(2 * time.Minute)
		if err := <-drained; !errors.Is(err, cluster.ErrLapsed) {
			t.Errorf("%v, want ErrLapsed", err)
		}
	})
	t.Run("it ran out before", func(t *testing.T) {
		ns := newNodes(t)
		a := ns.start("a", calm)
		ns.until("a has all", settled(a))
		a.store.SetScript(outage)
		a.clock.jump(2 * time.Minute)
		ns.until("the lease has run out", func() bool { return a.count(cluster.Lapsed) == 1 })
		if err := a.Drain(t.Context()); !errors.Is(err, cluster.ErrLapsed) {
			t.Errorf("%v, want ErrLapsed", err)
		}
	})
	t.Run("the time is over", func(t *testing.T) {
		ns := newNodes(t)
		a := ns.start("a", calm)
		ns.until("a has all", settled(a))
		a.store.SetScript(outage)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := a.Drain(ctx); errors.Is(err, cluster.ErrLapsed) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: it still has its lease, and all shards", err)
		}
	})
}

// TestUndrain: a drained node takes shards again as another incarnation, as often as it is asked to.
func TestUndrain(t *testing.T) {
	ns := newNodes(t)
	a, b := ns.start("a", calm), ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	if err := a.Undrain(t.Context()); err != nil || a.count(cluster.Ended) != 0 {
		t.Fatalf("undrain of a node that is not drained: %v", err)
	}
	for range 2 {
		incarnation := a.Incarnation()
		a.drains = true
		ns.see()
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		ns.until("b has all", settled(b))
		if s := a.Status(); !s.Draining || !s.Drained || len(s.Held) > 0 {
			t.Errorf("drained: %+v", s)
		}
		if err := a.Drain(t.Context()); err != nil {
			t.Errorf("drained again: %v", err)
		}
		a.drains = false
		if err := a.Undrain(t.Context()); err != nil {
			t.Fatal(err)
		}
		ns.until("shards are spread again", settled(a, b))
		if s := a.Status(); s.Draining || s.Drained || a.Incarnation() == incarnation {
			t.Errorf("undrained: %+v", s)
		}
		if err := a.add(t.Context(), ledgerOf(a, a.Status().Held[0].ID), "c1"); err != nil {
			t.Error(err)
		}
	}
}

// TestUndrainBeforeItIsDrained: a drain in progress is completed, and then undone.
func TestUndrainBeforeItIsDrained(t *testing.T) {
	ns := newNodes(t)
	a, b := ns.start("a", calm), ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	incarnation := a.Incarnation()
	drained := make(chan error, 1)
	go func() { drained <- a.Drain(t.Context()) }()
	ns.until("it drains", a.Draining)
	if err := a.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Errorf("the drain: %v", err)
	}
	ns.until("shards are spread again", settled(a, b))
	if a.Incarnation() == incarnation {
		t.Error("the drained incarnation holds shards")
	}
}

// TestPausedNodeSaysNothing [R9]: a process that was stopped beyond its lease finds its write durable
// when it continues, and acknowledges nothing.
func TestPausedNodeSaysNothing(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	ns.until("a has all", settled(a))
	epoch, _ := a.Epoch(3)
	ledger := ledgerOf(a, 3)
	if err := a.add(t.Context(), ledger, "c0"); err != nil {
		t.Fatal(err)
	}
	// Nor does another incarnation begin before the store answers again.
	a.store.SetScript(faulty.On(faulty.Always(faulty.Fault{Kind: faulty.Hold}), faulty.Append,
		faulty.CompareAndSetLease))
	answer := make(chan error)
	go func() { answer <- a.add(t.Context(), ledger, "c1") }()
	ns.until("the write is under way", func() bool { return len(a.store.Held()) == 1 })
	a.clock.jump(time.Hour)
	if a.Holds(3, epoch) {
		t.Error("holds a shard under a lease that ran out")
	}
	if _, err := a.total(t.Context(), ledger); !errors.Is(err, actors.ErrNotOwner) {
		t.Errorf("a read after the pause: %v", err)
	}
	for _, h := range a.store.Held() {
		if h.Call.Op == faulty.Append {
			h.Release()
		}
	}
	if err := <-answer; !errors.Is(err, actors.ErrUnknownOutcome) {
		t.Errorf("a command during the pause: %v", err)
	}
	a.store.SetScript(nil)
	a.store.ReleaseAll()
	ns.until("it is back", settled(a))
	if total, err := a.total(t.Context(), ledger); err != nil || total != 2 {
		t.Errorf("total %d, %v", total, err)
	}
	if again, _ := a.Epoch(3); again != epoch || a.count(cluster.Resumed) != 1 || a.count(cluster.Ended) != 0 {
		t.Errorf("epoch %d after %d, %+v", again, epoch, a.happens)
	}
}

// TestStoreOutage: a node that cannot renew stops speaking and answers what was in progress. When the store answers
// again it has what it had, and reads no customer anew.
func TestStoreOutage(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	ns.until("a has all", settled(a))
	first := a.Incarnation()
	ledger, idle := ledgerOf(a, 0), ledgerOf(a, 1)
	for _, id := range []string{ledger, idle} {
		if err := a.add(t.Context(), id, "c0"); err != nil {
			t.Fatal(err)
		}
	}
	var appends atomic.Int64
	a.store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Append {
			appends.Add(1)
		}
		return faulty.Fault{Kind: faulty.LoseRequest}
	})
	answer := make(chan error)
	go func() { answer <- a.add(t.Context(), ledger, "c1") }()
	ns.until("the write is under way", func() bool { return appends.Load() > 0 })
	a.clock.jump(2 * time.Minute)
	if err := <-answer; !errors.Is(err, actors.ErrUnknownOutcome) {
		t.Errorf("a command that was under way: %v", err)
	}
	ns.until("the lease has run out", func() bool { return a.count(cluster.Lapsed) == 1 })
	if n := a.count(cluster.Lost) + a.count(cluster.Ended); n > 0 {
		t.Errorf("the node lost %d shards, of which nothing is known", n)
	}
	for _, id := range []string{ledger, idle} {
		if err := a.add(t.Context(), id, "c2"); !errors.Is(err, actors.ErrNotOwner) {
			t.Errorf("a command without a lease: %v", err)
		}
	}
	if s := a.Status(); s.Lease != 0 || len(s.Held) > 0 || !a.Incarnation().IsZero() {
		t.Errorf("%+v", s)
	}
	var tops atomic.Int64
	a.store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.TopRoot {
			tops.Add(1)
		}
		return faulty.Fault{}
	})
	ns.until("it is back", settled(a))
	if a.Incarnation() != first || a.hosts != 1 {
		t.Errorf("another incarnation came back: %+v", a.happens)
	}
	if err := a.add(t.Context(), idle, "c1"); err != nil || tops.Load() != 0 {
		t.Errorf("%v; the customer was read %d times", err, tops.Load())
	}
	if err := a.add(t.Context(), ledger, "c1"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{ledger, idle} {
		if total, err := a.total(t.Context(), id); err != nil || total != 2 {
			t.Errorf("%s: total %d, %v", id, total, err)
		}
	}
}

// TestFormerIncarnationsAreForgotten: an incarnation that was seen to be dead is not looked at again by each that
// follows. A node that loses lease after lease to a slow store would ask it for more and more.
func TestFormerIncarnationsAreForgotten(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	ns.until("a has all", settled(a))
	lose := func(times int) {
		ns.mark(a.Incarnation())
		a.clock.jump(2 * time.Minute)
		ns.until("the incarnation is over", func() bool { return a.count(cluster.Ended) == times })
		ns.until("it is back", settled(a))
	}
	first := a.Incarnation()
	lose(1)
	var reads atomic.Int64
	a.store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Lease && c.Key == first.String() {
			reads.Add(1)
		}
		return faulty.Fault{}
	})
	second := a.Incarnation()
	lose(2)
	if n := reads.Load(); n != 0 {
		t.Errorf("the first incarnation was read %d times after it had been seen dead", n)
	}
	if l, err := ns.store.Lease(t.Context(), second); err != nil || !l.Dead {
		t.Errorf("the second one's lease: %+v, %v", l, err)
	}
}

// TestStaleEpochIsRaised: history has an epoch of another incarnation that is not below its shard's, as after
// restoring the ownership rows from an old backup: an epoch above, or the very one that was claimed since.
// The command waits for the epoch to be raised, and succeeds.
func TestStaleEpochIsRaised(t *testing.T) {
	for name, history := range map[string]uint64{"above": 77, "equal": 1} {
		t.Run(name, func(t *testing.T) {
			ns := newNodes(t)
			a := ns.start("a", calm)
			ns.until("a has all", settled(a))
			ns.write(ownerBefore{a.Node, history}, ledgerOf(a, 5))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := a.add(ctx, ledgerOf(a, 5), "c1"); err != nil {
				t.Fatal(err)
			}
			if total, err := a.total(ctx, ledgerOf(a, 5)); err != nil || total != 2 {
				t.Errorf("total %d, %v", total, err)
			}
			if epoch, _ := a.Epoch(5); epoch != history+1 || a.count(cluster.Raised) != 1 {
				t.Errorf("epoch %d, %+v", epoch, a.happens)
			}
			if epoch, _ := a.Epoch(6); epoch != 1 {
				t.Errorf("another shard is at epoch %d", epoch)
			}
		})
	}
}

// write has another incarnation write a history of one event.
func (ns *nodes) write(as actors.Authority, id string) {
	ns.t.Helper()
	history, err := actors.New(actors.Options{
		Kind: actorstest.Ledger{}, Journal: ns.store, Authority: as, Config: actors.DefaultConfig(), System: quiet,
	})
	if err != nil {
		ns.t.Fatal(err)
	}
	add := actors.Command{ID: "c0", IssuedAt: time.Now(), Payload: actorstest.Add{Amount: 1}}
	if _, err := history.Execute(ns.t.Context(), id, add); err != nil {
		ns.t.Fatal(err)
	}
	if err := history.Close(ns.t.Context()); err != nil {
		ns.t.Fatal(err)
	}
}

// ownerBefore is another incarnation, which held all shards at an epoch.
type ownerBefore struct {
	*cluster.Node
	epoch uint64
}

func (ownerBefore) Incarnation() persistence.Incarnation { return persistence.Incarnation{77} }
func (o ownerBefore) Epoch(uint32) (uint64, bool)        { return o.epoch, true }
func (o ownerBefore) Holds(_ uint32, epoch uint64) bool  { return epoch == o.epoch }
func (ownerBefore) StaleEpoch(uint32, string, uint64)    {}
func (ownerBefore) Suspended() bool                      { return false }

// TestLeaseCountsFromTheSending [R1]: a renewal whose reply comes late gives no more than the time from
// before it was sent.
func TestLeaseCountsFromTheSending(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	left := func() time.Duration { return a.Status().Lease }
	a.clock.freeze()
	before := left()
	a.store.SetScript(faulty.On(faulty.Always(faulty.Fault{Kind: faulty.Hold}), faulty.CompareAndSetLease))
	a.clock.frozen.Add(int64(16 * time.Second)) // a quarter of the TTL, and a little
	ns.until("a renewal is under way", func() bool { return len(a.store.Held()) > 0 })
	a.clock.frozen.Add(int64(9 * time.Second))
	if got := left(); got != before-25*time.Second {
		t.Errorf("%v left of %v after 25 s", got, before)
	}
	a.store.ReleaseAll()
	const validity = 59 * time.Second
	ns.until("the renewal counts", func() bool { return left() > before-25*time.Second })
	if got := left(); got != validity-9*time.Second {
		t.Errorf("%v left, 9 s after the renewal of %v was sent", got, validity)
	}
}

// TestShardIsHeldWhenThatIsKnown [R3]: while the reply of a claim is missing, the shard has no epoch and
// requests wait; a lost one is resolved by a read.
func TestShardIsHeldWhenThatIsKnown(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	a.store.SetScript(faulty.Sequence(faulty.CompareAndSetShard, faulty.Fault{Kind: faulty.Hold}))
	ns.until("all are expected", func() bool { return a.Status().Expected == shards })
	if _, held := a.Epoch(2); held || a.Holds(2, 1) {
		t.Error("held before the claim was made")
	}
	answer := make(chan error)
	go func() { answer <- a.add(t.Context(), ledgerOf(a, 2), "c1") }()
	ns.until("the request waits", func() bool { return a.Status().Waiting == 1 })
	a.store.ReleaseAll()
	if err := <-answer; err != nil {
		t.Error(err)
	}

	b := ns.start("b", calm)
	b.store.SetScript(faulty.Sequence(faulty.CompareAndSetShard, faulty.Fault{Kind: faulty.LoseReply}))
	ns.until("shards are spread", settled(a, b))
	if b.store.Injected(faulty.LoseReply) == 0 {
		t.Error("no reply was lost")
	}
}

// TestConfirmRead: a machine that was frozen with its clock believes in its lease. With confirm: read it
// says nothing before it has looked.
func TestConfirmRead(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm, func(c *cluster.NodeConfig) { c.Confirm = cluster.ConfirmRead })
	b := ns.start("b", calm)
	ns.until("shards are spread", settled(a, b))
	shard := uint32(0)
	for ; ; shard++ {
		if _, held := a.Epoch(shard); held {
			break
		}
	}
	ledger := ledgerOf(a, shard)
	if err := a.add(t.Context(), ledger, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	epoch, _ := a.Epoch(shard)
	a.clock.freeze()
	ns.leave(a)
	ns.pass(b, "b has taken the shard", func() bool { _, held := b.Epoch(shard); return held })
	if !a.Holds(shard, epoch) {
		t.Fatal("the frozen node does not believe in its lease")
	}
	if total, err := b.total(t.Context(), ledger); err != nil || total != 1 {
		t.Errorf("total %d, %v", total, err)
	}
	if err := a.add(t.Context(), ledger, "c2"); !errors.Is(err, actors.ErrUnknownOutcome) {
		t.Errorf("a command at the frozen node: %v", err)
	}
	if _, err := a.total(t.Context(), ledger); !errors.Is(err, actors.ErrNotOwner) {
		t.Errorf("a query at the frozen node: %v", err)
	}
	if err := a.Confirm(t.Context()); err == nil {
		t.Error("the frozen node is confirmed")
	}
	if total, err := b.total(t.Context(), ledger); err != nil || total != 1 {
		t.Errorf("total %d, %v", total, err)
	}
}

// TestWaitingIsBounded: requests for a shard in flight wait, but not too many, and not forever.
func TestWaitingIsBounded(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm, func(c *cluster.NodeConfig) { c.MaxWaiting, c.MaxWait = 1, time.Hour })
	a.store.SetScript(faulty.On(faulty.Always(faulty.Fault{Kind: faulty.Hold}), faulty.CompareAndSetShard))
	ns.until("all are expected", func() bool { return a.Status().Expected == shards })
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() { answer <- a.add(ctx, "x", "c1") }()
	ns.until("the request waits", func() bool { return a.Status().Waiting == 1 })
	if err := a.add(t.Context(), "x", "c2"); !errors.Is(err, actors.ErrOverloaded) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	if err := <-answer; !errors.Is(err, actors.ErrExpired) || !errors.Is(err, context.Canceled) {
		t.Errorf("one that gave up: %v", err)
	}

	b := ns.start("b", calm, func(c *cluster.NodeConfig) { c.MaxWait = time.Millisecond })
	b.store.SetScript(faulty.On(faulty.Always(faulty.Fault{Kind: faulty.Hold}), faulty.CompareAndSetShard))
	ns.leave(a)
	ns.until("all are expected", func() bool { return b.Status().Expected > 0 })
	for shard := range uint32(shards) {
		if err := b.add(t.Context(), ledgerOf(b, shard), "c1"); !errors.Is(err, actors.ErrNotOwner) {
			t.Errorf("waited too long: %v", err)
		}
	}
}

// TestWrongClock: a node whose clock is off its peers' gives its shards away until it is right.
func TestWrongClock(t *testing.T) {
	ns := newNodes(t)
	a, b, c := ns.start("a", calm), ns.start("b", calm), ns.start("c", calm)
	ns.until("shards are spread", settled(a, b, c))
	a.SetClockOffset(2*time.Second, 1) // nobody can tell which of the two is wrong
	if a.ClockWrong() {
		t.Error("one peer is enough to put a clock in the wrong")
	}
	a.SetClockOffset(-2*time.Second, 2)
	ns.until("b and c have all", settled(b, c))
	if s := a.Status(); !a.ClockWrong() || !s.ClockWrong || s.ClockAhead != -2*time.Second {
		t.Errorf("%+v", s)
	}
	a.SetClockOffset(time.Millisecond, 2)
	ns.until("shards are spread again", settled(a, b, c))
	if a.count(cluster.ClockWrong) != 1 || a.count(cluster.ClockRight) != 1 {
		t.Errorf("%+v", a.happens)
	}
}

// TestClockAtTheLimit: a clock whose offset goes up and down around the limit is wrong once.
func TestClockAtTheLimit(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm)
	for _, step := range []struct {
		ahead time.Duration
		peers int
		wrong bool
	}{
		{900 * time.Millisecond, 2, false}, {1001 * time.Millisecond, 2, true}, {999 * time.Millisecond, 2, true},
		{-501 * time.Millisecond, 2, true}, {1001 * time.Millisecond, 2, true}, {499 * time.Millisecond, 2, false},
		{-999 * time.Millisecond, 2, false}, {-1001 * time.Millisecond, 2, true}, {-1001 * time.Millisecond, 1, false},
	} {
		if a.SetClockOffset(step.ahead, step.peers); a.ClockWrong() != step.wrong {
			t.Errorf("%v ahead of %d peers: wrong is %v", step.ahead, step.peers, a.ClockWrong())
		}
	}
	ns.until("all was told", func() bool { return a.count(cluster.ClockRight) == 2 })
	if n := a.count(cluster.ClockWrong); n != 2 {
		t.Errorf("the clock went wrong %d times, want 2", n)
	}
}

// TestLost: a shard whose row shows another owner is another's.
func TestLost(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm, func(c *cluster.NodeConfig) { c.Protocol.ScanEvery = 10 * time.Millisecond })
	ns.until("a has all", settled(a))
	row := a.Row(3)
	other := persistence.Shard{ID: 3, Epoch: row.Epoch + 1, Owner: persistence.Incarnation{99}}
	if ok, _, err := ns.store.CompareAndSetShard(t.Context(), row, other); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ns.until("a knows", func() bool { return a.count(cluster.Lost) == 1 })
	if _, held := a.Epoch(3); held {
		t.Error("a speaks for a shard that is another's")
	}
}

// TestCloseWaitsForConfirmations: a read that confirms is an operation in progress.
func TestCloseWaitsForConfirmations(t *testing.T) {
	ns := newNodes(t)
	a := ns.start("a", calm, func(c *cluster.NodeConfig) { c.Confirm = cluster.ConfirmRead })
	a.store.SetScript(faulty.On(faulty.Always(faulty.Fault{Kind: faulty.Hold}), faulty.Lease))
	answer := make(chan error)
	go func() { answer <- a.Confirm(t.Context()) }()
	ns.until("the read is under way", func() bool { return len(a.store.Held()) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closed while a read is under way: %v", err)
	}
	a.store.ReleaseAll()
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	a.store.SetScript(nil)
	if err := a.Confirm(t.Context()); err == nil {
		t.Error("an incarnation that is over is confirmed")
	}
}
