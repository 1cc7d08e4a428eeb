package persistencetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"licensed/persistence"
)

// runJournal runs the cases about roots and records, without crashes.
func runJournal(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"RecordFields":       testRecordFields,
		"RootFields":         testRootFields,
		"TopRoot":            testTopRoot,
		"ReadRoots":          testReadRoots,
		"BareRoots":          testBareRoots,
		"ReadRecords":        testReadRecords,
		"Gaps":               testGaps,
		"PartitionsApart":    testPartitionsApart,
		"OddIDs":             testOddIDs,
		"Repeat":             testRepeat,
		"LateWrite":          testLateWrite,
		"StaleWriter":        testStaleWriter,
		"NothingShared":      testNothingShared,
		"Rejected":           testRejected,
		"TooLarge":           testTooLarge,
		"ConcurrentAppends":  testConcurrentAppends,
		"RootAndFirstAppend": testRootAndFirstAppend,
		"Aggregates":         testAggregates,
		"EndedContext":       testEndedContext,
		"Close":              testClose,
		"CloseWaits":         testCloseWaits,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// testRecordFields: every field is read as it was written, at the ends of its range:
// Cassandra's numbers are signed.
func testRecordFields(f *fixture) {
	big := uint64(math.MaxInt64)
	full := persistence.Record{
		Sequence: big - 1, Index: 0, Count: math.MaxInt32,
		CommandID: strings.Repeat("c", 64), Fingerprint: math.MaxUint64, IssuedAt: someTime.Add(-time.Hour),
		Principal: "https://login.example.org:José", Reason: strings.Repeat("r", 256),
		AggregateID: "iphone de José 📱/GlowS01E01", Order: big, Time: someTime,
		Mapper: "LicenseAcquired/1",
		Header: persistence.Header{Codec: 255, Compression: 254, KeyID: "k", PolicyVersion: "p"},
		Data:   []byte("\x00\xff binary"),
	}
	later := full
	later.Sequence, later.Index, later.Fingerprint, later.IssuedAt = big, math.MaxInt32-1, 0, time.Time{}
	later.Reason = ""
	later.Data = bytes.Repeat([]byte{0xfe, 0x00}, 50_000)

	p := partition(someone, big, big)
	f.append(p, full, later)
	f.reopen()
	f.wantRecords(p, 10, []persistence.Record{full, later})
}

// testRootFields: the same for roots. An empty snapshot may be read as nil.
func testRootFields(f *fixture) {
	first := root(someone, 1, 1)
	first.Snapshot = []byte{}
	full := persistence.Root{
		Key:         persistence.RootKey{Aggregate: someone, Epoch: math.MaxInt64, Version: math.MaxInt64},
		Incarnation: incarnationB, Base: math.MaxInt64,
		Parent: first.Key, ParentIncarnation: first.Incarnation,
		Time: someTime, Mapper: "TestSnapshot/2",
		Header:   persistence.Header{Codec: 1, Compression: 2, KeyID: "key", PolicyVersion: "policy"},
		Snapshot: bytes.Repeat([]byte{1, 0, 0xff}, 30_000),
	}
	f.putRoot(first, full)
	f.reopen()
	for _, want := range []persistence.Root{first, full} {
		got, err := f.store.ReadRoot(f.ctx(), want.Key)
		if err != nil {
			f.Fatalf("root %v: %v", want.Key, err)
		}
		got.Snapshot = append([]byte{}, got.Snapshot...)
		if !reflect.DeepEqual(got, want) {
			f.Errorf("root %v:\ngot  %+v\nwant %+v", want.Key, got, want)
		}
	}
}

// testTopRoot: the top root is the highest by epoch, then version, whatever the order of
// the writes and the number of digits.
func testTopRoot(f *fixture) {
	if _, err := f.store.TopRoot(f.ctx(), someone); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("top root of nothing: %v, want ErrNotFound", err)
	}
	// A version above that of a later epoch is a leftover of a fenced writer.
	ordered := []persistence.Root{
		root(someone, 1, 1), root(someone, 1, 2), root(someone, 1, 300), root(someone, 2, 3), root(someone, 2, 256),
		root(someone, 9, 1), root(someone, 10, 1), root(someone, 255, 7), root(someone, 256, 2),
		root(someone, 65536, 1),
	}
	shuffled := slices.Clone(ordered)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled),
		func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	top := shuffled[0]
	for _, r := range shuffled {
		f.putRoot(r)
		if top.Key.Less(r.Key) {
			top = r
		}
		f.wantTopRoot(top)
	}
	// An aggregate that has records only has no root.
	f.append(partition("Matt:LicenseAggregate", 1, 1), record(1))
	if _, err := f.store.TopRoot(f.ctx(), "Matt:LicenseAggregate"); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("top root of an aggregate without roots: %v, want ErrNotFound", err)
	}
	if _, err := f.store.ReadRoot(f.ctx(), root(someone, 2, 4).Key); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("a root between others: %v, want ErrNotFound", err)
	}
	// One row id at several epochs names several roots.
	got, err := f.store.ReadRoot(f.ctx(), ordered[6].Key)
	if err != nil || !reflect.DeepEqual(got, ordered[6]) {
		f.Errorf("root %v: %+v, %v", ordered[6].Key, got, err)
	}
}

