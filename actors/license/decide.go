package license

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// customer is the aggregate id of events that are about neither a device nor a licence.
const customer = "customer"

// Decide tells the result of a command at a time, under a policy. It changes nothing and depends on
// nothing else. Of the events it sets aggregate id, order number and value. It panics on a command
// that no API lets through: none, or one with an id that is empty, is not UTF-8 or contains a '/'.
func Decide(now time.Time, p *policy.Policy, s *State, c *licensedv1.Command) actors.Decision {
	d := decider{view: view{now: now.UnixMilli(), policy: p, state: s}, issued: issueTime(c), given: c}
	ended := d.endTitles()
	switch c := c.GetCommand().(type) {
	case *licensedv1.Command_AcquireLicense:
		if c.AcquireLicense.GetAllowance() != 0 {
			d.redeem(c.AcquireLicense)
			break
		}
		d.acquire(c.AcquireLicense.GetDeviceId(), c.AcquireLicense.GetTitleId(), c.AcquireLicense.GetNewDownload())
	case *licensedv1.Command_RenewLicense:
		d.renew(c.RenewLicense)
	case *licensedv1.Command_ReleaseLicense:
		d.release(c.ReleaseLicense)
	case *licensedv1.Command_RecordPlayback:
		d.play(c.RecordPlayback)
	case *licensedv1.Command_DeactivateDevice:
		d.deactivate(c.DeactivateDevice.GetDeviceId(), c.DeactivateDevice.GetActivatedAtMs())
	case *licensedv1.Command_ChangePlan:
		d.changePlan(c.ChangePlan.GetPlanId(), c.ChangePlan.GetPlanChangedAtMs())
	case *licensedv1.Command_SyncDevice:
		d.sync(c.SyncDevice)
	case *licensedv1.Command_SelectDevices:
		d.selectDevices(c.SelectDevices.GetDeviceIds())
	case *licensedv1.Command_LendAllowance:
		d.lend(c.LendAllowance)
	case *licensedv1.Command_ReturnAllowance:
		d.giveBack(c.ReturnAllowance)
	case *licensedv1.Command_GrantException:
		d.grant(c.GrantException)
	case *licensedv1.Command_WithdrawException:
		d.withdraw(c.WithdrawException)
	default:
		panic(fmt.Sprintf("license: no command, but %T", c))
	}
	d.label(c)
	// What a refusal says holds with the ends, too, but it changes nothing.
	if !d.decision.Refused {
		d.decision.Events = append(ended, d.decision.Events...)
	}
	return d.decision
}

// endTitles returns the events that end licences of titles that are available for a shorter time than when the
// licences were granted. The view has them applied to a copy of the state.
func (d *decider) endTitles() []actors.Event {
	if !d.policy.EndsTitles() || planted.Bug(planted.LetTitleRun) {
		return nil
	}
	for i := range d.state.licenses {
		l := &d.state.licenses[i]
		if at := d.titleEnd(l); at < l.expires && l.active(d.now) {
			d.shorten(l, at, licensedv1.ShortenedBy_SHORTENED_BY_TITLE_END)
		}
	}
	if len(d.decision.Events) == 0 {
		return nil
	}
	d.sortFrom(0)
	ended := d.decision.Events
	d.decision.Events = nil
	copied := *d.state
	copied.licenses = slices.Clone(copied.licenses)
	for _, e := range ended {
		device, title, _ := strings.Cut(e.AggregateID, "/")
		l := &copied.licenses[copied.license(copied.device(device), copied.title(title))]
		l.expires, l.order = e.Value.(*licensedv1.LicenseShortened).GetLicense().GetExpiresAtMs(), e.Order+1
	}
	d.state = &copied
	return ended
}

// titleEnd returns when a licence ends at the latest, by its title. It was active until its last use.
func (v view) titleEnd(l *license) int64 {
	end := v.policy.Title(v.state.titles[l.title]).End
	if end.IsZero() {
		return maxTime
	}
	at := max(end.UnixMilli(), l.since)
	if n := len(l.uses); n > 0 {
		at = max(at, l.uses[n-1].at())
	}
	return at
}

