package lease_test

import (
	"testing"

	"licensed/cluster/lease"
	"licensed/persistence"
)

const patience = lease.Instant(1040)

// watching returns a watch that saw counter 7 arrive at 100, having asked at 50.
func watching(t *testing.T) *lease.Watch {
	t.Helper()
	w := lease.NewWatch(timing, self, false)
	if out := w.Step(lease.Input{Now: 50}); !out.Peek {
		t.Fatalf("first step: %+v", out)
	}
	w.Step(lease.Input{Kind: lease.InputPeeked, Now: 100, Row: row(7)})
	if since, ok := w.Silent(); !ok || since != 100 {
		t.Fatalf("silent since %d (%t)", since, ok)
	}
	return w
}

// look has the watch read until an instant, seeing the same row, and returns what it then wants.
func look(w *lease.Watch, from, until lease.Instant, row persistence.Lease) lease.Outputs {
	now := from
	for out := w.Step(lease.Input{Now: now}); ; {
		switch {
		case out.Read:
			out = w.Step(lease.Input{Kind: lease.InputRead, Now: now, Row: row})
		case out.Peek:
			out = w.Step(lease.Input{Kind: lease.InputPeeked, Now: now, Row: row})
		case out.Swap != nil || out.Wake > until:
			return out
		default:
			now = out.Wake
			out = w.Step(lease.Input{Now: now})
		}
	}
}

func TestMarksAfterPatience(t *testing.T) {
	w := watching(t)
	if out := look(w, 100, 100+patience-1, row(7)); out.Swap != nil {
		t.Fatalf("marked too early: %+v", out)
	}
	out := w.Step(lease.Input{Now: 100 + patience})
	dead := row(7)
	dead.Dead = true
	if out.Swap == nil || out.Swap.Old != row(7) || out.Swap.Next != dead {
		t.Fatalf("at the end of patience: %+v", out)
	}
	if w.Dead() {
		t.Fatal("dead before the mark is known")
	}
	w.Step(lease.Input{Kind: lease.InputSwapped, Now: 1200, Applied: true, Row: dead})
	if !w.Dead() {
		t.Fatal("not dead after the mark")
	}
}

func TestSignOfLifeStartsAnew(t *testing.T) {
	w := watching(t)
	look(w, 100, 900, row(7))
	look(w, 900, 1100, row(8))
	since, _ := w.Silent()
	if since <= 100 {
		t.Fatalf("silent since %d", since)
	}
	if out := look(w, 1100, since+patience-1, row(8)); out.Swap != nil {
		t.Fatalf("marked too early: %+v", out)
	}
	// A reply that was long in progress shows what is known to be over.
	if out := look(w, since+patience-1, since+patience-1, row(7)); out.Swap != nil {
		t.Fatalf("marked too early: %+v", out)
	}
	if out := w.Step(lease.Input{Now: since + patience}); out.Swap == nil || out.Swap.Old != row(8) {
		t.Fatalf("at the end of patience: %+v", out)
	}
}

func TestMarkLosesToARenewal(t *testing.T) {
	w := watching(t)
	if out := look(w, 100, 100+patience, row(7)); out.Swap == nil {
		t.Fatalf("at the end of patience: %+v", out)
	}
	w.Step(lease.Input{Kind: lease.InputSwapped, Now: 1200, Row: row(8)})
	if since, _ := w.Silent(); w.Dead() || since != 1200 {
		t.Fatalf("dead: %t, silent since %d", w.Dead(), since)
	}
}

func TestLostMark(t *testing.T) {
	dead := row(7)
	dead.Dead = true
	for name, c := range map[string]struct {
		row  persistence.Lease
		dead bool
	}{"applied": {dead, true}, "not applied": {row(7), false}} {
		t.Run(name, func(t *testing.T) {
			w := watching(t)
			look(w, 100, 100+patience, row(7))
			out := w.Step(lease.Input{Kind: lease.InputSwapped, Now: 1200, Err: errLost})
			if !out.Read || w.Dead() {
				t.Fatalf("after a lost reply: %+v, dead: %t", out, w.Dead())
			}
			out = w.Step(lease.Input{Kind: lease.InputRead, Now: 1300, Row: c.row})
			if w.Dead() != c.dead || (out.Swap != nil) == c.dead {
				t.Fatalf("after the read: dead: %t, %+v", w.Dead(), out)
			}
		})
	}
}

