package license

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"licensed/actors"
	"licensed/actors/license/ids"
	"licensed/messages/licensedv1"
)

// Allowances are downloads that are reserved for a device, so that one gateway can grant them while the owner cannot be
// reached. Every rule counts what is lent as if it had been downloaded: view.eachLent. The argument is in
// docs/design/allowances.md.

const (
	// AllowanceMargin is the time by which a licence that is granted within an allowance ends before it: the clocks of
	// the device and of the owner may each be wrong by half of it.
	AllowanceMargin = 10 * time.Minute
	// MaxLent is the number of titles in LendAllowance.
	MaxLent = 50
	// maxAllowances is the number of allowances of a customer that are kept, also those of which no gateway has said
	// what it redeemed.
	maxAllowances = 32
)

// allowance is what was lent to a device and is neither settled nor returned.
type allowance struct {
	number  uint64
	device  uint32 // position
	gateway string
	lent    int64
	until   int64
	units   []unit // at least one
}

// unit is one download of a title, which counts for a studio: positions.
type unit struct{ title, studio uint32 }

// ended reports whether rules treat the allowance as never lent: a download within it would not count any more.
func (a *allowance) ended(now int64) bool { return now >= a.until+window }

// allowance returns the position of an allowance, -1 if there is none.
func (s *State) allowance(number uint64) int {
	return slices.IndexFunc(s.allowances, func(a allowance) bool { return a.number == number })
}

// units returns the number of units.
func (s *State) units() (n int) {
	for i := range s.allowances {
		n += len(s.allowances[i].units)
	}
	return n
}

// forgetAllowances drops those that ended.
func (s *State) forgetAllowances(now int64) {
	s.allowances = slices.DeleteFunc(s.allowances, func(a allowance) bool { return a.ended(now) })
}

// settle removes the unit of a title, and the allowance with its last one.
func (s *State) settle(number uint64, title string) {
	i := s.allowance(number)
	if i < 0 {
		return
	}
	a, t := &s.allowances[i], s.title(title)
	// A copy: the state may share the units with another one.
	units := make([]unit, 0, len(a.units))
	for _, u := range a.units {
		if int(u.title) != t {
			units = append(units, u)
		}
	}
	if a.units = units; len(units) == 0 {
		s.allowances = slices.Delete(s.allowances, i, i+1)
	}
}

// lend adds an allowance.
func (s *State) lend(device uint32, at int64, e *licensedv1.AllowanceLent) {
	s.forgetAllowances(at)
	a := allowance{
		number: e.GetNumber(), device: device, gateway: e.GetGatewayId(), lent: at, until: e.GetUntilMs(),
		units: make([]unit, len(e.GetUnits())),
	}
	for i, u := range e.GetUnits() {
		a.units[i] = unit{intern(&s.titles, u.GetTitleId()), intern(&s.studios, u.GetStudioId())}
	}
	s.lastAllowance = max(s.lastAllowance, a.number)
	if len(a.units) == 0 {
		return
	}
	// Only an imported history has more: the oldest leave first.
	if s.allowances = append(s.allowances, a); len(s.allowances) > maxAllowances {
		s.allowances = s.allowances[1:]
	}
}

// evolveAllowance applies an event about an allowance; it returns false for others.
func (s *State) evolveAllowance(e actors.Event, at int64) bool {
	switch v := e.Value.(type) {
	case *licensedv1.AllowanceLent:
		s.see(e.AggregateID, at).order = e.Order + 1
		s.lend(uint32(s.device(e.AggregateID)), at, v)
	case *licensedv1.AllowanceReturned:
		// No use of the device: the gateway may return it by itself.
		if i := s.device(e.AggregateID); i >= 0 {
			s.devices[i].order = e.Order + 1
		}
		if i := s.allowance(v.GetNumber()); i >= 0 {
			s.allowances = slices.Delete(s.allowances, i, i+1)
		}
	case *licensedv1.AllowanceRedeemed:
		deviceID, titleID, ok := strings.Cut(e.AggregateID, "/")
		if !ok {
			break
		}
		s.settle(v.GetNumber(), titleID)
		s.hold(deviceID, titleID).redeem(s, v, at)
		d := &s.devices[s.device(deviceID)]
		redeemed := min(v.GetRedeemedAtMs(), at)
		d.seen, d.downloaded = max(d.seen, redeemed), max(d.downloaded, redeemed)
		s.hold(deviceID, titleID).order = e.Order + 1
	default:
		return false
	}
	return true
}

