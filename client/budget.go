package client

import (
	"sync"
	"time"
)

const (
	savedRetries     = 50 // tokens at most, and at first
	retriesPerSecond = 1  // tokens earned by time alone, for clients with few requests
)

// budget is a bucket of tokens, one for each retry. Requests fill it, so that retries stay a fixed part of the
// requests whatever fails.
type budget struct {
	ratio float64

	mu     sync.Mutex
	tokens float64
	at     time.Time // when time was last counted
}

func newBudget(ratio float64, now time.Time) *budget {
	b := &budget{ratio: ratio, tokens: savedRetries, at: now}
	if ratio < 0 {
		b.tokens = 0
	}
	return b
}

// deposit earns for a request.
func (b *budget) deposit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+max(b.ratio, 0), savedRetries)
}

// withdraw pays for a retry; false if there is nothing left.
func (b *budget) withdraw(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ratio < 0 {
		return false
	}
	b.tokens = min(b.tokens+retriesPerSecond*max(now.Sub(b.at), 0).Seconds(), savedRetries)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
