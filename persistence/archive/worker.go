package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"licensed/persistence"
)

// WorkerConfig of a worker. DefaultWorkerConfig gives sensible values.
type WorkerConfig struct {
	Config
	// SnapshotAfter is the idle time after which also the snapshot of an aggregate moves to the archive
	// (default 90 days; 0 for never). Shorter: less in the hot tier, more aggregates that are woken from
	// the archive, at the cost of one more read there.
	SnapshotAfter time.Duration
	// BytesPerSecond bounds what is copied, before compression (default 8 MiB; 0 for no bound).
	BytesPerSecond int
	// Concurrency is the number of evicted aggregates that are archived at once (default 2).
	Concurrency int
	// Queue is the number of them that may wait (default 10,000). One that finds no room is found again by
	// the scan.
	Queue int
	// ScanEvery is about how often all aggregates are looked through for old history and for idle ones
	// (default 24 h), ScanRate how many a second at most (default 1,000).
	ScanEvery time.Duration
	ScanRate  float64
	// RetryMin and RetryMax bound the growing pause after the archive failed (defaults 1 s and 1 min).
	RetryMin, RetryMax time.Duration
}

// DefaultWorkerConfig returns the defaults.
func DefaultWorkerConfig() WorkerConfig {
	return WorkerConfig{
		Config: DefaultConfig(), SnapshotAfter: 90 * 24 * time.Hour,
		BytesPerSecond: 8 << 20, Concurrency: 2, Queue: 10_000,
		ScanEvery: 24 * time.Hour, ScanRate: 1000, RetryMin: time.Second, RetryMax: time.Minute,
	}
}

// Owner is the runtime of the aggregates, as a worker needs it. It is safe for concurrent use.
type Owner interface {
	// Owns reports whether the aggregate is one of this process's now.
	Owns(aggregate string) bool
	// Resident reports whether the aggregate is in memory.
	Resident(aggregate string) bool
	// Head returns where the history of an aggregate ends, of which it brings it to memory.
	Head(ctx context.Context, aggregate string) (persistence.Head, error)
	// Holds says whether the shard of a head is held under the head's epoch, as Held does.
	Holds(ctx context.Context, head persistence.Head) bool
	// Archived tells an aggregate, if it is in memory, how far its history is in the archive.
	Archived(aggregate string, through uint64)
	// Release lets an aggregate be evicted if nothing is in progress.
	Release(ctx context.Context, aggregate string)
	// Forget deletes what is left of an aggregate that has a tombstone. Errors: ErrNotHeld, those of the tiers.
	Forget(ctx context.Context, aggregate string) error
}

// WorkerHotTier is what a worker needs of the hot tier.
type WorkerHotTier interface {
	HotTier
	Aggregates(ctx context.Context, after string, limit int) ([]string, error)
}

// WorkerOptions of a worker; Hot, Cold, Owner and Config must be given.
type WorkerOptions struct {
	Hot    WorkerHotTier
	Cold   persistence.Archive
	Owner  Owner
	Config WorkerConfig
	// Retention is that of Options.
	Retention func() (time.Duration, bool)
	// Now is the clock (default time.Now).
	Now func() time.Time
	// Position and SavePosition keep where the scan is between runs of the process, if given.
	Position     string
	SavePosition func(string)
	// Listener hears what happens.
	Listener WorkerListener
}

// WorkerListener hears what a worker does. The functions are called from its goroutines,
// without a lock; those that are nil are not called.
type WorkerListener struct {
	Archived func(ArchivedInfo)
	Failed   func(FailedInfo)
	Scanned  func(ScannedInfo)
}

// ArchivedInfo says that history was moved, or a snapshot.
type ArchivedInfo struct {
	Aggregate string
	Result
	Snapshot bool
	Duration time.Duration
}

// FailedInfo says that an aggregate could not be archived now. With Retry the tiers are at fault, and
// the worker pauses; otherwise it is the aggregate, which the next scan tries again.
type FailedInfo struct {
	Aggregate string
	Err       error
	Retry     bool
}

// ScannedInfo says that all aggregates were looked at, and how many there was something to do for.
type ScannedInfo struct {
	Aggregates, Due int
	Duration        time.Duration
}

