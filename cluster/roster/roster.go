// Package roster keeps what the store says of the incarnations that gossip names.
//
// # The model
//
// Gossip is a hint: any sender that reaches a process can say that a node is dead, is alive, or is reached at some
// address. So nobody acts on that before the node's lease row was read. A [Roster] reads the rows of the incarnations
// that its user looks at, once, and again when there is a reason: somebody says that one is dead ([Roster.Suspect]),
// a request to it failed, or the last read is long ago.
//
//	gossip: "n1 is dead"      Suspect ──► read of n1's lease row ──► dead: Changed
//	                                                             └─► alive: nothing happened
//
// What hints can cause is bounded: reads of one row are coalesced and at least Pause apart, those of all rows are
// limited by a rate, with precedence for rows that are known to exist, and the latest Most rows are kept. So forged
// names cost a bounded number of reads, and a suspicion against a known node never waits for them.
package roster

import (
	"context"
	"errors"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"licensed/internal/planted"
	"licensed/persistence"
)

// State of an incarnation, by its lease row.
type State uint8

// The states of an incarnation.
const (
	// Unknown: the row was not read yet. It will be soon.
	Unknown State = iota
	// Absent: there is no row. A process that names the incarnation is wrong, lies, or is of another cluster.
	Absent
	// Alive: the row is not marked dead. Its process may have ended all the same.
	Alive
	// Dead: the row is marked dead, for good.
	Dead
)

// Config of a roster. DefaultConfig gives all but Read.
type Config struct {
	// Read returns a lease row, or persistence.ErrNotFound.
	Read func(ctx context.Context, i persistence.Incarnation) (persistence.Lease, error)
	// Timeout of a read (default 750 ms).
	Timeout time.Duration
	// Listener hears what happens.
	Listener Listener
	// Pause is the least time between two reads of one row (default 50 ms), Absence how long it counts that there is
	// no row (default 2.5 s), and Fresh how long it counts that one is alive, if nobody suspects it (default 1 min).
	Pause, Absence, Fresh time.Duration
	// PerSecond bounds the reads of rows that are not known to exist (default 50), Waiting how many of them wait
	// (default 256; those of more are read when they are looked at again).
	PerSecond, Waiting int
	// Most is the number of incarnations that are kept (default 4096).
	Most int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Timeout:   750 * time.Millisecond,
		Pause:     50 * time.Millisecond,
		Absence:   2500 * time.Millisecond,
		Fresh:     time.Minute,
		PerSecond: 50, Waiting: 256, Most: 4096,
	}
}

// Listener hears what happens. The functions must neither block nor call the roster. Those that are nil are not called.
type Listener struct {
	// Changed is told of each incarnation whose state or address was read for the first time or changed. Calls do not
	// overlap.
	Changed func(i persistence.Incarnation, l persistence.Lease, s State)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Changed == nil {
		l.Changed = func(persistence.Incarnation, persistence.Lease, State) {}
	}
	return l
}

// Roster keeps lease rows. It is safe for concurrent use.
type Roster struct {
	config  Config
	context context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// Those whose row was seen, and those others: names that are made up push out none that exists.
	known, strangers *lru.Cache[persistence.Incarnation, *entry]

	urgent []persistence.Incarnation // whose row is known to exist
	others []persistence.Incarnation
	wake   chan struct{} // capacity 1
}

// entry is what is known of an incarnation.
type entry struct {
	state   State
	lease   persistence.Lease
	read    time.Time // when the last successful read began; zero: none
	tried   time.Time // when the last read began
	queued  bool
	reading bool
	again   bool // it was suspected while a read was in progress
}

// Start returns a roster that has read nothing. Close it after use.
func Start(c Config) (*Roster, error) {
	c.Listener = c.Listener.withDefaults()
	known, err := lru.New[persistence.Incarnation, *entry](c.Most)
	strangers, _ := lru.New[persistence.Incarnation, *entry](c.Most)
	if err != nil || c.Read == nil || c.PerSecond <= 0 || c.Timeout <= 0 {
		return nil, errors.Join(
			errors.New("roster configuration: Read, Timeout, PerSecond or Most is missing or out of range"), err,
		)
	}
	r := &Roster{config: c, known: known, strangers: strangers, wake: make(chan struct{}, 1)}
	r.context, r.cancel = context.WithCancel(context.Background())
	r.running.Go(r.run)
	return r, nil
}

// Close ends the roster. What it knows can still be looked at.
func (r *Roster) Close() {
	r.cancel()
	r.running.Wait()
}

