package lease_test

import (
	"errors"
	"testing"
	"time"

	"licensed/cluster/lease"
	"licensed/persistence"
)

var (
	timing = lease.Timing{TTL: 1000, Allowance: 40} // nanoseconds read better than seconds
	self   = persistence.Incarnation{1}
)

const (
	validity = lease.Instant(960)
	renewal  = lease.Instant(250)
)

var errLost = persistence.ErrUnknownOutcome

// holding returns a holder whose lease was created by an attempt at 100 and is at counter 1.
func holding(t *testing.T) *lease.Holder {
	t.Helper()
	h := lease.NewHolder(timing, self, "n1", "n1:7947")
	if _, ok := h.Until(); ok {
		t.Fatal("valid before anything was written")
	}
	out := h.Step(lease.Input{Now: 100})
	want := lease.Swap{Next: persistence.Lease{Incarnation: self, Node: "n1", Address: "n1:7947", Counter: 1}}
	if out.Swap == nil || *out.Swap != want {
		t.Fatalf("first step: %+v", out)
	}
	out = h.Step(lease.Input{Kind: lease.InputSwapped, Now: 150, Applied: true, Row: want.Next})
	wantUntil(t, h, 100+validity)
	if out.Wake != 100+renewal || out.Swap != nil || out.Read {
		t.Fatalf("after creation: %+v", out)
	}
	return h
}

func wantUntil(t *testing.T, h *lease.Holder, want lease.Instant) {
	t.Helper()
	if until, ok := h.Until(); !ok || until != want {
		t.Fatalf("valid until %d (%t), want %d", until, ok, want)
	}
}

func row(counter uint64) persistence.Lease {
	return persistence.Lease{Incarnation: self, Node: "n1", Address: "n1:7947", Counter: counter}
}

func TestRenewalCountsFromItsSending(t *testing.T) {
	h := holding(t)
	out := h.Step(lease.Input{Now: 350})
	if out.Swap == nil || out.Swap.Old != row(1) || out.Swap.Next != row(2) {
		t.Fatalf("renewal: %+v", out)
	}
	if out := h.Step(lease.Input{Now: 360}); out.Swap != nil || out.Read {
		t.Fatalf("a second operation while one is under way: %+v", out)
	}
	wantUntil(t, h, 100+validity)
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 700, Applied: true, Row: row(2)})
	wantUntil(t, h, 350+validity)
}

// TestLostReply loses the reply of a renewal that happened: the read that tells must not prolong the
// lease beyond what the renewal's own reply would have.
func TestLostReply(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	out := h.Step(lease.Input{Kind: lease.InputSwapped, Now: 550, Err: errLost})
	if !out.Read {
		t.Fatalf("after a lost reply: %+v, want a read", out)
	}
	h.Step(lease.Input{Kind: lease.InputRead, Now: 600, Row: row(2)})
	wantUntil(t, h, 350+validity)
}

// TestLostAttemptHappensLate has the row unchanged when it is read, and changed by the first attempt when
// the second arrives.
func TestLostAttemptHappensLate(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 450, Err: errLost})
	out := h.Step(lease.Input{Kind: lease.InputRead, Now: 500, Row: row(1)})
	if out.Swap == nil || out.Swap.Old != row(1) {
		t.Fatalf("after a read that showed no change: %+v, want another attempt", out)
	}
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 600, Row: row(2)})
	wantUntil(t, h, 350+validity)
}

func TestRetryThatIsAppliedCountsForItself(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 450, Err: errLost})
	h.Step(lease.Input{Kind: lease.InputRead, Now: 500, Row: row(1)})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 600, Applied: true, Row: row(2)})
	wantUntil(t, h, 500+validity)
	h.Step(lease.Input{Now: 750})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 760, Err: errLost})
	h.Step(lease.Input{Kind: lease.InputRead, Now: 770, Row: row(3)})
	wantUntil(t, h, 750+validity)
}

func TestRejectedAttemptDoesNothing(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	out := h.Step(lease.Input{Kind: lease.InputSwapped, Now: 400, Err: persistence.ErrRejected})
	if out.Swap != nil || out.Read || out.Wake <= 400 {
		t.Fatalf("after a rejection: %+v, want a pause", out)
	}
	out = h.Step(lease.Input{Now: out.Wake})
	if out.Swap == nil {
		t.Fatalf("after the pause: %+v", out)
	}
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 450, Err: errLost})
	h.Step(lease.Input{Kind: lease.InputRead, Now: 460, Row: row(2)})
	wantUntil(t, h, 420+validity)
}

func TestFailedReadIsRepeated(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 450, Err: errLost})
	out := h.Step(lease.Input{Kind: lease.InputRead, Now: 500, Err: persistence.ErrUnavailable})
	if out.Read || out.Swap != nil || out.Wake != 520 {
		t.Fatalf("after a failed read: %+v", out)
	}
	if out := h.Step(lease.Input{Now: 520}); !out.Read {
		t.Fatalf("after the pause: %+v", out)
	}
}

func TestEnds(t *testing.T) {
	for name, end := range map[string]func(h *lease.Holder){
		"marked dead, seen by renewal": func(h *lease.Holder) {
			dead := row(1)
			dead.Dead = true
			h.Step(lease.Input{Now: 350})
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 360, Row: dead})
		},
		"marked dead, seen by read": func(h *lease.Holder) {
			dead := row(2)
			dead.Dead = true
			h.Step(lease.Input{Now: 350})
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 360, Err: errLost})
			h.Step(lease.Input{Kind: lease.InputRead, Now: 370, Row: dead})
		},
		"row is gone": func(h *lease.Holder) {
			h.Step(lease.Input{Now: 350})
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 360})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := holding(t)
			end(h)
			if _, ok := h.Until(); ok || !errors.Is(h.Ended(), lease.ErrEnded) {
				t.Fatalf("valid: %t, ended: %v", ok, h.Ended())
			}
			if out := h.Step(lease.Input{Now: 5000}); out.Swap != nil || out.Read || out.Wake != lease.Never {
				t.Fatalf("an ended holder wants %+v", out)
			}
		})
	}
}

