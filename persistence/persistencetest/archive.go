package persistencetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/persistence"
)

// ArchiveDriver tells the suite how to handle one kind of archive.
type ArchiveDriver struct {
	// New returns an empty place for an archive, as Driver.New does for a store.
	New func(t testing.TB) *ArchivePlace
}

// ArchivePlace is where one archive keeps its segments. At most one is open in a place at a time.
type ArchivePlace struct {
	// Open opens the archive, also again after Close or PowerLoss.
	Open func() (persistence.Archive, error)
	// PowerLoss is as in Place. Nil if the archive cannot be treated like that.
	PowerLoss func(t testing.TB)
	// Corrupt damages a stored segment while the archive is closed. Nil if impossible.
	Corrupt func(t testing.TB, name string)
	// Expire makes the open archive drop what expired before now. Nil if it does so in its own time only.
	Expire func(t testing.TB, now time.Time)
}

// RunArchive runs all cases for archives against the driver's.
func RunArchive(t *testing.T, d ArchiveDriver) {
	for name, run := range map[string]func(*archiveFixture){
		"SegmentsRoundTrip":   testSegmentsRoundTrip,
		"NamesAreUsedOnce":    testNamesAreUsedOnce,
		"OneOfManyWriters":    testOneOfManyWriters,
		"DeleteSegment":       testDeleteSegment,
		"EraseSegments":       testEraseSegments,
		"SegmentsInPages":     testSegmentsInPages,
		"BytesAreNotShared":   testBytesAreNotShared,
		"SegmentsSurvive":     testSegmentsSurvive,
		"CorruptSegment":      testCorruptSegment,
		"Expiry":              testExpiry,
		"ArchiveCancelled":    testArchiveCancelled,
		"ArchiveClosed":       testArchiveClosed,
		"ArchiveOfManyAtOnce": testArchiveOfManyAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			f := &archiveFixture{TB: t, place: d.New(t)}
			f.open()
			t.Cleanup(f.close)
			run(f)
		})
	}
}

// archiveFixture is a place and the archive open in it. Its methods fail the test.
type archiveFixture struct {
	testing.TB
	place   *ArchivePlace
	archive persistence.Archive
}

// open opens the archive of the place.
func (f *archiveFixture) open() {
	f.Helper()
	a, err := f.place.Open()
	if err != nil {
		f.Fatalf("open: %v", err)
	}
	f.archive = a
}

// close closes the archive, if it is open.
func (f *archiveFixture) close() {
	f.Helper()
	if f.archive == nil {
		return
	}
	if err := f.archive.Close(); err != nil {
		f.Errorf("close: %v", err)
	}
	f.archive = nil
}

// put writes a segment that must be accepted.
func (f *archiveFixture) put(name string, data []byte, expires time.Time) {
	f.Helper()
	if err := f.archive.PutSegment(f.Context(), name, data, expires); err != nil {
		f.Fatalf("put %s: %v", name, err)
	}
}

// want demands that a segment has these bytes.
func (f *archiveFixture) want(name string, data []byte) {
	f.Helper()
	got, err := f.archive.ReadSegment(f.Context(), name)
	if err != nil || !bytes.Equal(got, data) {
		f.Errorf("segment %s: %d bytes, %v, want %d", name, len(got), err, len(data))
	}
}

// wantNone demands that there is no segment of that name.
func (f *archiveFixture) wantNone(name string) {
	f.Helper()
	if got, err := f.archive.ReadSegment(f.Context(), name); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("segment %s: %d bytes, %v, want ErrNotFound", name, len(got), err)
	}
}

// names returns all names, read in pages.
func (f *archiveFixture) names(page int) []string {
	f.Helper()
	var all []string
	for after := ""; ; after = all[len(all)-1] {
		got, err := f.archive.Segments(f.Context(), after, page)
		if err != nil || len(got) > page {
			f.Fatalf("segments after %q: %d, %v", after, len(got), err)
		}
		all = append(all, got...)
		if len(got) < page {
			return all
		}
	}
}

// segmentName returns names whose order is not that of the numbers: the factor is odd, so
// that all differ, and spreads them over 32 bits.
func segmentName(i int) string { return fmt.Sprintf("%s/%08x", someone, uint32(i)*2654435761) }

// testSegmentsRoundTrip: what is read is what was written, also nothing, a size above
// every chunk and buffer, and names that are no identifiers.
func testSegmentsRoundTrip(f *archiveFixture) {
	f.wantNone("nothing")
	for i, size := range []int{0, 1, 300, 64 << 10, 3 << 20} {
		data := bytes.Repeat([]byte{byte(i), 0, 0xff}, size/3+1)[:size]
		f.put(segmentName(i), data, time.Time{})
		f.want(segmentName(i), data)
	}
	for _, name := range []string{"Zoë:Kind/1", "a b/c", "%2f/x", "a"} {
		f.put(name, []byte(name), time.Time{})
		f.want(name, []byte(name))
	}
	f.wantNone("a ")
}

