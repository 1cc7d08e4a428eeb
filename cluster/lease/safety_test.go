package lease_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// trial is a holder and its challengers over a row whose operations are delayed, repeated late and lose
// their replies, with clocks that go as wrong as the allowance permits. Peeks may miss what is accepted and not yet
// committed.
type trial struct {
	*rand.Rand
	now     float64 // true time
	agenda  []pending
	row     persistence.Lease // as accepted
	old     persistence.Lease // as committed at the least
	holder  *lease.Holder
	parties []*party
	deadAt  float64
	lapsed  bool // the holder's lease ran out, and was not renewed since
	resumed int  // how often it was
}

// newTrial returns a trial of a holder.
func newTrial(seed uint64) *trial {
	r := &trial{Rand: rand.New(rand.NewPCG(seed, 1)), holder: lease.NewHolder(timing, self, "n1", "n1:7947")}
	r.join(0, r.holder.Step)
	return r
}

// join adds a machine that begins some time from now.
func (r *trial) join(d float64, step func(lease.Input) lease.Outputs) {
	p := &party{step: step, offset: r.Float64() * 1e6, rate: 1 + 0.04*(2*float64(r.IntN(2))-1)}
	r.parties = append(r.parties, p)
	r.after(d, func() { r.feed(p, lease.Input{}) })
}

// next executes what is due next, and pauses a party now and then.
func (r *trial) next() {
	next := r.agenda[0]
	r.agenda = r.agenda[1:]
	r.now = next.at
	next.do()
	if p := r.parties[r.IntN(len(r.parties))]; r.Float64() < 0.003 {
		p.paused = r.now + r.Float64()*3000
	}
}

type pending struct {
	at float64
	do func()
}

// party is a machine with a clock.
type party struct {
	step   func(lease.Input) lease.Outputs
	offset float64
	rate   float64
	paused float64 // until then
}

func (p *party) clock(now float64) lease.Instant { return lease.Instant(p.offset + now*p.rate) }

func (r *trial) after(d float64, f func()) {
	at := r.now + d
	i, _ := slices.BinarySearchFunc(r.agenda, at, func(p pending, at float64) int {
		if p.at <= at {
			return -1
		}
		return 1
	})
	r.agenda = slices.Insert(r.agenda, i, pending{at, f})
}

func (r *trial) latency() float64 {
	switch f := r.Float64(); {
	case f < 0.05:
		return r.Float64() * 2000
	case f < 0.25:
		return r.Float64() * 400
	}
	return 1 + r.Float64()*10
}

// feed hands an input to the party when it is awake, and does what it asks for.
func (r *trial) feed(p *party, in lease.Input) {
	if r.now < p.paused {
		r.after(p.paused-r.now, func() { r.feed(p, in) })
		return
	}
	in.Now = p.clock(r.now)
	before, _ := r.holder.Until()
	out := p.step(in)
	until, valid := r.holder.Until()
	if r.lapsed && valid {
		r.resumed++
	}
	r.lapsed = until > 0 && !valid
	if until != before && r.Float64() < 0.1 {
		p.paused = r.now + r.Float64()*3000 // the worst moment
	}
	if out.Swap != nil {
		r.swap(p, *out.Swap)
	}
	if out.Read || out.Peek {
		r.read(p, out.Peek)
	}
	if out.Wake != lease.Never {
		d := float64(out.Wake-in.Now) / p.rate
		r.after(max(d, 0)+1, func() { r.feed(p, lease.Input{}) })
	}
}

// answered returns a function that answers once: with the given input, or a timeout.
func (r *trial) answered(p *party, timeout lease.Input) func(lease.Input) {
	done := false
	once := func(in lease.Input) {
		if !done {
			done = true
			r.feed(p, in)
		}
	}
	r.after(200, func() { once(timeout) })
	return once
}

func (r *trial) swap(p *party, s lease.Swap) {
	answer := r.answered(p, lease.Input{Kind: lease.InputSwapped, Err: errLost})
	if r.Float64() < 0.1 {
		return
	}
	r.after(r.latency(), func() {
		in := lease.Input{Kind: lease.InputSwapped, Applied: r.row == s.Old}
		r.old = r.row // it completes what was in progress
		if in.Applied {
			r.row = s.Next
			if s.Next.Dead {
				r.deadAt = r.now
			}
		}
		in.Row = r.row
		if reply := r.latency(); r.Float64() < 0.8 {
			r.after(r.Float64()*reply, func() { r.commit(in.Row) })
			r.after(reply, func() { answer(in) })
		}
	})
}

