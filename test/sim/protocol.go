package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"licensed/actors"
	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// protocolParams draws the parameters of a run in which nodes find out among themselves who owns what.
func protocolParams(r *rand.Rand) Params {
	p := paramsOf(r)
	p.Protocol, p.Time, p.Lease = true, 12*second, 100*millisecond
	p.Nodes, p.Shards = 1+r.IntN(4), 1+r.IntN(4)
	p.ConfirmReads = r.Float64() < 0.4
	p.Drain = 0.1 * r.Float64()
	if r.Float64() < 0.2 { // a store whose answers are late or missing, and little else
		p.Late, p.VeryLate, p.LoseWrite, p.LoseReply = 0.6, 0, 0.05, 0.5
		p.Crash, p.Drain, p.FailRead, p.Lease = 0, 0, 0, 3*p.Lease
	}
	if r.Float64() < 0.4 { // calm enough for histories to grow
		p.Crash = p.Crash / 5
		p.Pause = p.Pause / 5
		p.Drain = p.Drain / 5
		p.LoseWrite = p.LoseWrite / 3
		p.LoseReply = p.LoseReply / 3
		p.Archive += 0.1
	}
	p.Allowance = p.Lease / micros(10+r.IntN(60))
	p.Drift = float64(p.Allowance) / float64(p.Lease)
	p.PauseRenewed = 0.05 * r.Float64()
	p.MissGossip = 0.3 * r.Float64()
	if p.ConfirmReads {
		p.PauseRenewed = 0.1
	}
	if r.Float64() < 0.3 {
		p.Forge = 0.3 * r.Float64()
	}
	return p
}

// protocol is the authority made of agents, one in each node.
type protocol struct {
	w      *world
	rows   *rows
	votes  *votes
	agents []*agent // by node
}

// agent drives the product's machine in one process, as the product's shell does.
type agent struct {
	p       *protocol
	n       *node
	machine *ownership.Participant
	former  []persistence.Incarnation
	ended   bool

	rate   float64 // of its clock against true time
	offset micros
	frozen micros // time its clock did not see
	thaws  micros // end of the last such time

	wakeAt   lease.Instant // when a tick is planned
	until    lease.Instant
	had      bool // a lease
	epochs   []uint64
	gates    []ownership.GateKind
	unsaid   []int // answers by shard that wait to be confirmed
	confirms lease.Confirmer[func(confirmed bool)]
	// confirming says that a tick is planned that will look for what is to be confirmed.
	confirming bool
	seen       persistence.Incarnation // what gossip has of the node
	reach      ownership.Reach
	proven     bool // some process reached this one
}

func newProtocol(w *world) *protocol {
	p := &protocol{w: w, rows: newRows(w)}
	p.votes = newVotes(p)
	return p
}

func (p *protocol) begin() {}

// paused takes the pause off a clock that stops with its process.
func (p *protocol) paused(n *node) {
	if a := p.agents[n.id]; a.freezes() {
		at, until := max(p.w.now, a.thaws), n.pausedUntil
		a.thaws = max(a.thaws, until)
		p.w.at(until, "thaw", func() { a.frozen += max(0, until-at) })
	}
}

// started makes the agent of a process that starts.
func (p *protocol) started(n *node) {
	w := p.w
	if n.id == len(p.agents) {
		p.agents = append(p.agents, nil)
	}
	a := &agent{p: p, n: n, offset: micros(w.IntN(int(second))), rate: 1}
	switch w.IntN(3) { // the extremes are where it breaks
	case 0:
		a.rate -= w.params.Drift
	case 1:
		a.rate += w.params.Drift
	}
	p.agents[n.id] = a
	a.begin()
}

// begin starts the incarnation that the node has now.
func (a *agent) begin() {
	w := a.p.w
	c := ownership.DefaultConfig()
	c.Incarnation, c.Node, c.Former = a.n.incarnation, fmt.Sprint("n", a.n.id), a.former
	c.Shards = uint32(w.params.Shards)
	c.Timing = lease.Timing{TTL: duration(w.params.Lease), Allowance: duration(w.params.Allowance)}
	c.MaxMoves, c.MaxClaims, c.Watchers = 1+w.IntN(3), 1+w.IntN(4), 1+w.IntN(3)
	c.CloseTimeout, c.Settle, c.ScanEvery = 10*time.Millisecond, 20*time.Millisecond, 400*time.Millisecond
	c.MovesPerSecond, c.Groups = 500, uint32(c.MaxMoves)
	c.Witnessed, c.Proven = w.params.Witnessed, a.proven
	m, err := ownership.New(c)
	if err != nil {
		panic(err)
	}
	a.machine, a.ended, a.until, a.had, a.wakeAt = m, false, 0, false, lease.Never
	a.epochs = make([]uint64, w.params.Shards)
	a.gates = make([]ownership.GateKind, w.params.Shards)
	a.unsaid = make([]int, w.params.Shards)
	a.confirms, a.confirming = lease.Confirmer[func(bool)]{}, false
	a.later(0, "agent begins", func() { a.step(ownership.Input{}) })
	a.gossip()
}