// redeem makes the licence what it is after a unit was settled.
func (l *license) redeem(s *State, v *licensedv1.AllowanceRedeemed, at int64) {
	redeemed, terms := min(v.GetRedeemedAtMs(), at), v.GetLicense()
	l.studio = intern(&s.studios, terms.GetStudioId()) + 1
	l.use(newUse(redeemed, false))
	if l.acquired != terms.GetAcquiredAtMs() {
		l.begin(terms.GetAcquiredAtMs(), at)
		l.acquired, l.released, l.renewals = terms.GetAcquiredAtMs(), 0, 0
		l.grant(l.acquired, terms.GetPlayHours())
		l.meant = intentOf(l.acquired, v.GetIssuedAtMs()).meant
	}
	l.expires = terms.GetExpiresAtMs()
}

// mayLendTo asks the rules about lending to a device at all. Nothing is known of a device at -1.
func (v view) mayLendTo(device int) (r refusal) {
	if device < 0 {
		return refusedBy(licensedv1.Rule_RULE_UNKNOWN_DEVICE)
	}
	if v.deactivated(device) {
		return refusedBy(licensedv1.Rule_RULE_DEVICE_DEACTIVATED)
	}
	plan, _ := v.policy.InForce(v.state.plan)
	limits := v.policy.Allowances(plan)
	if limits.Downloads == 0 || limits.Allowances == 0 {
		return refusal{{rule: licensedv1.Rule_RULE_NO_ALLOWANCES, plan: plan}}
	}
	allowances, kept := 0, 0
	for i := range v.state.allowances {
		if a := &v.state.allowances[i]; !a.ended(v.now) {
			kept++
			if v.now < a.until {
				allowances++
			}
		}
	}
	limit, n := limits.Allowances, allowances
	switch units := len(v.lentOf(func(*allowance, unit) bool { return true })); {
	case units >= int(limits.Downloads):
		limit, n = limits.Downloads, units
	case allowances >= int(limits.Allowances):
	case kept >= maxAllowances:
		limit, n = maxAllowances, kept
	default:
		return nil
	}
	return refusal{{
		rule: licensedv1.Rule_RULE_ALLOWANCE_LIMIT, limit: limit, current: uint32(n), plan: plan,
	}}
}

// mayLend asks the rules of AcquireLicense about a title, as if the device did not have it.
func (v view) mayLend(t target) (r refusal) {
	title := v.policy.Title(t.titleID)
	r.add(v.available(&title))
	r.add(v.deviceLimit(t.device))
	r.add(v.deviceTitles(t.device))
	r.add(v.studioLimit(title.Studio))
	r.add(v.yearlyLimit(&t))
	r.add(v.monthlyLimit())
	r.add(v.rememberedLimit(true))
	return r
}

// mayLendAny asks the rules of LendAllowance: those about the device, and those about the titles. One title that can be
// lent is enough.
func (v view) mayLendAny(deviceID string, titles []string) (r refusal) {
	if r := v.mayLendTo(v.device(deviceID)); r != nil {
		return r
	}
	for i, id := range titles {
		switch of := v.mayLend(v.find(deviceID, id)); {
		case of == nil:
			return nil
		case i == 0:
			r = of
		}
	}
	return r
}

