package actors

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// entry is an aggregate that is in memory, or being loaded or evicted.
type entry struct {
	id   string
	act  *activation
	lru  *lru // the list it is in, nil once it left the registry
	prev *entry
	next *entry
	used time.Duration // time of the last request since the runtime's start, up to registry.grain earlier
	size int64         // estimated bytes, as last counted
	// asked is the sweep for memory that last asked it to leave.
	asked uint64
	// pending counts requests that were handed to the actor and not answered, those given up included, and inShard
	// those for all aggregates of the shard.
	pending atomic.Int32
	inShard *atomic.Int64
	// stuck says that the pending requests count among registry.stuck. The actor sets it, under the stripe's lock.
	stuck bool
}

// lru is an intrusive list, least recently used first. An element of container/list takes 48 bytes; the entry's own
// pointers take 24, and a resident customer is at 2,477 of 2,500 bytes (BenchmarkResidentCustomer).
type lru struct{ head entry }

// init makes the list empty.
func (l *lru) init() { l.head.prev, l.head.next = &l.head, &l.head }

// first returns the entry that was used the longest time ago, nil if there is none.
func (l *lru) first() *entry {
	if l.head.next == &l.head {
		return nil
	}
	return l.head.next
}

// unlink takes the entry out of its list, if it is in one. Requires the lock of its
// stripe.
func (e *entry) unlink() {
	if e.lru != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next, e.lru = nil, nil, nil
	}
}

// pushBack makes the entry the one that was used last. It must be in no list.
func (l *lru) pushBack(e *entry) {
	e.lru, e.prev, e.next = l, l.head.prev, &l.head
	e.prev.next, l.head.prev = e, e
}

// stripes is the number of locks. With a single lock, the 99th percentile of 256 requests in flight was 51 to 254 ms in
// place of 0.2 to 16 ms, on two processors that other processes use as well (BenchmarkRuntime, four pairs): all
// requests wait while the goroutine with the lock is not running. CPU time is the same.
const stripes = 64

// stripe is a part of the registry. Its lists are in order of use: work holds the aggregates whose
// state is unpacked, packed those that were asked to pack, leaving those asked to leave.
type stripe struct {
	sync.Mutex
	entries map[string]*entry
	work    lru
	packed  lru
	leaving lru
	watches map[string]*watch
}

// watch tells whether an aggregate that was not in memory was loaded. All who watch the same aggregate share it,
// until it is loaded.
type watch struct {
	id     string
	users  int
	loaded bool
}

// oldest returns the entry used least recently among those that a sweep has not yet asked to leave; nil
// for none. An entry that was asked and stays is put behind all that were present then.
func (s *stripe) oldest(sweep uint64) *entry {
	for _, l := range [...]*lru{&s.packed, &s.work} {
		if e := l.first(); e != nil && e.asked != sweep {
			return e
		}
	}
	return nil
}

// registry holds the aggregates in memory, striped by id.
type registry struct {
	stripe   [stripes]stripe
	grain    time.Duration // of times of use: a busy entry is not moved for each request
	resident atomic.Int64
	leaving  atomic.Int64 // bytes of those asked to leave to make room
	bytes    atomic.Int64
	unpacked atomic.Int64
	stuck    atomic.Int64 // requests pending for stuck aggregates
	shardOf  func(id string) uint32
	shards   [shardCounts]struct {
		pending atomic.Int64
		_       [56]byte // a cache line for each
	}
	sweeps uint64 // for memory, the last of which may be in progress; the sweeper's
}

// shardCounts is the number of shards that are counted apart; those whose numbers differ by a multiple of it share a
// count.
const shardCounts = 1024

// pendingIn returns the count of the requests that are pending for aggregates of a shard.
func (g *registry) pendingIn(shard uint32) *atomic.Int64 { return &g.shards[shard%shardCounts].pending }

// init makes the registry ready. grain is how exactly the time of the last use is kept.
func (g *registry) init(grain time.Duration, shardOf func(id string) uint32) {
	g.grain, g.shardOf = grain, shardOf
	for i := range g.stripe {
		s := &g.stripe[i]
		s.entries, s.watches = map[string]*entry{}, map[string]*watch{}
		s.work.init()
		s.packed.init()
		s.leaving.init()
	}
}

// stripeOf returns the stripe of an id, which never changes.
func stripeOf(id string) int { return int(xxhash.Sum64String(id) % stripes) }