func duration(m micros) time.Duration { return time.Duration(m) * time.Microsecond }

// clock reads the agent's clock as it would be now if its process ran.
func (a *agent) clock() lease.Instant {
	elapsed := float64(a.p.w.now-a.frozen) * a.rate
	if w := a.p.w; a.freezes() && w.now < a.n.pausedUntil {
		elapsed = float64(a.n.pausedAt-a.frozen) * a.rate
	}
	return lease.Instant(1000 * (float64(a.offset) + elapsed))
}

// freezes says that pauses stop the clock as well, as those of a virtual machine may.
func (a *agent) freezes() bool { return a.p.w.params.ConfirmReads && a.n.id%2 == 0 }

func (a *agent) step(in ownership.Input) {
	if a.ended {
		return
	}
	w := a.p.w
	in.Now = a.clock()
	out := a.machine.Step(in)
	if out.Until != a.until && w.chance(w.params.PauseRenewed) {
		a.n.pause() // the worst moment: what was renewed must last no longer than it may
	}
	resumed := a.had && a.until == 0 && out.Until != 0
	a.until, a.reach = out.Until, out.Reach
	a.had = a.had || a.until != 0
	for _, g := range out.Gates {
		a.setGate(g)
	}
	if resumed {
		w.counts.Resumed++
		for shard := range a.epochs {
			a.checkAlone(shard)
		}
		for _, h := range a.n.hosts() {
			if !h.ended {
				w.counts.Kept++
			}
		}
	}
	for _, row := range out.Changed {
		a.tell(row)
	}
	for _, op := range out.Ops {
		a.ask(op, w.between(15*millisecond, w.params.Lease/3), a.step)
	}
	if out.Ended {
		a.end(out.Cause)
		return
	}
	if out.Wake < a.wakeAt {
		at := out.Wake
		a.wakeAt = at
		a.later(max(0, micros(float64(at-in.Now)/1000/a.rate))+1, "agent wakes", func() {
			if a.wakeAt == at {
				a.wakeAt = lease.Never
				a.step(ownership.Input{})
			}
		})
	}
}

// ask has an operation done on the rows, for the incarnation that there is now.
func (a *agent) ask(op ownership.Op, timeout micros, done func(ownership.Input)) {
	asker := a.machine
	a.p.rows.do(op, timeout, func(in ownership.Input) {
		if a.p.agents[a.n.id] == a && a.machine == asker {
			a.later(0, "answer of rows", func() { done(in) })
		}
	})
}

// later runs f in the process unless its incarnation has ended.
func (a *agent) later(d micros, what string, f func()) { a.n.later(d, what, f) }

// setGate follows the machine, and looks for the one thing that must never be.
func (a *agent) setGate(g ownership.Gate) {
	w, shard := a.p.w, int(g.Shard)
	a.gates[shard] = g.Kind
	a.epochs[shard] = 0
	switch g.Kind {
	case ownership.GateOpen:
		a.epochs[shard] = g.Epoch
		w.trace("node %d holds shard %d at epoch %d", a.n.id, shard, g.Epoch)
		a.checkAlone(shard)
	case ownership.GateClosing:
		a.epochs[shard] = g.Epoch
		a.later(0, "quiet?", func() { a.awaitQuiet(shard, g.Epoch) })
	default:
		a.later(w.between(0, 2*millisecond), "drop actors", func() { a.drop(shard) })
	}
}

// valid reports whether the agent has a lease, by its own clock.
func (a *agent) valid() bool { return a.n.up && a.clock() < a.until }

