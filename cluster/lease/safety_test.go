package lease_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"licensed/cluster/lease"
	"licensed/persistence"
)

// trial is a holder and its challengers over a row whose operations are delayed, repeated late and lose
// their replies, with clocks that go as wrong as the allowance permits.
type trial struct {
	*rand.Rand
	now     float64 // true time
	agenda  []pending
	row     persistence.Lease
	holder  *lease.Holder
	parties []*party
	deadAt  float64
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
	if until, _ := r.holder.Until(); until != before && r.Float64() < 0.1 {
		p.paused = r.now + r.Float64()*3000 // the worst moment
	}
	if out.Swap != nil {
		r.swap(p, *out.Swap)
	}
	if out.Read {
		r.read(p)
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
		if in.Applied {
			r.row = s.Next
			if s.Next.Dead {
				r.deadAt = r.now
			}
		}
		in.Row = r.row
		if r.Float64() < 0.8 {
			r.after(r.latency(), func() { answer(in) })
		}
	})
}

func (r *trial) read(p *party) {
	answer := r.answered(p, lease.Input{Kind: lease.InputRead, Err: persistence.ErrUnavailable})
	r.after(r.latency(), func() {
		in := lease.Input{Kind: lease.InputRead, Row: r.row}
		r.after(r.latency(), func() { answer(in) })
	})
}

// TestNeverDeadWhileValid is the promise of the package: at the moment when the mark is made the holder's
// own clock says that its lease has ended.
func TestNeverDeadWhileValid(t *testing.T) {
	dead, expired := 0, 0
	for seed := range uint64(1500) {
		r := &trial{Rand: rand.New(rand.NewPCG(seed, 1))}
		r.holder = lease.NewHolder(timing, self, "n1", "n1:7947")
		r.parties = []*party{{step: r.holder.Step}}
		for range 2 {
			r.parties = append(r.parties, &party{step: lease.NewWatch(timing, self, false).Step})
		}
		for i, p := range r.parties {
			p.offset, p.rate = r.Float64()*1e6, 1+0.04*(2*float64(r.IntN(2))-1)
			r.after(float64(i)*300, func() { r.feed(p, lease.Input{}) })
		}
		for r.now < 60_000 && r.deadAt == 0 && len(r.agenda) > 0 {
			next := r.agenda[0]
			r.agenda = r.agenda[1:]
			r.now = next.at
			next.do()
			if p := r.parties[r.IntN(len(r.parties))]; r.Float64() < 0.003 {
				p.paused = r.now + r.Float64()*3000
			}
		}
		if r.deadAt > 0 {
			dead++
			if until, ok := r.holder.Until(); ok && r.parties[0].clock(r.deadAt) < until {
				t.Fatalf("seed %d: marked dead at %d of the holder's clock, which is valid until %d",
					seed, r.parties[0].clock(r.deadAt), until)
			}
		}
		if r.holder.Ended() != nil {
			expired++
		}
	}
	if dead < 100 || expired < 50 {
		t.Errorf("%d marks and %d ends in 1500 runs: the runs test nothing", dead, expired)
	}
}
