package license

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// Recorded is an event with its place in the history.
type Recorded struct {
	actors.Event
	Sequence uint64
	// CommandID is that of the command that it came of.
	CommandID string
	// Principal gave the command, and stated Reason.
	Principal, Reason string
}

// Explainer tells the life of one licence from the history of its customer: of each event about it,
// about its device or the plan, and of each refusal, what it did. It is fed the whole history in order;
// what is missing there makes an explanation incomplete, and it reports this. It is not safe for concurrent
// use.
type Explainer struct {
	device, title, id string
	state             *State
	steps             []*step
	missing           bool

	first       bool   // LicenseCreated was told of, LicenseAcquired is next
	deactivated string // the command that deactivated the device last
	expiry      int64  // the last one that was told as a step of its own
	// policy decides what would have been decided otherwise, on choices; nil if nobody asks.
	policy  *policy.Policy
	choices []*choice
	// The last steps of their kind, for the verdict.
	acquired, renewed, released, refused, moved *step
}

// step of an explanation before it is shortened.
type step struct {
	*licensedv1.WhyStep
	// kind names steps that are told as one when they follow each other; "" for those never.
	kind string
	// what happened and, if it may happen several times in a row, its detail.
	what, detail string
	// event is the one that the verdict names.
	event uint64
	// was is the expiry before a renewal, and is the one after.
	was, is int64
	rule    licensedv1.Rule
}

// NewExplainer returns an explainer of the licence of a device for a title, before the first event. With a policy, that
// in force, it also tells which decisions would have been others if facts had been reported in time; the policy may be
// nil.
func NewExplainer(deviceID, titleID string, p *policy.Policy) *Explainer {
	return &Explainer{device: deviceID, title: titleID, id: deviceID + "/" + titleID, state: &State{}, policy: p}
}

// Add processes the next event.
func (x *Explainer) Add(e Recorded) {
	var changes []*choice
	o := occurrenceOf(e.Value)
	if o != nil {
		changes = x.changes(&e, o)
	}
	if x.concerns(&e.Event) || len(changes) > 0 {
		x.timePasses(e.Time.UnixMilli())
		if o != nil {
			x.tellFact(&e, o, changes)
		} else {
			x.tell(&e)
			x.tellExceptions(e.Value)
		}
	}
	x.remember(&e)
	before := x.license()
	if before != nil {
		before = &license{acquired: before.acquired, expires: before.expires, released: before.released}
	}
	Evolve(x.state, e.Event)
	if v, ok := e.Value.(*licensedv1.ExceptionGranted); ok && v.GetException().GetMerge() != nil {
		x.tellMerge(&e, v.GetException(), before)
	}
}

// Missing records that the next events, from one through another, cannot be read, and why.
func (x *Explainer) Missing(from, to uint64, why string) {
	x.missing = true
	x.steps = append(x.steps, &step{WhyStep: &licensedv1.WhyStep{
		Sequence: from, ToSequence: to, Count: uint32(to - from + 1), Effect: licensedv1.WhyEffect_WHY_EFFECT_UNKNOWN,
		Text: "These events cannot be read: " + why + ".",
	}})
}

// concerns reports whether an event is about the licence, its device or the plan, or names both in a
// command that changed nothing.
func (x *Explainer) concerns(e *actors.Event) bool {
	if title := TitleOfFact(e.Value); title != "" {
		return e.AggregateID == x.device && title == x.title
	}
	if e.AggregateID != customer {
		return e.AggregateID == x.id || e.AggregateID == x.device
	}
	switch v := e.Value.(type) {
	case *licensedv1.PlanChanged, *licensedv1.DevicesSelected:
		return true
	case *licensedv1.ExceptionGranted:
		return v.GetException().GetMerge() == nil && x.excepted(v.GetException())
	case *licensedv1.ExceptionWithdrawn:
		return x.excepted(v.GetException())
	case *licensedv1.CommandRefused:
		return x.named(v.GetDeviceId(), v.GetTitleId())
	case *licensedv1.CommandAccepted:
		return x.named(v.GetDeviceId(), v.GetTitleId())
	default:
		return false
	}
}

// named reports whether a command on a device and a title concerns the licence; without a
// title it concerns all of the device.
func (x *Explainer) named(device, title string) bool {
	return device == x.device && (title == x.title || title == "")
}

// license returns the licence as it stands, or nil.
func (x *Explainer) license() *license {
	i := x.state.license(x.state.device(x.device), x.state.title(x.title))
	if i < 0 || x.state.licenses[i].acquired == 0 {
		return nil
	}
	return &x.state.licenses[i]
}

