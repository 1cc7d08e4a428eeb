package cluster

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"licensed/cluster/ownership"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// MaxClockOffset is how far a node's wall clock may be off the median of its peers' before it takes no
// shards: event times are taken from it. It takes some again when its clock is off by less than half of that,
// so that a clock at the limit does not move all its shards back and forth.
const MaxClockOffset = time.Second

// clockOffset is what is known of the wall clock.
type clockOffset struct {
	ahead time.Duration
	wrong bool
}

// NodeStatus is how a node sees itself and the cluster.
type NodeStatus struct {
	Name string
	// Incarnation that is running, whether it has a lease or not.
	Incarnation persistence.Incarnation
	// Lease is how long the lease is still valid, 0 if it is not; Age how long the incarnation is there.
	Lease, Age time.Duration
	// Open, Expected and Closing count shards by what is done with requests for them.
	Open, Expected, Closing int
	// Moving shards are on their way to another node.
	Moving int
	// InFlight requests passed a gate, Waiting ones wait at one.
	InFlight, Waiting int
	// ClockAhead is how far the wall clock is ahead of the peers' median.
	ClockAhead time.Duration
	Draining   bool
	// Rows of all shards, as last heard of.
	Rows []persistence.Shard
	// Warnings say what is wrong, for people.
	Warnings []string
}

// SetClockOffset says how far the wall clock is ahead of the median of so many peers'. With one peer
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

// Status returns how things are at this moment. It must not be called from the functions of NodeConfig.
func (n *Node) Status(ctx context.Context) NodeStatus {
	i := n.current.Load()
	now := n.config.Clock.Now()
	s := NodeStatus{
		Name: n.config.Name, Incarnation: i.id, Age: now.Sub(i.began), Waiting: int(n.waiting.Load()),
		Draining: n.draining.Load(), Rows: n.rows.all(),
	}
	if until := i.until.Load(); i.valid() {
		s.Lease = time.Duration(until - int64(now))
	}
	for k := range i.gates {
		g := &i.gates[k]
		s.InFlight += g.inFlight()
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
	n.mu.Lock()
	clock := n.clock
	n.mu.Unlock()
	s.ClockAhead = clock.ahead
	n.warn(ctx, i, clock, &s)
	return s
}

// Held returns how many shards are held at this moment, and the lowest and highest of their epochs; 0 if
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

// warn fills in what is wrong.
func (n *Node) warn(ctx context.Context, i *incarnation, clock clockOffset, s *NodeStatus) {
	add := func(format string, args ...any) { s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...)) }
	if s.Lease == 0 && !s.Draining {
		add("no lease: the store does not answer, or not in time")
	}
	if clock.wrong {
		add("the wall clock is %v ahead of the other nodes': no shards are taken until it is right", clock.ahead.Round(time.Millisecond))
	}
	nobody := 0
	for _, row := range s.Rows {
		if row.Owner.IsZero() {
			nobody++
		}
	}
	if nobody > 0 {
		add("%d of %d shards have no owner", nobody, len(s.Rows))
	}
	silent := map[persistence.Incarnation]time.Duration{}
	i.ask(ctx, func() {
		now := n.config.Clock.Now()
		for other, since := range i.machine.Silent(now) {
			silent[other] = now.Sub(since)
		}
	})
	for other, d := range silent {
		add("%s has shown no sign of life for %v", other, d.Round(10*time.Millisecond))
	}
}

// News returns all rows that this node knows, for one that may have missed some.
func (n *Node) News() *clusterv1.News { return newsOf(n.rows.all(), nil) }

// newsOf returns rows and dead incarnations as they travel; shards without a row are left out.
func newsOf(rows []persistence.Shard, dead []persistence.Incarnation) *clusterv1.News {
	news := &clusterv1.News{}
	for _, row := range rows {
		if row.Epoch > 0 {
			news.Shards = append(news.Shards, ShardMessage(row))
		}
	}
	for _, i := range dead {
		news.Dead = append(news.Dead, i[:])
	}
	return news
}
