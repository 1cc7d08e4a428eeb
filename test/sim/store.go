package sim

import (
	"fmt"
	"slices"
	"sort"

	"licensed/persistence"
)

// store is a quorum store: writes go to three replicas and are acknowledged by two; reads ask two and
// bring both up to date before they answer, so that what was seen once is seen forever. What differs
// under one key is settled by the time of the attempt, as Cassandra does. Deleted records leave no
// trace, so that late writes and repairs bring some back.
type store struct {
	w        *world
	replicas [3]*replica
	stamp    uint64
	down     bool // most messages are lost meanwhile
	// damaged are roots whose snapshots cannot be read, and lost the records that are gone, until somebody restores a
	// backup.
	damaged map[persistence.RootKey]bool
	lost    map[lostRecord]bool
	losses  int
}

type lostRecord struct {
	persistence.Partition
	sequence uint64
}

// damage makes the newest snapshot of an aggregate unreadable, all if that is set. Lose loses a record as well, below
// a root that has a child: so its partition is closed, and nobody takes the hole for the end of the history.
func (s *store) damage(aggregate string, all, lose bool) {
	rows := map[persistence.RootKey]*rootRow{}
	for _, r := range s.replicas {
		for k, row := range r.roots {
			if k.Aggregate == aggregate && row.root.stamp > 0 {
				rows[k] = row
			}
		}
	}
	roots := views(rows, len(rows))
	if len(roots) == 0 {
		return
	}
	s.w.counts.Damaged++
	s.w.trace("the snapshot of %s is damaged", roots[0].Key)
	s.damaged[roots[0].Key] = true
	for i := range roots {
		s.damaged[roots[i].Key] = s.damaged[roots[i].Key] || all || lose
	}
	for i := range roots {
		if r := &roots[i]; lose && r.Key == roots[0].Parent && r.Base > 0 {
			s.lost[lostRecord{r.ParentPartition(), r.Base}] = true
			s.losses++
		}
	}
}

type replica struct {
	roots map[persistence.RootKey]*rootRow
	rows  map[persistence.Partition]map[uint64]stamped[persistence.Record]

	tombstones map[persistence.TombstoneKey]tombstone
}

type stamped[T any] struct {
	value T
	stamp uint64
}

func (a stamped[T]) later(b stamped[T]) stamped[T] {
	if b.stamp > a.stamp {
		return b
	}
	return a
}

// rootRow has the columns that are written separately. It does not change, so replicas share it.
type rootRow struct {
	root  stamped[persistence.Root]
	mark  stamped[persistence.ArchiveMark]
	strip stamped[string]
}

// merge returns the latest of each column. Either may be nil.
func (r *rootRow) merge(o *rootRow) *rootRow {
	switch {
	case o.covers(r):
		return o
	case r.covers(o):
		return r
	}
	return &rootRow{root: r.root.later(o.root), mark: r.mark.later(o.mark), strip: r.strip.later(o.strip)}
}

// covers reports whether no column of o is later.
func (r *rootRow) covers(o *rootRow) bool {
	return o == nil ||
		r != nil && r.root.stamp >= o.root.stamp && r.mark.stamp >= o.mark.stamp && r.strip.stamp >= o.strip.stamp
}

// view returns the root as a reader sees it.
func (r *rootRow) view() persistence.Root {
	root := r.root.value
	if r.strip.stamp > 0 {
		root = root.Strip(r.strip.value)
	}
	if r.mark.stamp > 0 {
		m := r.mark.value
		root.Archive = &m
	}
	return root
}

var replicaNames = [...]string{"replica 0: ", "replica 1: ", "replica 2: "}

func newStore(w *world) *store {
	s := &store{w: w, damaged: map[persistence.RootKey]bool{}, lost: map[lostRecord]bool{}}
	for i := range s.replicas {
		s.replicas[i] = &replica{
			roots: map[persistence.RootKey]*rootRow{},
			rows:  map[persistence.Partition]map[uint64]stamped[persistence.Record]{},

			tombstones: map[persistence.TombstoneKey]tombstone{},
		}
	}
	return s
}

func (r *replica) mergeRoot(key persistence.RootKey, row *rootRow) {
	r.roots[key] = r.roots[key].merge(row)
}

