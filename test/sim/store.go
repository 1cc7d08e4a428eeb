package sim

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"licensed/persistence"
)

// store is a quorum store: writes go to three replicas and are acknowledged by two; reads ask two and
// bring both up to date before they answer, so that what was seen once is seen for ever. What differs
// under one key is settled by the time of the attempt, as Cassandra does.
type store struct {
	w        *world
	replicas [3]*replica
	stamp    uint64
	down     bool // most messages are lost meanwhile
}

type replica struct {
	roots map[persistence.RootKey]stamped[persistence.Root]
	rows  map[persistence.Partition]map[uint64]stamped[persistence.Record]
}

type stamped[T any] struct {
	value T
	stamp uint64
}

func newStore(w *world) *store {
	s := &store{w: w}
	for i := range s.replicas {
		s.replicas[i] = &replica{
			roots: map[persistence.RootKey]stamped[persistence.Root]{},
			rows:  map[persistence.Partition]map[uint64]stamped[persistence.Record]{},
		}
	}
	return s
}

func (r *replica) putRoot(root persistence.Root, stamp uint64) {
	if old, ok := r.roots[root.Key]; !ok || old.stamp < stamp {
		r.roots[root.Key] = stamped[persistence.Root]{root, stamp}
	}
}

func (r *replica) putRow(p persistence.Partition, rec persistence.Record, stamp uint64) {
	rows := r.rows[p]
	if rows == nil {
		rows = map[uint64]stamped[persistence.Record]{}
		r.rows[p] = rows
	}
	if old, ok := rows[rec.Sequence]; !ok || old.stamp < stamp {
		rows[rec.Sequence] = stamped[persistence.Record]{rec, stamp}
	}
}

// putRoot writes a root; done is called once.
func (s *store) putRoot(root persistence.Root, done func(error)) {
	s.write(fmt.Sprintf("root %v", root.Key), func(r *replica, stamp uint64) { r.putRoot(root, stamp) }, done)
}

// append writes the records of a mutation; done is called once. A replica takes all of it or none.
func (s *store) append(m persistence.Mutation, done func(error)) {
	records := slices.Clone(m.Records)
	what := fmt.Sprintf("append %v %d+%d", m.Partition.RootKey, records[0].Sequence, len(records))
	s.write(what, func(r *replica, stamp uint64) {
		for _, rec := range records {
			r.putRow(m.Partition, rec, stamp)
		}
	}, done)
}

func (s *store) write(what string, apply func(*replica, uint64), done func(error)) {
	w := s.w
	if w.chance(w.params.Reject) {
		w.counts.Rejected++
		w.after(w.latency(), "rejected "+what, func() { done(persistence.ErrRejected) })
		return
	}
	s.stamp++
	stamp, acks, finished := s.stamp, 0, false
	finish := func(err error) {
		if !finished {
			finished = true
			done(err)
		}
	}
	for i, r := range s.replicas {
		if w.chance(w.params.LoseWrite) || s.down && w.chance(0.8) {
			continue
		}
		w.after(w.latency(), fmt.Sprintf("replica %d: %s", i, what), func() {
			apply(r, stamp)
			if w.chance(w.params.LoseReply) {
				return
			}
			w.after(w.latency(), "ack "+what, func() {
				if acks++; acks == 2 {
					finish(nil)
				}
			})
		})
	}
	w.after(w.params.WriteTimeout, "timeout "+what, func() {
		if !finished {
			w.counts.Unknown++
		}
		finish(fmt.Errorf("%s: %w", what, persistence.ErrUnknownOutcome))
	})
}

// quorum reads two replicas at different moments, then repairs and answers.
func (s *store) quorum(what string, read func(*replica), repair func(*replica), done func(error)) {
	w := s.w
	if w.chance(w.params.FailRead) || s.down && w.chance(0.8) {
		w.after(w.latency(), "failed "+what, func() { done(persistence.ErrUnavailable) })
		return
	}
	first := w.IntN(3)
	a, b := s.replicas[first], s.replicas[(first+1+w.IntN(2))%3]
	w.after(w.latency(), what+" (first)", func() {
		read(a)
		w.after(w.latency(), what+" (second)", func() {
			read(b)
			repair(a)
			repair(b)
			w.after(w.latency(), what+" (done)", func() { done(nil) })
		})
	})
}

