package license

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

var (
	someDevices = []string{"iphone", "ipad", "laptop", "tv"}
	someTitles  = []string{"a1", "a2", "a3", "b1", "b2", "x"}
	somePlans   = []string{"one", "two", "three", "gone"}
)

// somePolicies are reloaded one for the other while customers act.
var somePolicies = func() []*policy.Policy {
	const rest = `
plans:
  one: {devices: 1, titles_per_device: 3, downloads_per_month: 6}
  two: {devices: 2, downloads_per_month: 9, grace_days: 5}
  three: {devices: 3, titles_per_device: 2, grace_days: 12}
studios: {a: {downloads: 2}, b: {downloads: 1, hours_after_first_play: 48}}
titles:
  a1: {studio: a, yearly_limit: 2, hours_after_first_play: 30}
  a2: {studio: a, yearly_limit: 4, available_until: 2026-05-01}
  a3: {studio: a}
  b1: {studio: b, yearly_limit: 1}
  b2: {studio: b, yearly_limit: 0}
`
	var all []*policy.Policy
	for _, top := range []string{
		"default_plan: two\n",
		"default_plan: one\nyearly_counts: both\ndeactivations_per_year: 1\n",
		"default_plan: three\nyearly_counts: playbacks\ndeactivations_per_year: 2\nlicence_days: 3\n",
		"default_plan: two\ndefaults: {yearly_limit: 1, studio_downloads: 2}\nlicence_days: 200\n" +
			"deactivations_per_year: 0\n",
		"default_plan: three\nyearly_counts: both\nlicence_days: 20\nremembered_licences: 3\n",
	} {
		all = append(all, must(policy.Parse("some", []byte(top+rest))))
	}
	// Licences of the others run beyond the end of these titles.
	all = append(all, must(policy.Parse("ends", []byte(`
default_plan: two
renew_after_play: true
plans: {one: {devices: 1}, two: {devices: 2, grace_days: 2}, three: {devices: 3, grace_days: 0}}
defaults: {end_within_days: 2, hours_after_first_play: 200}
titles:
  a2: {studio: a, available_until: 2026-02-01}
  a3: {studio: a, available_until: 2026-06-01, end_within_days: 40}
  b1: {studio: b, available_until: 2026-03-01, end_within_days: unlimited}
`))))
	return all
}()

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func someCommand(rng *rand.Rand) *licensedv1.Command {
	device, title := pick(rng, someDevices), pick(rng, someTitles)
	switch rng.IntN(29) {
	case 0, 1, 2, 3, 4:
		return acquire(device, title)
	case 5, 6:
		return download(device, title)
	case 7, 8, 9:
		return renew(device, title)
	case 10, 11:
		return release(device, title)
	case 12, 13:
		return play(device, title)
	case 14:
		return deactivate(device)
	case 15, 16, 17, 18, 19:
		chosen := []string{device}
		for rng.IntN(4) == 0 {
			chosen = append(chosen, pick(rng, someDevices))
		}
		return selectDevices(chosen...)
	case 20, 21:
		return changePlan(pick(rng, somePlans))
	default:
		return someException(rng, device, title)
	}
}

// someException grants or withdraws an exception. Its date is replaced by one from now on.
func someException(rng *rand.Rand, device, title string) *licensedv1.Command {
	limit := &licensedv1.OtherLimit{Limit: proto.Uint32(rng.Uint32N(5))}
	if rng.IntN(8) == 0 {
		limit.Limit = nil
	}
	switch rng.IntN(11) {
	case 10:
		limit.Kind = pick(rng, []licensedv1.LimitKind{
			licensedv1.LimitKind_LIMIT_KIND_MONTHLY, licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES,
		})
	case 0:
		limit.Kind, limit.Limit = licensedv1.LimitKind_LIMIT_KIND_DEVICES, proto.Uint32(rng.Uint32N(5))
	case 1:
		limit.Kind, limit.StudioId = licensedv1.LimitKind_LIMIT_KIND_STUDIO, pick(rng, []string{"a", "b", "mistyped"})
	case 2, 3:
		limit.Kind = licensedv1.LimitKind_LIMIT_KIND_YEARLY
		limit.TitleId = pick(rng, []string{"", title, "mistyped"})
		if limit.TitleId == "" {
			limit.StudioId = pick(rng, []string{"", "a"})
		}
	case 4:
		limit.Kind = licensedv1.LimitKind_LIMIT_KIND_REMOVALS
	case 5:
		return forgiveRemoval(time.Time{})
	case 6:
		return forgiveUse(&licensedv1.ForgivenUse{
			TitleId: title, DeviceId: pick(rng, []string{"", device}), Playback: rng.IntN(3) == 0,
		})
	case 7:
		if to := pick(rng, someDevices); to != device {
			return merge(device, to)
		}
		fallthrough
	default:
		return withdraw(1 + rng.Uint64N(6))
	}
	return grantLimit(time.UnixMilli(rng.Int64N(40*day)), limit)
}

// dated moves the date of another limit to that time from now, or to now.
func dated(c *licensedv1.Command, now time.Time) *licensedv1.Command {
	if g := c.GetGrantException(); g.GetLimit() != nil {
		if g.UntilMs%7 == 0 {
			g.UntilMs = 0
		}
		g.UntilMs += now.UnixMilli()
	}
	return c
}

