package license

import (
	"slices"

	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// view is a state as the rules see it at a time. Refusals ask it about later times, too: nothing
// happens meanwhile, but licences expire and what was counted leaves the window.
type view struct {
	now    int64
	policy *policy.Policy
	state  *State
	// ignored has a bit for each exception that is not regarded, by its position in the state.
	ignored uint64
}

// at returns the view at another time.
func (v view) at(now int64) view {
	v.now = now
	return v
}

// violation is a rule that says no; the zero value says yes.
type violation struct {
	rule           licensedv1.Rule
	limit, current uint32
	// plan, studio and counts complete the rules of the device, the studio and the yearly limit.
	plan, studio string
	counts       policy.Counts
	// exception is the one that the limit comes from, nil for the policy.
	exception *licensedv1.Exception
}

// ok reports whether the rule says yes.
func (r *violation) ok() bool { return r.rule == licensedv1.Rule_RULE_UNSPECIFIED }

// refusal has every rule that says no to a command, in the order in which they are documented. Nil says yes.
type refusal []violation

// add adds a rule that says no.
func (r *refusal) add(v violation) {
	if !v.ok() {
		*r = append(*r, v)
	}
}

// has reports whether a rule says no.
func (r refusal) has(rule licensedv1.Rule) bool {
	return slices.ContainsFunc(r, func(v violation) bool { return sameRule(v.rule, rule) })
}

// sameRule reports whether two names are those of one rule: a device that is not selected is one more device as soon as
// it is not in use.
func sameRule(a, b licensedv1.Rule) bool {
	if a == licensedv1.Rule_RULE_DEVICE_NOT_SELECTED {
		a = licensedv1.Rule_RULE_DEVICE_LIMIT
	}
	if b == licensedv1.Rule_RULE_DEVICE_NOT_SELECTED {
		b = licensedv1.Rule_RULE_DEVICE_LIMIT
	}
	return a == b
}

// refusedBy returns the refusal of a rule without figures which no other rule is asked after.
func refusedBy(rule licensedv1.Rule) refusal { return refusal{{rule: rule}} }

// target is what a command is about: positions in the tables of the state, -1 for what was never seen
// or is forgotten.
type target struct {
	deviceID, titleID      string
	device, title, license int
}

// find looks up a device and a title.
func (v view) find(deviceID, titleID string) target {
	s := v.state
	t := target{deviceID: deviceID, titleID: titleID, device: v.device(deviceID), title: s.title(titleID)}
	// A forgotten device has forgotten licences only.
	if t.license = s.license(t.device, t.title); t.license >= 0 && s.licenses[t.license].forgotten(v.now) {
		t.license = -1
	}
	return t
}

// device returns the position of a device, -1 for one that was never seen or is forgotten.
func (v view) device(id string) int {
	i := v.state.device(id)
	if i >= 0 && v.state.forgottenDevice(i, v.now) {
		return -1
	}
	return i
}

// deactivated reports whether a device is known and deactivated.
func (v view) deactivated(device int) bool { return device >= 0 && v.state.devices[device].deactivated }

// mayAcquire asks the rules of AcquireLicense.
func (v view) mayAcquire(t target, newDownload bool) (r refusal) {
	active := t.license >= 0 && v.state.licenses[t.license].active(v.now)
	// An active licence is returned as it is, whatever the rules say by now.
	if active && !newDownload {
		return nil
	}
	title := v.policy.Title(t.titleID)
	r.add(v.available(&title))
	if !active {
		r.add(v.deviceLimit(t.device))
		r.add(v.deviceTitles(t.device))
		r.add(v.studioLimit(title.Studio))
	}
	r.add(v.yearlyLimit(&t))
	r.add(v.monthlyLimit())
	r.add(v.rememberedLimit(t.license < 0))
	return r
}

// mayRenew asks the rules of RenewLicense.
func (v view) mayRenew(t target) (r refusal) {
	if t.license < 0 {
		return refusedBy(licensedv1.Rule_RULE_NO_LICENSE)
	}
	l := &v.state.licenses[t.license]
	if l.released != 0 {
		return refusedBy(licensedv1.Rule_RULE_RELEASED)
	}
	if v.deactivated(t.device) {
		return refusedBy(licensedv1.Rule_RULE_DEVICE_DEACTIVATED)
	}
	title := v.policy.Title(t.titleID)
	r.add(v.available(&title))
	if l.played != 0 && !v.policy.RenewAfterPlay() {
		r.add(violation{
			rule: licensedv1.Rule_RULE_PLAYED, limit: l.playHours, current: uint32((v.now - l.played) / hour),
		})
	}
	if !v.onGrace(t.device) {
		r.add(v.deviceLimit(t.device))
	}
	// An active licence counts already: renewing it takes nothing from its device and its studio.
	if !l.active(v.now) {
		r.add(v.deviceTitles(t.device))
		r.add(v.studioLimit(v.state.studioOf(l)))
	}
	return r
}

// mayRelease asks the rules of ReleaseLicense.
func (v view) mayRelease(t target) refusal {
	if t.license < 0 {
		return refusedBy(licensedv1.Rule_RULE_NO_LICENSE)
	}
	return nil
}

// mayPlay asks the rules of RecordPlayback.
func (v view) mayPlay(t target) (r refusal) {
	if t.license < 0 {
		return refusedBy(licensedv1.Rule_RULE_NO_LICENSE)
	}
	l := &v.state.licenses[t.license]
	if l.released != 0 {
		return refusedBy(licensedv1.Rule_RULE_RELEASED)
	}
	if !l.active(v.now) {
		return refusedBy(licensedv1.Rule_RULE_NOT_ACTIVE)
	}
	if !v.countsPlays(t.titleID) {
		return nil // one that is not counted is not remembered
	}
	r.add(v.yearlyLimit(&t))
	r.add(v.rememberedLimit(false))
	return r
}

// mayDeactivate asks the rules of DeactivateDevice.
func (v view) mayDeactivate(device int) (r refusal) {
	if device < 0 {
		return refusedBy(licensedv1.Rule_RULE_UNKNOWN_DEVICE)
	}
	if v.deactivated(device) {
		return nil
	}
	if v.activeOn(device) > 0 || len(v.lentTo(device)) > 0 { // otherwise it counts against nothing
		r.add(v.deactivationLimit())
	}
	return r
}

// activeOn returns the number of active licences on a device.
func (v view) activeOn(device int) (n uint32) {
	for i := range v.state.licenses {
		if l := &v.state.licenses[i]; l.device == uint32(device) && l.active(v.now) {
			n++
		}
	}
	return n
}

// deviceTitles says whether another licence may be active on a device.
func (v view) deviceTitles(device int) violation {
	b := v.deviceTitlesBound()
	if b.limit == policy.Unlimited {
		return violation{}
	}
	n := int(v.activeOn(device)) + len(v.lentTo(device))
	if !b.limit.Met(n) {
		return violation{}
	}
	return v.ofPlan(licensedv1.Rule_RULE_DEVICE_TITLES, b, n)
}

// monthlyLimit says whether a title may be downloaded once more.
func (v view) monthlyLimit() violation {
	b := v.monthlyBound()
	if b.limit == policy.Unlimited {
		return violation{}
	}
	n := 0
	v.eachDownload(func(int64) { n++ })
	if v.ignored != 0 {
		v.eachIgnored(func(e *licensedv1.Exception) {
			if u := e.GetUse(); u != nil && !u.GetPlayback() && millisOf(u.GetUsedAt()) > v.now-month {
				n++
			}
		})
	}
	if !b.limit.Met(n) {
		return violation{}
	}
	return v.ofPlan(licensedv1.Rule_RULE_MONTHLY_LIMIT, b, n)
}

// ofPlan returns the violation of a limit of the plan.
func (v view) ofPlan(rule licensedv1.Rule, b bound, n int) violation {
	plan, _ := v.policy.InForce(v.state.plan)
	return violation{rule: rule, limit: uint32(b.limit), current: uint32(n), plan: plan, exception: b.exception}
}

// eachDownload calls fn with the times of the downloads in the month, of whatever title, and the latest time for what
// is lent.
func (v view) eachDownload(fn func(at int64)) {
	v.eachLent(month, func(a *allowance, _ unit, _ int64) { fn(a.until) })
	for i := range v.state.licenses {
		uses := v.state.licenses[i].uses
		for j := len(uses) - 1; j >= 0 && uses[j].at() > v.now-month; j-- {
			if !uses[j].playback() {
				fn(uses[j].at())
			}
		}
	}
}

// deactivationLimit says whether another device may be deactivated.
func (v view) deactivationLimit() violation {
	b, n := v.removalsBound(), v.deactivations()
	if !b.limit.Met(n) {
		return violation{}
	}
	return violation{
		rule: licensedv1.Rule_RULE_DEACTIVATION_LIMIT, limit: uint32(b.limit), current: uint32(n),
		exception: b.exception,
	}
}

// deactivations returns the number of those in the window.
func (v view) deactivations() (n int) {
	if v.ignored != 0 {
		v.eachIgnored(func(e *licensedv1.Exception) {
			if e.GetRemoval() != nil {
				n++
			}
		})
	}
	for _, at := range v.state.deactivations {
		if at > v.now-window {
			n++
		}
	}
	return n
}

// mayChangePlan asks the rules of ChangePlan.
func (v view) mayChangePlan(plan string) refusal {
	if _, ok := v.policy.Plan(plan); !ok {
		return refusedBy(licensedv1.Rule_RULE_UNKNOWN_PLAN)
	}
	return nil
}

// available refuses a title from the end of its availability on.
func (v view) available(t *policy.Title) violation {
	if !t.AvailableUntil.IsZero() && v.now >= t.AvailableUntil.UnixMilli() {
		return violation{rule: licensedv1.Rule_RULE_TITLE_UNAVAILABLE}
	}
	return violation{}
}

// inUse says of each device whether it has an active licence, and of how many that is true. The result is in the space
// if that is large enough.
func (v view) inUse(space []bool) (inUse []bool, n int) {
	s := v.state
	if inUse = space; len(s.devices) > len(space) {
		inUse = make([]bool, len(s.devices))
	}
	for i := range s.licenses {
		if l := &s.licenses[i]; l.active(v.now) && !inUse[l.device] {
			inUse[l.device] = true
			n++
		}
	}
	v.eachLent(0, func(a *allowance, _ unit, _ int64) {
		if !inUse[a.device] {
			inUse[a.device] = true
			n++
		}
	})
	return inUse, n
}

// usedAfter orders devices by their last use, and by id where that is the same.
func (s *State) usedAfter(i, j int) bool {
	a, b := &s.devices[i], &s.devices[j]
	if a.seen != b.seen {
		return a.seen > b.seen
	}
	return a.id < b.id
}

// studioLimit says whether another licence of the studio may be active.
func (v view) studioLimit(studio string) violation {
	b := v.studioBound(studio)
	if b.limit == policy.Unlimited {
		return violation{}
	}
	s, n := v.state, len(v.lentOfStudio(studio))
	for i := range s.licenses {
		if l := &s.licenses[i]; l.active(v.now) && s.studioOf(l) == studio {
			n++
		}
	}
	if b.limit.Met(n) {
		return violation{
			rule: licensedv1.Rule_RULE_STUDIO_LIMIT, limit: uint32(b.limit), current: uint32(n), studio: studio,
			exception: b.exception,
		}
	}
	return violation{}
}

// yearlyLimit says whether the title may be used once more.
func (v view) yearlyLimit(t *target) violation {
	b := v.yearlyBound(t.titleID)
	if b.limit == policy.Unlimited {
		return violation{}
	}
	counts := v.policy.Counts()
	n := len(v.lentOfTitle(t.title))
	v.eachUse(t.title, func(_ *license, u use) {
		if counted(u, counts) {
			n++
		}
	})
	if v.ignored != 0 {
		v.eachIgnored(func(e *licensedv1.Exception) {
			if u := e.GetUse(); u.GetTitleId() == t.titleID && counted(newUse(0, u.GetPlayback()), counts) {
				n++
			}
		})
	}
	if b.limit.Met(n) {
		return violation{
			rule: licensedv1.Rule_RULE_YEARLY_LIMIT, limit: uint32(b.limit), current: uint32(n), counts: counts,
			exception: b.exception,
		}
	}
	return violation{}
}

// rememberedLimit says whether another use, and with newLicense another licence, may be remembered. It counts what is
// not forgotten, and so says the same before and after a snapshot dropped what is.
func (v view) rememberedLimit(newLicense bool) violation {
	r := violation{rule: licensedv1.Rule_RULE_REMEMBERED_LIMIT}
	if r.limit = v.policy.Remembered(); newLicense && len(v.state.licenses)+v.state.units() >= int(r.limit) {
		if r.current = uint32(len(v.licenseEnds())); r.current >= r.limit {
			return r
		}
	}
	if r.limit *= policy.RememberedUses; v.state.uses()+v.state.units() >= int(r.limit) {
		if r.current = uint32(len(v.useTimes())); r.current >= r.limit {
			r.counts = policy.Both
			return r
		}
	}
	return violation{}
}

// rememberedUntil returns from when on rememberedLimit says yes if nothing happens until then; 0 if it does now.
func (v view) rememberedUntil(newLicense bool) (at int64) {
	limit := int(v.policy.Remembered())
	if newLicense && len(v.state.licenses)+v.state.units() >= limit {
		if ends := v.licenseEnds(); len(ends) >= limit {
			slices.Sort(ends)
			at = ends[len(ends)-limit] + window + 1
		}
	}
	if limit *= policy.RememberedUses; v.state.uses()+v.state.units() >= limit {
		if times := v.useTimes(); len(times) >= limit {
			slices.Sort(times)
			at = max(at, times[len(times)-limit]+window)
		}
	}
	return at
}

// licenseEnds returns for which time the licences that are not forgotten are remembered, and those that are lent.
func (v view) licenseEnds() []int64 {
	ends := make([]int64, 0, len(v.state.licenses))
	for i := range v.state.licenses {
		if l := &v.state.licenses[i]; !l.forgotten(v.now) {
			ends = append(ends, l.last())
		}
	}
	v.eachLent(window, func(a *allowance, _ unit, _ int64) { ends = append(ends, a.until) })
	return ends
}

// useTimes returns when the titles were used in the window, and the latest time for what is lent.
func (v view) useTimes() []int64 {
	var times []int64
	for i := range v.state.licenses {
		for _, u := range v.state.licenses[i].uses {
			if u.at() > v.now-window {
				times = append(times, u.at())
			}
		}
	}
	v.eachLent(window, func(a *allowance, _ unit, _ int64) { times = append(times, a.until) })
	return times
}

// eachUse calls fn for the uses of a title in the window, on whatever device.
func (v view) eachUse(title int, fn func(l *license, u use)) {
	if title < 0 {
		return
	}
	for i := range v.state.licenses {
		l := &v.state.licenses[i]
		if l.title != uint32(title) {
			continue
		}
		for _, u := range l.uses {
			if u.at() > v.now-window {
				fn(l, u)
			}
		}
	}
}

// countsPlays reports whether playbacks of a title count, by the policy of today: a later one does not change what was
// recorded. They count if the policy limits them, also while an exception does not; and if an exception does.
func (v view) countsPlays(titleID string) bool {
	return v.policy.Counts()&policy.Playbacks != 0 &&
		(v.policy.Title(titleID).YearlyLimit != policy.Unlimited || v.yearlyBound(titleID).limit != policy.Unlimited)
}

// counted reports whether a use counts against yearly limits.
func counted(u use, counts policy.Counts) bool {
	if u.playback() {
		return counts&policy.Playbacks != 0
	}
	return counts&policy.Downloads != 0
}
