package archive_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
	"licensed/persistence/tiered"
)

const someone = "Bayley:LicenseAggregate"

func held(context.Context) bool { return true }

// fixture is a history and an archiver on both tiers in memory.
type fixture struct {
	*testing.T
	*persistencetest.History
	hot    *memory.Store
	cold   *memory.Archive
	config archive.Config
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, hot: memory.New(), cold: memory.NewArchive(), config: archive.DefaultConfig()}
	f.History = persistencetest.NewHistory(t, f.hot, someone)
	return f
}

// options returns those of an archiver on the given tiers, with the history's clock.
func (f *fixture) options(hot archive.HotTier, cold persistence.Archive) archive.Options {
	return archive.Options{Hot: hot, Cold: cold, Config: f.config, Now: f.Now}
}

func (f *fixture) archiver() *archive.Archiver { return archive.New(f.options(f.hot, f.cold)) }

func (f *fixture) archive(all bool) archive.Result {
	f.Helper()
	res, err := f.archiver().Archive(f.Context(), f.Head(), all, held)
	if err != nil {
		f.Fatal(err)
	}
	return res
}

// wantWhole reads the history and demands that it is all there, and how much of it in the archive.
func (f *fixture) wantWhole(archived int) {
	f.Helper()
	var got []persistence.Record
	cold := 0
	err := tiered.NewReader(f.hot, f.cold, f.Now).Read(f.Context(), f.Head(),
		persistence.HistoryRange{}, func(i *persistence.HistoryItem) error {
			if i.Gap != nil {
				return i.Gap
			}
			got = append(got, i.Record)
			if i.Tier == persistence.TierArchive {
				cold++
			}
			return nil
		})
	if err != nil || !reflect.DeepEqual(got, f.Records) {
		f.Fatalf("history of %d events, %v, want %d", len(got), err, len(f.Records))
	}
	if cold != archived {
		f.Errorf("%d events are in the archive, want %d", cold, archived)
	}
}

func (f *fixture) roots() []persistence.Root {
	f.Helper()
	roots, err := f.hot.ReadRoots(f.Context(), someone, persistence.RootKey{}, 10_000)
	if err != nil {
		f.Fatal(err)
	}
	return roots
}

func (f *fixture) segments() []string {
	f.Helper()
	names, err := f.cold.Segments(f.Context(), "", 10_000)
	if err != nil {
		f.Fatal(err)
	}
	return names
}

// TestArchive moves all that is closed, and leaves what is open and the top root.
func TestArchive(t *testing.T) {
	f := newFixture(t)
	for i := range 10 {
		f.Roll(i%3 == 0).Append(20).Stray(3)
	}
	res := f.archive(true)
	if res.Partitions != 9 || res.Records != 180 || res.Segments != 1 || res.Through != 180 || res.Bytes == 0 {
		t.Errorf("%+v", res)
	}
	f.wantWhole(180)
	roots := f.roots()
	if roots[0].Stripped || roots[0].Archive != nil || len(roots[0].Snapshot) == 0 {
		t.Errorf("the top root was touched: %+v", roots[0])
	}
	for _, r := range roots[1:] {
		if !r.Stripped || r.SnapshotAt != "" || r.Archive == nil || r.Archive.Segment != f.segments()[0] ||
			!r.Archive.Expires.IsZero() {
			t.Errorf("root %+v", r)
		}
		if left, err := f.hot.ReadRecords(t.Context(), r.Partition(), 0, 100); err != nil || len(left) > 0 {
			t.Errorf("%d records of %s are left, %v", len(left), r.Key, err)
		}
	}
	if again := f.archive(true); again != (archive.Result{Through: 180}) {
		t.Errorf("a second time: %+v", again)
	}
	f.Append(5).Roll(false)
	if more := f.archive(true); more.Partitions != 1 || more.Records != 25 || more.Through != 205 {
		t.Errorf("with more history: %+v", more)
	}
	f.wantWhole(205)
}

