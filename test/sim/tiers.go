package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/tiered"
)

// cold is the archive tier. Like a plain store it overwrites what is under a name, and now and then it
// reports success for data that it damaged.
type cold struct {
	w        *world
	segments map[string][]byte
}

// task runs the product's sequential code as a coroutine in virtual time: every call to a store lets
// the world continue until the answer is present.
type task struct {
	w       *world
	node    *node // nil: outside of any process
	runs    *coroutine
	stopped bool
}

var errStopped = errors.New("the process of the task is gone")

// coroutine runs one task after another. The race detector keeps some kilobytes for each iter.Pull until the
// process ends, which was many gigabytes for the seeds of a test, so coroutines whose task has ended are used again.
type coroutine struct {
	task  func() // nil: the last one has ended
	yield func(struct{}) bool
	next  func() (struct{}, bool)
}

// idle has the coroutines without a task, of all worlds.
var idle struct {
	sync.Mutex
	coroutines []*coroutine
}

func newCoroutine() *coroutine {
	idle.Lock()
	defer idle.Unlock()
	if last := len(idle.coroutines) - 1; last >= 0 {
		c := idle.coroutines[last]
		idle.coroutines = idle.coroutines[:last]
		return c
	}
	c := &coroutine{}
	c.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		for {
			c.task()
			c.task = nil
			yield(struct{}{})
		}
	})
	return c
}

// spawn starts a task in a process.
func (w *world) spawn(n *node, what string, f func(*task)) {
	t := &task{w: w, node: n, runs: newCoroutine()}
	t.runs.task = func() {
		defer func() {
			if p := recover(); p != nil && p != errStopped { //nolint:errorlint // our own panic value
				panic(p)
			}
		}()
		f(t)
	}
	w.tasks = append(w.tasks, t)
	w.trace("task %s", what)
	t.next()
}

// next continues the task until it waits or has ended. It does nothing after the end.
func (t *task) next() {
	if t.runs == nil {
		return
	}
	t.runs.next()
	if t.runs.task == nil {
		idle.Lock()
		defer idle.Unlock()
		idle.coroutines = append(idle.coroutines, t.runs)
		t.runs = nil
	}
}

// stop ends the task where it waits.
func (t *task) stop() {
	t.stopped = true
	t.next()
}

// await starts something and waits until it is done. If the process is gone by then it never returns.
func (t *task) await(start func(done func())) {
	inc := persistence.Incarnation{}
	if t.node != nil {
		inc = t.node.incarnation
	}
	start(func() {
		switch {
		case t.node == nil:
			t.next()
		case t.node.up && t.node.incarnation == inc:
			t.node.later(0, "task continues", t.next)
		default:
			t.stop()
		}
	})
	if !t.stopped { // a deferred call of a task that was stopped does not wait
		t.runs.yield(struct{}{})
	}
	if t.stopped {
		panic(errStopped)
	}
}

func (w *world) stopTasks() {
	for _, t := range w.tasks {
		t.stop()
	}
}

// hotTier gives a task the hot tier.
type hotTier struct {
	persistence.Journal // nil: what is not below is not used
	t                   *task
}

func (h hotTier) TopRoot(_ context.Context, aggregate string) (root persistence.Root, err error) {
	roots, err := h.ReadRoots(nil, aggregate, persistence.RootKey{}, 1) //nolint:staticcheck // no context in simulation
	if err == nil && len(roots) == 0 {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return root, err
	}
	return roots[0], nil
}

func (h hotTier) ReadRoots(
	_ context.Context, aggregate string, below persistence.RootKey, limit int,
) (roots []persistence.Root, err error) {
	var forgotten error
	h.t.await(func(done func()) {
		h.readForgotten(aggregate, func(end func()) {
			h.t.w.store.readRoots(aggregate, below, limit,
				func(r []persistence.Root, e error) { roots, err = r, e; end() })
		}, func(e error) { forgotten = e; done() })
	})
	if forgotten != nil {
		return nil, forgotten
	}
	return roots, err
}

func (h hotTier) ReadRoot(_ context.Context, key persistence.RootKey) (persistence.Root, error) {
	above := key
	above.Version++
	roots, err := h.ReadRoots(nil, key.Aggregate, above, 1) //nolint:staticcheck // no context in simulation
	if err == nil && (len(roots) == 0 || roots[0].Key != key) {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return persistence.Root{}, err
	}
	return roots[0], nil
}

func (h hotTier) ReadRecords(
	_ context.Context, p persistence.Partition, after uint64, limit int,
) (records []persistence.Record, err error) {
	h.t.await(func(done func()) {
		h.t.w.store.readRecords(p, after, limit, func(r []persistence.Record, e error) { records, err = r, e; done() })
	})
	return records, err
}

