package pebble

import (
	"sync"
	"time"
)

// steadyClock believes the wall clock only what it has said for some time: dropping what
// expired is for good, and one reading of a clock that was set wrong must not do it. It
// compares the wall clock with a monotonic one, which nobody sets. A jump forward is
// believed when it has lasted, one back at once. It is safe for concurrent use.
//
// It computes the minimum of a sliding window, the least that the wall clock was ahead of
// the monotonic one, with the usual queue of candidates: each reading removes those
// before it that are not lower, since they can never be the minimum again.
type steadyClock struct {
	mu    sync.Mutex
	leads []lead // since and ahead both rising
}

// lead says that all readings since a moment of the monotonic clock found the wall clock ahead of it by so
// many milliseconds or more.
type lead struct {
	since time.Duration
	ahead int64
}

// now processes a reading of both clocks, and returns the latest time that all readings of the last window
// bear out; false if there were none before that.
func (c *steadyClock) now(wall time.Time, monotonic, window time.Duration) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// What the new reading says, extended back over all readings that were as far ahead
	// or further.
	l := lead{monotonic, wall.UnixMilli() - monotonic.Milliseconds()}
	for n := len(c.leads) - 1; n >= 0 && c.leads[n].ahead >= l.ahead; n-- {
		l.since = c.leads[n].since
		c.leads = c.leads[:n]
	}
	c.leads = append(c.leads, l)
	// The first candidate leaves when the second has been there for the whole window.
	for len(c.leads) > 1 && c.leads[1].since <= monotonic-window {
		c.leads = c.leads[1:]
	}
	first := c.leads[0]
	return time.UnixMilli(first.ahead + monotonic.Milliseconds()), first.since <= monotonic-window
}
