package pebble

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"licensed/persistence"
	"licensed/persistence/persistencetest"
)

const archiveDir = "other-disk/archive"

func archiveOptions(fsys vfs.FS) ArchiveOptions {
	return ArchiveOptions{
		FS: fsys, CacheSize: 1 << 20, MemTableSize: 1 << 20, SweepEvery: time.Hour, Logger: discard,
		RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond,
	}
}

// archiveClock is a wall clock and a monotonic one, which tests set.
type archiveClock struct{ ms, up atomic.Int64 }

func (c *archiveClock) set(t time.Time)          { c.ms.Store(t.UnixMilli()) }
func (c *archiveClock) now() time.Time           { return time.UnixMilli(c.ms.Load()) }
func (c *archiveClock) monotonic() time.Duration { return time.Duration(c.up.Load()) }

// pass lets time pass on both.
func (c *archiveClock) pass(d time.Duration) {
	c.ms.Add(d.Milliseconds())
	c.up.Add(int64(d))
}

func (c *archiveClock) options(fsys vfs.FS, grace time.Duration) ArchiveOptions {
	o := archiveOptions(fsys)
	o.Now, o.Monotonic, o.Grace, o.Steady = c.now, c.monotonic, grace, time.Hour
	return o
}

// expire sweeps at a time of the wall clock that has been steady.
func (c *archiveClock) expire(t testing.TB, a *Archive, now time.Time) (dropped int) {
	t.Helper()
	for _, before := range []time.Duration{-time.Hour, 0} {
		c.set(now.Add(before))
		n, err := a.Expire(t.Context())
		if err != nil {
			t.Error(err)
		}
		dropped += n
		c.up.Add(int64(-before))
	}
	return dropped
}

func memArchivePlace(t testing.TB) *persistencetest.ArchivePlace {
	fsys := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 1))
	clock := new(archiveClock)
	var last *Archive
	return &persistencetest.ArchivePlace{
		Open: func() (_ persistence.Archive, err error) {
			last, err = OpenArchive(archiveDir, clock.options(fsys, time.Nanosecond))
			return last, err
		},
		PowerLoss: func(testing.TB) {
			dead := last
			t.Cleanup(func() { _ = dead.Close() })
			fsys = fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70}[rng.IntN(3)], RNG: rng})
		},
		Corrupt: func(t testing.TB, name string) { corruptSegment(t, fsys, name) },
		Expire:  func(t testing.TB, now time.Time) { clock.expire(t, last, now) },
	}
}