// testNamesAreUsedOnce: a name never gets another content, and the refusal changes
// nothing, also after a restart. The archiver relies on it ([R12]).
func testNamesAreUsedOnce(f *archiveFixture) {
	f.put("a/1", []byte("first"), time.Time{})
	for range 2 {
		if err := f.archive.PutSegment(f.Context(), "a/1",
			[]byte("second"), time.Time{}); !errors.Is(err, persistence.ErrExists) {
			f.Errorf("put under a name in use: %v, want ErrExists", err)
		}
		f.want("a/1", []byte("first"))
		f.close()
		f.open()
	}
}

// testOneOfManyWriters: of writers that use one name at once exactly one succeeds, and
// its bytes are the ones to read.
func testOneOfManyWriters(f *archiveFixture) {
	for round := range 10 {
		name := segmentName(round)
		var winner atomic.Int32
		var wg sync.WaitGroup
		for i := range int32(8) {
			wg.Go(func() {
				err := f.archive.PutSegment(f.Context(), name, []byte{byte(i)}, time.Time{})
				switch {
				case err == nil && !winner.CompareAndSwap(0, i+1):
					f.Errorf("two writers made %s", name)
				case err != nil && !errors.Is(err, persistence.ErrExists):
					f.Errorf("put %s: %v", name, err)
				}
			})
		}
		wg.Wait()
		f.want(name, []byte{byte(winner.Load() - 1)})
	}
}

// testDeleteSegment: deleting is idempotent, and spares a name that begins alike.
func testDeleteSegment(f *archiveFixture) {
	f.put("a/1", []byte("x"), time.Time{})
	f.put("a/11", []byte("y"), time.Time{})
	for range 2 {
		if err := f.archive.DeleteSegment(f.Context(), "a/1"); err != nil {
			f.Errorf("delete: %v", err)
		}
		f.wantNone("a/1")
		f.want("a/11", []byte("y"))
	}
}

// testEraseSegments: the segments of one aggregate go, whether they expire or not, and no others.
func testEraseSegments(f *archiveFixture) {
	for _, name := range []string{"a:K/1", "a:K/2", "a:K/zzz"} {
		f.put(name, []byte("x"), time.Time{})
	}
	f.put("a:K/3", []byte("x"), time.Now().Add(time.Hour))
	others := []string{"a:J/1", "a:K", "a:K0", "a:KK/1", "aa:K/1", "b:K/1"}
	for _, name := range others {
		f.put(name, []byte(name), time.Time{})
	}
	for _, want := range []int{4, 0} {
		if n, err := f.archive.EraseSegments(f.Context(), "a:K"); err != nil || n != want {
			f.Errorf("%d segments erased, %v, want %d", n, err, want)
		}
	}
	if got := f.names(3); !slices.Equal(got, others) {
		f.Errorf("segments %q, want %q", got, others)
	}
}

// testSegmentsInPages: names come in the order of their bytes, whatever the page; the
// name to start behind need not exist.
func testSegmentsInPages(f *archiveFixture) {
	var want []string
	for i := range 40 {
		want = append(want, segmentName(i))
		f.put(segmentName(i), []byte{1}, time.Time{})
	}
	slices.Sort(want)
	for _, page := range []int{1, 7, 39, 40, 41} {
		if got := f.names(page); !slices.Equal(got, want) {
			f.Errorf("in pages of %d: %q, want %q", page, got, want)
		}
	}
	got, err := f.archive.Segments(f.Context(), want[10]+"!", 2)
	if err != nil || !slices.Equal(got, want[11:13]) {
		f.Errorf("after a name that does not exist: %q, %v", got, err)
	}
}

// testBytesAreNotShared: callers may use their slices again after a write, and change
// what they read.
func testBytesAreNotShared(f *archiveFixture) {
	data := []byte("segment")
	f.put("a/1", data, time.Time{})
	data[0] = 'X'
	got, err := f.archive.ReadSegment(f.Context(), "a/1")
	if err != nil {
		f.Fatal(err)
	}
	got[1] = 'X'
	f.want("a/1", []byte("segment"))
}

