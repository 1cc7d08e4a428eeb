package loglimit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output is what was logged.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) { o.mu.Lock(); defer o.mu.Unlock(); return o.b.Write(b) }

// take returns what was logged since the last call.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.b.Reset()
	return o.b.String()
}

// logged returns a limited logger and what it wrote.
func logged(lines int) (*slog.Logger, *output) {
	b := &output{}
	h := slog.NewTextHandler(b,
		&slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
	limited, _ := New(h, lines, 10*time.Second)
	return slog.New(limited), b
}

func TestLinesOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := logged(2)
		for i := range 5 {
			l.Warn("packet refused", "from", i)
			l.With("port", 1).WithGroup("g").Warn("packet refused", "from", i)
			l.Info("shard acquired")
			l.Debug("noise")
			slog.NewLogLogger(l.Handler(), slog.LevelError).Printf("TLS handshake error from 10.0.0.%d:99: EOF", i)
		}
		got := b.take()
		if n := strings.Count(got, "packet refused"); n != 2 {
			t.Errorf("%d lines of a kind", n)
		}
		if n := strings.Count(got, "handshake"); n != 2 {
			t.Errorf("%d lines that differ in an address", n)
		}
		if n := strings.Count(got, "noise"); n != 5 {
			t.Errorf("%d debug lines", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got = b.take()
		for _, want := range []string{
			`level=WARN msg="log lines suppressed" kind="packet refused" lines=8 interval=10s`,
			`level=INFO msg="log lines suppressed" kind="shard acquired" lines=3`,
			`level=ERROR msg="log lines suppressed" kind="TLS handshake error from " lines=3`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in:\n%s", want, got)
			}
		}
		if n := strings.Count(got, "\n"); n != 3 {
			t.Errorf("%d summaries", n)
		}
		l.Warn("packet refused")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got = b.take(); got != "level=WARN msg=\"packet refused\"\n" {
			t.Errorf("in the next interval: %q", got)
		}
	})
}

// TestMessagesOfStrangers: who chooses the messages does not choose how many are logged.
func TestMessagesOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := logged(2)
		for i := range 24_000 {
			l.Warn(strings.Repeat("x", i%5000+1) + fmt.Sprint(i))
			l.Warn(string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		got := b.take()
		if n := strings.Count(got, "\n"); n > 3*maxKinds+3 || !strings.Contains(got, others.text) {
			t.Errorf("%d lines", n)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	limited, stop := New(slog.DiscardHandler, 1, time.Millisecond)
	defer stop()
	l := slog.New(limited)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 1000 {
				l.LogAttrs(context.Background(), slog.LevelWarn, "text", slog.Int("i", i))
			}
		})
	}
	all.Wait()
}

// TestStop: what was suppressed is told before the process ends, and nothing is logged later.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &output{}
		limited, stop := New(slog.NewTextHandler(b, nil), 1, time.Second)
		l := slog.New(limited)
		for range 3 {
			l.Warn("packet refused")
		}
		l.Warn("another")
		stop()
		stop()
		if got := b.take(); strings.Count(got, "suppressed") != 1 || !strings.Contains(got, "lines=2") {
			t.Errorf("logged %q", got)
		}
		for range 3 {
			l.Warn("packet refused")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.take(); strings.Count(got, "refused") != 3 || strings.Contains(got, "suppressed") {
			t.Errorf("logged %q after it stopped", got)
		}
	})
}
