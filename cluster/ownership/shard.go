package ownership

import (
	"errors"
	"time"

	"licensed/cluster/lease"
	"licensed/internal/planted"
	"licensed/persistence"
)

// state is what this incarnation does about one shard.
type state uint8

const (
	stateIdle      state = iota // nothing is in progress
	stateClaiming               // a compare-and-set from old to next is in progress or unresolved
	stateHeld                   // next was seen to be the row, under a valid lease
	stateClosing                // held, for requests in progress
	stateReleasing              // a release was sent; whatever its outcome, not held
)

// shard is what the machine knows of a shard and does about it.
type shard struct {
	row   persistence.Shard // as last read or written, which may be long ago
	state state
	epoch uint64        // under which it is held
	since lease.Instant // when it began to be held
	// released is the highest epoch for which a release was sent: never again held under it.
	released uint64

	// old and next are those of the compare-and-set of stateClaiming and stateReleasing.
	old, next persistence.Shard
	flight    bool          // an operation is in progress
	due       lease.Instant // stateClosing: when waiting ends; else when to try again

	hint      persistence.Shard // a release to this node, as another says; zero if none
	hintDue   lease.Instant     // when the next one is tried
	above     uint64            // an epoch that history, or a row that is gone, was found to have
	ownerless lease.Instant     // since when the row was seen to be free to take; 0: it is not
	gate      Gate              // as last set
	queued    bool
}

// holds reports whether requests for the shard may be in progress.
func (s *shard) holds() bool { return s.state == stateHeld || s.state == stateClosing }

// Later reports whether row b of a shard came after row a: epochs rise, and within one there is an owner
// first and then none. Rows that were heard of in any order are put in theirs by it.
func Later(a, b persistence.Shard) bool {
	return b.Epoch > a.Epoch || b.Epoch == a.Epoch && b.Owner.IsZero() && !a.Owner.IsZero()
}

// shard returns the state of a shard, or nil if there is none.
func (m *Participant) shard(id uint32) *shard {
	if uint64(id) >= uint64(len(m.shards)) {
		return nil
	}
	return &m.shards[id]
}

// enqueue has the shard looked at in this step.
func (m *Participant) enqueue(s *shard) {
	if !s.queued {
		s.queued = true
		m.queue = append(m.queue, s.row.ID)
	}
}

// setGate sets the gate of a shard, if that is a change.
func (m *Participant) setGate(s *shard, g Gate) {
	g.Shard = s.row.ID
	if s.gate != g {
		s.gate = g
		m.out.Gates = append(m.out.Gates, g)
	}
}

// merge processes a row that the store showed at some moment. Replies may overtake one another, so what
// is older than the row known already is passed over.
func (m *Participant) merge(s *shard, row persistence.Shard) {
	if row.ID != s.row.ID || !Later(s.row, row) {
		return
	}
	s.row = row
	s.ownerless = 0
	m.rewatch = true
	m.enqueue(s)
	if s.holds() && (row.Epoch != s.epoch || row.Owner != m.self) {
		// Another took it, so this incarnation must have been marked dead: the lease will show it.
		m.unmove(s)
		s.state, s.epoch = stateIdle, 0
		m.setGate(s, Gate{})
	}
}

// unmove takes a shard off the moves in progress, if it is one.
func (m *Participant) unmove(s *shard) {
	if s.state == stateClosing || s.state == stateReleasing {
		m.moves--
	}
}

// claim begins to take a shard whose row is old, to an epoch above all that are known.
func (m *Participant) claim(now lease.Instant, s *shard, old persistence.Shard) {
	m.unmove(s)
	m.claims++
	s.state, s.epoch, s.hint = stateClaiming, 0, persistence.Shard{}
	s.old, s.next = old, persistence.Shard{ID: old.ID, Epoch: max(old.Epoch, s.above) + 1, Owner: m.self}
	if planted.Bug(planted.ReuseEpoch) {
		s.next.Epoch = max(old.Epoch, s.above, 1)
	}
	m.setGate(s, Gate{Kind: GateExpected})
	if planted.Bug(planted.HoldBeforeClaim) {
		m.setGate(s, Gate{Kind: GateOpen, Epoch: s.next.Epoch})
	}
	m.swap(now, s)
}

// swap begins the compare-and-set of the shard.
func (m *Participant) swap(now lease.Instant, s *shard) {
	s.flight, s.due = true, now
	m.out.Ops = append(m.out.Ops, Op{Kind: OpSwapShard, OldShard: s.old, NextShard: s.next})
}

