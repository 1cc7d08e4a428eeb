package pebble

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var writeGoldenFiles = flag.Bool("write-golden", false,
	"write golden files that are missing; never change one that was released")

// TestGoldenRows reads the rows that every release stored, and writes those of this one.
func TestGoldenRows(t *testing.T) {
	rows := encodedRows()
	rows["segment"] = encodeSegment([]byte("what the archive keeps"), time.UnixMilli(1793091600123))
	rows["segment-for-ever"] = encodeSegment([]byte("what the archive keeps"), time.Time{})
	rows["archive-marker"] = encodeArchiveMarker(archiveFormat, "0d6f3a52-90f4-4a57-8c9c-2d6e8f3f9c11")
	for name, written := range rows {
		path := filepath.Join("testdata", name+".hex")
		if _, err := os.Stat(path); err != nil && *writeGoldenFiles {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(written)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("a row without a golden file (go test ./persistence/pebble -write-golden makes it): %v", err)
		}
		stored, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written, stored) {
			t.Errorf("%s: the encoding changed under its layout number", path)
		}
		if decode := recode[name]; decode != nil {
			if again, err := decode(stored); err != nil || !bytes.Equal(again, stored) {
				t.Errorf("%s: reads as %x, %v", path, again, err)
			}
		}
	}
	for _, name := range []string{"segment", "segment-for-ever"} {
		data, expires, err := decodeSegment(rows[name])
		if err != nil || string(data) != "what the archive keeps" || expires.IsZero() != (name != "segment") {
			t.Errorf("%s: %q, %v, %v", name, data, expires, err)
		}
	}
}
