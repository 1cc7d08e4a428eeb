package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"licensed/actors"
	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// incarnation is one incarnation of a node: the machine of package ownership with the goroutine that
// drives it, and the authority of a host. It ends once and does not come back.
type incarnation struct {
	// Fixed by newIncarnation.
	node  *Node
	id    persistence.Incarnation
	host  Host
	began lease.Instant
	gates []gate
	// until, lapsed and named are set by the loop, and read by requests: two times of type lease.Instant, and
	// whether claimName has ended well.
	until   atomic.Int64 // end of the lease's validity, 0 while there is none
	lapsed  atomic.Int64 // when the lease ran out that was not renewed since; 0 if it did not
	named   atomic.Bool  // no other live process has the node's name, as far as was found: it may take part
	confirm confirmer

	// mu guards the inbox, which any goroutine fills and the loop empties.
	mu    sync.Mutex
	inbox []input
	deaf  bool          // nothing more is processed
	wake  chan struct{} // capacity 1: there is something in the inbox

	over    chan struct{} // closed when the loop has ended
	dropper dropper

	// The loop's.
	machine  *ownership.Participant
	swaps    []ownership.Op // by shard: the last compare-and-set that was begun
	hasLease bool
	taken    error           // that another process has the name, nil if none
	reach    ownership.Reach // as last noted
}

// input is for the loop: an input of the machine, or, if do is not nil, something to be
// done between two of them.
type input struct {
	ownership.Input
	// began is when the operation that is answered was begun. The map of rows goes by it:
	// what was heard later than that is not older than what the store showed.
	began time.Time
	do    func()
}

var _ actors.Authority = (*incarnation)(nil)

