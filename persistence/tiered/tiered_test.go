package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
	"licensed/persistence/tiered"
)

const someone = "Bayley:LicenseAggregate"

func held(context.Context) bool { return true }

// fixture is a history on both tiers in memory.
type fixture struct {
	testing.TB
	*persistencetest.History
	hot  *memory.Store
	cold *memory.Archive
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{TB: t, hot: memory.New(), cold: memory.NewArchive()}
	f.History = persistencetest.NewHistory(t, f.hot, someone)
	return f
}

func (f *fixture) archiver(c archive.Config) *archive.Archiver {
	return archive.New(archive.Options{Hot: f.hot, Cold: f.cold, Config: c, Now: f.Now})
}

func (f *fixture) archive() {
	f.Helper()
	if _, err := f.archiver(archive.DefaultConfig()).Archive(f.Context(), f.Head(), true, held); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) roots() []persistence.Root {
	f.Helper()
	roots, err := f.hot.ReadRoots(f.Context(), someone, persistence.RootKey{}, 1000)
	if err != nil {
		f.Fatal(err)
	}
	return roots
}

// mixed returns a history of 70 events: 1 to 30 in one segment, 31 to 40 in another, the rest hot.
func mixed(t testing.TB) *fixture {
	f := newFixture(t)
	for i := range 3 {
		f.Roll(i == 1).Append(10).Stray(3)
	}
	f.Roll(false)
	f.archive()
	f.Append(10).Roll(true)
	f.archive()
	f.Append(10).Stray(2).Roll(false).Roll(false).Append(20)
	return f
}

func tierOf(sequence uint64) persistence.Tier {
	if sequence <= 40 {
		return persistence.TierArchive
	}
	return persistence.TierHot
}

// read reads a range; a gap is told as text.
func (f *fixture) read(
	cold persistence.Archive, rng persistence.HistoryRange,
) (records []persistence.Record, tiers []persistence.Tier, gaps []string) {
	f.Helper()
	err := tiered.NewReader(f.hot, cold, f.Now).Read(f.Context(), f.Head(), rng,
		func(i *persistence.HistoryItem) error {
			if i.Gap != nil {
				gaps = append(gaps, fmt.Sprintf("%d to %d", i.Gap.After+1, i.Gap.Through))
				return nil
			}
			records, tiers = append(records, i.Record), append(tiers, i.Tier)
			return nil
		})
	if err != nil {
		f.Fatal(err)
	}
	return records, tiers, gaps
}

// TestEveryRange reads each range, both ways, of each tier.
func TestEveryRange(t *testing.T) {
	f := mixed(t)
	last := f.Head().Sequence
	tiers := []persistence.Tier{persistence.TierBoth, persistence.TierHot, persistence.TierArchive}
	for after := uint64(0); after <= last+1; after += 3 {
		for through := uint64(0); through <= last+5; through++ {
			for _, tier := range tiers {
				for _, newest := range []bool{false, true} {
					rng := persistence.HistoryRange{After: after, Through: through, Tier: tier, Newest: newest}
					f.wantRange(rng, last)
				}
			}
		}
	}
}

func (f *fixture) wantRange(rng persistence.HistoryRange, last uint64) {
	f.Helper()
	through := rng.Through
	if through == 0 || through > last {
		through = last
	}
	var want []persistence.Record
	for seq := rng.After + 1; seq <= through; seq++ {
		if rng.Tier == persistence.TierBoth || rng.Tier == tierOf(seq) {
			want = append(want, f.Records[seq-1])
		}
	}
	if rng.Newest {
		slices.Reverse(want)
	}
	got, tiers, gaps := f.read(f.cold, rng)
	if !reflect.DeepEqual(got, want) || len(gaps) > 0 {
		f.Fatalf("%+v: %d events, gaps %q, want %d", rng, len(got), gaps, len(want))
	}
	for i := range got {
		if tiers[i] != tierOf(got[i].Sequence) {
			f.Fatalf("%+v: event %d is said to be in tier %s", rng, got[i].Sequence, tiers[i])
		}
	}
}

