package lease

import (
	"errors"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Watch looks at the lease of one other incarnation until it is dead, and marks it so when it has shown
// no sign of life for long enough.
type Watch struct {
	timing Timing
	seen   bool
	row    persistence.Lease // as last seen; zero if there was no row
	// since is the arrival of the reply that first showed row, or first showed that there was none; later if the store
	// did not answer for a while.
	since  Instant
	heard  Instant // arrival of the last reply of the store
	over   bool    // its process says itself that it ended: no need to wait
	dead   bool
	flight flight
	look   bool // a linearizable read is needed before marking
	due    Instant

	incarnation persistence.Incarnation
}

// NewWatch returns the watch of an incarnation. Over says that its process is known to have stopped for
// good, other than by its silence: it is the former self of the process that watches.
func NewWatch(t Timing, i persistence.Incarnation, over bool) *Watch {
	return &Watch{timing: t, incarnation: i, over: over}
}

// Dead reports whether the incarnation was seen to be marked dead, or to have had no row for as long as patience
// lasts. It stays so.
func (w *Watch) Dead() bool { return w.dead }

// Silent returns since when the counter was seen unchanged; false before the first look.
func (w *Watch) Silent() (Instant, bool) { return w.since, w.seen }

// Poke has the next step look at the row, whenever the next look was due.
func (w *Watch) Poke() { w.due = 0 }

// Step handles one input.
func (w *Watch) Step(in Input) Outputs {
	switch in.Kind {
	case InputSwapped:
		w.flight = flightNone
		w.swapped(in)
	case InputRead:
		w.flight = flightNone
		w.read(in)
	case InputPeeked:
		w.flight = flightNone
		w.peeked(in)
	}
	out := Outputs{Wake: Never}
	if w.dead || w.flight != flightNone {
		return out
	}
	marks := !w.look && w.recent(in.Now) && (!w.absent() || planted.Bug(planted.MarkStranger))
	if marks && w.expired(in.Now) {
		w.flight, out.Swap = flightSwap, w.mark()
		return out
	}
	if in.Now >= w.due {
		settle := w.settles(in.Now)
		w.flight, out.Read, out.Peek = flightRead, settle, !settle
		return out
	}
	out.Wake = w.due
	if w.seen && marks {
		out.Wake = min(out.Wake, w.since.Add(w.timing.patience()))
	}
	return out
}

// expired reports whether the incarnation may be marked dead ([R2]).
func (w *Watch) expired(now Instant) bool {
	patience := w.timing.patience()
	if planted.Bug(planted.MarkWithoutPatience) {
		patience = w.timing.TTL / 2
	}
	return w.seen && (w.over || now.Sub(w.since) >= patience)
}

// recent reports whether the store answered lately. If it did not, the holder could perhaps not renew its lease either,
// and a node that only its store left alone keeps what it has: patience begins anew when the store answers.
func (w *Watch) recent(now Instant) bool {
	return w.over || now.Sub(w.heard) <= w.timing.unheard() || planted.Bug(planted.MarkAfterOutage)
}

// absent reports whether there was no row when it was last seen.
func (w *Watch) absent() bool { return w.row == persistence.Lease{} }

// mark returns the compare-and-set that ends the incarnation, provided that its counter still stands. No row is ever
// created: an incarnation owns nothing before its own row is known to exist.
func (w *Watch) mark() *Swap {
	s := &Swap{Old: w.row, Next: w.row}
	s.Next.Incarnation, s.Next.Dead = w.incarnation, true
	return s
}

func (w *Watch) swapped(in Input) {
	switch {
	case in.Err == nil && in.Applied && in.Row.Dead:
		w.dead = true
	case in.Err == nil && in.Row == (persistence.Lease{}): // deleted by hand, since the mark was sent after it was seen
		w.row, w.since, w.due = in.Row, in.Now, w.next(in.Now)
	case in.Err == nil && planted.Bug(planted.MarkWhateverCounter):
		w.row = in.Row // and the next step marks it again
	case in.Err == nil:
		w.shown(in)
	case errors.Is(in.Err, persistence.ErrRejected):
		w.look, w.due = true, in.Now.Add(w.timing.pollEvery())
	case planted.Bug(planted.UnknownDeathIsMade):
		w.dead = true
	default:
		w.look, w.due = true, in.Now
	}
}

func (w *Watch) read(in Input) {
	if in.Err != nil {
		w.due = in.Now.Add(w.timing.retryAfter())
		return
	}
	w.shown(in)
}

// settles reports whether the next look must be linearizable with the compare-and-sets, which also completes one that
// is in progress. A plain read is enough to see that the counter moved: the mark compares it again ([R2]). It is not
// where no mark follows, because there is no row, and after a mark of unknown outcome. An overdue renewal may have
// been accepted by the store and left unfinished. Completed now, it does not fail the mark later.
func (w *Watch) settles(now Instant) bool {
	return w.look || w.seen && (w.absent() || now >= w.since.Add(2*w.timing.renewEvery()))
}

// peeked processes what a plain read showed. That there is no row is for a linearizable read to say.
func (w *Watch) peeked(in Input) {
	if in.Err == nil && in.Row == (persistence.Lease{}) {
		w.look, w.due = true, in.Now
		return
	}
	w.read(in)
}

// shown processes the row as it was at some moment before now. Rows older than one seen before, from a
// reply that was long in progress, tell nothing.
func (w *Watch) shown(in Input) {
	w.look = false
	if !w.recent(in.Now) {
		w.since = in.Now
	}
	w.heard = in.Now
	switch {
	case in.Row.Dead:
		w.dead = true
	case w.seen && w.absent() && in.Row == w.row:
		w.dead = in.Now.Sub(w.since) >= w.timing.patience()
	case !w.seen || in.Row.Counter > w.row.Counter:
		if !w.seen || !planted.Bug(planted.PatienceFromBefore) {
			w.since = in.Now
		}
		w.seen, w.row = true, in.Row
	}
	w.due = w.next(in.Now)
}

// next returns when to look again. Renewals come regularly, so the next one is looked for a little sooner after the
// last look than they follow one another. So each is seen sooner after it was made than the one before, until a look
// comes too early; the next one shows the renewal. That costs nine looks for eight renewals, and keeps in step with
// them.
func (w *Watch) next(now Instant) Instant {
	every, expected := w.timing.lookEvery(), w.since.Add(w.timing.renewEvery())
	soon := expected.Add(-every / 8)
	switch {
	case now < soon:
		return soon
	case now < expected.Add(w.timing.renewEvery()):
		return now.Add(every)
	default:
		return now.Add(w.timing.pollEvery())
	}
}
