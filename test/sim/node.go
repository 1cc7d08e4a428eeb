package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"licensed/actors"
	"licensed/persistence"
)

// oracle grants shards: to one node at a time, under rising epochs, and to another only when the
// former owner's lease has ended. It stands for leases and shard rows, which have a protocol of their own.
type oracle struct {
	w      *world
	shards []grant
}

type grant struct {
	owner persistence.Incarnation
	node  *node
	epoch uint64
	until micros // end of the lease that the owner believes in
}

func (o *oracle) begin() { o.tick() }

func (o *oracle) guess(shard int) *node { return o.shards[shard].node }

func (o *oracle) epoch(n *node, shard int) (uint64, bool) {
	g := &o.shards[shard]
	return g.epoch, g.owner == n.incarnation
}

func (o *oracle) say(_ *host, _ *actors.Request, reply func()) { reply() }

func (o *oracle) held(n *node, shard int, epoch uint64, done func(bool)) {
	o.w.after(0, "held", func() { done(o.holds(n, shard, epoch)) })
}

func (o *oracle) started(*node) {}

func (o *oracle) paused(*node) {}

func (o *oracle) stale(*host, uint64) {}

func (o *oracle) check() {}

func (o *oracle) turnsAway(*node) bool { return false }

// holds is what a node believes: [R1] makes it true only while no other can be granted the shard.
func (o *oracle) holds(n *node, shard int, epoch uint64) bool {
	g := &o.shards[shard]
	return g.owner == n.incarnation && g.epoch == epoch && o.w.now < g.until
}

// tick renews leases and grants shards whose lease has ended.
func (o *oracle) tick() {
	w := o.w
	for i := range o.shards {
		g := &o.shards[i]
		alive := g.node != nil && g.node.up && g.node.incarnation == g.owner && w.now >= g.node.pausedUntil
		switch {
		case alive && !w.chance(w.params.MissRenewal):
			g.until = w.now + w.params.Lease
		case w.now >= g.until+w.params.Lease/4 && (!alive || w.chance(0.5)):
			n := w.nodes[w.IntN(len(w.nodes))]
			if !n.up || w.now < n.pausedUntil {
				continue
			}
			*g = grant{owner: n.incarnation, node: n, epoch: g.epoch + 1, until: w.now + w.params.Lease}
			w.counts.Takeovers++
			w.trace("shard %d goes to node %d, epoch %d", i, n.id, g.epoch)
		}
	}
	w.after(w.params.Lease/4, "oracle", o.tick)
}

// node is one process and its successors.
type node struct {
	w           *world
	id          int
	name        string
	incarnation persistence.Incarnation
	up          bool
	pausedAt    micros
	pausedUntil micros
	skew        time.Duration
	ahead       time.Duration // of the wall clock, while it is wrong
	floor       uint64
	env         *actors.Environment
	hosted      map[string]*host
	loads       map[string]int // how often each aggregate was loaded
}

// host drives the machine of one aggregate, as the product's shell does.
type host struct {
	node    *node
	id      string
	shard   int
	machine *actors.Machine
	ended   bool
	pending int // requests handed in and not answered
	replyTo map[*actors.Request]func(*actors.Request)
}

func (n *node) start() {
	inc := n.w.newIncarnation()
	n.up, n.pausedUntil = true, 0
	n.skew = time.Duration(n.w.between(-20*millisecond, 20*millisecond)) * time.Microsecond
	n.begin(inc)
	n.w.authority.started(n)
}

// begin makes the process speak as that incarnation.
func (n *node) begin(inc persistence.Incarnation) {
	n.incarnation, n.floor = inc, 0
	n.hosted, n.loads = map[string]*host{}, map[string]int{}
	n.env = &actors.Environment{
		Kind:        n.w.params.Kind,
		Config:      n.w.params.Config,
		Incarnation: n.incarnation,
		MaxMutation: n.w.params.MaxMutation, MaxRoot: n.w.params.MaxRoot, ReadsPast: true,
	}
}

func (n *node) crash() {
	n.up = false
	n.hosted = nil
	n.w.counts.Crashes++
}

func (n *node) clock() time.Time {
	return epochStart.Add(time.Duration(n.w.now) * time.Microsecond).Add(n.skew + n.ahead)
}

// steady is the clock of the machine that nobody sets.
func (n *node) steady() time.Time {
	return epochStart.Add(time.Duration(n.w.now) * time.Microsecond)
}

// setClockWrong sets the wall clock of the machine wrong for a while.
func (n *node) setClockWrong() { n.w.jump(fmt.Sprintf("node %d", n.id), &n.ahead) }

