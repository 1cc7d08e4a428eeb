package license

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// TestRandomMix has customers use everything at once under policies that change: exceptions and merges, what is lent
// and settled late, facts, plans and graces. No command raises a count above its limit, what a gateway granted is never
// refused, and replay and snapshot decide and answer the same. TestRandomCustomers knows each rule more exactly.
func TestRandomMix(t *testing.T) {
	for seed := range 150 {
		mix(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func mix(t *testing.T, seed int) {
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	policies := slices.Concat(somePolicies, slices.Repeat([]*policy.Policy{lendingPolicy}, 4))
	r := newTrial(t, lendingPolicy, epoch)
	numbers, orders := map[string]uint64{}, map[string]uint64{}
	var grants []grant // not settled
	labels := labelBook{}
	for range 150 {
		if r.now = r.now.Add(time.Duration(rng.Int64N(day/2)) * time.Millisecond); rng.IntN(10) == 0 {
			r.wait(rng)
		}
		if rng.IntN(20) == 0 {
			r.kind.SetPolicy(pick(rng, policies))
		}
		device, title := pick(rng, someDevices[:3]), pick(rng, someTitles)
		s := r.live.(*aggregate).state
		settles := false
		var c *licensedv1.Command
		switch rng.IntN(14) {
		case 0, 1, 2:
			c = someCommand(rng)
		case 3:
			c = someException(rng, device, title)
		case 4, 5:
			c = lend(device, "gw", title, pick(rng, someTitles), pick(rng, someTitles))
		case 6:
			c = play(device, title)
		case 7, 8:
			c = numberedFacts(rng, r.now, device, numbers)
		case 9, 10, 11: // A gateway grants one while the owner is unavailable.
			if g, ok := s.redeemable(rng, r.now, grants); ok {
				grants = append(grants, g)
			}
		case 12:
			if len(grants) > 0 {
				g := grants[0]
				grants = grants[1:]
				c = redeem(g.device, g.title, "gw", g.number, g.at)
				settles = r.now.Before(g.until.Add(policy.Window))
			}
		default: // A gateway returns one after what it granted.
			if len(s.allowances) > 0 {
				a := pick(rng, s.allowances)
				if !slices.ContainsFunc(grants, func(g grant) bool { return g.number == a.number }) {
					c = giveBack(s.devices[a.device].id, "gw", a.number)
				}
			}
		}
		if c == nil {
			continue
		}
		if rng.IntN(3) == 0 {
			labelled(c, pick(rng, []string{"", "Anna's iPad", "電話"}), licensedv1.DeviceType(rng.IntN(4)))
		}
		labels.before(r)
		labels.after(r, c, r.mixed(dated(c, r.now), settles, orders))
		if rng.IntN(8) == 0 {
			r.checkCustomer()
		}
		if rng.IntN(10) == 0 {
			r.checkDownloads(pick(rng, append(someTitles, "")), rng)
		}
		if t.Failed() {
			return
		}
	}
}

// numberedFacts reports some facts of a device, some of which were reported before.
func numberedFacts(rng *rand.Rand, now time.Time, device string, numbers map[string]uint64) *licensedv1.Command {
	kinds := []licensedv1.FactKind{downloaded, played, played, deleted}
	var facts []*licensedv1.SyncDevice_Fact
	for range 1 + rng.IntN(4) {
		numbers[device] += uint64(rng.IntN(3))
		ago := time.Duration(rng.Int64N(20*day)) * time.Millisecond
		facts = append(facts, fact(numbers[device]+1, pick(rng, kinds), pick(rng, someTitles), now.Add(-ago)))
	}
	if rng.IntN(10) == 0 {
		delete(numbers, device)
	}
	return sync(device, facts...)
}

// redeemable returns a unit that a gateway can grant now.
func (s *State) redeemable(rng *rand.Rand, now time.Time, granted []grant) (g grant, ok bool) {
	if len(s.allowances) == 0 {
		return g, false
	}
	a := pick(rng, s.allowances)
	g = grant{a.number, s.devices[a.device].id, s.titles[pick(rng, a.units).title], now, time.UnixMilli(a.until)}
	return g, now.Before(g.until.Add(-AllowanceMargin)) && !slices.ContainsFunc(granted, func(o grant) bool {
		return o.number == g.number && o.title == g.title
	})
}

// mixed executes a command, and checks counts and order numbers.
func (r *trial) mixed(c *licensedv1.Command, settles bool, orders map[string]uint64) actors.Decision {
	r.t.Helper()
	before := r.measure()
	d := r.execute(c)
	if o := r.outcome(c, d); settles && d.Refused {
		r.t.Fatalf("%v: what a gateway granted is refused: %v", c, o.Refusal)
	}
	for name, n := range r.measure() {
		if n.n > before[name].n && n.n > int(n.limit) && !mayExceed(c, name) {
			r.t.Fatalf("%v raised %s from %d to %d, the limit is %d", c, name, before[name].n, n.n, n.limit)
		}
	}
	for _, e := range d.Events {
		if e.Order != 0 && e.Order != orders[e.AggregateID] {
			r.t.Fatalf("%v: order number %d of %s, want %d", c, e.Order, e.AggregateID, orders[e.AggregateID])
		}
		orders[e.AggregateID] = e.Order + 1
	}
	return d
}

// labelBook has the labels that devices should have.
type labelBook map[string]*licensedv1.DeviceLabel

// devices returns the devices that the rules know, by id.
func (r *trial) devices() map[string]*licensedv1.Device {
	all := map[string]*licensedv1.Device{}
	answer := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}}})
	for _, d := range answer.(*licensedv1.ListDevicesResponse).Devices {
		all[d.DeviceId] = d
	}
	return all
}