// TestGaps: what cannot be read is named where it is, from either end, and the rest is present.
func TestGaps(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(*fixture) persistence.Archive
		gaps   []string
		cause  error
		says   string
	}{
		{"nothing is wrong", func(f *fixture) persistence.Archive { return f.cold }, nil, nil, ""},
		{"an open record is missing", func(f *fixture) persistence.Archive {
			f.lose(f.Head().Partition, 55, 55)
			return f.cold
		}, []string{"55 to 55"}, persistence.ErrCorrupt, "no record 55"},
		{"the open tail is missing", func(f *fixture) persistence.Archive {
			f.lose(f.Head().Partition, 70, 70)
			return f.cold
		}, []string{"70 to 70"}, persistence.ErrCorrupt, "no record 70"},
		{"records here and there are missing", func(f *fixture) persistence.Archive {
			f.lose(f.Head().Partition, 51, 52)
			f.lose(f.Head().Partition, 57, 58)
			return f.cold
		}, []string{"51 to 52", "57 to 58"}, persistence.ErrCorrupt, "no record 51"},
		{"a closed partition is missing", func(f *fixture) persistence.Archive {
			f.lose(f.roots()[2].Partition(), 41, 60)
			return f.cold
		}, []string{"41 to 50"}, persistence.ErrCorrupt, "no record 41"},
		{"a record is corrupt", func(f *fixture) persistence.Archive {
			f.hot.CorruptRecord(f.roots()[2].Partition(), 45)
			return f.cold
		}, []string{"45 to 45"}, persistence.ErrCorrupt, "record 45"},
		{"a segment is corrupt", func(f *fixture) persistence.Archive {
			f.cold.Corrupt(f.segment(5))
			return f.cold
		}, []string{"1 to 10", "11 to 20", "21 to 30"}, persistence.ErrCorrupt, "segment"},
		{"a segment is missing", func(f *fixture) persistence.Archive {
			f.drop(35)
			return f.cold
		}, []string{"31 to 40"}, persistence.ErrCorrupt, "segment"},
		{"a segment is another's", func(f *fixture) persistence.Archive {
			f.swap()
			return f.cold
		}, []string{"31 to 40"}, persistence.ErrCorrupt, "does not hold"},
		{"the archive is down", func(f *fixture) persistence.Archive {
			return down{f.cold}
		}, []string{"1 to 10", "11 to 20", "21 to 30", "31 to 40"}, persistence.ErrUnavailable, "segment"},
		{"there is no archive", func(*fixture) persistence.Archive {
			return nil
		}, []string{"1 to 10", "11 to 20", "21 to 30", "31 to 40"}, persistence.ErrUnavailable, "no archive"},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			f := mixed(t)
			f.wantGaps(c.damage(f), c.gaps, c.cause, c.says)
		})
	}
}

func (f *fixture) wantGaps(cold persistence.Archive, want []string, cause error, says string) {
	f.Helper()
	for _, newest := range []bool{false, true} {
		got, _, gaps := f.read(cold, persistence.HistoryRange{Newest: newest})
		covered := map[uint64]bool{}
		for i := range got {
			covered[got[i].Sequence] = true
			if !reflect.DeepEqual(got[i], f.Records[got[i].Sequence-1]) {
				f.Errorf("event %d is not what was written", got[i].Sequence)
			}
			if i > 0 && (got[i].Sequence < got[i-1].Sequence) != newest {
				f.Errorf("newest first %v: %d after %d", newest, got[i].Sequence, got[i-1].Sequence)
			}
		}
		if newest {
			slices.Reverse(gaps)
		}
		if !slices.Equal(gaps, want) {
			f.Errorf("gaps %q, want %q", gaps, want)
		}
		missing := 0
		for _, g := range gaps {
			var first, last uint64
			if _, err := fmt.Sscanf(g, "%d to %d", &first, &last); err != nil {
				f.Fatal(err)
			}
			for seq := first; seq <= last; seq++ {
				missing++
				if covered[seq] {
					f.Errorf("event %d is there and in a gap", seq)
				}
			}
		}
		if len(covered)+missing != len(f.Records) {
			f.Errorf("%d events and %d missing ones, of %d", len(covered), missing, len(f.Records))
		}
	}
	err := tiered.NewReader(f.hot, cold, f.Now).ReadAll(f.Context(), f.Head(), persistence.HistoryRange{},
		func(*persistence.Record) error { return nil })
	if !errors.Is(err, cause) || cause != nil && !strings.Contains(err.Error(), says) {
		f.Errorf("ReadAll: %v, want %v that says %q", err, cause, says)
	}
}

