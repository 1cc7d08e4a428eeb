package license

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// lendingPolicy lends up to 3 downloads.
var lendingPolicy = must(policy.Parse("lending", []byte(`
default_plan: two
licence_days: 20
deactivations_per_year: 3
plans:
  one: {devices: 1}
  two: {devices: 2, titles_per_device: 4, downloads_per_month: 9, allowances: {downloads: 3, at_a_time: 2, hours: 48}}
  three: {devices: 3, titles_per_device: 4, downloads_per_month: 9, allowances: {downloads: 3, at_a_time: 3, hours: 72}}
studios: {a: {downloads: 2}, b: {downloads: 1}}
titles:
  a1: {studio: a, yearly_limit: 2}
  a2: {studio: a, yearly_limit: 4, available_until: 2026-05-01}
  a3: {studio: a}
  b1: {studio: b, yearly_limit: 1}
  b2: {studio: b, yearly_limit: 0}
`)))

// ledgerUnit is a unit that is lent.
type ledgerUnit struct {
	number                uint64
	device, title, studio string
	until                 time.Time
}

func (b *ledger) lend(device string, v *licensedv1.AllowanceLent) {
	for _, u := range v.Units {
		b.lent = append(b.lent, ledgerUnit{v.Number, device, u.TitleId, u.StudioId, time.UnixMilli(v.UntilMs)})
	}
}

// redeem makes a unit a download, and the licence what the event says.
func (b *ledger) redeem(id string, v *licensedv1.AllowanceRedeemed) {
	device, title, _ := strings.Cut(id, "/")
	before := len(b.lent)
	b.lent = slices.DeleteFunc(b.lent, func(u ledgerUnit) bool { return u.number == v.Number && u.title == title })
	if len(b.lent) != before-1 {
		panic("a unit was redeemed that is not lent")
	}
	b.uses = append(b.uses, ledgerUse{title: title, at: time.UnixMilli(v.RedeemedAtMs)})
	if l := b.licenses[id]; l != nil && l.expires.UnixMilli() == v.License.ExpiresAtMs {
		return
	}
	b.licenses[id] = &ledgerLicense{
		device: device, studio: v.License.StudioId, expires: time.UnixMilli(v.License.ExpiresAtMs),
	}
}

func (b *ledger) holdsLent(device string, now time.Time) bool {
	return slices.ContainsFunc(b.lent, func(u ledgerUnit) bool { return u.device == device && now.Before(u.until) })
}

// grant is a licence that a gateway granted while the owner was unavailable.
type grant struct {
	number        uint64
	device, title string
	at, until     time.Time
}

// lending has gateways redeem what is lent while the owner is unavailable, and settle it before or long after its end.
// At each step it counts, beside what the history says, the grants that the owner does not know of yet. It returns the
// number of licences that the advice of refusals would have ended.
func lending(t *testing.T, seed int, seen map[licensedv1.Rule]int) int {
	rng := rand.New(rand.NewPCG(uint64(seed), 3))
	r := newTrial(t, lendingPolicy, epoch)
	books := &ledger{licenses: map[string]*ledgerLicense{}, refused: seen}
	var grants []grant // not settled
	for range 150 {
		if r.now = r.now.Add(time.Duration(rng.Int64N(day/2)) * time.Millisecond); rng.IntN(10) == 0 {
			r.wait(rng)
		}
		device, title := pick(rng, someDevices[:3]), pick(rng, someTitles)
		var c *licensedv1.Command
		switch rng.IntN(18) {
		case 0, 1, 2:
			c = acquire(device, title)
		case 3:
			c = release(device, title)
		case 4:
			c = download(device, title)
		case 5:
			c = deactivate(device)
		case 6:
			c = changePlan(pick(rng, somePlans))
		case 7:
			c = renew(device, title)
		case 8, 9, 10:
			if rng.IntN(2) == 0 {
				c = lend(device, "gw", title)
				break
			}
			// A refusal of several titles is that of the first.
			r.lendSome(books, lend(device, "gw", title, pick(rng, someTitles), pick(rng, someTitles)))
		case 11, 12, 13: // The gateway grants one while the owner is unavailable.
			if u, ok := books.redeemable(rng, r.now, grants); ok {
				grants = append(grants, u)
			}
		case 14, 15:
			if len(grants) > 0 {
				g := grants[0]
				grants = grants[1:]
				r.settle(books, g)
			}
		case 16: // The gateway returns one, after what it granted.
			if len(books.lent) > 0 {
				u := pick(rng, books.lent)
				for _, g := range grants {
					r.settle(books, g)
				}
				grants = nil
				c = giveBack(u.device, "gw", u.number)
			}
		default:
			c = redeem(device, title, "gw", 1<<40, r.now) // never lent
		}
		if c != nil {
			r.step(books, c)
		}
		r.checkGrants(books, grants)
		if t.Failed() {
			t.Fatalf("lending, seed %d", seed)
		}
	}
	for _, g := range grants {
		r.settle(books, g)
	}
	r.checkGrants(books, nil)
	return r.advised
}