func TestFormerSelfNeedsNoWait(t *testing.T) {
	w := lease.NewWatch(timing, self, true)
	w.Step(lease.Input{Now: 50})
	if out := w.Step(lease.Input{Kind: lease.InputPeeked, Now: 60, Row: row(7)}); out.Swap == nil {
		t.Fatalf("after the first look: %+v", out)
	}
}

// TestOutageEndsNoLease: where the store did not answer for a while, patience begins anew with its next answer. Before
// that nothing is marked.
func TestOutageEndsNoLease(t *testing.T) {
	w := watching(t)
	look(w, 100, 300, row(7))
	look(w, 300, 600, row(8))
	now := lease.Instant(600)
	for out := w.Step(lease.Input{Now: now}); now < 20_000; {
		switch {
		case out.Swap != nil:
			t.Fatalf("marked at %d, while the store did not answer", now)
		case out.Read:
			now += 300
			out = w.Step(lease.Input{Kind: lease.InputRead, Now: now, Err: persistence.ErrUnavailable})
		case out.Peek:
			now += 300
			out = w.Step(lease.Input{Kind: lease.InputPeeked, Now: now, Err: persistence.ErrUnavailable})
		default:
			now = max(now+1, out.Wake)
			out = w.Step(lease.Input{Now: now})
		}
	}
	// One look is answered, if with the former counter.
	if out := w.Step(lease.Input{Kind: lease.InputRead, Now: now, Row: row(8)}); out.Swap != nil {
		t.Fatalf("marked as soon as the store answers: %+v", out)
	}
	if out := look(w, now, now+patience-1, row(8)); out.Swap != nil {
		t.Fatalf("marked too early: %+v", out)
	}
	if out := look(w, now+patience-1, now+patience, row(8)); out.Swap == nil {
		t.Fatalf("at the end of patience: %+v", out)
	}
}

// TestOverdueRenewalIsSettled: looks are plain reads while renewals come in time. One that is overdue may be accepted
// and unfinished, so later looks complete it.
func TestOverdueRenewalIsSettled(t *testing.T) {
	w := watching(t)
	var peeks, reads []lease.Instant
	for now := lease.Instant(100); now < 100+patience; {
		switch out := w.Step(lease.Input{Now: now}); {
		case out.Peek:
			peeks = append(peeks, now)
			w.Step(lease.Input{Kind: lease.InputPeeked, Now: now, Row: row(7)})
		case out.Read:
			reads = append(reads, now)
			w.Step(lease.Input{Kind: lease.InputRead, Now: now, Row: row(7)})
		default:
			now = out.Wake
		}
	}
	const overdue = 100 + 2*250
	if len(peeks) == 0 || len(reads) < 2 || peeks[len(peeks)-1] >= overdue || reads[0] < overdue ||
		reads[0] > overdue+125 {
		t.Errorf("plain reads at %d, linearizable ones at %d", peeks, reads)
	}
}

// TestPeekMissesRow: that a plain read shows no row does not mean that there is none.
func TestPeekMissesRow(t *testing.T) {
	w := lease.NewWatch(timing, self, false)
	w.Step(lease.Input{Now: 50})
	out := w.Step(lease.Input{Kind: lease.InputPeeked, Now: 100})
	if _, seen := w.Silent(); seen || !out.Read {
		t.Fatalf("seen: %t, %+v", seen, out)
	}
	out = w.Step(lease.Input{Kind: lease.InputRead, Now: 100})
	if since, seen := w.Silent(); !seen || since != 100 {
		t.Fatalf("silent since %d (%t)", since, seen)
	}
	for now := out.Wake; !w.Dead(); now = out.Wake {
		if out = w.Step(lease.Input{Now: now}); !out.Read {
			t.Fatalf("at %d: %+v", now, out)
		}
		out = w.Step(lease.Input{Kind: lease.InputRead, Now: now})
	}
}

// TestOwnerWithoutRow: one that has no row is dead when reads showed none for as long as patience lasts. No row is
// created.
func TestOwnerWithoutRow(t *testing.T) {
	for name, over := range map[string]bool{"other": false, "former self": true} {
		t.Run(name, func(t *testing.T) {
			w := lease.NewWatch(timing, self, over)
			w.Step(lease.Input{Now: 50})
			w.Step(lease.Input{Kind: lease.InputRead, Now: 100})
			if out := look(w, 100, 100+patience-1, persistence.Lease{}); out.Swap != nil || w.Dead() {
				t.Fatalf("too early: %+v, dead: %t", out, w.Dead())
			}
			if w.Step(lease.Input{Now: 200 + patience}); w.Dead() {
				t.Fatal("dead without a read that says so")
			}
			if out := w.Step(lease.Input{Kind: lease.InputRead, Now: 200 + patience}); out.Swap != nil || !w.Dead() {
				t.Fatalf("at the end of patience: %+v, dead: %t", out, w.Dead())
			}
		})
	}
}

