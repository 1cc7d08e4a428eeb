package lease

import (
	"licensed/internal/planted"
	"licensed/persistence"
)

// Confirmer holds back what is to be said until a read of its own lease row, begun after it was decided,
// showed that the incarnation is not dead ([R9] without a clock). One read serves all that waits when it
// begins; what comes while it is in progress waits for the next.
type Confirmer[T any] struct {
	waiting []T // for a read that is yet to begin
	covered []T // by the read in progress
	reading bool
}

// Add queues something to be said.
func (c *Confirmer[T]) Add(t T) { c.waiting = append(c.waiting, t) }

// Begin reports whether a read is to be sent now; not before this call.
func (c *Confirmer[T]) Begin() bool {
	if c.reading || len(c.waiting) == 0 {
		return false
	}
	c.reading = true
	c.covered, c.waiting = c.waiting, c.covered[:0]
	return true
}

// Done processes the result of the read (a zero row if there is none) and returns what it covered, and
// whether that may be said. If not, it must never be. The slice is valid until the next call of Begin.
func (c *Confirmer[T]) Done(row persistence.Lease, err error) (covered []T, alive bool) {
	c.reading = false
	if planted.Bug(planted.SayUncovered) {
		c.covered, c.waiting = append(c.covered, c.waiting...), nil
	}
	return c.covered, err == nil && row.Counter > 0 && !row.Dead || planted.Bug(planted.SayUnconfirmed)
}