// checkAlone fails the run if two nodes hold a shard under valid leases.
func (a *agent) checkAlone(shard int) {
	w := a.p.w
	if w.params.ConfirmReads || a.epochs[shard] == 0 || !a.valid() {
		return
	}
	for _, o := range a.p.agents {
		if o != a && o != nil && o.epochs[shard] != 0 && o.valid() {
			w.fail("node %d holds shard %d at epoch %d, and node %d at %d",
				a.n.id, shard, a.epochs[shard], o.n.id, o.epochs[shard])
		}
	}
}

func (a *agent) awaitQuiet(shard int, epoch uint64) {
	if a.gates[shard] != ownership.GateClosing || a.epochs[shard] != epoch {
		return
	}
	busy := a.unsaid[shard] > 0
	for _, h := range a.n.hosts() {
		busy = busy || h.shard == shard && h.pending > 0 && !h.ended
	}
	if !busy {
		a.step(ownership.Input{Kind: ownership.InputQuiet, Shard: uint32(shard)})
		return
	}
	a.later(millisecond, "quiet?", func() { a.awaitQuiet(shard, epoch) })
}

// drop ends the activations of a shard that is not held.
func (a *agent) drop(shard int) {
	for _, h := range a.n.hosts() {
		if h.shard == shard && !h.ended && h.machine.Epoch() != a.epochs[shard] {
			h.do(h.machine.Halt(actors.ErrNotOwner))
		}
	}
}

// tell sends a row to the others, as gossip does: late, or not at all.
func (a *agent) tell(row persistence.Shard) {
	w := a.p.w
	for i, o := range a.p.agents {
		if o == a || w.chance(w.params.MissGossip) {
			continue
		}
		w.after(w.latency(), "news of a shard", func() {
			o := a.p.agents[i]
			o.later(0, "hear", func() { o.step(ownership.Input{Kind: ownership.InputRow, Row: row}) })
		})
	}
}

// end continues as a new incarnation, or as none if the node was told to drain.
func (a *agent) end(cause error) {
	w, n := a.p.w, a.n
	a.ended, a.until = true, 0
	for _, h := range n.hosts() {
		if !h.ended {
			h.do(h.machine.Halt(actors.ErrNotOwner))
		}
	}
	w.trace("node %d: %v has ended: %v", n.id, n.incarnation, cause)
	if errors.Is(cause, ownership.ErrRetired) {
		w.counts.Drained++
		n.up = false // the process exits
		return
	}
	w.counts.Lapsed++
	a.former = append(a.former, n.incarnation)
	n.begin(w.newIncarnation())
	a.begin()
}

// gossip looks around every now and then. What it shows may be late and wrong.
func (a *agent) gossip() {
	w := a.p.w
	a.seen = persistence.Incarnation{}
	if a.until > 0 { // a node tells who it is when it has a lease
		a.seen = a.n.incarnation
	}
	p := a.p.votes
	var members []ownership.Member
	for _, o := range a.p.agents {
		if o == nil || o != a && (!o.n.up || w.now < o.n.pausedUntil || w.chance(w.params.MissGossip)) {
			continue
		}
		members = append(members, ownership.Member{
			Name: fmt.Sprint("n", o.n.id), Incarnation: o.seen, Eligible: !o.draining(), Unreachable: p.flagged[o.n.id],
		})
	}
	if w.params.Forge > 0 {
		members = append(members, ownership.Member{Name: "stranger", Incarnation: stranger})
	}
	a.later(w.between(0, 5*millisecond), "members", func() {
		p.look(a)
		a.step(ownership.Input{Kind: ownership.InputMembers, Members: members})
		if w.chance(w.params.Drain) {
			w.trace("node %d drains", a.n.id)
			a.step(ownership.Input{Kind: ownership.InputDrain})
		}
	})
	if w.chance(w.params.Forge) {
		a.later(w.between(0, 5*millisecond), "forged", a.forged)
	}
	a.later(w.between(20*millisecond, 100*millisecond), "gossip", a.gossip)
}

// unknown process is listed as a member in some of the runs, and has no lease.
var stranger = persistence.Incarnation{15: 0xff}