func (h hotTier) write(start func(func(error))) (err error) {
	h.t.await(func(done func()) { start(func(e error) { err = e; done() }) })
	return err
}

func (h hotTier) MarkArchived(_ context.Context, key persistence.RootKey, m persistence.ArchiveMark) error {
	return h.write(func(done func(error)) { h.t.w.store.mark(key, m, done) })
}

func (h hotTier) DeleteRecords(_ context.Context, p persistence.Partition) error {
	return h.write(func(done func(error)) { h.t.w.store.deleteRecords(p, done) })
}

func (h hotTier) StripRoot(_ context.Context, key persistence.RootKey, at string) error {
	return h.write(func(done func(error)) { h.t.w.store.strip(key, at, done) })
}

// coldTier gives a task the archive.
type coldTier struct {
	persistence.Archive
	t *task
}

func (c coldTier) PutSegment(_ context.Context, name string, data []byte, _ time.Time) (err error) {
	w := c.t.w
	c.t.await(func(done func()) {
		if w.chance(w.params.FailArchive) {
			if w.chance(0.5) {
				w.after(w.latency(), "segment after all "+short(name),
					func() { w.cold.segments[name] = slices.Clone(data) })
			}
			w.after(w.latency(), "segment unknown", func() { err = persistence.ErrUnknownOutcome; done() })
			return
		}
		w.after(w.latency(), "segment "+short(name), func() {
			kept := slices.Clone(data)
			if w.chance(w.params.FailArchive / 4) {
				kept[w.IntN(len(kept))] ^= 1
			}
			w.cold.segments[name] = kept
			done()
		})
	})
	return err
}

func (c coldTier) ReadSegment(_ context.Context, name string) (data []byte, err error) {
	w := c.t.w
	c.t.await(func(done func()) {
		w.after(w.latency(), "read segment "+short(name), func() {
			var ok bool
			if data, ok = w.cold.segments[name]; !ok {
				err = persistence.ErrNotFound
			} else if w.chance(w.params.FailArchive) {
				err = persistence.ErrUnavailable
			}
			done()
		})
	})
	return data, err
}

// DeleteSegment may take effect though its caller is told otherwise, and late.
func (c coldTier) DeleteSegment(_ context.Context, name string) (err error) {
	w := c.t.w
	c.t.await(func(done func()) {
		fails := w.chance(w.params.FailArchive)
		if !fails || w.chance(0.5) {
			w.after(w.latency(), "segment deleted "+short(name), func() {
				delete(w.cold.segments, name)
				w.counts.Deleted++
				if !fails {
					done()
				}
			})
		}
		if fails {
			err = persistence.ErrUnknownOutcome
			w.after(w.latency(), "deletion unknown "+short(name), done)
		}
	})
	return err
}

func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// archive has the node's archiver look at an aggregate, as its scan does.
func (h *host) archive() {
	h.node.request(h.id, &actors.Request{Query: actors.HeadQuery{Closed: true}}, func(r *actors.Request) {
		if r.Err == nil {
			h.archiveFrom(r.Answer.Head)
		}
	})
}

// archiveFrom has the node's archiver move what is below the head. It continues beside whatever else
// happens: while the aggregate is woken elsewhere, and beside the archivers of other nodes.
func (h *host) archiveFrom(head persistence.Head) {
	n, w := h.node, h.node.w
	all, snapshot := w.chance(0.5), w.chance(0.5)
	w.spawn(n, fmt.Sprintf("node %d archives %s", n.id, h.id), func(t *task) {
		held := func(context.Context) (held bool) {
			t.await(func(done func()) {
				w.authority.held(n, h.shard, head.Partition.Epoch, func(ok bool) { held = ok; done() })
			})
			return held
		}
		a := archive.New(archive.Options{
			Hot: hotTier{t: t}, Cold: coldTier{t: t},
			Config: archive.Config{SegmentBytes: 400, After: time.Hour, Page: 2},
			Now:    n.clock,
			Name:   func() string { return fmt.Sprintf("%016x", w.Uint64()) },
		})
		res, err := a.Archive(context.Background(), head, all, held)
		w.counts.Segments += res.Segments
		w.counts.Stripped += res.Partitions
		if err == nil && snapshot && a.ArchiveSnapshot(context.Background(), head, held) == nil {
			w.counts.Stubs++
		}
		w.trace("archived %s: %+v, %v", h.id, res, err)
	})
}