// testReadRoots: pages of any size give the same roots, highest first, and none of an
// aggregate whose id begins alike.
func testReadRoots(f *fixture) {
	var want []persistence.Root
	for epoch := uint64(12); epoch >= 1; epoch-- {
		for version := uint64(302); version >= 300; version-- {
			want = append(want, root(someone, epoch, version))
		}
	}
	f.putRoot(want...)
	f.putRoot(root("Bayle:LicenseAggregate", 3, 300), root("Bayleyz:LicenseAggregate", 3, 300))
	for _, page := range []int{1, 2, 7, 36, 1000} {
		if got := f.readRoots(someone, page); !reflect.DeepEqual(got, want) {
			f.Errorf("roots in pages of %d: got %d, want %d", page, len(got), len(want))
		}
	}
	// The key to start below need not exist.
	for _, tt := range []struct {
		epoch, version uint64
		want           []persistence.Root
	}{
		{12, 301, want[2:4]}, {12, 1, want[3:5]}, {5, 1000, want[21:23]}, {99, 1, want[0:2]}, {1, 301, want[35:]},
		{1, 300, nil}, {1, 1, nil},
	} {
		below := persistence.RootKey{Aggregate: someone, Epoch: tt.epoch, Version: tt.version}
		got, err := f.store.ReadRoots(f.ctx(), someone, below, 2)
		if err != nil || len(got) != len(tt.want) || len(got) > 0 && !reflect.DeepEqual(got, tt.want) {
			f.Errorf("roots below %v: %+v, %v", below, got, err)
		}
	}
	if got := f.readRoots("nobody", 10); len(got) != 0 {
		f.Errorf("roots of nobody: %+v", got)
	}
}

// testBareRoots: a root without a snapshot is read as it was written, among others, and begins a partition as they do.
func testBareRoots(f *fixture) {
	bare := root(someone, 2, 3)
	bare.Mapper, bare.Snapshot = "", []byte{1}
	whole := root(someone, 1, 2)
	f.putRoot(whole, bare)
	f.append(partition(someone, 2, 3), records(1, 3)...)
	f.wantTopRoot(bare)
	got := f.readRoots(someone, 1)
	if !reflect.DeepEqual(got, []persistence.Root{bare, whole}) || !got[0].IsBare() || got[1].IsBare() {
		f.Errorf("roots %+v, want a bare one above a whole one", got)
	}
	f.wantRecords(partition(someone, 2, 3), 10, records(1, 3))
}

// testReadRecords: pages of any size give the same records in order, and a page that is
// not full is the last.
func testReadRecords(f *fixture) {
	p := partition(someone, 3, 7)
	want := records(1, 700)
	for first := 0; first < len(want); first += 70 {
		f.append(p, want[first:first+70]...)
	}
	for _, page := range []int{1, 69, 70, 256, 700, 701, 100_000} {
		f.wantRecords(p, page, want)
	}
	for _, after := range []uint64{0, 1, 254, 255, 256, 699, 700, 701, math.MaxInt64} {
		got, err := f.store.ReadRecords(f.ctx(), p, after, 2)
		rest := want[min(after, 700):]
		rest = rest[:min(2, len(rest))]
		if err != nil || len(got) != len(rest) || len(got) > 0 && !reflect.DeepEqual(got, rest) {
			f.Errorf("2 records after %d: %s, %v", after, describe(got), err)
		}
	}
	if got := f.readRecords(partition("nobody", 1, 1), 10); len(got) != 0 {
		f.Errorf("records of nobody: %s", describe(got))
	}
}

