package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"licensed/actors"
	"licensed/persistence"
)

// RunForget runs one seed as Run or RunProtocol does, with operators who have owners forget aggregates, some before
// clients know them. Owners crash between any two steps, shards change hands meanwhile, and archivers and readers do
// not stop for it.
func RunForget(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x666f72676574))
	var p Params
	if seed%4 == 0 {
		p = protocolParams(r)
	} else {
		p = paramsOf(r)
	}
	p.Forget = 0.2 + 0.8*r.Float64()
	p.Heads = headsOf(seed)
	switch r.IntN(4) {
	case 0: // owners that crash, with an archive that is in use
		p.Nodes, p.Crash, p.Archive = 2+r.IntN(2), 0.1+0.2*r.Float64(), 0.3
	case 1, 2: // shards that change hands while an owner forgets
		p.Nodes, p.Aggregates, p.Crash, p.Import = 2+r.IntN(2), 1, p.Crash/4, p.Import/4
		p.OpsPerClient = 40 + r.IntN(40)
		if !p.Protocol {
			p.Lease, p.MissRenewal = 40*millisecond, 0.3+0.4*r.Float64()
		}
		p.FailRead, p.LoseMessage = p.FailRead/4, p.LoseMessage/4
	}
	return runWith(r, p, log)
}

// forgetting is what operators and clients know of the forgetting of an aggregate.
type forgetting struct {
	w         *world
	aggregate string
	tries     int
	asked     bool   // some owner began
	since     micros // when somebody was told that it is forgotten; 0: nobody
}

// maxForgetTries is the number of times that an operator asks, while the outcome is not known.
const maxForgetTries = 6

// startForget has an operator ask for an aggregate to be forgotten, at some time.
func (w *world) startForget(aggregate string) {
	f := &forgetting{w: w, aggregate: aggregate}
	w.forgets[aggregate] = f
	w.after(w.between(0, second), "forget "+aggregate, f.attempt)
}

// attempt asks the owner, and again after a time without an answer: an owner may be at it still.
func (f *forgetting) attempt() {
	w := f.w
	if f.since > 0 || f.tries >= maxForgetTries {
		return
	}
	f.tries++
	n, again := w.owner(f.aggregate), w.between(20*millisecond, 500*millisecond)
	w.carry("forget "+f.aggregate+" at "+n.name, func() {
		if n.up {
			n.later(0, "handle forget", func() {
				n.forget(f, func(err error) {
					w.carry("forget told", func() {
						if err == nil {
							f.told()
						}
					})
				})
			})
		}
	})
	w.after(again, "forget "+f.aggregate+" again", f.attempt)
}

// told notes that somebody was told that the aggregate is forgotten.
func (f *forgetting) told() {
	if w := f.w; f.since == 0 {
		f.since = w.now
		w.counts.Forgotten++
		w.trace("%s is forgotten", f.aggregate)
	}
}

// noteForgotten is told for refusals of requests.
func (w *world) noteForgotten(aggregate string) {
	f := w.forgets[aggregate]
	if f == nil || !f.asked {
		w.fail("%s is said to be forgotten, which nobody asked for", aggregate)
		return
	}
	f.told()
}

// forget has the node forget an aggregate, as the product's host does.
func (n *node) forget(f *forgetting, reply func(error)) {
	w, id := n.w, f.aggregate
	shard := w.shardOf(id)
	epoch, ok := w.authority.epoch(n, shard)
	if !ok {
		reply(actors.ErrNotOwner)
		return
	}
	f.asked = true
	w.spawn(n, fmt.Sprintf("node %d forgets %s", n.id, id), func(t *task) {
		if w.chance(0.5) { // a process that gets little of its processor
			t.await(func(done func()) { w.after(w.between(0, 300*millisecond), "slow node continues", done) })
		}
		run := actors.Forgetting{
			Store: hotTier{t: t}, Archive: coldTier{t: t}, Now: n.clock,
			End: func(_ context.Context, cause error) error {
				n.loads[id]++
				if h := n.hosted[id]; h != nil && !h.ended {
					h.do(h.machine.Halt(cause))
				}
				return nil
			},
			Held: func(context.Context) (held bool) {
				t.await(func(done func()) {
					w.authority.held(n, shard, epoch, func(ok bool) { held = ok; done() })
				})
				return held
			},
		}
		done, err := run.Forget(context.Background(), actors.AggregateID(id, n.env.Kind))
		w.trace("node %d: forget %s: %+v, %v", n.id, id, done.Removed, err)
		reply(err)
	})
}

// checkForgotten demands that nobody was answered about an aggregate who asked after it was forgotten.
func (w *world) checkForgotten() {
	for _, o := range w.ops {
		if f := w.forgets[o.aggregate]; f != nil && f.since > 0 && o.acked && o.began > f.since {
			w.fail("%s began at %d and was answered; %s was forgotten at %d", o.id, o.began, o.aggregate, f.since)
		}
	}
}