// timePasses tells that the licence expired, if it did since the last step.
func (x *Explainer) timePasses(now int64) {
	l := x.license()
	if l == nil || l.released != 0 || l.expires > now || l.expires == x.expiry {
		return
	}
	x.expiry = l.expires
	x.steps = append(x.steps, &step{WhyStep: &licensedv1.WhyStep{
		Time: timestamp(l.expires), Count: 1, Effect: licensedv1.WhyEffect_WHY_EFFECT_TIME,
		Text: "Expired: it was not renewed in time. No event records an expiry.",
	}})
}

// add appends a step. A step of the same kind as the one before it may be joined with it:
// see repeatable.
func (x *Explainer) add(e *Recorded, effect licensedv1.WhyEffect, kind, format string, args ...any) *step {
	_, name, _ := strings.Cut(fmt.Sprintf("%T", e.Value), ".")
	s := &step{kind: kind, event: e.Sequence, WhyStep: &licensedv1.WhyStep{
		Sequence:   e.Sequence,
		ToSequence: e.Sequence,
		Time:       timestamp(e.Time.UnixMilli()),
		ToTime:     timestamp(e.Time.UnixMilli()),
		Count:      1, Event: name, CommandId: e.CommandID, Effect: effect, Text: fmt.Sprintf(format, args...),
		Principal: e.Principal, Reason: e.Reason,
	}}
	x.steps = append(x.steps, s)
	return s
}

// repeatable adds a step of which several in a row are told as one.
func (x *Explainer) repeatable(e *Recorded, effect licensedv1.WhyEffect, kind, what, detail string) *step {
	s := x.add(e, effect, kind, "%s: %s.", what, detail)
	s.what, s.detail = what, detail
	return s
}

// The effects of steps, by short names.
const (
	changed   = licensedv1.WhyEffect_WHY_EFFECT_CHANGED
	unchanged = licensedv1.WhyEffect_WHY_EFFECT_UNCHANGED
	aside     = licensedv1.WhyEffect_WHY_EFFECT_CONTEXT
	strange   = licensedv1.WhyEffect_WHY_EFFECT_STRANGE
)

// tell adds what an event did.
func (x *Explainer) tell(e *Recorded) {
	switch v := e.Value.(type) {
	case *licensedv1.LicenseCreated:
		x.first = true
	case *licensedv1.LicenseAcquired:
		x.tellAcquired(e, v)
		x.first = false
	case *licensedv1.LicenseRenewed:
		x.tellRenewed(e, v.GetLicense().GetExpiresAtMs())
	case *licensedv1.LicenseReleased:
		x.tellReleased(e)
	case *licensedv1.TitleDownloaded:
		x.tellDownloaded(e)
	case *licensedv1.TitlePlayed:
		x.tellPlayed(e, v)
	case *licensedv1.LicenseShortened:
		x.tellShortened(e, v)
	case *licensedv1.DeviceActivated:
		x.add(e, aside, "", "Device %s activated.", x.device)
	case *licensedv1.DeviceLabeled:
		x.add(e, aside, "", "Device %s is shown as %s.", x.device, shownAs(v))
	case *licensedv1.DeviceDeactivated:
		x.deactivated = e.CommandID
		cost := ""
		if r := v.GetRemoval(); r != nil && !r.GetCounted() {
			cost = ", which cost no removal: it had no active licence"
		}
		x.add(e, aside, "", "Device %s was deactivated%s.", x.device, cost)
	case *licensedv1.PlanChanged:
		x.add(e, aside, "", "The customer changed to plan %s: %s may hold active licences%s.",
			v.GetPlanId(), count(v.GetDeviceLimit(), "device", "devices"), x.staying(v))
	case *licensedv1.DevicesSelected:
		x.tellSelected(e, v)
	case *licensedv1.AllowanceLent:
		x.tellLent(e, v)
	case *licensedv1.AllowanceRedeemed:
		x.tellRedeemed(e, v)
	case *licensedv1.AllowanceReturned:
		x.tellReturned(e, v)
	case *licensedv1.ExceptionGranted:
		x.add(e, aside, "", "%s was granted%s: %s.", exceptionName(v.GetException()),
			stated(e, v.GetException().GetReason()), v.GetException().Words())
	case *licensedv1.ExceptionWithdrawn:
		x.add(e, aside, "", "%s was withdrawn%s. It was: %s.", exceptionName(v.GetException()),
			stated(e, v.GetReason()), v.GetException().Words())
	case *licensedv1.CommandAccepted:
		x.tellUnchanged(e, v)
	case *licensedv1.CommandRefused:
		x.tellRefused(e, v)
	default:
		x.add(e, strange, "", "An event that this release cannot explain.")
	}
}

