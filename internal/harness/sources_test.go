package harness

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestComplete: the programs are built from nothing else of this module.
func TestComplete(t *testing.T) {
	LookAtSources(t)
	out, err := exec.Command("go", "list", "-deps", "licensed/cmd/licensed").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		rest, ours := strings.CutPrefix(strings.TrimSpace(line), "licensed/")
		if !ours {
			continue
		}
		seen++
		if top, _, _ := strings.Cut(rest, "/"); !slices.Contains(directories, top) {
			t.Errorf("%s is not looked at", rest)
		}
	}
	if seen < 10 {
		t.Errorf("%d packages of this module", seen)
	}
}