// isForgotten says whether the owner, who was asked once the world was healed, says that the aggregate is forgotten.
// Then all of it goes with one more run, also what was late.
func (w *world) isForgotten(id string, err error) bool {
	f := w.forgets[id]
	switch {
	case !errors.Is(err, actors.ErrForgotten):
		if f != nil && f.since > 0 {
			w.fail("%s was forgotten at %d, and is known: %v", id, f.since, err)
		}
		return false
	case f == nil || !f.asked:
		w.fail("%s is forgotten, which nobody asked for", id)
		return true
	}
	ended := errors.New("not ended")
	for range 200 {
		if n := w.authority.guess(w.shardOf(id)); n != nil && n.up && ended != nil {
			n.forget(f, func(err error) { ended = err })
		}
		if w.run(w.now + 50*millisecond); ended == nil {
			break
		}
	}
	aggregate := actors.AggregateID(id, w.params.Kind)
	left := 0
	for _, r := range w.store.replicas {
		for k := range r.roots {
			if k.Aggregate == aggregate {
				left++
			}
		}
		for p := range r.rows {
			if p.Aggregate == aggregate {
				left++
			}
		}
	}
	for name := range w.cold.segments {
		if strings.HasPrefix(name, persistence.SegmentPrefix(aggregate)) {
			left++
		}
	}
	if ended != nil || left > 0 {
		w.fail("%d rows and segments of %s are left after all was erased again: %v", left, id, ended)
	}
	return true
}

// tombstone is what a replica has.
type tombstone = stamped[persistence.Tombstone]

func (r *replica) bury(t tombstone) { r.tombstones[t.value.Key] = r.tombstones[t.value.Key].later(t) }

func (s *store) putTombstone(t persistence.Tombstone, done func(error)) {
	s.write("tombstone", func(r *replica, stamp uint64) { r.bury(tombstone{t, stamp}) }, done)
}

func (s *store) readTombstone(key persistence.TombstoneKey, done func(persistence.Tombstone, error)) {
	var latest tombstone
	s.quorum("read tombstone",
		func(r *replica) { latest = latest.later(r.tombstones[key]) },
		func(r *replica) {
			if latest.stamp > 0 {
				r.bury(latest)
			}
		},
		func(err error) {
			if err == nil && latest.stamp == 0 {
				err = persistence.ErrNotFound
			}
			done(latest.value, err)
		})
}

// eraseRecords and eraseRoots delete what the replicas have when the write reaches them.
func (s *store) eraseRecords(aggregate string, done func(error)) {
	s.write("erase records of "+aggregate, func(r *replica, _ uint64) {
		for p := range r.rows {
			if p.Aggregate == aggregate {
				delete(r.rows, p)
			}
		}
	}, done)
}

func (s *store) eraseRoots(aggregate string, done func(error)) {
	s.write("erase roots of "+aggregate, func(r *replica, _ uint64) {
		for k := range r.roots {
			if k.Aggregate == aggregate {
				delete(r.roots, k)
			}
		}
	}, done)
}

// cluster is the id that tombstones are made with.
var cluster = persistence.ClusterID{1}

func (h hotTier) TombstoneKey(_ context.Context, aggregate string) (persistence.TombstoneKey, error) {
	return persistence.TombstoneKeyOf(cluster, aggregate), nil
}

func (h hotTier) PutTombstone(_ context.Context, t persistence.Tombstone) error {
	return h.write(func(done func(error)) { h.t.w.store.putTombstone(t, done) })
}

func (h hotTier) Tombstone(_ context.Context, key persistence.TombstoneKey) (t persistence.Tombstone, err error) {
	h.t.await(func(done func()) {
		h.t.w.store.readTombstone(key, func(found persistence.Tombstone, e error) { t, err = found, e; done() })
	})
	return t, err
}

func (h hotTier) Tombstones(context.Context, persistence.TombstoneKey, int) ([]persistence.Tombstone, error) {
	panic("not used")
}

func (h hotTier) EraseAggregate(_ context.Context, aggregate string) (erased persistence.Erased, err error) {
	s := h.t.w.store
	if err := h.write(func(done func(error)) { s.eraseRecords(aggregate, done) }); err != nil {
		return erased, err
	}
	return erased, h.write(func(done func(error)) { s.eraseRoots(aggregate, done) })
}

// readForgotten reads the tombstone of an aggregate while something else is read.
func (h hotTier) readForgotten(aggregate string, other func(done func()), done func(error)) {
	w := h.t.w
	if w.params.Forget == 0 {
		other(func() { done(nil) })
		return
	}
	left, failure := 2, error(nil)
	end := func() {
		if left--; left == 0 {
			done(failure)
		}
	}
	w.store.readTombstone(persistence.TombstoneKeyOf(cluster, aggregate), func(t persistence.Tombstone, err error) {
		switch {
		case err == nil:
			failure = &persistence.ForgottenError{At: t.Time}
		case !errors.Is(err, persistence.ErrNotFound):
			failure = err
		}
		end()
	})
	other(end)
}

// EraseSegments may be cut short at any segment.
func (c coldTier) EraseSegments(ctx context.Context, aggregate string) (int, error) {
	return persistence.EraseSegmentsOneByOne(ctx, c, aggregate)
}

func (c coldTier) Segments(ctx context.Context, after string, limit int) (names []string, err error) {
	w := c.t.w
	c.t.await(func(done func()) {
		w.after(w.latency(), "list segments", func() {
			if names, err = (final{w: w}).Segments(ctx, after, limit); w.chance(w.params.FailArchive) {
				names, err = nil, persistence.ErrUnavailable
			}
			done()
		})
	})
	return names, err
}