// lose deletes records of a partition.
func (f *fixture) lose(p persistence.Partition, first, last uint64) {
	f.Helper()
	rows, err := f.hot.ReadRecords(f.Context(), p, 0, 1000)
	if err = errors.Join(err, f.hot.DeleteRecords(f.Context(), p)); err != nil {
		f.Fatal(err)
	}
	for i := range rows {
		if r := rows[i]; r.Sequence < first || r.Sequence > last {
			f.hot.Append(f.Context(),
				&persistence.Mutation{Partition: p, Records: []persistence.Record{r}}, func(err error) {
					if err != nil {
						f.Fatal(err)
					}
				})
		}
	}
}

// segment returns the name of the segment that an event is in.
func (f *fixture) segment(sequence uint64) string {
	for _, r := range f.roots() {
		if r.Archive != nil && r.Base < sequence && sequence <= r.Archive.Through {
			return r.Archive.Segment
		}
	}
	f.Fatalf("event %d is not in the archive", sequence)
	return ""
}

func (f *fixture) drop(sequence uint64) {
	if err := f.cold.DeleteSegment(f.Context(), f.segment(sequence)); err != nil {
		f.Fatal(err)
	}
}

// swap puts a copy of the first segment in the place of the second.
func (f *fixture) swap() {
	first, second := f.segment(1), f.segment(35)
	data, err := f.cold.ReadSegment(f.Context(), first)
	err = errors.Join(err, f.cold.DeleteSegment(f.Context(), second),
		f.cold.PutSegment(f.Context(), second, data, time.Time{}))
	if err != nil {
		f.Fatal(err)
	}
}

// down is an archive that does not answer.
type down struct{ persistence.Archive }

func (down) ReadSegment(context.Context, string) ([]byte, error) {
	return nil, fmt.Errorf("read: %w", persistence.ErrUnavailable)
}

