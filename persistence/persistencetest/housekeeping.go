package persistencetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"licensed/persistence"
)

// runHousekeeping runs the cases about what the archiver does to the hot tier.
func runHousekeeping(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"Mark":                      testMark,
		"Strip":                     testStrip,
		"MarkAndStripBetweenOthers": testMarkAndStripBetweenOthers,
		"LatePutRoot":               testLatePutRoot,
		"DeleteRecords":             testDeleteRecords,
		"HousekeepingSurvives":      testHousekeepingSurvives,
		"HousekeepingAtOnce":        testHousekeepingAtOnce,
		"HousekeepingCancelled":     testHousekeepingCancelled,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// archiveMark returns a mark with all fields, different for each sequence.
func archiveMark(through uint64) persistence.ArchiveMark {
	return persistence.ArchiveMark{
		Segment: fmt.Sprintf("%s/segment-%d", someone, through), Through: through, Time: someTime,
		Expires: someTime.Add(time.Duration(through) * time.Hour),
	}
}

// mark marks a root, which must succeed.
func (f *fixture) mark(k persistence.RootKey, m persistence.ArchiveMark) {
	f.Helper()
	if err := f.store.MarkArchived(f.ctx(), k, m); err != nil {
		f.Fatalf("mark %v: %v", k, err)
	}
}

// strip strips a root, which must succeed.
func (f *fixture) strip(k persistence.RootKey, snapshotAt string) {
	f.Helper()
	if err := f.store.StripRoot(f.ctx(), k, snapshotAt); err != nil {
		f.Fatalf("strip %v: %v", k, err)
	}
}

// deleteRecords deletes the records of a partition, which must succeed.
func (f *fixture) deleteRecords(p persistence.Partition) {
	f.Helper()
	if err := f.store.DeleteRecords(f.ctx(), p); err != nil {
		f.Fatalf("delete records of %v: %v", p, err)
	}
}

// wantRoot reads one root every way there is.
func (f *fixture) wantRoot(want persistence.Root) {
	f.Helper()
	got, err := f.store.ReadRoot(f.ctx(), want.Key)
	if err != nil || !reflect.DeepEqual(got, want) {
		f.Errorf("root %v:\ngot  %+v, %v\nwant %+v", want.Key, got, err, want)
	}
	above := want.Key
	above.Version++
	roots, err := f.store.ReadRoots(f.ctx(), want.Key.Aggregate, above, 1)
	if err != nil || len(roots) != 1 || !reflect.DeepEqual(roots[0], want) {
		f.Errorf("roots below %v:\ngot  %+v, %v\nwant %+v", above, roots, err, want)
	}
}

// testMark: a mark is read with its root, and a later one replaces it.
func testMark(f *fixture) {
	r := root(someone, 1, 1)
	f.putRoot(r)
	for _, m := range []persistence.ArchiveMark{archiveMark(7), {Through: 9, Time: someTime}, archiveMark(7)} {
		f.mark(r.Key, m)
		r.Archive = &m
		f.wantTopRoot(r)
		f.wantRoot(r)
	}
	f.reopen()
	f.wantTopRoot(r)
}

// fullRoot returns a root that has all that PutRoot writes.
func fullRoot(epoch, version uint64) persistence.Root {
	r := root(someone, epoch, version)
	r.Base, r.ArchivedThrough = 10*version, 3*version
	r.Parent = persistence.RootKey{Aggregate: someone, Epoch: epoch, Version: version - 1}
	r.ParentIncarnation = incarnationB
	r.Header = persistence.Header{Codec: 1, Compression: 2, KeyID: "k", PolicyVersion: "p"}
	return r
}

// testStrip: a stripped root keeps the fields of the chain and loses its snapshot;
// stripping again changes only where the snapshot is.
func testStrip(f *fixture) {
	whole := fullRoot(3, 2)
	f.putRoot(whole)
	for _, at := range []string{"somewhere", "", someone + "/elsewhere"} {
		f.strip(whole.Key, at)
		bare := whole
		bare.Mapper, bare.Header, bare.Snapshot = "", persistence.Header{}, nil
		bare.Stripped, bare.SnapshotAt = true, at
		f.wantTopRoot(bare)
		f.wantRoot(bare)
		f.reopen()
		f.wantRoot(bare)
	}
	unknown := whole.Key
	unknown.Version = 77
	if _, err := f.store.ReadRoot(f.ctx(), unknown); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("root %v: %v", unknown, err)
	}
}

