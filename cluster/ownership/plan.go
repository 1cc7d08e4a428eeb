package ownership

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	"licensed/cluster/lease"
	"licensed/cluster/placement"
	"licensed/internal/planted"
	"licensed/persistence"
)

// setMembers processes who seems to be alive. Gossip tells much that is nothing to this machine, and the same
// members again cost little.
func (m *Participant) setMembers(now lease.Instant, members []Member) {
	members = slices.Clone(members)
	slices.SortStableFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	members = slices.CompactFunc(members, func(a, b Member) bool { return a.Name == b.Name })
	if slices.Equal(members, m.told) {
		return
	}
	former := m.members
	m.told, m.members = members, slices.Clone(members)
	since := map[persistence.Incarnation]lease.Instant{}
	for _, o := range m.members {
		since[o.Incarnation] = now
		if first, ok := m.since[o.Incarnation]; ok {
			since[o.Incarnation] = first
		}
	}
	m.since = since
	for _, o := range former {
		if _, there := since[o.Incarnation]; !there {
			m.departs(now, o.Incarnation)
		}
	}
	m.judge(now)
	m.place()
}

// departs has a node that seems to be gone watched until its shards are known.
func (m *Participant) departs(now lease.Instant, i persistence.Incarnation) {
	if i.IsZero() || i == m.self || m.dead[i] {
		return
	}
	if m.scanning {
		m.departing = append(m.departing, i)
	} else {
		m.departed = append(m.departed, i)
	}
	m.scanDue = now
}

// place computes who should own what, and has every shard looked at.
func (m *Participant) place() {
	// The dead are never candidates, whatever gossip lists.
	m.members = slices.DeleteFunc(m.members, func(o Member) bool { return m.dead[o.Incarnation] })
	var candidates []placement.Candidate
	for k := range m.members {
		o := &m.members[k]
		if self := o.Incarnation == m.self; !o.Eligible || o.Incarnation.IsZero() ||
			self && (m.draining || m.reach.state == Accused) {
			continue
		}
		candidates = append(candidates,
			placement.Candidate{Node: placement.Node{Name: o.Name, Capacity: o.Capacity}, Reached: m.open(o)})
	}
	m.placement, m.fallback = placement.NewReached(candidates)
	m.rewatch = true
	// Each begins with another group, so that nodes that release at the same time seldom do it in one group: the
	// store has one round of Paxos wait for the other there.
	first := int(binary.BigEndian.Uint16(m.self[:])) % len(m.shards)
	for k := range m.shards {
		m.enqueue(&m.shards[(first+k)%len(m.shards)])
	}
}

// target returns the member that should own a shard; a zero incarnation if there is none.
func (m *Participant) target(id uint32) (name string, i persistence.Incarnation) {
	name, ok := m.placement.Owner(id)
	if !ok {
		return "", persistence.Incarnation{}
	}
	at, _ := slices.BinarySearchFunc(m.members, name,
		func(o Member, name string) int { return strings.Compare(o.Name, name) })
	return name, m.members[at].Incarnation
}

// mine reports whether this node should own the shard and can.
func (m *Participant) mine(s *shard) bool {
	_, i := m.target(s.row.ID)
	return i == m.self && !m.draining && m.valid()
}

// valid reports whether the lease is valid at the time of this step.
func (m *Participant) valid() bool {
	_, ok := m.holder.Until()
	return ok
}

// plan looks at the shards that need it. Those that wait for something stay in the queue.
func (m *Participant) plan(now lease.Instant) {
	m.later = lease.Never
	if !m.scanned {
		return
	}
	// A token is one hand-over: they are spread over the time, and never saved up.
	m.tokens = min(1, m.tokens+now.Sub(m.tokensAt).Seconds()*m.config.MovesPerSecond)
	m.tokensAt = now
	m.bundle = bundle{}
	m.cutOff = m.island()
	for k := 0; k < len(m.queue); k++ { // which grows
		s := &m.shards[m.queue[k]]
		s.queued = false
		m.look(now, s)
	}
	m.queue, m.kept = m.kept, m.queue[:0]
	for _, id := range m.queue {
		m.shards[id].queued = true
	}
}

