package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

func putRoot(t testing.TB, s *Store, r persistence.Root) {
	t.Helper()
	done := make(chan error, 1)
	s.PutRoot(t.Context(), &r, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// rootOf returns a root as the nth of an aggregate, with a snapshot of this many random bytes.
func rootOf(aggregate string, n uint64, size int) persistence.Root {
	r := wholeRoot()
	r.Key = persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: n}
	r.Parent, r.ParentIncarnation, r.Base = persistence.RootKey{}, persistence.Incarnation{}, 0
	if n > 1 {
		r.Parent = persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: n - 1}
		r.ParentIncarnation = r.Incarnation
		r.Base = n
	}
	r.Snapshot = make([]byte, size)
	rng := rand.New(rand.NewPCG(n, uint64(size)))
	for i := range r.Snapshot {
		r.Snapshot[i] = byte(rng.Uint32())
	}
	return r
}

// TestDamageAnyByteOfARoot flips each byte of both rows of a root: of the snapshot's only that is lost, of the other
// all of the root, and never is anything read that was not written.
func TestDamageAnyByteOfARoot(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	want := rootOf("a", 2, 20)
	putRoot(t, s, want)
	bare := want.Damaged(nil)
	for name, key := range map[string][]byte{
		"chain":    appendRootKey(nil, want.Key),
		"snapshot": appendSnapshotKey(nil, want.Key),
	} {
		value, closer, err := s.db.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		whole := bytes.Clone(value)
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 0x08
			if err := s.db.Set(key, bad, pebbledb.NoSync); err != nil {
				t.Fatal(err)
			}
			got, err := s.TopRoot(t.Context(), "a")
			if name == "chain" {
				if !errors.Is(err, persistence.ErrCorrupt) {
					t.Errorf("byte %d of the chain: %+v, %v, want ErrCorrupt", i, got, err)
				}
				continue
			}
			damage := got.Damage
			if got.Damage = nil; err != nil || !errors.Is(damage, persistence.ErrCorrupt) ||
				!reflect.DeepEqual(got, bare) {
				t.Errorf("byte %d of the snapshot: %+v, %v, %v", i, got, damage, err)
			}
		}
		if err := s.db.Set(key, whole, pebbledb.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.TopRoot(t.Context(), "a"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("put right again: %+v, %v", got, err)
	}
	if err := s.db.Delete(appendSnapshotKey(nil, want.Key), pebbledb.NoSync); err != nil {
		t.Fatal(err)
	}
	if got, err := s.TopRoot(t.Context(), "a"); err != nil || !errors.Is(got.Damage, persistence.ErrCorrupt) {
		t.Errorf("without the snapshot's row: %+v, %v", got, err)
	}
}

// TestDamagedBlock flips a byte of a table, so that the engine refuses the block: of a snapshot, only that is lost.
func TestDamagedBlock(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	var roots []persistence.Root
	for n := range uint64(3) {
		roots = append(roots, rootOf("a", n+1, 100<<10))
		putRoot(t, s, roots[n])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flipInTable(t, fsys, roots[1].Snapshot[50<<10:][:64])
	s = openTest(t, fsys)
	got, err := s.ReadRoots(t.Context(), "a", persistence.RootKey{}, 10)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d roots, %v", len(got), err)
	}
	slices.Reverse(got)
	for i := range got {
		want, damage := roots[i], got[i].Damage
		if got[i].Damage = nil; i == 1 {
			want = want.Damaged(nil)
		}
		if !reflect.DeepEqual(got[i], want) || (i == 1) != errors.Is(damage, persistence.ErrCorrupt) {
			t.Errorf("root %d: base %d, %d bytes, %v", i+1, got[i].Base, len(got[i].Snapshot), damage)
		}
	}
}

// flipInTable flips a byte of the table that has the text.
func flipInTable(t testing.TB, fsys vfs.FS, text []byte) {
	t.Helper()
	names, err := fsys.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		path := fsys.PathJoin(testDir, name)
		f, err := fsys.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(content, text)
		if at < 0 {
			continue
		}
		content[at] ^= 0x40
		f, err = fsys.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(content)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no table of %q has the text", names)
}

// TestUpgrade opens a store that a program of the first format left: its rows are read as before, new ones are of
// this format, and the marker keeps programs of the first format out from then on.
func TestUpgrade(t *testing.T) {
	fsys := vfs.NewMem()
	if err := openTest(t, fsys).Close(); err != nil {
		t.Fatal(err)
	}
	first, second, third := rootOf("a", 1, 50), rootOf("a", 2, 50), rootOf("a", 3, 50)
	stripped := first.Strip("archive/segment-7")
	other := rootOf("b", 1, 50)
	edit(t, fsys, func(db *pebbledb.DB) {
		set := func(key, value []byte) {
			if err := db.Set(key, value, pebbledb.Sync); err != nil {
				t.Fatal(err)
			}
		}
		set([]byte{kindMarker}, encodeMarker(firstFormat))
		set(appendRootKey(nil, first.Key), persistence.AppendRoot(nil, &stripped))
		set(append(appendRootKey(nil, first.Key), suffixStrip...), encodeStrip(stripped.SnapshotAt))
		set(appendRootKey(nil, second.Key), persistence.AppendRoot(nil, &second))
		damaged := persistence.AppendRoot(nil, &other)
		damaged[len(damaged)-20] ^= 1 // of the snapshot
		set(appendRootKey(nil, other.Key), damaged)
	})
	var log strings.Builder
	o := testOptions(fsys)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	wantRoots := func(want ...persistence.Root) {
		t.Helper()
		got, err := s.ReadRoots(t.Context(), "a", persistence.RootKey{}, 10)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("roots %+v, %v\nwant %+v", got, err, want)
		}
	}
	wantRoots(second, stripped)
	if _, err := s.TopRoot(t.Context(), "b"); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("a damaged root of the first format, which has one checksum: %v, want ErrCorrupt", err)
	}
	putRoot(t, s, third)
	wantRoots(third, second, stripped)
	if err := s.StripRoot(t.Context(), second.Key, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("from_format=%d to_format=%d", firstFormat, format); !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %q: %s", want, log.String())
	}
	edit(t, fsys, func(db *pebbledb.DB) {
		value, closer, err := db.Get([]byte{kindMarker})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeMarker(value); err != nil || got != format {
			t.Errorf("marker %d, %v, want %d", got, err, format)
		}
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	})
	log.Reset()
	if s, err = Open(testDir, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantRoots(third, second.Strip(""), stripped)
	if strings.Contains(log.String(), "upgraded") {
		t.Errorf("upgraded twice: %s", log.String())
	}
}