func (s *store) topRoot(aggregate string, done func(persistence.Root, error)) {
	var top stamped[persistence.Root]
	read := func(r *replica) {
		for k, v := range r.roots {
			if k.Aggregate == aggregate && (top.value.Key.Less(k) || k == top.value.Key && top.stamp < v.stamp) {
				top = v
			}
		}
	}
	repair := func(r *replica) {
		if top.stamp > 0 {
			r.putRoot(top.value, top.stamp)
		}
	}
	s.quorum("read top of "+aggregate, read, repair, func(err error) {
		if err == nil && top.stamp == 0 {
			err = persistence.ErrNotFound
		}
		done(top.value, err)
	})
}

func (s *store) readRecords(p persistence.Partition, after uint64, limit int, done func([]persistence.Record, error)) {
	merged := map[uint64]stamped[persistence.Record]{}
	page := func() []uint64 {
		var seqs []uint64
		for seq := range merged {
			seqs = append(seqs, seq)
		}
		slices.Sort(seqs)
		return seqs[:min(limit, len(seqs))]
	}
	read := func(r *replica) {
		for seq, v := range r.rows[p] {
			if old, ok := merged[seq]; seq > after && (!ok || old.stamp < v.stamp) {
				merged[seq] = v
			}
		}
	}
	repair := func(r *replica) {
		for _, seq := range page() {
			r.putRow(p, merged[seq].value, merged[seq].stamp)
		}
	}
	s.quorum(fmt.Sprintf("read %v after %d", p.RootKey, after), read, repair, func(err error) {
		var records []persistence.Record
		for _, seq := range page() {
			records = append(records, merged[seq].value)
		}
		done(records, err)
	})
}

// final reads what all replicas have together, at once: the journal of the checker.
type final struct{ s *store }

func (f final) roots(aggregate string) []persistence.Root {
	latest := map[persistence.RootKey]stamped[persistence.Root]{}
	for _, r := range f.s.replicas {
		for k, v := range r.roots {
			if k.Aggregate == aggregate && latest[k].stamp < v.stamp {
				latest[k] = v
			}
		}
	}
	var all []persistence.Root
	for _, v := range latest {
		all = append(all, v.value)
	}
	sort.Slice(all, func(i, j int) bool { return all[j].Key.Less(all[i].Key) })
	return all
}

func (f final) TopRoot(_ context.Context, aggregate string) (persistence.Root, error) {
	if all := f.roots(aggregate); len(all) > 0 {
		return all[0], nil
	}
	return persistence.Root{}, persistence.ErrNotFound
}

func (f final) ReadRoot(_ context.Context, key persistence.RootKey) (persistence.Root, error) {
	for _, r := range f.roots(key.Aggregate) {
		if r.Key == key {
			return r, nil
		}
	}
	return persistence.Root{}, persistence.ErrNotFound
}

func (f final) ReadRoots(_ context.Context, aggregate string, below persistence.RootKey, limit int) ([]persistence.Root, error) {
	var page []persistence.Root
	for _, r := range f.roots(aggregate) {
		if (below.IsZero() || r.Key.Less(below)) && len(page) < limit {
			page = append(page, r)
		}
	}
	return page, nil
}

func (f final) ReadRecords(_ context.Context, p persistence.Partition, after uint64, limit int) ([]persistence.Record, error) {
	latest := map[uint64]stamped[persistence.Record]{}
	for _, r := range f.s.replicas {
		for seq, v := range r.rows[p] {
			if latest[seq].stamp < v.stamp {
				latest[seq] = v
			}
		}
	}
	var page []persistence.Record
	for seq, v := range latest {
		if seq > after {
			page = append(page, v.value)
		}
	}
	sort.Slice(page, func(i, j int) bool { return page[i].Sequence < page[j].Sequence })
	return page[:min(limit, len(page))], nil
}