// readTop reads the top root through both tiers.
func (h *host) readTop(done func(persistence.Root, error)) {
	w := h.node.w
	w.spawn(h.node, "read top of "+h.id, func(t *task) {
		root, err := tiered.NewJournal(hotTier{t: t}, coldTier{t: t}).
			TopRoot(context.Background(), actors.AggregateID(h.id, h.node.env.Kind))
		done(root, err)
	})
}

// readPast reads what is below a root whose snapshot is damaged.
func (h *host) readPast(top persistence.Root, done func(persistence.Past, error)) {
	h.node.w.spawn(h.node, "read what is below "+top.Key.String(), func(t *task) {
		done(tiered.NewReader(hotTier{t: t}, coldTier{t: t}, nil).Past(context.Background(), top, nil))
	})
}

// reading is a history that was read during the run.
type reading struct {
	aggregate string
	head      persistence.Head
	newest    bool
	records   []persistence.Record
	gaps      []*persistence.HistoryGap
	err       error
	done      bool
}

// readHistory has some process read a history that ends at a head, while all else continues.
func (w *world) readHistory(aggregate string, head persistence.Head) {
	r := &reading{aggregate: aggregate, head: head, newest: w.chance(0.5)}
	w.readings = append(w.readings, r)
	w.spawn(nil, "read history of "+aggregate, func(t *task) {
		r.err = tiered.NewReader(hotTier{t: t}, coldTier{t: t}, nil).Read(context.Background(), head,
			persistence.HistoryRange{Newest: r.newest}, func(i *persistence.HistoryItem) error {
				if i.Gap != nil {
					r.gaps = append(r.gaps, i.Gap)
				} else {
					r.records = append(r.records, i.Record)
				}
				return nil
			})
		r.done = true
	})
}

// check compares what was read with the final history.
func (r *reading) check(w *world, h *history) {
	if !r.done || r.err != nil || w.store.losses > 0 {
		return // with events lost there are gaps
	}
	if h == nil {
		return // it was forgotten
	}
	covered := uint64(len(r.records))
	for _, g := range r.gaps {
		covered += g.Through - g.After
		if !errors.Is(g, persistence.ErrUnavailable) {
			w.fail("history of %s read at %d has a gap: %v", r.aggregate, r.head.Sequence, g)
		}
	}
	if covered != r.head.Sequence {
		w.fail("history of %s read at %d has %d events", r.aggregate, r.head.Sequence, covered)
	}
	if r.newest {
		slices.Reverse(r.records)
	}
	last := uint64(0)
	for i := range r.records {
		rec := &r.records[i]
		if rec.Sequence <= last || rec.Sequence > uint64(len(h.records)) ||
			h.records[rec.Sequence-1].CommandID != rec.CommandID {
			w.fail("history of %s read at %d: record %d is not that of the final history",
				r.aggregate, r.head.Sequence, rec.Sequence)
			return
		}
		last = rec.Sequence
	}
	w.counts.Readings++
}

// final reads what all replicas have together, at once and without faults: for the checker.
type final struct {
	persistence.Archive
	w *world
}

func (f final) ReadRoots(
	_ context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	rows := map[persistence.RootKey]*rootRow{}
	for _, r := range f.w.store.replicas {
		for k, row := range r.roots {
			if k.Aggregate == aggregate && (below.IsZero() || k.Less(below)) {
				rows[k] = rows[k].merge(row)
			}
		}
	}
	return views(rows, limit), nil
}

func (f final) ReadRoot(_ context.Context, key persistence.RootKey) (persistence.Root, error) {
	var row *rootRow
	for _, r := range f.w.store.replicas {
		row = row.merge(r.roots[key])
	}
	if row == nil || row.root.stamp == 0 {
		return persistence.Root{}, persistence.ErrNotFound
	}
	return row.view(), nil
}

func (f final) ReadRecords(
	_ context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	latest := map[uint64]stamped[persistence.Record]{}
	for _, r := range f.w.store.replicas {
		for seq, row := range r.rows[p] {
			latest[seq] = latest[seq].later(row)
		}
	}
	var page []persistence.Record
	for seq, row := range latest {
		if seq > after {
			page = append(page, row.value)
		}
	}
	slices.SortFunc(page, func(a, b persistence.Record) int { return int(a.Sequence) - int(b.Sequence) })
	return page[:min(limit, len(page))], nil
}

func (f final) ReadSegment(_ context.Context, name string) ([]byte, error) {
	if data, ok := f.w.cold.segments[name]; ok {
		return data, nil
	}
	return nil, persistence.ErrNotFound
}

func (f final) Segments(_ context.Context, after string, limit int) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(f.w.cold.segments)) {
		if name > after && len(names) < limit {
			names = append(names, name)
		}
	}
	return names, nil
}
