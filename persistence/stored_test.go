package persistence

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestGoldenMarks reads the archive marks that every release stored, and writes those of this one.
func TestGoldenMarks(t *testing.T) {
	for name, m := range map[string]ArchiveMark{
		"mark": {Segment: "Bayley:LicenseAggregate/0199f3a4", Through: 1041, Time: issued},
		"mark-expires": {
			Segment: "Bayley:LicenseAggregate/0199f3a4",
			Through: 1041,
			Time:    issued,
			Expires: issued.Add(365 * 24 * time.Hour),
		},
		"mark-empty": {Through: 7, Time: issued},
	} {
		path := filepath.Join("testdata", name+".hex")
		written := AppendArchiveMark(nil, &m)
		if *rewrite {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(written)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeArchiveMark(stored)
		if err != nil || !reflect.DeepEqual(read, m) {
			t.Errorf("%s: read %+v, %v, want %+v", path, read, err, m)
		}
		if !bytes.Equal(written, stored) {
			t.Errorf("%s: the encoding changed under its layout number", path)
		}
	}
}

// TestGoldenTombstones reads the tombstones that every release stored, and writes those of this one.
func TestGoldenTombstones(t *testing.T) {
	for name, tomb := range map[string]Tombstone{
		"tombstone":        {Time: issued},
		"tombstone-erased": {Time: issued, Erased: issued.Add(time.Second)},
	} {
		path := filepath.Join("testdata", name+".hex")
		written := AppendTombstone(nil, &tomb)
		if *rewrite {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(written)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeTombstone(stored)
		if err != nil || !reflect.DeepEqual(read, tomb) {
			t.Errorf("%s: read %+v, %v, want %+v", path, read, err, tomb)
		}
		if !bytes.Equal(written, stored) {
			t.Errorf("%s: the encoding changed under its layout number", path)
		}
	}
}
