//go:build !linux

package lease

import "time"

// monotonic is Go's clock since a start.
type monotonic struct{ start time.Time }

// SystemClock returns Go's monotonic clock. On some systems it stands still while the machine is
// suspended: there, leases must be confirmed by reads.
func SystemClock() (Clock, error) { return monotonic{time.Now()}, nil }

// Now implements Clock.
func (m monotonic) Now() Instant { return Instant(time.Since(m.start)) }
