//go:build !plantedbugs

package planted

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNothingIsLinked: a program without the tag has no trace of the hooks, neither symbols nor names of bugs.
func TestNothingIsLinked(t *testing.T) {
	if testing.Short() {
		t.Skip("links the daemon")
	}
	path := filepath.Join(t.TempDir(), "licensed")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/licensed").CombinedOutput(); err != nil {
		t.Fatalf("build licensed: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(symbols, []byte("licensed/actors.(*Machine).Step")) {
		t.Fatal("the symbols of the daemon cannot be read")
	}
	for line := range bytes.Lines(symbols) {
		if bytes.Contains(line, []byte("licensed/internal/planted")) {
			t.Errorf("linked: %s", line)
		}
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names(), Variable, Met) {
		if bytes.Contains(program, []byte(name)) {
			t.Errorf("the program has the text %q", name)
		}
	}
}

func names() (all []string) {
	for _, b := range Bugs {
		all = append(all, b.Name)
	}
	return all
}