// TestLeftoversAreNotHistory: deleted rows that came back, and rows of fenced writers, do not exist.
func TestLeftoversAreNotHistory(t *testing.T) {
	f := mixed(t)
	for _, r := range f.roots() {
		if r.Archive == nil || r.Archive.Through == r.Base {
			continue
		}
		forged := slices.Clone(f.Records[r.Base:r.Archive.Through])
		for i := range forged {
			forged[i].Data = []byte("resurrected")
		}
		f.hot.Append(t.Context(), &persistence.Mutation{Partition: r.Partition(), Records: forged}, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	f.wantGaps(f.cold, nil, nil, "")
}

// TestReadersMeetArchivers reads while an archiver is active between any two of the reader's steps.
func TestReadersMeetArchivers(t *testing.T) {
	for at := range 20 {
		f := newFixture(t)
		for range 5 {
			f.Roll(false).Append(30)
		}
		meddler := &meddling{HotTier: f.hot, at: at, do: f.archive}
		var got []persistence.Record
		err := tiered.NewReader(meddler, f.cold, f.Now).ReadAll(t.Context(), f.Head(),
			persistence.HistoryRange{}, func(r *persistence.Record) error {
				got = append(got, *r)
				return nil
			})
		if err != nil || !reflect.DeepEqual(got, f.Records) {
			t.Fatalf("archived before read %d: %d events, %v", at, len(got), err)
		}
	}
}

type meddling struct {
	tiered.HotTier
	at, reads int
	do        func()
}

func (m *meddling) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	if m.reads == m.at {
		m.do()
	}
	m.reads++
	return m.HotTier.ReadRecords(ctx, p, after, min(limit, 10))
}

// TestYieldEnds: a reader that has enough is asked no more, and nothing more is read for it.
func TestYieldEnds(t *testing.T) {
	f := mixed(t)
	enough := errors.New("enough")
	n := 0
	err := tiered.NewReader(f.hot, f.cold, f.Now).Read(t.Context(), f.Head(),
		persistence.HistoryRange{Newest: true}, func(*persistence.HistoryItem) error {
			if n++; n == 7 {
				return enough
			}
			return nil
		})
	if !errors.Is(err, enough) || n != 7 {
		t.Errorf("%d items, %v", n, err)
	}
}

// TestBrokenChain: a root that is missing hides what is before it, and reports it.
func TestBrokenChain(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false).Append(10).Roll(false).Append(10)
	hidden := hiding{HotTier: f.hot, version: 2}
	var got []string
	err := tiered.NewReader(hidden, f.cold, f.Now).Read(t.Context(), f.Head(),
		persistence.HistoryRange{}, func(i *persistence.HistoryItem) error {
			if i.Gap != nil {
				got = append(got, fmt.Sprintf("gap %d to %d", i.Gap.After+1, i.Gap.Through))
				if !errors.Is(i.Gap, persistence.ErrCorrupt) {
					t.Errorf("gap: %v, want ErrCorrupt", i.Gap)
				}
			} else {
				got = append(got, fmt.Sprint(i.Record.Sequence))
			}
			return nil
		})
	if want := "gap 1 to 20 21 22 23 24 25 26 27 28 29 30"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

type hiding struct {
	tiered.HotTier
	version uint64
}

func (h hiding) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	roots, err := h.HotTier.ReadRoots(ctx, aggregate, below, limit)
	return slices.DeleteFunc(roots, func(r persistence.Root) bool { return r.Key.Version == h.version }), err
}

// TestRandomHistories reads histories of random shape, archived in part, in random ranges.
func TestRandomHistories(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		f := newFixture(t)
		c := archive.Config{SegmentBytes: 1 + rng.IntN(8000), Page: 1 + rng.IntN(5), After: time.Hour * 10_000}
		for range 1 + rng.IntN(12) {
			f.Roll(rng.IntN(3) == 0).Append(rng.IntN(40)).Stray(rng.IntN(3))
			if rng.IntN(3) == 0 {
				if _, err := f.archiver(c).Archive(t.Context(), f.Head(), rng.IntN(2) == 0, held); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 10 {
			last := f.Head().Sequence
			r := persistence.HistoryRange{
				After: rng.Uint64N(last + 1), Through: rng.Uint64N(last + 1), Newest: rng.IntN(2) == 0,
			}
			want := slices.Clone(f.Records[min(r.After, last):])
			if r.Through > 0 {
				want = slices.Clone(f.Records[min(r.After, r.Through):r.Through])
			}
			if r.Newest {
				slices.Reverse(want)
			}
			got, _, gaps := f.read(f.cold, r)
			if len(gaps) > 0 || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v of %d: %d events, gaps %q, want %d", r, last, len(got), gaps, len(want))
			}
		}
	}
}

func TestStub(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	f.archive()
	whole := f.roots()[0]
	if err := f.archiver(archive.DefaultConfig()).ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
		t.Fatal(err)
	}
	got, err := tiered.NewJournal(f.hot, f.cold).TopRoot(t.Context(), someone)
	if err != nil || !reflect.DeepEqual(got, whole) {
		t.Errorf("got %+v, %v, want %+v", got, err, whole)
	}
	if _, err := tiered.NewJournal(f.hot, f.cold).TopRoot(t.Context(),
		"nobody"); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("top root of nobody: %v, want ErrNotFound", err)
	}
}

