package pebble

import (
	"math/rand/v2"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
	"licensed/persistence/persistencetest"
)

const testDir = "data/store"

func testOptions(fsys vfs.FS) Options {
	return Options{FS: fsys, CacheSize: 1 << 20, MemTableSize: 4 << 20, MaxMutation: 512 << 10}
}

// memPlace is a directory in a file system in memory, where unsynced bytes vanish with the power.
func memPlace(t testing.TB) *persistencetest.Place {
	fsys := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 1))
	var last *Store
	return &persistencetest.Place{
		Open: func() (_ persistence.Store, err error) {
			last, err = Open(testDir, testOptions(fsys))
			return last, err
		},
		PowerLoss: func(testing.TB) {
			dead := last
			t.Cleanup(func() { _ = dead.Close() })
			fsys = fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70}[rng.IntN(3)], RNG: rng})
		},
		CorruptRoot:    func(t testing.TB, k persistence.RootKey) { corruptValue(t, fsys, appendRootKey(nil, k)) },
		DamageSnapshot: func(t testing.TB, k persistence.RootKey) { corruptValue(t, fsys, appendSnapshotKey(nil, k)) },
		CorruptRecord: func(t testing.TB, p persistence.Partition, sequence uint64) {
			corruptValue(t, fsys, appendNumber(appendPartition(nil, &p), sequence))
		},
	}
}

// corruptValue flips a bit of a value below the engine's checksums.
func corruptValue(t testing.TB, fsys vfs.FS, key []byte) {
	t.Helper()
	edit(t, fsys, func(db *pebbledb.DB) {
		value, closer, err := db.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), value...)
		bad[len(bad)/2] ^= 0x20
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
		if err := db.Set(key, bad, pebbledb.Sync); err != nil {
			t.Fatal(err)
		}
	})
}

// edit opens the engine below the store.
func edit(t testing.TB, fsys vfs.FS, change func(*pebbledb.DB)) {
	t.Helper()
	eo := testOptions(fsys).engineOptions()
	eo.FS, eo.Logger = fsys, quietLogger{}
	db, err := pebbledb.Open(testDir, eo)
	if err != nil {
		t.Fatal(err)
	}
	change(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	persistencetest.Run(t, persistencetest.Driver{
		New:              memPlace,
		AtomicMutations:  true,
		MaxMutationBytes: 512 << 10,
	})
}

func TestConformanceOnDisk(t *testing.T) {
	persistencetest.Run(t, persistencetest.Driver{
		New: func(t testing.TB) *persistencetest.Place {
			dir := t.TempDir()
			return &persistencetest.Place{
				Open: func() (persistence.Store, error) { return Open(dir, testOptions(nil)) },
			}
		},
	})
}
