package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/actors"
	"licensed/actors/actorstest"
)

// Params of a run. Probabilities are per message, write, or look at a node.
type Params struct {
	Nodes, Aggregates, Shards     int
	Clients, OpsPerClient         int
	Read                          float64 // of the requests, how many are questions
	Damage                        float64 // that a snapshot is damaged, several times a second
	LoseRecord                    float64 // that a record is lost with it
	Heads                         float64 // that somebody asks for the head of an aggregate, every 10 ms
	Lease                         micros
	WriteTimeout, ClientTimeout   micros
	Late, VeryLate                float64
	LoseWrite, LoseReply, Reject  float64
	FailRead                      float64
	LoseMessage, DuplicateMessage float64
	RepeatOld                     float64
	Crash, Pause, MissRenewal     float64
	WrongClock                    float64 // that a node's wall clock is ahead for a while
	Stamped                       float64 // of the commands, how many a gateway stamps
	Facts                         float64 // of the commands, how many report facts
	WrongGateway                  float64 // that a gateway's wall clock is wrong for a while
	ClocksBehind                  bool    // wrong clocks can also be behind
	RestartActor, Passivate       float64
	PanicDecide                   float64
	Archive, FailArchive          float64
	Gateways                      int
	Import                        float64 // for each aggregate, to begin with an import
	Protocol, ConfirmReads        bool
	Witnessed                     bool // processes vote against nodes that they do not reach
	Voters                        int  // processes that are no nodes
	Allowance, Time               micros
	Drift, MissGossip, Drain      float64
	// Forge is the chance, with each look at gossip, that somebody spreads what is not true.
	Forge        float64
	PauseRenewed float64
	GiveUp       float64 // that a caller gives up a request at a node
	MaxMutation  int
	MaxRoot      int     // 0 for no limit
	Frees        float64 // of the commands, how many free something, where MaxRoot is set
	Forget       float64 // for each aggregate, that an operator has it forgotten
	Limit        uint64
	Kind         actors.Kind
	Config       actors.Config
}

// Counts say what a run met, so that a run that met nothing is not taken for a proof.
type Counts struct {
	Acked, Repeats, TooOld, Stamps         int
	Unknown, Rejected                      int
	Crashes, Pauses, Takeovers, StoreDowns int
	Ended, Activations, Roots              int
	Passivations                           int
	Segments, Stripped, Stubs, Deleted     int
	Readings, Retries, Imports, Stretches  int
	Snapshots                              int // that a replay produced
	Damaged, Rebuilt                       int
	Bare, Freed                            int // roots without snapshots, and commands that were executed below one
	Forgotten                              int // aggregates of which somebody was told so
	Heads                                  int // of aggregates that were not in memory
	Kept                                   int // aggregates in memory when a lease was renewed that had run out
	Lapsed, Resumed                        int // leases that were marked dead; that ran out and were renewed
	Releases, Drained                      int
	WrongClocks, Withdrawn                 int
	Stale, Confirms, Forged                int
	Peeked                                 int    // earlier rows of leases, by plain reads
	Violation                              string // the first one; empty if all is well
	Hash                                   uint64 // of the trace
}

// add sums counts of several runs.
func (c *Counts) add(o Counts) {
	c.Acked += o.Acked
	c.Repeats += o.Repeats
	c.TooOld += o.TooOld
	c.Stamps += o.Stamps
	c.Unknown += o.Unknown
	c.Damaged += o.Damaged
	c.Rebuilt += o.Rebuilt
	c.Bare += o.Bare
	c.Freed += o.Freed
	c.Forgotten += o.Forgotten
	c.Heads += o.Heads
	c.Rejected += o.Rejected
	c.Crashes += o.Crashes
	c.Pauses += o.Pauses
	c.Takeovers += o.Takeovers
	c.StoreDowns += o.StoreDowns
	c.Ended += o.Ended
	c.Activations += o.Activations
	c.Roots += o.Roots
	c.Passivations += o.Passivations
	c.Segments += o.Segments
	c.Stripped += o.Stripped
	c.Stubs += o.Stubs
	c.Deleted += o.Deleted
	c.Readings += o.Readings
	c.Retries += o.Retries
	c.Imports += o.Imports
	c.Stretches += o.Stretches
	c.Snapshots += o.Snapshots
	c.Lapsed += o.Lapsed
	c.Resumed += o.Resumed
	c.Kept += o.Kept
	c.Releases += o.Releases
	c.Drained += o.Drained
	c.WrongClocks += o.WrongClocks
	c.Withdrawn += o.Withdrawn
	c.Stale += o.Stale
	c.Confirms += o.Confirms
	c.Forged += o.Forged
	c.Peeked += o.Peeked
}

