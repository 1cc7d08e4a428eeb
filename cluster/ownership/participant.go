package ownership

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"licensed/cluster/lease"
	"licensed/cluster/placement"
	"licensed/internal/planted"
	"licensed/persistence"
)

// ErrRetired says that an incarnation ended because it was asked to.
var ErrRetired = lease.ErrRetired

// Participant is the part of one incarnation in the protocol of ownership. It is not safe for concurrent use.
type Participant struct {
	config  Config
	self    persistence.Incarnation
	holder  *lease.Holder
	wakeAt  lease.Instant // of the holder
	watches []*watched    // by incarnation
	dead    map[persistence.Incarnation]bool

	shards   []shard
	queue    []uint32 // shards to be looked at
	kept     []uint32 // shards that were looked at and wait for something
	claims   int      // in progress
	moves    int      // in progress
	tokens   float64  // one: hand-overs may begin; less than none: those that did are being paid for
	tokensAt lease.Instant
	bundle   bundle
	later    lease.Instant // when the queue is to be looked at again

	told    []Member                                  // those of the last SetMembers, sorted by name, one for each name
	members []Member                                  // the same, the dead left out
	since   map[persistence.Incarnation]lease.Instant // when each member was first seen
	// departed are members that are no longer seen and whose shards the next scan shows; departing
	// members that left while a scan was in progress, which may have begun too early.
	departed, departing []persistence.Incarnation
	placement           *placement.Placement // of eligible members

	scanning bool
	scanned  bool // once
	scanDue  lease.Instant
	peeking  bool // a plain read of all rows is in progress
	peekDue  lease.Instant
	// scannedAt is when the last read of all rows was answered; doubted says that others said since it began what it
	// does not show.
	scannedAt lease.Instant
	doubted   bool

	reach reach
	// fallback says that no member is known to be reached, so that the placement covers those that are not;
	// cutOff that nothing that is free may be taken, see island.
	fallback, cutOff bool

	rewatch  bool // owners or members changed
	draining bool
	// retiring says that its own lease is being marked dead: nothing is held from then on, not even what
	// turns out to have been claimed.
	retiring bool
	ended    bool
	out      Outputs
}

// bundle is shards of a group whose hand-over to one node begins in one step.
type bundle struct {
	group  uint32
	target persistence.Incarnation
	room   int // how many more may join
}

// watched is the watch of another incarnation's lease.
type watched struct {
	incarnation persistence.Incarnation
	watch       *lease.Watch
	wake        lease.Instant
}

// New returns the machine of a new incarnation.
func New(c Config) (*Participant, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Participant{
		config: c, self: c.Incarnation,
		holder: lease.NewHolder(c.Timing, c.Incarnation, c.Node, c.Address),
		dead:   map[persistence.Incarnation]bool{},
		since:  map[persistence.Incarnation]lease.Instant{},
		shards: make([]shard, c.Shards), tokens: 1, later: lease.Never, peekDue: lease.Never,
		placement: placement.New(nil), reach: reach{proven: c.Proven, votes: map[ballot]*vote{}},
	}
	// Where others try to reach the node, it takes shards once one of them has.
	if c.Witnessed && !c.Proven {
		m.reach.state = Unproven
	}
	for id := range m.shards {
		m.shards[id].row.ID = uint32(id)
	}
	for _, former := range c.Former {
		m.watch(former, true)
	}
	for _, namesake := range c.Namesakes {
		m.watch(namesake, false)
	}
	return m, nil
}

// Step handles one input.
func (m *Participant) Step(in Input) *Outputs {
	out := &m.out
	*out = Outputs{
		Gates: out.Gates[:0], Ops: out.Ops[:0], Changed: out.Changed[:0], Dead: out.Dead[:0], Raised: out.Raised[:0],
		Wake: lease.Never,
	}
	// An incarnation that has ended asks for nothing any more.
	if m.ended {
		out.Ended, out.Cause = true, m.holder.Ended()
		return out
	}
	// Whatever the input is, the lease is looked at first: everything below goes by it.
	if in.Kind == InputDone && in.Op.ofHolder(m.self) {
		m.stepHolder(in.Now, leaseInput(in))
	} else {
		m.stepHolder(in.Now, lease.Input{Now: in.Now})
		if m.holder.Ended() == nil {
			m.apply(in)
		}
	}
	if m.holder.Ended() == nil {
		m.stepWatches(in.Now)
		m.scan(in.Now)
		m.stepReach(in.Now)
		m.plan(in.Now)
		m.retire(in.Now)
	}
	// It may have ended by what was just processed.
	if m.holder.Ended() != nil {
		m.end()
		return out
	}
	if until, ok := m.holder.Until(); ok {
		out.Until = until
	}
	out.Reach, out.Wake = m.reach.state, m.wake()
	return out
}