// waking wakes the aggregate after the top root was read, and has the snapshot of its stub deleted.
type waking struct {
	persistence.Journal
	f     *fixture
	reads int
}

func (w *waking) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	r, err := w.Journal.TopRoot(ctx, aggregate)
	if w.reads++; w.reads == 1 {
		w.f.Roll(true)
		w.f.archive()
	}
	return r, err
}

// TestWokenMeanwhile: a late reader finds the root of the new owner, not a snapshot that is missing.
func TestWokenMeanwhile(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	if err := f.archiver(archive.DefaultConfig()).ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
		t.Fatal(err)
	}
	stub := f.roots()[0]
	hot := &waking{Journal: f.hot, f: f}
	got, err := tiered.NewJournal(hot, f.cold).TopRoot(t.Context(), someone)
	if err != nil || got.Stripped || !stub.Key.Less(got.Key) || !reflect.DeepEqual(got, f.roots()[0]) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := f.cold.ReadSegment(t.Context(), stub.SnapshotAt); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("the snapshot of the stub: %v, want ErrNotFound", err)
	}
}

// TestStubWithoutSnapshot: an aggregate whose snapshot is not to be had is never taken for a new one.
func TestStubWithoutSnapshot(t *testing.T) {
	for what, c := range map[string]struct {
		damage func(*fixture, string) persistence.Archive
		want   error
	}{
		"missing": {func(f *fixture, at string) persistence.Archive {
			_ = f.cold.DeleteSegment(f.Context(), at)
			return f.cold
		}, persistence.ErrCorrupt},
		"corrupt": {func(f *fixture, at string) persistence.Archive {
			f.cold.Corrupt(at)
			return f.cold
		}, persistence.ErrCorrupt},
		"down": {func(f *fixture, _ string) persistence.Archive {
			return down{f.cold}
		}, persistence.ErrUnavailable},
		"no archive": {func(*fixture, string) persistence.Archive { return nil }, persistence.ErrUnavailable},
		"never put": {
			func(f *fixture, _ string) persistence.Archive { f.stripTo(""); return f.cold }, persistence.ErrCorrupt,
		},
		"a history segment": {func(f *fixture, _ string) persistence.Archive {
			f.stripTo(f.segment(1))
			return f.cold
		}, persistence.ErrCorrupt},
		"another root's": {
			func(f *fixture, at string) persistence.Archive { f.Append(1).Roll(false); f.stripTo(at); return f.cold },
			persistence.ErrCorrupt,
		},
	} {
		f := newFixture(t)
		f.Roll(false).Append(10).Roll(false)
		f.archive()
		if err := f.archiver(archive.DefaultConfig()).ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
			t.Fatal(err)
		}
		cold := c.damage(f, f.roots()[0].SnapshotAt)
		root, err := tiered.NewJournal(f.hot, cold).TopRoot(t.Context(), someone)
		if err == nil {
			err = root.Damage // its events may be whole
		}
		if !errors.Is(err, c.want) || errors.Is(err, persistence.ErrNotFound) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

func (f *fixture) stripTo(at string) {
	if err := f.hot.StripRoot(f.Context(), f.roots()[0].Key, at); err != nil {
		f.Fatal(err)
	}
}

// hanging is an archive that does not answer.
type hanging struct{ persistence.Archive }

func (hanging) ReadSegment(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", persistence.ErrUnavailable, ctx.Err())
}

// TestArchiveHangs: waking ends in time, also when the archive does not answer.
func TestArchiveHangs(t *testing.T) {
	f := newFixture(t)
	f.Roll(false).Append(10).Roll(false)
	if err := f.archiver(archive.DefaultConfig()).ArchiveSnapshot(t.Context(), f.Head(), held); err != nil {
		t.Fatal(err)
	}
	j := tiered.NewJournal(f.hot, hanging{f.cold})
	j.Patience = time.Millisecond
	if _, err := j.TopRoot(context.WithoutCancel(t.Context()), someone); !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}
