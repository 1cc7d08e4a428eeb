package license

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// maxFreedBy is the number of remedies that a refusal names for a rule. The outcome of the command, which is
// remembered, has them as well.
const maxFreedBy = 8

// refuse records a refusal in an event that names the command. The check is nil where time changes nothing.
func (d *decider) refuse(r refusal, e *licensedv1.CommandRefused, check func(view) refusal) {
	first := &r[0]
	e.Rule, e.Limit, e.Current = first.rule, first.limit, first.current
	e.StudioId, e.YearlyCounts = first.studio, licensedv1.YearlyCounts(first.counts)
	broken := make([]*licensedv1.BrokenRule, len(r))
	for i := range r {
		broken[i] = d.broken(r, i, e, check)
	}
	if first.plan != "" {
		e.PlanId = first.plan
	}
	e.Devices = d.labels(e, broken)
	if check != nil {
		e.NextAllowedAtMs = d.nextAllowed(e, broken, check)
	}
	// The event has said all of a single rule without a count.
	if len(r) > 1 || timely(first.rule) {
		e.Broken = broken
	}
	d.add(customer, d.state.order, e)
	d.decision.Refused = true
}

// broken records one rule of a refusal: its figures, its own time, and what would end the violation.
func (d *decider) broken(
	all refusal, i int, e *licensedv1.CommandRefused, check func(view) refusal,
) *licensedv1.BrokenRule {
	r := &all[i]
	b := &licensedv1.BrokenRule{
		Rule: r.rule, Limit: r.limit, Current: r.current, PlanId: r.plan, StudioId: r.studio,
		YearlyCounts: licensedv1.YearlyCounts(r.counts), ExceptionNumber: r.exception.GetNumber(),
		ExceptionUntilMs: millisOf(r.exception.GetUntil()),
	}
	if r.rule == licensedv1.Rule_RULE_SELECTION_MADE {
		p := d.places(nil)
		b.StayingDeviceIds = listed(p.selection())
	}
	if check == nil {
		return b
	}
	if r.rule == licensedv1.Rule_RULE_DEVICE_NOT_SELECTED {
		p := d.places(nil)
		b.StayingDeviceIds, b.Selectable = listed(p.staying()), !p.bound || !d.state.chosen
	}
	for _, at := range d.turns(e.TitleId, r.rule) {
		later := check(d.at(at))
		if later.final() {
			break
		}
		if !later.has(r.rule) {
			b.NextAllowedAtMs = at
			break
		}
	}
	if e.Command == licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES {
		return b // nothing to release helps: fewer devices can be named
	}
	if remedies, needed := d.remedies(all, r, e.DeviceId); needed > 0 && needed <= len(remedies) {
		b.FreedBy, b.Needed = listed(remedies), uint32(needed)
	}
	return b
}

// listed returns as many ids as a refusal names.
func listed(ids []string) []string { return ids[:min(len(ids), maxFreedBy)] }

// timely reports whether a rule's refusal may end by the passing of time.
func timely(rule licensedv1.Rule) bool {
	switch rule {
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_STUDIO_LIMIT,
		licensedv1.Rule_RULE_YEARLY_LIMIT, licensedv1.Rule_RULE_DEACTIVATION_LIMIT,
		licensedv1.Rule_RULE_REMEMBERED_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED,
		licensedv1.Rule_RULE_SELECTION_MADE, licensedv1.Rule_RULE_DEVICE_TITLES, licensedv1.Rule_RULE_MONTHLY_LIMIT,
		licensedv1.Rule_RULE_ALLOWANCE_LIMIT:
		return true
	default:
		return false
	}
}

// final reports whether a rule says no after which no other is asked: what the command is about does not exist (any
// more), and the passing of time does not bring it back.
func (r refusal) final() bool {
	return len(r) == 1 && !timely(r[0].rule) && r[0].rule != licensedv1.Rule_RULE_TITLE_UNAVAILABLE &&
		r[0].rule != licensedv1.Rule_RULE_PLAYED
}

// turns returns the times after now, in order, at which rules may begin to say yes if nothing happens meanwhile: a
// licence expires, or something counted leaves the window.
func (v view) turns(title string, rules ...licensedv1.Rule) (times []int64) {
	for _, rule := range rules {
		times = v.appendTurns(times, title, rule)
	}
	if v.state.rare != nil {
		times = append(times, v.exceptionEnds()...)
	}
	slices.Sort(times)
	times = slices.Compact(times)
	for len(times) > 0 && times[0] <= v.now {
		times = times[1:]
	}
	return times
}