// end gives up all shards: the lease has ended.
func (m *Participant) end() {
	m.ended = true
	m.out.Gates = m.out.Gates[:0]
	for id := range m.shards {
		m.out.Gates = append(m.out.Gates, Gate{Shard: uint32(id)})
	}
	m.out.Ops, m.out.Changed = m.out.Ops[:0], m.out.Changed[:0]
	m.out.Ended, m.out.Cause = true, m.holder.Ended()
}

// apply processes what the input reports.
func (m *Participant) apply(in Input) {
	switch in.Kind {
	case InputTick:
	case InputDone:
		m.done(in)
	case InputMembers:
		m.setMembers(in.Now, in.Members)
	case InputQuiet:
		if s := m.shard(in.Shard); s != nil && s.state == stateClosing {
			m.release(in.Now, s)
		}
	case InputRow:
		m.hinted(in.Now, in.Row)
	case InputSuspect:
		m.suspected(in.Now, in.Suspect)
	case InputStale:
		m.stale(in.Now, in.Shard, in.Epoch)
	case InputReach:
		m.setReach(in.Now, in)
	case InputDrain:
		// The placement leaves this node out from here on.
		m.draining = true
		m.hurry()
		m.place()
	}
}

// done processes the result of an operation that is not the holder's.
func (m *Participant) done(in Input) {
	switch in.Op.Kind {
	case OpSwapLease, OpReadLease, OpPeekLease:
		i := in.Op.Incarnation
		if in.Op.Kind == OpSwapLease {
			i = in.Op.Lease.Next.Incarnation
		}
		if at, ok := m.findWatch(i); ok {
			m.stepWatch(m.watches[at], leaseInput(in))
		}
	case OpSwapShard:
		m.swapped(in)
	case OpReadShard:
		m.readOne(in)
	case OpReadShards:
		m.readAll(in)
	case OpPeekShards:
		m.peekedAll(in)
	case OpReadVotes:
		m.readVotes(in)
	}
}

// leaseInput is an answer in the words of package lease.
func leaseInput(in Input) lease.Input {
	l := lease.Input{Kind: lease.InputRead, Now: in.Now, Applied: in.Applied, Row: in.Lease, Err: in.Err}
	switch in.Op.Kind {
	case OpSwapLease:
		l.Kind = lease.InputSwapped
	case OpPeekLease:
		l.Kind = lease.InputPeeked
	}
	return l
}

// ofHolder reports whether the operation is on the machine's own lease.
func (o *Op) ofHolder(self persistence.Incarnation) bool {
	return o.Kind == OpSwapLease && o.Lease.Next.Incarnation == self || o.Kind == OpReadLease && o.Incarnation == self
}

// stepHolder has the holder of the lease process an input; a tick only once it is due.
func (m *Participant) stepHolder(now lease.Instant, in lease.Input) {
	if in.Kind == lease.InputTick && now < m.wakeAt {
		return
	}
	l := m.holder.Step(in)
	m.ask(l, m.self)
	m.wakeAt = l.Wake
}

// ask passes on what a machine of package lease asks for.
func (m *Participant) ask(l lease.Outputs, i persistence.Incarnation) {
	if l.Swap != nil {
		m.out.Ops = append(m.out.Ops, Op{Kind: OpSwapLease, Lease: *l.Swap})
	}
	if l.Read {
		m.out.Ops = append(m.out.Ops, Op{Kind: OpReadLease, Incarnation: i})
	}
	if l.Peek {
		m.out.Ops = append(m.out.Ops, Op{Kind: OpPeekLease, Incarnation: i})
	}
}

// retire ends the lease once a draining node has nothing left.
func (m *Participant) retire(now lease.Instant) {
	if !m.draining {
		return
	}
	for i := range m.shards {
		if m.shards[i].state != stateIdle {
			return
		}
	}
	m.retiring = true
	m.holder.Retire()
	m.wakeAt = now
	m.stepHolder(now, lease.Input{Now: now})
}

// Row returns the row of a shard as last known.
func (m *Participant) Row(id uint32) persistence.Shard { return m.shards[id].row }