// jump sets a clock wrong for a while, by up to twice the age of windows.
func (w *world) jump(whose string, ahead *time.Duration) {
	*ahead = time.Duration(w.Int64N(2 * int64(w.params.Config.Window.MaxAge)))
	if w.params.ClocksBehind && w.IntN(2) == 0 {
		*ahead = -*ahead
	}
	w.counts.WrongClocks++
	w.trace("%s: the clock is %v ahead", whose, *ahead)
	w.after(w.between(millisecond, 200*millisecond), whose+": the clock is right again", func() { *ahead = 0 })
}

// pause stops the process for a while, as SIGSTOP does.
func (n *node) pause() {
	w := n.w
	n.pausedAt, n.pausedUntil = w.now, w.now+w.between(w.params.Lease/4, 4*w.params.Lease)
	w.authority.paused(n)
	w.counts.Pauses++
	w.trace("node %d is paused until %d", n.id, n.pausedUntil)
}

// later runs f in the process as it is now, at that time or when it continues after a pause.
func (n *node) later(d micros, what string, f func()) {
	inc := n.incarnation
	var run func()
	run = func() {
		switch {
		case !n.up || n.incarnation != inc:
		case n.w.now < n.pausedUntil:
			n.w.at(n.pausedUntil, what, run)
		default:
			f()
		}
	}
	n.w.after(d, what, run)
}

// request hands a request to the aggregate's machine.
func (n *node) request(id string, r *actors.Request, reply func(*actors.Request)) {
	if n.w.authority.turnsAway(n) {
		r.Err = actors.ErrNotOwner
		reply(r)
		return
	}
	h := n.hosted[id]
	if h == nil || h.ended {
		shard := n.w.shardOf(id)
		epoch, ok := n.w.authority.epoch(n, shard)
		if !ok {
			r.Err = actors.ErrNotOwner
			reply(r)
			return
		}
		h = &host{node: n, id: id, shard: shard, replyTo: map[*actors.Request]func(*actors.Request){}}
		h.machine = actors.NewMachine(n.env, id, epoch, n.floor)
		n.hosted[id] = h
		n.loads[id]++
	}
	h.pending++
	h.replyTo[r] = reply
	h.step(actors.Input{Kind: actors.InputRequest, Request: r})
	if n.w.chance(n.w.params.GiveUp) {
		n.later(n.w.between(0, 60*millisecond), "give up", func() { h.giveUp(r) })
	}
}

// giveUp ends the waiting for a request, as the product's shell does when a caller's context ends.
func (h *host) giveUp(r *actors.Request) {
	reply, waits := h.replyTo[r]
	if !waits {
		return
	}
	gone, notExecuted := r.GiveUp()
	if !gone {
		return
	}
	h.replyTo[r] = func(*actors.Request) {}
	err := actors.ErrUnknownOutcome
	if notExecuted {
		err = actors.ErrExpired
		h.node.w.counts.Withdrawn++
	}
	reply(&actors.Request{Err: err})
	h.step(actors.Input{Kind: actors.InputGivenUp})
}

func (h *host) step(in actors.Input) {
	if h.ended {
		return
	}
	in.Now, in.Steady = h.node.clock(), h.node.steady()
	in.Held = h.node.w.authority.holds(h.node, h.shard, h.machine.Epoch())
	h.do(h.machine.Step(in))
}

