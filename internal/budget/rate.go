package budget

import (
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxRated is the number of holders whose rate is remembered. Who is forgotten starts anew, with a full burst.
const maxRated = 65536

// Rate bounds how often each holder does something. Safe for concurrent use.
type Rate struct {
	name      string
	perSecond Each
	// burst is the time whose worth a holder may do at once.
	burst   time.Duration
	holders *lru.Cache[Holder, *rate.Limiter]
	// refused counts those of addresses and of principals.
	refused [2]atomic.Uint64
}

// NewRate returns a rate that allows each holder this many a second. Somebody who did nothing for the time of the burst
// may do its worth at once, at least one. The name is a label of metrics.
func NewRate(name string, perSecond Each, burst time.Duration) *Rate {
	holders, _ := lru.New[Holder, *rate.Limiter](maxRated) // The size is positive.
	return &Rate{name: name, perSecond: perSecond, burst: burst, holders: holders}
}

// Name returns the name.
func (r *Rate) Name() string { return r.name }

// Refused returns the number of times that Take failed within a scope.
func (r *Rate) Refused(s Scope) uint64 {
	switch s {
	case Share:
		return r.refused[0].Load()
	case Principal:
		return r.refused[1].Load()
	}
	return 0
}

// Remembered returns the number of holders whose rate is remembered.
func (r *Rate) Remembered() int { return r.holders.Len() }

// Take counts one for each of the holders, or returns an ExceededError and counts none.
func (r *Rate) Take(now time.Time, holders ...Holder) error {
	var room [2]*rate.Reservation // An address and a principal; more are allocated.
	taken := room[:0]
	for _, h := range holders {
		l := r.of(h)
		if l == nil {
			continue
		}
		one := l.ReserveN(now, 1)
		delay := one.DelayFrom(now)
		if delay == 0 {
			taken = append(taken, one)
			continue
		}
		one.CancelAt(now)
		for _, t := range taken {
			t.CancelAt(now)
		}
		e := exceeded(r.name, h, delay)
		if e.Scope == Principal {
			r.refused[1].Add(1)
		} else {
			r.refused[0].Add(1)
		}
		return e
	}
	return nil
}

// Left reports whether Take would succeed for a holder.
func (r *Rate) Left(now time.Time, h Holder) bool {
	l := r.of(h)
	return l == nil || l.TokensAt(now) >= 1
}

// of returns the limiter of a holder; nil if its rate has no bound.
func (r *Rate) of(h Holder) *rate.Limiter {
	perSecond := r.perSecond.of(h)
	if perSecond == 0 {
		return nil
	}
	if l, ok := r.holders.Get(h); ok {
		return l
	}
	l := rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*r.burst.Seconds())))
	if before, ok, _ := r.holders.PeekOrAdd(h, l); ok {
		return before
	}
	return l
}
