package cluster

import (
	"sync"
	"sync/atomic"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
)

// gateKind says what is to be done with requests for a shard.
type gateKind = ownership.GateKind

// gateReleasing is a gate that is shut while its release is in flight to the store: requests wait, so
// that the successor has heard of it before they come there.
const gateReleasing gateKind = ownership.GateClosing + 1

// gate is what requests for one shard pass. The loop of the incarnation sets it, requests read and count
// themselves without a lock; a request that has to wait takes the lock. It fills a cache line.
type gate struct {
	// epoch under which the shard is held, 0 if it is not. Set before an opening and cleared before a
	// shutting of state.
	epoch atomic.Uint64
	// state has the kind in its upper half, and in the lower how many requests are in progress.
	state atomic.Uint64

	// mu guards changed, and lets one caller of set and raise change the gate at a time.
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil if nobody waits

	since lease.Instant // of the kind; the loop's
	shard uint32
	// The size of a gate is 64 bytes: gates of neighbouring shards are counted by
	// different processors.
	_ [20]byte
}

// kindOf, countOf and withKind take the word of a gate's state apart and put it together.
// A count is at most MaxWaiting and the requests in progress, far from the 32 bits at
// which it would run into the kind.
func kindOf(state uint64) gateKind         { return gateKind(state >> 32) }
func countOf(state uint64) uint32          { return uint32(state) }
func withKind(s uint64, k gateKind) uint64 { return uint64(k)<<32 | s&(1<<32-1) }

// enter counts a request in, if the gate is open. Quiet reports that a request which was turned away
// was the last that a closing gate waited for.
func (g *gate) enter() (ok, quiet bool) {
	// Counting and looking are one atomic step. So no request slips through a closing
	// gate: the one that sets it to closing finds the request in the count, or the
	// request finds the gate closing.
	if kindOf(g.state.Add(1)) == ownership.GateOpen {
		return true, false
	}
	return false, g.leave()
}

// leave counts a request out. It reports whether a closing gate has none left.
func (g *gate) leave() (quiet bool) {
	s := g.state.Add(^uint64(0))
	return kindOf(s) == ownership.GateClosing && countOf(s) == 0
}

// quiet reports whether the gate is closing and nothing is in progress.
func (g *gate) quiet() bool {
	s := g.state.Load()
	return kindOf(s) == ownership.GateClosing && countOf(s) == 0
}

// kind returns what is done with requests at this moment.
func (g *gate) kind() gateKind { return kindOf(g.state.Load()) }

// inFlight returns the number of requests that are in progress.
func (g *gate) inFlight() int { return int(countOf(g.state.Load())) }

// set changes the gate and wakes the requests that wait at it.
func (g *gate) set(k gateKind, epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The epoch goes first: a request that finds the gate open finds the epoch too.
	g.epoch.Store(epoch)
	for {
		s := g.state.Load()
		if g.state.CompareAndSwap(s, withKind(s, k)) {
			break
		}
	}
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// raise shuts a gate that is held under an epoch not above found, until the loop gets to it: the epoch must
// be raised. It reports whether it did.
func (g *gate) raise(found uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.epoch.Load(); e == 0 || e > found {
		return false
	}
	// Nobody is woken, unlike in set: a request that waits would find the shard expected,
	// and go on waiting.
	g.epoch.Store(0)
	for {
		s := g.state.Load()
		if g.state.CompareAndSwap(s, withKind(s, ownership.GateExpected)) {
			return true
		}
	}
}

// look returns the kind, and a channel that is closed when it changes.
func (g *gate) look() (gateKind, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.kind(), g.changed
}
