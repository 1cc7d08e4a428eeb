package sim

import (
	"cmp"
	"io"
	"maps"
	"math/rand/v2"
	"slices"

	"licensed/cluster/ownership"
	"licensed/persistence"
)

// RunReach runs one seed as RunProtocol does, with processes that cannot reach nodes, and votes.
func RunReach(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x7265616368))
	p := protocolParams(r)
	p.Witnessed, p.Voters = true, r.IntN(3)
	p.Time = 6 * second
	return runWith(r, p, log)
}

// votes are who cannot reach whom: nodes, and processes that are none, which come after them by number.
type votes struct {
	p       *protocol
	cut     [][]bool // by process and node: requests do not get from the one to the other
	rows    map[ballot]persistence.Vote
	beats   map[ballot]uint64 // of each voter, 0 after a withdrawal
	flagged []bool            // what gossip says of each node: that nobody reaches it
}

type ballot struct{ accused, voter persistence.Incarnation }

func newVotes(p *protocol) *votes {
	w := p.w
	v := &votes{
		p: p, rows: map[ballot]persistence.Vote{}, beats: map[ballot]uint64{}, flagged: make([]bool, w.params.Nodes),
	}
	v.connect()
	if w.params.Witnessed {
		w.after(w.between(100*millisecond, second), "cut links", v.disturb)
		for k := range w.params.Voters {
			w.after(w.between(0, 50*millisecond), "vote", func() { v.probe(w.params.Nodes + k) })
		}
	}
	return v
}

func (v *votes) processes() int { return v.p.w.params.Nodes + v.p.w.params.Voters }

// connect makes all links good.
func (v *votes) connect() {
	v.cut = make([][]bool, v.processes())
	for k := range v.cut {
		v.cut[k] = make([]bool, v.p.w.params.Nodes)
	}
}

// draw cuts some links: all to one node, all of one process, any, or all.
func (v *votes) draw() {
	w := v.p.w
	v.connect()
	kind, node, process := w.IntN(5), w.IntN(w.params.Nodes), w.IntN(v.processes())
	for from := range v.cut {
		for to := range v.cut[from] {
			some := w.Float64() < 0.4
			v.cut[from][to] = kind == 0 && to == node || kind == 1 && from == process || kind == 2 && some || kind == 3
		}
	}
}

func (v *votes) disturb() {
	w := v.p.w
	if w.healed {
		return
	}
	v.draw()
	w.after(w.between(100*millisecond, 2*second), "cut links", v.disturb)
}

// voter is the identity of a process, also after it was started again.
func voter(process int) persistence.Incarnation {
	return persistence.Incarnation{0xff, byte(process)}
}

// lives says whether a process runs now.
func (v *votes) lives(process int) bool {
	w := v.p.w
	if process >= w.params.Nodes {
		return true
	}
	a := v.p.agents[process]
	return a != nil && a.n.up && w.now >= a.n.pausedUntil
}

// probe has a process vote against the nodes that it does not reach.
func (v *votes) probe(process int) {
	w := v.p.w
	if process >= w.params.Nodes {
		defer w.after(w.between(20*millisecond, 100*millisecond), "vote", func() { v.probe(process) })
	}
	for _, a := range v.p.agents {
		if a == nil || a.n.id == process || a.seen.IsZero() {
			continue
		}
		b := ballot{a.seen, voter(process)}
		switch failed := v.cut[process][a.n.id] || !v.lives(a.n.id); {
		case failed:
			v.beats[b]++
			vote := persistence.Vote{Accused: b.accused, Voter: b.voter, Beat: v.beats[b]}
			v.write(func() { v.rows[b] = vote })
		case v.beats[b] > 0:
			v.beats[b] = 0
			v.write(func() { delete(v.rows, b) })
		}
	}
}

// write has a vote written some time later, or not at all.
func (v *votes) write(do func()) {
	if w := v.p.w; !w.chance(w.params.LoseWrite) && !w.store.down {
		w.after(w.latency(), "write vote", do)
	}
}

// all returns the votes in an order.
func (v *votes) all() []persistence.Vote {
	return slices.SortedFunc(maps.Values(v.rows), func(a, b persistence.Vote) int {
		return cmp.Or(slices.Compare(a.Accused[:], b.Accused[:]), slices.Compare(a.Voter[:], b.Voter[:]))
	})
}

// look tells an agent which processes reach its node.
func (v *votes) look(a *agent) {
	if !v.p.w.params.Witnessed {
		return
	}
	v.flagged[a.n.id] = a.reach != ownership.Reached
	v.probe(a.n.id)
	in := ownership.Input{Kind: ownership.InputReach}
	for k := range v.processes() {
		if k == a.n.id || !v.lives(k) {
			continue
		}
		in.Witnesses++
		if !v.cut[k][a.n.id] {
			in.Reached = append(in.Reached, voter(k))
			a.proven = true
		}
	}
	a.step(in)
}

// check has links stay cut for long, and then good. Whatever is cut, somebody serves each shard; a minority
// accuses nobody; a node that a majority does not reach serves nothing while they reach another.
func (v *votes) check() {
	w := v.p.w
	if !w.params.Witnessed {
		return
	}
	for range 2 {
		v.draw()
		w.trace("links are cut: %v", v.cut)
		w.run(w.now + 20*w.params.Lease + 2*second)
		v.p.owned("while links are cut")
		v.judge()
	}
	v.connect()
	w.run(w.now + 20*w.params.Lease + 2*second)
	v.p.owned("when all links are good")
	for _, a := range v.p.agents {
		if v.lives(a.n.id) && v.witnesses(a.n.id) > 0 && a.reach != ownership.Reached {
			w.fail("node %d is %v though everybody reaches it", a.n.id, a.reach)
		}
	}
}

func (v *votes) witnesses(node int) (n int) {
	for k := range v.processes() {
		if k != node && v.lives(k) {
			n++
		}
	}
	return n
}

// against counts the processes that do not reach a node.
func (v *votes) against(node int) (n int) {
	for k := range v.processes() {
		if k != node && v.lives(k) && v.cut[k][node] {
			n++
		}
	}
	return n
}

func (v *votes) judge() {
	w := v.p.w
	better := func(votes int) bool {
		return slices.ContainsFunc(v.p.agents, func(b *agent) bool {
			return v.lives(b.n.id) && b.reach == ownership.Reached && v.against(b.n.id) < votes
		})
	}
	for _, a := range v.p.agents {
		if !v.lives(a.n.id) {
			continue
		}
		votes, reached := v.against(a.n.id), v.witnesses(a.n.id)-v.against(a.n.id)
		switch {
		case votes <= reached && reached > 0 && a.reach == ownership.Accused:
			w.fail("node %d is accused by %d, and %d reach it: %v", a.n.id, votes, reached, v.cut)
		case votes > reached && better(votes):
			if slices.ContainsFunc(a.gates, func(g ownership.GateKind) bool { return g == ownership.GateOpen }) {
				w.fail("node %d serves shards though %d do not reach it, %d do, and another node is reached: %v",
					a.n.id, votes, reached, v.cut)
			}
		}
	}
}