// shownAs returns the label of a device: "Anna's iPad, a tablet".
func shownAs(v *licensedv1.DeviceLabeled) string {
	kind := v.GetDeviceType().Words()
	switch {
	case kind == "":
		return v.GetDeviceName()
	case v.GetDeviceName() == "":
		return "a " + kind
	}
	return v.GetDeviceName() + ", a " + kind
}

// stated returns a reason in parentheses, unless the step shows it as the reason of the event anyway.
func stated(e *Recorded, reason string) string {
	if reason == e.Reason {
		return ""
	}
	return " (" + reason + ")"
}

// tellPlayed explains a playback, which may begin the hours of the licence.
func (x *Explainer) tellPlayed(e *Recorded, v *licensedv1.TitlePlayed) {
	counts := ""
	if v.GetCounted() {
		counts = ", which counts against the title's yearly limit"
	}
	if !v.GetStartsHours() {
		x.add(e, unchanged, "Played", "Played%s.", counts)
		return
	}
	x.add(e, changed, "", "Played first%s: active for %s from then on, until %s.", counts,
		count(v.GetLicense().GetPlayHours(), "hour", "hours"), clockOf(v.GetLicense().GetExpiresAtMs()))
}

// tellShortened explains why the licence ends earlier.
func (x *Explainer) tellShortened(e *Recorded, v *licensedv1.LicenseShortened) {
	why := "the customer changed to a smaller plan, and other devices stay"
	if v.GetCause() == licensedv1.ShortenedBy_SHORTENED_BY_TITLE_END {
		why = "the title is available for a shorter time by now"
	}
	x.add(e, changed, "", "Shortened: it ends at %s, because %s.", clockOf(v.GetLicense().GetExpiresAtMs()), why)
}

// staying tells what it means for the device that a change of plan names those that stay.
func (x *Explainer) staying(v *licensedv1.PlanChanged) string {
	ids, until := v.GetStayingDeviceIds(), v.GetGraceUntilMs()
	switch {
	case slices.Contains(ids, x.device):
		return "; more do, and this device is one of those that stay"
	case until > 0:
		stay := ""
		if len(ids) > 0 {
			stay = ": " + strings.Join(ids, ", ") + " stay"
		}
		return fmt.Sprintf("; more do, and this device may renew until %s only%s", clockOf(until), stay)
	case len(ids) == 0:
		return ""
	default:
		return "; more do, and this device may neither acquire nor renew: " + strings.Join(ids, ", ") + " stay"
	}
}

// tellSelected explains a selection.
func (x *Explainer) tellSelected(e *Recorded, v *licensedv1.DevicesSelected) {
	how := "The devices used last"
	if v.GetChosen() {
		how = "The customer chose the devices that"
	}
	switch {
	case len(v.GetStayingDeviceIds()) == 0:
		x.add(e, aside, "", "The plan is not exceeded any more: a device took a free place, and any may take another.")
	case !v.GetBinding():
		x.add(e, aside, "", "%s stay if the plan shrinks: %s.", how, strings.Join(v.GetStayingDeviceIds(), ", "))
	default:
		x.add(e, aside, "", "%s stay: %s; others may neither acquire nor renew.", how,
			strings.Join(v.GetStayingDeviceIds(), ", "))
	}
}

// tellAcquired explains an acquisition by the state before it.
func (x *Explainer) tellAcquired(e *Recorded, v *licensedv1.LicenseAcquired) {
	at, l := e.Time.UnixMilli(), x.license()
	effect, how := changed, "Acquired"
	switch {
	case l == nil && x.first:
		how = "Acquired for the first time"
	case l == nil:
	case l.released != 0:
		how = "Acquired anew after its release"
	case l.active(at):
		effect, how = strange, "Acquired anew though it was active"
	default:
		how = "Acquired anew after it had expired"
	}
	hours := ""
	if v.GetPlayHours() > 0 {
		hours = ", or for " + count(v.GetPlayHours(), "hour", "hours") + " after its first playback"
	}
	x.acquired = x.add(e, effect, "", "%s: active until %s (%s)%s, counts for studio %s.",
		how, clockOf(v.GetExpiresAtMs()), spanOf(v.GetExpiresAtMs()-at), hours, v.GetStudioId())
	x.renewed, x.released, x.moved = nil, nil, nil
	// LicenseCreated precedes it, as a part of the same step.
	if x.first {
		x.acquired.Sequence--
	}
}

