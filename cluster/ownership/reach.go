package ownership

import (
	"slices"
	"time"

	"licensed/cluster/lease"
	"licensed/internal/planted"
	"licensed/persistence"
)

// Reach says whether requests of other processes reach the node, as far as it knows itself.
type Reach uint8

const (
	// Reached says that at least one other process reached the node since its process started, and no majority says
	// that it cannot. Without Config.Witnessed it is always so.
	Reached Reach = iota
	// Unproven says that no other process has reached the node since its process started. It takes no shards while
	// another process is expected to reach it, or any other node may take them.
	Unproven
	// Accused says that more processes vote that they cannot reach the node than do reach it, and another node has
	// fewer votes against it. The node hands its shards over and takes none.
	Accused
)

// String returns a word for it.
func (r Reach) String() string { return [...]string{"reached", "unproven", "accused"}[r] }

// reach is what the machine goes by.
type reach struct {
	state     Reach
	proven    bool                      // somebody reached the node once
	witnesses int                       // other processes that are expected to try
	patience  lease.Instant             // until when an unproven node keeps what it has, since there are any
	reached   []persistence.Incarnation // the processes that reach it now

	votes   map[ballot]*vote
	reading bool
	due     lease.Instant // of the next read of the votes
}

// ballot is who votes against whom.
type ballot struct{ accused, voter persistence.Incarnation }

// vote is one as last read.
type vote struct {
	name  string
	beat  uint64
	since lease.Instant // when the beat was first read
	read  bool          // by the last read
}

// voteExpiry is the time a vote counts whose beat stands still, in TTLs. Voters renew theirs every TTL.
const voteExpiry = 3

// Reach returns whether others reach the node, and the names of those that vote against it.
func (m *Participant) Reach(now lease.Instant) (state Reach, accusers []string) {
	for b, v := range m.reach.votes {
		if b.accused == m.self && m.counts(now, v) {
			accusers = append(accusers, v.name)
		}
	}
	slices.Sort(accusers)
	return m.reach.state, accusers
}

// setReach records who reaches the node now, and how many others are expected to try.
func (m *Participant) setReach(now lease.Instant, in Input) {
	r, former := &m.reach, m.eligible()
	if r.witnesses == 0 {
		r.patience = now.Add(2 * m.config.Timing.TTL)
	}
	r.reached, r.witnesses = slices.Clone(in.Reached), in.Witnesses
	r.proven = r.proven || len(r.reached) > 0
	if m.judge(now); m.eligible() != former {
		m.place()
	}
}

// readVotes records the votes that a read showed. One that is missing was withdrawn.
func (m *Participant) readVotes(in Input) {
	r := &m.reach
	r.reading = false
	if in.Err != nil {
		// The votes read before still count.
		r.due = in.Now.Add(m.pause())
		m.judge(in.Now)
		return
	}
	for _, v := range r.votes {
		v.read = false
	}
	for _, v := range in.Votes {
		b := ballot{v.Accused, v.Voter}
		known := r.votes[b]
		if known == nil || known.beat != v.Beat {
			known = &vote{beat: v.Beat, since: in.Now}
			r.votes[b] = known
		}
		known.name, known.read = v.Name, true
	}
	for b, v := range r.votes {
		if !v.read && !planted.Bug(planted.CountVotesForEver) {
			delete(r.votes, b)
		}
	}
	m.judge(in.Now)
	ttl := m.config.Timing.TTL
	if r.due = in.Now.Add(ttl); r.state == Accused || len(r.reached) == 0 && r.witnesses > 0 {
		r.due = in.Now.Add(ttl / 4) // nobody reaches the node: what follows must not take long
	}
}

// stepReach reads the votes when that is due.
func (m *Participant) stepReach(now lease.Instant) {
	if r := &m.reach; m.config.Witnessed && !r.reading && now >= r.due {
		r.reading = true
		m.out.Ops = append(m.out.Ops, Op{Kind: OpReadVotes})
	}
}