// ended returns the view of a state with the licences ended that endTitles ends.
func (v view) ended() view {
	d := decider{view: v}
	d.endTitles()
	return d.view
}

// decider collects the events of one command.
type decider struct {
	view
	issued   int64 // when the client issued the command, 0 if unknown
	given    withLabel
	decision actors.Decision
}

// add appends an event of an aggregate id with its order number among the events of that
// id.
func (d *decider) add(aggregateID string, order uint64, value proto.Message) {
	d.decision.Events = append(d.decision.Events, actors.Event{AggregateID: aggregateID, Order: order, Value: value})
}

// target finds what a command names.
func (d *decider) target(deviceID, titleID string) target {
	mustBeID("device", deviceID)
	mustBeID("title", titleID)
	return d.find(deviceID, titleID)
}

// mustBeID panics for an id that the gateway must have refused: a slash in it would name
// another aggregate.
func mustBeID(what, id string) {
	if id == "" || strings.IndexByte(id, '/') >= 0 || !utf8.ValidString(id) {
		panic(fmt.Sprintf("license: %s %q is no id", what, id))
	}
}

// aggregateID is what events of the licence are about.
func (t *target) aggregateID() string { return t.deviceID + "/" + t.titleID }

// acquire decides AcquireLicense: without effect for an active licence, a download of it
// with newDownload, otherwise a licence for the full period.
func (d *decider) acquire(deviceID, titleID string, newDownload bool) {
	t := d.target(deviceID, titleID)
	may := func(v view) refusal { return v.mayAcquire(v.find(deviceID, titleID), newDownload) }
	if r := d.mayAcquire(t, newDownload); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE, DeviceId: deviceID, TitleId: titleID,
		}, may)
		return
	}
	l := d.license(t)
	if l != nil && l.active(d.now) {
		if newDownload {
			d.add(t.aggregateID(), l.order, &licensedv1.TitleDownloaded{
				License: d.terms(l), IssuedAtMs: d.issued, Exceptions: d.allowedBy(may),
			})
		} else {
			d.unchanged(licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE, t, l)
		}
		return
	}
	// The device, the licence, and its acquisition with the download; the selection is rare.
	d.decision.Events = make([]actors.Event, 0, 3)
	if t.device < 0 {
		d.add(deviceID, 0, &licensedv1.DeviceActivated{IssuedAtMs: d.issued})
	} else if d.deactivated(t.device) {
		d.add(deviceID, d.state.devices[t.device].order, &licensedv1.DeviceActivated{IssuedAtMs: d.issued})
	}
	id, order := t.aggregateID(), uint64(0)
	if l == nil {
		d.add(id, order, &licensedv1.LicenseCreated{})
		order++
	} else {
		order = l.order
	}
	title := d.policy.Title(titleID)
	d.add(id, order, &licensedv1.LicenseAcquired{
		StudioId: title.Studio, ExpiresAtMs: d.expiry(&title), IssuedAtMs: d.issued, PlayHours: title.PlayHours,
		Exceptions: d.allowedBy(may),
	})
	d.add(id, order+1, &licensedv1.TitleDownloaded{})
	d.takePlace(t.device)
}

// renew decides RenewLicense: the expiry moves to a full period from now.
func (d *decider) renew(c *licensedv1.RenewLicense) {
	deviceID, titleID := c.GetDeviceId(), c.GetTitleId()
	t := d.target(deviceID, titleID)
	if d.superseded(licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE, t, c.GetAcquiredAtMs()) {
		return
	}
	may := func(v view) refusal { return v.mayRenew(v.find(deviceID, titleID)) }
	if r := d.mayRenew(t); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE, DeviceId: deviceID, TitleId: titleID,
		}, may)
		return
	}
	l, title := d.license(t), d.policy.Title(titleID)
	terms := d.terms(l)
	terms.ExpiresAtMs, terms.PlayHours = d.expiry(&title), title.PlayHours
	terms.Renewals++
	if d.onGrace(t.device) { // It takes no place: it leaves one when the grace ends.
		if !planted.Bug(planted.RenewBeyondGrace) {
			terms.ExpiresAtMs = min(terms.ExpiresAtMs, d.state.grace)
		}
		d.add(t.aggregateID(), l.order, &licensedv1.LicenseRenewed{License: terms, Exceptions: d.allowedBy(may)})
		return
	}
	d.add(t.aggregateID(), l.order, &licensedv1.LicenseRenewed{License: terms, Exceptions: d.allowedBy(may)})
	d.takePlace(t.device)
}