// acquire returns the entry of that id with one more request pending. Start makes the actor of an entry that is
// new. Errors: ErrOverloaded.
func (g *registry) acquire(
	id string, now time.Duration, c *Config, start func(id string) *entry,
) (e *entry, err error) {
	s := &g.stripe[stripeOf(id)]
	s.Lock()
	defer s.Unlock()
	e = s.entries[id]
	var inShard *atomic.Int64
	if e == nil {
		inShard = g.pendingIn(g.shardOf(id))
	} else {
		inShard = e.inShard
	}
	// Other stripes count at the same time, so the count goes up first.
	defer func() {
		if err != nil {
			inShard.Add(-1)
		}
	}()
	if inShard.Add(1) > int64(c.MaxPerShard) {
		return nil, fmt.Errorf("%w: %d requests are waiting for customers of the same shard",
			ErrOverloaded, c.MaxPerShard)
	}
	if e == nil {
		e = start(id)
		e.inShard = inShard
		s.entries[id] = e
		g.resident.Add(1)
		// It was read while it slept: what the reader saw may be incomplete by now.
		if w := s.watches[id]; w != nil {
			w.loaded = true
			delete(s.watches, id)
		}
	}
	if int(e.pending.Load()) >= c.MaxQueue {
		return nil, fmt.Errorf("%w: %d requests are waiting for this aggregate", ErrOverloaded, c.MaxQueue)
	}
	if e.stuck && g.stuck.Add(1) > int64(c.MaxStuck) {
		g.stuck.Add(-1)
		return nil, fmt.Errorf(
			"%w: the store has not answered for this aggregate, and %d requests are waiting for such aggregates",
			ErrOverloaded, c.MaxStuck)
	}
	// Moved at most once a grain: a busy aggregate would otherwise change the list with
	// each request.
	e.pending.Add(1)
	if e.lru != &s.work || now-e.used >= g.grain {
		e.used = now
		g.move(e, &s.work)
	}
	return e, nil
}

// setStuck counts the pending requests of an entry among those of stuck aggregates, or ends that. Its actor calls it.
func (g *registry) setStuck(e *entry, stuck bool) {
	if e.stuck == stuck {
		return
	}
	s := &g.stripe[stripeOf(e.id)]
	s.Lock()
	defer s.Unlock()
	e.stuck = stuck
	if n := int64(e.pending.Load()); stuck {
		g.stuck.Add(n)
	} else {
		g.stuck.Add(-n)
	}
}

// release ends a pending request of an entry. Its actor calls it.
func (g *registry) release(e *entry) {
	e.pending.Add(-1)
	e.inShard.Add(-1)
	if e.stuck {
		g.stuck.Add(-1)
	}
}

// find returns the entry of that id, or nil.
func (g *registry) find(id string) *entry {
	s := &g.stripe[stripeOf(id)]
	s.Lock()
	defer s.Unlock()
	return s.entries[id]
}

// watch begins to watch an aggregate; nil if it is in memory, or being loaded or evicted.
func (g *registry) watch(id string) *watch {
	s := &g.stripe[stripeOf(id)]
	s.Lock()
	defer s.Unlock()
	if s.entries[id] != nil {
		return nil
	}
	w := s.watches[id]
	if w == nil {
		w = &watch{id: id}
		s.watches[id] = w
	}
	w.users++
	return w
}

// unwatch ends a watch.
func (g *registry) unwatch(w *watch) {
	s := &g.stripe[stripeOf(w.id)]
	s.Lock()
	defer s.Unlock()
	if w.users--; w.users == 0 && !w.loaded {
		delete(s.watches, w.id)
	}
}

// disturb tells all watches of an aggregate that what was read is not to be believed.
func (g *registry) disturb(id string) {
	s := &g.stripe[stripeOf(id)]
	s.Lock()
	defer s.Unlock()
	if w := s.watches[id]; w != nil {
		w.loaded = true
		delete(s.watches, id)
	}
}

// asleep reports whether a watched aggregate was not in memory at any moment since the watch began.
func (g *registry) asleep(w *watch) bool {
	s := &g.stripe[stripeOf(w.id)]
	s.Lock()
	defer s.Unlock()
	return !w.loaded
}

