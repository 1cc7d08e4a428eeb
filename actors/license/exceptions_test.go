package license

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

// TestExceptionLimit: a customer has at most MaxExceptions that count; those that ended do not.
func TestExceptionLimit(t *testing.T) {
	r := newTrial(t, somePolicies[0], epoch)
	limit := &licensedv1.OtherLimit{Kind: licensedv1.LimitKind_LIMIT_KIND_REMOVALS, Limit: proto.Uint32(9)}
	for i := range MaxExceptions {
		r.execute(grantLimit(r.now.Add(time.Duration(i+1)*time.Hour), limit))
	}
	one := grantLimit(r.now.Add(1000*time.Hour), limit)
	o := r.outcome(one, r.execute(one))
	if o.Refusal.GetRule() != licensedv1.Rule_RULE_EXCEPTION_LIMIT || o.Refusal.GetLimit() != MaxExceptions ||
		o.Refusal.GetCurrent() != MaxExceptions {
		t.Errorf("one more than the limit: %v", o.Refusal)
	}
	r.now = r.now.Add(time.Hour)
	if o := r.outcome(one, r.execute(one)); o.Exception.GetNumber() != MaxExceptions+1 {
		t.Errorf("after the end of the first: %v, %v", o.Exception, o.Refusal)
	}
}

// TestManyEndedExceptions: exceptions that ended take no room of those that count.
func TestManyEndedExceptions(t *testing.T) {
	r := newTrial(t, somePolicies[0], epoch)
	limit := &licensedv1.OtherLimit{Kind: licensedv1.LimitKind_LIMIT_KIND_REMOVALS, Limit: proto.Uint32(9)}
	for range MaxExceptions {
		r.execute(grantLimit(r.now.Add(time.Hour), limit))
	}
	r.now = r.now.Add(2 * time.Hour)
	r.execute(grantLimit(r.now.Add(time.Hour), &licensedv1.OtherLimit{
		Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, TitleId: "b2", Limit: proto.Uint32(1),
	}))
	r.execute(acquire("iphone", "b2"))
}

// TestMergeWithAllowance: a device that was lent something keeps its place when it is merged, so that the plan must
// have one for the new id as well.
func TestMergeWithAllowance(t *testing.T) {
	r := newTrial(t, lendingPolicy, epoch)
	r.execute(acquire("iphone", "x"))
	r.execute(acquire("ipad", "x"))
	if d := r.execute(lend("iphone", "gw", "a1")); d.Refused {
		t.Fatal(describe(d))
	}
	o := func(c *licensedv1.Command) Outcome { return r.outcome(c, r.execute(c)) }
	if got := o(merge("iphone", "new")).Refusal; got.GetRule() != licensedv1.Rule_RULE_DEVICE_LIMIT ||
		got.GetLimit() != 2 || got.GetCurrent() != 2 {
		t.Errorf("without a third place: %v", got)
	}
	if got := o(merge("iphone", "ipad")); got.Exception == nil { // no more devices than before
		t.Errorf("into a device in use: %v", got.Refusal)
	}
	if got := o(redeem("iphone", "a1", "gw", 1, r.now)); got.License == nil {
		t.Errorf("what was lent: %v", got.Refusal)
	}
}

// TestSnapshotOfExceptions is what version 4 has for a customer with exceptions.
func TestSnapshotOfExceptions(t *testing.T) {
	r := busy(t)
	for _, c := range []*licensedv1.Command{
		grantLimit(r.now.Add(90*24*time.Hour), &licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, Limit: proto.Uint32(9), TitleId: "a1",
		}),
		forgiveUse(&licensedv1.ForgivenUse{TitleId: "x"}), forgiveRemoval(time.Time{}), merge("ipad", "ipad2"),
		grantLimit(r.now.Add(24*time.Hour), &licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: proto.Uint32(9),
		}),
	} {
		if d := r.execute(c); d.Refused {
			t.Fatal(describe(d))
		}
	}
	r.now = r.now.Add(24 * time.Hour)
	snapshot := r.live.Snapshot(r.now)
	if snapshot.Mapper != "LicenseSnapshot/4" { // An earlier release would ignore the exceptions.
		t.Errorf("a snapshot of mapper %s", snapshot.Mapper)
	}
	s := restore(t, r.kind, snapshot).(*aggregate).state
	stored, described := golden(t, "LicenseSnapshot.4-exceptions.golden", s.encode(), dump(s))
	restored := restore(t, r.kind, actors.Snapshot{Mapper: "LicenseSnapshot/4", Data: stored}).(*aggregate).state
	if got := dump(restored); got != described || !strings.Contains(got, "exceptions granted 5") {
		t.Errorf("read\n%swant\n%s", got, described)
	}
}

