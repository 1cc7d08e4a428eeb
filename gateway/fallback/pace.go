package fallback

import (
	"sync"
	"time"
)

// Bounds of a pace, and what changes it.
const (
	firstPace, minPace, maxPace = 64, 8, 512
	// inTime is the time within which the owner answers while it is not given too much: beyond it the requests of
	// clients, which go the same way, wait as long.
	inTime = 500 * time.Millisecond
	// paceKept is the part of a pace that is left after a failure or a late answer.
	paceKept = 0.8
)

// pace bounds the number of customers whose commands are handed in at the same time. As the congestion window of TCP
// (RFC 5681) it doubles with each round of answers in time until one fails or is late; from then on it grows by one
// with each round, and shrinks by a part when one fails or is late. Safe for concurrent use.
type pace struct {
	mu     sync.Mutex
	free   *sync.Cond
	limit  float64
	used   int
	shrunk time.Time // last
}

func newPace() *pace {
	p := &pace{limit: firstPace}
	p.free = sync.NewCond(&p.mu)
	return p
}

// enter waits until a further customer may be handed in.
func (p *pace) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.used >= int(p.limit) {
		p.free.Wait()
	}
	p.used++
}

// leave ends what enter began.
func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	p.free.Signal()
}

// answered notes how the owner answered a command that was handed in at that time. Those of one round are one sign:
// after a reduction, what was sent before it says nothing.
func (p *pace) answered(sent time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch now := time.Now(); {
	case err == nil && now.Sub(sent) <= inTime:
		by := 1.0
		if !p.shrunk.IsZero() {
			by = 1 / p.limit
		}
		if p.limit = min(maxPace, p.limit+by); p.used < int(p.limit) {
			p.free.Signal()
		}
	case sent.After(p.shrunk):
		p.limit, p.shrunk = max(minPace, p.limit*paceKept), now
	}
}