// hold begins to own a shard: its row was seen to name this incarnation ([R3]).
func (m *Participant) hold(now lease.Instant, s *shard) {
	s.state, s.epoch, s.since = stateHeld, s.row.Epoch, now
	s.ownerless = 0
	m.setGate(s, Gate{Kind: GateOpen, Epoch: s.epoch})
	m.out.Changed = append(m.out.Changed, s.row)
	m.enqueue(s)
}

// close begins the hand-over of a shard.
func (m *Participant) close(now lease.Instant, s *shard) {
	m.moves++
	if m.reach.state != Accused {
		m.tokens--
	}
	s.state, s.due = stateClosing, now.Add(m.config.CloseTimeout)
	m.setGate(s, Gate{Kind: GateClosing, Epoch: s.epoch})
	m.enqueue(s)
}

// release gives a closed shard away. The gate is shut before the compare-and-set is sent: from then on
// nothing more is said for the shard, whatever comes of it.
func (m *Participant) release(now lease.Instant, s *shard) {
	s.state, s.released, s.epoch = stateReleasing, s.row.Epoch, 0
	m.sendRelease(now, s)
}

// sendRelease gives the shard to the node that should own it, or to nobody. From here on
// it is not held, whatever the outcome.
func (m *Participant) sendRelease(now lease.Instant, s *shard) {
	_, successor := m.target(s.row.ID)
	if successor == m.self {
		successor = persistence.Incarnation{}
	}
	s.old = s.row
	s.next = persistence.Shard{ID: s.row.ID, Epoch: max(s.row.Epoch, s.above), Successor: successor}
	if s.gate.Kind != GateClosing || !planted.Bug(planted.SpeakUntilReleased) {
		m.setGate(s, Gate{Successor: successor})
	}
	m.swap(now, s)
}

// swapped processes the outcome of a compare-and-set.
func (m *Participant) swapped(in Input) {
	s := m.shard(in.Op.NextShard.ID)
	// The result of an operation that was given up in the meantime.
	if s == nil || !s.flight || s.old != in.Op.OldShard || s.next != in.Op.NextShard {
		return
	}
	s.flight = false
	switch {
	case in.Err == nil && in.Applied:
		m.merge(s, s.next)
		m.resolve(in.Now, s)
	case in.Err == nil:
		if m.merge(s, in.Row); s.row != s.old {
			m.resolve(in.Now, s)
			return
		}
		s.due = in.Now.Add(m.pause()) // refused, and nothing later that would explain it: see adopt
		m.enqueue(s)
	case errors.Is(in.Err, persistence.ErrRejected):
		s.due = in.Now.Add(m.pause()) // it would be again
		m.enqueue(s)
	case planted.Bug(planted.UnknownClaimIsMade):
		m.merge(s, s.next)
		m.resolve(in.Now, s)
	case planted.Bug(planted.LeaveReleaseUnresolved) && s.state == stateReleasing:
		m.unmove(s)
		s.state = stateIdle
	default:
		s.due = in.Now
		m.enqueue(s)
	}
}

// readOne processes a row that was read to resolve a compare-and-set.
func (m *Participant) readOne(in Input) {
	s := m.shard(in.Op.Shard)
	if s == nil || !s.flight {
		return
	}
	s.flight = false
	m.enqueue(s)
	if in.Err != nil {
		s.due = in.Now.Add(m.pause())
		return
	}
	// A read without a row is the zero row of this shard.
	in.Row.ID = s.row.ID // none, if there is no row
	if m.merge(s, in.Row); s.row == in.Op.OldShard && s.row != in.Row {
		m.adopt(s, in.Row)
	}
	m.resolve(in.Now, s)
}

// adopt goes by a row that is not later than the one known, though the read of it began later: ownership was
// restored from a backup, or deleted, while nodes ran. The shard is not held. Compare-and-sets on the row that is
// gone would fail forever; those on this one go above every epoch that is known, and none of these is held again.
func (m *Participant) adopt(s *shard, row persistence.Shard) {
	s.above = max(s.above, s.released, s.row.Epoch)
	s.released = s.above
	s.row, s.hint, s.ownerless = row, persistence.Shard{}, 0
	m.rewatch = true
}

// resolve ends a compare-and-set, or tries it again, by what the row was after it was sent.
func (m *Participant) resolve(now lease.Instant, s *shard) {
	m.enqueue(s)
	switch s.state {
	case stateClaiming:
		m.claims--
		s.state = stateIdle
		if s.row == s.next && s.row.Epoch > s.released {
			m.hold(now, s)
		}
	case stateReleasing:
		switch {
		case s.row != s.old || planted.Bug(planted.AdoptReleased): // released, or already another's
			m.unmove(s)
			s.state = stateIdle
			m.out.Changed = append(m.out.Changed, s.row)
		case m.mine(s) && planted.Bug(planted.GoOnAfterRelease):
			m.unmove(s)
			m.hold(now, s)
		case m.mine(s):
			m.claim(now, s, s.row) // superseded: a late release fails on the epoch
		default:
			m.sendRelease(now, s)
		}
	}
}

