package license

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"licensed/actors/license/policy"
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
		broken[i] = d.broken(&r[i], e, check)
	}
	if first.plan != "" {
		e.PlanId = first.plan
	}
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
	r *violation, e *licensedv1.CommandRefused, check func(view) refusal,
) *licensedv1.BrokenRule {
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
	if remedies, needed := d.remedies(r, e.DeviceId); needed > 0 && needed <= len(remedies) {
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
// needed: the devices used least recently, and the licences that expire first.
func (d *decider) remedies(r *violation, deviceID string) (ids []string, needed int) {
	switch r.rule {
	case licensedv1.Rule_RULE_DEACTIVATION_LIMIT:
		device := uint32(d.state.device(deviceID))
		if len(d.lentTo(int(device))) > 0 {
			return nil, 0 // what is lent cannot be released
		}
		ids = d.activeOf(func(l *license) bool { return l.device == device })
		return ids, len(ids)
	case licensedv1.Rule_RULE_DEVICE_TITLES:
		device := uint32(d.state.device(deviceID))
		ids = d.activeOf(func(l *license) bool { return l.device == device })
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_DEVICE_NOT_SELECTED:
		if r.limit > 0 {
			ids, needed = d.devicesToFree(d.state.device(deviceID))
		}
		return ids, needed
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		ids = d.activeOf(func(l *license) bool { return d.state.studioOf(l) == r.studio })
	default:
		return nil, 0
	}
	if r.limit == 0 {
		return nil, 0
	}
	// Of what is lent, nothing can be released.
	return ids, int(r.current) - int(r.limit) + 1
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
	r := &licensedv1.Refusal{Rule: e.GetRule(), Limit: e.GetLimit(), Current: e.GetCurrent(), CanBeFreed: true}
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
			b.WriteString(advice(rule))
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
	text := reason(e, b) + advice(b)
	if at := b.GetNextAllowedAtMs(); at != 0 {
		text += "; by this rule possible again from " + instant(at)
	}
	return text
}

// advice says what ends a violation at once, or nothing.
func advice(b *licensedv1.BrokenRule) string {
	needed, ids := int(b.GetNeeded()), b.GetFreedBy()
	if needed == 0 || len(ids) == 0 {
		return ""
	}
	what := "release "
	if !strings.Contains(ids[0], "/") {
		what = "release all licences of "
	}
	list := strings.Join(ids, ", ")
	switch {
	case needed > len(ids):
		list = fmt.Sprintf("%d, such as %s", needed, list)
	case needed == 1:
		list = strings.Join(ids, " or ")
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