// corruptSegment flips a bit of a segment below the engine's checksums.
func corruptSegment(t testing.TB, fsys vfs.FS, name string) {
	t.Helper()
	o := archiveOptions(fsys).withDefaults()
	eo := o.engineOptions()
	eo.FS, eo.Logger = fsys, quietLogger{}
	db, err := pebbledb.Open(archiveDir, eo)
	if err != nil {
		t.Fatal(err)
	}
	value, closer, err := db.Get(segmentKey(name))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(value)
	bad[len(bad)/2] ^= 0x20
	if err := errors.Join(closer.Close(), db.Set(segmentKey(name), bad, pebbledb.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestArchiveConformance(t *testing.T) {
	persistencetest.RunArchive(t, persistencetest.ArchiveDriver{New: memArchivePlace})
}

func TestArchiveConformanceOnDisk(t *testing.T) {
	persistencetest.RunArchive(t, persistencetest.ArchiveDriver{New: func(t testing.TB) *persistencetest.ArchivePlace {
		dir := t.TempDir()
		return &persistencetest.ArchivePlace{Open: func() (persistence.Archive, error) {
			return OpenArchive(dir, ArchiveOptions{Logger: discard})
		}}
	}})
}

func openTestArchive(t testing.TB, o ArchiveOptions) *Archive {
	t.Helper()
	a, err := OpenArchive(archiveDir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestArchiveLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	a, err := OpenArchive(dir, ArchiveOptions{Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArchive(dir, ArchiveOptions{Logger: discard}); !errors.Is(err, persistence.ErrLocked) ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("second open: %v, want ErrLocked with the directory", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenArchive(dir, ArchiveOptions{ID: a.ID(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestArchiveIdentity: a directory that is not the archive wanted is refused, and left as it was.
func TestArchiveIdentity(t *testing.T) {
	fsys := vfs.NewMem()
	first := openTestArchive(t, archiveOptions(fsys))
	id := first.ID()
	if id == "" {
		t.Fatal("no id")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o := archiveOptions(fsys)
	o.ID = "another"
	for range 2 {
		if _, err := OpenArchive(archiveDir, o); !errors.Is(err, ErrWrongArchive) {
			t.Fatalf("another's archive: %v, want ErrWrongArchive", err)
		}
		if _, err := OpenArchive("missing-mount", o); !errors.Is(err, ErrWrongArchive) ||
			!strings.Contains(err.Error(), "mounted") {
			t.Fatalf("empty directory: %v, want ErrWrongArchive", err)
		}
	}
	o.ID = id
	if again := openTestArchive(t, o); again.ID() != id {
		t.Errorf("id %s became %s", id, again.ID())
	}
}

func TestArchiveIsNoStore(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArchive(testDir, archiveOptions(fsys)); !errors.Is(err, ErrFormat) {
		t.Errorf("a store opened as an archive: %v, want ErrFormat", err)
	}
}

// brokenDisk fails writes and syncs while it is broken.
type brokenDisk struct {
	broken atomic.Bool
	met    atomic.Int64
}

func (d *brokenDisk) inject(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo,
		errorfs.OpCreate:
		if d.broken.Load() {
			d.met.Add(1)
			return syscall.ENOSPC
		}
	}
	return nil
}

// TestArchiveOutlivesItsDisk: while the disk fails, calls fail; when it is well again, so is the
// archive, with all that it ever acknowledged.
func TestArchiveOutlivesItsDisk(t *testing.T) {
	disk := new(brokenDisk)
	a := openTestArchive(t, archiveOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(disk.inject))))
	acked := map[string]bool{}
	for round := range 5 {
		for i := range 10 {
			name := strings.Repeat("n", round+1) + "/" + string(rune('a'+i))
			if err := a.PutSegment(t.Context(), name, []byte(name), time.Time{}); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			acked[name] = true
		}
		disk.broken.Store(true)
		err := a.PutSegment(t.Context(), "lost", nil, time.Time{})
		if !errors.Is(err, persistence.ErrUnknownOutcome) && !errors.Is(err, persistence.ErrUnavailable) {
			t.Fatalf("put on a failing disk: %v", err)
		}
		waitFor(t, func() bool {
			_, err := a.ReadSegment(t.Context(), "n/a")
			return errors.Is(err, persistence.ErrUnavailable)
		})
		tries := disk.met.Load()
		waitFor(t, func() bool { return disk.met.Load() > tries+2 }) // it keeps trying
		disk.broken.Store(false)
		waitFor(t, func() bool { _, err := a.ReadSegment(t.Context(), "n/a"); return err == nil })
		for name := range acked {
			if got, err := a.ReadSegment(t.Context(), name); err != nil || string(got) != name {
				t.Fatalf("round %d: segment %s: %q, %v", round, name, got, err)
			}
		}
		if err := a.DeleteSegment(t.Context(), "lost"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestArchiveOnBrokenDiskCloses: closing does not wait for a disk that fails.
func TestArchiveOnBrokenDiskCloses(t *testing.T) {
	disk := new(brokenDisk)
	a := openTestArchive(t, archiveOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(disk.inject))))
	disk.broken.Store(true)
	if err := a.PutSegment(t.Context(), "a", nil, time.Time{}); err == nil {
		t.Fatal("put on a failing disk succeeded")
	}
	if err := a.Close(); err != nil {
		t.Logf("close: %v", err) // an error or not, it returns
	}
	if err := a.PutSegment(t.Context(), "b", nil, time.Time{}); !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("put after Close: %v", err)
	}
}

// TestArchiveStartsOnUnreadableDisk: a disk that cannot be read at the start is no reason to stay down.
func TestArchiveStartsOnUnreadableDisk(t *testing.T) {
	disk := new(brokenDisk)
	mem := vfs.NewMem()
	a := openTestArchive(t, archiveOptions(mem))
	if err := a.PutSegment(t.Context(), "a", []byte("x"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	id := a.ID()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	o := archiveOptions(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		// the directory itself is on a sound disk
		if op.Path == archiveDir+"/LOCK" || !strings.HasPrefix(op.Path, archiveDir+"/") {
			return nil
		}
		return disk.inject(op)
	})))
	o.ID = id
	disk.broken.Store(true)
	a = openTestArchive(t, o)
	if _, err := a.ReadSegment(t.Context(), "a"); !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("read: %v, want ErrUnavailable", err)
	}
	disk.broken.Store(false)
	waitFor(t, func() bool { _, err := a.ReadSegment(t.Context(), "a"); return err == nil })
}

// smallDisk tells how much is left.
type smallDisk struct {
	vfs.FS
	left atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.left.Load()}, nil
}

// TestArchiveLeavesRoom: on a nearly full disk segments are refused, and all is still readable.
func TestArchiveLeavesRoom(t *testing.T) {
	disk := &smallDisk{FS: vfs.NewMem()}
	disk.left.Store(1 << 30)
	o := archiveOptions(disk)
	o.MinFree = 1 << 20
	a := openTestArchive(t, o)
	if err := a.PutSegment(t.Context(), "a", []byte("x"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	disk.left.Store(1<<20 + 10)
	if err := a.PutSegment(t.Context(), "b", make([]byte, 11),
		time.Time{}); !errors.Is(err, persistence.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Errorf("put on a full disk: %v", err)
	}
	if got, err := a.ReadSegment(t.Context(), "a"); err != nil || string(got) != "x" {
		t.Errorf("read on a full disk: %q, %v", got, err)
	}
	if err := a.PutSegment(t.Context(), "c", make([]byte, 10), time.Time{}); err != nil {
		t.Errorf("put that fits: %v", err)
	}
}

// TestArchiveHangs: a caller waits no longer than its context for a disk that hangs.
func TestArchiveHangs(t *testing.T) {
	g := newGate()
	a := openTestArchive(t, archiveOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(g.pass))))
	t.Cleanup(func() { g.set(false) })
	g.set(true)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- a.PutSegment(ctx, "a", nil, time.Time{}) }()
	<-g.arrived
	cancel()
	if err := <-failed; !errors.Is(err, persistence.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrUnknownOutcome and context.Canceled", err)
	}
}

// TestArchiveHangsForMany: callers that come and go while nothing ends leave no more behind than there may be.
func TestArchiveHangsForMany(t *testing.T) {
	a := openTestArchive(t, archiveOptions(vfs.NewMem()))
	hang, begun := make(chan struct{}), make(chan struct{}, 2*maxCalls)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for range maxCalls {
		go func() {
			ended <- a.use(ctx, persistence.ErrUnknownOutcome,
				func(*archiveEngine) error { begun <- struct{}{}; <-hang; return nil })
		}()
		<-begun
	}
	impatient, leave := context.WithTimeout(ctx, time.Millisecond)
	defer leave()
	err := a.use(impatient, persistence.ErrUnknownOutcome,
		func(*archiveEngine) error { begun <- struct{}{}; return nil })
	if !errors.Is(err, persistence.ErrUnavailable) || len(begun) > 0 {
		t.Errorf("one more: %v, want ErrUnavailable", err)
	}
	cancel()
	for range maxCalls {
		if err := <-ended; !errors.Is(err, persistence.ErrUnknownOutcome) {
			t.Errorf("%v, want ErrUnknownOutcome", err)
		}
	}
	close(hang)
	if err := a.PutSegment(t.Context(), "a", nil, time.Time{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestArchiveCommitFails: what a failed commit left is not known, and the error reports it.
func TestArchiveCommitFails(t *testing.T) {
	fsys := vfs.NewMem()
	if err := openTestArchive(t, archiveOptions(fsys)).Close(); err != nil {
		t.Fatal(err)
	}
	o := archiveOptions(fsys).withDefaults()
	eo := o.engineOptions()
	eo.FS, eo.Logger, eo.ReadOnly = fsys, quietLogger{}, true
	db, err := pebbledb.Open(archiveDir, eo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	a := &Archive{
		dir:    archiveDir,
		opts:   o,
		engine: &archiveEngine{db: db, slots: make(chan struct{}, 1), putting: map[string]bool{}},
	}
	if err := a.PutSegment(t.Context(), "a", nil, time.Time{}); !errors.Is(err, persistence.ErrUnknownOutcome) {
		t.Errorf("%v, want ErrUnknownOutcome", err)
	}
}

// TestArchiveGrace: what expired stays a while for those whose clocks are behind.
func TestArchiveGrace(t *testing.T) {
	clock := new(archiveClock)
	a := openTestArchive(t, clock.options(vfs.NewMem(), time.Hour))
	expires := time.UnixMilli(1_700_000_000_000)
	if err := a.PutSegment(t.Context(), "a", nil, expires); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{-time.Hour, 0}, {59 * time.Minute, 0}, {61 * time.Minute, 1}, {62 * time.Minute, 0}} {
		if n := clock.expire(t, a, expires.Add(step.at)); n != step.want {
			t.Errorf("%v after it expired: %d dropped, want %d", step.at, n, step.want)
		}
	}
}

// TestArchiveClockJumps: nothing is dropped for a time that the wall clock has not kept to.
func TestArchiveClockJumps(t *testing.T) {
	const every, year = 10 * time.Minute, 365 * 24 * time.Hour
	start := time.UnixMilli(1_700_000_000_000)
	for _, c := range []struct {
		what    string
		jump    func(sweep int) time.Duration // of the wall clock, before a sweep
		restart int                           // before that sweep
		first   int                           // that drops it; -1 for none
	}{
		{"right", func(int) time.Duration { return 0 }, -1, -1},
		{"wrong once", func(i int) time.Duration {
			return map[int]time.Duration{9: 2 * year, 10: -2 * year}[i]
		}, -1, -1},
		{"wrong for a while", func(i int) time.Duration {
			return map[int]time.Duration{9: 2 * year, 14: -2 * year}[i]
		}, -1, -1},
		{"wrong again and again", func(i int) time.Duration {
			return []time.Duration{2 * year, 0, -2 * year}[i%3]
		}, -1, -1},
		{"wrong from the start", func(i int) time.Duration {
			return map[int]time.Duration{0: 2 * year, 5: -2 * year}[i]
		}, -1, -1},
		{"wrong after a restart", func(i int) time.Duration {
			return map[int]time.Duration{20: 2 * year, 25: -2 * year}[i]
		}, 20, -1},
		{"wrong in another way", func(i int) time.Duration {
			return map[int]time.Duration{9: 3 * year, 12: -year}[i]
		}, -1, 15},
		{"wrong for good", func(i int) time.Duration { return map[int]time.Duration{9: 2 * year}[i] }, -1, 15},
		{"right, and it expires", func(i int) time.Duration {
			return map[int]time.Duration{0: year - 90*time.Minute}[i]
		}, -1, 9},
	} {
		t.Run(c.what, func(t *testing.T) {
			clock, fsys := new(archiveClock), vfs.NewMem()
			clock.set(start)
			a := openTestArchive(t, clock.options(fsys, time.Nanosecond))
			if err := a.PutSegment(t.Context(), "a", nil, start.Add(year)); err != nil {
				t.Fatal(err)
			}
			dropped := -1
			for i := range 30 {
				if i == c.restart {
					if err := a.Close(); err != nil {
						t.Fatal(err)
					}
					a = openTestArchive(t, clock.options(fsys, time.Nanosecond))
				}
				clock.pass(every)
				clock.set(clock.now().Add(c.jump(i)))
				if n, err := a.Expire(t.Context()); err != nil {
					t.Fatal(err)
				} else if n > 0 {
					dropped = i
				}
			}
			if dropped != c.first {
				t.Errorf("dropped by sweep %d, want %d (-1: never)", dropped, c.first)
			}
		})
	}
}

func FuzzArchiveRows(f *testing.F) {
	f.Add(encodeSegment([]byte("data"), time.UnixMilli(5)))
	f.Add(encodeSegment(nil, time.Time{}))
	f.Add(encodeArchiveMarker(1, "id"))
	f.Add(encodeStrip("somewhere"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, expires, err := decodeSegment(b); err == nil && !bytes.Equal(encodeSegment(data, expires), b) {
			t.Errorf("segment %x has another encoding", b)
		}
		if at, err := decodeStrip(b); err == nil && !bytes.Equal(encodeStrip(at), b) {
			t.Errorf("strip %x has another encoding", b)
		}
		_, _, _ = decodeArchiveMarker(b)
	})
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
