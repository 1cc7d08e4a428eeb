package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// TestDemo: the command makes a store that has some of everything, in which nothing is damaged, and overwrites nothing.
func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	code, out := run(t, nil, "demo", dir, "--customers", "20", "--days", "250")
	if code != exitOK {
		t.Fatal(code, out)
	}
	for _, of := range []string{
		"commands", "refused", "sent twice", "removals of devices", "facts of devices that were offline", "exceptions",
	} {
		m := regexp.MustCompile(`(\d+) ` + of).FindStringSubmatch(out)
		if m == nil {
			t.Errorf("no number of %q in %s", of, out)
		} else if n, err := strconv.Atoi(m[1]); err != nil || n == 0 {
			t.Errorf("%s: %v, %v", of, n, err)
		}
	}
	if code, out := run(t, nil, "store", "verify", "--data", filepath.Join(dir, "data")); code != exitOK {
		t.Error(code, out)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := run(t, nil, "demo", dir); code != exitUsage {
		t.Error("a directory that exists:", code, out)
	}
	if after, err := os.Stat(dir); err != nil || !os.SameFile(before, after) {
		t.Error("the directory is another one:", err)
	}
	others, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"))
	if err != nil || len(others) > 0 {
		t.Error("left behind:", others, err)
	}
}
