// Package budget bounds what requests use at a time: bytes of memory, connections, places; and how often they come.
//
// # The model
//
// A [Budget] has a limit for everybody together, and a share of it that one [Holder] may have: an address or a
// principal. A request takes a [Grant] of it before the memory is allocated, and releases it when the memory
// is free again. A budget never waits: a request that finds it used up is refused at once, so that nothing queues
// behind it. A holder that has nothing gets its first grant even if that is more than its share, and so does the
// first of all holders: a limit set too low slows requests down to one at a time and never refuses all of them.
//
// A [Rate] bounds how often each holder does something. It has no limit for everybody together.
package budget

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Holder is somebody whose share of a budget is bounded. The zero Holder is this process itself, which has no share of
// its own: only the limit bounds it.
type Holder struct {
	// Address that requests come from; for IPv6 its /64, since that is what one host is given.
	Address netip.Prefix
	// Principal that was authenticated, whatever addresses it uses.
	Principal string
	// Customer says that the principal is a customer, and not a service or a person of the operator.
	Customer bool
}

// Each is a bound of one holder, by the kind of the holder. Zero is no bound.
type Each struct {
	Address, Service, Customer float64
}

// of returns the bound of a holder; zero for none.
func (e *Each) of(h Holder) float64 {
	switch {
	case h == Holder{}:
		return 0
	case h.Principal == "":
		return e.Address
	case h.Customer:
		return e.Customer
	}
	return e.Service
}

// String returns the holder for people.
func (h Holder) String() string {
	switch {
	case h.Principal != "":
		return h.Principal
	case h.Address.IsSingleIP():
		return h.Address.Addr().String()
	case h.Address.IsValid():
		return h.Address.String()
	}
	return "this process"
}

// FromRemote returns the holder of an address as http.Request has it, "192.0.2.1:1234". What is no address is this
// process itself.
func FromRemote(remote string) Holder {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return Holder{}
	}
	ip := a.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() && !ip.IsLoopback() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil { // An address has that many bits.
		panic(err)
	}
	return Holder{Address: p}
}

// Scope is the bound of a budget that was met.
type Scope string

// The scopes.
const (
	// All: everybody together used up the limit.
	All Scope = "all"
	// Share: one address used up its share.
	Share Scope = "share"
	// Principal: one principal used up its share.
	Principal Scope = "principal"
)

// Scopes are all of them.
var Scopes = []Scope{All, Share, Principal}

// ExceededError says that a budget has not enough left, or that a holder comes too often.
type ExceededError struct {
	// Budget is the name of the budget or the rate.
	Budget string
	Scope  Scope
	// Holder whose share is used up, if that is the reason.
	Holder Holder
	// RetryAfter is when the rate allows the next one; zero for a budget.
	RetryAfter time.Duration
}

// Error implements error.
func (e *ExceededError) Error() string {
	if e.Scope != All {
		return fmt.Sprintf("%s: %v has used up its share", e.Budget, e.Holder)
	}
	return e.Budget + ": the limit is reached"
}

// exceeded returns the error for a holder that has used up its own share.
func exceeded(name string, h Holder, retry time.Duration) *ExceededError {
	e := &ExceededError{Budget: name, Scope: Share, Holder: h, RetryAfter: retry}
	if h.Principal != "" {
		e.Scope = Principal
	}
	return e
}

// Budget is a bounded amount of something. Safe for concurrent use.
type Budget struct {
	name   string
	limit  int64
	shares Each

	// mu guards what follows.
	mu   sync.Mutex
	used int64
	// What each holder has; none has an entry without a grant, so that the map is no
	// larger than what is in use.
	holders map[Holder]int64
	refused map[Scope]uint64
}

// New returns a budget. The shares are what part of the limit one holder may have, above 0 up to 1, or 0 for all of it;
// a share is at least one unit.
func New(name string, limit int64, shares Each) *Budget {
	return &Budget{
		name: name, limit: limit, shares: shares,
		holders: make(map[Holder]int64), refused: make(map[Scope]uint64),
	}
}

// Name returns the name, which is a label of metrics.
func (b *Budget) Name() string { return b.name }

// Limit returns what everybody together may have, and PerAddress what one address may.
func (b *Budget) Limit() int64 { return b.limit }

// PerAddress returns what one address may have.
func (b *Budget) PerAddress() int64 { return b.share(b.shares.Address) }

// share returns a part of the limit; zero is all of it.
func (b *Budget) share(part float64) int64 {
	if part == 0 {
		return b.limit
	}
	return max(1, int64(float64(b.limit)*part))
}

// Used returns what is granted now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Held returns what a holder has now.
func (b *Budget) Held(h Holder) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holders[h]
}

// Refused returns the number of requests that were refused within a scope.
func (b *Budget) Refused(s Scope) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused[s]
}

// Take returns a grant of n, or an ExceededError. Each of the holders has to have it left in its share: an address and
// a principal for instance. The grant keeps the slice.
func (b *Budget) Take(n int64, holders ...Holder) (Grant, error) {
	g := Grant{budget: b, holders: holders}
	if err := g.Resize(n); err != nil {
		return Grant{}, err
	}
	return g, nil
}

// add adds n, which may be negative, to what is granted. If bounded is set it may fail
// with an ExceededError and change nothing.
func (b *Budget) add(n int64, holders []Holder, bounded bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && bounded {
		if err := b.check(n, holders); err != nil {
			b.refused[err.Scope]++
			return err
		}
	}
	b.used += n
	for _, h := range holders {
		if h == (Holder{}) {
			continue
		}
		if now := b.holders[h] + n; now == 0 {
			delete(b.holders, h)
		} else {
			b.holders[h] = now
		}
	}
	return nil
}

// check returns why n more are not granted, or nil. A holder without a grant passes, and
// so does the first of all: see the package comment. Requires mu.
func (b *Budget) check(n int64, holders []Holder) *ExceededError {
	for _, h := range holders {
		share := b.share(b.shares.of(h)) // One that is the limit is no cause of its own.
		if held := b.holders[h]; h != (Holder{}) && share < b.limit && held > 0 && held+n > share {
			return exceeded(b.name, h, 0)
		}
	}
	if b.used > 0 && b.used+n > b.limit {
		return &ExceededError{Budget: b.name, Scope: All}
	}
	return nil
}

// Grant is what was taken from a budget. The zero Grant has nothing, of no budget. Not safe for concurrent use.
type Grant struct {
	budget  *Budget
	holders []Holder
	n       int64
}

// Resize makes the grant one of n. Less always succeeds; if more is not left, it fails with an ExceededError and the
// grant is what it was.
func (g *Grant) Resize(n int64) error {
	if err := g.budget.add(n-g.n, g.holders, true); err != nil {
		return err
	}
	g.n = n
	return nil
}

// Force makes the grant one of n, left or not: for what exists already and has to be counted.
func (g *Grant) Force(n int64) {
	_ = g.budget.add(n-g.n, g.holders, false) // Without bounds there is no error.
	g.n = n
}

// Size returns what the grant is of.
func (g *Grant) Size() int64 { return g.n }

// Release gives everything back. Further calls do nothing.
func (g *Grant) Release() {
	if g.n != 0 {
		g.Force(0)
	}
}