// Look returns what is known of an incarnation now. What is not known, or long ago, is read in the background.
func (r *Roster) Look(i persistence.Incarnation) (persistence.Lease, State) {
	if i.IsZero() {
		return persistence.Lease{}, Absent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.get(i)
	age := time.Since(e.read)
	if e.state == Unknown || e.state == Absent && age > r.config.Absence || e.state == Alive && age > r.config.Fresh {
		r.enqueue(i, e)
	}
	return e.lease, e.state
}

// Suspect has the row of an incarnation read again: somebody says that it is dead, or it does not answer. One that
// nobody looked at is of no interest.
func (r *Roster) Suspect(i persistence.Incarnation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.known.Peek(i); ok && e.state == Alive {
		if planted.Bug(planted.BelieveGossipAtGateway) {
			e.state = Dead
			return
		}
		if e.reading {
			e.again = true
		} else {
			r.enqueue(i, e)
		}
	}
}

// Await returns what the store says of an incarnation: as known, or by a read that the caller waits for. Errors:
// those of the store and of ctx.
func (r *Roster) Await(ctx context.Context, i persistence.Incarnation) (persistence.Lease, State, error) {
	if l, s := r.Look(i); s == Alive || s == Dead {
		return l, s, nil
	}
	return r.fetch(ctx, i)
}

// peek returns what is kept of an incarnation. Requires r.mu.
func (r *Roster) peek(i persistence.Incarnation) (*entry, bool) {
	if e, ok := r.known.Peek(i); ok {
		return e, true
	}
	return r.strangers.Peek(i)
}

// get is peek, and keeps the incarnation. Requires r.mu.
func (r *Roster) get(i persistence.Incarnation) *entry {
	if e, ok := r.known.Get(i); ok {
		return e
	}
	e, ok := r.strangers.Get(i)
	if !ok {
		e = &entry{}
		r.strangers.Add(i, e)
	}
	return e
}

// enqueue has a row read soon. Requires r.mu.
func (r *Roster) enqueue(i persistence.Incarnation, e *entry) {
	switch {
	case e.queued || e.reading:
		return
	case e.state == Alive:
		r.urgent = append(r.urgent, i)
	case len(r.others) >= r.config.Waiting:
		return
	default:
		r.others = append(r.others, i)
	}
	e.queued = true
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// together is the number of rows that are read side by side.
const together = 16

// run reads rows until the roster is closed.
func (r *Roster) run() {
	var reads sync.WaitGroup
	defer reads.Wait()
	places := make(chan struct{}, together)
	tokens, at := float64(r.config.PerSecond), time.Now()
	for {
		now := time.Now()
		tokens = min(float64(r.config.PerSecond), tokens+now.Sub(at).Seconds()*float64(r.config.PerSecond))
		at = now
		i, ok, wait := r.next(now, &tokens)
		if !ok {
			timer := time.NewTimer(wait)
			select {
			case <-r.wake:
			case <-timer.C:
			case <-r.context.Done():
				timer.Stop()
				return
			}
			timer.Stop()
			continue
		}
		select {
		case places <- struct{}{}:
		case <-r.context.Done():
			return
		}
		reads.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(r.context, r.config.Timeout)
			defer cancel()
			_, _, _ = r.fetch(ctx, i)
		})
	}
}

// next takes the next row to read, or returns the time until there is one.
func (r *Roster) next(now time.Time, tokens *float64) (i persistence.Incarnation, ok bool, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait = time.Hour
	take := func(queue []persistence.Incarnation) []persistence.Incarnation {
		for k, candidate := range queue {
			e, known := r.peek(candidate)
			if known && now.Sub(e.tried) < r.config.Pause {
				wait = min(wait, r.config.Pause-now.Sub(e.tried))
				continue
			}
			i, ok = candidate, known
			if known {
				e.queued, e.reading, e.tried = false, true, now
			} else {
				wait = 0 // forgotten meanwhile
			}
			return append(queue[:k], queue[k+1:]...)
		}
		return queue
	}
	if r.urgent = take(r.urgent); ok {
		return i, ok, 0
	}
	if len(r.others) > 0 && *tokens < 1 {
		return i, false, min(wait, time.Second/time.Duration(r.config.PerSecond)+1)
	}
	if r.others = take(r.others); ok {
		*tokens--
	}
	return i, ok, wait
}

// fetch reads a row.
func (r *Roster) fetch(ctx context.Context, i persistence.Incarnation) (persistence.Lease, State, error) {
	began := time.Now()
	l, err := r.config.Read(ctx, i)
	state := Alive
	switch {
	case errors.Is(err, persistence.ErrNotFound):
		l, state, err = persistence.Lease{}, Absent, nil
	case l.Dead:
		state = Dead
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.get(i)
	e.reading = false
	if err != nil {
		if e.tried = time.Now(); e.state == Alive {
			r.enqueue(i, e) // a suspicion stays until the store answers
		}
		return l, Unknown, err
	}
	// Dead is for good, and replies may overtake one another.
	if e.state != Dead && !began.Before(e.read) {
		changed := e.state != state || e.lease.Address != l.Address
		e.state, e.lease, e.read = state, l, began
		if state != Absent {
			r.strangers.Remove(i)
			r.known.Add(i, e)
		}
		if changed {
			r.config.Listener.Changed(i, l, state)
		}
	}
	if again := e.again; again && e.state == Alive {
		e.again = false
		r.enqueue(i, e)
	}
	return e.lease, e.state, nil
}