// release decides ReleaseLicense. A licence that was released stays so, and the command
// is accepted.
func (d *decider) release(c *licensedv1.ReleaseLicense) {
	deviceID, titleID := c.GetDeviceId(), c.GetTitleId()
	t := d.target(deviceID, titleID)
	if d.superseded(licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE, t, c.GetAcquiredAtMs()) {
		return
	}
	if r := d.mayRelease(t); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE, DeviceId: deviceID, TitleId: titleID,
		}, nil)
		return
	}
	l := d.license(t)
	if l.released != 0 {
		d.unchanged(licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE, t, l)
		return
	}
	d.released(t.aggregateID(), l)
}

// released appends the release of a licence. The customer's state becomes smaller by it
// in time, so that it is also executed where the state is too large for the store.
func (d *decider) released(id string, l *license) {
	terms := d.terms(l)
	terms.Released = true
	d.decision.Frees = true
	d.add(id, l.order, &licensedv1.LicenseReleased{License: terms})
}

// play decides RecordPlayback.
func (d *decider) play(c *licensedv1.RecordPlayback) {
	deviceID, titleID := c.GetDeviceId(), c.GetTitleId()
	t := d.target(deviceID, titleID)
	if c.GetPlayedAtMs() != 0 {
		d.playedBefore(t, c)
		return
	}
	may := func(v view) refusal { return v.mayPlay(v.find(deviceID, titleID)) }
	if r := d.mayPlay(t); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK, DeviceId: deviceID, TitleId: titleID,
		}, may)
		return
	}
	l := d.license(t)
	after, starts := *l, d.startsHours(l, d.now)
	if starts {
		after.play(d.now)
	}
	d.add(t.aggregateID(), l.order, &licensedv1.TitlePlayed{
		License: d.terms(&after), Counted: d.countsPlays(titleID), StartsHours: starts, Exceptions: d.allowedBy(may),
	})
}

// startsHours reports whether a playback begins the hours of a licence: the first since it was granted or, where a
// licence that was played is not renewed, since it was acquired.
func (d *decider) startsHours(l *license, at int64) bool {
	from := l.granted
	if !d.policy.RenewAfterPlay() {
		from = l.acquired
	}
	return l.playHours > 0 && l.released == 0 && at >= from && (l.played == 0 || at < l.played ||
		planted.Bug(planted.RestartHours))
}

// deactivate decides DeactivateDevice, with the release of all active licences on the
// device.
func (d *decider) deactivate(deviceID string, activated int64) {
	mustBeID("device", deviceID)
	i := d.device(deviceID)
	if i >= 0 && !d.deactivated(i) && d.outdated(d.state.devices[i].activation, activated) {
		d.add(customer, d.state.order, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE, DeviceId: deviceID, Superseded: true,
		})
		return
	}
	may := func(v view) refusal { return v.mayDeactivate(v.device(deviceID)) }
	if r := d.mayDeactivate(i); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE, DeviceId: deviceID,
		}, may)
		return
	}
	if d.deactivated(i) {
		d.add(customer, d.state.order, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE, DeviceId: deviceID,
		})
		return
	}
	d.decision.Frees = true
	d.add(deviceID, d.state.devices[i].order, &licensedv1.DeviceDeactivated{
		Removal: d.removal(i), Exceptions: d.allowedBy(may),
	})
	first := len(d.decision.Events)
	for j := range d.state.licenses {
		if l := &d.state.licenses[j]; l.device == uint32(i) && l.active(d.now) {
			d.released(deviceID+"/"+d.state.titles[l.title], l)
		}
	}
	d.sortFrom(first)
}

