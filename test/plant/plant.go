// Package plant lays bugs over the code without touching it, for tests that show that a check would
// notice them.
package plant

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Edit replaces the one occurrence of a text in a file of the module.
type Edit struct{ File, From, To string }

// Overlay returns a file for go build's -overlay that makes the edits to the module at root. A text that
// is not there exactly once fails the test: the code has moved on, and the bug must follow.
func Overlay(t testing.TB, root string, edits []Edit) string {
	t.Helper()
	dir, replace := t.TempDir(), map[string]string{}
	for i, e := range edits {
		path, err := filepath.Abs(filepath.Join(root, e.File))
		if err != nil {
			t.Fatal(err)
		}
		from, changed := path, filepath.Join(dir, fmt.Sprint(i, ".go"))
		if earlier := replace[path]; earlier != "" {
			from, changed = earlier, earlier
		}
		source, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), e.From); n != 1 {
			t.Fatalf("%s has %d places like %q, want 1: adapt the planted bug to the code", e.File, n, e.From)
		}
		if err := os.WriteFile(changed, []byte(strings.Replace(string(source), e.From, e.To, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = changed
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