// testGaps has rows that mutations of unknown outcome left, in any order.
func testGaps(f *fixture) {
	p := partition(someone, 1, 1)
	torn := command(20, 5)
	f.append(p, record(256))
	f.append(p, torn[1:3]...)
	f.append(p, records(3, 4)...)
	f.append(p, record(1))
	want := slices.Concat(records(1, 1), records(3, 4), torn[1:3], records(256, 256))
	for _, page := range []int{1, 2, 5, 6, 100} {
		f.wantRecords(p, page, want)
	}
}

// testPartitionsApart: partitions that differ in one part of the name share no records
// ([R7]).
func testPartitionsApart(f *fixture) {
	ps := []persistence.Partition{
		partition(someone, 1, 1), partition(someone, 1, 2), partition(someone, 2, 1), partition(someone, 256, 1),
		partition(someone, 1, 256), partition("Bayley", 1, 1),
	}
	sameKey := ps[0]
	sameKey.Incarnation = incarnationB
	ps = append(ps, sameKey)
	for i, p := range ps {
		r := record(1)
		r.Data = fmt.Append(nil, i)
		f.append(p, r)
	}
	for i, p := range ps {
		want := record(1)
		want.Data = fmt.Append(nil, i)
		f.wantRecords(p, 10, []persistence.Record{want})
	}
}

