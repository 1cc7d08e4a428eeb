package path

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"licensed/internal/harness"
)

// config is a short run on the embedded store: two variants of the same program.
func config(t *testing.T) Config {
	program := filepath.Join(harness.Programs(t), "licensed")
	return Config{
		Tree: harness.Root(), Dir: t.TempDir(), Nodes: 1, InFlight: []int{1, 8}, Customers: 50,
		Variants: []Variant{{Name: "today", Program: program}, {Name: "base", Program: program}},
		// Some hundred commands a turn: what a request for metrics allocates differs by some hundred objects.
		WarmUp: 10 * time.Millisecond, Turn: 500 * time.Millisecond, Rounds: 1, Log: t.Output(),
	}
}

var columns = regexp.MustCompile(` {2,}`)

// cells returns the cells of a table whose first title is this, the titles first.
func cells(t *testing.T, text, title string) [][]string {
	t.Helper()
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" && rows != nil:
			return rows
		case rows != nil || strings.HasPrefix(line, title+" "):
			rows = append(rows, columns.Split(line, -1))
		}
	}
	if rows == nil {
		t.Fatalf("no table %s in:\n%s", title, text)
	}
	return rows
}

// complete checks that each cell from a column on has a number above 0, for each of this many rows.
func complete(t *testing.T, table [][]string, from, rows int) {
	t.Helper()
	if len(table) != rows+1 {
		t.Errorf("%d rows, want %d", len(table)-1, rows)
	}
	for _, row := range table[1:] {
		if len(row) != len(table[0]) {
			t.Errorf("%d cells of %d columns: %q", len(row), len(table[0]), row)
		}
		for _, cell := range row[min(from, len(row)):] {
			figure, _, _ := strings.Cut(cell, " ")
			if n, err := strconv.ParseFloat(figure, 64); err != nil || !(n > 0) {
				t.Errorf("cell %q of %q is not a number above 0", cell, row)
			}
		}
	}
}

// TestRun: each cell of each table has a figure.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), config(t), &out); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	_, counted, _ := strings.Cut(out.String(), "Allocated objects")
	complete(t, cells(t, out.String(), "VARIANT"), 3, 8)
	complete(t, cells(t, counted, "VARIANT"), 3, 8)
	complete(t, cells(t, out.String(), "RATIO"), 2, 8)
}

// TestIdle: each process has a row.
func TestIdle(t *testing.T) {
	c := config(t)
	c.Turn = time.Second // a process that does nothing for less may need no CPU
	var out bytes.Buffer
	if err := Idle(t.Context(), c, &out); err != nil {
		t.Fatal(err)
	}
	complete(t, cells(t, out.String(), "WITH"), 2, 2)
}

// TestErrors: a run that cannot start says why, and a process that ends ends the run.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		v    Variant
		says string
	}{
		{Variant{Name: "base", Tree: "0000000"}, `"0000000", which is neither a directory nor a commit`},
		{Variant{Name: "base", Tree: t.TempDir()}, "build licensed of"},
		{Variant{Name: "base", Program: "/bin/false"}, "start base process: ended before it was ready"},
	} {
		config := config(t)
		config.Variants = append(config.Variants[:1], c.v)
		err := Run(t.Context(), config, t.Output())
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: error %v, want %q", c.v, err, c.says)
		}
	}
}