// edges are the times at which the rules may start to answer otherwise.
func edges(s *State) []int64 {
	var times []int64
	for i := range s.licenses {
		l := &s.licenses[i]
		times = append(times, l.expires, l.end()+window+1, s.grace)
		for _, u := range l.uses {
			times = append(times, u.at()+window, u.at()+month)
		}
	}
	for i := range s.devices {
		times = append(times, s.devices[i].seen+window+1)
	}
	for _, at := range s.deactivations {
		times = append(times, at+window)
	}
	for i := range s.allowances {
		times = append(times, s.allowances[i].until, s.allowances[i].until+window)
	}
	for _, e := range s.exceptions() {
		times = append(times, millisOf(e.GetUntil()))
	}
	return times
}

// wait moves the clock: not at all, somewhat, or to just before, at or after an edge.
func (r *trial) wait(rng *rand.Rand) {
	now := r.now.UnixMilli()
	switch rng.IntN(6) {
	case 0, 1:
	case 2:
		now += rng.Int64N(day)
	case 3:
		now += rng.Int64N(40 * day)
	default:
		if times := edges(r.ended()); len(times) > 0 {
			now = max(now, pick(rng, times)+rng.Int64N(3)-1)
		}
	}
	r.now = time.UnixMilli(now).UTC()
}

// ended returns the state as commands see it.
func (r *trial) ended() *State {
	return view{now: r.now.UnixMilli(), policy: r.kind.Policy(), state: r.live.(*aggregate).state}.ended().state
}

// copyState returns the state without what every event changes.
func copyState(t testing.TB, s *State) *State {
	t.Helper()
	c, err := decode(s.encode())
	if err != nil {
		t.Fatal(err)
	}
	c.last, c.order = 0, 0
	return c
}

// TestRandomCustomers runs random commands at random times under changing policies, and holds every
// answer against an independent reading of the history.
func TestRandomCustomers(t *testing.T) {
	customers, commands := 100, 120
	if testing.Short() {
		customers = 50
	}
	seeds := []int{620} // found a device that gives up its own place
	for seed := range customers {
		seeds = append(seeds, seed)
	}
	seen, advised := map[licensedv1.Rule]int{}, 0
	for _, seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		r := newTrial(t, pick(rng, somePolicies), epoch)
		books := &ledger{licenses: map[string]*ledgerLicense{}, refused: seen}
		for range commands {
			if rng.IntN(20) == 0 {
				r.kind.SetPolicy(pick(rng, somePolicies))
			}
			r.wait(rng)
			r.step(books, dated(someCommand(rng), r.now))
			if rng.IntN(8) == 0 {
				r.checkCustomer()
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		for _, title := range append(someTitles, "") { // Of one, and of all.
			r.checkDownloads(title, rng)
		}
		advised += r.advised
	}
	for _, seed := range seeds {
		advised += downgrades(t, seed, seen) + lending(t, seed, seen)
		rentals(t, seed, seen)
	}
	if advised == 0 {
		t.Error("no refusal was remedied")
	}
	for n, name := range licensedv1.Rule_name {
		rule := licensedv1.Rule(n)
		if rule == licensedv1.Rule_RULE_EXCEPTION_LIMIT { // TestExceptionLimit
			continue
		}
		if rule != licensedv1.Rule_RULE_UNSPECIFIED && seen[rule] == 0 {
			t.Errorf("%s never refused: the commands are not random enough", name)
		}
	}
}

// downgrades has a customer change plans and use several devices within days, so that the plan is often exceeded. It
// returns the number of licences that the advice of refusals would have ended.
func downgrades(t *testing.T, seed int, seen map[licensedv1.Rule]int) int {
	rng := rand.New(rand.NewPCG(uint64(seed), 2))
	r := newTrial(t, somePolicies[2*rng.IntN(2)], epoch)
	books := &ledger{licenses: map[string]*ledgerLicense{}, refused: seen}
	for range 120 {
		if r.now = r.now.Add(time.Duration(rng.Int64N(int64(3 * time.Hour)))); rng.IntN(12) == 0 {
			r.wait(rng)
		}
		if rng.IntN(30) == 0 {
			r.kind.SetPolicy(somePolicies[2*rng.IntN(2)])
		}
		device := pick(rng, someDevices)
		var c *licensedv1.Command
		switch rng.IntN(16) {
		case 14:
			c = dated(grantLimit(time.UnixMilli(rng.Int64N(3*day)), &licensedv1.OtherLimit{
				Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: proto.Uint32(rng.Uint32N(4)),
			}), r.now)
		case 15:
			if to := pick(rng, someDevices); to != device && rng.IntN(3) == 0 {
				c = merge(device, to)
			} else {
				c = withdraw(1 + rng.Uint64N(12))
			}
		case 0, 1, 2, 3:
			c = acquire(device, pick(rng, []string{"x", "a3"}))
		case 4, 5, 6:
			c = renew(device, "x")
		case 7:
			c = play(device, "x")
		case 8:
			c = release(device, "x")
		case 9:
			c = deactivate(device)
		case 10, 11:
			c = changePlan(pick(rng, somePlans))
		default:
			c = selectDevices(device)
		}
		r.step(books, c)
		if t.Failed() {
			t.Fatalf("downgrades, seed %d", seed)
		}
	}
	return r.advised
}

// rentals has a customer play a few titles again and again, within the hours that the first playback leaves and after.
func rentals(t *testing.T, seed int, seen map[licensedv1.Rule]int) {
	rng := rand.New(rand.NewPCG(uint64(seed), 3))
	policies := []*policy.Policy{somePolicies[2], somePolicies[len(somePolicies)-1]}
	r := newTrial(t, pick(rng, policies), epoch)
	books := &ledger{licenses: map[string]*ledgerLicense{}, refused: seen}
	for range 60 {
		if r.now = r.now.Add(time.Duration(rng.Int64N(int64(20 * time.Hour)))); rng.IntN(12) == 0 {
			r.wait(rng)
		}
		if rng.IntN(30) == 0 {
			r.kind.SetPolicy(pick(rng, policies))
		}
		device, title := pick(rng, someDevices[:2]), pick(rng, []string{"a1", "b1", "x"})
		c := play(device, title)
		switch rng.IntN(6) {
		case 0, 1:
			c = acquire(device, title)
		case 2:
			c = renew(device, title)
		}
		r.step(books, c)
		if t.Failed() {
			t.Fatalf("rentals, seed %d", seed)
		}
	}
}

// step executes a command and checks everything that can be told about it.
func (r *trial) step(books *ledger, c *licensedv1.Command) {
	r.t.Helper()
	state := r.live.(*aggregate).state
	p := r.kind.Policy()
	before, countsBefore := copyState(r.t, state), books.counts(r.now, p, c)
	d := r.execute(c)
	o := r.outcome(c, d)
	if d.Refused != (o.Refusal != nil) {
		r.t.Fatalf("%v: refused %v, outcome %v", c, d.Refused, o)
	}
	if d.Refused {
		if after := copyState(r.t, state); !reflect.DeepEqual(before, after) {
			r.t.Fatalf("%v was refused and changed the state\nfrom %+v\nto   %+v", c, before, after)
		}
		for _, v := range o.Refusal.Violations {
			books.refused[v.Rule]++
		}
		r.checkRefusal(c, o.Refusal, countsBefore)
		return
	}
	books.record(d.Events, r.now, p)
	_, withdraws := c.GetCommand().(*licensedv1.Command_WithdrawException)
	for name, after := range books.counts(r.now, p, c) {
		if withdraws { // What was forgiven counts again, whatever the limit.
			break
		}
		if was := countsBefore[name]; name != "kept" && after.n > was.n && after.n > int(after.limit) {
			r.t.Fatalf("%v raised %s from %d to %d, the limit is %d", c, name, was.n, after.n, after.limit)
		}
	}
	r.checkPlace(books, c)
	r.checkLicense(o)
	r.checkExpiries(books)
}

// checkExpiries holds when licences end against an independent count.
func (r *trial) checkExpiries(books *ledger) {
	r.t.Helper()
	list := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{
		ListLicenses: &licensedv1.ListLicenses{IncludeInactive: true},
	}}).(*licensedv1.ListLicensesResponse)
	for _, l := range list.Licenses {
		id := l.DeviceId + "/" + l.TitleId
		want := books.licenses[id].expiry(r.now, r.kind.Policy())
		if got := l.ExpiresAt.AsTime(); !got.Equal(want) {
			r.t.Fatalf("%s at %v expires at %v, want %v: %+v", id, r.now, got, want, books.licenses[id])
		}
	}
}

