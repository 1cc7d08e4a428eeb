package cassandra

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// write is one partition's rows in flight. Its sender owns it until done is called;
// nothing changes it after submit.
type write struct {
	what      persistence.RootKey // for errors
	statement string
	rows      [][]any
	key       []byte    // of the partition, as the driver hashes it
	bytes     int       // estimated as Cassandra counts a batch
	set       uint64    // of replicas
	since     time.Time // when it was submitted
	deadline  time.Time
	done      func(error)
	ended     func() // after done
}

// cellBytes is what Cassandra counts for each value beside its bytes: timestamps and the like.
const cellBytes = 20

// add adds a row, and its size as Cassandra estimates it. Errors in that estimate cost a
// warning in Cassandra's log at most: the limits are, unless configured, those at which
// it warns, not those at which it refuses.
func (w *write) add(values []any) {
	w.rows = append(w.rows, values)
	for _, v := range values {
		w.bytes += cellBytes
		switch v := v.(type) {
		case string:
			w.bytes += len(v)
		case []byte:
			w.bytes += len(v)
		default:
			w.bytes += 8
		}
	}
}

// groups sends writes: alone while few are in progress, together with others that the same node is asked for when more
// are. The limits do not change after newGroups, so that they need no lock.
type groups struct {
	execute       func(group []*write) error      // sends one request
	finish        func(w *write, err error)       // tells a write its outcome
	place         func(partitionKey []byte) place // hostPolicy.place
	maxPartitions int
	maxBytes      int
	maxSending    int
	timeout       time.Duration // how long a write waits before it is not sent any more
	requests      atomic.Uint64 // sent
	lanes         *lanes[lane]
	suspects      suspects
}

// newGroups returns the groups of a store. Limits that the options leave open are those
// at which Cassandra starts to warn of large batches, as found when the store was opened.
func newGroups(s *Store, found *findings) *groups {
	g := &groups{
		execute: s.execute, finish: s.finish, place: s.session.policy.place,
		maxPartitions: s.opts.GroupPartitions, maxBytes: s.opts.GroupBytes, maxSending: s.opts.BatchesInFlight,
		timeout: s.opts.Timeout,
	}
	g.lanes = newLanes(g.newLane)
	if g.maxPartitions == 0 {
		g.maxPartitions = found.batchPartitions
	}
	if g.maxBytes == 0 {
		g.maxBytes = found.batchBytes
	}
	return g
}

// submit sends a write, or queues it. It does not block: the outcome goes to the write's
// done, from another goroutine.
func (g *groups) submit(w *write) {
	w.since = time.Now()
	w.deadline = w.since.Add(g.timeout)
	at := g.place(w.key)
	w.set = at.set
	l := g.lanes.of(at.coordinator)
	if g.suspects.has(w.set, w.since) {
		l = g.lanes.of(w.set)
	}
	l.mu.Lock()
	l.queue = append(l.queue, w)
	l.launch(w.since)
	l.mu.Unlock()
}

// lane is the writes that one node is asked for, or those of one set of replicas that is suspect. Each request in
// progress has a goroutine, in [lane.send]; further writes wait in the queue until pace sends them.
type lane struct {
	groups *groups

	mu    sync.Mutex
	pace  pace
	queue []*write // waiting, first in first out
	// wake looks at the queue again, at a time that is zero if it will not.
	wake  *time.Timer
	wakes time.Time
}

func (g *groups) newLane() *lane {
	return &lane{groups: g, pace: pace{most: g.maxSending}}
}

// launch starts a goroutine for each request that may be sent. The caller holds mu: the next caller must see what is in
// progress.
func (l *lane) launch(now time.Time) {
	for group := l.next(now); group != nil; group = l.next(now) {
		go l.send(group)
	}
}

// send sends a group, then what waits, until nothing may be sent.
func (l *lane) send(group []*write) {
	for group != nil {
		began := time.Now()
		l.groups.send(group)
		now := time.Now()
		l.mu.Lock()
		l.pace.ended(len(group), now.Sub(began))
		group = l.next(now)
		l.launch(now)
		l.mu.Unlock()
	}
}

