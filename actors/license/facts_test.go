package license

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license/ids"
	"licensed/actors/license/policy"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// factsPolicy counts everything and refuses little.
var factsPolicy = must(policy.Parse("facts", []byte("default_plan: p\nplans: {p: {devices: 4}}\nyearly_counts: both\n"+
	"defaults: {yearly_limit: 20}\n")))

// hoursPolicy also ends licences after their first playback.
var hoursPolicy = must(policy.Parse("hours", []byte("default_plan: p\nplans: {p: {devices: 4}}\nyearly_counts: both\n"+
	"defaults: {yearly_limit: 20, hours_after_first_play: 150}\nrenew_after_play: true\n")))

// lived is a customer whose devices acquired, renewed, released and played, by seed.
func lived(t testing.TB, seed uint64, p *policy.Policy) *trial {
	rng := rand.New(rand.NewPCG(seed, 7))
	r := newTrial(t, p, epoch)
	for range 40 {
		r.now = r.now.Add(time.Duration(rng.Int64N(int64(12 * 24 * time.Hour))))
		r.execute(someCommand(rng))
	}
	r.now = r.now.Add(time.Hour).Truncate(time.Millisecond)
	return r
}

// someFacts are facts of a device from the last 400 days, by number, with gaps between the numbers.
func someFacts(rng *rand.Rand, now time.Time) (facts []*licensedv1.SyncDevice_Fact) {
	number := uint64(0)
	for range 1 + rng.IntN(60) {
		number += 1 + rng.Uint64N(3)
		at := now.Add(-time.Duration(rng.Int64N(int64(400 * 24 * time.Hour))))
		kind := pick(rng, []licensedv1.FactKind{downloaded, played, played, deleted})
		facts = append(facts, fact(number, kind, pick(rng, someTitles), at))
	}
	return facts
}

// known returns the whole state, as it is described.
func (r *trial) known() *licensedv1.CustomerState {
	return r.query(&licensedv1.Query{Query: &licensedv1.Query_DescribeState{
		DescribeState: &licensedv1.DescribeState{},
	}}).(*licensedv1.CustomerState)
}

// TestFactsInAnyOrder sends the same facts in one command, and in any order, repeated, and split in any way over
// commands. Counts, highest numbers and licences are the same in the end; no event of before is any different.
func TestFactsInAnyOrder(t *testing.T) {
	counted := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 8))
		device := pick(rng, someDevices)
		p := []*policy.Policy{factsPolicy, hoursPolicy}[seed%2]
		once, split := lived(t, seed, p), lived(t, seed, p)
		facts := someFacts(rng, once.now)
		before := once.known()
		once.execute(sync(device, facts...))
		want := once.known()
		// Each request has a part of the queue, in any order, and names the fact before it.
		highest := facts[len(facts)-1].Number
		for reached, tries := uint64(0), 0; reached < highest; tries++ {
			if tries > 10_000 {
				t.Fatalf("seed %d: the highest number stays at %d of %d", seed, reached, highest)
			}
			from := rng.IntN(len(facts))
			to := from + 1 + rng.IntN(len(facts)-from)
			c := sync(device, slices.Clone(facts[from:to])...)
			if from > 0 {
				c.GetSyncDevice().AfterNumber = facts[from-1].Number
			}
			part := c.GetSyncDevice().Facts
			rng.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
			was := reached
			reached = split.outcome(c, split.execute(c)).Sync.HighestNumber
			if reached < was {
				t.Fatalf("seed %d: the highest number falls from %d to %d", seed, was, reached)
			}
		}
		if got := split.known(); !proto.Equal(got, want) {
			t.Fatalf("seed %d: split\n%v\nat once\n%v", seed, got, want)
		}
		// Again, under another command id and a year later: nothing changes.
		repeated := sync(device, facts...)
		if o := once.outcome(repeated, once.execute(repeated)); o.Sync.Recorded != 0 ||
			o.Sync.HighestNumber != highest {
			t.Fatalf("seed %d: repeated facts: %+v", seed, o.Sync)
		}
		if got := once.known(); !proto.Equal(got, want) {
			t.Fatalf("seed %d: repeated\n%v\nwant\n%v", seed, got, want)
		}
		once.now = once.now.Add(366 * 24 * time.Hour)
		late := once.known()
		once.execute(sync(device, facts...))
		if got := once.known(); usesOf(got) != usesOf(late) {
			t.Fatalf("seed %d: repeated after a year\n%v\nwant\n%v", seed, got, late)
		}
		counted += int(usesOf(want) - usesOf(before))
	}
	if counted < 100 {
		t.Errorf("only %d facts count: the facts are not random enough", counted)
	}
}