// counts reports whether a vote has not expired.
func (m *Participant) counts(now lease.Instant, v *vote) bool {
	return now.Sub(v.since) < voteExpiry*m.config.Timing.TTL || planted.Bug(planted.CountVotesForEver)
}

// against counts the votes against an incarnation, those of the excepted voters left out.
func (m *Participant) against(now lease.Instant, i persistence.Incarnation, except []persistence.Incarnation) (n int) {
	for b, v := range m.reach.votes {
		if b.accused == i && m.counts(now, v) && !slices.Contains(except, b.voter) {
			n++
		}
	}
	return n
}

// judge decides whether others reach the node. A vote of a process that does reach it is out of date. The node with
// the fewest votes is never accused, so that somebody still serves when nobody reaches anybody.
func (m *Participant) judge(now lease.Instant) {
	if !m.config.Witnessed {
		return
	}
	r := &m.reach
	former := r.state
	// Votes of those that reach the node are left out.
	votes := m.against(now, m.self, r.reached)
	majority := votes > len(r.reached) || votes > 0 && planted.Bug(planted.DrainOnOneVote) ||
		former == Accused && (len(r.reached) == 0 || planted.Bug(planted.StayAccused))
	switch {
	case majority && (m.betterReached(now, votes) || planted.Bug(planted.HandOverUnreached)) &&
		!planted.Bug(planted.KeepUnreached):
		r.state = Accused
	case !r.proven:
		r.state = Unproven
	default:
		r.state = Reached
	}
	if r.state != former {
		m.place()
	}
}

// betterReached reports whether another node is alive that fewer processes accuse, and that was reached.
func (m *Participant) betterReached(now lease.Instant, votes int) bool {
	votes = max(votes, 1) // an accused node whose voters are gone waits until it is reached
	for _, o := range m.members {
		if o.Incarnation != m.self && o.Eligible && !o.Unreachable && !o.Incarnation.IsZero() &&
			!m.dead[o.Incarnation] && m.against(now, o.Incarnation, nil) < votes {
			return true
		}
	}
	for _, w := range m.watches { // nodes that gossip does not show
		if !m.shown(w.incarnation) && m.alive(now, w) && m.against(now, w.incarnation, nil) < votes {
			return true
		}
	}
	return false
}

// alive reports whether a lease that is watched was renewed lately.
func (m *Participant) alive(now lease.Instant, w *watched) bool {
	since, seen := w.watch.Silent()
	return seen && now.Sub(since) < m.config.Timing.TTL
}

// shown reports whether gossip shows an incarnation.
func (m *Participant) shown(i persistence.Incarnation) bool {
	_, ok := m.since[i]
	return ok
}

// open reports whether a member can be given shards, as long as there is another one that can.
func (m *Participant) open(o *Member) bool {
	if o.Incarnation == m.self {
		return m.eligible()
	}
	return !o.Unreachable
}

// eligible is open for this node itself. Where no other process is, nobody else could be served by anyone else.
func (m *Participant) eligible() bool {
	return m.reach.state == Reached ||
		m.reach.state == Unproven && m.reach.witnesses == 0 && !planted.Bug(planted.TakeNothingAlone)
}

// island reports whether a node that nobody reaches sees owners of shards in the store that gossip does not show,
// and that are not known to be dead: it is this node that is cut off, and it must not take what becomes free.
func (m *Participant) island() bool {
	if !m.config.Witnessed || len(m.reach.reached) > 0 {
		return false
	}
	return m.strangers()
}

// Island reports whether the node takes nothing because it seems to be cut off from all others.
func (m *Participant) Island() bool { return m.island() }

// strangers reports whether the store names owners that gossip does not show and that are not known to be dead.
func (m *Participant) strangers() bool {
	for i := range m.shards {
		if o := m.shards[i].row.Owner; !o.IsZero() && o != m.self && !m.dead[o] && !m.shown(o) {
			return true
		}
	}
	return false
}

// strangersScanEvery is the time between reads of all rows while there are unknown processes: one of them may give its
// shards to nobody in particular, and nobody tells of it.
func (m *Participant) strangersScanEvery() time.Duration { return m.config.Timing.TTL / 2 }