// keep has the shard looked at again at that instant, and whenever something else happens.
func (m *Participant) keep(s *shard, at lease.Instant) {
	m.later = min(m.later, at)
	m.kept = append(m.kept, s.row.ID)
}

// look does what is to be done about a shard now.
func (m *Participant) look(now lease.Instant, s *shard) {
	switch s.state {
	case stateIdle:
		m.lookIdle(now, s)
	case stateHeld:
		m.lookHeld(now, s)
	case stateClosing:
		switch {
		case m.mine(s): // the successor went away
			m.unmove(s)
			s.state = stateHeld
			m.setGate(s, Gate{Kind: GateOpen, Epoch: s.epoch})
		case now >= s.due:
			m.release(now, s)
		default:
			m.keep(s, s.due)
		}
	case stateClaiming, stateReleasing:
		switch {
		// Only one operation on a shard is in flight at a time.
		case s.flight: // its result has the shard looked at
		case now >= s.due:
			s.flight = true
			m.out.Ops = append(m.out.Ops, Op{Kind: OpReadShard, Shard: s.row.ID, OldShard: s.row})
		default:
			m.keep(s, s.due)
		}
	}
}

// lookIdle takes a shard that is free, or whose row turns out to name this node already.
func (m *Participant) lookIdle(now lease.Instant, s *shard) {
	switch {
	case !m.valid(), m.retiring && !planted.Bug(planted.HoldWhileRetiring):
		m.keep(s, lease.Never)
	case s.row.Owner == m.self && (s.row.Epoch > s.released || planted.Bug(planted.AdoptReleased)):
		if planted.Bug(planted.ForgetUnknownClaim) {
			return
		}
		m.hold(now, s) // a claim that took effect after it was given up
	case s.row.Owner == m.self:
		if planted.Bug(planted.LeaveReleaseUnresolved) {
			return
		}
		m.reclaim(now, s)
	// Another node's word that it released the shard to this one: the compare-and-set
	// shows whether it is true.
	case Later(s.row, s.hint) && (m.reach.state == Reached || m.takes()):
		m.tryClaim(now, s, s.hint)
	case s.row.Owner.IsZero() || m.dead[s.row.Owner] || planted.Bug(planted.TakeFromTheLiving):
		m.lookFree(now, s)
	default:
		s.ownerless = 0
		m.setGate(s, Gate{})
	}
}

// lookFree takes a shard without an owner if it is this node's, or long left by others.
func (m *Participant) lookFree(now lease.Instant, s *shard) {
	if s.ownerless == 0 {
		s.ownerless = now
	}
	// All rows are read soon, since this one may be out of date.
	m.scanDue = min(m.scanDue, now.Add(m.config.Timing.TTL/2)) // see whether another took it
	wait := m.claimAfter(s)
	switch at := s.ownerless.Add(wait); {
	case wait == neverClaim:
		m.setGate(s, Gate{})
		m.keep(s, lease.Never)
	case now < at:
		m.setGate(s, Gate{})
		m.keep(s, at)
	default:
		m.tryClaim(now, s, s.row)
	}
}

// tryClaim claims a shard when there is room for another claim.
func (m *Participant) tryClaim(now lease.Instant, s *shard, old persistence.Shard) {
	switch {
	case m.draining:
		m.keep(s, lease.Never)
	case now < s.due:
		m.keep(s, s.due)
	case m.claims >= m.config.MaxClaims:
		m.setGate(s, Gate{Kind: GateExpected})
		m.keep(s, lease.Never)
	default:
		if s.above > old.Epoch {
			m.out.Raised = append(m.out.Raised, s.row.ID)
		}
		m.claim(now, s, old)
	}
}

// reclaim resolves a shard that names this node under an epoch it gave up.
func (m *Participant) reclaim(now lease.Instant, s *shard) {
	if m.mine(s) {
		m.tryClaim(now, s, s.row)
		return
	}
	m.moves++
	s.state = stateReleasing
	m.sendRelease(now, s)
}

// neverClaim stands for a shard that this node leaves to others as long as nothing
// changes.
const neverClaim = time.Duration(-1)