// tellRenewed explains a renewal by the state before it.
func (x *Explainer) tellRenewed(e *Recorded, expires int64) {
	l, until := x.license(), clockOf(expires)
	switch {
	case l == nil && x.missing:
		x.renewed = x.add(e, changed, "", "Renewed until %s.", until)
	case l == nil:
		x.renewed = x.add(e, strange, "", "Renewed until %s, though it was never acquired.", until)
	case l.released != 0:
		x.renewed = x.add(e, strange, "", "Renewed though it had been released: the expiry moved from %s to %s, "+
			"but a released licence stays released. No rule of this release allows that.", clockOf(l.expires), until)
	case !l.active(e.Time.UnixMilli()):
		x.renewed = x.add(e, changed, "", "Renewed after it had expired: active again, until %s.", until)
	case expires == l.expires:
		x.renewed = x.add(e, changed, "", "Renewed: the expiry stays at %s.", until)
	default:
		x.renewed = x.add(e, changed, "Renewed", "Renewed: the expiry moved from %s to %s.",
			exactly(l.expires, expires), exactly(expires, l.expires))
		x.renewed.was, x.renewed.is = l.expires, expires
	}
}

// tellReleased explains a release by the state before it.
func (x *Explainer) tellReleased(e *Recorded) {
	l := x.license()
	switch {
	case l == nil:
		x.released = x.add(e, changed, "", "Released.")
	case l.released != 0:
		x.released = x.add(e, strange, "", "Released again; it was released at %s already.", clockOf(l.released))
	case x.deactivated == e.CommandID && e.CommandID != "":
		x.released = x.add(e, changed, "", "Released, because its device was deactivated.")
	case !l.active(e.Time.UnixMilli()):
		x.released = x.add(e, changed, "", "Released; it had expired at %s already.", clockOf(l.expires))
	default:
		x.released = x.add(e, changed, "", "Released, before its expiry at %s.", clockOf(l.expires))
	}
}

// tellDownloaded explains a download: that of the acquisition is a part of its step.
func (x *Explainer) tellDownloaded(e *Recorded) {
	if last := x.acquired; last != nil && last.ToSequence+1 == e.Sequence && last.CommandId == e.CommandID {
		last.ToSequence = e.Sequence
		last.Text = strings.Replace(last.Text, "Acquired", "Acquired and downloaded", 1)
		return
	}
	n := uint32(1)
	view{now: e.Time.UnixMilli(), state: x.state}.eachUse(x.state.title(x.title), func(_ *license, u use) {
		if !u.playback() {
			n++
		}
	})
	x.repeatable(e, unchanged, "Downloaded", "Downloaded again",
		fmt.Sprintf("the title has %s in 365 days, on whatever device",
			count(n, "download", "downloads")))
}

// tellUnchanged explains a command that was accepted without effect.
func (x *Explainer) tellUnchanged(e *Recorded, v *licensedv1.CommandAccepted) {
	why := "there was nothing to change"
	if v.GetSuperseded() {
		why = x.meant(v.GetCommand())
		x.repeatable(e, unchanged, "Superseded "+why, attempt(v.GetCommand())+" was superseded", why)
		return
	}
	switch v.GetCommand() {
	case licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:
		why = "it was active already"
	case licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE:
		why = "it was released already"
	case licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE:
		why = "the device was deactivated already"
	case licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE:
		why = "no fact in it was new, or the fact before it is missing"
	case licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE:
		why = "nothing of the allowance was left"
	}
	x.repeatable(e, unchanged, "Accepted "+why, attempt(v.GetCommand())+" changed nothing", why)
}

// tellRefused explains a refusal, with what met the limit.
func (x *Explainer) tellRefused(e *Recorded, v *licensedv1.CommandRefused) {
	kind := fmt.Sprint("Refused ", v.GetCommand())
	for _, b := range brokenRules(v) {
		kind += fmt.Sprint(b.GetRule())
	}
	x.refused = x.repeatable(e, licensedv1.WhyEffect_WHY_EFFECT_REFUSED, kind,
		attempt(v.GetCommand())+" was refused", RefusalOf(v).GetMessage()+x.blockers(e.Time.UnixMilli(), v))
	x.refused.rule = v.GetRule()
}