// checkPlace wants a device that acquired or renewed in a plan that is exceeded to be one of those that stay.
func (r *trial) checkPlace(books *ledger, c *licensedv1.Command) {
	r.t.Helper()
	about := subjectOf(c)
	switch about.kind {
	case licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:
		if c.GetAcquireLicense().GetAllowance() != 0 {
			return
		}
		if last := r.history[len(r.history)-1].Value; c.GetAcquireLicense().GetNewDownload() {
			return
		} else if _, unchanged := last.(*licensedv1.CommandAccepted); unchanged {
			return
		}
	case licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE:
	default:
		return
	}
	in := books.counts(r.now, r.kind.Policy(), c)["devices"]
	if renewed, ok := r.history[len(r.history)-1].Value.(*licensedv1.LicenseRenewed); ok && r.now.Before(books.grace) &&
		renewed.GetLicense().GetExpiresAtMs() <= books.grace.UnixMilli() {
		return
	}
	if in.n > int(in.limit) && !slices.Contains(books.staying, about.device) {
		r.t.Fatalf("%v was accepted with %d devices in use of %d, of which %v stay", c, in.n, in.limit, books.staying)
	}
}

// checkRefusal holds a refusal against an independent count, and its next_allowed_at against what is
// decided at other times.
func (r *trial) checkRefusal(c *licensedv1.Command, refusal *licensedv1.Refusal, counts map[string]tally) {
	r.t.Helper()
	first := refusal.Violations[0]
	if first.Rule != refusal.Rule || first.Limit != refusal.Limit || first.Current != refusal.Current {
		r.t.Fatalf("%v at %v: %v, and its first rule is %v", c, r.now, refusal, first)
	}
	for _, v := range refusal.Violations {
		r.checkViolation(c, v, counts)
	}
	r.checkRemedies(c, refusal)
	s, p := r.ended(), r.kind.Policy()
	refused := func(at int64) bool { return Decide(time.UnixMilli(at), p, s, c).Refused }
	next := int64(1 << 62)
	if refusal.NextAllowedAt != nil {
		next = refusal.NextAllowedAt.AsTime().UnixMilli()
		if next <= r.now.UnixMilli() || refused(next) {
			r.t.Fatalf("%v at %v: allowed again at %v, and refused then", c, r.now, refusal.NextAllowedAt.AsTime())
		}
	}
	if excepts(c) { // Its refusals name no time.
		return
	}
	for _, edge := range append(edges(s), next, next-1_000_000) {
		for at := edge - 1; at <= edge+1; at++ {
			if at > r.now.UnixMilli() && at < min(next, maxTime) && !refused(at) {
				r.t.Fatalf("%v at %v: %v, and allowed already at %v", c, r.now, refusal, time.UnixMilli(at).UTC())
			}
		}
	}
}

