package budget_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

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
	b := budget.New("bytes", 100, budget.Each{Address: 0.4})
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
	b := budget.New("bytes", 10, budget.Each{Address: 0.5})
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
	b := budget.New("bytes", 100, budget.Each{Address: 0.2, Service: 0.2, Customer: 0.1})
	who := budget.Holder{Principal: "player"}
	first, err := b.Take(20, bayley, who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Take(1, matt, who); exceeded(t, err) != budget.Principal {
		t.Errorf("the principal at another address: %v", err)
	}
	if _, err := b.Take(1, bayley, budget.Holder{Principal: "other"}); exceeded(t, err) != budget.Share {
		t.Errorf("another principal at the address: %v", err)
	}
	customer := budget.Holder{Principal: "customer", Customer: true}
	second, err := b.Take(10, matt, customer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Take(1, matt, customer); exceeded(t, err) != budget.Principal {
		t.Errorf("a customer has a smaller share: %v", err)
	}
	second.Release()
	first.Release()
	if b.Held(who) != 0 || b.Held(bayley) != 0 {
		t.Error("a holder still has some")
	}
}

// TestRate: each holder has a rate of its own, and what is refused counts for nobody.
func TestRate(t *testing.T) {
	now := time.Unix(0, 0)
	r := budget.NewRate("bytes", budget.Each{Address: 2, Customer: 0.5}, 4*time.Second)
	customer := budget.Holder{Principal: "customer", Customer: true}
	for range 2 {
		if err := r.Take(now, bayley, customer); err != nil {
			t.Fatal(err)
		}
	}
	var e *budget.ExceededError
	err := r.Take(now, bayley, customer)
	if exceeded(t, err) != budget.Principal || !errors.As(err, &e) || e.RetryAfter != 2*time.Second {
		t.Fatalf("the customer's burst is used up: %v, %+v", err, e)
	}
	for range 6 { // The address still has these: the refused one was given back.
		if err := r.Take(now, bayley, budget.Holder{Principal: "shop"}, budget.Holder{}); err != nil {
			t.Fatal(err)
		}
	}
	err = r.Take(now, bayley)
	if exceeded(t, err) != budget.Share || !errors.As(err, &e) || e.RetryAfter != time.Second/2 || r.Left(now, bayley) {
		t.Errorf("the address' burst is used up: %v, %+v", err, e)
	}
	if err := r.Take(now, matt); err != nil || !r.Left(now, matt) {
		t.Errorf("another address: %v", err)
	}
	now = now.Add(2 * time.Second)
	if err := r.Take(now, bayley, customer); err != nil {
		t.Errorf("after the time that the error told: %v", err)
	}
	if r.Refused(budget.Share) != 1 || r.Refused(budget.Principal) != 1 || r.Refused(budget.All) != 0 {
		t.Error("refusals were not counted")
	}
}

// TestRateForgets: a sender with ever new addresses does not make the rate remember more than its limit.
func TestRateForgets(t *testing.T) {
	const many = 100_000
	now := time.Unix(0, 0)
	r := budget.NewRate("bytes", budget.Each{Address: 1}, time.Second)
	for i := range many {
		if err := r.Take(now, budget.Holder{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{
			10, byte(i >> 16), byte(i >> 8), byte(i),
		}), 32)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.Remembered(); n >= many {
		t.Errorf("%d holders are remembered", n)
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
	b := budget.New("bytes", 64, budget.Each{})
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
