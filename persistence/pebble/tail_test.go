package pebble

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

// TestFlippedBitsNearTheEnd flips bits of the log and the MANIFEST of a store that was not closed in order: either all
// that was acknowledged is read, or the store does not open. The writes that were in progress when the last batch was
// logged are the exception: no batch says that they were durable. That is one for each writer, and the damage is among
// them.
func TestFlippedBitsNearTheEnd(t *testing.T) {
	for _, c := range []struct{ writers, writes, size int }{
		{1, 200, 100},
		{1, 200, 3000},
		{1, 100, 20_000},
		{1, 10_000, 100}, // a long log
		{16, 100, 1000},
	} {
		t.Run(fmt.Sprintf("%d writers, %d writes of %d bytes", c.writers, c.writes, c.size), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			s := openTest(t, disk)
			t.Cleanup(func() { _ = s.Close() })
			var writers sync.WaitGroup
			for w := range c.writers {
				writers.Go(func() {
					for n := range uint64(c.writes) {
						putRoot(t, s, rootOf(aggregateOf(w), n+1, c.size))
					}
				})
			}
			writers.Wait()
			clone := func() *vfs.MemFS { return disk.CrashClone(vfs.CrashCloneCfg{}) }
			if lost, err := lostWrites(t, clone(), slices.Repeat([]int{c.writes}, c.writers)); lost != 0 || err != nil {
				t.Fatalf("after a crash %d writes are lost: %v", lost, err)
			}
			flips := 30 // 200 for the figures in docs/design/storage.md
			if testing.Short() {
				flips = 10
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for _, kind := range []string{".log", "MANIFEST-"} {
				refused, whole, last := 0, 0, 0
				for range flips {
					fsys := clone()
					what, distance := flipNearTheEnd(t, fsys, rng, kind)
					lost, err := lostWrites(t, fsys, slices.Repeat([]int{c.writes}, c.writers))
					switch {
					case errors.Is(err, persistence.ErrCorrupt):
						refused++
					case err != nil:
						t.Errorf("%s: %v, want ErrCorrupt", what, err)
					case lost == 0:
						whole++
					// A root takes some 300 bytes beside its snapshot.
					case kind == ".log" && lost <= c.writers && distance <= c.writers*(c.size+500):
						last++
					default:
						t.Errorf("%s: %d writes are lost, and nothing was reported", what, lost)
					}
				}
				t.Logf("%s: %d flips refused, %d without effect, %d cost only writes in progress at the last batch",
					kind, refused, whole, last)
				if refused == 0 || kind == ".log" && whole > 1+flips/20 {
					t.Errorf("%s: of %d flips %d were refused, %d were without effect", kind, flips, refused, whole)
				}
			}
		})
	}
}

// aggregateOf names the aggregate of a writer.
func aggregateOf(writer int) string { return fmt.Sprintf("a%d", writer) }

// lostWrites opens a store and returns the number of roots missing among those that each writer was told are durable,
// at most one of a writer.
func lostWrites(t *testing.T, fsys vfs.FS, want []int) (lost int, err error) {
	t.Helper()
	o := testOptions(fsys)
	s, err := Open(testDir, o)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for w, n := range want {
		roots, err := s.ReadRoots(t.Context(), aggregateOf(w), persistence.RootKey{}, n+100)
		if err != nil {
			return 0, err
		}
		if missing := n - len(roots); missing > 1 {
			return missing + len(want), nil
		} else if missing == 1 {
			lost++
		}
	}
	return lost, nil
}

// flipNearTheEnd flips a random bit of the last 64 KiB of the newest file of a kind, and says which, and how many bytes
// before the end it is.
func flipNearTheEnd(t *testing.T, fsys vfs.FS, rng *rand.Rand, kind string) (what string, distance int) {
	t.Helper()
	names := filesOf(t, fsys, kind)
	rewrite(t, fsys, names[len(names)-1], func(data []byte) {
		end := len(data)
		for end > 0 && data[end-1] == 0 { // allocated in advance
			end--
		}
		distance = 1 + rng.IntN(min(end, 64<<10))
		at, bit := end-distance, rng.IntN(8)
		data[at] ^= 1 << bit
		what = fmt.Sprintf("bit %d of byte %d of %d of %s", bit, at, end, names[len(names)-1])
	})
	return what, distance
}

// filesOf returns the names in the store's directory that begin or end with a text, in their order.
func filesOf(t *testing.T, fsys vfs.FS, kind string) []string {
	t.Helper()
	names, err := fsys.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasSuffix(name, kind) && !strings.HasPrefix(name, kind)
	})
}