// appendTurns appends the times at which a rule may begin to say yes, in any order, and times that passed.
func (v view) appendTurns(times []int64, title string, rule licensedv1.Rule) []int64 {
	switch rule {
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED,
		licensedv1.Rule_RULE_SELECTION_MADE, licensedv1.Rule_RULE_STUDIO_LIMIT:
		for i := range v.state.licenses {
			l := &v.state.licenses[i]
			if l.active(v.now) {
				times = append(times, l.expires)
			}
			if v.state.devices[l.device].selected {
				times = append(times, l.last()+window+1)
			}
		}
		v.eachLent(0, func(_ *allowance, _ unit, end int64) { times = append(times, end) })
		// A selected device gives up its place when it is forgotten.
		for i := range v.state.devices {
			if dev := &v.state.devices[i]; dev.selected {
				times = append(times, dev.seen+window+1)
			}
		}
	case licensedv1.Rule_RULE_YEARLY_LIMIT:
		// Each use leaves the window of a year by itself.
		v.eachUse(v.state.title(title), func(_ *license, u use) { times = append(times, u.at()+window) })
		times = append(times, v.lentOfTitle(v.state.title(title))...)
	case licensedv1.Rule_RULE_MONTHLY_LIMIT:
		v.eachDownload(func(at int64) { times = append(times, at+month) })
	case licensedv1.Rule_RULE_DEACTIVATION_LIMIT, licensedv1.Rule_RULE_DEVICE_TITLES:
		for _, at := range v.state.deactivations {
			times = append(times, at+window)
		}
		for i := range v.state.licenses { // without active licences a deactivation costs nothing
			if l := &v.state.licenses[i]; l.active(v.now) {
				times = append(times, l.expires)
			}
		}
		v.eachLent(0, func(_ *allowance, _ unit, end int64) { times = append(times, end) })
	case licensedv1.Rule_RULE_ALLOWANCE_LIMIT:
		v.eachLent(0, func(_ *allowance, _ unit, end int64) { times = append(times, end) })
		for i := range v.state.allowances {
			times = append(times, v.state.allowances[i].until+window)
		}
	case licensedv1.Rule_RULE_REMEMBERED_LIMIT:
		// Also a licence that is remembered now may be new again by then.
		times = append(times, v.rememberedUntil(true), v.rememberedUntil(false))
	}
	return times
}

// nextAllowed returns the earliest time after now at which no rule refuses the command if nothing happens meanwhile, or
// 0. It is not before the time of any of the broken rules, but may be later: another rule may begin to say no.
func (d *decider) nextAllowed(
	e *licensedv1.CommandRefused, broken []*licensedv1.BrokenRule, check func(view) refusal,
) int64 {
	var from int64
	for _, b := range broken {
		if b.GetNextAllowedAtMs() == 0 {
			return 0
		}
		from = max(from, b.GetNextAllowedAtMs())
	}
	// Mostly no other rule says no by then.
	if check(d.at(from)) == nil {
		return from
	}
	for _, at := range d.turns(e.TitleId, licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_YEARLY_LIMIT,
		licensedv1.Rule_RULE_REMEMBERED_LIMIT, licensedv1.Rule_RULE_DEACTIVATION_LIMIT,
		licensedv1.Rule_RULE_MONTHLY_LIMIT, licensedv1.Rule_RULE_ALLOWANCE_LIMIT) {
		if at > from && check(d.at(at)) == nil {
			return at
		}
	}
	return 0
}