// checkViolation holds one rule of a refusal against an independent count, and its next_allowed_at against what is
// decided at other times.
func (r *trial) checkViolation(c *licensedv1.Command, v *licensedv1.RuleViolation, counts map[string]tally) {
	r.t.Helper()
	name := map[licensedv1.Rule]string{
		licensedv1.Rule_RULE_DEVICE_LIMIT:        "devices",
		licensedv1.Rule_RULE_DEVICE_NOT_SELECTED: "devices",
		licensedv1.Rule_RULE_STUDIO_LIMIT:        "studio",
		licensedv1.Rule_RULE_YEARLY_LIMIT:        "year",
		licensedv1.Rule_RULE_DEACTIVATION_LIMIT:  "deactivations",
		licensedv1.Rule_RULE_REMEMBERED_LIMIT:    "remembered",
		licensedv1.Rule_RULE_DEVICE_TITLES:       "device titles",
		licensedv1.Rule_RULE_MONTHLY_LIMIT:       "month",
	}[v.Rule]
	if _, selects := c.GetCommand().(*licensedv1.Command_SelectDevices); selects {
		name = "" // it counts what was named
	}
	if name == "remembered" && v.Limit != r.kind.Policy().Remembered() {
		name = "remembered uses"
	}
	if name != "" {
		n := counts[name]
		kept := 0 // Places may be kept for devices that stay and are not in use.
		if name == "devices" {
			kept = counts["kept"].n
		}
		if n.n != int(v.Current) || n.limit != v.Limit || n.n+kept < int(n.limit) {
			r.t.Fatalf("%v at %v: %v, counted %+v", c, r.now, v, n)
		}
	}
	if v.NextAllowedAt == nil {
		return
	}
	next := v.NextAllowedAt.AsTime().UnixMilli()
	if next <= r.now.UnixMilli() || r.violates(c, v.Rule, next) {
		r.t.Fatalf("%v at %v: the rule allows it again at %v, and refuses it then", c, r.now, v)
	}
	for _, edge := range append(edges(r.ended()), next) {
		for at := edge - 1; at <= edge+1; at++ {
			if at > r.now.UnixMilli() && at < next && !r.violates(c, v.Rule, at) {
				r.t.Fatalf("%v at %v: %v, and allowed by it already at %v", c, r.now, v, time.UnixMilli(at).UTC())
			}
		}
	}
}

// violates reports whether a rule says no to a command at a time.
func (r *trial) violates(c *licensedv1.Command, rule licensedv1.Rule, at int64) bool {
	d := Decide(time.UnixMilli(at), r.kind.Policy(), r.live.(*aggregate).state, c)
	return d.Refused && slices.ContainsFunc(brokenRules(d.Events[0].Value.(*licensedv1.CommandRefused)),
		func(b *licensedv1.BrokenRule) bool { return sameRule(b.Rule, rule) })
}

// checkRemedies applies what a refusal advises to a copy of the state, of each list the first entries and the last:
// each rule must then say yes, and the command be allowed if the refusal says that it can be.
func (r *trial) checkRemedies(c *licensedv1.Command, refusal *licensedv1.Refusal) {
	r.t.Helper()
	for _, last := range []bool{false, true} {
		r.checkChosen(c, refusal, func(v *licensedv1.RuleViolation) []*licensedv1.Remedy {
			n := min(int(v.Needed), len(v.FreedBy))
			if last {
				return v.FreedBy[len(v.FreedBy)-n:]
			}
			return v.FreedBy[:n]
		})
	}
}

// checkChosen applies some remedies of each rule.
func (r *trial) checkChosen(
	c *licensedv1.Command, refusal *licensedv1.Refusal, choose func(*licensedv1.RuleViolation) []*licensedv1.Remedy,
) {
	r.t.Helper()
	s, err := decode(r.ended().encode())
	if err != nil {
		r.t.Fatal(err)
	}
	listed := true
	for _, v := range refusal.Violations {
		if (v.Needed > 0) != (len(v.FreedBy) > 0) || len(v.FreedBy) > maxFreedBy {
			r.t.Fatalf("%v at %v: needs %d of %v", c, r.now, v.Needed, v.FreedBy)
		}
		listed = listed && int(v.Needed) <= len(v.FreedBy)
		for _, remedy := range choose(v) {
			ended := 0
			for i := range s.licenses {
				l := &s.licenses[i]
				if s.devices[l.device].id == remedy.DeviceId && l.active(r.now.UnixMilli()) &&
					(remedy.TitleId == "" || s.titles[l.title] == remedy.TitleId) {
					l.released = r.now.UnixMilli()
					ended++
				}
			}
			r.advised += ended
		}
	}
	if !listed {
		return
	}
	after := Decide(r.now, r.kind.Policy(), s, c)
	if refusal.CanBeFreed && after.Refused {
		r.t.Fatalf("%v at %v: %v; refused even so: %v", c, r.now, refusal, after.Events[0].Value)
	}
	for _, v := range refusal.Violations {
		if v.Needed > 0 && after.Refused && slices.ContainsFunc(
			brokenRules(after.Events[0].Value.(*licensedv1.CommandRefused)),
			func(b *licensedv1.BrokenRule) bool { return sameRule(b.Rule, v.Rule) }) {
			r.t.Fatalf("%v at %v: %v; broken even so: %v", c, r.now, refusal, after.Events[0].Value)
		}
	}
}

