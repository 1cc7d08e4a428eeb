package fallback

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"licensed/persistence"
)

// A breaker opens if half of the requests of the last two seconds failed, and at least minFailing were made; or if
// minFailing failed in a row within that time: under load the successes before an outage would keep it closed for a
// second. From then on one request a probePause is let through, until one succeeds.
const (
	failingShare  = 0.5
	minFailing    = 10
	failingPeriod = 2 * time.Second
	probePause    = 500 * time.Millisecond
	// probeTimeout is the time that a probe has: while it waits, nothing else finds out whether the owner is back.
	probeTimeout = 2 * time.Second
)

// maxWait is the time after which a request that can be answered otherwise stops waiting for an owner that answers
// others.
const maxWait = time.Second

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
	answered time.Time             // when the owner last did what a request asked for
	row      int                   // of failures since the last success
	rowSince time.Time             // of the first of them
	backlog  time.Time             // when deferred commands were last found to wait for the owner
	// recovers says that the owner answers since the breaker closed again. While it has a backlog, it may be slow for
	// that reason, and a request that is given up makes the backlog longer.
	recovers bool
}

// attempt is a request that is given up when the breaker opens, or when the owner has been silent for its patience.
type attempt struct {
	giveUp   context.CancelCauseFunc
	patience time.Duration
	timer    *time.Timer
}

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

// limit returns a context for an attempt that is given up when the breaker opens, after longest, and as soon as it has
// waited for the patience and the owner answered nobody within the patience: a slow owner is not an unavailable one.
// Call done after it.
func (b *breaker) limit(ctx context.Context, patience, longest time.Duration) (limited context.Context, done func()) {
	limited, cancel := context.WithTimeout(ctx, longest)
	limited, giveUp := context.WithCancelCause(limited)
	a := &attempt{giveUp: giveUp, patience: patience}
	b.mu.Lock()
	b.attempts[a] = struct{}{}
	a.timer = time.AfterFunc(patience, func() { b.listen(a) })
	b.mu.Unlock()
	return limited, func() {
		b.mu.Lock()
		delete(b.attempts, a)
		a.timer.Stop()
		b.mu.Unlock()
		giveUp(nil)
		cancel()
	}
}

// listen gives an attempt up if the owner has been silent for its patience, and otherwise looks again when it may have
// been.
func (b *breaker) listen(a *attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, waits := b.attempts[a]; !waits {
		return
	}
	if left := a.patience - time.Since(b.answered); left > 0 {
		a.timer.Reset(left)
		return
	}
	a.giveUp(errSilent)
}

// heard notes that the owner did what a request asked for.
func (b *breaker) heard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered = time.Now()
}

// waiting notes that deferred commands wait for the owner.
func (b *breaker) waiting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backlog = time.Now()
}

// hasBacklog reports whether deferred commands waited for the owner lately. The caller holds the lock.
func (b *breaker) hasBacklog() bool { return time.Since(b.backlog) < 2*(settleEvery+probeTimeout) }

// recovering reports whether the owner answers since the breaker closed again.
func (b *breaker) recovering() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recovers
}

// permit reports whether a request may be sent to the owner. While requests fail, few are, to find out whether the
// owner is back. Of those that can be answered otherwise none are, and none where deferred commands find it out: they
// keep nobody waiting.
func (b *breaker) permit(deferrable bool) bool {
	if b.IsClosed() {
		return true
	}
	b.mu.Lock()
	found := b.hasBacklog()
	b.mu.Unlock()
	return !deferrable && !found && b.TryAcquirePermit()
}

// succeeded and failed note how a request ended.
func (b *breaker) succeeded() {
	closed := b.IsClosed()
	b.mu.Lock()
	b.row, b.recovers = 0, b.recovers || !closed
	b.mu.Unlock()
	b.RecordSuccess()
}

func (b *breaker) failed() {
	b.mu.Lock()
	if now := time.Now(); b.row == 0 || now.Sub(b.rowSince) > failingPeriod {
		b.row, b.rowSince = 0, now
	}
	b.row++
	opens := b.row >= minFailing
	b.mu.Unlock()
	b.RecordFailure()
	if opens && b.IsClosed() {
		b.Open()
	}
}

// giveUp ends all attempts. The library calls it with its own lock held.
func (b *breaker) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.row, b.recovers = 0, false
	for a := range b.attempts {
		a.giveUp(errOpened)
	}
}
