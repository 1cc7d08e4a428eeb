// Package loglimit limits how often lines of one kind are logged, so that nobody who reaches a port of this process
// fills its disk, and nothing else drowns in the lines that he causes.
//
// The first lines of a kind in an interval are logged. Of the rest one line tells, at the end of the interval, how many
// there were. A kind is a level and the constant beginning of a message; debug lines are not limited.
package loglimit

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// maxKinds is the number of kinds that are told apart at a time. All further ones count as one: who chooses the
// messages must not choose how much is remembered and logged.
const maxKinds = 256

// New returns a handler that passes to h at most this many lines of a kind in an interval. The interval begins with
// the first of them. It is safe for concurrent use. Call stop when little more will be logged: it tells at once
// what was suppressed, and then all lines pass.
func New(h slog.Handler, lines int, interval time.Duration) (limited slog.Handler, stop func()) {
	l := &limiter{summary: h, lines: lines, interval: interval, kinds: map[kind]*count{}}
	return handler{h, l}, l.stop
}

// handler passes to the handler that it embeds what the limiter lets pass. Handlers
// derived from it share the limiter.
type handler struct {
	slog.Handler
	limiter *limiter
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.limiter.pass(kind{r.Level, constant(r.Message)}) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(a []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(a), h.limiter}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.limiter}
}

// kind is what lines are counted by.
type kind struct {
	level slog.Level
	text  string
}

// others is the kind of all lines for whose kinds there is no room.
var others = kind{slog.LevelWarn, "lines of other kinds"}

// constant returns the beginning of a message up to what varies: numbers, quoted text, addresses.
func constant(message string) string {
	if i := strings.IndexAny(message, "0123456789\"'`=(["); i >= 0 {
		message = message[:i]
	}
	return message[:min(len(message), 64)]
}

// limiter counts the lines of each kind.
type limiter struct {
	summary  slog.Handler
	lines    int
	interval time.Duration

	// mu guards what follows, and is held while a summary is logged.
	mu      sync.Mutex
	kinds   map[kind]*count // that were logged within the interval
	stopped bool
}

// count is of the lines of a kind in an interval.
type count struct {
	passed, suppressed int
	end                *time.Timer
}

// pass reports whether a line is logged, and counts it. It starts the interval of a new
// kind.
func (l *limiter) pass(k kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return true
	}
	c := l.kinds[k]
	if c == nil && len(l.kinds) >= maxKinds {
		k, c = others, l.kinds[others]
	}
	if c == nil {
		c = &count{end: time.AfterFunc(l.interval, func() { l.end(k) })}
		l.kinds[k] = c
	}
	if c.passed < l.lines {
		c.passed++
		return true
	}
	c.suppressed++
	return false
}

// end ends the interval of a kind.
func (l *limiter) end(k kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.kinds[k]; c != nil {
		delete(l.kinds, k)
		l.summarize(k, c.suppressed)
	}
}

// stop ends the intervals of all kinds.
func (l *limiter) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for k, c := range l.kinds {
		c.end.Stop()
		l.summarize(k, c.suppressed)
	}
	clear(l.kinds)
}

// summarize logs how many lines of a kind were suppressed, if any were. Requires l.mu, so that nothing is logged
// after stop.
func (l *limiter) summarize(k kind, suppressed int) {
	ctx := context.Background()
	if suppressed == 0 || !l.summary.Enabled(ctx, k.level) {
		return
	}
	r := slog.NewRecord(time.Now(), k.level, "log lines suppressed", 0)
	r.AddAttrs(slog.String("kind", k.text), slog.Int("lines", suppressed), slog.String("interval", l.interval.String()))
	_ = l.summary.Handle(ctx, r)
}