// lend decides LendAllowance. It lends the titles that no limit forbids; with none, it is refused like the first one.
func (d *decider) lend(c *licensedv1.LendAllowance) {
	deviceID, titles := c.GetDeviceId(), c.GetTitleIds()
	mustBeID("gateway", c.GetGatewayId())
	for _, id := range titles {
		mustBeID("title", id)
	}
	mustBeID("device", deviceID)
	device := d.device(deviceID)
	e := &licensedv1.AllowanceLent{Number: d.state.lastAllowance + 1, GatewayId: c.GetGatewayId()}
	var refused refusal
	if refused = d.mayLendTo(device); refused == nil {
		refused = d.lendTitles(e, device, deviceID, titles)
	}
	if len(e.GetUnits()) == 0 {
		d.refuse(refused, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_LEND_ALLOWANCE, DeviceId: deviceID, TitleId: titles[0],
		}, func(v view) refusal { return v.mayLendAny(deviceID, titles) })
		return
	}
	d.add(deviceID, d.state.devices[device].order, e)
	d.takePlace(device)
}

// lendTitles puts into the event the titles that can be lent: each is judged as if those before it were lent. It
// returns the refusal of the first one, nil if that is lent.
func (d *decider) lendTitles(
	e *licensedv1.AllowanceLent, device int, deviceID string, titles []string,
) (first refusal) {
	plan, _ := d.policy.InForce(d.state.plan)
	limits := d.policy.Allowances(plan)
	e.UntilMs = d.now + limits.For.Milliseconds()
	room := int(limits.Downloads) - len(d.lentOf(func(*allowance, unit) bool { return true }))
	former := *d.state // its tables and allowances are copied before they are changed
	for i, id := range titles {
		if len(e.GetUnits()) >= room || slices.Contains(titles[:i], id) {
			continue
		}
		s := former
		s.titles, s.studios = slices.Clone(s.titles), slices.Clone(s.studios)
		s.allowances = slices.Clone(s.allowances)
		s.lend(uint32(device), d.now, e)
		v := d.view
		v.state = &s
		if r := v.mayLend(v.find(deviceID, id)); r != nil {
			if i == 0 {
				first = r
			}
			continue
		}
		title := d.policy.Title(id)
		e.Units = append(e.Units, &licensedv1.AllowanceLent_Unit{TitleId: id, StudioId: title.Studio})
		if !title.AvailableUntil.IsZero() {
			e.UntilMs = min(e.UntilMs, title.AvailableUntil.UnixMilli())
		}
	}
	if first == nil && len(e.GetUnits()) == 0 {
		panic("license: no title to lend, and none refused") // CheckCommand wants one
	}
	return first
}

// redeem decides AcquireLicense that names an allowance: a gateway has granted it, or grants it by this command. No
// limit refuses it, since the unit counted until now.
func (d *decider) redeem(c *licensedv1.AcquireLicense) {
	t := d.target(c.GetDeviceId(), c.GetTitleId())
	a := d.lentUnit(t, c.GetAllowance(), c.GetGatewayId())
	if a == nil {
		d.refuse(refusedBy(licensedv1.Rule_RULE_ALLOWANCE_ENDED), &licensedv1.CommandRefused{
			Command:  licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE,
			DeviceId: t.deviceID, TitleId: t.titleID,
		}, nil)
		return
	}
	e := &licensedv1.AllowanceRedeemed{
		Number: a.number, IssuedAtMs: d.issued,
		RedeemedAtMs: max(a.lent, min(c.GetRedeemedAtMs(), d.now, a.until)),
	}
	d.redeemedTerms(e, t, a)
	order := uint64(0)
	if l := d.license(t); l != nil {
		order = l.order
	} else {
		d.add(t.aggregateID(), order, &licensedv1.LicenseCreated{})
		order++
	}
	d.add(t.aggregateID(), order, e)
	if d.now < a.until && e.GetShortenedBy() == licensedv1.Rule_RULE_UNSPECIFIED {
		d.takePlace(t.device)
	}
}