// TestBareRootKeepsWhatItNeeds: below a root without a snapshot, the newest root that has one stays, and so do the
// events since, whatever the retention of the archive. A later root with a snapshot ends that.
func TestBareRootKeepsWhatItNeeds(t *testing.T) {
	f := newFixture(t)
	f.config.Retention = time.Hour
	for range 3 {
		f.Roll(false).Append(10)
	}
	f.Roll(false).Append(5)
	if err := f.archiver().ArchiveSnapshot(t.Context(), f.Head(), held); err != nil { // it was idle
		t.Fatal(err)
	}
	f.RollBare().Append(5).RollBare().Append(2)
	for range 2 {
		if f.archive(true); f.lacksPast(30, 10) {
			break
		}
		if err := f.archiver().ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
			t.Error(err)
		}
		f.Wait(2 * time.Hour)
	}
	if top := f.roots()[0]; top.Stripped {
		t.Errorf("the snapshot of the top root, which has none, was moved: %+v", top)
	}
	f.Roll(false)
	if res := f.archive(true); res.Partitions != 3 || res.Records != 12 || res.Through != 42 {
		t.Errorf("below a root with a snapshot: %+v", res)
	}
}

// lacksPast demands that the state at the base of the top root can be built from a snapshot at a sequence and that
// many events. It reports whether it failed.
func (f *fixture) lacksPast(at uint64, events int) (failed bool) {
	f.Helper()
	past, err := tiered.NewReader(f.hot, f.cold, f.Now).Past(f.Context(), f.roots()[0], nil)
	if failed = err != nil || past.Start == nil || past.Start.Base != at || len(past.Records) != events; failed {
		f.Errorf("the top root needs a snapshot at %d and %d events: %v and %d, %v",
			at, events, past.Start, len(past.Records), err)
	}
	return failed
}

// TestSmallPartitionsShareSegments: nothing is done until it is worth a segment, or old.
func TestSmallPartitionsShareSegments(t *testing.T) {
	f := newFixture(t)
	f.config.SegmentBytes = 20_000
	f.config.After = 10_000 * time.Hour
	for range 300 {
		f.Roll(false).Append(2)
		f.archive(false)
	}
	small, archived := len(f.segments()), 0
	for _, r := range f.roots() {
		if r.Archive != nil {
			archived += 2
		}
	}
	if small < 3 || small > 6 {
		t.Errorf("%d events are in %d segments", archived, small)
	}
	f.wantWhole(archived)
	f.config.After = 0
	f.Wait(time.Hour)
	if res := f.archive(false); res.Segments != 1 || res.Through != 598 {
		t.Errorf("what is old: %+v", res)
	}
	f.wantWhole(598)
}

// TestEmptyPartitionsGetNoSegment: wakings that led to nothing cost nothing.
func TestEmptyPartitionsGetNoSegment(t *testing.T) {
	f := newFixture(t)
	for range 50 {
		f.Roll(false)
	}
	if res := f.archive(true); res.Segments != 0 || res.Partitions != 49 {
		t.Errorf("%+v", res)
	}
	f.Append(3).Roll(false).Roll(false).Append(2).Roll(true)
	if res := f.archive(true); res.Segments != 1 || res.Partitions != 3 || res.Records != 5 {
		t.Errorf("%+v", res)
	}
	for _, r := range f.roots()[4:] {
		if r.Archive == nil || r.Archive.Segment != "" {
			t.Errorf("root %s: %+v", r.Key, r.Archive)
		}
	}
	f.wantWhole(5)
}

func TestRetention(t *testing.T) {
	f := newFixture(t)
	f.config.Retention = 48 * time.Hour
	f.Roll(false).Append(10).Roll(false)
	f.archive(true)
	mark := f.roots()[1].Archive
	if want := f.Now().UTC().Add(48 * time.Hour); mark == nil || !mark.Expires.Equal(want) {
		t.Fatalf("mark %+v, want it to expire at %v", mark, want)
	}
	f.config.Retention = 0
	f.Append(4).Roll(false)
	f.archive(true)
	f.wantWhole(14)
	f.cold.Expire(mark.Expires)
	f.Wait(48 * time.Hour)
	f.wantExpired(mark.Expires)
}

