package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVulnerableVersions: no module is older than the first version without a known vulnerability of it. It is for
// machines that cannot reach the database of govulncheck; `make vulncheck` asks that.
func TestVulnerableVersions(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "vulnerable.txt"))
	if err != nil {
		t.Fatal(err)
	}
	least := map[string][]string{}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) == 3 && !strings.HasPrefix(line, "#") {
			least[fields[0]] = fields[1:]
		}
	}
	known := 0
	for _, dir := range []string{".", "test"} {
		cmd := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "all")
		cmd.Dir = filepath.Join("..", "..", dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
			fixed, ok := least[path]
			if !ok {
				continue
			}
			known++
			if slices.Compare(numbers(version), numbers(fixed[0])) < 0 {
				t.Errorf("%s %s has vulnerability %s; use %s or later", path, version, fixed[1], fixed[0])
			}
		}
	}
	if known == 0 {
		t.Error("no module of the list is used: is the list read?")
	}
	if slices.Compare(numbers("v0.9.10-rc1"), numbers("v0.10.0")) >= 0 {
		t.Error("versions are not compared by their numbers")
	}
}

// numbers of a version: major, minor, patch.
func numbers(version string) []int {
	n := make([]int, 3)
	_, _ = fmt.Sscanf(version, "v%d.%d.%d", &n[0], &n[1], &n[2])
	return n
}