// usesOf is the number of downloads and playbacks that count.
func usesOf(s *licensedv1.CustomerState) (n uint32) {
	for _, t := range s.Titles {
		n += t.Downloads + t.CountedPlaybacks
	}
	return n
}

// TestFactsUndoNothing: whatever is reported late, licences stay as they are until they are deleted, and a command that
// was decided before is never decided otherwise by its events.
func TestFactsUndoNothing(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 9))
		r := lived(t, seed, factsPolicy)
		before := r.known()
		device := pick(rng, someDevices)
		facts := slices.DeleteFunc(someFacts(rng, r.now), func(f *licensedv1.SyncDevice_Fact) bool {
			return f.Kind == deleted
		})
		r.execute(sync(device, facts...))
		after := r.known()
		for i, l := range before.Licenses {
			if !proto.Equal(l, after.Licenses[i]) {
				t.Fatalf("seed %d: %v became %v", seed, l, after.Licenses[i])
			}
		}
	}
}

// TestLateDownloadsOfMonth: a download that is reported late counts for the month in which it was made.
func TestLateDownloadsOfMonth(t *testing.T) {
	r := newTrial(t, must(policy.Parse("month", []byte("default_plan: p\nlicence_days: 90\n"+
		"plans: {p: {devices: 4, downloads_per_month: 2}}\n"))), epoch)
	r.execute(acquire("iphone", "x"))
	r.now = r.now.Add(40 * 24 * time.Hour)
	for i, step := range []struct {
		ago  time.Duration
		used uint32
	}{
		{35 * 24 * time.Hour, 0}, {30 * 24 * time.Hour, 0}, {30*24*time.Hour - time.Millisecond, 1}, {time.Hour, 2},
		{time.Minute, 3},
	} {
		r.execute(sync("iphone", fact(uint64(i)+1, downloaded, "x", r.now.Add(-step.ago))))
		if q := r.customerBy(0).MonthlyDownloads; q.Used != step.used || q.GetLeft() != 2-min(2, step.used) {
			t.Errorf("after a report of a download %v ago: %v, want %d used", step.ago, q, step.used)
		}
	}
	// What happened is recorded also beyond the limit; it refuses what comes next.
	if d := r.decide(acquire("iphone", "y")); !d.Refused {
		t.Errorf("three downloads of two, and accepted: %s", describe(d))
	}
}

// TestStrangersAreBounded: devices that never had a licence cannot fill the state.
func TestStrangersAreBounded(t *testing.T) {
	r := newTrial(t, factsPolicy, epoch)
	for i := range 3 * maxStrangers {
		c := sync(fmt.Sprintf("device%d", i), fact(1, played, "x", r.now))
		o := r.outcome(c, r.execute(c))
		if o.Sync.HighestNumber != 1 || o.Sync.Recorded != 1 || o.Sync.Unlicensed != 1 {
			t.Fatalf("%+v", o.Sync)
		}
	}
	if n := len(r.live.(*aggregate).state.devices); n != maxStrangers {
		t.Errorf("%d devices in the state, want %d", n, maxStrangers)
	}
	// When they are forgotten there is room again.
	r.now = r.now.Add(366 * 24 * time.Hour)
	r.execute(sync("another", fact(1, played, "x", r.now)))
	r.repack()
	if n := len(r.packed.(*aggregate).state.devices); n != 1 {
		t.Errorf("%d devices in the state after a year, want 1", n)
	}
}

