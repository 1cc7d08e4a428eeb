package actors_test

import (
	"fmt"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
)

// pauses returns the time an aggregate waits after each of the first n appends of unknown outcome.
func pauses(id string, c actors.Config, n int) []time.Duration {
	env := actors.Environment{Kind: actorstest.Ledger{}, Config: c, Incarnation: persistence.Incarnation{1}}
	m := actors.NewMachine(&env, id, 1, 0)
	now := machineEpoch
	step := func(in actors.Input) *actors.Outputs {
		in.Now, in.Steady, in.Held = now, now, true
		return m.Step(in)
	}
	step(actors.Input{
		Request: &actors.Request{Command: actors.Command{ID: "c", IssuedAt: now, Payload: actorstest.Add{Amount: 1}}},
	})
	step(actors.Input{Kind: actors.InputTop, Err: persistence.ErrNotFound})
	step(actors.Input{Kind: actors.InputRootWritten})
	var all []time.Duration
	for range n {
		at := step(actors.Input{Kind: actors.InputAppended, Err: persistence.ErrUnknownOutcome}).Wake
		all = append(all, at.Sub(now))
		now = at
		step(actors.Input{Kind: actors.InputTick})
	}
	return all
}

// TestRetriesSpread: aggregates whose writes failed at the same time do not come back at the same time, and each
// does what it did before.
func TestRetriesSpread(t *testing.T) {
	const aggregates, attempts = 1000, 12
	c := actors.DefaultConfig()
	var buckets [10]int // of the last pause, from half of RetryMax to all of it
	for i := range aggregates {
		id := fmt.Sprint("a", i)
		got := pauses(id, c, attempts)
		if again := pauses(id, c, attempts); fmt.Sprint(got) != fmt.Sprint(again) {
			t.Fatalf("%s waits %v, then %v", id, got, again)
		}
		for attempt, p := range got {
			if full := min(c.RetryMin<<attempt, c.RetryMax); p < max(full/2, c.RetryMin) || p > full {
				t.Fatalf("%s waits %v after attempt %d, want %v at most, and half of it", id, p, attempt, full)
			}
		}
		buckets[min(9, 20*(got[attempts-1]-c.RetryMax/2)/c.RetryMax)]++
	}
	for i, n := range buckets {
		if n < aggregates/20 || n > aggregates/5 {
			t.Errorf("%d of %d wait for tenth %d of the span", n, aggregates, i)
		}
	}
}

// TestRetriesKnowNoWrongClock: an attempt that failed while the clock was ahead is repeated when the clock is right
// again.
func TestRetriesKnowNoWrongClock(t *testing.T) {
	env := actors.Environment{
		Kind: actorstest.Ledger{}, Config: actors.DefaultConfig(), Incarnation: persistence.Incarnation{1},
	}
	m := actors.NewMachine(&env, "a", 1, 0)
	now, steady := machineEpoch, machineEpoch
	step := func(in actors.Input) *actors.Outputs {
		in.Now, in.Steady, in.Held = now, steady, true
		return m.Step(in)
	}
	step(actors.Input{
		Request: &actors.Request{Command: actors.Command{ID: "c", IssuedAt: now, Payload: actorstest.Add{Amount: 1}}},
	})
	step(actors.Input{Kind: actors.InputTop, Err: persistence.ErrNotFound})
	step(actors.Input{Kind: actors.InputRootWritten})
	now = now.Add(24 * time.Hour)
	step(actors.Input{Kind: actors.InputAppended, Err: persistence.ErrUnknownOutcome})
	now, steady = machineEpoch, steady.Add(env.Config.RetryMax)
	if out := step(actors.Input{Kind: actors.InputTick}); out.Append == nil {
		t.Errorf("nothing is repeated until the clock gets to %v again", out.Wake)
	}
}
