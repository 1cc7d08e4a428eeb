package archive

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"licensed/persistence"
)

// TestGoldenSnapshots: what was ever written is readable forever. What is written may become smaller.
func TestGoldenSnapshots(t *testing.T) {
	want := persistence.Root{
		Key:         persistence.RootKey{Aggregate: someone, Epoch: 7, Version: 312},
		Incarnation: persistence.Incarnation{1, 2}, Base: 1041,
		Parent:            persistence.RootKey{Aggregate: someone, Epoch: 6, Version: 290},
		ParentIncarnation: persistence.Incarnation{3},
		Time:              time.UnixMilli(1761555600123).UTC(),
		Mapper:            "LicenseSnapshot/1",
		Header:            persistence.Header{PolicyVersion: "2025-10-27.1"},
		Snapshot:          []byte("a snapshot, a snapshot, a snapshot"),
	}
	path := filepath.Join("testdata", "snapshot-71.bin")
	if *rewrite {
		if err := os.WriteFile(path, EncodeSnapshot(&want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeSnapshot(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}