// TestSpansAreBounded: a licence that is acquired again and again keeps a few of its times; in doubt it was active.
func TestSpansAreBounded(t *testing.T) {
	r := newTrial(t, factsPolicy, epoch)
	for range 3 * maxSpans {
		r.execute(acquire("iphone", "x"))
		r.now = r.now.Add(time.Hour)
		r.execute(release("iphone", "x"))
		r.now = r.now.Add(time.Hour)
		r.kind.SetPolicy(roomy)
	}
	if n := len(r.live.(*aggregate).state.licenses[0].spans); n != maxSpans {
		t.Errorf("%d times are kept, want %d", n, maxSpans)
	}
	for at, want := range map[time.Duration]uint32{
		30 * time.Minute: 0, 90 * time.Minute: 0, // the oldest times are one
		45*time.Hour - 30*time.Minute: 0, 45*time.Hour + 30*time.Minute: 1,
	} {
		c := sync("iphone", fact(1, played, "x", epoch.Add(at)))
		if o := r.outcome(c, r.decide(c)); o.Sync.Unlicensed != want {
			t.Errorf("after %v: %+v", at, o.Sync)
		}
	}
}

// TestLargestSync: the events of the most facts, with the longest ids, fit a mutation, and each of them is small.
func TestLargestSync(t *testing.T) {
	long := func(what string) string { return what + strings.Repeat("x", ids.MaxBytes-len(what)) }
	r := newTrial(t, roomy, epoch)
	var facts []*licensedv1.SyncDevice_Fact
	for i := range uint64(MaxFacts) {
		title := long(fmt.Sprint(i))
		r.execute(acquire(long("d"), title))
		facts = append(facts, fact(MaxNumber-MaxFacts+i, deleted, title, epoch))
	}
	c := sync(long("d"), facts...)
	c.GetSyncDevice().SentAtMs = epoch.Add(time.Hour).UnixMilli()
	for _, f := range facts {
		f.AtMs = epoch.Add(time.Hour).UnixMilli()
	}
	d := r.execute(c)
	if len(d.Events) != 2*MaxFacts {
		t.Fatalf("%d events, want a deletion and a release for each fact", len(d.Events))
	}
	size := 0
	for i, e := range d.Events {
		record := persistence.Record{
			Sequence: uint64(i) + 1, CommandID: strings.Repeat("c", ids.MaxCommandBytes), AggregateID: e.AggregateID,
			Mapper: e.Mapper, Header: e.Header, Data: e.Data,
		}
		size += record.Size(long("customer"))
		if len(e.Data) > 1024 {
			t.Fatalf("%s has %d bytes", e.Mapper, len(e.Data))
		}
	}
	t.Logf("%d events take %d bytes", len(d.Events), size)
	if size > 4<<20 {
		t.Errorf("%d bytes: more than half of what stores take (8 MiB)", size)
	}
	if n := len(r.kind.Outcome(d.Events)); n > 16 {
		t.Errorf("an outcome of %d bytes", n)
	}
}