// TestResumes: a lease that ran out is valid again from before the renewal was sent that turns out to be applied, and
// only then.
func TestResumes(t *testing.T) {
	const late = 100 + validity + 5000
	dead := row(1)
	dead.Dead = true
	for name, c := range map[string]struct {
		answer lease.Input
		from   lease.Instant // of the validity; 0: it is not valid
		ended  bool
	}{
		"applied":     {answer: lease.Input{Kind: lease.InputSwapped, Applied: true, Row: row(2)}, from: late},
		"lost":        {answer: lease.Input{Kind: lease.InputSwapped, Err: errLost}},
		"rejected":    {answer: lease.Input{Kind: lease.InputSwapped, Err: persistence.ErrRejected}},
		"marked dead": {answer: lease.Input{Kind: lease.InputSwapped, Row: dead}, ended: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := holding(t)
			h.Step(lease.Input{Now: 350})
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 400, Err: persistence.ErrRejected})
			if out := h.Step(lease.Input{Now: late}); out.Swap == nil {
				t.Fatalf("no renewal: %+v", out)
			}
			if _, ok := h.Until(); ok || h.Ended() != nil {
				t.Fatalf("valid: %t, ended: %v", ok, h.Ended())
			}
			c.answer.Now = late + 10
			h.Step(c.answer)
			until, ok := h.Until()
			if ok != (c.from != 0) || ok && until != c.from+validity || (h.Ended() != nil) != c.ended {
				t.Fatalf("valid: %t until %d, ended: %v", ok, until, h.Ended())
			}
		})
	}
}

// TestResumesByRead: a read that shows the counter as it was makes no lease valid; one that shows that an attempt was
// applied does, from the first that may have been.
func TestResumesByRead(t *testing.T) {
	h := holding(t)
	h.Step(lease.Input{Now: 350})
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 400, Err: errLost})
	h.Step(lease.Input{Kind: lease.InputRead, Now: 3000, Row: row(1)})
	if _, ok := h.Until(); ok {
		t.Fatal("valid by a read")
	}
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 3100, Err: errLost})
	out := h.Step(lease.Input{Kind: lease.InputRead, Now: 3200, Row: row(2)})
	if _, ok := h.Until(); ok || out.Swap == nil || out.Swap.Old != row(2) {
		t.Fatalf("valid: %t, %+v", ok, out)
	}
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 3300, Applied: true, Row: row(3)})
	if until, ok := h.Until(); !ok || until != 3200+validity {
		t.Fatalf("valid: %t until %d", ok, until)
	}
}

// TestSlowCreation takes longer than the lease lasts, which is no reason to give up.
func TestSlowCreation(t *testing.T) {
	h := lease.NewHolder(timing, self, "n1", "n1:7947")
	h.Step(lease.Input{Now: 100})
	out := h.Step(lease.Input{Kind: lease.InputSwapped, Now: 2000, Applied: true, Row: row(1)})
	if _, ok := h.Until(); ok || out.Swap == nil || out.Swap.Old != row(1) {
		t.Fatalf("valid: %t, %+v", ok, out)
	}
	h.Step(lease.Input{Kind: lease.InputSwapped, Now: 2100, Applied: true, Row: row(2)})
	wantUntil(t, h, 2000+validity)
}

func TestTimingValidates(t *testing.T) {
	if err := lease.DefaultTiming().Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []lease.Timing{{}, {TTL: time.Second}, {TTL: time.Second, Allowance: time.Second / 2}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestSystemClock(t *testing.T) {
	c, err := lease.SystemClock()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Now(), c.Now(); a <= 0 || b < a || b == lease.Never {
		t.Errorf("readings %d, %d", a, b)
	}
}

func BenchmarkSystemClock(b *testing.B) {
	c, err := lease.SystemClock()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c.Now()
	}
}

// TestRetire gives a lease up: no renewal any more, the row is marked dead by its own holder.
func TestRetire(t *testing.T) {
	dead := row(1)
	dead.Dead = true
	for name, answer := range map[string]func(h *lease.Holder){
		"applied": func(h *lease.Holder) {
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 210, Applied: true, Row: dead})
		},
		"reply lost": func(h *lease.Holder) {
			if out := h.Step(lease.Input{Kind: lease.InputSwapped, Now: 300, Err: errLost}); !out.Read {
				t.Fatalf("after a lost reply: %+v", out)
			}
			h.Step(lease.Input{Kind: lease.InputRead, Now: 310, Row: dead})
		},
		"request lost": func(h *lease.Holder) {
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 300, Err: errLost})
			if out := h.Step(lease.Input{Kind: lease.InputRead, Now: 310, Row: row(1)}); out.Swap == nil ||
				out.Swap.Next != dead {
				t.Fatalf("after the read: %+v", out)
			}
			h.Step(lease.Input{Kind: lease.InputSwapped, Now: 320, Applied: true, Row: dead})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := holding(t)
			h.Retire()
			if out := h.Step(lease.Input{Now: 200}); out.Swap == nil || out.Swap.Old != row(1) ||
				out.Swap.Next != dead {
				t.Fatalf("retiring: %+v", out)
			}
			answer(h)
			if !errors.Is(h.Ended(), lease.ErrRetired) {
				t.Fatalf("ended: %v", h.Ended())
			}
		})
	}
}