// rewrite changes a file in the store's directory.
func rewrite(t *testing.T, fsys vfs.FS, name string, change func([]byte)) {
	t.Helper()
	path := fsys.PathJoin(testDir, name)
	data, err := readFile(fsys, path)
	if err != nil {
		t.Fatal(err)
	}
	change(data)
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// syncHookFS calls hook before each sync of a file, one at a time.
type syncHookFS struct {
	vfs.FS
	mu   sync.Mutex
	hook func(name string)
}

func (h *syncHookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := h.FS.Create(name, c)
	return &syncHookFile{f, h, h.PathBase(name)}, err
}

func (h *syncHookFS) ReuseForWrite(oldname, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := h.FS.ReuseForWrite(oldname, name, c)
	return &syncHookFile{f, h, h.PathBase(name)}, err
}

func (h *syncHookFS) call(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook(name)
}

type syncHookFile struct {
	vfs.File
	fs   *syncHookFS
	name string
}

func (f *syncHookFile) Sync() error {
	f.fs.call(f.name)
	return f.File.Sync()
}

func (f *syncHookFile) SyncData() error {
	f.fs.call(f.name)
	return f.File.SyncData()
}

// TestPowerLossIsNotDamage cuts the power whenever the log of a busy store is about to be synced. Blocks of the disk
// that were not synced survive at random. The store opens with all that was acknowledged, also if the power fails once
// more after the start.
func TestPowerLossIsNotDamage(t *testing.T) {
	const writers = 8
	writes := 30
	if testing.Short() {
		writes = 8
	}
	disk := vfs.NewCrashableMem()
	type cut struct {
		fsys *vfs.MemFS
		want []int
	}
	var (
		cuts         []cut
		acknowledged [writers]atomic.Int64
		rng          = rand.New(rand.NewPCG(1, 2))
	)
	o := testOptions(&syncHookFS{FS: disk, hook: func(name string) {
		if !strings.HasSuffix(name, ".log") {
			return
		}
		c := cut{want: make([]int, writers)}
		for w := range c.want {
			c.want[w] = int(acknowledged[w].Load())
		}
		c.fsys = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		cuts = append(cuts, c)
	}})
	// Several logs, and logs that are written a second time.
	o.MemTableSize, o.MaxMutation = 1<<20, 200<<10
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			sizes := rand.New(rand.NewPCG(3, uint64(w)))
			for n := range uint64(writes) {
				putRoot(t, s, rootOf(aggregateOf(w), n+1, 100+sizes.IntN(40_000)))
				acknowledged[w].Add(1)
			}
		})
	}
	all.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d power losses", len(cuts))
	for i, c := range cuts {
		s, err := Open(testDir, testOptions(c.fsys))
		if err != nil {
			t.Errorf("power loss %d: %v", i, err)
			continue
		}
		again := c.fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, fsys := range []vfs.FS{c.fsys, again} {
			if lost, err := lostWrites(t, fsys, c.want); lost != 0 || err != nil {
				t.Errorf("power loss %d: %d acknowledged writes are lost, error %v", i, lost, err)
			}
		}
	}
}

// TestPowerLossDuringStart cuts the power before the first sync of the MANIFEST that a start writes. Its first record
// is larger than a block of the disk, so that a later record may survive without it.
func TestPowerLossDuringStart(t *testing.T) {
	disk := vfs.NewCrashableMem()
	o := testOptions(disk)
	o.MemTableSize, o.MaxMutation = 1<<20, 200<<10
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	const writes = 150
	// The MANIFEST has the first and the last key of each table.
	aggregate := strings.Repeat("a", persistence.MaxAggregateLen)
	for n := range uint64(writes) {
		putRoot(t, s, rootOf(aggregate, n+1, 60_000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var cuts []vfs.FS
	rng := rand.New(rand.NewPCG(1, 2))
	o.FS = &syncHookFS{FS: disk, hook: func(name string) {
		if strings.HasPrefix(name, "MANIFEST-") && len(cuts) == 0 {
			for range 12 {
				cuts = append(cuts, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
			}
		}
	}}
	if s, err = Open(testDir, o); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(cuts) == 0 {
		t.Fatal("the start wrote no MANIFEST")
	}
	for i, fsys := range cuts {
		o.FS = fsys
		s, err := Open(testDir, o)
		if err != nil {
			t.Errorf("power loss %d: %v", i, err)
			continue
		}
		if top, err := s.TopRoot(t.Context(), aggregate); err != nil || top.Key.Version != writes {
			t.Errorf("power loss %d: the last root is %d of %d, %v", i, top.Key.Version, writes, err)
		}
		_ = s.Close()
	}
}

// TestDamageWithoutConsequence damages a log whose rows are in tables, and that is kept to be written again: the store
// does not need it.
func TestDamageWithoutConsequence(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openTest(t, disk)
	t.Cleanup(func() { _ = s.Close() })
	for n := range uint64(20) {
		putRoot(t, s, rootOf(aggregateOf(0), n+1, 100))
		if n == 9 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fsys := disk.CrashClone(vfs.CrashCloneCfg{})
	logs := filesOf(t, fsys, ".log")
	if len(logs) < 2 {
		t.Fatalf("the only log is %s", logs)
	}
	rewrite(t, fsys, logs[len(logs)-2], func(data []byte) {
		data[100] ^= 1
	})
	if lost, err := lostWrites(t, fsys, []int{20}); lost != 0 || err != nil {
		t.Errorf("%d writes are lost, error %v", lost, err)
	}
}