// lentUnit returns the allowance in which a gateway was lent the title for the device; nil if it is not lent.
func (d *decider) lentUnit(t target, number uint64, gateway string) *allowance {
	i := d.state.allowance(number)
	if i < 0 {
		return nil
	}
	a := &d.state.allowances[i]
	if a.ended(d.now) || a.gateway != gateway || int(a.device) != t.device || t.title < 0 ||
		!slices.ContainsFunc(a.units, func(u unit) bool { return u.title == uint32(t.title) }) {
		return nil
	}
	return a
}

// redeemedTerms says what the licence is after a unit of it was settled.
func (d *decider) redeemedTerms(e *licensedv1.AllowanceRedeemed, t target, a *allowance) {
	l, title := d.license(t), d.policy.Title(t.titleID)
	expires := a.until
	if d.now < a.until {
		if e.ShortenedBy = d.shortens(t.device, t.titleID); e.GetShortenedBy() == licensedv1.Rule_RULE_UNSPECIFIED {
			expires = max(expires, d.expiry(&title))
		}
	}
	// The unit's studio is the one that was reserved.
	studio := title.Studio
	for _, u := range a.units {
		if u.title == uint32(t.title) {
			studio = d.state.studios[u.studio]
		}
	}
	acquired := e.GetRedeemedAtMs()
	if l != nil && l.active(d.now) || l != nil && d.now >= a.until && l.since >= acquired {
		e.License = d.terms(l)
		if d.now < a.until {
			e.License.ExpiresAtMs = max(l.expires, a.until) // the device has it until then
		}
		return
	}
	if l != nil { // Its number is another one.
		acquired = max(acquired, l.acquired+1, l.since)
	}
	e.License = &licensedv1.LicenseTerms{
		StudioId: studio, AcquiredAtMs: acquired, ExpiresAtMs: expires, PlayHours: title.PlayHours,
	}
}

// shortens returns the rule by which a licence ends with its allowance; none if it gets a full period.
func (v view) shortens(device int, titleID string) licensedv1.Rule {
	title := v.policy.Title(titleID)
	if r := v.available(&title); !r.ok() {
		return r.rule
	}
	if v.deactivated(device) {
		return licensedv1.Rule_RULE_DEVICE_DEACTIVATED
	}
	// The device is in use, since the unit is lent to it.
	r := v.deviceLimit(device)
	return r.rule
}

// giveBack decides ReturnAllowance.
func (d *decider) giveBack(c *licensedv1.ReturnAllowance) {
	deviceID := c.GetDeviceId()
	mustBeID("device", deviceID)
	i, device := d.state.allowance(c.GetNumber()), d.state.device(deviceID)
	if i < 0 || d.state.allowances[i].ended(d.now) || int(d.state.allowances[i].device) != device ||
		d.state.allowances[i].gateway != c.GetGatewayId() {
		d.add(customer, d.state.order, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE, DeviceId: deviceID,
		})
		return
	}
	e := &licensedv1.AllowanceReturned{Number: c.GetNumber()}
	for _, u := range d.state.allowances[i].units {
		e.TitleIds = append(e.TitleIds, d.state.titles[u.title])
	}
	d.add(deviceID, d.state.devices[device].order, e)
}

// allowanceOf returns an allowance as the API has it, without the device.
func allowanceOf(at int64, e *licensedv1.AllowanceLent) *licensedv1.Allowance {
	out := &licensedv1.Allowance{
		Number: e.GetNumber(), GatewayId: e.GetGatewayId(), LentAt: timestamp(at), ExpiresAt: timestamp(e.GetUntilMs()),
	}
	for _, u := range e.GetUnits() {
		out.TitleIds = append(out.TitleIds, u.GetTitleId())
	}
	return out
}