// WorkerStats are figures of a moment.
type WorkerStats struct {
	// Waiting evicted aggregates, and how long the first of them has.
	Waiting int
	Lag     time.Duration
	// Failing is for how long nothing could be archived; 0 if the last attempt went well.
	Failing time.Duration
	// Dropped aggregates found no room; the scan finds them.
	Dropped uint64
}

// Worker archives in the background: evicted aggregates with enough history for a segment,
// and, scanning all, old history and the snapshots of idle aggregates. Nothing waits for it. It is safe
// for concurrent use.
type Worker struct {
	o        WorkerOptions
	archiver *Archiver
	// Bytes of records that may be copied, and aggregates that may be looked at, per
	// second.
	bytes *rate.Limiter
	scan  *rate.Limiter
	// Ends with Close.
	context context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// work has a token while queue may not be empty. One token for all servers: next
	// passes it on while something is left.
	work chan struct{}
	// Evicted aggregates, oldest first; retries go to the end.
	queue []job
	// busy has the aggregates that are queued, or that a goroutine archives. None is
	// archived by two at once: they would copy the same records twice.
	busy map[string]bool
	// working counts the runs of the archiver in progress, by aggregate: see Await.
	working map[string]int
	// How far recent aggregates are archived.
	known   memo
	failing time.Time // since when; zero if not
	// The current pause; doubles with each failure.
	pause   time.Duration
	until   time.Time // nothing is tried before
	dropped uint64
}

// job is an evicted aggregate that waits to be archived.
type job struct {
	aggregate string
	// The end of the history when it was evicted. It stays true while the shard is held,
	// since the aggregate wrote nothing more.
	head     persistence.Head
	since    time.Time
	attempts int
}

// maxAttempts bounds the attempts for one aggregate in a row, a quarter of an hour with the default
// pauses. Afterwards it is left to the next scan, lest it holds up all others.
const maxAttempts = 20

// typicalRecord is the size of a record, roughly, when none was read yet.
const typicalRecord = 128

// NewWorker returns a worker; Start starts it.
func NewWorker(o WorkerOptions) *Worker {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SavePosition == nil {
		o.SavePosition = func(string) {}
	}
	o.Listener = o.Listener.withDefaults()
	w := &Worker{o: o, work: make(chan struct{}, 1), busy: map[string]bool{}, working: map[string]int{}}
	w.bytes = rate.NewLimiter(rate.Inf, 0)
	if n := o.Config.BytesPerSecond; n > 0 {
		w.bytes = rate.NewLimiter(rate.Limit(n), max(n, 64<<10))
	}
	w.scan = rate.NewLimiter(rate.Limit(o.Config.ScanRate), 100)
	w.archiver = New(
		Options{Hot: o.Hot, Cold: o.Cold, Config: o.Config.Config, Retention: o.Retention, Now: o.Now, Limit: w.limit},
	)
	w.context, w.cancel = context.WithCancel(context.Background())
	return w
}

// withDefaults replaces nil functions.
func (l WorkerListener) withDefaults() WorkerListener {
	if l.Archived == nil {
		l.Archived = func(ArchivedInfo) {}
	}
	if l.Failed == nil {
		l.Failed = func(FailedInfo) {}
	}
	if l.Scanned == nil {
		l.Scanned = func(ScannedInfo) {}
	}
	return l
}

// Start starts the worker. Close it after use.
func (w *Worker) Start() {
	for range w.o.Config.Concurrency {
		w.running.Go(w.serve)
	}
	w.running.Go(w.scans)
}

// Close stops the worker and waits for it until ctx ends. What was in progress is left as it is: every
// step can be repeated.
func (w *Worker) Close(ctx context.Context) error {
	w.cancel()
	done := make(chan struct{})
	go func() {
		w.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("archiver is still running: %w", ctx.Err())
	}
}

