package sim

import (
	"io"
	"math/rand/v2"
)

// RunOverlarge runs one seed as Run does, on a store that takes small roots only, so that the state of most aggregates
// becomes too large for one. Many requests are questions, and many commands free something. Shards change hands often.
func RunOverlarge(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x6f7665726c617267))
	p := paramsOf(r)
	p.MaxRoot, p.Frees = 125+r.IntN(100), 0.5+0.5*r.Float64()
	p.Heads = headsOf(seed)
	if r.IntN(2) == 0 {
		p.Import = 0
	}
	if r.IntN(5) > 0 { // takeovers while writes are on one replica only
		p.Read, p.Archive, p.Damage = 0.3+0.4*r.Float64(), p.Archive/4, 0
		p.Nodes, p.Aggregates, p.Shards = 2+r.IntN(2), 1, 1
		p.Clients, p.OpsPerClient = 3+r.IntN(4), 60+r.IntN(60)
		p.Lease = 20*millisecond + micros(r.IntN(int(40*millisecond)))
		p.MissRenewal = 0.3 + 0.4*r.Float64()
		p.ClientTimeout = 60 * millisecond
		p.LoseWrite, p.Late, p.VeryLate, p.FailRead = 0.2+0.4*r.Float64(), 0.2*r.Float64(), 0.05+0.1*r.Float64(), 0
		p.RestartActor, p.Passivate, p.Crash = 0.3*r.Float64(), 0.4*r.Float64(), p.Crash/4
	}
	return runWith(r, p, log)
}

// raiseMaxRoot has the store take roots of any size where imports cannot end without.
func (w *world) raiseMaxRoot() {
	if w.params.Import == 0 {
		return
	}
	w.params.MaxRoot = 0
	for _, n := range w.nodes {
		n.env.MaxRoot = 0
	}
}
