package lease

import (
	"fmt"
	"math"
	"time"

	"licensed/internal/planted"
)

// Instant is a reading of a [Clock]: nanoseconds since a start of the clock's own. Instants of different
// machines or processes have nothing to do with each other.
type Instant int64

// Never is after all other instants.
const Never Instant = math.MaxInt64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Clock measures time that passes, also while the machine sleeps. It is safe for concurrent use.
type Clock interface {
	// Now returns the current reading, or Never if the clock cannot be read: a lease is then not valid.
	Now() Instant
}

// Timing sets the duration of leases and how far clocks are trusted.
type Timing struct {
	// TTL is the time without a sign of life after which an incarnation may be marked dead (default 2.5 s).
	// Less makes failover faster, and a slow store or a starved process lose its lease more easily.
	TTL time.Duration
	// Allowance is what the holder's clock may lose against a challenger's within a TTL, taken off on
	// the one side and added on the other (default 100 ms, a rate error of 4 %).
	Allowance time.Duration
}

// DefaultTiming returns the defaults.
func DefaultTiming() Timing {
	return Timing{TTL: 2500 * time.Millisecond, Allowance: 100 * time.Millisecond}
}

// Validate returns an error that names what cannot work.
func (t Timing) Validate() error {
	if t.TTL <= 0 {
		return fmt.Errorf("lease TTL is %v, must be positive", t.TTL)
	}
	if t.Allowance <= 0 || t.Allowance > t.TTL/4 {
		return fmt.Errorf("lease allowance is %v, must be positive and at most a quarter of the TTL", t.Allowance)
	}
	return nil
}

// validity is the time a sign of life lasts for the holder.
func (t Timing) validity() time.Duration {
	if planted.Bug(planted.LeaseToTheEnd) {
		return t.TTL + t.Allowance
	}
	return t.TTL - t.Allowance
}

// patience is the time a counter must stand still for a challenger.
func (t Timing) patience() time.Duration {
	if planted.Bug(planted.MarkWithoutAllowance) {
		return t.TTL - t.Allowance
	}
	return t.TTL + t.Allowance
}

// renewEvery is the time between the starts of renewals.
func (t Timing) renewEvery() time.Duration { return t.TTL / 4 }

// retryAfter is the pause before a failed read or write is tried again.
func (t Timing) retryAfter() time.Duration { return t.TTL / 50 }

// pollEvery is the time between looks at another's lease that shows no sign of life.
func (t Timing) pollEvery() time.Duration { return t.TTL / 8 }

// unheard is the time without an answer of the store after which a challenger's patience begins anew. It is longer than
// the pause after one look that failed, and shorter than an interruption in which a lease runs out.
func (t Timing) unheard() time.Duration { return 3 * t.TTL / 4 }

// lookEvery is the time between looks when a sign of life is expected. Its last part is how much later
// than it was given it is seen, which every failover takes longer.
func (t Timing) lookEvery() time.Duration { return t.TTL / 32 }

// OpTimeout is the time one operation on the store is given: two fit into what is left of a lease after a
// renewal failed, so that the second can go to another node of the store. More: a lease survives a slower
// store; less: one that is stalled more often.
func (t Timing) OpTimeout() time.Duration { return 3 * t.TTL / 10 }