// checkLicense holds the licence in a reply against the list of licences.
func (r *trial) checkLicense(o Outcome) {
	r.t.Helper()
	if o.License == nil {
		return
	}
	list := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{
		ListLicenses: &licensedv1.ListLicenses{IncludeInactive: true},
	}}).(*licensedv1.ListLicensesResponse)
	if !slices.ContainsFunc(list.Licenses, func(l *licensedv1.License) bool { return proto.Equal(l, o.License) }) {
		r.t.Fatalf("replied %v, which is not among %v", o.License, list.Licenses)
	}
}

// checkDownloads holds the state's list of downloads against the history's.
func (r *trial) checkDownloads(title string, rng *rand.Rand) {
	r.t.Helper()
	q := &licensedv1.ListDownloads{TitleId: title}
	if rng.IntN(2) == 0 {
		q.Since = timestamppb.New(r.now.Add(-time.Duration(rng.Int64N(370*24)) * time.Hour))
	}
	a := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListDownloads{ListDownloads: q}}).(*Downloads)
	want, err := DownloadsFromHistory(title, a.Since, r.events)
	if err != nil {
		r.t.Fatal(err)
	}
	same := slices.EqualFunc(a.Response.Downloads, want,
		func(a, b *licensedv1.Download) bool { return proto.Equal(a, b) })
	if !same && !a.Older {
		r.t.Fatalf("downloads of %s since %v: %v, in history %v", title, a.Since, a.Response.Downloads, want)
	}
	if a.Older != (r.now.Sub(a.Since) >= policy.Window) {
		r.t.Fatalf("since %v is older: %v", a.Since, a.Older)
	}
	if title == "" {
		return
	}
	limited := r.violates(download("another", title), licensedv1.Rule_RULE_YEARLY_LIMIT, r.now.UnixMilli())
	if limited && a.Response.Allowed {
		r.t.Fatalf("another download of %s is allowed, and refused", title)
	}
}

// ledger is an independent reading of the history, as simple as can be: it forgets nothing.
type ledger struct {
	plan          string
	grace         time.Time // until when devices that do not stay may renew
	staying       []string  // while a selection binds
	licenses      map[string]*ledgerLicense
	uses          []ledgerUse
	deactivations []time.Time
	exceptions    []*licensedv1.Exception
	lent          []ledgerUnit
	before        map[string]tally // a settlement
	monthly       int              // downloads in a month, with what is lent
	refused       map[licensedv1.Rule]int
}

// limit returns the limit of a kind that an exception sets, or that of the policy: the last of the narrowest.
func (b *ledger) limit(
	now time.Time, kind licensedv1.LimitKind, plan, studio, title string, of uint32,
) uint32 {
	for _, narrow := range []func(*licensedv1.OtherLimit) bool{
		func(l *licensedv1.OtherLimit) bool { return l.TitleId == "" && l.StudioId == "" },
		func(l *licensedv1.OtherLimit) bool { return l.StudioId != "" && l.StudioId == studio },
		func(l *licensedv1.OtherLimit) bool { return l.TitleId != "" && l.TitleId == title },
	} {
		for _, e := range b.exceptions {
			l := e.GetLimit()
			if l == nil || l.Kind != kind || l.PlanId != plan || !narrow(l) || !now.Before(e.Until.AsTime()) {
				continue
			}
			if of = uint32(policy.Unlimited); l.Limit != nil {
				of = *l.Limit
			}
		}
	}
	return of
}

// yearly returns the yearly limit of a title.
func (b *ledger) yearly(now time.Time, p *policy.Policy, title string) uint32 {
	t := p.Title(title)
	return b.limit(now, licensedv1.LimitKind_LIMIT_KIND_YEARLY, "", t.Studio, title, uint32(t.YearlyLimit))
}

// except applies an exception, or with withdrawn undoes it.
func (b *ledger) except(e *licensedv1.Exception, withdrawn bool, now time.Time, p *policy.Policy) {
	if withdrawn {
		b.exceptions = slices.DeleteFunc(b.exceptions, func(o *licensedv1.Exception) bool {
			return o.Number == e.Number
		})
	} else {
		b.exceptions = append(b.exceptions, e)
	}
	switch k := e.Kind.(type) {
	case *licensedv1.Exception_Removal:
		at := k.Removal.RemovedAt.AsTime()
		if withdrawn {
			b.deactivations = append(b.deactivations, at)
			break
		}
		i := slices.IndexFunc(b.deactivations, at.Equal)
		b.deactivations = slices.Delete(b.deactivations, i, i+1)
	case *licensedv1.Exception_Use:
		u := ledgerUse{title: k.Use.TitleId, playback: k.Use.Playback, at: k.Use.UsedAt.AsTime()}
		if withdrawn {
			b.uses = append(b.uses, u)
			break
		}
		i := slices.IndexFunc(b.uses, func(o ledgerUse) bool {
			return o.title == u.title && o.playback == u.playback && o.at.Equal(u.at)
		})
		b.uses = slices.Delete(b.uses, i, i+1)
	case *licensedv1.Exception_Merge:
		b.merge(k.Merge.OldDeviceId, k.Merge.NewDeviceId, now, p)
	}
}