// lendSome lends some of several titles.
func (r *trial) lendSome(books *ledger, c *licensedv1.Command) {
	r.t.Helper()
	if d := r.execute(c); !d.Refused {
		books.record(d.Events, r.now, r.kind.Policy())
	}
}

// redeemable returns a unit that a gateway can grant now.
func (b *ledger) redeemable(rng *rand.Rand, now time.Time, granted []grant) (g grant, ok bool) {
	if len(b.lent) == 0 {
		return g, false
	}
	u := pick(rng, b.lent)
	g = grant{u.number, u.device, u.title, now, u.until}
	if !now.Before(u.until.Add(-AllowanceMargin)) || slices.ContainsFunc(granted, func(o grant) bool {
		return o.number == g.number && o.title == g.title
	}) {
		return g, false
	}
	return g, true
}

// settle hands in a grant, which is never refused.
func (r *trial) settle(books *ledger, g grant) {
	r.t.Helper()
	c := redeem(g.device, g.title, "gw", g.number, g.at)
	books.nothingOver(r, c)
	d := r.execute(c)
	o := r.outcome(c, d)
	if d.Refused && !r.now.Before(g.until.Add(policy.Window)) { // It counts no more.
		books.nothingOver(r, c)
		return
	}
	if o.License == nil || o.License.ExpiresAt.AsTime().Before(g.until) && r.now.Before(g.until) {
		r.t.Fatalf("a grant was settled as %v, %v; the device has it until %v", o.License, o.Refusal, g.until)
	}
	books.record(d.Events, r.now, r.kind.Policy())
	r.checkLicense(o)
	books.nothingOver(r, c)
	// Again, as after a crash: refused, and nothing changes.
	before := copyState(r.t, r.live.(*aggregate).state)
	if again := r.execute(c); !again.Refused || copyState(r.t, r.live.(*aggregate).state).units() != before.units() {
		r.t.Fatalf("%v settled twice: %v", c, describe(again))
	}
}

// nothingOver checks that no count is raised by a settlement: it is called before and after it.
func (b *ledger) nothingOver(r *trial, c *licensedv1.Command) {
	r.t.Helper()
	counts := b.counts(r.now, r.kind.Policy(), c)
	if b.before != nil {
		for _, name := range []string{"devices", "studio", "year", "device titles", "month"} {
			if counts[name].n > b.before[name].n {
				r.t.Fatalf("a settlement raised %s from %d to %d", name, b.before[name].n, counts[name].n)
			}
		}
		counts = nil
	}
	b.before = counts
}