// allowances returns what is lent, by number.
func (v view) allowances() (out []*licensedv1.Allowance) {
	s := v.state
	for i := range s.allowances {
		a := &s.allowances[i]
		if a.ended(v.now) {
			continue
		}
		m := &licensedv1.Allowance{
			Number: a.number, DeviceId: s.devices[a.device].id, GatewayId: a.gateway,
			LentAt: timestamp(a.lent), ExpiresAt: timestamp(a.until),
		}
		for _, u := range a.units {
			m.TitleIds = append(m.TitleIds, s.titles[u.title])
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *licensedv1.Allowance) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// appendAllowance packs an allowance that was lent or returned: its number, its end for one that was lent, the gateway,
// and the titles.
func appendAllowance(b []byte, at int64, a *licensedv1.Allowance) []byte {
	b = binary.AppendUvarint(append(b, outcomeOther, otherAllowance), a.GetNumber())
	until := uint64(0)
	if a.GetExpiresAt() != nil {
		until = packDuration(a.GetExpiresAt().AsTime().UnixMilli()-at) + 1
	}
	b = appendText(binary.AppendUvarint(b, until), a.GetGatewayId())
	return appendAll(b, a.GetTitleIds())
}

// readAllowance is the reverse of appendAllowance.
func readAllowance(r *reader, at int64, c subject) *licensedv1.Allowance {
	a := &licensedv1.Allowance{Number: r.uvarint(), DeviceId: c.device}
	if until := r.uvarint(); until > 0 {
		ends := at + unpackDuration(until-1)
		if r.bad = r.bad || !isTime(ends); r.bad {
			return nil
		}
		a.LentAt, a.ExpiresAt = timestamp(at), timestamp(ends)
	}
	a.GatewayId = string(r.take(r.uvarint()))
	a.TitleIds = readAll(r)
	r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_LEND_ALLOWANCE &&
		c.kind != licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE
	return a
}

// packAllowances puts what is lent into a snapshot.
func (s *State) packAllowances(m *licensedv1.LicenseSnapshot) {
	m.LastAllowance = s.lastAllowance
	for i := range s.allowances {
		a := &s.allowances[i]
		to := &licensedv1.LicenseSnapshot_Allowance{
			Number: a.number, Device: a.device, GatewayId: a.gateway,
			LentAgoMs: s.last - a.lent, UntilAfterMs: a.until - a.lent,
		}
		for _, u := range a.units {
			to.Units = append(to.Units, u.title, u.studio)
		}
		m.Allowances = append(m.Allowances, to)
	}
}

// unpackAllowances is the reverse of packAllowances. It returns false for what packAllowances never writes.
func (s *State) unpackAllowances(m *licensedv1.LicenseSnapshot) bool {
	s.lastAllowance = m.LastAllowance
	valid := len(m.Allowances) <= maxAllowances
	for _, from := range m.Allowances {
		a := allowance{
			number: from.Number, device: from.Device, gateway: from.GatewayId, lent: s.last - from.LentAgoMs,
		}
		a.until = a.lent + from.UntilAfterMs
		valid = valid && isTime(a.lent) && isTime(a.until) && int(a.device) < len(s.devices) &&
			len(from.Units) > 0 && len(from.Units)%2 == 0
		for i := 1; valid && i < len(from.Units); i += 2 {
			u := unit{from.Units[i-1], from.Units[i]}
			a.units = append(a.units, u)
			valid = int(u.title) < len(s.titles) && int(u.studio) < len(s.studios)
		}
		s.allowances = append(s.allowances, a)
	}
	return valid
}

// checkLend says what is wrong with a command.
func checkLend(c *licensedv1.LendAllowance) error {
	if n := len(c.GetTitleIds()); n == 0 || n > MaxLent {
		return fmt.Errorf("%d titles, want 1 to %d", n, MaxLent)
	}
	err := first(named("device id", c.GetDeviceId(), ids.MaxBytes), named("gateway id", c.GetGatewayId(), ids.MaxBytes))
	for _, id := range c.GetTitleIds() {
		err = first(err, named("title id", id, ids.MaxBytes))
	}
	return err
}

// checkAcquire says what is wrong with a command.
func checkAcquire(c *licensedv1.AcquireLicense) error {
	if c.GetAllowance() == 0 {
		return checkPair(c)
	}
	return first(checkPair(c), named("gateway id", c.GetGatewayId(), ids.MaxBytes),
		checkTime("redemption", c.GetRedeemedAtMs()))
}

// checkReturn says what is wrong with a command.
func checkReturn(c *licensedv1.ReturnAllowance) error {
	return first(named("device id", c.GetDeviceId(), ids.MaxBytes), named("gateway id", c.GetGatewayId(), ids.MaxBytes))
}

// checkLent says what is wrong with an event.
func checkLent(e *licensedv1.AllowanceLent) error {
	if n := len(e.GetUnits()); n == 0 || n > MaxLent {
		return fmt.Errorf("%d units of an allowance, want 1 to %d", n, MaxLent)
	}
	if e.GetNumber() == 0 || e.GetNumber() > MaxNumber {
		return fmt.Errorf("allowance number %d is not between 1 and %d", e.GetNumber(), uint64(MaxNumber))
	}
	err := first(named("gateway id", e.GetGatewayId(), ids.MaxBytes), checkTime("end", e.GetUntilMs()))
	for _, u := range e.GetUnits() {
		err = first(err, named("title id", u.GetTitleId(), ids.MaxBytes), optional("studio id", u.GetStudioId()))
	}
	return err
}

// tellLent explains an allowance.
func (x *Explainer) tellLent(e *Recorded, v *licensedv1.AllowanceLent) {
	var titles []string
	for _, u := range v.GetUnits() {
		titles = append(titles, u.GetTitleId())
	}
	x.add(e, aside, "", "Allowance %d lent until %s, through gateway %s: %s. It counts as if it were downloaded.",
		v.GetNumber(), clockOf(v.GetUntilMs()), v.GetGatewayId(), strings.Join(titles, ", "))
}

// tellRedeemed explains a download within an allowance by the state before it.
func (x *Explainer) tellRedeemed(e *Recorded, v *licensedv1.AllowanceRedeemed) {
	l, terms := x.license(), v.GetLicense()
	text := fmt.Sprintf("Downloaded at %s within allowance %d, which a gateway granted",
		clockOf(v.GetRedeemedAtMs()), v.GetNumber())
	switch rule := v.GetShortenedBy(); {
	case l != nil && l.acquired == terms.GetAcquiredAtMs():
		text += "; the licence is active until " + clockOf(terms.GetExpiresAtMs())
	case rule != licensedv1.Rule_RULE_UNSPECIFIED:
		text += fmt.Sprintf("; the licence ends with the allowance at %s, by %s", clockOf(terms.GetExpiresAtMs()),
			ruleWords(rule))
	case terms.GetExpiresAtMs() <= e.Time.UnixMilli():
		text += fmt.Sprintf("; recorded after the allowance had ended at %s, and the licence with it",
			clockOf(terms.GetExpiresAtMs()))
	default:
		text += fmt.Sprintf("; active until %s, counts for studio %s", clockOf(terms.GetExpiresAtMs()),
			terms.GetStudioId())
	}
	s := x.add(e, changed, "", "%s.", text)
	s.OccurredAt = timestamp(v.GetRedeemedAtMs())
	if l == nil || l.acquired != terms.GetAcquiredAtMs() {
		x.acquired, x.renewed, x.released = s, nil, nil
	}
	if x.first {
		s.Sequence--
		x.first = false
	}
}

// tellReturned explains the end of an allowance.
func (x *Explainer) tellReturned(e *Recorded, v *licensedv1.AllowanceReturned) {
	x.add(e, aside, "", "Allowance %d returned; not downloaded, and free again: %s.", v.GetNumber(),
		strings.Join(v.GetTitleIds(), ", "))
}