// FuzzSync: whatever is let through as a command can be decided, stored, read and imported, and repeated without
// effect.
func FuzzSync(f *testing.F) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 10))
		c := sync("iphone", someFacts(rng, epoch.Add(200*24*time.Hour))...)
		data, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, seed)
	}
	k := NewKind(factsPolicy)
	var customers []actors.Snapshot
	var now time.Time
	for seed := range uint64(4) {
		r := lived(f, seed, factsPolicy)
		customers = append(customers, r.live.Snapshot(r.now))
		if r.now.After(now) {
			now = r.now
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		c := &licensedv1.Command{}
		if proto.Unmarshal(data, c) != nil || c.GetSyncDevice() == nil || CheckCommand("c", false, c) != nil {
			return
		}
		a := restore(t, k, customers[seed%4])
		first := evolve(a, now, c)
		for i, e := range first.Events {
			if err := k.CheckForeign(&persistence.Record{
				Sequence: uint64(i) + 1, Count: uint32(len(first.Events)), Index: uint32(i), CommandID: "c",
				AggregateID: e.AggregateID, Order: e.Order, Time: now, IssuedAt: now, Mapper: e.Mapper, Data: e.Data,
			}); err != nil {
				t.Fatalf("an import would refuse %v: %v", e, err)
			}
		}
		if _, err := DecodeOutcome(customerID, c, now, k.Outcome(first.Events)); err != nil {
			t.Fatal(err)
		}
		before := restore(t, k, a.Snapshot(now)).(*aggregate).state
		evolve(a, now, c)
		after := a.(*aggregate).state
		before.last, before.order, after.last, after.order = 0, 0, 0, 0
		for i := range after.devices { // facts of devices that are forgotten at once are recorded again
			before.devices[i].order, after.devices[i].order = 0, 0
		}
		if dump(before) != dump(after) {
			t.Fatalf("repeated\n%swant\n%s", dump(after), dump(before))
		}
	})
}

// FuzzFactEvents: events with occurrences that an import lets through never break the state or its snapshot.
func FuzzFactEvents(f *testing.F) {
	for _, m := range []proto.Message{
		&licensedv1.TitlePlayed{Counted: true, Occurrence: &licensedv1.Occurrence{OccurredAtMs: 1, Number: 1}},
		&licensedv1.TitleDownloaded{Occurrence: &licensedv1.Occurrence{OccurredAtMs: 1 << 40, DeviceTimeMs: 5}},
		&licensedv1.TitleDeleted{Occurrence: &licensedv1.Occurrence{Number: MaxNumber, TitleId: "x"}},
	} {
		data, err := messages.AppendEvent(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(messages.EventMapper(m), "iphone/x", data)
		f.Add(messages.EventMapper(m), "iphone", data)
	}
	k := NewKind(factsPolicy)
	r := lived(f, 1, factsPolicy)
	snapshot := r.live.Snapshot(r.now)
	f.Fuzz(func(t *testing.T, mapper, id string, data []byte) {
		record := persistence.Record{
			Sequence: 1, Count: 1, CommandID: "c", AggregateID: id, Time: epoch, IssuedAt: epoch, Mapper: mapper,
			Data: data,
		}
		if k.CheckForeign(&record) != nil {
			return
		}
		a := restore(t, k, snapshot)
		a.Evolve(event(t, k, &record))
		restore(t, k, a.Snapshot(epoch.Add(400*24*time.Hour)))
	})
}

// event decodes a record.
func event(t *testing.T, k *Kind, r *persistence.Record) actors.Event {
	t.Helper()
	value, err := k.DecodeEvent(r.Mapper, r.Header, r.Data)
	if err != nil {
		t.Fatal(err)
	}
	return actors.Event{AggregateID: r.AggregateID, Order: r.Order, Time: r.Time, Mapper: r.Mapper, Value: value}
}

// TestUseAfterEnd: a playback that is reported late ends a licence before a later playback, which counts for its own
// year all the same.
func TestUseAfterEnd(t *testing.T) {
	r := newTrial(t, must(policy.Parse("p", []byte(`
default_plan: p
yearly_counts: playbacks
plans: {p: {devices: 2}}
defaults: {yearly_limit: 1, hours_after_first_play: 48}
`))), epoch)
	after := func(days int) time.Time { return epoch.Add(time.Duration(days) * 24 * time.Hour) }
	r.execute(acquire("iphone", "x"))
	r.now = after(9)
	r.execute(play("iphone", "x"))
	r.execute(sync("iphone", fact(1, played, "x", after(1)))) // The licence ended on the third day.
	r.now = after(9 + 365).Add(-time.Hour)
	c := acquire("iphone", "x")
	if o := r.outcome(c, r.execute(c)); o.Refusal.GetRule() != licensedv1.Rule_RULE_YEARLY_LIMIT {
		t.Errorf("one more within 365 days: %v", o.Refusal)
	}
}