// checkGrants counts what is recorded and what is granted, without what is reserved, against the limits of the policy.
// The limits of the plan and of a studio are not lowered in this test, but for the plan, which may be exceeded then.
func (r *trial) checkGrants(b *ledger, grants []grant) {
	r.t.Helper()
	studios, titles, month := map[string]int{}, map[string]int{}, 0
	for _, l := range b.licenses {
		if !l.released && r.now.Before(l.expires) {
			studios[l.studio]++
		}
	}
	for _, u := range b.uses {
		if u.at.After(r.now.Add(-policy.Window)) {
			titles[u.title]++
		}
		if !u.playback && u.at.After(r.now.Add(-policy.Month)) {
			month++
		}
	}
	for _, g := range grants {
		l := b.licenses[g.device+"/"+g.title]
		if held := l != nil && !l.released && r.now.Before(l.expires); r.now.Before(g.until) && !held {
			studios[lendingPolicy.Title(g.title).Studio]++
		}
		if g.at.After(r.now.Add(-policy.Window)) {
			titles[g.title]++
		}
		if g.at.After(r.now.Add(-policy.Month)) {
			month++
		}
	}
	// Plan one has no limit, and leaves what was downloaded and lent to the plans after it.
	total := b.counts(r.now, r.kind.Policy(), acquire("x", "x"))["month"].n
	switch most := max(9, b.monthly); {
	case b.plan == "one":
		b.monthly = total
	case max(month, total) > most:
		r.t.Fatalf("%d downloads and grants in a month, %d with what is lent, the limit is %d", month, total, most)
	default:
		b.monthly = min(most, total)
	}
	for studio, n := range studios {
		if limit := lendingPolicy.Studio(studio); limit != policy.Unlimited && n > int(limit) {
			r.t.Fatalf("%d active and granted licences of studio %s, the limit is %d", n, studio, limit)
		}
	}
	for title, n := range titles {
		if limit := lendingPolicy.Title(title).YearlyLimit; limit != policy.Unlimited && n > int(limit) {
			r.t.Fatalf("%d downloads and grants of title %s, the limit is %d", n, title, limit)
		}
	}
}

// TestLateRedemption: what a snapshot dropped of a licence is dropped by a settlement of long after the download, too.
func TestLateRedemption(t *testing.T) {
	r := newTrial(t, lendingPolicy, epoch)
	at := func(days int) { r.now = epoch.Add(time.Duration(days) * 24 * time.Hour) }
	for _, day := range []int{0, 100, 101, 102, 103, 104, 105, 106, 107} {
		at(day)
		if d := r.execute(acquire("iphone", "x")); d.Refused {
			t.Fatal(describe(d))
		}
		r.now = r.now.Add(time.Hour)
		r.execute(release("iphone", "x"))
	}
	at(140)
	if d := r.execute(lend("iphone", "gw", "x")); d.Refused {
		t.Fatal(describe(d))
	}
	redeemed := r.now.Add(time.Hour)
	at(400)
	if d := r.execute(redeem("iphone", "x", "gw", 1, redeemed)); d.Refused {
		t.Fatal(describe(d))
	}
	r.execute(sync("iphone", fact(1, played, "x", epoch.Add(50*24*time.Hour))))
}

// TestManyAllowances: a history that was imported may have lent any number, and its snapshot can be read.
func TestManyAllowances(t *testing.T) {
	r := newTrial(t, lendingPolicy, epoch)
	r.execute(acquire("iphone", "x"))
	a := r.live
	for i := range uint64(maxAllowances + 1) {
		a.Evolve(actors.Event{AggregateID: "iphone", Order: i + 1, Time: r.now, Value: &licensedv1.AllowanceLent{
			Number: i + 1, GatewayId: "gw", UntilMs: r.now.UnixMilli() + hour,
			Units: []*licensedv1.AllowanceLent_Unit{{TitleId: "x", StudioId: "a"}},
		}})
	}
	if s := restore(t, r.kind, a.Snapshot(r.now)).(*aggregate).state; len(s.allowances) != maxAllowances {
		t.Errorf("%d allowances", len(s.allowances))
	}
	for _, number := range []uint64{0, 1<<64 - 1} {
		if checkContent(&licensedv1.AllowanceLent{Number: number, GatewayId: "gw", UntilMs: 1,
			Units: []*licensedv1.AllowanceLent_Unit{{TitleId: "x"}}}) == nil {
			t.Errorf("an import takes allowance %d", number)
		}
	}
}
