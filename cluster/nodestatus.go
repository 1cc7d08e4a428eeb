package cluster

import (
	"cmp"
	"time"

	"licensed/cluster/ownership"
	"licensed/persistence"
)

// MaxClockOffset is how far a node's wall clock may be off the median of its peers' before it takes no
// shards: event times are taken from it. It takes some again when its clock is off by less than half of that,
// so that a clock at the limit does not move all its shards back and forth.
const MaxClockOffset = time.Second

// clockOffset is what is known of the wall clock.
type clockOffset struct {
	ahead time.Duration // of the median of the peers' clocks
	wrong bool          // by SetClockOffset, with hysteresis
}

// NodeStatus is how a node sees itself and the cluster.
type NodeStatus struct {
	Name string
	// Incarnation that is running, whether it has a lease or not.
	Incarnation persistence.Incarnation
	// Lease is the time the lease is still valid, 0 if it is not; Age how long it has existed.
	Lease, Age time.Duration
	// Open, Expected and Closing count shards by what is done with requests for them.
	Open, Expected, Closing int
	// Moving shards are in transit to another node.
	Moving int
	// InFlight requests passed a gate, Waiting ones wait at one.
	InFlight, Waiting int
	// ClockAhead is how far the wall clock is ahead of the peers' median.
	ClockAhead time.Duration
	// ClockWrong: it is off by so much that the node takes no shards.
	ClockWrong bool
	// Unreachable is why others that try cannot reach the node; nil if they do.
	Unreachable error
	// Draining: the node was told to hand over all shards. Drained: it has.
	Draining, Drained bool
	// Held are the shards that are held at this moment, with their epochs: none without a valid lease.
	Held []persistence.Shard
	// Rows of all shards, as the store last showed them to this node.
	Rows []persistence.Shard
}

// SetClockOffset says how far the wall clock is ahead of the median of this many peers'. With one peer
// nobody can say whose clock is wrong.
func (n *Node) SetClockOffset(ahead time.Duration, peers int) {
	n.mu.Lock()
	limit := MaxClockOffset
	if n.clock.wrong {
		limit /= 2
	}
	wrong := peers > 1 && ahead.Abs() > limit
	changed := wrong != n.clock.wrong
	n.clock = clockOffset{ahead, wrong}
	n.mu.Unlock()
	if !changed {
		return
	}
	i := n.current.Load()
	kind := ClockRight
	if wrong {
		kind = ClockWrong
	}
	i.post(input{do: func() { n.happened(Happening{Kind: kind, Incarnation: i.id, Took: ahead}) }})
	i.tellMembers()
}

// ClockWrong reports whether the wall clock is off its peers': others should not expect this node to take
// shards. See MaxClockOffset.
func (n *Node) ClockWrong() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clock.wrong
}

// Status returns how things are at this moment. It does not wait.
func (n *Node) Status() NodeStatus {
	i := n.current.Load()
	now := n.config.Clock.Now()
	s := NodeStatus{
		Name: n.config.Name, Incarnation: i.id, Age: now.Sub(i.began), Waiting: int(n.waiting.Load()),
		Rows: n.rows.StoredRows(),
	}
	if until := i.until.Load(); i.valid() {
		s.Lease = time.Duration(until - int64(now))
	}
	for k := range i.gates {
		g := &i.gates[k]
		s.InFlight += g.inFlight()
		if epoch := g.epoch.Load(); epoch != 0 {
			s.Held = append(s.Held, persistence.Shard{ID: uint32(k), Epoch: epoch, Owner: i.id})
		}
		switch g.kind() {
		case ownership.GateOpen:
			s.Open++
		case ownership.GateExpected:
			s.Expected++
		case ownership.GateClosing:
			s.Closing++
			s.Moving++
		case gateReleasing:
			s.Moving++
		}
	}
	if !i.valid() {
		s.Held, s.Lease = nil, 0
	}
	n.mu.Lock()
	s.ClockAhead, s.ClockWrong = n.clock.ahead, n.clock.wrong
	s.Draining, s.Drained = n.drain != nil, n.drain != nil && n.drain.over
	n.mu.Unlock()
	s.Unreachable = n.Unreachable()
	return s
}

// Held returns the number of shards that are held at this moment, and the lowest and highest of their epochs; 0 if
// none is. It asks the clock once, where Epoch does so for each shard.
func (n *Node) Held() (count int, lowest, highest uint64) {
	i := n.current.Load()
	for k := range i.gates {
		if epoch := i.gates[k].epoch.Load(); epoch != 0 {
			count++
			lowest, highest = cmp.Or(min(lowest, epoch), epoch), max(highest, epoch)
		}
	}
	if !i.valid() {
		return 0, 0, 0
	}
	return count, lowest, highest
}
