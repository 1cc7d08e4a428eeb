//go:build linux

package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestTerminalIsNotAsked: a terminal that answers no queries makes nobody wait, since only top asks it anything.
func TestTerminalIsNotAsked(t *testing.T) {
	verbs := verbsBelow(t)
	if len(verbs) < 20 {
		t.Errorf("only %d verbs were found: %v", len(verbs), verbs)
	}
	for i := range verbs {
		verbs[i] = append(verbs[i], "--help")
	}
	verbs = append(verbs,
		[]string{"cluster", "--server", "127.0.0.1:1"}, []string{"events", "Bayley", "--server", "127.0.0.1:1"},
		[]string{"nonsense"})
	var longest time.Duration
	for _, args := range verbs {
		began := time.Now()
		out := onTerminal(t, args)
		longest = max(longest, time.Since(began))
		if bytes.ContainsRune(out, '\x1b') {
			t.Errorf("%v writes control sequences to a terminal: %q", args, out)
		}
		if len(out) == 0 {
			t.Errorf("%v writes nothing", args)
		}
	}
	t.Logf("%d calls, the longest took %v", len(verbs), longest)
}

// verbsBelow returns the command lines of a verb of licensectl and all verbs below it, as the completion of shells
// lists them.
func verbsBelow(t *testing.T, verb ...string) [][]string {
	t.Helper()
	listed, err := exec.Command(licensectl(t), append(append([]string{"__complete"}, verb...), "")...).Output()
	if err != nil {
		t.Fatalf("complete %v: %v", verb, err)
	}
	verbs := [][]string{verb}
	for line := range strings.Lines(string(listed)) {
		if sub, _, ok := strings.Cut(line, "\t"); ok && sub != "help" {
			verbs = append(verbs, verbsBelow(t, append(verb[:len(verb):len(verb)], sub)...)...)
		}
	}
	return verbs
}

// onTerminal runs a command line on a terminal that says nothing, and returns what was written there.
func onTerminal(t *testing.T, args []string) []byte {
	t.Helper()
	cmd := exec.Command(licensectl(t), args...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "COLORTERM=truecolor")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	out, err := io.ReadAll(terminal)
	if err != nil && !errors.Is(err, syscall.EIO) { // That is how a terminal ends.
		t.Errorf("%v: %v", args, err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Errorf("%v: %v", args, err)
	}
	return out
}
