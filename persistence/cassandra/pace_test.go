package cassandra

import (
	"container/heap"
	"slices"
	"testing"
	"time"
)

// simulatedStore has hosts with processors that requests queue for. A request takes an amount of work of the host that
// it is sent to, and more of each host that has a copy of a write in it.
type simulatedStore struct {
	network       time.Duration // both ways
	request, each time.Duration
	processors    int           // of each host
	hangs         time.Duration // what the next request takes longer
}

// pacing simulates lanes on a store, with clients that have one write in progress each, in virtual time.
type pacing struct {
	store simulatedStore
	lanes []*lane
	// place chooses the lane of a client's next write, and the hosts that have it, first the one that is asked.
	place func(client int) (lane int, hosts []int)
	// constant keeps up to most requests of each lane in progress, whatever their size.
	constant bool
	now      time.Time
	free     map[int][]time.Time // when the processors of a host are
	hosts    map[*write][]int
	events   events
	waking   map[*lane]bool // it is looked at again

	writes, requests, mostRequests int
	waited, latency, longestWait   time.Duration
}

type event struct {
	at time.Time
	do func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const (
	simulatedLanes = 3
	thinking       = 100 * time.Microsecond
	// settling is the time after a change of the store that does not count, and measuring that which does.
	settling, measuring = 50 * time.Millisecond, 200 * time.Millisecond
)

// newPacing returns a simulation with this many clients on three lanes and one host.
func newPacing(store simulatedStore, most, clients int, constant bool) *pacing {
	only := []int{0}
	return newPlacedPacing(store, most, clients, constant, simulatedLanes, func(client int) (int, []int) {
		return client % simulatedLanes, only
	})
}

// newPlacedPacing returns a simulation with this many clients and lanes.
func newPlacedPacing(
	store simulatedStore, most, clients int, constant bool, lanes int, place func(int) (int, []int),
) *pacing {
	p := &pacing{
		store: store, place: place, constant: constant, now: time.Unix(1_000_000, 0),
		free: map[int][]time.Time{}, hosts: map[*write][]int{}, waking: map[*lane]bool{},
	}
	g := &groups{maxSending: most, maxPartitions: 10, maxBytes: 1 << 20, timeout: time.Hour}
	for range lanes {
		l := g.newLane()
		l.wakes = time.Unix(0, 1) // The simulation looks again, by its own time.
		p.lanes = append(p.lanes, l)
	}
	for i := range clients {
		p.at(time.Duration(i)*time.Microsecond, func() { p.write(i) })
	}
	return p
}

func (p *pacing) at(after time.Duration, do func()) {
	heap.Push(&p.events, event{p.now.Add(after), do})
}

// run lets time pass, and forgets the figures of before.
func (p *pacing) run(d time.Duration) *pacing {
	p.writes, p.requests, p.mostRequests, p.waited, p.latency, p.longestWait = 0, 0, 0, 0, 0, 0
	for end := p.now.Add(d); len(p.events) > 0 && p.events[0].at.Before(end); {
		e := heap.Pop(&p.events).(event)
		p.now = e.at
		e.do()
	}
	return p
}

// write is one of a client, which writes again when it is answered.
func (p *pacing) write(client int) {
	lane, hosts := p.place(client)
	l := p.lanes[lane]
	w := &write{since: p.now, deadline: p.now.Add(1000 * time.Hour), bytes: 100}
	p.hosts[w] = hosts
	w.done = func(error) {
		delete(p.hosts, w)
		p.writes++
		p.latency += p.now.Sub(w.since)
		p.at(thinking, func() { p.write(client) })
	}
	l.queue = append(l.queue, w)
	p.look(l)
}

// look sends what the lane may send now, and looks again when it says.
func (p *pacing) look(l *lane) {
	for p.constant && len(l.queue) > 0 && l.pace.requests < l.pace.most {
		group := l.take(l.groups.fill(l.queue))
		l.pace.sent(len(group))
		p.send(l, group)
	}
	if p.constant {
		return
	}
	for group := l.next(p.now); group != nil; group = l.next(p.now) {
		p.send(l, group)
	}
	if len(l.queue) > 0 && !p.waking[l] {
		if _, again := l.pace.may(p.now, len(l.queue), false, l.queue[0].since); !again.IsZero() {
			p.waking[l] = true
			p.at(again.Sub(p.now), func() { p.waking[l] = false; p.look(l) })
		}
	}
}

func (p *pacing) send(l *lane, group []*write) {
	p.requests++
	p.mostRequests = max(p.mostRequests, l.pace.requests)
	for _, w := range group {
		p.waited += p.now.Sub(w.since)
		p.longestWait = max(p.longestWait, p.now.Sub(w.since))
	}
	began := p.now
	arrives := p.now.Add(p.store.network / 2)
	asked := p.hosts[group[0]][0]
	work := map[int]time.Duration{asked: p.store.request}
	for _, w := range group {
		for _, host := range p.hosts[w] {
			work[host] += p.store.each
		}
	}
	var ends time.Time
	for host, d := range work {
		// The request is answered when the host that was asked has done its part; the others are no slower on average.
		if end := p.busy(host, arrives, d); host == asked {
			ends = end
		}
	}
	took := ends.Sub(p.now) + p.store.network/2 + p.store.hangs
	p.store.hangs = 0
	p.at(took, func() {
		l.pace.ended(len(group), p.now.Sub(began))
		for _, w := range group {
			w.done(nil)
		}
		p.look(l)
	})
}

// busy has the first processor of a host that is free do some work, and returns when that is done.
func (p *pacing) busy(host int, from time.Time, work time.Duration) time.Time {
	free := p.free[host]
	for len(free) < p.store.processors {
		free = append(free, p.now)
	}
	free = free[:p.store.processors]
	first := 0
	for i := range free {
		if free[i].Before(free[first]) {
			first = i
		}
	}
	if free[first].After(from) {
		from = free[first]
	}
	free[first] = from.Add(work)
	p.free[host] = free
	return free[first]
}

// meanLatency of the writes.
func (p *pacing) meanLatency() time.Duration { return p.latency / time.Duration(max(1, p.writes)) }

var (
	// fastStore is one that is never busy: three nodes with many processors, a network between.
	fastStore = simulatedStore{network: time.Millisecond, request: 100 * time.Microsecond, each: 30 * time.Microsecond,
		processors: 64}
	// slowStore shares two processors.
	slowStore = simulatedStore{network: 100 * time.Microsecond, request: 200 * time.Microsecond,
		each: 40 * time.Microsecond, processors: 2}
)

// TestPaceOfOne: with one write at a time nothing waits, whatever the store does.
func TestPaceOfOne(t *testing.T) {
	for _, store := range []simulatedStore{fastStore, slowStore} {
		p := newPacing(store, 8, 1, false)
		if p.run(30 * time.Second); p.waited != 0 || p.writes == 0 {
			t.Errorf("%d writes waited for %v", p.writes, p.waited)
		}
	}
}

// TestPace: whatever the store does, and when it changes, lanes do about as well as the best constant number of
// requests in progress, which is another one for each.
func TestPace(t *testing.T) {
	type phase struct {
		name  string
		store simulatedStore
	}
	phases := []phase{{"fast", fastStore}, {"slow", slowStore}, {"fast again", fastStore}, {"slow again", slowStore}}
	for _, clients := range []int{3, 12, 64, 256} {
		adaptive := newPacing(fastStore, 8, clients, false)
		var fixed []*pacing
		for _, most := range []int{1, 2, 4, 8} {
			fixed = append(fixed, newPacing(fastStore, most, clients, true))
		}
		for _, ph := range phases {
			var writes []int
			for _, p := range append([]*pacing{adaptive}, fixed...) {
				p.store = ph.store
				p.run(settling)
				writes = append(writes, p.run(measuring).writes)
			}
			best := slices.Max(writes[1:])
			t.Logf("%d clients, %s: %d writes in %d requests, latency %v; 1, 2, 4, 8 requests: %v", clients, ph.name,
				writes[0], adaptive.requests, adaptive.meanLatency(), writes[1:])
			if float64(writes[0]) < 0.95*float64(best) {
				t.Errorf("%d clients, %s: %d writes, %d with the best of 1, 2, 4 and 8 requests",
					clients, ph.name, writes[0], best)
			}
			if adaptive.mostRequests > 8 {
				t.Errorf("%d requests in progress", adaptive.mostRequests)
			}
		}
	}
}

// TestPaceHangs: a request that hangs does not hold up others for longer than two round trips.
func TestPaceHangs(t *testing.T) {
	p := newPacing(slowStore, 8, 12, false)
	p.run(measuring)
	p.store.hangs = time.Minute
	p.run(30 * time.Second)
	roundTrip := p.lanes[0].pace.roundTrip
	for _, l := range p.lanes {
		roundTrip = max(roundTrip, l.pace.roundTrip)
	}
	if p.writes == 0 || p.longestWait > 3*roundTrip {
		t.Errorf("%d writes, the longest wait was %v with round trips of %v", p.writes, p.longestWait, roundTrip)
	}
}
