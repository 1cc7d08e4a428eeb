package budget_test

import (
	"errors"
	"sync"
	"testing"

	"licensed/internal/budget"
)

var (
	bayley = budget.FromRemote("192.0.2.1:1234")
	matt   = budget.FromRemote("192.0.2.2:1234")
)

// exceeded returns which bound an error says was met, "" for no error.
func exceeded(t *testing.T, err error) budget.Scope {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *budget.ExceededError
	if !errors.As(err, &e) || e.Budget != "bytes" {
		t.Fatalf("not an error of the budget: %v", err)
	}
	return e.Scope
}

func TestLimitAndShare(t *testing.T) {
	b := budget.New("bytes", 100, 0.4)
	g, err := b.Take(30, bayley)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Resize(41); exceeded(t, err) != budget.Share || g.Size() != 30 {
		t.Errorf("more than the share: %v, %d", err, g.Size())
	}
	if _, err := b.Take(11, bayley); exceeded(t, err) != budget.Share {
		t.Errorf("a second grant above the share: %v", err)
	}
	other, err := b.Take(40, matt)
	if err != nil {
		t.Error(err)
	}
	own, err := b.Take(30, budget.Holder{})
	if err != nil {
		t.Errorf("this process has no share of its own: %v", err)
	}
	if _, err := b.Take(1, budget.FromRemote("192.0.2.3:1")); exceeded(t, err) != budget.All {
		t.Errorf("more than the limit: %v", err)
	}
	if b.Refused(budget.All) != 1 || b.Refused(budget.Share) != 2 {
		t.Errorf("counted %d and %d refusals", b.Refused(budget.All), b.Refused(budget.Share))
	}
	g.Force(1000)
	if b.Used() != 1070 || b.Held(bayley) != 1000 {
		t.Errorf("used %d, of that %d", b.Used(), b.Held(bayley))
	}
	for _, g := range []*budget.Grant{&g, &other, &own, new(budget.Grant)} {
		g.Release()
		g.Release()
	}
	if b.Used() != 0 || b.Held(bayley) != 0 {
		t.Errorf("%d are used after everything was released", b.Used())
	}
}

// TestFirstGrant: a limit below the size of a request lets one at a time pass.
func TestFirstGrant(t *testing.T) {
	b := budget.New("bytes", 10, 0.5)
	g, err := b.Take(1000, bayley)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Take(1, matt); exceeded(t, err) != budget.All {
		t.Errorf("beside it: %v", err)
	}
	g.Release()
	if _, err := b.Take(7, matt); err != nil {
		t.Errorf("a first grant above the share: %v", err)
	}
}

// TestTwoHolders: a request counts for its address and its principal, and both have to have it left.
func TestTwoHolders(t *testing.T) {
	b := budget.New("bytes", 100, 0.2)
	who := budget.Holder{Principal: "player"}
	first, err := b.Take(20, bayley, who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Take(1, matt, who); exceeded(t, err) != budget.Share {
		t.Errorf("the principal at another address: %v", err)
	}
	if _, err := b.Take(1, bayley, budget.Holder{Principal: "other"}); exceeded(t, err) != budget.Share {
		t.Errorf("another principal at the address: %v", err)
	}
	first.Release()
	if b.Held(who) != 0 || b.Held(bayley) != 0 {
		t.Error("a holder still has some")
	}
}

func TestHolders(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1":            "192.0.2.1",
		"[::ffff:192.0.2.1]:2":   "192.0.2.1",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":      "fe80::/64",
		"[::1]:80":               "::1",
		"in process":             "this process",
		"":                       "this process",
	} {
		if got := budget.FromRemote(remote).String(); got != want {
			t.Errorf("%q is %s, want %s", remote, got, want)
		}
	}
}

func TestConcurrently(t *testing.T) {
	b := budget.New("bytes", 64, 1)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 1000 {
				g, err := b.Take(8, bayley)
				if err != nil {
					continue
				}
				if b.Used() > 64 {
					t.Error("more than the limit")
				}
				g.Release()
			}
		})
	}
	all.Wait()
	if b.Used() != 0 {
		t.Errorf("%d are left", b.Used())
	}
}