// limit waits for the budget of n bytes. What is larger than the limiter's burst waits in
// parts. Errors: ErrUnavailable, when ctx ends.
func (w *Worker) limit(ctx context.Context, n int) error {
	if w.bytes.Limit() == rate.Inf {
		return nil
	}
	for burst := w.bytes.Burst(); n > 0; n -= burst {
		if err := w.bytes.WaitN(ctx, min(n, burst)); err != nil {
			return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
		}
	}
	return nil
}

// Passivated records that an aggregate was evicted with that head, while its shard was held. It
// returns at once: most aggregates have too little history yet to be worth a look.
func (w *Worker) Passivated(aggregate string, head persistence.Head, archivedThrough uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.known.get(aggregate)
	through := max(archivedThrough, known.through)
	if head.Base < through+w.segmentEvents() || head.Base < known.notBefore || w.busy[aggregate] ||
		w.context.Err() != nil {
		return
	}
	if len(w.queue) >= w.o.Config.Queue {
		w.dropped++
		return
	}
	w.busy[aggregate] = true
	w.queue = append(w.queue, job{aggregate: aggregate, head: head, since: w.o.Now()})
	w.signal()
}

// Archive moves the closed history of an aggregate now, what is not worth a segment too if all is set.
func (w *Worker) Archive(ctx context.Context, aggregate string, all bool) (Result, error) {
	head, err := w.o.Owner.Head(ctx, aggregate)
	if err != nil {
		return Result{}, fmt.Errorf("%w of %s: %w", errNoHead, aggregate, err)
	}
	return w.archive(ctx, aggregate, head, all, false)
}

// segmentEvents is the number of events that are worth a look: about a segment.
func (w *Worker) segmentEvents() uint64 {
	return max(1, uint64(w.o.Config.SegmentBytes/typicalRecord))
}

// signal puts a token into work, unless one is in it.
func (w *Worker) signal() {
	select {
	case w.work <- struct{}{}:
	default:
	}
}

// Stats returns the figures of now.
func (w *Worker) Stats() WorkerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := WorkerStats{Waiting: len(w.queue), Dropped: w.dropped}
	now := w.o.Now()
	if len(w.queue) > 0 {
		s.Lag = max(0, now.Sub(w.queue[0].since))
	}
	// A clock that cannot be set: the times of failures are compared with time.Now.
	if !w.failing.IsZero() {
		s.Failing = max(1, time.Since(w.failing))
	}
	return s
}

// serve archives evicted aggregates until the worker closes.
func (w *Worker) serve() {
	for {
		j, ok := w.next()
		if !ok {
			return
		}
		_, err := w.archive(w.context, j.aggregate, j.head, false, false)
		w.mu.Lock()
		// Failures of a tier are tried again behind the others: one aggregate must not
		// hold up the queue.
		if j.attempts++; err != nil && isRetryable(err) && j.attempts < maxAttempts {
			w.queue = append(w.queue, j)
			w.signal()
		} else {
			delete(w.busy, j.aggregate)
		}
		w.mu.Unlock()
	}
}

// next waits for a job.
func (w *Worker) next() (job, bool) {
	for {
		if !w.rest() {
			return job{}, false
		}
		w.mu.Lock()
		if len(w.queue) > 0 {
			j := w.queue[0]
			if w.queue = w.queue[1:]; len(w.queue) > 0 {
				w.signal()
			}
			w.mu.Unlock()
			return j, true
		}
		w.mu.Unlock()
		select {
		case <-w.work:
		case <-w.context.Done():
			return job{}, false
		}
	}
}

// rest waits while the worker pauses after a failure. It returns false if the worker closes.
func (w *Worker) rest() bool {
	for {
		w.mu.Lock()
		pause := time.Until(w.until)
		w.mu.Unlock()
		if pause <= 0 {
			return w.context.Err() == nil
		}
		if !w.sleep(pause) {
			return false
		}
	}
}

// sleep returns false if the worker closes before d has passed.
func (w *Worker) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-w.context.Done():
		return false
	}
}