// forged hears what somebody made up: that a node, or one that nobody knows, is dead, or that a shard has another
// row. It must make nobody speak who must not, and stall nobody for long.
func (a *agent) forged() {
	w := a.p.w
	w.counts.Forged++
	someone := func() persistence.Incarnation {
		if o := a.p.agents[w.IntN(len(a.p.agents))]; o != nil && w.chance(0.5) {
			return o.n.incarnation
		}
		return w.newIncarnation() // which no lease has
	}
	if w.chance(0.5) {
		a.step(ownership.Input{Kind: ownership.InputSuspect, Suspect: someone()})
		return
	}
	row := a.p.rows.shards[w.IntN(w.params.Shards)]
	row.Epoch += []uint64{0, 1, 2, 1000, persistence.MaxEpoch}[w.IntN(5)]
	if row.Owner, row.Successor = (persistence.Incarnation{}), someone(); w.chance(0.3) {
		row.Owner, row.Successor = someone(), persistence.Incarnation{}
	}
	a.step(ownership.Input{Kind: ownership.InputRow, Row: row})
}

func (a *agent) draining() bool { return a.ended }

func (p *protocol) guess(shard int) *node {
	for _, a := range p.agents {
		if a.n.up && a.gates[shard] == ownership.GateOpen {
			return a.n
		}
	}
	return nil
}

func (p *protocol) epoch(n *node, shard int) (uint64, bool) {
	a := p.agents[n.id]
	return a.epochs[shard], a.gates[shard] == ownership.GateOpen
}

func (p *protocol) holds(n *node, shard int, epoch uint64) bool {
	a := p.agents[n.id]
	// Where reads confirm, the clock is not asked at all.
	return epoch != 0 && a.epochs[shard] == epoch && (p.w.params.ConfirmReads || a.clock() < a.until)
}

func (p *protocol) turnsAway(n *node) bool {
	a := p.agents[n.id]
	return !p.w.params.ConfirmReads && a.had && !a.valid()
}

func (p *protocol) stale(h *host, epoch uint64) {
	p.w.counts.Stale++
	p.agents[h.node.id].step(ownership.Input{Kind: ownership.InputStale, Shard: uint32(h.shard), Epoch: epoch})
}

// say answers at once, or when a read of its own lease confirmed that the incarnation is alive.
func (p *protocol) say(h *host, r *actors.Request, reply func()) {
	if !p.w.params.ConfirmReads || r.Err != nil && (errors.Is(r.Err, actors.ErrNotOwner) ||
		errors.Is(r.Err, actors.ErrUnknownOutcome) ||
		errors.Is(r.Err, actors.ErrUnavailable) || errors.Is(r.Err, actors.ErrExpired)) {
		reply()
		return
	}
	a := p.agents[h.node.id]
	a.unsaid[h.shard]++
	a.confirm(func(confirmed bool) {
		a.unsaid[h.shard]--
		if !confirmed {
			r.Err = actors.ErrUnknownOutcome
		}
		reply()
	})
}

// held looks at the gate at the call, and has it confirmed by a read begun afterwards.
func (p *protocol) held(n *node, shard int, epoch uint64, done func(bool)) {
	if ok := p.holds(n, shard, epoch); !ok || !p.w.params.ConfirmReads {
		p.w.after(0, "held", func() { done(ok) })
		return
	}
	p.agents[n.id].confirm(done)
}

// confirm calls f after a read of its own lease, at a tick to come.
func (a *agent) confirm(f func(confirmed bool)) {
	a.confirms.Add(f)
	a.planConfirm()
}

func (a *agent) planConfirm() {
	if !a.confirming {
		a.confirming = true
		a.later(a.p.w.between(0, 2*millisecond), "confirm", a.readLease)
	}
}

// readLease reads its own lease if there is something to say.
func (a *agent) readLease() {
	w := a.p.w
	a.confirming = false
	if !a.confirms.Begin() {
		return
	}
	a.ask(ownership.Confirmation(a.n.incarnation), 5*w.params.Lease, func(in ownership.Input) {
		w.counts.Confirms++
		covered, alive := a.confirms.Done(in.Lease, in.Err)
		for _, f := range slices.Clone(covered) {
			f(alive)
		}
		a.planConfirm()
	})
}

// check looks at the shards after the world was healed.
func (p *protocol) check() {
	p.owned("after the world was healed")
	p.votes.check()
}

// owned demands that every shard finds an owner that serves it.
func (p *protocol) owned(when string) {
	for shard := range p.w.params.Shards {
		for tries := 0; p.guess(shard) == nil && tries < 200; tries++ {
			p.w.run(p.w.now + 50*millisecond)
		}
		if p.guess(shard) == nil {
			p.w.fail("shard %d has no owner %s: %+v", shard, when, p.rows.shards[shard])
		}
	}
}
