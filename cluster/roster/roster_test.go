package roster_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"licensed/cluster/roster"
	"licensed/persistence"
)

// rows are lease rows whose reads are counted.
type rows struct {
	mu    sync.Mutex
	row   map[persistence.Incarnation]persistence.Lease
	reads int
	err   error
}

func (r *rows) read(_ context.Context, i persistence.Incarnation) (persistence.Lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	l, ok := r.row[i]
	if r.err != nil {
		return l, r.err
	}
	if !ok {
		return l, persistence.ErrNotFound
	}
	return l, nil
}

func (r *rows) set(l persistence.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.row[l.Incarnation] = l
}

func (r *rows) took() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.reads
	r.reads = 0
	return n
}

// in runs a test with a roster, in a bubble of its own time.
func in(t *testing.T, test func(t *testing.T, r *roster.Roster, rows *rows)) {
	synctest.Test(t, func(t *testing.T) {
		rows := &rows{row: map[persistence.Incarnation]persistence.Lease{}}
		c := roster.DefaultConfig()
		c.Read = rows.read
		r, err := roster.Start(c)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		test(t, r, rows)
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestStates(t *testing.T) {
	in(t, func(t *testing.T, r *roster.Roster, rows *rows) {
		i := persistence.Incarnation{1}
		want := func(state roster.State, address string) {
			t.Helper()
			pass(time.Millisecond)
			if l, s := r.Look(i); s != state || l.Address != address {
				t.Errorf("state %d at %q, want %d at %q", s, l.Address, state, address)
			}
		}
		want(roster.Unknown, "")
		want(roster.Absent, "")
		rows.set(persistence.Lease{Incarnation: i, Address: "n1:7947", Counter: 1})
		pass(2 * time.Second)
		want(roster.Absent, "") // for a while
		pass(2 * time.Second)
		r.Look(i)
		want(roster.Alive, "n1:7947")
		// A death is what the store says, not what is said to it.
		r.Suspect(i)
		pass(time.Second)
		want(roster.Alive, "n1:7947")
		rows.set(persistence.Lease{Incarnation: i, Address: "n1:7947", Counter: 1, Dead: true})
		pass(10 * time.Second)
		want(roster.Alive, "n1:7947") // nobody had a reason to look
		rows.mu.Lock()
		rows.err = persistence.ErrUnavailable
		rows.mu.Unlock()
		r.Suspect(i)
		pass(10 * time.Second)
		want(roster.Alive, "n1:7947")
		rows.mu.Lock()
		rows.err = nil
		rows.mu.Unlock()
		pass(time.Second) // the suspicion stayed
		want(roster.Dead, "n1:7947")
		if _, s, err := r.Await(t.Context(), persistence.Incarnation{2}); s != roster.Absent || err != nil {
			t.Errorf("one that is waited for: %d, %v", s, err)
		}
	})
}

// TestHintsCostLittle: whatever is said by whomever, the store is asked a bounded number of times, and a suspicion
// against a node that exists does not wait for what is said of others.
func TestHintsCostLittle(t *testing.T) {
	in(t, func(t *testing.T, r *roster.Roster, rows *rows) {
		known := persistence.Incarnation{1}
		rows.set(persistence.Lease{Incarnation: known, Counter: 1})
		r.Look(known)
		pass(time.Second)
		rows.took()
		for range 100_000 {
			r.Suspect(persistence.NewIncarnation())
		}
		if pass(time.Second); rows.took() != 0 {
			t.Error("strangers that nobody asks about were read")
		}
		for range 10_000 {
			r.Look(persistence.NewIncarnation())
			r.Suspect(known)
		}
		rows.set(persistence.Lease{Incarnation: known, Counter: 1, Dead: true})
		r.Suspect(known)
		pass(200 * time.Millisecond)
		if _, s := r.Look(known); s != roster.Dead {
			t.Errorf("the suspicion waited: %d", s)
		}
		pass(time.Minute)
		c := roster.DefaultConfig()
		if n := rows.took(); n > c.Waiting+c.PerSecond+10 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestConfig(t *testing.T) {
	if _, err := roster.Start(roster.Config{}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("no configuration: %v", err)
	}
}
