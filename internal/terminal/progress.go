package terminal

import (
	"fmt"
	"io"
	"time"
)

// Progress is a line on a terminal that is written over. It is used by one goroutine.
type Progress struct {
	w     io.Writer // nil for no output
	last  time.Time
	shown bool
}

// NewProgress returns a line on w; nil for one that shows nothing.
func NewProgress(w io.Writer) *Progress { return &Progress{w: w} }

// Show replaces the line, a few times a second.
func (l *Progress) Show(format string, args ...any) {
	if l.w == nil || time.Since(l.last) < 200*time.Millisecond {
		return
	}
	l.last, l.shown = time.Now(), true
	fmt.Fprintf(l.w, "\r\033[K"+format, args...)
}

// Clear removes the line.
func (l *Progress) Clear() error {
	if !l.shown {
		return nil
	}
	l.shown = false
	_, err := fmt.Fprint(l.w, "\r\033[K")
	return err
}