// hinted hears of a row that another node says there is. Whatever it is, all rows are read within a TTL, and that
// decides. A release of a shard to this node is tried at once, by a compare-and-set: one in a while for each shard. An
// impossible row, of the highest epoch, changes no more than any other wrong one: the store rejects the claim.
func (m *Participant) hinted(now lease.Instant, row persistence.Shard) {
	s := m.shard(row.ID)
	if s == nil || !Later(s.row, row) {
		return
	}
	ttl := m.config.Timing.TTL
	m.doubted = true
	if planted.Bug(planted.HeardIsStored) {
		m.merge(s, row)
	}
	m.scanDue = min(m.scanDue, max(now.Add(ttl/4), m.scannedAt.Add(m.doubtFor())))
	if row.Owner.IsZero() && row.Successor == m.self && now >= s.hintDue {
		s.hint, s.hintDue = row, now.Add(ttl/8)
		m.enqueue(s)
	}
}

// doubtFor is the time between two reads of all rows because of what others say. It differs from node to node, so that
// nodes that hear the same do not all read at the same time.
func (m *Participant) doubtFor() time.Duration {
	ttl := m.config.Timing.TTL
	return ttl/2 + ttl/4*time.Duration(m.self[0])/256
}

// stale records that history has an epoch of another incarnation that is not below the one held: either
// another node took the shard, or ownership was restored from a backup that is older than the history. The
// compare-and-set tells. Equal epochs are of the second kind: an epoch is claimed once.
func (m *Participant) stale(now lease.Instant, id uint32, found uint64) {
	s := m.shard(id)
	if s == nil || !s.holds() || s.epoch > found {
		return
	}
	s.released, s.above = s.epoch, found
	m.out.Raised = append(m.out.Raised, id)
	m.claim(now, s, s.row)
}

// readAll processes the rows of all shards.
func (m *Participant) readAll(in Input) {
	m.scanning = false
	if in.Err != nil {
		m.scanDue = in.Now.Add(m.pause())
		return
	}
	m.scannedAt, m.scanDue = in.Now, lease.Never
	if m.doubted {
		m.scanDue = in.Now.Add(m.doubtFor())
	}
	m.mergeAll(in)
	if !m.scanned {
		m.scanned = true
		m.place()
	}
	// Members that left before the read began are among the owners now, or own nothing.
	m.departed, m.departing = m.departing, nil
	switch {
	case len(m.departed) > 0:
		m.scanDue = in.Now
	case m.config.Witnessed && m.strangers():
		m.scanDue = in.Now.Add(m.strangersScanEvery())
	}
	m.rewatch = true
}

// peekedAll processes what a plain read of all rows showed while nothing was amiss. It may miss a compare-and-set of
// unknown outcome, which a later read shows once another operation on the shards of its group completed it.
func (m *Participant) peekedAll(in Input) {
	m.peeking = false
	if in.Err != nil {
		m.peekDue = in.Now.Add(m.pause())
		return
	}
	m.mergeAll(in)
}

// mergeAll merges the rows of all shards. Until the next read it takes a while, unless something is amiss.
func (m *Participant) mergeAll(in Input) {
	m.peekDue = in.Now.Add(m.config.ScanEvery)
	for _, row := range in.Rows {
		if s := m.shard(row.ID); s != nil {
			m.merge(s, row)
		}
	}
	m.forget()
	for id := range m.shards { // a successor may have missed the news
		s := &m.shards[id]
		if s.state == stateIdle && s.row.Owner.IsZero() && !s.row.Successor.IsZero() && s.row.Successor != m.self {
			m.out.Changed = append(m.out.Changed, s.row)
		}
	}
}

// scan reads all rows when that is due.
func (m *Participant) scan(now lease.Instant) {
	switch {
	case m.scanning:
	case now >= m.scanDue:
		m.scanning, m.doubted = true, false
		m.out.Ops = append(m.out.Ops, Op{Kind: OpReadShards})
	case now >= m.peekDue && m.scanned && !m.peeking:
		m.peeking = true
		m.out.Ops = append(m.out.Ops, Op{Kind: OpPeekShards})
	}
}

// pause is the time between attempts.
func (m *Participant) pause() time.Duration { return m.config.Timing.TTL / 50 }
