package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/process"
)

// shell is a program that is ready when it has written a file.
func shell(t *testing.T, script string, ended func(error)) (*process.Process, string) {
	t.Helper()
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	p := process.New(process.Spec{
		Name:  "p",
		Path:  "/bin/sh",
		Args:  []string{"-c", script},
		Env:   []string{"READY=" + ready},
		Log:   filepath.Join(dir, "log"),
		Ready: func(context.Context) error { _, err := os.Stat(ready); return err },
	}, ended)
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p, ready
}

func TestLife(t *testing.T) {
	accidents := make(chan error, 1)
	p, ready := shell(t, `echo hello; touch "$READY"; exec sleep 60`, func(err error) { accidents <- err })
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !p.Running() || p.PID() == 0 || !strings.Contains(p.Tail(100), "hello") {
		t.Errorf("running %t, pid %d, log %q", p.Running(), p.PID(), p.Tail(100))
	}
	if err := errors.Join(p.Pause(), p.Resume()); err != nil {
		t.Error(err)
	}
	if err := p.Kill(); err != nil || p.Running() {
		t.Errorf("killed: %v, running %t", err, p.Running())
	}
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil || p.Running() {
		t.Errorf("stopped: %v, running %t", err, p.Running())
	}
	select {
	case err := <-accidents:
		t.Errorf("taken for an accident: %v", err)
	default:
	}
	if starts, crashes := p.Starts(); starts != 2 || crashes != 0 {
		t.Errorf("%d starts, %d crashes", starts, crashes)
	}
}

// untilTold keeps a shell until the test has written the file beside that of its readiness.
const untilTold = `touch "$READY"; until [ -e "$READY.end" ]; do sleep 0.05; done; `

// tell ends what untilTold keeps.
func tell(t *testing.T, ready string) {
	t.Helper()
	if err := os.WriteFile(ready+".end", nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAccident(t *testing.T) {
	accidents := make(chan error, 1)
	p, ready := shell(t, untilTold+"exit 3", func(err error) { accidents <- err })
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tell(t, ready)
	select {
	case err := <-accidents:
		if !errors.Is(err, process.ErrUnasked) || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("told %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody was told")
	}
}

func TestEndsAtOnce(t *testing.T) {
	p, _ := shell(t, "exit 1", func(err error) { t.Errorf("an end before it was ready is an accident: %v", err) })
	if err := p.Start(t.Context()); !errors.Is(err, process.ErrEnded) {
		t.Errorf("started: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Restart(ctx); err == nil {
		t.Error("restarted for ever")
	}
}

// TestEndsOnceReady is not told that a program runs that has ended since it answered.
func TestEndsOnceReady(t *testing.T) {
	var p *process.Process
	p = process.New(process.Spec{
		Name: "p", Path: "/bin/sh", Args: []string{"-c", "exit 1"}, Log: filepath.Join(t.TempDir(), "log"),
		Ready: func(context.Context) error {
			for p.Running() {
				time.Sleep(time.Millisecond)
			}
			return nil
		},
	}, func(err error) { t.Errorf("an end before it was ready is an accident: %v", err) })
	if err := p.Start(t.Context()); !errors.Is(err, process.ErrEnded) {
		t.Errorf("started: %v", err)
	}
}

// TestDoomed lets a program be killed by others without an accident, and end in no other way.
func TestDoomed(t *testing.T) {
	for script, accident := range map[string]bool{"kill -9 $$": false, "exit 3": true} {
		accidents := make(chan error, 1)
		p, ready := shell(t, untilTold+script, func(err error) { accidents <- err })
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Doom(true)
		tell(t, ready)
		for p.Running() {
			time.Sleep(10 * time.Millisecond)
		}
		_, crashes := p.Starts()
		if got := crashes > 0; got != accident || accident && <-accidents == nil {
			t.Errorf("%s: an accident %t, want %t", script, got, accident)
		}
	}
}

// TestCrash is told of ends that are defects even where the program was to end, or was not ready yet.
func TestCrash(t *testing.T) {
	begin := func(t *testing.T, p *process.Process) {
		t.Helper()
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop := func(t *testing.T, p *process.Process, _ string) {
		t.Helper()
		begin(t, p)
		if err := p.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	full := func(t *testing.T, p *process.Process, ready string) {
		t.Helper()
		begin(t, p)
		p.Expect(true)
		tell(t, ready)
		for p.Running() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	early := func(t *testing.T, p *process.Process, _ string) {
		t.Helper()
		if err := p.Start(t.Context()); !errors.Is(err, process.ErrEnded) {
			t.Errorf("started: %v", err)
		}
	}
	const drains = `trap 'exit %d' TERM; touch "$READY"; while :; do sleep 0.02; done`
	for name, c := range map[string]struct {
		script string
		do     func(t *testing.T, p *process.Process, ready string)
		crash  bool
	}{
		"panic in recovery":           {"exit 2", early, true},
		"killed by a signal at start": {"kill -SEGV $$", early, true},
		"no store at start":           {"exit 1", early, false},
		"panic in the drain":          {strings.ReplaceAll(drains, "%d", "2"), stop, true},
		"race found":                  {strings.ReplaceAll(drains, "%d", "66"), stop, true},
		"cannot say good-bye":         {strings.ReplaceAll(drains, "%d", "1"), stop, false},
		"ends by the signal sent":     {`touch "$READY"; exec sleep 60`, stop, false},
		"panic without space":         {untilTold + "exit 2", full, true},
		"ends without space":          {untilTold + "exit 1", full, false},
	} {
		t.Run(name, func(t *testing.T) {
			accidents := make(chan error, 1)
			p, ready := shell(t, c.script, func(err error) { accidents <- err })
			c.do(t, p, ready)
			_, crashes := p.Starts()
			if (crashes == 1) != c.crash {
				t.Fatalf("%d crashes", crashes)
			}
			if c.crash {
				if err := <-accidents; !errors.Is(err, process.ErrCrashed) {
					t.Errorf("told %v", err)
				}
			}
		})
	}
}