// before drops the labels of devices that were forgotten, and checks the others.
func (b labelBook) before(r *trial) {
	r.t.Helper()
	devices := r.devices()
	for id := range b {
		if devices[id] == nil {
			delete(b, id)
		}
	}
	for id, d := range devices {
		if d.DeviceName != b[id].GetDeviceName() || d.DeviceType != b[id].GetDeviceType() {
			r.t.Fatalf("%s is called %q (%v), want %v", id, d.DeviceName, d.DeviceType, b[id])
		}
	}
}

// after records what a command says of its device.
func (b labelBook) after(r *trial, c *licensedv1.Command, d actors.Decision) {
	given := func(id, name string, kind licensedv1.DeviceType) {
		b[id] = &licensedv1.DeviceLabel{
			DeviceName: cmp.Or(name, b[id].GetDeviceName()), DeviceType: cmp.Or(kind, b[id].GetDeviceType()),
		}
	}
	if d.Refused || slices.ContainsFunc(d.Events, func(e actors.Event) bool {
		v, ok := e.Value.(*licensedv1.CommandAccepted)
		return ok && v.Superseded
	}) {
		return
	}
	if m := c.GetGrantException().GetMerge(); m != nil {
		from := b[m.OldDeviceId]
		given(m.NewDeviceId, cmp.Or(b[m.NewDeviceId].GetDeviceName(), from.GetDeviceName()),
			cmp.Or(b[m.NewDeviceId].GetDeviceType(), from.GetDeviceType()))
		return
	}
	if c.GetAcquireLicense() == nil && c.GetRenewLicense() == nil && c.GetSyncDevice() == nil {
		return
	}
	if id := subjectOf(c).device; r.devices()[id].GetActive() {
		given(id, c.DeviceName, c.DeviceType)
	}
}

// mayExceed reports whether a command may raise a count above its limit.
func mayExceed(c *licensedv1.Command, count string) bool {
	switch {
	case c.GetWithdrawException() != nil: // What was forgiven counts again.
		return true
	case c.GetSyncDevice() != nil: // It happened.
		return count == "month" || strings.HasPrefix(count, "year ")
	default:
		return c.GetGrantException().GetMerge() != nil && strings.HasPrefix(count, "device titles ")
	}
}

// measured is what limits are about: counts by limit and what it is for, and the limits that are in force.
type measured map[string]tally

// measure counts by reading the state as it is, without the functions of the rules.
func (r *trial) measure() measured {
	v := view{now: r.now.UnixMilli(), policy: r.kind.Policy(), state: r.live.(*aggregate).state}.ended()
	s, m, inUse := v.state, measured{}, map[uint32]bool{}
	count := func(name string, limit policy.Limit) {
		m[name] = tally{m[name].n + 1, uint32(limit)}
	}
	active := func(device uint32, studio string) {
		inUse[device] = true
		count("studio "+studio, v.studioBound(studio).limit)
		count("device titles "+s.devices[device].id, v.deviceTitlesBound().limit)
	}
	download := func(title uint32, at int64) {
		if at > v.now-month {
			count("month", v.monthlyBound().limit)
		}
		if at > v.now-window && v.policy.Counts()&policy.Downloads != 0 {
			count("year "+s.titles[title], v.yearlyBound(s.titles[title]).limit)
		}
	}
	for _, l := range s.licenses {
		if l.active(v.now) {
			active(l.device, s.studioOf(&l))
		}
		for _, u := range l.uses {
			if !u.playback() {
				download(l.title, u.at())
			} else if u.at() > v.now-window && v.policy.Counts()&policy.Playbacks != 0 {
				count("year "+s.titles[l.title], v.yearlyBound(s.titles[l.title]).limit)
			}
		}
	}
	for _, a := range s.allowances {
		for _, u := range a.units {
			if v.now < a.until {
				active(a.device, s.studios[u.studio])
			}
			download(u.title, a.until)
		}
	}
	_, b := v.devicesBound()
	m["devices"] = tally{len(inUse), uint32(b.limit)}
	return m
}
