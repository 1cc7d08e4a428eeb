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
	key       []byte // of the partition, as the driver hashes it
	bytes     int    // estimated as Cassandra counts a batch
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

// groups sends writes: alone while few are in progress, together with others of the same
// replicas when more are. The limits do not change after newGroups, so that they need no
// lock.
type groups struct {
	execute       func(group []*write) error       // sends one request
	finish        func(w *write, err error)        // tells a write its outcome
	replicaSet    func(partitionKey []byte) uint64 // hostPolicy.replicaSet
	maxPartitions int
	maxBytes      int
	maxSending    int
	timeout       time.Duration // how long a write waits before it is not sent any more
	requests      atomic.Uint64 // sent
	lanes         *lanes[lane]
}

// newGroups returns the groups of a store. Limits that the options leave open are those
// at which Cassandra starts to warn of large batches, as found when the store was opened.
func newGroups(s *Store, found *findings) *groups {
	g := &groups{
		execute: s.execute, finish: s.finish, replicaSet: s.session.policy.replicaSet,
		maxPartitions: s.opts.GroupPartitions, maxBytes: s.opts.GroupBytes, maxSending: s.opts.BatchesInFlight,
		timeout: s.opts.Timeout,
	}
	g.lanes = newLanes(func() *lane { return &lane{groups: g} })
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
	w.deadline = time.Now().Add(g.timeout)
	g.lanes.of(g.replicaSet(w.key)).submit(w)
}

// lane is the writes of one set of replicas. At most groups.maxSending goroutines send,
// each in [lane.send]; a further write waits in the queue until one of them returns from
// Cassandra and takes it along.
type lane struct {
	groups *groups

	mu      sync.Mutex
	sending int      // requests in progress
	queue   []*write // waiting, first in first out, while sending is at its limit
}

// submit starts a goroutine for the write, or queues it if enough are sending.
func (l *lane) submit(w *write) {
	l.mu.Lock()
	if l.sending == l.groups.maxSending {
		l.queue = append(l.queue, w)
		l.mu.Unlock()
		return
	}
	// Counted under the lock, before the goroutine exists: the next caller must see it.
	l.sending++
	l.mu.Unlock()
	go l.send([]*write{w})
}

// send sends a group, then what waits, until nothing does.
func (l *lane) send(group []*write) {
	for group != nil {
		l.groups.send(group)
		group = l.next()
	}
}

// next takes the next group off the queue, or nil. Writes that waited too long are not sent: while
// nothing is answered their callers should hear so.
func (l *lane) next() []*write {
	l.mu.Lock()
	now := time.Now()
	// The queue is in the order of arrival, and every write has the same patience, so
	// that the late ones are at its front.
	late := slices.IndexFunc(l.queue, func(w *write) bool { return now.Before(w.deadline) })
	if late < 0 {
		late = len(l.queue)
	}
	expired := l.take(late)
	var group []*write
	if len(l.queue) > 0 {
		group = l.take(l.groups.fill(l.queue))
	} else {
		// Under the same lock as the look at the queue: a write that arrives now sees the
		// smaller number and starts a goroutine of its own, so none is left behind.
		l.sending--
	}
	l.mu.Unlock()

	if len(expired) > 0 {
		// There may be many, and the next group must not wait for them.
		go l.groups.expire(expired)
	}
	return group
}

// expire tells writes that they were not sent in time. The outcome is "unknown", although
// these certainly did not happen: a repetition of an earlier attempt may be among them,
// and the earlier one may yet be applied.
func (g *groups) expire(late []*write) {
	err := fmt.Errorf("%w: not sent in %v", persistence.ErrUnknownOutcome, g.timeout)
	for _, w := range late {
		g.finish(w, err)
	}
}

// take removes the first n writes from the queue. The caller holds mu. The queue's array
// would keep the sent writes alive, so they are cleared in it.
func (l *lane) take(n int) []*write {
	taken := slices.Clone(l.queue[:n])
	clear(l.queue[:n])
	l.queue = l.queue[n:]
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