// watch begins to watch an incarnation unless it is watched or known to be dead.
func (m *Participant) watch(i persistence.Incarnation, over bool) {
	at, ok := m.findWatch(i)
	if ok || m.dead[i] || i == m.self || i.IsZero() {
		return
	}
	m.watches = slices.Insert(m.watches, at, &watched{incarnation: i, watch: lease.NewWatch(m.config.Timing, i, over)})
}

// findWatch returns the position of a watch, by binary search; false if there is none.
func (m *Participant) findWatch(i persistence.Incarnation) (int, bool) {
	return slices.BinarySearchFunc(m.watches, i, func(w *watched, i persistence.Incarnation) int {
		return bytes.Compare(w.incarnation[:], i[:])
	})
}

// stepWatches looks at the leases whose turn it is.
func (m *Participant) stepWatches(now lease.Instant) {
	if m.rewatch {
		m.chooseWatches()
	}
	for _, w := range m.watches {
		if w.wake <= now {
			m.stepWatch(w, lease.Input{Now: now})
		}
	}
	m.watches = slices.DeleteFunc(m.watches, func(w *watched) bool { return w.watch.Dead() })
}

// stepWatch has a watch process an input, and takes note of a death.
func (m *Participant) stepWatch(w *watched, in lease.Input) {
	l := w.watch.Step(in)
	m.ask(l, w.incarnation)
	w.wake = l.Wake
	if w.watch.Dead() && !m.dead[w.incarnation] {
		m.dead[w.incarnation] = true
		m.out.Dead = append(m.out.Dead, w.incarnation)
		m.scanDue = in.Now // it may have owned more than was known
		m.place()
	}
}

// suspected looks at once at a lease that is said to be dead. The death of one that is no member and owns nothing
// changes nothing: a sender of invented names has no lease read.
func (m *Participant) suspected(now lease.Instant, i persistence.Incarnation) {
	if !m.concerns(i) {
		return
	}
	m.watch(i, false)
	if at, ok := m.findWatch(i); ok {
		if planted.Bug(planted.BelieveGossip) {
			m.dead[i] = true
			m.place()
		}
		m.watches[at].watch.Poke()
		m.watches[at].wake = now
	}
}

// concerns reports whether an incarnation is a member, was one until lately, or owns a shard as far as is known.
func (m *Participant) concerns(i persistence.Incarnation) bool {
	if m.shown(i) || slices.Contains(m.departed, i) || slices.Contains(m.departing, i) {
		return true
	}
	for k := range m.shards {
		if m.shards[k].row.Owner == i {
			return true
		}
	}
	return false
}

// maxDead is the number of dead incarnations that are kept in mind before those are forgotten who own nothing and whom
// nobody says to be present. Should one of them be named again, its lease tells again.
const maxDead = 1024

// forget bounds what is kept of the dead.
func (m *Participant) forget() {
	if len(m.dead) <= maxDead {
		return
	}
	// used has the incarnations that rows and members still name.
	used := map[persistence.Incarnation]bool{}
	for i := range m.shards {
		row := &m.shards[i].row
		used[row.Owner], used[row.Successor] = true, true
	}
	for _, o := range m.told {
		used[o.Incarnation] = true
	}
	maps.DeleteFunc(m.dead, func(i persistence.Incarnation, _ bool) bool { return !used[i] })
}

// chooseWatches makes the watches those of today's owners that are this node's to watch.
func (m *Participant) chooseWatches() {
	m.rewatch = false
	wanted := map[persistence.Incarnation]bool{}
	for _, f := range slices.Concat(m.config.Former, m.config.Namesakes) {
		wanted[f] = true
	}
	consider := func(owner persistence.Incarnation) {
		if _, known := wanted[owner]; !known && !owner.IsZero() && owner != m.self && !m.dead[owner] {
			wanted[owner] = m.mineToWatch(owner)
			if wanted[owner] {
				m.watch(owner, false)
			}
		}
	}
	for i := range m.shards {
		consider(m.shards[i].row.Owner)
	}
	for _, o := range m.members {
		consider(o.Incarnation)
	}
	for _, i := range slices.Concat(m.departed, m.departing) {
		consider(i)
	}
	m.watches = slices.DeleteFunc(m.watches, func(w *watched) bool { return !wanted[w.incarnation] })
}

// mineToWatch reports whether this node is to watch that owner: few watch one that seems to be alive.
func (m *Participant) mineToWatch(owner persistence.Incarnation) bool {
	present := slices.ContainsFunc(m.members, func(o Member) bool { return o.Incarnation == owner })
	return !present || m.placement.Among(m.config.Node, binary.BigEndian.Uint64(owner[:]), m.config.Watchers)
}