// TestRowAppears: a row that is created late is watched like any other.
func TestRowAppears(t *testing.T) {
	w := lease.NewWatch(timing, self, false)
	w.Step(lease.Input{Now: 50})
	w.Step(lease.Input{Kind: lease.InputRead, Now: 100})
	look(w, 100, 1000, persistence.Lease{})
	look(w, 1000, 1500, row(1))
	since, _ := w.Silent()
	if w.Dead() || since < 1000 {
		t.Fatalf("dead: %t, silent since %d", w.Dead(), since)
	}
	if out := look(w, 1500, since+patience, row(1)); out.Swap == nil || out.Swap.Old != row(1) {
		t.Fatalf("at the end of patience: %+v", out)
	}
}

// TestRowDeleted: a row that was deleted by hand is not created again as a dead one.
func TestRowDeleted(t *testing.T) {
	w := watching(t)
	if out := look(w, 100, 100+patience, row(7)); out.Swap == nil {
		t.Fatalf("at the end of patience: %+v", out)
	}
	out := w.Step(lease.Input{Kind: lease.InputSwapped, Now: 1200})
	if out.Swap != nil || w.Dead() {
		t.Fatalf("after the mark met no row: %+v, dead: %t", out, w.Dead())
	}
	if out := look(w, 1200, 1500+patience, persistence.Lease{}); out.Swap != nil || !w.Dead() {
		t.Fatalf("at the end of patience: %+v, dead: %t", out, w.Dead())
	}
}

func TestConfirmer(t *testing.T) {
	var c lease.Confirmer[int]
	if c.Begin() {
		t.Fatal("a read for nothing")
	}
	c.Add(1)
	c.Add(2)
	if !c.Begin() || c.Begin() {
		t.Fatal("want one read")
	}
	c.Add(3) // decided after the read began: not covered
	if got, alive := c.Done(row(1), nil); !alive || len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Fatalf("covered %v, alive: %t", got, alive)
	}
	if !c.Begin() {
		t.Fatal("no read for what came meanwhile")
	}
	if got, alive := c.Done(row(1), nil); !alive || len(got) != 1 || got[0] != 3 {
		t.Fatalf("covered %v, alive: %t", got, alive)
	}
	dead := row(1)
	dead.Dead = true
	for name, read := range map[string]func() ([]int, bool){
		"dead":        func() ([]int, bool) { return c.Done(dead, nil) },
		"no row":      func() ([]int, bool) { return c.Done(persistence.Lease{}, nil) },
		"failed read": func() ([]int, bool) { return c.Done(row(1), persistence.ErrUnavailable) },
	} {
		c.Add(4)
		c.Begin()
		if got, alive := read(); alive || len(got) != 1 {
			t.Errorf("%s: covered %v, alive: %t", name, got, alive)
		}
	}
}

// TestWatchKeepsInStep: each renewal is seen soon after it was made, at little more than a look for each.
func TestWatchKeepsInStep(t *testing.T) {
	w := lease.NewWatch(timing, self, false)
	const period, begun = lease.Instant(250), lease.Instant(123)
	counter := func(at lease.Instant) uint64 { return uint64((at-begun)/period) + 1 }
	looks, from, last := 0, 20*period, 400*period
	for now := begun; now < last; {
		out := w.Step(lease.Input{Now: now})
		for out.Peek {
			if now > from {
				looks++
			}
			out = w.Step(lease.Input{Kind: lease.InputPeeked, Now: now, Row: row(counter(now))})
			since, _ := w.Silent()
			if late := (since - begun) % period; now > from && late > lease.Instant(timing.TTL/32)+1 {
				t.Fatalf("a renewal was seen %d after it was made", late)
			}
		}
		if out.Swap != nil || out.Read {
			t.Fatalf("at one that renews, at %d: %+v", now, out)
		}
		now = out.Wake
	}
	if most := int(last-from)/int(period)*5/4 + 1; looks > most {
		t.Errorf("%d looks at %d renewals", looks, int(last-from)/int(period))
	}
}