// merge moves the licences and the place of a device to another.
func (b *ledger) merge(from, to string, now time.Time, p *policy.Policy) {
	for id, l := range maps.Clone(b.licenses) {
		device, title, _ := strings.Cut(id, "/")
		if device != from {
			continue
		}
		delete(b.licenses, id)
		if held := b.licenses[to+"/"+title]; held == nil || l.end(now, p).After(held.end(now, p)) {
			l.device = to
			b.licenses[to+"/"+title] = l
		}
	}
	if i := slices.Index(b.staying, from); i >= 0 {
		b.staying = slices.Clone(b.staying)
		b.staying[i] = to
	}
}

type ledgerLicense struct {
	device, title, studio string
	since, used           time.Time // active since, and its last use
	played                time.Time // the first playback since it was granted
	hours                 uint32    // after that
	expires               time.Time
	released              bool
	releasedAt            time.Time
}

// expiry returns when the licence ends: also before it was granted to, if its title ends.
func (l *ledgerLicense) expiry(now time.Time, p *policy.Policy) time.Time {
	end := p.Title(l.title).End
	if l.released || !now.Before(l.expires) || end.IsZero() {
		return l.expires
	}
	for _, t := range []time.Time{l.since, l.used} {
		if t.After(end) {
			end = t
		}
	}
	if end.Before(l.expires) {
		return end
	}
	return l.expires
}

func (l *ledgerLicense) end(now time.Time, p *policy.Policy) time.Time {
	if l.released && l.releasedAt.Before(l.expires) {
		return l.releasedAt
	}
	return l.expiry(now, p)
}

type ledgerUse struct {
	title    string
	playback bool
	at       time.Time
}

// tally is what a rule counts, and its limit.
type tally struct {
	n     int
	limit uint32
}

func (b *ledger) record(events []actors.Event, now time.Time, p *policy.Policy) {
	now = now.Truncate(time.Millisecond)
	for i, e := range events {
		device, title, _ := strings.Cut(e.AggregateID, "/")
		switch v := e.Value.(type) {
		case *licensedv1.LicenseAcquired:
			b.licenses[e.AggregateID] = &ledgerLicense{
				device: device, title: title, studio: v.StudioId, expires: time.UnixMilli(v.ExpiresAtMs), since: now,
				hours: p.Title(title).PlayHours,
			}
		case *licensedv1.LicenseRenewed:
			l := b.licenses[e.AggregateID]
			if !now.Before(l.expires) {
				l.since = now
			}
			l.expires, l.hours, l.played = time.UnixMilli(v.License.ExpiresAtMs), p.Title(title).PlayHours, time.Time{}
		case *licensedv1.LicenseShortened:
			l := b.licenses[e.AggregateID]
			if l.expires = b.grace; v.Cause == licensedv1.ShortenedBy_SHORTENED_BY_TITLE_END {
				l.expires = time.UnixMilli(v.License.ExpiresAtMs) // checkExpiries knows what it must be
			}
		case *licensedv1.LicenseReleased:
			l := b.licenses[e.AggregateID]
			l.released, l.releasedAt = true, now
		case *licensedv1.TitleDownloaded:
			b.uses = append(b.uses, ledgerUse{title: title, at: now})
			b.licenses[e.AggregateID].used = now
		case *licensedv1.TitlePlayed:
			l := b.licenses[e.AggregateID]
			if l.hours > 0 && l.played.IsZero() {
				l.played = now
				if end := now.Add(time.Duration(l.hours) * time.Hour); end.Before(l.expires) {
					l.expires = end
				}
			}
			if p.Counts() != policy.Downloads && (p.Title(title).YearlyLimit != policy.Unlimited ||
				b.yearly(now, p, title) != uint32(policy.Unlimited)) {
				b.uses = append(b.uses, ledgerUse{title: title, playback: true, at: now})
				l.used = now
			}
		case *licensedv1.DeviceDeactivated:
			if v.GetRemoval().GetCounted() != (i+1 < len(events) || b.holdsLent(device, now)) {
				panic("a removal without licences counts, or one with licences does not")
			}
			if v.GetRemoval().GetCounted() {
				b.deactivations = append(b.deactivations, now)
			}
			b.staying = slices.DeleteFunc(slices.Clone(b.staying), func(id string) bool { return id == device })
		case *licensedv1.AllowanceLent:
			b.lend(device, v)
		case *licensedv1.AllowanceRedeemed:
			b.redeem(e.AggregateID, v)
		case *licensedv1.AllowanceReturned:
			b.lent = slices.DeleteFunc(b.lent, func(u ledgerUnit) bool { return u.number == v.Number })
		case *licensedv1.ExceptionGranted:
			b.except(v.Exception, false, now, p)
		case *licensedv1.ExceptionWithdrawn:
			b.except(v.Exception, true, now, p)
		case *licensedv1.PlanChanged:
			days := p.PlanLimits(b.plan).GraceDays
			if b.grace = (time.Time{}); days != policy.Unlimited && b.inUse(now, p) > int(v.DeviceLimit) {
				b.grace = now.AddDate(0, 0, int(days))
			}
			b.plan, b.staying = v.PlanId, v.StayingDeviceIds
		case *licensedv1.DevicesSelected:
			if b.staying = nil; v.Binding {
				b.staying = v.StayingDeviceIds
			}
		}
	}
}