// next takes the next group off the queue and counts it as in progress, or returns nil if none may be sent now. The
// caller holds mu. Writes that waited too long are not sent: while nothing is answered their callers should hear so.
func (l *lane) next(now time.Time) []*write {
	// The queue is in the order of arrival, and every write has the same patience, so
	// that the late ones are at its front.
	late := slices.IndexFunc(l.queue, func(w *write) bool { return now.Before(w.deadline) })
	if late < 0 {
		late = len(l.queue)
	}
	if late > 0 {
		// There may be many, and the next group must not wait for them.
		go l.groups.expire(l.take(late))
	}
	if len(l.queue) == 0 {
		return nil
	}
	n := l.groups.fill(l.queue)
	full := n < len(l.queue) || n == l.groups.maxPartitions
	ok, again := l.pace.may(now, len(l.queue), full, l.queue[0].since)
	if !ok {
		l.lookAgain(now, again)
		return nil
	}
	l.pace.sent(n)
	return l.take(n)
}

// lookAgain has the queue looked at again at a time or earlier; zero if that is not needed. The caller holds mu.
func (l *lane) lookAgain(now, at time.Time) {
	if at.IsZero() || !l.wakes.IsZero() && !at.Before(l.wakes) {
		return
	}
	l.wakes = at
	if l.wake != nil {
		l.wake.Reset(at.Sub(now))
		return
	}
	l.wake = time.AfterFunc(at.Sub(now), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wakes = time.Time{}
		l.launch(time.Now())
	})
}

// expire tells writes that they were not sent in time. The outcome is "unknown", although
// these certainly did not happen: a repetition of an earlier attempt may be among them,
// and the earlier one may yet be applied.
func (g *groups) expire(late []*write) {
	for _, w := range late {
		g.finish(w, fmt.Errorf("%w: not sent in %v", persistence.ErrUnknownOutcome, w.deadline.Sub(w.since)))
	}
}

// take removes the first n writes from the queue. The caller holds mu.
func (l *lane) take(n int) []*write {
	taken := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	return taken
}

// fill returns the number of writes from the front of the queue that make a group, at
// least 1: a write above maxBytes goes alone. The queue is not empty.
func (g *groups) fill(queue []*write) int {
	size := queue[0].bytes
	n := 1
	for n < len(queue) && n < g.maxPartitions {
		if size += queue[n].bytes; size > g.maxBytes {
			break
		}
		n++
	}
	return n
}

// send sends the writes in one request and tells each its outcome.
func (g *groups) send(group []*write) {
	g.requests.Add(1)
	err := g.execute(group)
	// One at a time, those that are valid succeed. It ends, since a group of one is not
	// sent again.
	if err != nil && isRejected(err) && len(group) > 1 {
		// Nothing was applied, and one of them, or their number, is why.
		for _, w := range group {
			g.send([]*write{w})
		}
		return
	}
	if err == nil || !isRejected(err) {
		g.suspects.note(group, err == nil, time.Now())
	}
	if err != nil {
		err = writeError(err)
	}
	for _, w := range group {
		g.finish(w, err)
	}
}

// execute sends the writes as one request, and returns Cassandra's error as it is. A
// single row is sent as a statement: a batch of one costs the coordinator more.
func (s *Store) execute(group []*write) error {
	first := group[0]
	if len(group) == 1 && len(first.rows) == 1 {
		// The routing key is given: the driver need not derive it from the prepared
		// statement.
		q := s.session.Query(first.statement, first.rows[0]...).Idempotent(true).RoutingKey(first.key)
		err := q.Exec()
		q.Release()
		return err
	}
	// Unlogged: all statements of a write are of one partition, which Cassandra applies
	// as one mutation. Several writes share the request only.
	b := s.session.NewBatch(gocql.UnloggedBatch)
	b.Entries = make([]gocql.BatchEntry, 0, len(group)*len(first.rows))
	for _, w := range group {
		for _, row := range w.rows {
			b.Entries = append(b.Entries, gocql.BatchEntry{Stmt: w.statement, Args: row, Idempotent: true})
		}
	}
	return s.session.ExecuteBatch(b)
}
