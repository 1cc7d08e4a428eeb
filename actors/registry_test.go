package actors

import (
	"fmt"
	"testing"
	"time"
)

// idleDispatcher runs nothing: what is posted stays in the mailbox.
type idleDispatcher struct{}

func (idleDispatcher) Schedule(func()) {}
func (idleDispatcher) Throughput() int { return 1 }

// entries fills a registry with aggregates of one byte each, used one after the other.
func entries(g *registry, n int) []*entry {
	all := make([]*entry, n)
	for i := range all {
		all[i], _ = g.acquire(fmt.Sprint(i), time.Duration(i),
			&Config{MaxQueue: 1, MaxPerShard: 1 << 20}, func(id string) *entry {
				a := &activation{}
				a.entry.id, a.entry.act, a.mailbox.dispatcher = id, a, idleDispatcher{}
				return &a.entry
			})
		g.resize(all[i], 1)
	}
	return all
}

// TestSweepEnds: aggregates that cannot leave are not asked again before the next sweep, however often they
// answer meanwhile.
func TestSweepEnds(t *testing.T) {
	const n = 200
	var g registry
	g.init(1, func(string) uint32 { return 0 })
	all := entries(&g, n)
	g.sweepIdle(n/2, 0) // half of them are packed
	for sweep := range 3 {
		g.sweeps++
		asked := map[*entry]bool{}
		for g.retireOldest() {
			for _, e := range all {
				if e.lru != &g.stripe[stripeOf(e.id)].leaving {
					continue
				}
				if asked[e] {
					t.Fatalf("sweep %d: %s was asked twice", sweep, e.id)
				}
				asked[e] = true
				g.stay(e)
			}
		}
		if len(asked) != n {
			t.Errorf("sweep %d: %d of %d were asked", sweep, len(asked), n)
		}
		if got := g.leaving.Load(); got != 0 {
			t.Errorf("sweep %d: %d bytes are leaving", sweep, got)
		}
	}
}

// TestIdleness: time in which the process owns nothing does not count, for aggregates that were used before it.
func TestIdleness(t *testing.T) {
	i := idleness{after: 100}
	for _, step := range []struct {
		now       time.Duration
		suspended bool
		sweeps    bool
		before    time.Duration
	}{
		{10, false, true, -90},
		{120, false, true, 20},
		{130, true, false, 0},
		{200, true, false, 0},
		{210, false, true, 30},  // who was used at 29 was idle for 101 until 130
		{299, false, true, 119}, // who was used at 119 was idle for 11 until 120, and for 89 since 210
		{301, false, true, 201}, // who was used at 200 or before has left
		{310, true, false, 0},
		{320, false, true, 211},
	} {
		sweeps := i.look(step.now, step.suspended)
		if sweeps != step.sweeps || sweeps && i.before(step.now) != step.before {
			t.Errorf("at %d: sweeps: %t, before %d; want %t, %d",
				step.now, sweeps, i.before(step.now), step.sweeps, step.before)
		}
	}
}
