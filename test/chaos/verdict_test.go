package chaos_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"licensed/test/chaos"
	"licensed/test/chaos/check"
	"licensed/test/chaos/history"
)

// empty adds to a directory the files of a run in which nothing happened.
func empty(t *testing.T, dir string) {
	t.Helper()
	for name, start := range map[string]func(io.Writer) (io.Closer, error){
		"history.jsonl.zst":   func(w io.Writer) (io.Closer, error) { return history.NewRecorder(w) },
		"customers.jsonl.zst": func(w io.Writer) (io.Closer, error) { return history.NewCustomersWriter(w) },
		"faults.jsonl":        nil,
		"samples.jsonl":       nil,
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if start != nil {
			w, err := start(f)
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecheckKeeps keeps what only the running service could show, and judges the rest anew.
func TestRecheckKeeps(t *testing.T) {
	for _, c := range []struct {
		found check.Violation
		pass  bool
	}{
		{check.Violation{Check: check.Archive, Text: "archiving changed the history", Live: true}, false},
		{check.Violation{Check: check.Structure, Text: "cannot be verified", Live: true}, false},
		{check.Violation{Check: check.Health, Text: "no answer"}, false},
		{check.Violation{Check: check.Limits, Text: "by a check that was wrong"}, true},
	} {
		dir := keep(t, "run", &chaos.Verdict{Seed: 1, Started: time.Now(), Violations: []check.Violation{c.found}})
		empty(t, dir)
		for range 2 { // The second judges what the first wrote.
			v, err := chaos.Recheck(dir)
			if err != nil {
				t.Fatal(err)
			}
			if v.Pass != c.pass {
				t.Errorf("%v: judged again: %t, %v", c.found, v.Pass, v.Violations)
			}
		}
	}
}