// TestRetentionOfTheMoment: the one in force when a segment is written counts, and comes before Config's.
func TestRetentionOfTheMoment(t *testing.T) {
	f := newFixture(t)
	f.config.Retention = 48 * time.Hour
	o := f.options(f.hot, f.cold)
	var keep time.Duration
	var says bool
	o.Retention = func() (time.Duration, bool) { return keep, says }
	a := archive.New(o)
	f.Roll(false)
	for _, step := range []struct {
		keep time.Duration
		says bool
		want time.Duration // 0: it never expires
	}{{time.Hour, true, time.Hour}, {0, true, 0}, {0, false, 48 * time.Hour}} {
		keep, says = step.keep, step.says
		f.Append(5).Roll(false)
		if _, err := a.Archive(t.Context(), f.Head(), true, held); err != nil {
			t.Fatal(err)
		}
		m := f.roots()[1].Archive
		if step.want == 0 && !m.Expires.IsZero() || step.want > 0 && m.Expires.Sub(m.Time) != step.want {
			t.Errorf("%+v: marked %+v", step, m)
		}
	}
}

func (f *fixture) wantExpired(at time.Time) {
	f.Helper()
	var gaps []string
	events := 0
	err := tiered.NewReader(f.hot, f.cold, f.Now).Read(f.Context(), f.Head(),
		persistence.HistoryRange{}, func(i *persistence.HistoryItem) error {
			if i.Gap != nil {
				gaps = append(gaps, i.Gap.Error())
			} else {
				events++
			}
			return nil
		})
	want := fmt.Sprintf("events 1 to 10 expired before %s", at.Format(time.DateOnly))
	if err != nil || events != 4 || !reflect.DeepEqual(gaps, []string{want}) {
		f.Errorf("%d events and gaps %q, %v, want 4 and %q", events, gaps, err, want)
	}
}

// broken fails the call of that number, counted over both tiers, before or after it took effect.
type broken struct {
	archive.HotTier
	persistence.Archive
	calls, fail int
	after       bool
}

var errCrash = errors.New("crash")

func (b *broken) step(do func() error) error {
	b.calls++
	if b.calls != b.fail {
		return do()
	}
	if b.after {
		_ = do()
	}
	return errCrash
}

func (b *broken) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) (roots []persistence.Root, err error) {
	err = b.step(func() (err error) { roots, err = b.HotTier.ReadRoots(ctx, aggregate, below, limit); return err })
	return roots, err
}

func (b *broken) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) (records []persistence.Record, err error) {
	err = b.step(func() (err error) { records, err = b.HotTier.ReadRecords(ctx, p, after, limit); return err })
	return records, err
}

func (b *broken) MarkArchived(ctx context.Context, k persistence.RootKey, m persistence.ArchiveMark) error {
	return b.step(func() error { return b.HotTier.MarkArchived(ctx, k, m) })
}

func (b *broken) DeleteRecords(ctx context.Context, p persistence.Partition) error {
	return b.step(func() error { return b.HotTier.DeleteRecords(ctx, p) })
}

func (b *broken) StripRoot(ctx context.Context, k persistence.RootKey, at string) error {
	return b.step(func() error { return b.HotTier.StripRoot(ctx, k, at) })
}

func (b *broken) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	return b.step(func() error { return b.Archive.PutSegment(ctx, name, data, expires) })
}

func (b *broken) DeleteSegment(ctx context.Context, name string) error {
	return b.step(func() error { return b.Archive.DeleteSegment(ctx, name) })
}

func (b *broken) ReadSegment(ctx context.Context, name string) (data []byte, err error) {
	err = b.step(func() (err error) { data, err = b.Archive.ReadSegment(ctx, name); return err })
	return data, err
}

// TestCrashAfterEachStep gives up at every call there is, before and after it took effect; the history
// is whole at once, and so after it was archived again. One of its roots is a stub that was woken, whose
// snapshot is gone in the end.
func TestCrashAfterEachStep(t *testing.T) {
	for _, after := range []bool{false, true} {
		finished := false
		for fail := 1; !finished; fail++ {
			f := newFixture(t)
			f.config.SegmentBytes = 1500
			f.config.Page = 3
			for i := range 6 {
				f.Roll(i == 3).Append(7 * (i % 3)).Stray(2)
				if i == 3 {
					f.stub()
				}
			}
			stub := f.roots()[2].SnapshotAt
			b := &broken{HotTier: f.hot, Archive: f.cold, fail: fail, after: after}
			a := archive.New(f.options(b, b))
			_, err := a.Archive(t.Context(), f.Head(), true, held)
			if err == nil {
				err = a.ArchiveSnapshot(t.Context(), f.Head(), held)
			}
			if finished = b.calls < fail; finished == (err != nil) {
				t.Fatalf("call %d: %v after %d calls", fail, err, b.calls)
			}
			cold := 0
			for _, r := range f.roots() {
				if r.Archive != nil {
					cold += map[uint64]int{1: 0, 2: 7, 3: 14, 4: 0, 5: 7}[r.Key.Version]
				}
			}
			f.wantWhole(cold)
			if res := f.archive(true); res.Through != f.Head().Base {
				t.Fatalf("call %d: then %+v", fail, res)
			}
			if err := f.archiver().ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
				t.Fatal(err)
			}
			f.wantWhole(int(f.Head().Base))
			f.wantSnapshot(fmt.Sprintf("state at %d", f.Head().Base))
			if stub == "" || slices.Contains(f.segments(), stub) {
				t.Errorf("call %d: the snapshot of the woken stub, %q, is still there", fail, stub)
			}
		}
	}
}