// do carries out what the machine asks for.
func (h *host) do(out *actors.Outputs) {
	n, w := h.node, h.node.w
	for _, r := range out.Replies {
		reply := h.replyTo[r]
		delete(h.replyTo, r)
		w.authority.say(h, r, func() {
			h.pending--
			reply(r)
		})
	}
	if out.Ended {
		w.counts.Ended++
		n.floor = max(n.floor, out.Unresolved)
		h.ended = true
		if out.StaleEpoch > 0 {
			w.authority.stale(h, out.StaleEpoch)
		}
		if out.Cause != nil && errors.Is(out.Cause, actors.ErrCorrupt) && w.store.losses == 0 {
			w.fail("node %d: activation of %s ended: %v", n.id, h.id, out.Cause)
		}
		return
	}
	if out.Recovered != nil {
		w.counts.Activations++
		if out.Recovered.Damage != nil {
			w.counts.Rebuilt++
			w.trace("node %d rebuilt %s from %d events", n.id, h.id, out.Recovered.Rebuilt)
		}
	}
	if out.Append != nil {
		if root := w.store.root(out.Append.Partition.RootKey); root != nil && root.IsBare() {
			w.counts.Freed++
		}
		w.store.append(*out.Append, func(err error) {
			n.later(0, "appended", func() { h.step(actors.Input{Kind: actors.InputAppended, Err: err}) })
		})
	}
	if out.PutRoot != nil {
		w.counts.Roots++
		if most := w.params.MaxRoot; most > 0 && out.PutRoot.Size() > most {
			w.fail("node %d: root %s of %d bytes, the store takes %d", n.id, out.PutRoot.Key, out.PutRoot.Size(), most)
		}
		if out.PutRoot.IsBare() {
			w.counts.Bare++
		}
		if w.chance(w.params.Archive) { // ask for the head while the root is in flight
			n.later(0, "archive", func() {
				if !h.ended {
					h.archive()
				}
			})
		}
		w.store.putRoot(*out.PutRoot, func(err error) {
			n.later(0, "root written", func() { h.step(actors.Input{Kind: actors.InputRootWritten, Err: err}) })
		})
	}
	if out.ReadTop {
		h.readTop(func(root persistence.Root, err error) {
			n.later(0, "top read", func() { h.step(actors.Input{Kind: actors.InputTop, Root: &root, Err: err}) })
		})
	}
	if out.ReadPast != nil {
		h.readPast(*out.ReadPast, func(past persistence.Past, err error) {
			n.later(0, "past read", func() { h.step(actors.Input{Kind: actors.InputPast, Past: &past, Err: err}) })
		})
	}
	if out.ReadRows != nil {
		rr := *out.ReadRows
		w.store.readRecords(rr.Partition, rr.After, rr.Limit, func(records []persistence.Record, err error) {
			n.later(0, "rows read", func() { h.step(actors.Input{Kind: actors.InputRows, Records: records, Err: err}) })
		})
	}
	if !out.Wake.IsZero() {
		d := micros(out.Wake.Sub(n.steady()) / time.Microsecond)
		n.later(max(0, d)+1, "tick", func() { h.step(actors.Input{Kind: actors.InputTick}) })
	}
}

// disturb does to the node what happens to processes.
func (n *node) disturb() {
	w := n.w
	p := &w.params
	switch {
	case !n.up:
		n.start()
		w.trace("node %d starts as %s", n.id, n.incarnation)
	case w.chance(p.Crash):
		n.crash()
		w.trace("node %d crashes", n.id)
	case w.chance(p.Pause):
		n.pause()
	}
	if w.chance(p.WrongClock) {
		n.setClockWrong()
	}
	if n.up && w.now >= n.pausedUntil {
		n.disturbHosts()
	}
	w.after(w.between(20*millisecond, 120*millisecond), fmt.Sprintf("disturb node %d", n.id), n.disturb)
}

// passivate releases a machine that has nothing in progress. The archiver is told where its history ends,
// as the product does: by the word of a machine that may have lost its shard long ago.
func (h *host) passivate() {
	w := h.node.w
	w.trace("node %d passivates %s", h.node.id, h.id)
	w.counts.Passivations++
	h.ended = true
	if !w.chance(w.params.Archive) {
		return
	}
	q := &actors.Request{Query: actors.HeadQuery{}}
	held := w.authority.holds(h.node, h.shard, h.machine.Epoch())
	out := h.machine.Step(
		actors.Input{Kind: actors.InputRequest, Request: q, Now: h.node.clock(), Steady: h.node.steady(), Held: held},
	)
	if held && slices.Contains(out.Replies, q) && q.Err == nil {
		h.archiveFrom(q.Answer.Head)
	}
}

// hosts returns what the node hosts, in the order of ids.
func (n *node) hosts() []*host {
	all := make([]*host, 0, len(n.hosted))
	for _, id := range slices.Sorted(maps.Keys(n.hosted)) {
		all = append(all, n.hosted[id])
	}
	return all
}

// disturbHosts restarts, packs and passivates actors.
func (n *node) disturbHosts() {
	w := n.w
	for _, h := range n.hosts() {
		id := h.id
		switch {
		case h.ended:
		case w.chance(w.params.RestartActor):
			w.trace("node %d restarts %s", n.id, id)
			h.do(h.machine.Halt(actors.ErrNotOwner))
		case w.chance(w.params.Archive):
			h.archive()
		case h.pending == 0 && h.machine.Quiescent() && w.chance(w.params.Passivate):
			h.passivate()
		case h.machine.Quiescent() && w.chance(0.3):
			h.machine.Pack()
		}
	}
}
