// Package overlay lays other code over the module's without touching it: what a next release may bring, for tests that
// two releases get along.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Edit replaces the one occurrence of a text in a file of the module. An empty From stands for the whole
// file, which then need not be present.
type Edit struct{ File, From, To string }

// File returns a file for go build's -overlay that makes the edits to the module at root. A text that
// does not occur exactly once fails the test: the code has moved on, and the edit must follow.
func File(t testing.TB, root string, edits []Edit) string {
	t.Helper()
	dir, replace := t.TempDir(), map[string]string{}
	for i, e := range edits {
		path, err := filepath.Abs(filepath.Join(root, e.File))
		// The directory of the test's files; the module is only read.
		if err != nil {
			t.Fatal(err)
		}
		from, changed := path, filepath.Join(dir, fmt.Sprint(i, ".go"))
		// A file may have several edits, one on top of the other.
		if earlier := replace[path]; earlier != "" {
			from, changed = earlier, earlier
		}
		if err := os.WriteFile(changed, []byte(e.apply(t, from)), 0o600); err != nil {
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

// apply returns the content of a file after the edit.
func (e *Edit) apply(t testing.TB, from string) string {
	t.Helper()
	if e.From == "" {
		return e.To
	}
	source, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), e.From); n != 1 {
		t.Fatalf("%s has %d places like %q, want 1: adapt the edit to the code", e.File, n, e.From)
	}
	return strings.Replace(string(source), e.From, e.To, 1)
}