// changePlan decides ChangePlan. Licences that the new plan would not allow stay, and it is fixed which devices do.
func (d *decider) changePlan(plan string, replaced int64) {
	mustBeID("plan", plan)
	present := &licensedv1.CommandAccepted{
		Command: licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN, PlanChangedAtMs: d.state.choice.at,
	}
	if d.outdated(d.state.choice, replaced) {
		present.Superseded = true
		plan, b := d.devicesBound()
		present.PlanId, present.DeviceLimit = plan, uint32(b.limit)
		d.add(customer, d.state.order, present)
		return
	}
	if r := d.mayChangePlan(plan); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN, PlanId: plan,
		}, nil)
		return
	}
	devices, _ := d.policy.Plan(plan)
	limit := uint32(d.planBound(plan, devices).limit)
	if plan == d.state.plan {
		present.PlanId, present.DeviceLimit, present.IssuedAtMs = plan, limit, d.issued
		d.add(customer, d.state.order, present)
		return
	}
	e := &licensedv1.PlanChanged{
		PlanId: plan, DeviceLimit: limit, IssuedAtMs: d.issued, StayingDeviceIds: d.shrunk(limit),
	}
	d.add(customer, d.state.order, e)
	// The grace is that of the plan that ends, if the new one leaves no place for some devices.
	days := d.policy.PlanLimits(d.state.plan).GraceDays
	if p := d.places(nil); uint64(p.n) > uint64(limit) && days != policy.Unlimited {
		e.GraceUntilMs = d.now + int64(days)*day
		d.shortenOthers(e.GetStayingDeviceIds(), e.GraceUntilMs)
	}
}

// shortenOthers ends the active licences at a time at the latest that are on other devices than these.
func (d *decider) shortenOthers(staying []string, at int64) {
	first := len(d.decision.Events)
	for i := range d.state.licenses {
		l := &d.state.licenses[i]
		if l.active(d.now) && l.expires > at && !slices.Contains(staying, d.state.devices[l.device].id) {
			d.shorten(l, at, licensedv1.ShortenedBy_SHORTENED_BY_PLAN_GRACE)
		}
	}
	d.sortFrom(first)
}

// shorten appends an event that ends a licence earlier.
func (d *decider) shorten(l *license, at int64, cause licensedv1.ShortenedBy) {
	terms := d.terms(l)
	terms.ExpiresAtMs = at
	d.add(d.state.idOf(l), l.order, &licensedv1.LicenseShortened{License: terms, Cause: cause})
}

// sortFrom sorts events about several licences: the order of the table depends on what snapshots dropped; that of the
// events must not.
func (d *decider) sortFrom(first int) {
	slices.SortFunc(d.decision.Events[first:], func(a, b actors.Event) int {
		return strings.Compare(a.AggregateID, b.AggregateID)
	})
}

// license returns the licence of a target, or nil.
func (d *decider) license(t target) *license {
	if t.license < 0 {
		return nil
	}
	return &d.state.licenses[t.license]
}

// terms returns the licence as events carry it.
func (d *decider) terms(l *license) *licensedv1.LicenseTerms {
	return &licensedv1.LicenseTerms{
		StudioId:     d.state.studioOf(l),
		AcquiredAtMs: l.acquired,
		ExpiresAtMs:  l.expires,
		Renewals:     l.renewals,
		Released:     l.released != 0,
		PlayHours:    l.playHours,
	}
}

// expiry is that of a licence acquired or renewed now.
func (d *decider) expiry(t *policy.Title) int64 {
	at := d.now + d.policy.Period().Milliseconds()
	if !t.AvailableUntil.IsZero() {
		at = min(at, t.AvailableUntil.UnixMilli())
	}
	return at
}

// unchanged records that a command about a licence had nothing to change.
func (d *decider) unchanged(kind licensedv1.CommandKind, t target, l *license) {
	d.add(customer, d.state.order, &licensedv1.CommandAccepted{
		Command: kind, DeviceId: t.deviceID, TitleId: t.titleID, License: d.terms(l), IssuedAtMs: d.issued,
	})
}
