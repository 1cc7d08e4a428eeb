package lease

import (
	"errors"
	"fmt"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Holder keeps the lease of one incarnation valid. A lease that ran out is valid again after a renewal: the
// compare-and-set shows that nobody marked the incarnation dead, so nobody took what it has ([R1]). It ends when it is
// marked dead.
type Holder struct {
	timing Timing
	row    persistence.Lease // as last known; zero before it is known to exist
	valid  bool              // until is set, and was not reached yet
	until  Instant           // end of validity
	flight flight
	due    Instant // of the next operation while none is in progress

	// Attempts to move the counter on from row that may yet turn out to have done it: a reply that was
	// lost may be of any of them.
	open   bool
	eldest Instant // start of the first
	latest Instant // start of the last
	look   bool    // the last one's reply was lost: read the row before another

	retiring bool
	cause    error // why it ended
}

// NewHolder returns the holder of a lease that is yet to be created, for a node of that name that others reach at that
// address.
func NewHolder(t Timing, i persistence.Incarnation, node, address string) *Holder {
	return &Holder{timing: t, row: persistence.Lease{Incarnation: i, Node: node, Address: address}}
}

// Until returns the instant before which the lease is valid, and false if it is not: it never was, ran out, or has
// ended.
func (h *Holder) Until() (Instant, bool) { return h.until, h.valid && h.cause == nil }

// Ended returns why the incarnation has ended, or nil.
func (h *Holder) Ended() error { return h.cause }

// Row returns the row as last known; its counter is 0 before it is known to exist.
func (h *Holder) Row() persistence.Lease { return h.row }

// Retire asks to mark its own lease dead at the next step with nothing in progress: the caller owns
// nothing any more. The holder then ends with ErrRetired.
func (h *Holder) Retire() {
	if !h.retiring {
		h.retiring, h.due = true, 0
	}
}

// Step handles one input.
func (h *Holder) Step(in Input) Outputs {
	if in.Kind != InputTick {
		h.flight = flightNone
	}
	h.valid = h.valid && in.Now < h.until
	if h.cause != nil {
		return Outputs{Wake: Never}
	}
	switch in.Kind {
	case InputSwapped:
		h.swapped(in)
	case InputRead:
		h.read(in)
	}
	out := Outputs{Wake: Never}
	if h.cause != nil {
		return out
	}
	if h.flight == flightNone {
		h.start(in.Now, &out)
	}
	if h.flight == flightNone {
		out.Wake = h.due
	}
	if h.valid {
		out.Wake = min(out.Wake, h.until)
	}
	return out
}

// start begins the operation that is due.
func (h *Holder) start(now Instant, out *Outputs) {
	switch {
	case now < h.due:
	case h.look:
		h.flight, out.Read = flightRead, true
	case h.retiring && h.row.Counter == 0 && !h.open:
		h.end(ErrRetired)
	case h.retiring && h.row.Counter > 0:
		s := &Swap{Old: h.row, Next: h.row}
		s.Next.Dead = true
		h.flight, out.Swap = flightSwap, s
	default:
		h.flight, out.Swap = flightSwap, h.attempt(now)
	}
}

// attempt returns the compare-and-set that raises the counter.
func (h *Holder) attempt(now Instant) *Swap {
	h.latest = now
	if !h.open {
		h.open, h.eldest = true, now
	}
	s := &Swap{Old: h.row, Next: h.row}
	s.Next.Counter++
	if h.row.Counter == 0 {
		s.Old = persistence.Lease{}
	}
	return s
}

func (h *Holder) swapped(in Input) {
	switch {
	case in.Err == nil && in.Applied && in.Row.Dead:
		h.end(ErrRetired)
	case in.Err == nil && in.Applied:
		began := h.latest
		if planted.Bug(planted.CountFromReply) {
			began = in.Now
		}
		h.moved(began, in.Now)
	case in.Err == nil:
		h.shown(in)
	case errors.Is(in.Err, persistence.ErrRejected):
		h.open = h.open && h.eldest != h.latest // this one certainly did nothing
		h.due = in.Now.Add(h.timing.retryAfter())
	case planted.Bug(planted.ResendRenewal):
		h.open, h.due = false, in.Now
	default:
		h.look, h.due = true, in.Now
	}
}

func (h *Holder) read(in Input) {
	if in.Err != nil {
		h.due = in.Now.Add(h.timing.retryAfter())
		return
	}
	h.shown(in)
}

// shown processes the row as it is.
func (h *Holder) shown(in Input) {
	h.look = false
	row := in.Row
	switch {
	case row.Dead && h.retiring:
		h.end(ErrRetired)
	case row.Dead:
		h.end(fmt.Errorf("%w: marked dead at counter %d", ErrEnded, row.Counter))
	case row.Counter == h.row.Counter+1 && h.open:
		began := h.eldest // [R1]: any of the attempts may have done it
		if planted.Bug(planted.CountFromRead) {
			began = in.Now
		}
		if planted.Bug(planted.CountFromRetry) {
			began = h.latest
		}
		h.moved(began, in.Now)
	case row.Counter == h.row.Counter:
		h.due = in.Now // none has done it, yet; each still may
		if h.row.Counter > 0 && planted.Bug(planted.ResumeByRead) {
			h.until, h.valid = in.Now.Add(h.timing.validity()), true
		}
	default:
		h.end(fmt.Errorf("%w: counter is %d where %d was written", ErrEnded, row.Counter, h.row.Counter))
	}
}

// moved records that an attempt begun at that instant raised the counter.
func (h *Holder) moved(began, now Instant) {
	h.row.Counter++
	h.open, h.look = false, false
	if h.due = began.Add(h.timing.renewEvery()); h.retiring {
		h.due = now
	}
	h.until = began.Add(h.timing.validity())
	h.valid = now < h.until // false if it took that long
}

func (h *Holder) end(cause error) { h.cause = cause }
