package cassandra

import "time"

// pace decides when a lane sends the next request. It has no clock and no goroutine: every call says when it is made.
// The caller serializes calls.
//
// # The rule
//
// A request costs Cassandra more than the writes in it, so a busy store does more if writes travel together. A write of
// a store that is not busy is answered sooner if it does not wait. What waits is sent
//
//   - if nothing is in progress, so that a write alone never waits;
//   - if it is at least as large as all that is in progress;
//   - if it fills a request, since it would not grow by waiting;
//   - after two round trips at the latest, as when a request in progress hangs.
//
// So requests grow with the number of writes, and with the time that the store takes for them, and nothing needs to be
// known of the store:
//
//	writes outstanding   in progress           waiting
//	1                    1
//	3                    1, 1                  1        until one of the two is answered
//	4                    1, 1, 2
//	21                   10                    11       the next request, full
//	21                   10, 10                1
//
// The embedded store forms its batches by the same rule. TestPace compares it with constant numbers of requests in
// progress: on a store that is not busy the best number is the largest, on a busy one it is 1.
type pace struct {
	most int // requests in progress

	requests, writes int           // in progress
	roundTrip        time.Duration // smoothed; 0 before the first
}

const (
	// smoothing is the inverse of the weight of a round trip in the mean. It is that of TCP.
	smoothing = 8
	// patience is the time that a write waits for company, in round trips.
	patience = 2
)

// may reports whether a request may be sent now, while this many writes wait, the oldest since a moment; full says that
// they fill a request. If not, it returns when to ask again; zero if the end of a request is early enough.
func (p *pace) may(now time.Time, waiting int, full bool, since time.Time) (ok bool, again time.Time) {
	switch {
	case p.requests >= p.most:
		return false, time.Time{}
	case p.requests == 0 || full || waiting >= p.writes:
		return true, time.Time{}
	}
	again = since.Add(patience * p.roundTrip)
	return !now.Before(again), again
}

// sent counts a request with this many writes in.
func (p *pace) sent(writes int) {
	p.requests++
	p.writes += writes
}

// ended counts it out; took is its round trip.
func (p *pace) ended(writes int, took time.Duration) {
	p.requests--
	p.writes -= writes
	if p.roundTrip == 0 {
		p.roundTrip = took
	}
	p.roundTrip += (took - p.roundTrip) / smoothing
}
