package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"licensed/internal/planted"
)

// TestMutants plants each bug but those that only chaos finds, and demands that its check fails. All run from one
// build of each package. With -table, the seeds are tried from 1 on; otherwise from the one that last found the bug.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("looks for bugs that only one schedule in thousands brings out")
	}
	former := map[string]string{} // seeds, by bug
	if *doc == "" {
		former = documentedSeeds(t)
	}
	dir := t.TempDir()
	programs := map[string]string{} // by package
	for _, b := range planted.Bugs {
		if b.Check == planted.ByChaos {
			continue
		}
		pkg, test, _ := strings.Cut(b.Check, ".")
		if programs[pkg] == "" {
			programs[pkg] = build(t, dir, pkg)
		}
		t.Run(strings.ReplaceAll(strings.Trim(b.Rule, "[]")+" "+b.Name, " ", "_"), func(t *testing.T) {
			// A test that waits forever for what the bug prevents would take the time of all others.
			cmd := exec.Command(programs[pkg], "-test.run=^"+test+"$", "-test.timeout=5m")
			if pkg == "test/sim" {
				cmd.Args = append(cmd.Args, "-seeds=20000", "-seed="+cmp.Or(former[b.Name], "1"))
			}
			cmd.Dir = filepath.Join("../..", pkg)
			cmd.Env = append(os.Environ(), planted.Variable+"="+b.Name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case !strings.Contains(string(out), planted.Met+b.Name):
				t.Fatalf("planted bug never met (%v):\n%s", err, out)
			case !errors.As(err, &exit):
				t.Fatalf("%s did not notice (%v):\n%s", test, err, out)
			case !failedTest.Match(out):
				t.Fatalf("failed for another reason: %v\n%s", err, out)
			}
			t.Logf("%s", firstFailure(string(out)))
			caught(b, string(out), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		})
	}
}

// build builds the tests of a package so that they can have bugs, and returns the program.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(dir, filepath.Base(pkg)+".test"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-c", "-tags", planted.Tag, "-o", program, "./"+pkg)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return program
}

// documentedSeeds returns the seed of each bug in docs/design/reliability.md.
func documentedSeeds(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/design/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[string]string{}
	for _, row := range documentedSeed.FindAllStringSubmatch(string(b), -1) {
		seeds[row[1]] = row[2]
	}
	return seeds
}

var (
	documentedSeed = regexp.MustCompile(`(?m)^\| \S+ \| ([^|]+) \| \w+ \| (\d+) \|`)

	failedTest = regexp.MustCompile(`(?m)^--- FAIL: \w+`)
	failedSeed = regexp.MustCompile(`seed (\d+):`)
)

// table has a row for each bug that was caught: of which rule, which test caught it, at which seed, in how much
// processor time.
var table = struct {
	sync.Mutex
	rows map[string]string // by name
}{rows: map[string]string{}}

func caught(b planted.Info, out string, took time.Duration) {
	seed, after := "—", "< 0.1 s"
	if found := failedSeed.FindStringSubmatch(out); found != nil {
		seed = found[1]
	}
	if took >= 100*time.Millisecond {
		after = fmt.Sprintf("%.1f s", took.Seconds())
	}
	_, test, _ := strings.Cut(b.Check, ".")
	table.Lock()
	defer table.Unlock()
	table.rows[b.Name] = fmt.Sprintf("| %s | %s | %s | %s | %s |", b.Rule, b.Name, test, seed, after)
}

// writeTable brings the rows of a document up to date, and adds those that are new behind the others of their
// rule.
func writeTable(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines, end := strings.Split(string(b), "\n"), -1
	last := map[string]int{} // row of each rule
	for i, line := range lines {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !strings.HasSuffix(line, " |") || cells[1] == "planted bug" {
			continue
		}
		end, last[cells[0]] = i, i
		if row, ok := table.rows[cells[1]]; ok {
			lines[i] = row
			delete(table.rows, cells[1])
		}
	}
	if end < 0 {
		return fmt.Errorf("%s has no table of planted bugs", file)
	}
	news := map[int][]string{}
	for _, row := range slices.Sorted(maps.Values(table.rows)) {
		at, ok := last[strings.Split(row, " | ")[0]]
		if !ok {
			at = end
		}
		news[at] = append(news[at], row)
	}
	for at := end; len(news) > 0; at-- {
		lines = slices.Insert(lines, at+1, news[at]...)
		delete(news, at)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
}

func firstFailure(out string) string {
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "_test.go") {
			return strings.TrimSpace(line)
		}
	}
	return out
}