// testSegmentsSurvive: what was acknowledged, a deletion included, survives a power loss
// after every write.
func testSegmentsSurvive(f *archiveFixture) {
	if f.place.PowerLoss == nil {
		f.Skip("the archive cannot lose power")
	}
	for i := range 20 {
		f.put(segmentName(i), bytes.Repeat([]byte{byte(i)}, 5000*i), time.Time{})
		if i%3 == 2 {
			if err := f.archive.DeleteSegment(f.Context(), segmentName(i-1)); err != nil {
				f.Fatal(err)
			}
		}
		f.place.PowerLoss(f)
		f.open()
		for j := range i + 1 {
			if j%3 == 1 && j < i {
				f.wantNone(segmentName(j))
			} else {
				f.want(segmentName(j), bytes.Repeat([]byte{byte(j)}, 5000*j))
			}
		}
	}
}

// testCorruptSegment: a damaged segment is reported as such, without its bytes, and harms
// no other.
func testCorruptSegment(f *archiveFixture) {
	if f.place.Corrupt == nil {
		f.Skip("the archive's segments cannot be damaged")
	}
	f.put("a/1", bytes.Repeat([]byte("segment"), 100), time.Time{})
	f.put("a/2", []byte("healthy"), time.Time{})
	f.close()
	f.place.Corrupt(f, "a/1")
	f.open()
	if got, err := f.archive.ReadSegment(f.Context(), "a/1"); !errors.Is(err, persistence.ErrCorrupt) || got != nil {
		f.Errorf("damaged segment: %d bytes, %v, want ErrCorrupt", len(got), err)
	}
	f.want("a/2", []byte("healthy"))
}

// testExpiry: a segment is kept until it expires, and forever if it never does. More
// expire at once than an implementation handles in one batch.
func testExpiry(f *archiveFixture) {
	const n = 600
	for i := range n {
		expires := someTime.Add(time.Duration(i) * time.Minute)
		if i%4 == 0 {
			expires = time.Time{}
		}
		f.put(segmentName(i), []byte{byte(i)}, expires)
	}
	f.want(segmentName(5), []byte{5})
	if f.place.Expire == nil {
		f.Skip("the archive drops what expired in its own time")
	}
	for _, until := range []int{-100, 3, 300, n + 1} {
		f.place.Expire(f, someTime.Add(time.Duration(until)*time.Minute+time.Second))
		for i := range n {
			if i%4 != 0 && i <= until {
				f.wantNone(segmentName(i))
			} else {
				f.want(segmentName(i), []byte{byte(i)})
			}
		}
	}
	if got := f.names(1000); len(got) != n/4 {
		f.Errorf("%d segments are left, want %d", len(got), n/4)
	}
}

// testArchiveCancelled: a call whose context has ended does not succeed, and a read
// reports that the archive is unavailable.
func testArchiveCancelled(f *archiveFixture) {
	f.put("a/1", []byte("x"), time.Time{})
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if err := f.archive.PutSegment(ctx, "a/2", nil, time.Time{}); err == nil {
		f.Error("put succeeded with a cancelled context")
	}
	if _, err := f.archive.ReadSegment(ctx, "a/1"); !errors.Is(err, persistence.ErrUnavailable) {
		f.Errorf("read with a cancelled context: %v, want ErrUnavailable", err)
	}
	if _, err := f.archive.Segments(ctx, "", 1); !errors.Is(err, persistence.ErrUnavailable) {
		f.Errorf("list with a cancelled context: %v, want ErrUnavailable", err)
	}
}

// testArchiveClosed: every call after Close reports ErrClosed, also a second Close.
func testArchiveClosed(f *archiveFixture) {
	f.put("a/1", []byte("x"), time.Time{})
	a := f.archive
	f.close()
	_, readErr := a.ReadSegment(f.Context(), "a/1")
	_, listErr := a.Segments(f.Context(), "", 1)
	for what, err := range map[string]error{
		"put": a.PutSegment(f.Context(), "a/2", nil, time.Time{}), "read": readErr, "list": listErr,
		"delete": a.DeleteSegment(f.Context(), "a/1"), "close": a.Close(),
	} {
		if !errors.Is(err, persistence.ErrClosed) {
			f.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
}

// testArchiveOfManyAtOnce: concurrent writers of different names see their own segments
// at once.
func testArchiveOfManyAtOnce(f *archiveFixture) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := segmentName(i*100 + j)
				if err := f.archive.PutSegment(f.Context(), name, []byte(name), time.Time{}); err != nil {
					f.Error(err)
				}
				if got, err := f.archive.ReadSegment(f.Context(), name); err != nil || string(got) != name {
					f.Errorf("segment %s: %q, %v", name, got, err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.names(1000); len(got) != 160 {
		f.Errorf("%d segments, want 160", len(got))
	}
}