// commit makes all peeks show a row that was accepted.
func (r *trial) commit(row persistence.Lease) {
	if row == r.row {
		r.old = row
	}
}

func (r *trial) read(p *party, peek bool) {
	kind := lease.InputRead
	if peek {
		kind = lease.InputPeeked
	}
	answer := r.answered(p, lease.Input{Kind: kind, Err: persistence.ErrUnavailable})
	r.after(r.latency(), func() {
		in := lease.Input{Kind: kind, Row: r.look(peek)}
		r.after(r.latency(), func() { answer(in) })
	})
}

// look returns the row as a read shows it.
func (r *trial) look(peek bool) persistence.Lease {
	if !peek {
		r.old = r.row
	} else if r.Float64() < 0.5 {
		return r.old
	}
	return r.row
}

// TestNeverDeadWhileValid is the promise of the package: at the moment when the mark is made the holder's
// own clock says that its lease has ended.
func TestNeverDeadWhileValid(t *testing.T) {
	dead, resumed, ended := 0, 0, 0
	for seed := range uint64(10_000) {
		r := newTrial(seed)
		r.join(300, lease.NewWatch(timing, self, false).Step)
		r.join(600, lease.NewWatch(timing, self, false).Step)
		for r.now < 20_000 && r.deadAt == 0 && len(r.agenda) > 0 {
			r.next()
		}
		if r.deadAt > 0 {
			dead++
			if until, ok := r.holder.Until(); ok && r.parties[0].clock(r.deadAt) < until {
				t.Fatalf("seed %d: marked dead at %d of the holder's clock, which is valid until %d",
					seed, r.parties[0].clock(r.deadAt), until)
			}
		}
		// It learns of the mark, and of nothing else that ends it.
		for end := r.now + 10_000; r.deadAt > 0 && r.now < end && r.holder.Ended() == nil; {
			r.next()
		}
		if r.holder.Ended() != nil {
			ended++
		}
		if ended > dead {
			t.Fatalf("seed %d: %v, and nobody marked it", seed, r.holder.Ended())
		}
		resumed += r.resumed
	}
	if dead < 100 || ended < dead*9/10 || resumed < 1000 {
		t.Errorf("%d marks, %d ends and %d leases that were valid again in 10,000 runs: the runs test nothing",
			dead, ended, resumed)
	}
}

// TestNeverConfirmedOnceDead: nothing is confirmed that is decided after a challenger knew of the death, however it
// learned of it. Challengers begin to watch at any time, so the first look of one may show the mark of another.
func TestNeverConfirmedOnceDead(t *testing.T) {
	confirmed, refused := 0, 0
	for seed := range uint64(1500) {
		r := newTrial(seed)
		known := false // some challenger knows
		var challenge func()
		challenge = func() {
			w := lease.NewWatch(timing, self, false)
			r.join(0, func(in lease.Input) lease.Outputs {
				out := w.Step(in)
				known = known || w.Dead() && r.deadAt > 0 // not where it is absent: it may be created yet
				return out
			})
			r.after(20+r.Float64()*300, challenge)
		}
		r.after(300, challenge)
		var queue lease.Confirmer[bool] // whether the death was known when it was decided
		var confirm func()
		confirm = func() {
			queue.Add(known)
			queue.Begin()
			peek := ownership.Confirmation(self).Kind == ownership.OpPeekLease
			r.after(r.latency(), func() {
				row := r.look(peek)
				r.after(r.latency(), func() {
					covered, alive := queue.Done(row, nil)
					switch {
					case !alive:
						refused++
					case covered[0]:
						t.Fatalf("seed %d: confirmed by %+v, which a challenger knows to be %+v", seed, row, r.row)
					default:
						confirmed++
					}
					r.after(1, confirm)
				})
			})
		}
		r.after(10, confirm)
		for r.now < 15_000 && (r.deadAt == 0 || r.now < r.deadAt+1000) {
			r.next()
		}
	}
	if confirmed < 10_000 || refused < 2000 {
		t.Errorf("%d were confirmed and %d refused: the runs test nothing", confirmed, refused)
	}
}
