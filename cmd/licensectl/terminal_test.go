//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/spf13/cobra"
)

// asProgram has the test's binary behave as licensectl does.
const asProgram = "LICENSECTL_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestTerminalIsNotAsked: a terminal that answers no queries makes nobody wait, since only top asks it anything.
func TestTerminalIsNotAsked(t *testing.T) {
	var verbs [][]string
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		verbs = append(verbs, append(path[:len(path):len(path)], "--help"))
		for _, sub := range c.Commands() {
			walk(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	walk((&program{getenv: os.Getenv}).rootCommand(), nil)
	verbs = append(verbs,
		[]string{"cluster", "--server", "127.0.0.1:1"}, []string{"events", "Bayley", "--server", "127.0.0.1:1"}, []string{"nonsense"})
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

// onTerminal runs a command line on a terminal that says nothing, and returns what was written there.
func onTerminal(t *testing.T, args []string) []byte {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm-256color", "COLORTERM=truecolor")
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
