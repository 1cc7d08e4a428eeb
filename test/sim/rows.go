package sim

import (
	"fmt"
	"slices"

	"licensed/cluster/ownership"
	"licensed/persistence"
)

// rows are the lease and shard rows: linearizable, but far away. A compare-and-set takes effect at some
// moment after it was sent, perhaps long after its sender was told that the outcome is unknown. A peek shows a lease
// as some majority of replicas has it:
//
//	compare-and-set accepted ──── peeks show either row ──── committed ──── peeks show the new row
//
// It is committed before its reply is sent. If no reply is, it may stay as it is until the next operation on the row
// that is linearizable completes it. Shards are peeked at likewise; an operation on one completes what is in progress
// on all.
type rows struct {
	w      *world
	leases map[persistence.Incarnation]persistence.Lease
	// committed are the leases as each majority has them, or later rows.
	committed map[persistence.Incarnation]persistence.Lease
	shards    []persistence.Shard
	settled   []persistence.Shard                  // as each majority has them, or later rows
	owners    []map[uint64]persistence.Incarnation // by shard and epoch, of all times
}

func newRows(w *world) *rows {
	r := &rows{
		w:         w,
		leases:    map[persistence.Incarnation]persistence.Lease{},
		committed: map[persistence.Incarnation]persistence.Lease{},
		shards:    make([]persistence.Shard, w.params.Shards),
		settled:   make([]persistence.Shard, w.params.Shards),
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
			if w.chance(0.5) {
				w.after(w.latency(), "commit "+what, func() { r.commitOf(&in) })
			}
			return
		}
		reply := w.latency()
		if op.Kind == ownership.OpSwapLease || op.Kind == ownership.OpSwapShard {
			w.after(w.between(0, reply), "commit "+what, func() { r.commitOf(&in) })
		}
		w.after(reply, "answer "+what, func() { answer(in) })
	})
}

// commitOf makes a majority have the row of a compare-and-set that was accepted.
func (r *rows) commitOf(in *ownership.Input) {
	switch in.Op.Kind {
	case ownership.OpSwapLease:
		r.commit(in.Lease)
	case ownership.OpSwapShard:
		if ownership.Later(r.settled[in.Row.ID], in.Row) {
			r.settled[in.Row.ID] = in.Row
		}
	}
}

// commit makes a majority have a row of a lease that was accepted.
func (r *rows) commit(l persistence.Lease) {
	now := r.committed[l.Incarnation]
	if l.Counter > now.Counter || l.Counter == now.Counter && l.Dead {
		r.committed[l.Incarnation] = l
	}
}

// peek returns a lease as some majority has it.
func (r *rows) peek(i persistence.Incarnation) persistence.Lease {
	if r.committed[i] != r.leases[i] && r.w.chance(0.5) {
		r.w.counts.Peeked++
		return r.committed[i]
	}
	return r.leases[i]
}

func (r *rows) apply(op ownership.Op) ownership.Input {
	in := ownership.Input{Kind: ownership.InputDone, Op: op}
	switch op.Kind {
	case ownership.OpSwapLease:
		i := op.Lease.Next.Incarnation
		r.commit(r.leases[i])
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
		r.commit(r.leases[op.Incarnation])
		in.Lease = r.leases[op.Incarnation]
	case ownership.OpPeekLease:
		in.Lease = r.peek(op.Incarnation)
	case ownership.OpSwapShard:
		copy(r.settled, r.shards)
		in.Applied = r.swapShard(op.OldShard, op.NextShard)
		in.Row = r.shards[op.NextShard.ID]
	case ownership.OpReadShard:
		copy(r.settled, r.shards)
		in.Row = r.shards[op.Shard]
	case ownership.OpReadVotes:
		in.Votes = r.w.authority.(*protocol).votes.all()
	case ownership.OpReadShards:
		copy(r.settled, r.shards)
		in.Rows = existing(r.shards)
	case ownership.OpPeekShards:
		rows := slices.Clone(r.shards)
		for id := range rows {
			if rows[id] != r.settled[id] && r.w.chance(0.5) {
				r.w.counts.Peeked++
				rows[id] = r.settled[id]
			}
		}
		in.Rows = existing(rows)
	}
	return in
}

// existing returns the rows that exist.
func existing(shards []persistence.Shard) (rows []persistence.Shard) {
	for _, row := range shards {
		if row.Epoch > 0 {
			rows = append(rows, row)
		}
	}
	return rows
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
