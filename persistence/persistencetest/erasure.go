package persistencetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"licensed/persistence"
)

// runErasure runs the cases about forgotten aggregates.
func runErasure(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"Forget":             testForget,
		"TombstonesAreKept":  testTombstonesAreKept,
		"NothingComesBack":   testNothingComesBack,
		"EraseWithoutCause":  testEraseWithoutCause,
		"TombstoneOfNothing": testTombstoneOfNothing,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// forgottenAt is when aggregates are forgotten here.
var forgottenAt = time.UnixMilli(1_700_000_000_123).UTC()

// bury puts the tombstone of an aggregate.
func (f *fixture) bury(aggregate string) persistence.Tombstone {
	f.Helper()
	key, err := f.store.TombstoneKey(f.ctx(), aggregate)
	t := persistence.Tombstone{Key: key, Time: forgottenAt}
	if err == nil {
		err = f.store.PutTombstone(f.ctx(), t)
	}
	if err != nil {
		f.Fatalf("bury %s: %v", aggregate, err)
	}
	return t
}

// erase erases an aggregate.
func (f *fixture) erase(aggregate string, want persistence.Erased) {
	f.Helper()
	if got, err := f.store.EraseAggregate(f.ctx(), aggregate); err != nil || got != want {
		f.Errorf("erased %+v of %s, %v, want %+v", got, aggregate, err, want)
	}
}

// wantForgotten fails the test unless no root of an aggregate is shown.
func (f *fixture) wantForgotten(key persistence.RootKey) {
	f.Helper()
	_, top := f.store.TopRoot(f.ctx(), key.Aggregate)
	_, one := f.store.ReadRoot(f.ctx(), key)
	_, all := f.store.ReadRoots(f.ctx(), key.Aggregate, persistence.RootKey{}, 10)
	_, below := f.store.ReadRoots(f.ctx(), key.Aggregate, key, 10)
	for what, err := range map[string]error{"top root": top, "root": one, "roots": all, "roots below": below} {
		var forgotten *persistence.ForgottenError
		if !errors.As(err, &forgotten) || !forgotten.At.Equal(forgottenAt) {
			f.Errorf("%s of a forgotten aggregate: %v", what, err)
		}
	}
}

// erasable writes two roots with records, and those of a fenced writer.
func (f *fixture) erasable(aggregate string) []persistence.Root {
	f.Helper()
	first := root(aggregate, 1, 1)
	second := root(aggregate, 1, 2)
	second.Base, second.Parent, second.ParentIncarnation = 2, first.Key, first.Incarnation
	stray := root(aggregate, 2, 1)
	stray.Incarnation = incarnationB
	f.putRoot(first, second, stray)
	f.append(first.Partition(), record(1), record(2))
	f.append(second.Partition(), record(3))
	f.append(stray.Partition(), record(2))
	return []persistence.Root{first, second, stray}
}

// testForget: an aggregate with a tombstone shows no roots, at once and after a restart, and nothing is left of it
// once it is erased. Aggregates whose ids begin alike are as before.
func testForget(f *fixture) {
	const kind = ":LicenseAggregate"
	f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 4})
	roots := f.erasable("Ada" + kind)
	others := []string{"Ad" + kind, "Ada2" + kind, "Ada" + kind + "2"}
	for _, o := range others {
		f.erasable(o)
	}
	f.bury("Ada" + kind)
	f.wantForgotten(roots[1].Key)
	f.reopen()
	f.wantForgotten(roots[1].Key)
	f.erase("Ada"+kind, persistence.Erased{Roots: 3, Records: 4})
	f.erase("Ada"+kind, persistence.Erased{})
	f.reopen()
	f.wantForgotten(roots[1].Key)
	for i := range roots {
		if rows, err := f.store.ReadRecords(f.ctx(), roots[i].Partition(), 0, 10); err != nil || len(rows) > 0 {
			f.Errorf("%d records below %v, %v, want none", len(rows), roots[i].Key, err)
		}
	}
	ids, err := f.store.Aggregates(f.ctx(), "", 100)
	if slices.Sort(ids); err != nil || !slices.Equal(ids, slices.Sorted(slices.Values(others))) {
		f.Errorf("aggregates %q, %v, want %q", ids, err, others)
	}
	for _, o := range others {
		roots, err := f.store.ReadRoots(f.ctx(), o, persistence.RootKey{}, 10)
		if err != nil || len(roots) != 3 {
			f.Errorf("%d roots of %s, %v, want 3", len(roots), o, err)
			continue
		}
		if rows, err := f.store.ReadRecords(f.ctx(), roots[1].Partition(), 0, 10); err != nil || len(rows) != 1 {
			f.Errorf("%d records of %s, %v, want 1", len(rows), o, err)
		}
	}
}