func (r *replica) putRow(p persistence.Partition, row stamped[persistence.Record]) {
	rows := r.rows[p]
	if rows == nil {
		rows = map[uint64]stamped[persistence.Record]{}
		r.rows[p] = rows
	}
	rows[row.value.Sequence] = rows[row.value.Sequence].later(row)
}

// putRoot writes a root; done is called once.
func (s *store) putRoot(root persistence.Root, done func(error)) {
	s.write("root "+root.Key.String(), func(r *replica, stamp uint64) {
		r.mergeRoot(root.Key, &rootRow{root: stamped[persistence.Root]{root, stamp}})
	}, done)
}

func (s *store) mark(key persistence.RootKey, m persistence.ArchiveMark, done func(error)) {
	s.write("mark "+key.String(), func(r *replica, stamp uint64) {
		r.mergeRoot(key, &rootRow{mark: stamped[persistence.ArchiveMark]{m, stamp}})
	}, done)
}

func (s *store) strip(key persistence.RootKey, snapshotAt string, done func(error)) {
	s.write("strip "+key.String(), func(r *replica, stamp uint64) {
		r.mergeRoot(key, &rootRow{strip: stamped[string]{snapshotAt, stamp}})
	}, done)
}

func (s *store) deleteRecords(p persistence.Partition, done func(error)) {
	s.write("trim "+p.RootKey.String(), func(r *replica, _ uint64) { delete(r.rows, p) }, done)
}

// append writes the records of a mutation; done is called once. A replica takes all of it or none.
func (s *store) append(m persistence.Mutation, done func(error)) {
	records := slices.Clone(m.Records)
	what := fmt.Sprintf("append %v %d+%d", m.Partition.RootKey, records[0].Sequence, len(records))
	s.write(what, func(r *replica, stamp uint64) {
		for _, rec := range records {
			r.putRow(m.Partition, stamped[persistence.Record]{rec, stamp})
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
	lost := s.down && w.chance(0.5) // altogether: what is decided on it must not be told
	for i, r := range s.replicas {
		if lost || w.chance(w.params.LoseWrite) || s.down && w.chance(0.8) {
			continue
		}
		w.after(w.latency(), replicaNames[i]+what, func() {
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

// readRoots reads up to limit roots below a key, highest first; all if the key is zero.
func (s *store) readRoots(
	aggregate string, below persistence.RootKey, limit int, done func([]persistence.Root, error),
) {
	merged := map[persistence.RootKey]*rootRow{}
	read := func(r *replica) {
		for k, row := range r.roots {
			if k.Aggregate == aggregate && (below.IsZero() || k.Less(below)) {
				merged[k] = merged[k].merge(row)
			}
		}
	}
	repair := func(r *replica) {
		for k, row := range merged {
			r.mergeRoot(k, row)
		}
	}
	s.quorum(fmt.Sprintf("read roots of %s below %v", aggregate, below), read, repair, func(err error) {
		roots := views(merged, limit)
		for i := range roots {
			if s.damaged[roots[i].Key] && !roots[i].Stripped {
				roots[i] = roots[i].Damaged(persistence.ErrCorrupt)
			}
		}
		done(roots, err)
	})
}

// views returns the rows that have a root, highest key first.
func views(rows map[persistence.RootKey]*rootRow, limit int) []persistence.Root {
	var keys []persistence.RootKey
	for k, row := range rows {
		if row.root.stamp > 0 {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(i, j int) bool { return keys[j].Less(keys[i]) })
	all := make([]persistence.Root, min(limit, len(keys)))
	for i := range all {
		all[i] = rows[keys[i]].view()
	}
	return all
}

// root returns a root that any replica has, or nil.
func (s *store) root(key persistence.RootKey) *persistence.Root {
	for _, r := range s.replicas {
		if row := r.roots[key]; row != nil {
			return &row.root.value
		}
	}
	return nil
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
		for seq, row := range r.rows[p] {
			if seq > after {
				merged[seq] = merged[seq].later(row)
			}
		}
	}
	repair := func(r *replica) {
		for _, seq := range page() {
			r.putRow(p, merged[seq])
		}
	}
	s.quorum(fmt.Sprintf("read %v after %d", p.RootKey, after), read, repair, func(err error) {
		var records []persistence.Record
		for _, seq := range page() {
			if !s.lost[lostRecord{p, seq}] {
				records = append(records, merged[seq].value)
			}
		}
		done(records, err)
	})
}