// TestFactsOfMerged reports facts of a device before and after it is merged: each counts once, under whatever id.
func TestFactsOfMerged(t *testing.T) {
	counted := uint32(0)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 11))
		whole, moved := lived(t, seed, factsPolicy), lived(t, seed, factsPolicy)
		device := pick(rng, someDevices)
		facts := someFacts(rng, whole.now)
		if merged := merge(device, "new"); moved.decide(merged).Refused {
			continue // the device is unknown
		}
		whole.execute(sync(device, facts...))
		whole.execute(merge(device, "new"))
		moved.execute(sync(device, facts[:rng.IntN(len(facts))]...))
		moved.execute(merge(device, "new"))
		// The new id numbers its facts from 1, too, and does not disturb those of the old one.
		moved.execute(sync("new", facts[:1]...))
		whole.execute(sync("new", facts[:1]...))
		for range 3 {
			moved.execute(sync(device, facts...))
			moved.execute(sync(device, facts[rng.IntN(len(facts)):]...))
		}
		if before := moved.known(); moved.outcome(sync(device, facts...), moved.execute(sync(device, facts...))).Sync.
			Recorded != 0 || usesOf(before) != usesOf(moved.known()) {
			t.Fatalf("seed %d: a repeat of the old device was recorded", seed)
		}
		if got, want := usesOf(moved.known()), usesOf(whole.known()); got != want {
			t.Fatalf("seed %d: %d uses count after a merge between reports, want %d", seed, got, want)
		}
		counted += usesOf(whole.known())
	}
	if counted < 100 {
		t.Errorf("only %d facts count: the facts are not random enough", counted)
	}
}

// TestSyncFrees: a report with a deletion is executed although the customer's state is too large for the store, since
// the licence ends; one without is not, since there may be any number of them.
func TestSyncFrees(t *testing.T) {
	r := newTrial(t, factsPolicy, epoch)
	r.execute(acquire("iphone", "x"))
	r.now = r.now.Add(time.Hour)
	if d := r.decide(sync("iphone", fact(1, deleted, "x", r.now))); !d.Frees {
		t.Error("a deletion that releases a licence does not free anything")
	}
	if d := r.decide(sync("iphone", fact(1, played, "x", r.now))); d.Frees {
		t.Error("a playback frees something")
	}
}

// TestCheckGrant names what is wrong with a command.
func TestCheckGrant(t *testing.T) {
	later := epoch.Add(time.Hour)
	limit := func(l *licensedv1.OtherLimit) *licensedv1.Command { return grantLimit(later, l) }
	noReason := merge("a", "b")
	noReason.GetGrantException().Reason = " "
	dated := merge("a", "b")
	dated.GetGrantException().UntilMs = later.UnixMilli()
	lines := forgiveRemoval(time.Time{})
	lines.GetGrantException().Reason = "a\nb"
	long := withdraw(1)
	long.GetWithdrawException().Reason = strings.Repeat("x", MaxReason+1)
	for want, c := range map[string]*licensedv1.Command{
		"": limit(&licensedv1.OtherLimit{Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, TitleId: "t"}),
		"unknown limit 0; want devices, studio, yearly, removals, monthly or device-titles": limit(
			&licensedv1.OtherLimit{}),
		"limit is required for devices, which cannot be unlimited": limit(&licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES,
		}),
		"limit 1001, the highest is 1000": limit(&licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: proto.Uint32(1001),
		}),
		"studio id is required for the limit of a studio": limit(&licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_STUDIO, Limit: proto.Uint32(1),
		}),
		"title id is for the yearly limit only": limit(&licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_REMOVALS, TitleId: "t",
		}),
		"title id and studio id cannot be given together": limit(&licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, TitleId: "t", StudioId: "s",
		}),
		"until is required with another limit": grantLimit(time.UnixMilli(0), &licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_REMOVALS,
		}),
		"until is for another limit only; other exceptions count until the rules forget what they are about": dated,
		"old and new device id are the same": merge("a", "a"),
		"reason is required":                 noReason,
		"reason must not contain control characters, or bytes that are not UTF-8": lines,
		"reason has 501 bytes, the limit is 500":                                  long,
		"exception number 0 is not between 1 and 4503599627370496":                withdraw(0),
		"title id is required": forgiveUse(&licensedv1.ForgivenUse{
			UsedAt: timestamppb.New(epoch),
		}),
	} {
		got := ""
		if err := CheckCommand("c", false, c); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", c, got, want)
		}
	}
}

// FuzzExceptions: events of exceptions that an import lets through never break the state or its snapshot, nor what is
// decided after them.
func FuzzExceptions(f *testing.F) {
	k := NewKind(somePolicies[1])
	r := busy(f)
	for _, c := range []*licensedv1.Command{
		merge("ipad", "tv"), merge("ipad", "ipad2"), forgiveUse(&licensedv1.ForgivenUse{TitleId: "x"}),
		forgiveRemoval(time.Time{}), grantLimit(r.now.Add(time.Hour), &licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: proto.Uint32(9),
		}),
	} {
		for _, e := range r.decide(c).Events {
			f.Add(e.Mapper, e.Data)
		}
	}
	snapshot := r.live.Snapshot(r.now)
	f.Fuzz(func(t *testing.T, mapper string, data []byte) {
		value, err := k.DecodeEvent(mapper, snapshot.Header, data)
		if err != nil || checkAbout(customer, value) != nil || checkContent(value) != nil {
			return
		}
		a := restore(t, k, snapshot)
		now := r.now
		for i := range uint64(3) {
			a.Evolve(actors.Event{AggregateID: customer, Order: i, Time: now, Mapper: mapper, Value: value})
			a = restore(t, k, a.Snapshot(now))
			for _, c := range []*licensedv1.Command{
				acquire("ipad", "x"), renew("tv", "x"), deactivate("ipad2"), merge("tv", "ipad"), withdraw(1),
				sync("ipad", fact(i+1, played, "x", now)),
			} {
				now = now.Add(time.Hour)
				evolve(a, now, c)
			}
		}
		_ = fmt.Sprint(a.Snapshot(now.Add(400 * 24 * time.Hour)))
	})
}
