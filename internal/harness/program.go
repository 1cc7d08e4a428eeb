package harness

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Program is a licensed process. The test's end kills it, and fails if the race detector found something in it.
type Program struct {
	Cmd *exec.Cmd
	// Log is all that the process wrote.
	Log Log
	// Exited is closed when the process has ended.
	Exited chan struct{}
	// API and Admin are its addresses, once it is ready.
	API, Admin string
	// Ready is the file that the process writes once it serves.
	Ready string

	t testing.TB
}

// Start starts a program and waits until it is ready.
func Start(t testing.TB, program string, arguments ...string) *Program {
	t.Helper()
	p := Launch(t, program, arguments...)
	p.AwaitReady()
	return p
}

// Launch starts a program and does not wait.
func Launch(t testing.TB, program string, arguments ...string) *Program {
	t.Helper()
	LookAtSources(t)
	p := &Program{Exited: make(chan struct{}), t: t, Ready: filepath.Join(t.TempDir(), "ready.json")}
	p.Cmd = Command(program, append(arguments, "--ready-file", p.Ready)...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Log, &p.Log
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		// How it ended is in ProcessState.
		_ = p.Cmd.Wait()
		close(p.Exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		out := p.Log.String()
		if strings.Contains(out, "WARNING: DATA RACE") { // The exit code of a killed process does not tell.
			t.Error("the race detector has found something")
		}
		if t.Failed() {
			t.Logf("output of licensed %s:\n%s", strings.Join(arguments, " "), out[max(0, len(out)-8000):])
		}
	})
	return p
}

// Command returns a command that is yet to run. A store, which may have a password, is in its environment: a password
// in a flag is refused.
func Command(program string, arguments ...string) *exec.Cmd {
	arguments = slices.Clone(arguments)
	var environment []string
	if i := slices.Index(arguments, "--store"); i >= 0 && i+1 < len(arguments) {
		environment = append(os.Environ(), "LICENSED_STORE="+arguments[i+1])
		arguments = slices.Delete(arguments, i, i+2)
	}
	cmd := exec.Command(program, arguments...)
	cmd.Env = environment // nil: that of this process
	return cmd
}

// AwaitReady waits until the process is ready.
func (p *Program) AwaitReady() {
	p.t.Helper()
	p.Until(func() bool {
		content, err := os.ReadFile(p.Ready)
		if err == nil {
			err = json.Unmarshal(content, &struct{ API, Admin *string }{&p.API, &p.Admin})
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			p.t.Fatalf("ready file %q: %v", content, err)
		}
		return err == nil
	})
}

// Until waits until a condition is true, as long as the process lives.
func (p *Program) Until(condition func() bool) {
	p.t.Helper()
	for !condition() {
		select {
		case <-p.Exited:
			p.t.Fatalf("the process ended: %v\n%s", p.Cmd.ProcessState, p.Log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Says waits until the process has written words: what it wrote before it was ready may arrive later.
func (p *Program) Says(words string) {
	p.t.Helper()
	p.Until(func() bool { return strings.Contains(p.Log.String(), words) })
}

// Signal sends a signal to the process, which must be running.
func (p *Program) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v: %v", s, err)
	}
}

// Kill ends the process with kill -9, if it has not ended, and waits for its end.
func (p *Program) Kill() {
	_ = p.Cmd.Process.Kill() // It may have ended by itself.
	<-p.Exited
}

// Wait waits until the process ends and returns its exit code.
func (p *Program) Wait() int {
	<-p.Exited
	return p.Cmd.ProcessState.ExitCode()
}

// Stop asks the process to stop and returns its exit code.
func (p *Program) Stop() int {
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}