// oddIDs are what the rules for ids allow, and a little more.
func oddIDs() []string {
	return []string{
		"a", "a:", "a:a", "a:LicenseAggregate", "aa", "aa:LicenseAggregate", "a a", " a", "a ", "A", "a-", "a.b",
		"a*%_?", `a"b'c\`,
		"ä", "日本語", "📱", "e\u0301", "é", "\u007f", "a\u0080", "a\U0010ffff", "a\x01", "a\x01\x01", "\x01", "#", "~",
		"0", "-1", "null", "NULL",
		strings.Repeat("x", 128), strings.Repeat("x", 127), strings.Repeat("é", 64),
		strings.Repeat("x", persistence.MaxAggregateLen),
		strings.Repeat("日", 42) + "xx" + ":LicenseAggregate",
	}
}

// testOddIDs: ids that are prefixes of each other, look like patterns, or sort
// differently in other encodings are all apart.
func testOddIDs(f *fixture) {
	ids := oddIDs()
	for _, id := range ids {
		f.putRoot(root(id, 1, 1), root(id, 2, 2))
		f.append(partition(id, 2, 2), odd(id)...)
	}
	for _, id := range ids {
		f.wantTopRoot(root(id, 2, 2))
		if got := f.readRoots(id, 5); len(got) != 2 {
			f.Errorf("roots of %q: %d, want 2", id, len(got))
		}
		f.wantRecords(partition(id, 2, 2), 5, odd(id))
	}
	got := f.aggregates(7)
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		f.Errorf("aggregates:\ngot  %q\nwant %q", got, ids)
	}
}

// odd returns records that have the id wherever a text may be.
func odd(id string) []persistence.Record {
	rs := records(1, 2)
	for i := range rs {
		rs[i].CommandID, rs[i].AggregateID, rs[i].Mapper = id, id, ""
	}
	rs[1].CommandID, rs[1].AggregateID = "", ""
	return rs
}

// testRepeat: a write that is repeated identically changes nothing, also after later
// writes. Writes of unknown outcome are repeated so.
func testRepeat(f *fixture) {
	p := partition(someone, 1, 1)
	first, second := command(1, 3), command(4, 2)
	f.putRoot(root(someone, 1, 1))
	f.append(p, first...)
	f.append(p, first...)
	f.append(p, second...)
	f.append(p, first...)
	f.putRoot(root(someone, 1, 1))
	want := slices.Concat(first, second)
	f.wantRecords(p, 2, want)
	f.wantTopRoot(root(someone, 1, 1))
	if got := f.readRoots(someone, 10); len(got) != 1 {
		f.Errorf("%d roots after repeats, want 1", len(got))
	}
	f.reopen()
	f.wantRecords(p, 100, want)
}

// testLateWrite has writes of a former activation land after the next one's root: an append whose
// outcome was unknown, and a root below the top.
func testLateWrite(f *fixture) {
	old := partition(someone, 1, 1)
	f.putRoot(root(someone, 1, 1))
	f.append(old, command(1, 2)...)

	next := root(someone, 2, 3)
	next.Base, next.Parent, next.ParentIncarnation = 2, old.RootKey, old.Incarnation
	f.putRoot(next)
	f.append(next.Partition(), record(3))

	late := record(3)
	late.CommandID, late.Data = "late", []byte("late")
	f.append(old, late)
	f.putRoot(root(someone, 1, 99))

	f.wantTopRoot(next)
	f.wantRecords(next.Partition(), 10, records(3, 3))
	f.wantRecords(old, 10, append(command(1, 2), late))
	if got := f.readRoots(someone, 1); len(got) != 3 || got[0].Key != next.Key ||
		got[1].Key != root(someone, 1, 99).Key {
		f.Errorf("roots: %+v", got)
	}
}

// testStaleWriter has two activations write the same sequences, each into its own partition.
func testStaleWriter(f *fixture) {
	stale, now := partition(someone, 1, 1), partition(someone, 2, 2)
	now.Incarnation = incarnationB
	theirs, ours := records(1, 50), records(1, 50)
	for i := range theirs {
		theirs[i].CommandID, theirs[i].Data = "stale", []byte("stale")
	}
	var wg sync.WaitGroup
	for p, rs := range map[persistence.Partition][]persistence.Record{stale: theirs, now: ours} {
		wg.Go(func() {
			for i := range rs {
				m := &persistence.Mutation{Partition: p, Records: rs[i : i+1]}
				if err := <-f.startAppend(m); err != nil {
					f.Errorf("append: %v", err)
				}
			}
		})
	}
	wg.Wait()
	f.wantRecords(now, 10, ours)
	f.wantRecords(stale, 10, theirs)
}

// testNothingShared changes what was written after done, and what was read.
func testNothingShared(f *fixture) {
	r, rec := root(someone, 1, 1), record(1)
	m := &persistence.Mutation{Partition: r.Partition(), Records: []persistence.Record{rec}}
	rec.Data, r.Snapshot = bytes.Clone(rec.Data), bytes.Clone(r.Snapshot)
	m.Records[0].Data = bytes.Clone(rec.Data)
	if err := errors.Join(<-f.startPutRoot(&r), <-f.startAppend(m)); err != nil {
		f.Fatal(err)
	}
	clear(r.Snapshot)
	clear(m.Records[0].Data)
	p := partition(someone, 1, 1)
	for range 2 {
		f.wantTopRoot(root(someone, 1, 1))
		f.wantRecords(p, 10, records(1, 1))
		read, err := f.store.TopRoot(f.ctx(), someone)
		if err != nil {
			f.Fatal(err)
		}
		clear(read.Snapshot)
		for _, rec := range f.readRecords(p, 10) {
			clear(rec.Data)
		}
	}
}

// testRejected: invalid writes are rejected, and leave nothing.
func testRejected(f *fixture) {
	good := partition(someone, 1, 1)
	unnamed, noEpoch, nul := good, good, good
	unnamed.Aggregate, noEpoch.Epoch, nul.Aggregate = "", 0, "a\x00b"
	for name, m := range map[string]*persistence.Mutation{
		"no aggregate":     {Partition: unnamed, Records: records(1, 1)},
		"no epoch":         {Partition: noEpoch, Records: records(1, 1)},
		"NUL in aggregate": {Partition: nul, Records: records(1, 1)},
		"no records":       {Partition: good},
		"no sequence":      {Partition: good, Records: []persistence.Record{{Count: 1}}},
		"a gap":            {Partition: good, Records: append(records(1, 1), record(3))},
		"not UTF-8": {
			Partition: good,
			Records:   []persistence.Record{{Sequence: 1, Count: 1, CommandID: "\xff"}},
		},
	} {
		if err := <-f.startAppend(m); !errors.Is(err, persistence.ErrRejected) {
			f.Errorf("append with %s: %v, want ErrRejected", name, err)
		}
	}
	orphan, foreign := root(someone, 1, 1), root(someone, 1, 1)
	orphan.Incarnation = persistence.Incarnation{}
	foreign.Parent = persistence.RootKey{Aggregate: "other", Epoch: 1, Version: 1}
	for name, r := range map[string]*persistence.Root{"no incarnation": &orphan, "another's parent": &foreign} {
		if err := <-f.startPutRoot(r); !errors.Is(err, persistence.ErrRejected) {
			f.Errorf("root with %s: %v, want ErrRejected", name, err)
		}
	}
	f.wantRecords(good, 10, nil)
	if got := f.aggregates(10); len(got) != 0 {
		f.Errorf("aggregates: %q", got)
	}
}

// testTooLarge: what is above the limit is rejected for certain: the machine may decide
// differently then, which an unknown outcome would forbid.
func testTooLarge(f *fixture) {
	if f.driver.MaxMutationBytes == 0 {
		f.Skip("the store has no limit to try")
	}
	p, huge := partition(someone, 1, 1), record(1)
	huge.Data = make([]byte, f.driver.MaxMutationBytes+1)
	m := &persistence.Mutation{Partition: p, Records: []persistence.Record{huge}}
	if err := <-f.startAppend(m); !errors.Is(err, persistence.ErrRejected) {
		f.Errorf("append of %d bytes: %v, want ErrRejected", len(huge.Data), err)
	}
	r := root(someone, 1, 1)
	r.Snapshot = huge.Data
	if err := <-f.startPutRoot(&r); !errors.Is(err, persistence.ErrRejected) {
		f.Errorf("root of %d bytes: %v, want ErrRejected", len(huge.Data), err)
	}
	// What was rejected never happens, and the store continues.
	f.append(p, record(1))
	f.reopen()
	f.wantRecords(p, 10, records(1, 1))
	if got := f.aggregates(10); len(got) != 0 {
		f.Errorf("aggregates: %q", got)
	}
}

// testConcurrentAppends: each writer reads its write at once, while many share groups,
// batches and syncs.
func testConcurrentAppends(f *fixture) {
	const aggregates, mutations = 64, 30
	var wg sync.WaitGroup
	for a := range aggregates {
		wg.Go(func() {
			p := partition(fmt.Sprintf("customer-%d:LicenseAggregate", a), 1, 1)
			r := root(p.Aggregate, 1, 1)
			if err := <-f.startPutRoot(&r); err != nil {
				f.Errorf("put root: %v", err)
			}
			for i := range uint64(mutations) {
				m := &persistence.Mutation{Partition: p, Records: command(1+3*i, 3)}
				if err := <-f.startAppend(m); err != nil {
					f.Errorf("append to %v: %v", p, err)
				}
				last, err := f.store.ReadRecords(f.ctx(), p, 3*i+2, 10)
				if err != nil || len(last) != 1 || last[0].Sequence != 3*i+3 {
					f.Errorf("after append %d to %v: %s, %v", i, p, describe(last), err)
				}
			}
		})
	}
	wg.Wait()
	var want []persistence.Record
	for i := range uint64(mutations) {
		want = append(want, command(1+3*i, 3)...)
	}
	f.reopen()
	for a := range aggregates {
		id := fmt.Sprintf("customer-%d:LicenseAggregate", a)
		f.wantTopRoot(root(id, 1, 1))
		f.wantRecords(partition(id, 1, 1), 50, want)
	}
}

// testRootAndFirstAppend sends both at once, as an activation may.
func testRootAndFirstAppend(f *fixture) {
	for i := range uint64(50) {
		r := root(someone, 1, i+1)
		a := f.startPutRoot(&r)
		b := f.startAppend(&persistence.Mutation{Partition: r.Partition(), Records: command(1, 2)})
		if err := errors.Join(<-a, <-b); err != nil {
			f.Fatal(err)
		}
		f.wantTopRoot(r)
		f.wantRecords(r.Partition(), 10, command(1, 2))
	}
}

// aggregates returns all ids, read in pages.
func (f *fixture) aggregates(page int) []string {
	f.Helper()
	var all []string
	after := ""
	for {
		got, err := f.store.Aggregates(f.ctx(), after, page)
		if err != nil {
			f.Fatalf("aggregates after %q: %v", after, err)
		}
		if len(got) > page {
			f.Fatalf("aggregates after %q: %d, more than the limit %d", after, len(got), page)
		}
		all = append(all, got...)
		if len(got) < page {
			return all
		}
		after = got[len(got)-1]
	}
}

// testAggregates: each aggregate with a root is listed once, in whatever order the store
// has.
func testAggregates(f *fixture) {
	if got := f.aggregates(10); len(got) != 0 {
		f.Errorf("aggregates of an empty store: %q", got)
	}
	var want []string
	for i := range 100 {
		id := fmt.Sprintf("customer-%d:LicenseAggregate", i)
		want = append(want, id)
		for version := range uint64(1 + i%4) {
			f.putRoot(root(id, 1+version, 1+version))
		}
		f.append(partition(id, 1, 1), record(1))
	}
	f.append(partition("records only", 1, 1), record(1))
	slices.Sort(want)
	for _, page := range []int{1, 3, 99, 100, 101} {
		got := f.aggregates(page)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			f.Errorf("aggregates in pages of %d: got %d, want %d", page, len(got), len(want))
		}
	}
}

// testEndedContext: a call whose context has ended fails with the context's error and never blocks.
func testEndedContext(f *fixture) {
	f.putRoot(root(someone, 1, 1))
	ctx, cancel := context.WithCancel(f.ctx())
	cancel()
	p := partition(someone, 1, 1)
	for name, err := range reads(ctx, f.store) {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, persistence.ErrUnavailable) {
			f.Errorf("%s: %v, want ErrUnavailable and context.Canceled", name, err)
		}
	}
	m := &persistence.Mutation{Partition: p, Records: records(1, 1)}
	err := <-f.start(func(done func(error)) { f.store.Append(ctx, m, done) })
	got := f.readRecords(p, 10)
	if err == nil && len(got) != 1 {
		f.Errorf("append was acknowledged, but there are %d records", len(got))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		f.Errorf("append: %v, want context.Canceled", err)
	}
	if errors.Is(err, persistence.ErrRejected) && len(got) != 0 {
		f.Errorf("append was rejected, but there are %d records", len(got))
	}
}

// reads calls every read and returns the errors by name.
func reads(ctx context.Context, s persistence.Store) map[string]error {
	errs := make(map[string]error)
	_, errs["TopRoot"] = s.TopRoot(ctx, someone)
	_, errs["ReadRoot"] = s.ReadRoot(ctx, root(someone, 1, 1).Key)
	_, errs["ReadRoots"] = s.ReadRoots(ctx, someone, persistence.RootKey{}, 1)
	_, errs["ReadRecords"] = s.ReadRecords(ctx, partition(someone, 1, 1), 0, 1)
	_, errs["Aggregates"] = s.Aggregates(ctx, "", 1)
	_, errs["Lease"] = s.Lease(ctx, incarnationA)
	_, errs["PeekLease"] = s.PeekLease(ctx, incarnationA)
	_, errs["Leases"] = s.Leases(ctx)
	_, errs["Shard"] = s.Shard(ctx, 1)
	_, errs["Shards"] = s.Shards(ctx)
	_, errs["PeekShards"] = s.PeekShards(ctx)
	return errs
}

// testClose: every call after Close reports ErrClosed, and the store can be opened again.
func testClose(f *fixture) {
	f.putRoot(root(someone, 1, 1))
	s := f.store
	f.close()
	errs := reads(f.ctx(), s)
	m := &persistence.Mutation{Partition: partition(someone, 1, 1), Records: records(1, 1)}
	r := root(someone, 1, 2)
	errs["Append"] = <-f.start(func(done func(error)) { s.Append(f.ctx(), m, done) })
	errs["PutRoot"] = <-f.start(func(done func(error)) { s.PutRoot(f.ctx(), &r, done) })
	_, errs["CreateCluster"] = s.CreateCluster(f.ctx(), persistence.ClusterInfo{Name: "c", Shards: 1})
	_, _, errs["CompareAndSetLease"] = s.CompareAndSetLease(f.ctx(), persistence.Lease{},
		persistence.Lease{Incarnation: incarnationA})
	_, _, errs["CompareAndSetShard"] = s.CompareAndSetShard(f.ctx(), persistence.Shard{}, persistence.Shard{Epoch: 1})
	errs["Close"] = s.Close()
	for name, err := range errs {
		if !errors.Is(err, persistence.ErrClosed) {
			f.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	f.open()
	f.wantTopRoot(root(someone, 1, 1))
	f.wantRecords(partition(someone, 1, 1), 10, nil)
}

// testCloseWaits closes the store while writes are in progress: each is told its outcome, and what was
// acknowledged is present.
func testCloseWaits(f *fixture) {
	const writes = 200
	outcomes := make([]<-chan error, writes)
	for i := range outcomes {
		p := partition(fmt.Sprintf("customer-%d", i), 1, 1)
		outcomes[i] = f.startAppend(&persistence.Mutation{Partition: p, Records: command(1, 2)})
	}
	f.close()
	f.open()
	for i, outcome := range outcomes {
		var err error
		select {
		case err = <-outcome:
		default:
			f.Fatalf("write %d has no outcome after Close", i)
		}
		got := f.readRecords(partition(fmt.Sprintf("customer-%d", i), 1, 1), 10)
		if err == nil && len(got) != 2 {
			f.Errorf("write %d was acknowledged, but there are %d records", i, len(got))
		}
	}
}