// stub moves the snapshot of the top root to the archive.
func (f *fixture) stub() {
	f.Helper()
	if err := f.archiver().ArchiveSnapshot(f.Context(), f.Head(), held); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) wantSnapshot(want string) {
	f.Helper()
	r, err := tiered.NewJournal(f.hot, f.cold).TopRoot(f.Context(), someone)
	if err != nil || string(r.Snapshot) != want || r.Mapper != "TestSnapshot/1" || r.Stripped {
		f.Errorf("top root %+v, %v", r, err)
	}
}

// TestShortfall: a record that is missing stops the archiver before it changed anything.
func TestShortfall(t *testing.T) {
	for what, damage := range map[string]func(*fixture){
		"a partition is empty": func(f *fixture) {
			p := f.roots()[2].Partition()
			if err := f.hot.DeleteRecords(f.Context(), p); err != nil {
				f.Fatal(err)
			}
		},
		"a record is missing": func(f *fixture) {
			p := f.roots()[2].Partition()
			rows, err := f.hot.ReadRecords(f.Context(), p, 0, 100)
			if err = errors.Join(err, f.hot.DeleteRecords(f.Context(), p)); err != nil {
				f.Fatal(err)
			}
			for _, part := range [][]persistence.Record{rows[:3], rows[4:]} {
				f.hot.Append(f.Context(), &persistence.Mutation{Partition: p, Records: part}, func(err error) {
					if err != nil {
						f.Fatal(err)
					}
				})
			}
		},
		"a record is corrupt": func(f *fixture) { f.hot.CorruptRecord(f.roots()[2].Partition(), 5) },
	} {
		f := newFixture(t)
		f.Roll(false).Append(10).Roll(false).Append(10).Roll(false)
		damage(f)
		before := f.roots()
		_, err := f.archiver().Archive(t.Context(), f.Head(), true, held)
		if !errors.Is(err, archive.ErrShortfall) && !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if !reflect.DeepEqual(f.roots(), before) || len(f.segments()) > 0 {
			t.Errorf("%s: the archiver did something", what)
		}
	}
}

func TestMissingRoot(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	head := f.Head()
	head.Parent.Version = 7
	head.Partition.Version = 8
	if _, err := f.archiver().Archive(t.Context(), head, true, held); !errors.Is(err, archive.ErrShortfall) {
		t.Errorf("%v, want ErrShortfall", err)
	}
}

// liar keeps other bytes than it was given.
type liar struct {
	persistence.Archive
	lie func([]byte) []byte
}

func (l liar) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	return l.Archive.PutSegment(ctx, name, l.lie(data), expires)
}

func TestMismatch(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	before := f.roots()
	for what, lie := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { c := append([]byte(nil), b...); c[len(c)/2] ^= 1; return c },
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
		"nothing": func([]byte) []byte { return nil },
	} {
		a := archive.New(f.options(f.hot, liar{f.cold, lie}))
		if _, err := a.Archive(t.Context(), f.Head(), true, held); !errors.Is(err, archive.ErrMismatch) {
			t.Errorf("%s: %v, want ErrMismatch", what, err)
		}
		if err := a.ArchiveSnapshot(t.Context(), f.Head(), held); !errors.Is(err, archive.ErrMismatch) {
			t.Errorf("%s, snapshot: %v, want ErrMismatch", what, err)
		}
		if !reflect.DeepEqual(f.roots(), before) {
			t.Errorf("%s: a root was changed", what)
		}
	}
	f.wantWhole(0)
}

