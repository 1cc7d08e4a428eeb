package member

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// written is a log that can be read while it is written.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *written) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.text.String(), what)
}

// TestGossipKeysAreReadAgain: what the file has is in force, what cannot be used changes nothing and is logged once.
func TestGossipKeysAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gossip.key")
	line := func(letter string) string {
		return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))) + "\n"
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		// A rename, as tools do it: the file is never half written.
		if err := os.WriteFile(file+".new", []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file+".new", mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	s := Settings{KeyFile: file}
	for text, says := range map[string]string{
		"# none\n":                   "no key in it",
		line("a") + "not base64!":    "line 2 is not base64",
		"MDEy":                       "a key of 3 bytes",
		line("a") + line("a"):        "the same as an earlier one",
		strings.Repeat("#\n", 1<<15): "", // as large as may be, with no key
	} {
		write(text, 0o600)
		if _, err := s.gossipKeys(); err == nil || !strings.Contains(err.Error(), says) ||
			!strings.HasPrefix(err.Error(), "gossip-key-file: ") {
			t.Errorf("%.20q: %v, want it to say %q", text, err, says)
		}
	}
	write(line("a"), 0o644)
	if _, err := s.gossipKeys(); err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) {
		t.Errorf("readable by all: %v", err)
	}
	write("# the only one\n\n"+line("a"), 0o600)
	k, err := s.gossipKeys()
	if err != nil {
		t.Fatal(err)
	}
	log := &written{}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { k.watch(ctx, slog.New(slog.NewTextHandler(log, nil))) })
	defer watching.Wait()
	defer cancel()
	await := func(what string, n int) {
		t.Helper()
		for log.count(what) < n {
			select {
			case <-t.Context().Done():
				t.Fatalf("not logged %d times: %s", n, what)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	write(line("a")+line("b"), 0o600)
	await("keys=2", 1)
	write("half", 0o600)
	await("not reloaded", 1)
	write(line("b"), 0o644)
	await("chmod 600", 1)
	write(line("b")+line("c")+line("d"), 0o600)
	await("keys=3", 1)
	write(line("b"), 0o600)
	await("keys=1", 1)
	if n := log.count("not reloaded"); n != 2 {
		t.Errorf("logged %d times that the file is of no use, want 2", n)
	}
}

// FuzzGossipKeys: no content of the file panics, and no error shows what is in it.
func FuzzGossipKeys(f *testing.F) {
	f.Add([]byte("MDEyMzQ1Njc4OWFiY2RlZg==\n# next\nMDEyMzQ1Njc4OWFiY2RlZg==\n"))
	f.Add([]byte("\xff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err == nil && len(keys) == 0 {
			t.Error("no key and no error")
		}
		if err != nil && !strings.HasPrefix(err.Error(), "line ") && !strings.HasPrefix(err.Error(), "no key") {
			t.Errorf("%v", err)
		}
	})
}
