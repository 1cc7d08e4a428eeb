package fallback

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"licensed/actors"
	"licensed/persistence"
)

// TestBreakerOpensByARow: under load the successes of the last two seconds do not keep a breaker closed; an owner of
// which some requests fail between others stays in use.
func TestBreakerOpensByARow(t *testing.T) {
	var all breakers
	b := all.of(breakerKey{owner: persistence.NewIncarnation()})
	for range 100 * minFailing {
		b.succeeded()
	}
	for range minFailing - 1 {
		b.failed()
	}
	b.succeeded()
	for range minFailing - 1 {
		b.failed()
	}
	if !b.IsClosed() {
		t.Fatal("opened by failures between successes")
	}
	b.failed()
	if !b.IsOpen() {
		t.Errorf("closed after %d failures in a row", minFailing)
	}
}

// TestBehindOthers: commands that wait behind those that are being handed in say nothing about the owner.
func TestBehindOthers(t *testing.T) {
	o := &owner{}
	f := newFallback(t, o, t.TempDir())
	if _, err := f.Defer(t.Context(), "Bayley", command("c1", false), held, actors.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	o.set(func() { o.hang = hang })
	var wg sync.WaitGroup
	wg.Go(func() { f.settleAll(t.Context()) })
	until(func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.calls == 1 })
	f.config.Patience = time.Millisecond
	for i := range 2 * minFailing {
		_, err := f.Execute(t.Context(), "Bayley", command(fmt.Sprint("r", i), true), true)
		if errors.Is(err, ErrOpen) {
			t.Fatalf("the breaker opened after %d commands", i)
		}
	}
	close(hang)
	wg.Wait()
}

// TestPace: more customers are handed in at the same time while the owner answers in time, and fewer while it does not.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		round := func(n int, took time.Duration, err error) {
			sent := time.Now()
			time.Sleep(took)
			for range n {
				p.answered(sent, err)
			}
		}
		round(firstPace, time.Millisecond, nil)
		if p.limit != 2*firstPace {
			t.Errorf("%v after a round of answers in time, want %v", p.limit, 2*firstPace)
		}
		round(maxPace, time.Millisecond, nil)
		if p.limit != maxPace {
			t.Errorf("%v after answers in time, want %v", p.limit, maxPace)
		}
		round(maxPace, 2*inTime, nil)
		if late := paceKept * maxPace; p.limit != late {
			t.Errorf("%v after a round of late answers, want %v", p.limit, late)
		}
		before := p.limit
		round(int(p.limit), time.Millisecond, nil)
		if p.limit < before+0.9 || p.limit > before+1 {
			t.Errorf("%v after a round of answers in time, %v before", p.limit, before)
		}
		for range 100 {
			round(1, time.Millisecond, actors.ErrOverloaded)
		}
		if p.limit != minPace {
			t.Errorf("%v after failures, want %v", p.limit, minPace)
		}
		for range minPace {
			p.enter()
		}
		entered := make(chan struct{})
		go func() { p.enter(); close(entered) }()
		synctest.Wait()
		select {
		case <-entered:
			t.Error("one too many")
		default:
		}
		p.leave()
		<-entered
		if p.used != minPace {
			t.Errorf("%d at the same time, want %d", p.used, minPace)
		}
	})
}

// TestPatienceWhileRecovering: requests wait longer for an owner that answers again and has a backlog.
func TestPatienceWhileRecovering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all breakers
		b := all.of(breakerKey{owner: persistence.NewIncarnation()})
		f := &Fallback{config: Config{
			Journal: &Journal{length: longBacklog}, Patience: 50 * time.Millisecond,
		}}
		want := func(when string, want time.Duration) {
			t.Helper()
			if got := f.patience(b); got != want {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		b.succeeded()
		want("at first", 50*time.Millisecond)
		for range minFailing {
			b.failed()
		}
		want("in the outage", 50*time.Millisecond)
		time.Sleep(2 * probePause)
		if !b.TryAcquirePermit() {
			t.Fatal("no probe")
		}
		b.succeeded()
		want("after the outage", maxWait)
		for range minFailing {
			b.failed()
		}
		want("in the next outage", 50*time.Millisecond)
		time.Sleep(2 * probePause)
		b.TryAcquirePermit()
		b.succeeded()
		want("after the next outage", maxWait)
		f.config.Journal.length = longBacklog - 1
		want("when nearly all is settled", 50*time.Millisecond)
	})
}