// remedies returns what would end a violation, as aggregate ids, the best choice first, and how many of them are
// needed: the devices used least recently, and the licences that expire first. Any of them will do, also together with
// those of the other rules that say no.
func (d *decider) remedies(all refusal, r *violation, deviceID string) (ids []string, needed int) {
	device := d.state.device(deviceID)
	onDevice := func(l *license) bool { return l.device == uint32(device) }
	switch r.rule {
	case licensedv1.Rule_RULE_DEACTIVATION_LIMIT:
		if len(d.lentTo(device)) > 0 {
			return nil, 0 // what is lent cannot be released
		}
		ids = d.activeOf(onDevice)
		return ids, len(ids)
	case licensedv1.Rule_RULE_DEVICE_TITLES:
		ids = d.activeOf(onDevice)
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED:
		if r.limit > 0 {
			ids, needed = d.devicesToFree(device)
		}
		return ids, needed
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		ids = d.activeOf(func(l *license) bool { return d.state.studioOf(l) == r.studio })
	default:
		return nil, 0
	}
	// Of what is lent, nothing can be released.
	if needed = int(r.current) - int(r.limit) + 1; r.limit == 0 || needed > len(ids) {
		return nil, 0
	}
	kept := d.keepsPlace(all, device)
	if i := slices.Index(ids, kept); kept != "" && i >= 0 && !planted.Bug(planted.AdviseOwnPlace) {
		if needed == len(ids) {
			return d.withPlace(ids, device)
		}
		ids = slices.Delete(ids, i, i+1)
	}
	return ids, needed
}

// keepsPlace returns the licence of a device that is not to be released, "" if all may be. A device in a plan that is
// exceeded has its place only while it is in use, so it loses the place with its last licence. The licence that is kept
// helps with as few of the rules as possible.
func (d *decider) keepsPlace(all refusal, device int) string {
	if p := d.places(nil); !p.used(device) || p.free(device) || len(d.lentTo(device)) > 0 {
		return ""
	}
	helps := func(l *license) bool {
		return slices.ContainsFunc(all, func(r violation) bool {
			return r.rule == licensedv1.Rule_RULE_STUDIO_LIMIT && r.studio == d.state.studioOf(l)
		})
	}
	own := d.activeOf(func(l *license) bool { return l.device == uint32(device) && !helps(l) })
	if len(own) == 0 {
		own = d.activeOf(func(l *license) bool { return l.device == uint32(device) })
	}
	return own[len(own)-1]
}

// withPlace completes licences that must all be released: if the device loses its place by that, the licences of other
// devices are added that make room for it. It returns none if that is not possible.
func (d *decider) withPlace(ids []string, device int) (all []string, needed int) {
	s := *d.state
	s.licenses = slices.Clone(s.licenses)
	for i := range s.licenses {
		if l := &s.licenses[i]; l.active(d.now) && slices.Contains(ids, s.idOf(l)) {
			l.released = d.now
		}
	}
	after := d.view
	after.state = &s
	r := after.deviceLimit(device)
	if r.ok() {
		return ids, len(ids)
	}
	free, n := after.devicesToFree(device)
	if r.limit == 0 || n > len(free) {
		return nil, 0
	}
	ids = append(ids, after.activeOf(func(l *license) bool {
		return slices.Contains(free[:n], s.devices[l.device].id)
	})...)
	return ids, len(ids)
}

// activeOf returns the active licences that match, those that expire first first.
func (v view) activeOf(match func(l *license) bool) (ids []string) {
	s := v.state
	var found []*license
	for i := range s.licenses {
		if l := &s.licenses[i]; l.active(v.now) && match(l) {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b *license) int {
		return cmp.Or(cmp.Compare(a.expires, b.expires), strings.Compare(s.idOf(a), s.idOf(b)))
	})
	for _, l := range found {
		ids = append(ids, s.idOf(l))
	}
	return ids
}

// RefusalOf returns a recorded refusal in the API's words, without sequence.
func RefusalOf(e *licensedv1.CommandRefused) *licensedv1.Refusal {
	r := &licensedv1.Refusal{Rule: e.GetRule(), Limit: e.GetLimit(), Current: e.GetCurrent(), CanBeFreed: true,
		Devices: e.GetDevices()}
	if e.GetNextAllowedAtMs() != 0 {
		r.NextAllowedAt = timestamp(e.GetNextAllowedAtMs())
	}
	for _, b := range brokenRules(e) {
		v := &licensedv1.RuleViolation{
			Rule: b.GetRule(), Limit: b.GetLimit(), Current: b.GetCurrent(), Message: violationWords(e, b),
			Needed: b.GetNeeded(), StudioId: b.GetStudioId(),
		}
		if ofPlan(b.GetRule()) {
			v.PlanId = b.GetPlanId()
		}
		v.StayingDeviceIds, v.Selectable = b.GetStayingDeviceIds(), b.GetSelectable()
		v.ExceptionNumber, v.ExceptionUntil = b.GetExceptionNumber(), optionalTime(b.GetExceptionUntilMs())
		if b.GetNextAllowedAtMs() != 0 {
			v.NextAllowedAt = timestamp(b.GetNextAllowedAtMs())
		}
		for _, id := range b.GetFreedBy() {
			device, title, _ := strings.Cut(id, "/")
			v.FreedBy = append(v.FreedBy, &licensedv1.Remedy{DeviceId: device, TitleId: title})
		}
		r.CanBeFreed = r.CanBeFreed && v.GetNeeded() > 0
		r.Violations = append(r.Violations, v)
	}
	r.Message = message(e, r)
	return r
}

