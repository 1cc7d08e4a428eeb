package pebble

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/persistence"
)

// canaries are the customer that is forgotten, and what its events and snapshots have.
var canaries = []string{"CanaryCustomer", "canary-device", "canary-title"}

// TestEraseLeavesNoBytes: once a customer is erased, no file of the two tiers has a byte of it, nor has a checkpoint,
// and after two starts the lists of tables do not name it any more.
func TestEraseLeavesNoBytes(t *testing.T) {
	for _, load := range []struct {
		what           string
		flush, compact bool
	}{{what: "in memory"}, {what: "flushed", flush: true}, {what: "compacted", flush: true, compact: true}} {
		t.Run(load.what, func(t *testing.T) {
			dir, cold := t.TempDir(), t.TempDir()
			s, a := openCanaries(t, dir, cold)
			fill(t, s, a, "Other:LicenseAggregate")
			fill(t, s, a, canaries[0]+":LicenseAggregate")
			if load.flush {
				fail(t, s.db.Flush(), a.engine.db.Flush())
			}
			fill(t, s, a, "Third:LicenseAggregate")
			if load.compact {
				fail(t, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false), a.Compact(t.Context()))
			}
			if names := grep(t, dir, cold); len(names) == 0 {
				t.Fatal("the canaries are in no file: this test shows nothing")
			}
			key, err := s.TombstoneKey(t.Context(), canaries[0]+":LicenseAggregate")
			fail(t, err, s.PutTombstone(t.Context(), persistence.Tombstone{Key: key, Time: time.Now()}))
			n, err := a.EraseSegments(t.Context(), canaries[0]+":LicenseAggregate")
			if err != nil || n != 2 {
				t.Fatalf("%d segments erased, %v, want 2", n, err)
			}
			e, err := s.EraseAggregate(t.Context(), canaries[0]+":LicenseAggregate")
			if err != nil || e.Roots != 1 || e.Records != 200 {
				t.Fatalf("erased %+v, %v, want 1 root and 200 records", e, err)
			}
			backup := filepath.Join(t.TempDir(), "backup")
			fail(t, s.Checkpoint(t.Context(), backup))
			// The engine removes files on goroutines of its own.
			var names []string
			for range 500 {
				if names = grep(t, dir, cold, backup); !hasData(names) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if hasData(names) {
				t.Errorf("files with canaries: %q", names)
			}
			fail(t, s.Close(), a.Close())
			for range 2 { // The engine keeps the former list of tables.
				s, a = openCanaries(t, dir, cold)
				fail(t, s.Close(), a.Close())
			}
			if names := grep(t, dir, cold); len(names) > 0 {
				t.Errorf("files with canaries after a restart: %q", names)
			}
		})
	}
}

func openCanaries(t *testing.T, dir, cold string) (*Store, *Archive) {
	t.Helper()
	s, err := Open(dir, Options{})
	fail(t, err)
	a, err := OpenArchive(cold, ArchiveOptions{})
	fail(t, err)
	_, err = s.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "c", Shards: 1})
	fail(t, err)
	return s, a
}

func fail(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill writes a root, records and segments with the canaries in them.
func fill(t *testing.T, s *Store, a *Archive, aggregate string) {
	t.Helper()
	about := "device/title"
	if strings.HasPrefix(aggregate, canaries[0]) {
		about = canaries[1] + "/" + canaries[2]
	}
	r := persistence.Root{
		Key:         persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: 1},
		Incarnation: persistence.Incarnation{1},
		Time:        time.Now(),
		Mapper:      "S/1", Snapshot: []byte("snapshot of " + about),
	}
	outcome := make(chan error, 1)
	s.PutRoot(t.Context(), &r, func(err error) { outcome <- err })
	fail(t, <-outcome)
	for i := range uint64(200) {
		s.Append(t.Context(), &persistence.Mutation{Partition: r.Partition(), Records: []persistence.Record{{
			Sequence: i + 1, Count: 1, CommandID: fmt.Sprint("c", i), AggregateID: about, Time: time.Now(),
			Mapper: "E/1", Data: []byte(about),
		}}}, func(err error) { outcome <- err })
		fail(t, <-outcome)
	}
	fail(t, a.PutSegment(t.Context(), persistence.SegmentPrefix(aggregate)+"1", []byte(about), time.Time{}),
		a.PutSegment(t.Context(), persistence.SegmentPrefix(aggregate)+"2", []byte(about), time.Now().Add(time.Hour)))
}

// grep returns the files that have a canary.
func grep(t *testing.T, dirs ...string) (names []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // the engine removed the file meanwhile
			}
			data, err := os.ReadFile(path)
			for _, c := range canaries {
				if err == nil && bytes.Contains(data, []byte(c)) {
					names = append(names, filepath.Base(path)+" "+c)
				}
			}
			return nil //nolint:nilerr // as above
		})
		fail(t, err)
	}
	return names
}

// hasData reports whether a file other than a list of tables is among the names: it is written anew at the next start.
func hasData(names []string) bool {
	for _, n := range names {
		if !strings.HasPrefix(n, "MANIFEST") {
			return true
		}
	}
	return false
}
