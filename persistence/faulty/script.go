package faulty

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Script says what happens to a call. It is called from many goroutines.
type Script func(Call) Fault

// On is f for calls of these methods, and None for others.
func On(f Script, ops ...Op) Script {
	return func(c Call) Fault {
		if slices.Contains(ops, c.Op) {
			return f(c)
		}
		return Fault{}
	}
}

// Always is the fault for every call.
func Always(f Fault) Script { return func(Call) Fault { return f } }

// Sequence is the faults for the calls of op, in order, counted for each key by itself; None for those
// after.
func Sequence(op Op, faults ...Fault) Script {
	return On(func(c Call) Fault {
		if c.N < uint64(len(faults)) {
			return faults[c.N]
		}
		return Fault{}
	}, op)
}

// First is the first fault other than None that one of the scripts has for a call.
func First(scripts ...Script) Script {
	return func(c Call) Fault {
		for _, s := range scripts {
			if f := s(c); f.Kind != None {
				return f
			}
		}
		return Fault{}
	}
}

// Rates are the probabilities of faults, from 0 to 1 and at most 1 in sum.
type Rates struct {
	Refuse, LoseRequest, LoseReply, Late, Hold, Tear float64
	// MaxDelay is the longest delay of a Late or Hold; if zero they wait to be released.
	MaxDelay time.Duration
}

// Random is faults at these rates. The fault of a call depends on the seed and the call alone, so
// goroutines that call in another order meet the same faults.
func Random(seed uint64, r Rates) Script {
	return func(c Call) Fault {
		// A generator of its own for each call: the order of calls does not matter.
		rng := rand.New(rand.NewPCG(seed, mix(c)))
		f := Fault{Kind: r.pick(rng.Float64())}
		if f.Kind == Tear && c.Records > 0 {
			f.Records = rng.IntN(c.Records)
		}
		if (f.Kind == Late || f.Kind == Hold) && r.MaxDelay > 0 {
			f.Delay = 1 + time.Duration(rng.Int64N(int64(r.MaxDelay)))
		}
		return f
	}
}

// pick returns the kind of fault for a number from 0 to 1.
func (r Rates) pick(x float64) Kind {
	for _, k := range []struct {
		kind Kind
		rate float64
	}{{Refuse, r.Refuse}, {LoseRequest, r.LoseRequest}, {LoseReply, r.LoseReply}, {Late, r.Late}, {Hold, r.Hold},
		{Tear, r.Tear}} {
		if x -= k.rate; x < 0 {
			return k.kind
		}
	}
	return None
}

// mix makes one number of what tells calls apart. The last factor is the golden ratio in
// 64 bits, so that neighbouring calls have unrelated seeds.
func mix(c Call) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(c.Op)})
	_, _ = h.Write([]byte(c.Key))
	return h.Sum64() ^ (c.N+1)*0x9e3779b97f4a7c15
}