// inUse returns the number of devices in use.
func (b *ledger) inUse(now time.Time, p *policy.Policy) int {
	devices := map[string]bool{}
	for _, l := range b.licenses {
		if !l.released && now.Before(l.expiry(now, p)) {
			devices[l.device] = true
		}
	}
	return len(devices)
}

// counts returns what the rules count that a command is about.
func (b *ledger) counts(now time.Time, p *policy.Policy, c *licensedv1.Command) map[string]tally {
	about := subjectOf(c)
	if titles := c.GetLendAllowance().GetTitleIds(); len(titles) > 0 {
		about.title = titles[0]
	}
	title := p.Title(about.title)
	studio := title.Studio
	if held := b.licenses[about.device+"/"+about.title]; held != nil &&
		about.kind == licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE {
		studio = held.studio
	}
	devices, ofStudio, onDevice, ofMonth := map[string]bool{}, 0, 0, 0
	for _, l := range b.licenses {
		if !l.released && now.Before(l.expiry(now, p)) {
			devices[l.device] = true
			if l.studio == studio {
				ofStudio++
			}
			if l.device == about.device {
				onDevice++
			}
		}
	}
	for _, u := range b.uses {
		if !u.playback && u.at.After(now.Add(-30*24*time.Hour)) {
			ofMonth++
		}
	}
	year := now.Add(-365 * 24 * time.Hour)
	uses, deactivations := 0, 0
	lent := 0
	for _, u := range b.lent {
		if now.Before(u.until) {
			devices[u.device] = true
			if u.studio == studio {
				ofStudio++
			}
			if u.device == about.device {
				onDevice++
			}
		}
		if u.until.After(now.Add(-30 * 24 * time.Hour)) {
			ofMonth++
		}
		if u.until.After(year) {
			lent++
			if u.title == about.title {
				uses++
			}
		}
	}
	for _, u := range b.uses {
		if u.title == about.title && u.at.After(year) &&
			(u.playback && p.Counts() != policy.Downloads || !u.playback && p.Counts() != policy.Playbacks) {
			uses++
		}
	}
	for _, at := range b.deactivations {
		if at.After(year) {
			deactivations++
		}
	}
	remembered, rememberedUses := lent, lent
	for _, l := range b.licenses {
		if end := l.end(now, p); now.Sub(end) <= 365*24*time.Hour {
			remembered++
		}
	}
	for _, u := range b.uses {
		if u.at.After(year) {
			rememberedUses++
		}
	}
	kept := 0
	for _, id := range b.staying {
		if !devices[id] {
			kept++
		}
	}
	planID, limit := p.InForce(b.plan)
	plan := p.PlanLimits(b.plan)
	limit = b.limit(now, licensedv1.LimitKind_LIMIT_KIND_DEVICES, planID, "", "", limit)
	return map[string]tally{
		"remembered":      {remembered, p.Remembered()},
		"remembered uses": {rememberedUses, p.Remembered() * policy.RememberedUses},
		"devices":         {len(devices), limit},
		"kept":            {kept, 0},
		"studio": {ofStudio, b.limit(now, licensedv1.LimitKind_LIMIT_KIND_STUDIO, "", studio, "",
			uint32(p.Studio(studio)))},
		"year": {uses, b.yearly(now, p, about.title)},
		"deactivations": {deactivations, b.limit(now, licensedv1.LimitKind_LIMIT_KIND_REMOVALS, "", "", "",
			uint32(p.Deactivations()))},
		"device titles": {onDevice, b.limit(now, licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES, planID, "", "",
			uint32(plan.TitlesPerDevice))},
		"month": {ofMonth, b.limit(now, licensedv1.LimitKind_LIMIT_KIND_MONTHLY, planID, "", "",
			uint32(plan.MonthlyDownloads))},
	}
}

// TestStateStaysBounded keeps a customer busy for years with ever new titles and devices.
func TestStateStaysBounded(t *testing.T) {
	r := newTrial(t, must(policy.Parse("p", []byte("default_plan: p\nplans: {p: {devices: 2}}\n"))), epoch)
	const everyDays, days = 3, 365 * 3
	most := 0
	for i := range days / everyDays {
		device, title := fmt.Sprintf("device%d", i/10), fmt.Sprintf("title%d", i)
		for _, c := range []*licensedv1.Command{acquire(device, title), release(device, title)} {
			if d := r.execute(c); d.Refused {
				t.Fatal(describe(d))
			}
		}
		if i%10 == 9 {
			r.execute(deactivate(device))
		}
		r.now = r.now.Add(everyDays * 24 * time.Hour)
		r.repack()
		s := r.packed.(*aggregate).state
		most = max(most, len(s.licenses))
		if len(s.licenses) > 365/everyDays+1 || len(s.titles) != len(s.licenses) ||
			len(s.devices) > 365/everyDays/10+2 || len(s.deactivations) > 365/everyDays/10+1 {
			t.Fatalf("after %d days: %d licences, %d titles, %d devices, %d deactivations", i*everyDays,
				len(s.licenses), len(s.titles), len(s.devices), len(s.deactivations))
		}
	}
	if most < 365/everyDays {
		t.Errorf("at most %d licences were kept: not those of the last 365 days", most)
	}
}