// TestStrippedSnapshotIsDeleted: what is left of a stripped root has no snapshot row.
func TestStrippedSnapshotIsDeleted(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	putRoot(t, s, rootOf("a", 1, 50))
	putRoot(t, s, rootOf("a", 2, 50))
	if err := s.StripRoot(t.Context(), rootOf("a", 1, 0).Key, ""); err != nil {
		t.Fatal(err)
	}
	var keys int
	prefix := []byte{kindSnapshot}
	err := s.scan(prefix, []byte{kindSnapshot + 1}, 10, func(key, _ []byte) error {
		if keys++; !bytes.Equal(key, appendSnapshotKey(nil, rootOf("a", 2, 0).Key)) {
			t.Errorf("snapshot under %x", key)
		}
		return nil
	})
	if err != nil || keys != 1 {
		t.Errorf("%d snapshots, %v", keys, err)
	}
}

// TestDamageHelpers: they damage what they name, and nothing else.
func TestDamageHelpers(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	for _, id := range []string{"a", "b"} {
		putRoot(t, s, rootOf(id, 1, 50))
		for sequence := range uint64(3) {
			if err := <-startAppend(s, testMutation(id, sequence+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := DamageSnapshots(t.Context(), testDir, testOptions(fsys), "a", "nobody")
	if n != 1 || err != nil {
		t.Errorf("damaged %d, %v", n, err)
	}
	if err := DamageRecord(testDir, testOptions(fsys), "b", 2); err != nil {
		t.Error(err)
	}
	if err := DamageRecord(testDir, testOptions(fsys), "b", 4); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("a record that does not exist: %v", err)
	}
	s = openTest(t, fsys)
	for id, broken := range map[string]bool{"a": true, "b": false} {
		r, err := s.TopRoot(t.Context(), id)
		if err != nil || (r.Damage != nil) != broken {
			t.Errorf("root of %s: %v, %v", id, r.Damage, err)
		}
		_, err = s.ReadRecords(t.Context(), testPartition(id), 0, 10)
		if broken == errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("records of %s: %v", id, err)
		}
	}
}