// TestNotHeld: an owner that lost the shard meanwhile leaves a segment that nothing names, at most.
func TestNotHeld(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	before := f.roots()
	lost := func(context.Context) bool { return false }
	if _, err := f.archiver().Archive(t.Context(), f.Head(), true, lost); !errors.Is(err, archive.ErrNotHeld) {
		t.Errorf("%v, want ErrNotHeld", err)
	}
	if err := f.archiver().ArchiveSnapshot(t.Context(), f.Head(), lost); !errors.Is(err, archive.ErrNotHeld) {
		t.Errorf("snapshot: %v, want ErrNotHeld", err)
	}
	if !reflect.DeepEqual(f.roots(), before) {
		t.Error("a root was changed")
	}
	f.wantWhole(0)
}

// TestBudget: the archiver asks before it copies.
func TestBudget(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	o := f.options(f.hot, f.cold)
	asked := 0
	o.Limit = func(_ context.Context, n int) error { asked += n; return errCrash }
	if _, err := archive.New(o).Archive(t.Context(), f.Head(), true, held); !errors.Is(err, errCrash) || asked < 500 ||
		len(f.segments()) > 0 {
		t.Errorf("%v after asking for %d bytes, %d segments", err, asked, len(f.segments()))
	}
}

// TestStubIsWokenAndArchivedAgain: an aggregate that goes to the archive and comes back, many times,
// leaves there its history and one snapshot.
func TestStubIsWokenAndArchivedAgain(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		f.Roll(false).Append(10).Roll(true)
		f.archive(true)
		for range 2 {
			f.stub()
		}
		top := f.roots()[0]
		if !top.Stripped || !strings.HasPrefix(top.SnapshotAt, someone+"/") || top.Archive != nil {
			t.Fatalf("stub %+v", top)
		}
		f.wantSnapshot(fmt.Sprintf("state at %d", f.Head().Base))
		f.wantWhole(len(f.Records))
		f.wantNamed(top.SnapshotAt)
	}
}

// wantNamed demands that the archive has the snapshot of that name and the segments that marks name, and
// nothing else.
func (f *fixture) wantNamed(snapshot string) {
	f.Helper()
	want := []string{snapshot}
	for _, r := range f.roots() {
		if r.Archive != nil && r.Archive.Segment != "" {
			want = append(want, r.Archive.Segment)
		}
	}
	slices.Sort(want)
	if got := f.segments(); !slices.Equal(got, slices.Compact(want)) {
		f.Errorf("segments %q, want %q", got, want)
	}
}

// TestStubIsKeptWhileItIsTheTop: however often the archiver comes by, the snapshot of the top root stays.
func TestStubIsKeptWhileItIsTheTop(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	for range 3 {
		f.archive(true)
		f.stub()
		f.wantSnapshot("state at 10")
	}
	f.Append(5) // the actor was still in memory
	f.archive(true)
	f.wantSnapshot("state at 10")
	f.wantWhole(10)
}

// watched is a hot tier that knows which of the snapshots and records that it gave out are still in memory.
type watched struct {
	archive.HotTier
	snapshots, records []weak.Pointer[byte]
	most               int // records at once
}

func (w *watched) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	roots, err := w.HotTier.ReadRoots(ctx, aggregate, below, limit)
	for i := range roots {
		roots[i].Snapshot = append(make([]byte, 0, 1024), roots[i].Snapshot...)
		w.snapshots = append(w.snapshots, weak.Make(&roots[i].Snapshot[0]))
	}
	return roots, err
}

func (w *watched) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	records, err := w.HotTier.ReadRecords(ctx, p, after, limit)
	for i := range records {
		records[i].Data = append(make([]byte, 0, 1024), records[i].Data...)
		w.records = append(w.records, weak.Make(&records[i].Data[0]))
	}
	runtime.GC()
	w.most = max(w.most, inMemory(w.records))
	return records, err
}

