package sim

import (
	"fmt"

	"licensed/cluster/ownership"
	"licensed/persistence"
)

// rows are the lease and shard rows: linearizable, but far away. A compare-and-set takes effect at some
// moment after it was sent, perhaps long after its sender was told that the outcome is unknown.
type rows struct {
	w      *world
	leases map[persistence.Incarnation]persistence.Lease
	shards []persistence.Shard
	owners []map[uint64]persistence.Incarnation // by shard and epoch, of all times
}

func newRows(w *world) *rows {
	r := &rows{
		w:      w,
		leases: map[persistence.Incarnation]persistence.Lease{},
		shards: make([]persistence.Shard, w.params.Shards),
	}
	for range w.params.Shards {
		r.owners = append(r.owners, map[uint64]persistence.Incarnation{})
	}
	return r
}

// do runs an operation and answers once.
func (r *rows) do(op ownership.Op, timeout micros, done func(ownership.Input)) {
	w := r.w
	answered := false
	answer := func(in ownership.Input) {
		if !answered {
			answered = true
			done(in)
		}
	}
	lost := ownership.Input{Kind: ownership.InputDone, Op: op, Err: persistence.ErrUnknownOutcome}
	what := fmt.Sprintf("op %d on shard %d of %x", op.Kind, op.Shard+op.NextShard.ID, op.Incarnation[:2])
	w.after(timeout, "timeout "+what, func() { answer(lost) })
	if w.chance(w.params.LoseWrite) || w.store.down && w.chance(0.8) {
		return
	}
	w.after(w.latency(), what, func() {
		in := r.apply(op)
		if w.chance(w.params.LoseReply) || w.store.down && w.chance(0.8) {
			return
		}
		w.after(w.latency(), "answer "+what, func() { answer(in) })
	})
}

func (r *rows) apply(op ownership.Op) ownership.Input {
	in := ownership.Input{Kind: ownership.InputDone, Op: op}
	switch op.Kind {
	case ownership.OpSwapLease:
		i := op.Lease.Next.Incarnation
		if in.Applied = r.leases[i] == op.Lease.Old; in.Applied {
			if op.Lease.Old == (persistence.Lease{}) && op.Lease.Next.Dead {
				r.w.fail("a dead lease row is created for %v, which has none", i)
			}
			r.leases[i] = op.Lease.Next
			r.checkDead(op.Lease.Next)
			r.w.trace("lease %v is %+v", i, op.Lease.Next)
		}
		in.Lease = r.leases[i]
	case ownership.OpReadLease:
		in.Lease = r.leases[op.Incarnation]
	case ownership.OpSwapShard:
		in.Applied = r.swapShard(op.OldShard, op.NextShard)
		in.Row = r.shards[op.NextShard.ID]
	case ownership.OpReadShard:
		in.Row = r.shards[op.Shard]
	case ownership.OpReadVotes:
		in.Votes = r.w.authority.(*protocol).votes.all()
	case ownership.OpReadShards:
		for _, row := range r.shards {
			if row.Epoch > 0 {
				in.Rows = append(in.Rows, row)
			}
		}
	}
	return in
}

// checkDead demands that nobody is marked dead whose clock says that its lease is valid.
func (r *rows) checkDead(l persistence.Lease) {
	w := r.w
	for _, a := range w.authority.(*protocol).agents {
		if !l.Dead || !a.n.up || a.ended || a.n.incarnation != l.Incarnation || w.params.ConfirmReads {
			continue
		}
		for shard, epoch := range a.epochs {
			if w.authority.holds(a.n, shard, epoch) {
				w.fail("node %d is marked dead while it holds shard %d at epoch %d", a.n.id, shard, epoch)
			}
		}
	}
}

// swapShard checks what the protocol promises of the rows themselves.
func (r *rows) swapShard(old, next persistence.Shard) bool {
	w, now := r.w, r.shards[next.ID]
	if now != old && (now.Epoch != 0 || old.Epoch != 0) {
		return false
	}
	r.shards[next.ID] = next
	w.trace("shard %d is %+v", next.ID, next)
	if next.Owner.IsZero() {
		w.counts.Releases++
		return true
	}
	if owner, used := r.owners[next.ID][next.Epoch]; used {
		w.fail("epoch %d of shard %d was %v's and is now %v's", next.Epoch, next.ID, owner, next.Owner)
	}
	r.owners[next.ID][next.Epoch] = next.Owner
	if next.Epoch <= now.Epoch {
		w.fail("shard %d goes from epoch %d to %d", next.ID, now.Epoch, next.Epoch)
	}
	if r.leases[next.Owner].Counter == 0 {
		w.fail("shard %d names %v, which has no lease row", next.ID, next.Owner)
	}
	if former := now.Owner; !former.IsZero() && former != next.Owner {
		w.counts.Takeovers++
		if !r.leases[former].Dead {
			w.fail("shard %d is taken from %v, which is not dead", next.ID, former)
		}
	}
	return true
}