// claimAfter returns the time a free shard is left to others: not at all if it is this node's, a while if
// it is another's, for it may have a reason not to take it that this node does not see.
func (m *Participant) claimAfter(s *shard) time.Duration {
	ttl := m.config.Timing.TTL
	successor := s.row.Successor
	_, present := m.since[successor]
	switch {
	case !m.takes() || m.cutOff:
		return neverClaim
	case m.fallback:
		// Whether this node is reached will be known soon, if another process is running.
		if !m.mine(s) {
			return 5 * ttl
		}
		return ttl
	case successor == m.self:
		return 0
	case !successor.IsZero() && present && !m.dead[successor] && m.mine(s):
		return ttl
	case m.mine(s):
		return 0
	default:
		return 4 * ttl
	}
}

// takes reports whether this node may take shards.
func (m *Participant) takes() bool {
	self := slices.IndexFunc(m.members, func(o Member) bool { return o.Incarnation == m.self })
	return !m.draining && self >= 0 && m.members[self].Eligible && m.reach.state != Accused &&
		(m.fallback || m.open(&m.members[self]))
}

// lookHeld begins the hand-over of a shard that should be another's.
func (m *Participant) lookHeld(now lease.Instant, s *shard) {
	_, target := m.target(s.row.ID)
	leaving := m.draining || m.reach.state == Accused
	switch {
	case target == m.self, target.IsZero() && !leaving, m.fallback && !leaving:
	case !leaving && m.reach.state == Unproven && now < m.reach.patience:
		m.keep(s, m.reach.patience)
	case !target.IsZero() && now.Sub(m.since[target]) < m.config.Settle:
		m.keep(s, m.since[target].Add(m.config.Settle))
	case !leaving && now.Sub(s.since) < m.config.Settle:
		m.keep(s, s.since.Add(m.config.Settle)) // its giver may be leaving, which is not yet known here
	default:
		if at := m.moveAt(now, s, target); at > now {
			m.keep(s, at)
			return
		}
		m.close(now, s)
	}
}

// moveAt returns when the hand-over of a shard may begin. The first that may begins a bundle, which others of
// its group for the same node join in the same step: the store changes their rows at the price of one, when they
// are released and when that node claims them, and nobody else claims in that group meanwhile. What a bundle takes
// of MovesPerSecond is waited for after it.
func (m *Participant) moveAt(now lease.Instant, s *shard, target persistence.Incarnation) lease.Instant {
	group := s.row.ID % m.config.Groups
	switch {
	case m.moves >= m.config.MaxMoves:
		return lease.Never
	case m.reach.state == Accused: // its customers are served by nobody
	case m.bundle.room > 0 && m.bundle.group == group && m.bundle.target == target:
		m.bundle.room--
	case m.tokens < 1:
		return now.Add(time.Duration((1-m.tokens)/m.config.MovesPerSecond*float64(time.Second)) + 1)
	default:
		m.bundle = bundle{group: group, target: target, room: int(m.config.MovesPerSecond/bundlesPerSecond) - 1}
	}
	return now
}

// hurry has what a draining node holds handed over in the time for it, if that takes more than MovesPerSecond.
func (m *Participant) hurry() {
	held := 0
	for i := range m.shards {
		if m.shards[i].state != stateIdle {
			// Counted in any state: a claim that is in flight may yet have to be handed
			// over.
			held++
		}
	}
	c := &m.config
	if rate := float64(held) / c.DrainWithin.Seconds(); c.DrainWithin > 0 && rate > c.MovesPerSecond {
		c.MaxMoves = max(c.MaxMoves, min(c.MaxClaims, int(math.Ceil(float64(c.MaxMoves)*rate/c.MovesPerSecond))))
		c.MovesPerSecond = rate
	}
}

// bundlesPerSecond is the number of bundles of shards that are handed over in a second, if they can be large enough.
const bundlesPerSecond = 10

// wake returns when there is something to do by itself.
func (m *Participant) wake() lease.Instant {
	at := min(m.wakeAt, m.later)
	for _, w := range m.watches {
		at = min(at, w.wake)
	}
	if !m.scanning {
		at = min(at, m.scanDue)
		if !m.peeking {
			at = min(at, m.peekDue)
		}
	}
	if m.config.Witnessed && !m.reach.reading {
		at = min(at, m.reach.due)
	}
	return at
}