// remove takes the entry out if it is in, so that the next request makes a new one. With idle set it
// does so only if no request is pending. It reports whether the entry is out.
func (g *registry) remove(e *entry, idle bool) bool {
	s := &g.stripe[stripeOf(e.id)]
	s.Lock()
	defer s.Unlock()
	// The actor and a sweep may both take it out.
	if s.entries[e.id] != e {
		return true
	}
	if idle && e.pending.Load() > 0 {
		return false
	}
	delete(s.entries, e.id)
	g.move(e, nil)
	g.resident.Add(-1)
	g.bytes.Add(-e.size)
	e.size = 0
	return true
}

// move puts the entry at the end of a list of its stripe, whose lock is held; nil takes it out.
func (g *registry) move(e *entry, to *lru) {
	s := &g.stripe[stripeOf(e.id)]
	if e.lru == &s.leaving {
		g.leaving.Add(-e.size)
	}
	if to == &s.leaving {
		g.leaving.Add(e.size)
	}
	if e.unlink(); to != nil {
		to.pushBack(e)
	}
}

// stay records that an entry that was asked to leave cannot do so now: it is asked again in its turn.
func (g *registry) stay(e *entry) {
	s := &g.stripe[stripeOf(e.id)]
	s.Lock()
	defer s.Unlock()
	if e.lru == &s.leaving {
		g.move(e, &s.packed)
	}
}

// busy records that an entry that was asked to pack cannot do so now: it is asked again.
func (g *registry) busy(e *entry) {
	s := &g.stripe[stripeOf(e.id)]
	s.Lock()
	defer s.Unlock()
	if e.lru == &s.packed {
		g.move(e, &s.work)
	}
}

// resize notes the estimated size of an entry.
func (g *registry) resize(e *entry, size int64) {
	s := &g.stripe[stripeOf(e.id)]
	s.Lock()
	defer s.Unlock()
	if e.lru == nil {
		return
	}
	g.bytes.Add(size - e.size)
	if e.lru == &s.leaving {
		g.leaving.Add(size - e.size)
	}
	e.size = size
}

// each calls f with every entry that is in memory when its stripe is looked at.
func (g *registry) each(f func(*entry)) {
	for i := range g.stripe {
		s := &g.stripe[i]
		s.Lock()
		// Copied: f may take the lock itself.
		entries := make([]*entry, 0, len(s.entries))
		for _, e := range s.entries {
			entries = append(entries, e)
		}
		s.Unlock()
		for _, e := range entries {
			f(e)
		}
	}
}

// sweepIdle asks aggregates unused since packBefore to pack, and those unused since retireBefore to
// leave. Both are times since the runtime's start. The lists are in order of these times, which therefore must not
// go back: what is behind an entry of a later time is not looked at.
func (g *registry) sweepIdle(packBefore, retireBefore time.Duration) {
	for i := range g.stripe {
		s := &g.stripe[i]
		s.Lock()
		for e := s.work.first(); e != nil && e.used < packBefore; e = s.work.first() {
			g.move(e, &s.packed)
			e.act.post(pack{})
		}
		for e := s.packed.first(); e != nil && e.used < retireBefore; e = s.packed.first() {
			g.move(e, &s.leaving)
			e.act.post(retire{})
		}
		s.Unlock()
	}
}

// sweepBytes asks the least recently used aggregates to leave until the rest is within the bound. It looks
// again after each, since sizes change meanwhile: aggregates are packed. None is asked twice, or a sweep
// would not end while a store is unavailable and nobody can leave.
func (g *registry) sweepBytes(bound int64) {
	for g.sweeps++; ; {
		leaving := g.leaving.Load() // before bytes, or aggregates that leave in between would count as staying
		if g.bytes.Load()-leaving <= bound || !g.retireOldest() {
			return
		}
	}
}

// retireOldest asks the least recently used aggregate to leave, or returns false if this sweep has asked all.
func (g *registry) retireOldest() bool {
	oldest, used := -1, time.Duration(0)
	for i := range g.stripe {
		s := &g.stripe[i]
		s.Lock()
		if e := s.oldest(g.sweeps); e != nil && (oldest < 0 || e.used < used) {
			oldest, used = i, e.used
		}
		s.Unlock()
	}
	if oldest < 0 {
		return false
	}
	s := &g.stripe[oldest]
	s.Lock()
	defer s.Unlock()
	e := s.oldest(g.sweeps)
	if e == nil {
		return true // it is active again
	}
	e.asked = g.sweeps
	g.move(e, &s.leaving)
	e.act.post(retire{})
	return true
}