// testTombstonesAreKept: tombstones are found by key and listed in the order of keys; one that is written again keeps
// the time of erasure.
func testTombstonesAreKept(f *fixture) {
	f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 4})
	var want []persistence.Tombstone
	for _, id := range []string{"a:K", "b:K", "c:K", "d:K", "e:K"} {
		want = append(want, f.bury(id))
	}
	slices.SortFunc(want, func(a, b persistence.Tombstone) int { return a.Key.Compare(b.Key) })
	want[1].Erased = forgottenAt.Add(time.Hour)
	for _, t := range []persistence.Tombstone{want[1], {Key: want[1].Key, Time: want[1].Time}} {
		if err := f.store.PutTombstone(f.ctx(), t); err != nil {
			f.Fatalf("put tombstone: %v", err)
		}
	}
	f.reopen()
	var got []persistence.Tombstone
	for after := (persistence.TombstoneKey{}); ; {
		page, err := f.store.Tombstones(f.ctx(), after, 2)
		if err != nil {
			f.Fatalf("tombstones: %v", err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		after = page[len(page)-1].Key
	}
	same := func(a, b persistence.Tombstone) bool {
		return a.Key == b.Key && a.Time.Equal(b.Time) && a.Erased.Equal(b.Erased)
	}
	if !slices.EqualFunc(got, want, same) {
		f.Errorf("tombstones %+v, want %+v", got, want)
	}
	if one, err := f.store.Tombstone(f.ctx(), want[1].Key); err != nil || !same(one, want[1]) {
		f.Errorf("tombstone %+v, %v, want %+v", one, err, want[1])
	}
	_, err := f.store.Tombstone(f.ctx(), persistence.TombstoneKey{1})
	if !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("tombstone of another: %v, want ErrNotFound", err)
	}
}

// testNothingComesBack: what is written after an erasure is not shown, and goes with the next erasure.
func testNothingComesBack(f *fixture) {
	f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 4})
	roots := f.erasable("Ada:K")
	f.bury("Ada:K")
	f.erase("Ada:K", persistence.Erased{Roots: 3, Records: 4})
	late := roots[1]
	late.Key.Version++
	late.Parent = roots[1].Key
	f.putRoot(late)
	f.append(late.Partition(), record(4))
	_ = f.store.MarkArchived(f.ctx(), roots[0].Key,
		persistence.ArchiveMark{Segment: "s", Through: 2, Time: forgottenAt})
	_ = f.store.StripRoot(f.ctx(), roots[0].Key, "")
	f.wantForgotten(late.Key)
	if _, err := f.store.EraseAggregate(f.ctx(), "Ada:K"); err != nil {
		f.Fatalf("erase: %v", err)
	}
	f.reopen()
	f.wantForgotten(late.Key)
	f.erase("Ada:K", persistence.Erased{})
	if ids, err := f.store.Aggregates(f.ctx(), "", 10); err != nil || len(ids) > 0 {
		f.Errorf("aggregates %q, %v, want none", ids, err)
	}
}

// testEraseWithoutCause: nothing is erased without a tombstone.
func testEraseWithoutCause(f *fixture) {
	f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 4})
	roots := f.erasable("Ada:K")
	if _, err := f.store.EraseAggregate(f.ctx(), "Ada:K"); !errors.Is(err, persistence.ErrRejected) {
		f.Errorf("erase: %v, want ErrRejected", err)
	}
	if got, err := f.store.TopRoot(f.ctx(), "Ada:K"); err != nil || got.Key != roots[2].Key {
		f.Errorf("top root %v, %v, want %v", got.Key, err, roots[2].Key)
	}
	for _, t := range []persistence.Tombstone{{Time: forgottenAt}, {Key: persistence.TombstoneKey{1}}} {
		if err := f.store.PutTombstone(f.ctx(), t); !errors.Is(err, persistence.ErrRejected) {
			f.Errorf("put tombstone %+v: %v, want ErrRejected", t, err)
		}
	}
}

// testTombstoneOfNothing: a store without a cluster has forgotten nobody, and one without tombstones as well.
func testTombstoneOfNothing(f *fixture) {
	if _, err := f.store.TombstoneKey(f.ctx(), "Ada:K"); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("key without a cluster: %v, want ErrNotFound", err)
	}
	f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 4})
	f.bury("Ada:K")
	f.erase("Ada:K", persistence.Erased{})
	ended, cancel := context.WithCancel(f.ctx())
	cancel()
	if _, err := f.store.EraseAggregate(ended, "Ada:K"); err == nil {
		f.Error("erased though the context had ended")
	}
}