// paramsOf draws the parameters of a seed: calm and wild runs, so that rare combinations meet.
func paramsOf(r *rand.Rand) Params {
	some := func(p float64) float64 { // often none at all
		if r.Float64() < 0.3 {
			return 0
		}
		return p * r.Float64()
	}
	config := actors.DefaultConfig()
	config.SnapshotEvery = 2 + r.IntN(8)
	config.ReadPage = 1 + r.IntN(5)
	config.RetryMin, config.RetryMax = 5*time.Millisecond, 80*time.Millisecond
	config.RefusalsPerSecond = 1000
	config.Window = actors.WindowConfig{
		MaxAge: 3 * time.Second, MaxCommands: 8 + r.IntN(60),
		MinAge: 150 * time.Millisecond, MaxAhead: 50 * time.Millisecond,
	}
	limit := uint64(20 + r.IntN(200))
	maxMutation := 0
	if r.Float64() < 0.5 {
		maxMutation = 200 + r.IntN(2000) // a few commands
	}
	p := Params{
		Nodes: 1 + r.IntN(3), Aggregates: 1 + r.IntN(3), Shards: 1 + r.IntN(2),
		Clients: 2 + r.IntN(5), OpsPerClient: 10 + r.IntN(25), Read: 0.15,
		Time: 20 * second, Lease: 100 * millisecond, WriteTimeout: 25 * millisecond, ClientTimeout: 150 * millisecond,
		Late: some(0.3), VeryLate: some(0.1),
		LoseWrite: some(0.3), LoseReply: some(0.3), Reject: some(0.03), FailRead: some(0.2),
		LoseMessage: some(0.2), DuplicateMessage: some(0.2), RepeatOld: some(0.3),
		Crash: some(0.1), Pause: some(0.2), MissRenewal: some(0.4),
		RestartActor: some(0.3), Passivate: some(0.4), PanicDecide: some(0.05),
		Archive: some(0.3), FailArchive: some(0.2), Gateways: r.IntN(3), Import: some(0.5),
		WrongClock: some(0.1), GiveUp: some(0.3), MaxMutation: maxMutation,
		Limit: limit, Kind: actorstest.Ledger{Limit: limit}, Config: config,
	}
	if r.Float64() < 0.3 { // mostly questions, and shards that change hands while writes are on one replica only
		p.Read = 0.4 + 0.5*r.Float64()
		p.Nodes, p.Aggregates, p.Shards = 2+r.IntN(2), 1+r.IntN(2), 1
		p.Clients, p.OpsPerClient = 3+r.IntN(4), 30+r.IntN(50)
		p.Lease = 20*millisecond + micros(r.IntN(int(40*millisecond)))
		p.MissRenewal = 0.3 + 0.4*r.Float64()
		p.ClientTimeout = 60 * millisecond
		p.LoseWrite, p.Late, p.VeryLate, p.FailRead = 0.2+0.4*r.Float64(), 0.2*r.Float64(), 0.1*r.Float64(), 0
		p.Crash, p.Import, p.LoseMessage = p.Crash/4, p.Import/4, p.LoseMessage/4
	}
	if r.Float64() < 0.2 {
		p.Damage, p.Passivate, p.RestartActor = 0.3*r.Float64(), 0.4, 0.2
		if p.Import = 0; r.Float64() < 0.3 {
			p.LoseRecord = 0.5
		}
	}
	return p
}

// headsOf draws nothing from the run's numbers: with an even seed, a run goes as if nobody asked for heads.
func headsOf(seed uint64) float64 { return float64(seed%2) * float64(1+seed%7) / 8 }

// Run runs one seed with the oracle. With a log, the trace is written to it.
func Run(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x6c6963656e736564))
	p := paramsOf(r)
	p.Heads = headsOf(seed)
	return runWith(r, p, log)
}

// RunProtocol runs one seed with the protocol of leases and shards.
func RunProtocol(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x636c7573746572))
	p := protocolParams(r)
	p.Heads = headsOf(seed)
	return runWith(r, p, log)
}

func runWith(r *rand.Rand, params Params, log io.Writer) Counts {
	w := &world{Rand: r, params: params, digest: xxhash.New(), log: log, forgets: map[string]*forgetting{}}
	w.store = newStore(w)
	w.cold = &cold{w: w, segments: map[string][]byte{}}
	defer w.stopTasks()
	if w.params.Protocol {
		w.authority = newProtocol(w)
	} else {
		w.authority = &oracle{w: w, shards: make([]grant, w.params.Shards)}
	}
	for i := range w.params.Nodes {
		n := &node{w: w, id: i, name: fmt.Sprint("node ", i)}
		w.nodes = append(w.nodes, n)
		n.start()
		w.after(w.between(0, 100*millisecond), "disturb", n.disturb)
	}
	w.authority.begin()
	w.disturbStore()
	w.askHeads()
	for i := range w.params.Gateways {
		w.startGateway(i)
	}
	for i := range w.params.Aggregates {
		if w.chance(w.params.Import) {
			w.startImport(aggregateName(i))
		}
	}
	for i := range w.params.Aggregates {
		if w.params.Forget > 0 && w.chance(w.params.Forget) {
			w.startForget(aggregateName(i))
		}
	}
	for i := range w.params.Clients {
		c := &client{w: w, id: i}
		w.clients = append(w.clients, c)
		w.after(w.between(0, 20*millisecond), "first op", c.loop)
	}
	for w.now < w.params.Time && !w.idle() {
		w.run(w.now + 100*millisecond)
	}
	w.healed, w.store.down = true, false
	clear(w.store.lost) // from a backup
	w.raiseMaxRoot()
	w.run(w.now + 5*second) // what is late arrives
	w.checkServed()
	w.authority.check()
	w.check()
	w.counts.Hash = w.digest.Sum64()
	return w.counts
}

// idle reports whether all clients are done.
func (w *world) idle() bool {
	for _, c := range w.clients {
		if c.done < w.params.OpsPerClient {
			return false
		}
	}
	for _, o := range w.ops {
		if o.ended == 0 {
			return false
		}
	}
	for _, i := range w.importers {
		if !i.done {
			return false
		}
	}
	return true
}

// aggregateName returns the name of the aggregate of a number.
func aggregateName(i int) string { return string(rune('a' + i)) }

// disturbStore takes the store away for a while, now and then.
func (w *world) disturbStore() {
	w.store.down = w.chance(w.params.FailRead * 2)
	if w.store.down {
		w.counts.StoreDowns++
	}
	if w.chance(w.params.Damage) {
		w.store.damage(actors.AggregateID(aggregateName(w.IntN(w.params.Aggregates)), w.params.Kind), w.chance(0.3),
			w.chance(w.params.LoseRecord))
	}
	w.after(w.between(50*millisecond, 300*millisecond), "disturb store", w.disturbStore)
}