// ofPlan reports whether a rule is about the limit of a plan.
func ofPlan(rule licensedv1.Rule) bool {
	switch rule {
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED,
		licensedv1.Rule_RULE_SELECTION_MADE, licensedv1.Rule_RULE_DEVICE_TITLES, licensedv1.Rule_RULE_MONTHLY_LIMIT:
		return true
	default:
		return false
	}
}

// brokenRules returns all rules of a refusal. Where only one is recorded, as in the events of earlier releases, its own
// time is not known.
func brokenRules(e *licensedv1.CommandRefused) []*licensedv1.BrokenRule {
	if len(e.GetBroken()) > 0 {
		return e.GetBroken()
	}
	return []*licensedv1.BrokenRule{{
		Rule: e.GetRule(), Limit: e.GetLimit(), Current: e.GetCurrent(), PlanId: e.GetPlanId(),
		StudioId: e.GetStudioId(), YearlyCounts: e.GetYearlyCounts(),
	}}
}

// message says in words which rules refused a command, from when on it is allowed, and what allows it at once.
func message(e *licensedv1.CommandRefused, r *licensedv1.Refusal) string {
	var b strings.Builder
	broken := brokenRules(e)
	for i, rule := range broken {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(reason(e, rule))
		if at := rule.GetNextAllowedAtMs(); len(broken) > 1 && at != 0 {
			b.WriteString(" (until " + instant(at) + ")")
		}
		// Advice that helps with one rule only would be in vain.
		if r.CanBeFreed {
			b.WriteString(advice(e, rule))
		}
	}
	if at := e.GetNextAllowedAtMs(); at != 0 {
		b.WriteString("; possible again from " + instant(at))
		if len(broken) > 1 && !r.CanBeFreed {
			b.WriteString(", and no release or removal changes that")
		}
	}
	return b.String()
}

// violationWords says in words what is true of one rule alone.
func violationWords(e *licensedv1.CommandRefused, b *licensedv1.BrokenRule) string {
	text := reason(e, b) + advice(e, b)
	if at := b.GetNextAllowedAtMs(); at != 0 {
		text += "; by this rule possible again from " + instant(at)
	}
	return text
}

// advice says what ends a violation at once, or nothing.
func advice(e *licensedv1.CommandRefused, b *licensedv1.BrokenRule) string {
	needed, ids := int(b.GetNeeded()), b.GetFreedBy()
	if needed == 0 || len(ids) == 0 {
		return ""
	}
	what := "release "
	if !strings.Contains(ids[0], "/") {
		what = "release all licences of "
	}
	shown := allWords(e, ids)
	list := strings.Join(shown, ", ")
	switch {
	case needed > len(ids):
		list = fmt.Sprintf("%d, such as %s", needed, list)
	case needed == 1:
		list = strings.Join(shown, " or ")
	case needed < len(ids):
		list = fmt.Sprintf("%d of %s", needed, list)
	}
	return "; to allow it now, " + what + list
}

// instant writes a time in a message.
func instant(ms int64) string { return timestamp(ms).AsTime().Format("2006-01-02T15:04:05.999Z") }

// uses names what the yearly limit counted, with the number.
func uses(b *licensedv1.BrokenRule) string {
	n := b.GetCurrent()
	switch policy.Counts(b.GetYearlyCounts()) {
	case policy.Playbacks:
		return count(n, "playback", "playbacks")
	case policy.Both:
		return count(n, "download or playback", "downloads and playbacks")
	default:
		return count(n, "download", "downloads")
	}
}
