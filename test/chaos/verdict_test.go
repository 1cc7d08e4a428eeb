package chaos_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos"
	"licensed/test/chaos/check"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
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

// unstartable is a deployment that does not start.
type unstartable struct{ deploy.Deployment }

func (unstartable) Start(context.Context) error { return errors.New("no room") }
func (unstartable) Stop(context.Context) error  { return nil }

// TestNoFormerVerdict leaves no verdict of a former run in the directory of one that broke off.
func TestNoFormerVerdict(t *testing.T) {
	dir := keep(t, "run", &chaos.Verdict{Pass: true, Seed: 1})
	if _, err := chaos.Run(t.Context(), chaos.DefaultConfig(dir, 1, time.Second), unstartable{},
		new(chaos.Accidents)); err == nil {
		t.Fatal("it ran")
	}
	if _, err := chaos.Sum([]string{dir}); err == nil {
		t.Error("the former verdict counts")
	}
}

// TestVerdictComesLast writes none where something else cannot be written.
func TestVerdictComesLast(t *testing.T) {
	dir := keep(t, "run", &chaos.Verdict{
		Seed:       1,
		Violations: []check.Violation{{Check: check.Limits, Text: "by a check that was wrong"}},
	})
	empty(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "report.html"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := chaos.Recheck(dir); err == nil {
		t.Fatal("the page was written over a directory")
	}
	sum, err := chaos.Sum([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Pass() {
		t.Error("a verdict was written before the page")
	}
}

// TestUnmetClockJumps: a run in which clocks jumped must have met one, or says that it did not.
func TestUnmetClockJumps(t *testing.T) {
	jumps := func(c fault.Count) map[string]fault.Count {
		return map[string]fault.Count{deploy.ClockJump: c, "cut": {Injected: 1}}
	}
	for name, c := range map[string]struct {
		faults map[string]fault.Count
		pass   bool
		notes  int
		hours  int // jumps of an hour that were met
		length time.Duration
	}{
		"not wanted":     {faults: map[string]fault.Count{"cut": {Injected: 1}}, pass: true, length: time.Hour},
		"one met":        {faults: jumps(fault.Count{Injected: 1, Idle: 9}), pass: true, length: 29 * time.Minute},
		"none met of 3":  {faults: jumps(fault.Count{Idle: 3})},
		"none met of 2":  {faults: jumps(fault.Count{Idle: 2}), pass: true, notes: 1},
		"none was tried": {faults: jumps(fault.Count{LeftOut: 4}), pass: true, notes: 1},
		"an hour met":    {faults: jumps(fault.Count{Injected: 9}), pass: true, hours: 1, length: 30 * time.Minute},
		"no hour met":    {faults: jumps(fault.Count{Injected: 9}), length: 30 * time.Minute},
	} {
		dir := keep(t, strings.ReplaceAll(name, " ", "-"),
			&chaos.Verdict{Seed: 1, Started: time.Now(), Faults: c.faults, HourJumps: c.hours, FaultsTo: c.length})
		empty(t, dir)
		for range 2 { // The second judges what the first wrote.
			v, err := chaos.Recheck(dir)
			if err != nil {
				t.Fatal(err)
			}
			if v.Pass != c.pass || len(v.Notes) != c.notes {
				t.Errorf("%s: pass %t, %v, notes %v", name, v.Pass, v.Violations, v.Notes)
			}
		}
	}
}
