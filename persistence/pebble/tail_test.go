package pebble

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

// TestFlippedBitsNearTheEnd flips bits of the log and the MANIFEST of a store that was not closed in order: either all
// that was acknowledged is read, or the store does not open. The last write is the exception: nothing was written
// after it that says that it was durable.
func TestFlippedBitsNearTheEnd(t *testing.T) {
	const writes = 200
	disk := vfs.NewCrashableMem()
	s := openTest(t, disk)
	t.Cleanup(func() { _ = s.Close() })
	for n := range uint64(writes) {
		putRoot(t, s, rootOf("a", n+1, 100))
	}
	count := func(fsys vfs.FS) (int, error) {
		s, err := Open(testDir, testOptions(fsys))
		if err != nil {
			return 0, err
		}
		defer s.Close()
		roots, err := s.ReadRoots(t.Context(), "a", persistence.RootKey{}, writes+1)
		return len(roots), err
	}
	clone := func() *vfs.MemFS { return disk.CrashClone(vfs.CrashCloneCfg{}) }
	if n, err := count(clone()); n != writes || err != nil {
		t.Fatalf("after a crash %d of %d are left: %v", n, writes, err)
	}
	flips := 600
	if testing.Short() {
		flips = 60
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, kind := range []string{".log", "MANIFEST-"} {
		refused, whole, last := 0, 0, 0
		for range flips {
			fsys := clone()
			what := flipNearTheEnd(t, fsys, rng, kind)
			switch n, err := count(fsys); {
			case errors.Is(err, persistence.ErrCorrupt):
				refused++
			case err != nil:
				t.Errorf("%s: %v, want ErrCorrupt", what, err)
			case n == writes:
				whole++
			case n == writes-1 && kind == ".log":
				last++
			default:
				t.Fatalf("%s: %d of %d are left, and nothing was reported", what, n, writes)
			}
		}
		t.Logf("%s: %d flips refused, %d without effect, %d of the last write", kind, refused, whole, last)
		if refused < flips/2 || last > flips/20 {
			t.Errorf("%s: %d of %d flips were refused, %d cost the last write", kind, refused, flips, last)
		}
	}
}

// flipNearTheEnd flips a random bit of the last 64 KiB of the newest file of a kind, and says which.
func flipNearTheEnd(t *testing.T, fsys vfs.FS, rng *rand.Rand, kind string) string {
	t.Helper()
	names, err := fsys.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasSuffix(name, kind) && !strings.HasPrefix(name, kind)
	})
	path := fsys.PathJoin(testDir, names[len(names)-1])
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	end := len(data)
	for end > 0 && data[end-1] == 0 { // allocated in advance
		end--
	}
	at, bit := end-1-rng.IntN(min(end, 64<<10)), rng.IntN(8)
	data[at] ^= 1 << bit
	f, err = fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("bit %d of byte %d of %d of %s", bit, at, end, path)
}