// newIncarnation returns an incarnation that is yet to run.
func (n *Node) newIncarnation(former []persistence.Incarnation) (*incarnation, error) {
	id := persistence.NewIncarnation()
	// Where others vote on who can be reached, a node that nobody has reached yet takes
	// no shards; a former incarnation of this process may have been reached already.
	protocol := n.config.protocol(id, former, n.shards)
	protocol.Proven = n.proven()
	// Leases of its name from before the start belong to former runs that crashed, or to
	// other processes: the machine watches them until they are dead.
	for _, l := range n.named {
		protocol.Namesakes = append(protocol.Namesakes, l.Incarnation)
	}
	machine, err := ownership.New(protocol)
	if err != nil {
		return nil, err
	}
	i := &incarnation{
		node: n, id: id, machine: machine, began: n.config.Clock.Now(),
		gates: make([]gate, n.shards), swaps: make([]ownership.Op, n.shards),
		wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
	for s := range i.gates {
		i.gates[s].shard, i.gates[s].since = uint32(s), i.began
	}
	i.confirm.i, i.dropper.i = i, i
	i.noteReach(i.began)
	// The host may ask its authority, this incarnation, from now on. It never sees
	// another one: an activation cannot outlive the lease under which it was loaded.
	i.host, err = n.config.NewHost(i)
	return i, err
}

// Incarnation implements actors.Authority.
func (i *incarnation) Incarnation() persistence.Incarnation { return i.id }

// Shard implements actors.Authority.
func (i *incarnation) Shard(aggregate string) uint32 { return ShardOf(aggregate, i.node.shards) }

// Epoch implements actors.Authority. [R3]: the gate has an epoch once the compare-and-set that took the
// shard is known to be applied.
func (i *incarnation) Epoch(shard uint32) (uint64, bool) {
	epoch := i.gates[shard].epoch.Load()
	return epoch, i.Holds(shard, epoch)
}

// Holds implements actors.Authority. [R9]: it asks the clock, last. If the lease is valid then, nobody else has held
// the shard since the epoch was read, whether the lease ran out meanwhile or not.
func (i *incarnation) Holds(shard uint32, epoch uint64) bool {
	return epoch != 0 && i.gates[shard].epoch.Load() == epoch && i.valid()
}

// Suspended implements actors.Authority.
func (i *incarnation) Suspended() bool { return !i.valid() }

// valid reports whether the lease is valid at this moment, by the clock of leases. It may
// be called from any goroutine.
func (i *incarnation) valid() bool {
	until := lease.Instant(i.until.Load())
	return until != 0 && i.node.config.Clock.Now() < until
}

// StaleEpoch implements actors.Authority. The gate is shut before this returns, so that the requests
// which met the higher epoch wait for the shard to be above it.
func (i *incarnation) StaleEpoch(shard uint32, aggregate string, epoch uint64) {
	if i.gates[shard].raise(epoch) {
		i.node.log.Warn("higher epoch found in a history than in its shard's row", "shard", shard,
			"aggregate", aggregate, "epoch", epoch)
		i.post(input{Input: ownership.Input{Kind: ownership.InputStale, Shard: shard, Epoch: epoch}})
	}
}

// post hands an input to the loop, from any goroutine. An incarnation that has ended takes no notice.
func (i *incarnation) post(in input) {
	i.mu.Lock()
	if !i.deaf {
		i.inbox = append(i.inbox, in)
	}
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// leave counts a request out.
func (i *incarnation) leave(g *gate) {
	if g.leave() {
		i.quiet(g)
	}
}

// quiet tells the loop that nothing is in progress at a closing gate, so that the shard
// can be released.
func (i *incarnation) quiet(g *gate) {
	i.post(input{Input: ownership.Input{Kind: ownership.InputQuiet, Shard: g.shard}})
}

// run drives the machine until the incarnation has ended, and returns why; nil if stop was closed first.
// Then nothing is held any more.
func (i *incarnation) run(stop <-chan struct{}) (cause error) {
	defer close(i.over)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var inputs []input
	for {
		select {
		case <-stop:
			i.end(nil)
			return nil
		case <-i.wake:
		case <-timer.C:
			// The zero input is a tick: the machine looks at the time only.
			inputs = append(inputs, input{})
		}
		i.mu.Lock()
		// The two slices change places, so that no input is allocated once both are long
		// enough.
		inputs, i.inbox = append(inputs, i.inbox...), i.inbox[:0]
		i.mu.Unlock()
		wake := lease.Never
		for k := range inputs {
			out := i.handle(&inputs[k])
			if out == nil {
				continue
			}
			if out.Ended {
				cause = cmp.Or(i.taken, out.Cause)
				i.end(cause)
				return cause
			}
			wake = out.Wake
		}
		clear(inputs)
		inputs = inputs[:0]
		// lease.Never comes with inputs that were not stepped only: the timer is set
		// already.
		if wake != lease.Never {
			timer.Reset(i.pause(wake))
		}
	}
}

// pause is the time the loop sleeps. Timers stand still while the machine is suspended and the leases'
// clock continues, so none is set for long.
func (i *incarnation) pause(wake lease.Instant) time.Duration {
	return max(0, min(wake.Sub(i.node.config.Clock.Now()), longestPause))
}

// longestPause is the longest time for which the loop sleeps, and polls of namesakes
// wait.
const longestPause = 100 * time.Millisecond

// handle processes one input, and does what the machine asks for. It returns nil if that was not stepped.
func (i *incarnation) handle(in *input) *ownership.Outputs {
	if in.do != nil {
		in.do()
		return nil
	}
	if in.Kind == ownership.InputQuiet && !i.gates[in.Shard].quiet() {
		return nil // the gate was opened again meanwhile
	}
	in.Now = i.node.config.Clock.Now()
	out := i.machine.Step(in.Input)
	// Before the gates are set: the first request through a gate that opens must find the
	// lease valid.
	i.until.Store(int64(out.Until))
	if out.Reach != i.reach || in.Kind == ownership.InputDone && in.Op.Kind == ownership.OpReadVotes {
		i.noteReach(in.Now)
	}
	for k := range out.Ops {
		if op := &out.Ops[k]; op.Kind == ownership.OpSwapShard {
			i.swaps[op.NextShard.ID] = *op
		}
	}
	if !out.Ended { // else end shuts all: no shard is known to be another's
		for _, g := range out.Gates {
			i.setGate(in.Now, g)
		}
	}
	// After the gates are shut: once a release is applied, the successor serves the
	// shard.
	for _, op := range out.Ops {
		i.begin(op)
	}
	i.learn(in)
	i.tell(in.Now, out)
	return out
}

// setGate sets a gate and says what that means.
func (i *incarnation) setGate(now lease.Instant, change ownership.Gate) {
	g, kind := &i.gates[change.Shard], change.Kind
	former, epoch := g.kind(), g.epoch.Load()
	swap := &i.swaps[change.Shard]
	if kind == ownership.GateShut && former == gateReleasing {
		return // see released
	}
	// The last compare-and-set of the shard is a release of this epoch, so the gate is
	// shut because of it.
	if kind == ownership.GateShut && epoch != 0 && swap.NextShard.Owner.IsZero() && swap.NextShard.Epoch == epoch {
		kind = gateReleasing
	}
	took := now.Sub(g.since)
	if former != kind && kind != gateReleasing { // a hand-over counts from its beginning
		g.since = now
	}
	g.set(kind, change.Epoch)
	h := Happening{Incarnation: i.id, Shard: change.Shard, Epoch: change.Epoch}
	switch kind {
	case ownership.GateOpen:
		if former == ownership.GateClosing {
			return // the successor went away
		}
		h.Kind, h.Other, h.Took = Claimed, swap.OldShard.Owner, took
		if !h.Other.IsZero() && h.Other != i.id {
			h.Kind = TakenOver
		}
		i.node.happened(h)
	case ownership.GateClosing:
		if g.quiet() {
			i.quiet(g)
		}
	case ownership.GateShut:
		if epoch != 0 {
			h.Kind, h.Epoch = Lost, epoch
			i.node.happened(h)
		}
	}
	// The aggregates of the former epoch must not answer under the new one: the host ends
	// them, and requests that meet one are tried again (see Node.after).
	if epoch != 0 && change.Epoch != epoch {
		i.dropper.drop(change.Shard)
	}
}

// begin starts an operation on the store. It is answered once, in time, whatever the store does.
func (i *incarnation) begin(op ownership.Op) {
	began, timeout := time.Now(), i.node.config.Protocol.Timing.OpTimeout()
	if op.Kind == ownership.OpReadShards || op.Kind == ownership.OpPeekShards {
		timeout = i.node.config.Protocol.Timing.TTL // many rows, and nothing waits for it that cannot
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	var answered atomic.Bool
	answer := func(in ownership.Input) {
		if answered.CompareAndSwap(false, true) {
			i.post(input{Input: in, began: began})
		}
	}
	lost := ownership.Input{Kind: ownership.InputDone, Op: op, Err: persistence.ErrUnknownOutcome}
	// A store whose driver ignores the deadline must not stop the machine: the operation
	// counts as one of unknown outcome, and an answer after that is ignored.
	late := time.AfterFunc(timeout+timeout/4, func() { answer(lost) })
	i.node.background.Go(func() {
		defer cancel()
		defer late.Stop()
		answer(i.node.do(ctx, op))
	})
}

// do performs an operation.
func (n *Node) do(ctx context.Context, op ownership.Op) ownership.Input {
	in := ownership.Input{Kind: ownership.InputDone, Op: op}
	store := n.config.Ownership
	switch op.Kind {
	case ownership.OpSwapLease:
		in.Applied, in.Lease, in.Err = store.CompareAndSetLease(ctx, op.Lease.Old, op.Lease.Next)
	case ownership.OpReadLease:
		in.Lease, in.Err = store.Lease(ctx, op.Incarnation)
	case ownership.OpPeekLease:
		in.Lease, in.Err = store.PeekLease(ctx, op.Incarnation)
	case ownership.OpSwapShard:
		in.Applied, in.Row, in.Err = store.CompareAndSetShard(ctx, op.OldShard, op.NextShard)
	case ownership.OpReadShard:
		in.Row, in.Err = store.Shard(ctx, op.Shard)
	case ownership.OpReadShards:
		in.Rows, in.Err = store.Shards(ctx)
	case ownership.OpPeekShards:
		in.Rows, in.Err = store.PeekShards(ctx)
	case ownership.OpReadVotes:
		in.Votes, in.Err = n.config.Votes.Votes(ctx)
	}
	// No row is the zero row to the machine: a lease that was never written, a shard that
	// was never owned.
	if errors.Is(in.Err, persistence.ErrNotFound) {
		in.Err = nil
	}
	return in
}

// learn keeps the rows that others are pointed to. What was heard before the store was asked gives way to what it
// showed.
func (i *incarnation) learn(in *input) {
	if in.Kind != ownership.InputDone || in.Err != nil {
		return
	}
	switch in.Op.Kind {
	case ownership.OpSwapShard:
		i.node.rows.Read(i.machine.Row(in.Op.NextShard.ID), in.began)
	case ownership.OpReadShard:
		i.node.rows.Read(i.machine.Row(in.Op.Shard), in.began)
	case ownership.OpReadShards, ownership.OpPeekShards:
		shown := make([]persistence.Shard, len(i.gates)) // without what others say
		for s := range shown {
			// The rows of the machine, not of the answer: it may have written some of
			// them since the read was begun.
			shown[s] = i.machine.Row(uint32(s))
		}
		i.node.rows.ReadAll(shown, in.began)
		i.node.config.Listener.Scanned(shown)
	}
}

// tell says what the machine found out.
func (i *incarnation) tell(now lease.Instant, out *ownership.Outputs) {
	if !i.hasLease && out.Until != 0 {
		i.hasLease = true
		if i.named.Load() {
			i.node.happened(Happening{Kind: Began, Incarnation: i.id})
		} else {
			own := append(slices.Clone(i.node.former), i.id)
			// It asks the store for a TTL, which the loop must not wait for.
			i.node.background.Go(func() { i.claimName(own) })
		}
	}
	switch since := lease.Instant(i.lapsed.Load()); {
	case out.Ended || !i.hasLease:
	case out.Until == 0 && since == 0:
		i.lapsed.Store(int64(now))
		i.node.happened(Happening{Kind: Lapsed, Incarnation: i.id})
	case out.Until != 0 && since != 0:
		i.lapsed.Store(0)
		i.node.happened(Happening{Kind: Resumed, Incarnation: i.id, Took: now.Sub(since)})
	}
	for _, row := range out.Changed {
		i.released(now, row)
	}
	for _, id := range out.Raised {
		i.node.happened(Happening{Kind: Raised, Incarnation: i.id, Shard: id, Epoch: i.swaps[id].NextShard.Epoch})
	}
	for _, id := range out.Dead {
		i.node.former = slices.DeleteFunc(i.node.former, func(f persistence.Incarnation) bool { return f == id })
		i.node.happened(Happening{Kind: Died, Incarnation: i.id, Other: id})
	}
	if len(out.Changed) > 0 || len(out.Dead) > 0 {
		i.node.config.Listener.Changed(News{Shards: slices.Clone(out.Changed), Dead: slices.Clone(out.Dead)})
	}
}

// released turns away the requests that waited for a release, now that the successor can be told.
func (i *incarnation) released(now lease.Instant, row persistence.Shard) {
	g := &i.gates[row.ID]
	if g.kind() != gateReleasing {
		return
	}
	took := now.Sub(g.since)
	g.since = now
	g.set(ownership.GateShut, 0)
	i.node.happened(Happening{
		Kind: Released, Incarnation: i.id, Shard: row.ID, Epoch: row.Epoch, Other: row.Successor, Took: took,
	})
}

// end shuts all gates for good.
func (i *incarnation) end(cause error) {
	// The order matters: from now on nothing is confirmed and no input is taken. Requests
	// that wait at gates are woken last, and find that the lease has ended.
	i.until.Store(0)
	i.mu.Lock()
	i.deaf, i.inbox = true, nil
	i.mu.Unlock()
	for s := range i.gates {
		i.gates[s].set(ownership.GateShut, 0)
	}
	i.confirm.close()
	if i.hasLease {
		i.node.happened(Happening{Kind: Ended, Incarnation: i.id, Cause: cause})
	}
}

// dropper has the host drop the aggregates of shards that are not held any more. A pass goes over all
// aggregates in memory, so shards that go one after the other share passes.
type dropper struct {
	i  *incarnation
	mu sync.Mutex
	// shards has those to be dropped in the next pass, by number; nil if there are none.
	shards  []bool // nil if there are none
	running bool
}

// betweenPasses is what keeps passes over a million aggregates from taking a processor to themselves.
const betweenPasses = 100 * time.Millisecond

// drop has the aggregates of a shard dropped, in the background. Those of a shard that is
// held again by then are left: they end when they next look at their epoch.
func (d *dropper) drop(shard uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shards == nil {
		d.shards = make([]bool, len(d.i.gates))
	}
	d.shards[shard] = true
	if !d.running {
		d.running = true
		d.i.node.background.Go(d.run)
	}
}

// run passes over the aggregates until no shard is left to drop. One goroutine of this
// kind runs at a time (running).
func (d *dropper) run() {
	for {
		d.mu.Lock()
		shards := d.shards
		d.shards, d.running = nil, shards != nil
		d.mu.Unlock()
		if shards == nil {
			return
		}
		d.i.host.Drop(func(id string) bool {
			s := d.i.node.shardOf(id)
			return shards[s] && d.i.gates[s].epoch.Load() == 0
		})
		select {
		case <-d.i.over:
			return
		case <-time.After(betweenPasses):
		}
	}
}
