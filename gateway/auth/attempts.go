package auth

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// maxSources is the number of addresses whose wrong credentials are remembered.
	maxSources = 16384
	// attemptEvery is the time after which an address gets one of its attempts back.
	attemptEvery = time.Second
)

// Attempts limits wrong credentials by the address that they come from. Safe for concurrent use.
type Attempts struct {
	most    int
	sources *lru.Cache[string, *rate.Limiter]
}

// NewAttempts returns Attempts that allow an address this many wrong ones; one comes back each second.
func NewAttempts(most int) *Attempts {
	sources, _ := lru.New[string, *rate.Limiter](maxSources) // The size is positive.
	return &Attempts{most, sources}
}

// Left reports whether an address has attempts left. If not, no credentials of it are looked at, not even right ones:
// otherwise the limit would not keep anybody from guessing.
func (a *Attempts) Left(source string, now time.Time) bool { return a.of(source).TokensAt(now) >= 1 }

// Wrong counts wrong credentials.
func (a *Attempts) Wrong(source string, now time.Time) { a.of(source).AllowN(now, 1) }

func (a *Attempts) of(source string) *rate.Limiter {
	if l, ok := a.sources.Get(source); ok {
		return l
	}
	l := rate.NewLimiter(rate.Every(attemptEvery), a.most)
	if before, ok, _ := a.sources.PeekOrAdd(source, l); ok {
		return before
	}
	return l
}
