package sim

import (
	"context"

	"licensed/actors"
	"licensed/persistence"
)

// askHeads has the owners tell where histories end, now and then, of aggregates that are mostly not in memory.
func (w *world) askHeads() {
	if w.params.Heads == 0 {
		return
	}
	id := aggregateName(w.IntN(w.params.Aggregates))
	if n := w.owner(id); w.chance(w.params.Heads) && n.up && w.now >= n.pausedUntil {
		n.tellHead(id)
	}
	w.after(w.between(millisecond, 20*millisecond), "ask for a head", w.askHeads)
}

// slowly reads as a process does that gets little of its processor.
type slowly struct {
	hotTier
	most micros // before each read
}

func (s slowly) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	if s.most > 0 {
		s.t.await(func(done func()) { s.t.w.after(s.t.w.between(0, s.most), "slow reader continues", done) })
	}
	return s.hotTier.ReadRecords(ctx, p, after, limit)
}

// tellHead tells where the history of an aggregate ends that is not in memory, and has somebody read it.
func (n *node) tellHead(id string) {
	w, shard := n.w, n.w.shardOf(id)
	epoch, ok := w.authority.epoch(n, shard)
	if h := n.hosted[id]; !ok || h != nil && !h.ended {
		return
	}
	least := w.told(id)
	loads := n.loads[id]
	most := micros(0)
	if w.chance(0.5) {
		most = 300 * millisecond
	}
	w.spawn(n, "head of "+id, func(t *task) {
		s := actors.Sleeping{
			Journal: slowly{hotTier{t: t}, most}, Incarnation: n.incarnation, Epoch: epoch, Page: n.env.Config.ReadPage,
			Asleep: func() bool { return n.loads[id] == loads },
			Floor:  func() uint64 { return n.floor },
			Held:   func() bool { return w.authority.holds(n, shard, epoch) },
		}
		head, ok, err := s.Head(context.Background(), actors.AggregateID(id, n.env.Kind))
		if err != nil || !ok {
			return
		}
		if w.params.ConfirmReads {
			t.await(func(done func()) { w.authority.held(n, shard, epoch, func(held bool) { ok = held; done() }) })
		}
		if !ok {
			return
		}
		w.counts.Heads++
		w.trace("node %d: %s ends at %d below %s", n.id, id, head.Sequence, head.Partition.RootKey)
		if head.Sequence < least {
			w.fail("node %d said that the history of %s ends at %d; before, somebody was told of event %d",
				n.id, id, head.Sequence, least)
		}
		w.readHistory(id, head)
	})
}

// told returns the last event of an aggregate that a client was told of.
func (w *world) told(id string) uint64 {
	last := uint64(0)
	for _, o := range w.ops {
		if o.aggregate == id && o.acked {
			last = max(last, o.reply.Sequence, o.answer.Head.Sequence)
		}
	}
	return last
}