// testMarkAndStripBetweenOthers: what belongs to a root is taken for no root, by no way of reading.
func testMarkAndStripBetweenOthers(f *fixture) {
	var want []persistence.Root
	for version := uint64(300); version > 250; version-- {
		r := root(someone, 1+version/256, version)
		f.putRoot(r)
		if version%2 == 0 {
			m := archiveMark(version)
			f.mark(r.Key, m)
			r.Archive = &m
		}
		if version%3 == 0 {
			f.strip(r.Key, "")
			r = r.Strip("")
		}
		want = append(want, r)
	}
	other := root(someone+"x", 1, 1)
	f.putRoot(other)
	f.mark(other.Key, archiveMark(1))
	for _, page := range []int{1, 2, 3, 49, 50, 51} {
		if got := f.readRoots(someone, page); !reflect.DeepEqual(got, want) {
			f.Fatalf("roots in pages of %d:\ngot  %+v\nwant %+v", page, got, want)
		}
	}
	f.wantTopRoot(want[0])
	ids, err := f.store.Aggregates(f.ctx(), "", 10)
	if err != nil || len(ids) != 2 {
		f.Errorf("aggregates: %q, %v", ids, err)
	}
}

// testLatePutRoot: a repeat of PutRoot that arrives late undoes nothing.
func testLatePutRoot(f *fixture) {
	r := fullRoot(1, 2)
	f.putRoot(r)
	m := archiveMark(25)
	f.mark(r.Key, m)
	f.strip(r.Key, "at")
	f.putRoot(r)
	want := r.Strip("at")
	want.Archive = &m
	f.wantTopRoot(want)
	f.strip(r.Key, "at")
	f.wantRoot(want)
}

// testDeleteRecords: exactly the records of one partition go. The others differ from it
// in one part of the name each, or begin alike.
func testDeleteRecords(f *fixture) {
	p := partition(someone, 2, 3)
	others := []persistence.Partition{
		partition(someone, 2, 2), partition(someone, 2, 4), partition(someone, 1, 3), partition(someone, 3, 3),
		partition(someone+"x", 2, 3), partition(someone[:5], 2, 3),
	}
	sameRoot := p
	sameRoot.Incarnation = incarnationB
	others = append(others, sameRoot)
	for _, o := range append(others, p) {
		f.append(o, records(1, 300)...)
	}
	for range 2 {
		f.deleteRecords(p)
		f.wantRecords(p, 100, nil)
		for _, o := range others {
			f.wantRecords(o, 500, records(1, 300))
		}
		f.reopen()
	}
	f.deleteRecords(partition("nobody", 1, 1))
}

// testHousekeepingSurvives: what was done is done, also after a power loss.
func testHousekeepingSurvives(f *fixture) {
	for i := range uint64(10) {
		r := fullRoot(1, 2+i)
		p := r.Partition()
		f.putRoot(r)
		f.append(p, records(1, 3)...)
		m := archiveMark(2 + i)
		f.mark(r.Key, m)
		f.losePower()
		r.Archive = &m
		f.wantRoot(r)
		f.wantRecords(p, 10, records(1, 3))
		f.deleteRecords(p)
		f.losePower()
		f.wantRecords(p, 10, nil)
		f.strip(r.Key, "at")
		f.losePower()
		f.wantRoot(r.Strip("at"))
	}
}

// testHousekeepingAtOnce: two archivers do the same at the same time.
func testHousekeepingAtOnce(f *fixture) {
	r := fullRoot(1, 2)
	f.putRoot(r)
	f.append(r.Partition(), records(1, 50)...)
	h, m := f.store, archiveMark(50)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				err := errors.Join(h.MarkArchived(f.ctx(), r.Key, m), h.DeleteRecords(f.ctx(), r.Partition()),
					h.StripRoot(f.ctx(), r.Key, ""))
				if err != nil {
					f.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := r.Strip("")
	want.Archive = &m
	f.wantRoot(want)
	f.wantRecords(r.Partition(), 10, nil)
}

// testHousekeepingCancelled: nothing succeeds with a context that has ended, nor on a
// closed store.
func testHousekeepingCancelled(f *fixture) {
	r := fullRoot(1, 2)
	f.putRoot(r)
	ctx, cancel := context.WithCancel(f.ctx())
	cancel()
	h := f.store
	for what, err := range map[string]error{
		"mark":   h.MarkArchived(ctx, r.Key, archiveMark(1)),
		"delete": h.DeleteRecords(ctx, r.Partition()),
		"strip":  h.StripRoot(ctx, r.Key, ""),
	} {
		if err == nil {
			f.Errorf("%s with a cancelled context succeeded", what)
		}
	}
	s := f.store
	f.close()
	for what, err := range map[string]error{
		"mark":   h.MarkArchived(f.ctx(), r.Key, archiveMark(1)),
		"delete": h.DeleteRecords(f.ctx(), r.Partition()),
		"strip":  h.StripRoot(f.ctx(), r.Key, ""),
	} {
		if !errors.Is(err, persistence.ErrClosed) {
			f.Errorf("%s on a closed %T: %v, want ErrClosed", what, s, err)
		}
	}
}