// attempt names a command in a sentence.
func attempt(k licensedv1.CommandKind) string {
	switch k {
	case licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:
		return "An acquisition"
	case licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE:
		return "A renewal"
	case licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE:
		return "A release"
	case licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK:
		return "A playback"
	case licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE:
		return "The deactivation of the device"
	case licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES:
		return "A selection of devices"
	case licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE:
		return "A report of the device"
	case licensedv1.CommandKind_COMMAND_KIND_LEND_ALLOWANCE:
		return "The lending of an allowance"
	case licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE:
		return "The return of an allowance"
	case licensedv1.CommandKind_COMMAND_KIND_GRANT_EXCEPTION:
		return "An exception"
	case licensedv1.CommandKind_COMMAND_KIND_WITHDRAW_EXCEPTION:
		return "The withdrawal of an exception"
	default:
		return "A command"
	}
}

// blockers names what met the limits that a command was refused for.
func (x *Explainer) blockers(now int64, v *licensedv1.CommandRefused) string {
	if x.missing {
		return "" // The state is not whole.
	}
	text := ""
	for _, b := range brokenRules(v) {
		names := x.blockersOf(now, b)
		slices.Sort(names)
		if len(names) > maxNames {
			names = append(names[:maxNames], fmt.Sprintf("%d more", len(names)-maxNames))
		}
		if len(names) > 0 {
			text += "; then: " + strings.Join(names, ", ")
		}
	}
	return text
}

// blockersOf names what met the limit of one rule.
func (x *Explainer) blockersOf(now int64, b *licensedv1.BrokenRule) (names []string) {
	s := x.state
	switch b.GetRule() {
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED:
		for i := range s.devices {
			n := uint32(0)
			for j := range s.licenses {
				if l := &s.licenses[j]; l.device == uint32(i) && l.active(now) {
					n++
				}
			}
			if n > 0 {
				names = append(names, fmt.Sprintf("%s (%s)", s.devices[i].words(), count(n, "licence", "licences")))
			}
			if n := len((view{now: now, state: s}).lentTo(i)); n > 0 {
				names = append(names, fmt.Sprintf("%s (%s lent)", s.devices[i].words(),
					count(uint32(n), "download", "downloads")))
			}
		}
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		for i := range s.licenses {
			if l := &s.licenses[i]; l.active(now) && s.studioOf(l) == b.GetStudioId() {
				names = append(names, fmt.Sprintf("%s/%s (until %s)",
					s.devices[l.device].id, s.titles[l.title], clockOf(l.expires)))
			}
		}
		view{now: now, state: s}.eachLent(0, func(a *allowance, u unit, end int64) {
			if s.studios[u.studio] == b.GetStudioId() {
				names = append(names, fmt.Sprintf("%s/%s (lent until %s)",
					s.devices[a.device].id, s.titles[u.title], clockOf(end)))
			}
		})
	case licensedv1.Rule_RULE_DEVICE_TITLES:
		device := s.device(x.device)
		for i := range s.licenses {
			if l := &s.licenses[i]; l.active(now) && int(l.device) == device {
				names = append(names, fmt.Sprintf("%s (until %s)", s.titles[l.title], clockOf(l.expires)))
			}
		}
	case licensedv1.Rule_RULE_MONTHLY_LIMIT:
		view{now: now, state: s}.eachDownload(func(at int64) { names = append(names, clockOf(at)) })
	case licensedv1.Rule_RULE_YEARLY_LIMIT:
		view{now: now, state: s}.eachUse(s.title(x.title), func(l *license, u use) {
			names = append(names, fmt.Sprintf("%s on %s", clockOf(u.at()), s.devices[l.device].words()))
		})
		view{now: now, state: s}.eachLent(window, func(a *allowance, u unit, _ int64) {
			if s.titles[u.title] == x.title {
				names = append(names, fmt.Sprintf("lent to %s at %s", s.devices[a.device].id, clockOf(a.lent)))
			}
		})
	}
	return names
}

// maxNames is the number of things a sentence lists.
const maxNames = 6

// exactly writes a time, with milliseconds if it would read like another one without.
func exactly(ms, other int64) string {
	if clockOf(ms) != clockOf(other) {
		return clockOf(ms)
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000 UTC")
}

// clockOf returns a time in seconds, UTC.
func clockOf(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC") }

// spanOf says the time a licence is valid.
func spanOf(ms int64) string {
	if days := ms / day; days > 0 && ms%day == 0 {
		return count(uint32(days), "day", "days")
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}
