package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// progress is a line on stderr that is written over, if somebody watches.
type progress struct {
	w     io.Writer // nil if nobody does
	last  time.Time
	shown bool
}

func (p *program) newProgress() *progress {
	if !p.tells {
		return &progress{}
	}
	return &progress{w: p.stderr}
}

// show shows how far things are, a few times a second.
func (l *progress) show(format string, args ...any) {
	if l.w == nil || time.Since(l.last) < 200*time.Millisecond {
		return
	}
	l.last, l.shown = time.Now(), true
	fmt.Fprintf(l.w, "\r\033[K"+format, args...)
}

// clear takes the line away.
func (l *progress) clear() error {
	if !l.shown {
		return nil
	}
	l.shown = false
	_, err := fmt.Fprint(l.w, "\r\033[K")
	return err
}

// errEnough ends a walk that has enough.
var errEnough = errors.New("enough")

// quoted returns a JSON string.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}