// archive moves what is closed, and the snapshot too if that is set, and tells the listeners.
func (w *Worker) archive(
	ctx context.Context, aggregate string, head persistence.Head, all, snapshot bool,
) (Result, error) {
	w.mu.Lock()
	w.working[aggregate]++
	w.mu.Unlock()
	defer w.done(aggregate)
	began := time.Now()
	held := func(ctx context.Context) bool { return w.o.Owner.Holds(ctx, head) }
	res, err := w.archiver.Archive(ctx, head, all, held)
	w.learn(aggregate, head, res, err == nil)
	if err == nil && snapshot {
		err = w.archiver.ArchiveSnapshot(ctx, head, held)
	}
	snapshot = snapshot && err == nil
	if res.Partitions > 0 || snapshot {
		w.o.Listener.Archived(
			ArchivedInfo{Aggregate: aggregate, Result: res, Snapshot: snapshot, Duration: time.Since(began)},
		)
	}
	w.settle(aggregate, err)
	return res, err
}

// done ends a run of the archiver.
func (w *Worker) done(aggregate string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.working[aggregate]--; w.working[aggregate] == 0 {
		delete(w.working, aggregate)
	}
}

// Await waits until no run that has begun moves anything of an aggregate. For an aggregate that was forgotten: runs
// that begin later find no root. Errors: that of ctx.
func (w *Worker) Await(ctx context.Context, aggregate string) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		w.mu.Lock()
		n := w.working[aggregate]
		w.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("archiver still moves %s: %w", aggregate, ctx.Err())
		}
	}
}

// learn remembers how far an aggregate is archived, and when to look again: what is left was not worth
// a segment.
func (w *Worker) learn(aggregate string, head persistence.Head, res Result, done bool) {
	w.mu.Lock()
	known := w.known.get(aggregate)
	known.through = max(known.through, res.Through)
	if done {
		known.notBefore = head.Base + max(1, w.segmentEvents()/8)
	}
	w.known.put(aggregate, known)
	w.mu.Unlock()
	if res.Through > 0 {
		w.o.Owner.Archived(aggregate, res.Through)
	}
}

// settle processes how an attempt went. A failure of a tier pauses the whole worker, for
// longer each time: the next aggregate would meet it, too. An error of one aggregate
// changes nothing for the others.
func (w *Worker) settle(aggregate string, err error) {
	if w.context.Err() != nil {
		return // closing
	}
	w.mu.Lock()
	retry := err != nil && isRetryable(err)
	switch {
	case retry:
		c := &w.o.Config
		if w.pause = min(2*w.pause, c.RetryMax); w.failing.IsZero() {
			w.failing, w.pause = time.Now(), c.RetryMin
		}
		w.until = time.Now().Add(w.pause)
	case err == nil:
		w.failing, w.pause, w.until = time.Time{}, 0, time.Time{}
	}
	w.mu.Unlock()
	if err != nil && !errors.Is(err, ErrNotHeld) && !errors.Is(err, persistence.ErrForgotten) {
		w.o.Listener.Failed(FailedInfo{Aggregate: aggregate, Err: err, Retry: retry})
	}
}

// errNoHead says that the owner did not tell where an aggregate's history ends.
var errNoHead = errors.New("no head")

// isRetryable reports whether an error is a tier's, and not the aggregate's.
func isRetryable(err error) bool {
	for _, e := range []error{errNoHead, ErrNotHeld, ErrShortfall, ErrMismatch, persistence.ErrCorrupt,
		persistence.ErrNotFound, persistence.ErrRejected, persistence.ErrForgotten} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// memo remembers the most recent aggregates: two generations, the older of which is dropped when the
// younger is full.
type memo struct{ young, old map[string]archived }

// archived is how far an aggregate is in the archive, and from which base on it is worth another look.
type archived struct{ through, notBefore uint64 }

// memoSize bounds each generation: 100,000 aggregates together.
const memoSize = 50_000

// get returns what is known of an aggregate; zero if nothing is.
func (m *memo) get(aggregate string) archived {
	if a, ok := m.young[aggregate]; ok {
		return a
	}
	return m.old[aggregate]
}

// put remembers what is known of an aggregate.
func (m *memo) put(aggregate string, a archived) {
	if m.young == nil || len(m.young) >= memoSize {
		m.young, m.old = map[string]archived{}, m.young
	}
	m.young[aggregate] = a
}

// jittered returns about d.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}