func inMemory(of []weak.Pointer[byte]) (n int) {
	for _, p := range of {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// TestMemory: of a long history that was never archived, no more is in memory than a segment or two, and
// no snapshot.
func TestMemory(t *testing.T) {
	f := newFixture(t)
	f.config.SegmentBytes = 1000 // a partition
	const partitions, events = 40, 10
	for range partitions {
		f.Roll(false).Append(events)
	}
	f.Roll(false)
	w := &watched{HotTier: f.hot}
	snapshots := -1
	o := f.options(w, f.cold)
	o.Limit = func(context.Context, int) error {
		if snapshots < 0 {
			runtime.GC()
			snapshots = inMemory(w.snapshots)
		}
		return nil
	}
	res, err := archive.New(o).Archive(t.Context(), f.Head(), true, held)
	if err != nil || res.Records != partitions*events || res.Segments < partitions/2 {
		t.Fatalf("%+v, %v", res, err)
	}
	if snapshots != 0 || w.most > 4*events {
		t.Errorf("%d of %d snapshots and %d of %d records were in memory at once",
			snapshots, partitions, w.most, partitions*events)
	}
	f.wantWhole(partitions * events)
}

// stubborn is a hot tier that takes no mark and strips no root, some times.
type stubborn struct {
	archive.HotTier
	times int
}

func (s *stubborn) fails() bool { s.times--; return s.times >= 0 }

func (s *stubborn) MarkArchived(ctx context.Context, k persistence.RootKey, m persistence.ArchiveMark) error {
	if s.fails() {
		return persistence.ErrUnknownOutcome
	}
	return s.HotTier.MarkArchived(ctx, k, m)
}

func (s *stubborn) StripRoot(ctx context.Context, k persistence.RootKey, at string) error {
	if s.fails() {
		return persistence.ErrUnknownOutcome
	}
	return s.HotTier.StripRoot(ctx, k, at)
}

// TestSegmentIsUsedAgain: attempts that fail do not each leave a segment, unless that is not as it was.
func TestSegmentIsUsedAgain(t *testing.T) {
	f := newFixture(t)
	f.config.Retention = 48 * time.Hour
	f.Roll(false).Append(10).Roll(false)
	hot := &stubborn{HotTier: f.hot}
	a := archive.New(f.options(hot, f.cold))
	moves := map[string]func() error{
		"history":  func() error { _, err := a.Archive(t.Context(), f.Head(), true, held); return err },
		"snapshot": func() error { return a.ArchiveSnapshot(t.Context(), f.Head(), held) },
	}
	for i, what := range []string{"history", "snapshot"} {
		hot.times = 5
		for range hot.times {
			if err := moves[what](); !errors.Is(err, persistence.ErrUnknownOutcome) {
				t.Fatalf("%s: %v", what, err)
			}
			f.Wait(time.Hour)
		}
		if n := len(f.segments()); n != i+1 {
			t.Errorf("%s: %d segments, want one", what, n-i)
		}
		if err := moves[what](); err != nil {
			t.Fatal(err)
		}
	}
	f.wantNamed(f.roots()[0].SnapshotAt)
	f.wantWhole(10)
	if m := f.roots()[1].Archive; !m.Expires.Equal(m.Time.Add(43 * time.Hour)) {
		t.Errorf("marked %+v: want the time when the segment expires, written 5 hours before", m)
	}

	f.Roll(false).Append(10).Roll(false)
	hot.times = 1
	if err := moves["history"](); !errors.Is(err, persistence.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	for _, name := range f.segments() {
		if name != f.roots()[3].Archive.Segment {
			f.cold.Corrupt(name) // among them the one that is not marked yet
		}
	}
	if err := moves["history"](); err != nil {
		t.Fatal(err)
	}
	f.wantWhole(20)
}

// TestRetentionChangesMeanwhile: a segment that was written for another retention is not used.
func TestRetentionChangesMeanwhile(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	hot := &stubborn{HotTier: f.hot}
	o := f.options(hot, f.cold)
	var keep time.Duration
	o.Retention = func() (time.Duration, bool) { return keep, true }
	a := archive.New(o)
	for i, next := range []time.Duration{time.Hour, 0, 100 * time.Hour, 1000 * time.Hour, time.Hour} {
		hot.times, keep = 1, next
		if _, err := a.Archive(t.Context(), f.Head(), true, held); !errors.Is(err, persistence.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		if n := len(f.segments()); n != i+1 {
			t.Errorf("to be kept %v: %d segments, want %d", next, n, i+1)
		}
	}
}