// TestLargestState lets a customer acquire and release as many titles as the policy allows, with the longest ids, and
// download the last as often as it allows: the state stays below half of what stores take, and each tenth from half
// on is told once.
func TestLargestState(t *testing.T) {
	p := must(policy.Parse("p", []byte("default_plan: p\nplans: {p: {devices: 1000}}\nremembered_licences: 2000\n")))
	k := NewKind(p)
	var told []Large
	k.Listener.Large = func(l Large) { told = append(told, l) }
	a := k.New(customerID)
	now := epoch
	run := func(c *licensedv1.Command) *licensedv1.CommandRefused {
		now = now.Add(time.Second)
		a.Decide(now, c) // a trial run tells nothing
		d := a.Decide(now, c)
		for _, e := range d.Events {
			a.Evolve(e)
			if r, ok := e.Value.(*licensedv1.CommandRefused); ok {
				return r
			}
		}
		return nil
	}
	long := func(what string, i int) string { return fmt.Sprintf("%s%0*d", what, 128-len(what), i) }
	titles, uses := 0, 0
	for r := run(
		acquire(long("device", 0), long("title", 0)),
	); r == nil; r = run(acquire(long("device", titles), long("title", titles))) {
		titles++
		uses++
		if r := run(release(long("device", titles-1), long("title", titles-1))); r != nil {
			t.Fatal(r)
		}
	}
	if titles != int(p.Remembered()) {
		t.Errorf("%d titles, the limit is %d", titles, p.Remembered())
	}
	for i := 0; ; i++ {
		c := acquire(long("device", i/200), long("title", i/200))
		if i%200 > 0 {
			c = download(long("device", i/200), long("title", i/200))
		}
		r := run(c)
		if r == nil {
			uses++
			continue
		}
		if r.Rule != licensedv1.Rule_RULE_REMEMBERED_LIMIT || int(r.Current) != uses || r.NextAllowedAtMs == 0 {
			t.Errorf("after %d uses: %v", uses, r)
		}
		break
	}
	if uses != int(p.Remembered())*policy.RememberedUses {
		t.Errorf("%d uses, the limit is %d", uses, p.Remembered()*policy.RememberedUses)
	}
	size := len(a.Snapshot(now).Data)
	t.Logf("%d licences and %d uses: a snapshot of %d bytes", titles, uses, size)
	if most := (8 << 20) * int(p.Remembered()) / 20_000; size > most {
		t.Errorf("a snapshot of %d bytes, of %d that this share of the highest limit has", size, most)
	}
	if len(told) != 12 || told[0].Customer != customerID || told[0].Licenses != 1000 || told[0].Limit != 2000 ||
		told[6].Uses != 10_000 {
		t.Errorf("told %d times: %+v", len(told), told)
	}
}

// TestManyDownloads exceeds what the state keeps of a title without a limit.
func TestManyDownloads(t *testing.T) {
	unlimited := must(policy.Parse("p", []byte("default_plan: p\nplans: {p: {devices: 2}}\n")))
	r := newTrial(t, unlimited, epoch)
	r.execute(acquire("iphone", "x"))
	for range 2 * maxCounted {
		r.now = r.now.Add(time.Hour)
		r.execute(download("iphone", "x"))
	}
	s := r.live.(*aggregate).state
	if n := len(s.licenses[0].uses); n != maxCounted {
		t.Fatalf("%d downloads in the state, want %d", n, maxCounted)
	}
	list := func(since time.Time) *Downloads {
		q := &licensedv1.ListDownloads{TitleId: "x", Since: timestamppb.New(since)}
		return r.query(&licensedv1.Query{Query: &licensedv1.Query_ListDownloads{ListDownloads: q}}).(*Downloads)
	}
	oldest := time.UnixMilli(s.licenses[0].uses[0].at())
	if a := list(oldest); !a.Older {
		t.Error("the state answers for a time of which it may have dropped downloads")
	}
	if a := list(oldest.Add(1)); a.Older || len(a.Response.Downloads) != maxCounted-1 {
		t.Errorf("older %v, %d downloads, want those that are kept", a.Older, len(a.Response.Downloads))
	}
	// A limit as high as any counts all that matter.
	r.kind.SetPolicy(must(policy.Parse("p", []byte(fmt.Sprintf(
		"default_plan: p\nplans: {p: {devices: 2}}\ndefaults: {yearly_limit: %d}\n", policy.MaxYearlyLimit)))))
	if d := r.execute(download("iphone", "x")); !d.Refused {
		t.Errorf("above the limit: %s", describe(d))
	}
}

// TestUsesOfEachSort keeps playbacks from displacing the downloads that a limit needs.
func TestUsesOfEachSort(t *testing.T) {
	l := &license{}
	for i := range int64(3 * maxCounted) {
		l.use(newUse(2*i, false))
		l.use(newUse(2*i+1, true))
	}
	downloads := 0
	for i, u := range l.uses {
		if i > 0 && u.at() <= l.uses[i-1].at() {
			t.Fatal("out of order")
		}
		if !u.playback() {
			downloads++
		}
	}
	if downloads != maxCounted || len(l.uses) != 2*maxCounted {
		t.Errorf("%d downloads of %d uses", downloads, len(l.uses))
	}
}
