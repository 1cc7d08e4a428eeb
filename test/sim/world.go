// Package sim runs the runtime's state machine against a simulated world: several processes, a store
// of three replicas behind a network that delays, loses, repeats and reorders, leases that lapse,
// crashes and pauses. One seed gives one schedule, the same each time; a checker then compares what
// clients were told with the history that is left.
//
// # The model
//
// Time is virtual and moves from event to event. Everything random comes from one generator, so a run
// is a function of its seed, and its trace hash tells whether two runs were the same.
//
//	clients  send commands (with repeats of the same id), validations and queries
//	gateways bring them to the owner, as far as they know, and try again with the same id until an
//	         answer is certain; they forget and restart
//	forget   has owners remove aggregates for good; a caller that was told it must never see them again
//	import   brings the history of another cluster to an aggregate, in stretches, some more than once
//	nodes    each a process with an incarnation, driving actors.Machine as the protoactor shell does
//	oracle   grants shards under rising epochs, never before the former owner's lease has ended; or instead,
//	         agents, each driving ownership.Participant, with clocks of their own, on rows that compare and set
//	store    three replicas, plain writes acknowledged by two, reads of two with repair
//	archive  overwrites, fails, damages; archivers and readers of history are active all the time
//
// The machines are the product's own; the store's quorum behaviour is Cassandra's, which is weaker
// than the embedded store's.
package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"
)

// micros is virtual time in microseconds since the start of the run.
type micros int64

const (
	millisecond micros = 1000
	second      micros = 1000 * millisecond
)

// event is something that will happen.
type event struct {
	at   micros
	turn uint64 // order among events of the same time
	what string
	do   func()
}

type agenda []*event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].turn < a[j].turn
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*event)) }
func (a *agenda) Pop() any {
	old := *a
	e := old[len(old)-1]
	*a = old[:len(old)-1]
	return e
}

// world is one run.
type world struct {
	*rand.Rand
	params Params
	now    micros
	turn   uint64
	agenda agenda
	digest *xxhash.Digest
	log    io.Writer // nil for none

	store     *store
	cold      *cold
	authority authority
	nodes     []*node
	clients   []*client
	gateways  []*gateway
	importers []*importer
	tasks     []*task
	ops       []*op
	heads     []readHead
	forgets   map[string]*forgetting // by aggregate
	readings  []*reading
	healed    bool
	counts    Counts
}

// epochStart is the wall clock at virtual time 0.
var epochStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at plans f.
func (w *world) at(t micros, what string, f func()) {
	w.turn++
	heap.Push(&w.agenda, &event{at: max(t, w.now), turn: w.turn, what: what, do: f})
}

func (w *world) after(d micros, what string, f func()) { w.at(w.now+d, what, f) }

// run handles events until none is left or the time has ended.
func (w *world) run(until micros) {
	for len(w.agenda) > 0 && w.agenda[0].at <= until {
		e := heap.Pop(&w.agenda).(*event)
		w.now = e.at
		w.note(e.what)
		e.do()
	}
	w.now = max(w.now, until)
}

// trace notes what happens.
func (w *world) trace(format string, args ...any) { w.note(fmt.Sprintf(format, args...)) }

// note adds to the digest of the run, and to the log if there is one.
func (w *world) note(what string) {
	var at [8]byte
	binary.LittleEndian.PutUint64(at[:], uint64(w.now))
	_, _ = w.digest.Write(at[:])
	_, _ = w.digest.WriteString(what)
	if w.log != nil {
		_, _ = fmt.Fprintf(w.log, "%9.3f ms  %s\n", float64(w.now)/1000, what)
	}
}

// chance is true with probability p; never once the world is healed.
func (w *world) chance(p float64) bool {
	hit := w.Float64() < p
	return hit && !w.healed
}

// between returns a time in [lo, hi).
func (w *world) between(lo, hi micros) micros { return lo + micros(w.Int64N(int64(hi-lo))) }

// latency of one message: mostly short, at times long, now and then very long.
func (w *world) latency() micros {
	switch {
	case w.chance(w.params.VeryLate):
		return w.between(100*millisecond, 2*second)
	case w.chance(w.params.Late):
		return w.between(5*millisecond, 60*millisecond)
	default:
		return w.between(100, 3*millisecond)
	}
}
