package fallback

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"licensed/persistence"
)

// A breaker opens if half of the requests of the last two seconds failed, and at least minFailing were made. From then
// on one request a probePause is let through, until one succeeds.
const (
	failingShare  = 0.5
	minFailing    = 10
	failingPeriod = 2 * time.Second
	probePause    = 500 * time.Millisecond
)

// breakerIdle is the time without requests after which a breaker is dropped.
const breakerIdle = 10 * time.Second

// maxBreakers is the number of owners from which on breakers of former ones are dropped.
const maxBreakers = 1024

// breakerKey names a breaker. Commands and questions to an owner have one each: an owner that cannot write may know the
// answers.
type breakerKey struct {
	owner persistence.Incarnation
	read  bool
}

// breakers has those that were needed. Safe for concurrent use.
type breakers struct {
	mu  sync.Mutex
	all map[breakerKey]*breaker
}

// breaker says whether requests to one owner are worth their time. Safe for concurrent use.
type breaker struct {
	circuitbreaker.CircuitBreaker[any]

	used time.Time // last; guarded by the lock of breakers

	mu       sync.Mutex
	attempts map[*attempt]struct{} // that end when it opens
}

// attempt is a request that is given up when the breaker opens.
type attempt struct{ giveUp context.CancelCauseFunc }

// of returns the breaker of a key.
func (b *breakers) of(key breakerKey) *breaker {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if found := b.all[key]; found != nil {
		found.used = now
		return found
	}
	if b.all == nil {
		b.all = make(map[breakerKey]*breaker)
	}
	if len(b.all) >= maxBreakers {
		clear(b.all) // Of incarnations, nearly all of which have ended.
	}
	made := &breaker{used: now, attempts: make(map[*attempt]struct{})}
	made.CircuitBreaker = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(failingShare, minFailing, failingPeriod).
		WithDelay(probePause).
		WithSuccessThreshold(1).
		OnOpen(func(circuitbreaker.StateChangedEvent) { made.giveUp() }).
		Build()
	b.all[key] = made
	return made
}

// failing returns the owners to which commands fail. A breaker that nobody asked for lately is that of an owner that
// ended: it is dropped.
func (b *breakers) failing() (owners []persistence.Incarnation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, each := range b.all {
		switch {
		case time.Since(each.used) > breakerIdle:
			delete(b.all, key)
		case !key.read && !each.IsClosed():
			owners = append(owners, key.owner)
		}
	}
	return owners
}

// limit returns a context for an attempt that ends after the patience, and when the breaker opens. Call done after it.
func (b *breaker) limit(ctx context.Context, patience time.Duration) (limited context.Context, done func()) {
	limited, cancel := context.WithTimeout(ctx, patience)
	limited, giveUp := context.WithCancelCause(limited)
	a := &attempt{giveUp}
	b.mu.Lock()
	b.attempts[a] = struct{}{}
	b.mu.Unlock()
	return limited, func() {
		b.mu.Lock()
		delete(b.attempts, a)
		b.mu.Unlock()
		giveUp(nil)
		cancel()
	}
}

// giveUp ends all attempts. The library calls it with its own lock held.
func (b *breaker) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for a := range b.attempts {
		a.giveUp(errOpened)
	}
}
