package license

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors/license/ids"
	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// Exceptions are one customer's deviations from the rules. Another limit is in force until its date, in place of the
// policy's; nothing is recorded when it ends. What is forgiven is removed from what rules count, and put back if the
// exception is withdrawn. A merge moves all that a device has to another id.

const (
	// MaxExceptions is the number of exceptions of a customer that count at the same time.
	MaxExceptions = 64
	// MaxReason is the length of a reason, in bytes.
	MaxReason = 500
	// maxStudioLimit and maxDeviceTitles are those of the policy file.
	maxStudioLimit  = 1_000_000
	maxDeviceTitles = 10_000
)

// rare is the part of a state that few customers have.
type rare struct {
	// exceptions by number; those that ended stay until the state is pruned. They are never changed, but replaced.
	exceptions []*licensedv1.Exception
	// granted is the highest number of an exception.
	granted uint64
}

// exceptions returns those that are kept.
func (s *State) exceptions() []*licensedv1.Exception {
	if s.rare == nil {
		return nil
	}
	return s.rare.exceptions
}

// counts reports whether an exception counts at a time.
func counts(e *licensedv1.Exception, now int64) bool {
	return now < millisOf(e.GetUntil()) || planted.Bug(planted.ExceptionForEver)
}

// millisOf returns a time as Unix milliseconds, 0 for none.
func millisOf(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}

// exceptions returns those that count, by number.
func (v view) exceptions() (all []*licensedv1.Exception) {
	for _, e := range v.state.exceptions() {
		if counts(e, v.now) {
			all = append(all, e)
		}
	}
	return all
}

// listExceptions returns copies of those that count, for an answer.
func (v view) listExceptions() []*licensedv1.Exception {
	all := v.exceptions()
	for i, e := range all {
		all[i] = proto.CloneOf(e)
	}
	return all
}

// eachException calls fn for the exceptions that count and are not ignored.
func (v view) eachException(fn func(*licensedv1.Exception)) {
	for i, e := range v.state.exceptions() {
		if v.ignored>>i&1 == 0 && counts(e, v.now) {
			fn(e)
		}
	}
}

// eachIgnored calls fn for the exceptions that count and are ignored.
func (v view) eachIgnored(fn func(*licensedv1.Exception)) {
	for i, e := range v.state.exceptions() {
		if v.ignored>>i&1 != 0 && counts(e, v.now) {
			fn(e)
		}
	}
}

// bound is a limit that is in force, with the exception that it comes from, nil for the policy.
type bound struct {
	limit     policy.Limit
	exception *licensedv1.Exception
}

// bound returns the limit that is in force in place of that of the policy.
func (v view) bound(kind licensedv1.LimitKind, plan, studio, title string, of policy.Limit) bound {
	b := bound{limit: of}
	if v.state.rare == nil {
		return b
	}
	v.eachException(func(e *licensedv1.Exception) {
		l := e.GetLimit()
		if l.GetKind() != kind || l.GetPlanId() != "" && l.GetPlanId() != plan ||
			l.GetStudioId() != "" && l.GetStudioId() != studio || l.GetTitleId() != "" && l.GetTitleId() != title {
			return
		}
		if b.exception != nil && breadth(l) > breadth(b.exception.GetLimit()) {
			return
		}
		if b.exception, b.limit = e, policy.Unlimited; l.Limit != nil {
			b.limit = policy.Limit(l.GetLimit())
		}
	})
	return b
}

// breadth orders limits: the narrower one precedes.
func breadth(l *licensedv1.OtherLimit) int {
	switch {
	case l.GetTitleId() != "":
		return 0
	case l.GetStudioId() != "":
		return 1
	default:
		return 2
	}
}

// devicesBound returns the plan that is in force, and its limit of devices.
func (v view) devicesBound() (plan string, b bound) {
	plan, devices := v.policy.InForce(v.state.plan)
	return plan, v.planBound(plan, devices)
}

// planBound returns the limit of devices of a plan.
func (v view) planBound(plan string, devices uint32) bound {
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_DEVICES, plan, "", "", policy.Limit(devices))
}

// studioBound returns the limit of active licences of a studio.
func (v view) studioBound(studio string) bound {
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_STUDIO, "", studio, "", v.policy.Studio(studio))
}

// yearlyBound returns the yearly limit of a title.
func (v view) yearlyBound(titleID string) bound {
	title := v.policy.Title(titleID)
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_YEARLY, "", title.Studio, titleID, title.YearlyLimit)
}

// removalsBound returns the limit of removals.
func (v view) removalsBound() bound {
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_REMOVALS, "", "", "", v.policy.Deactivations())
}

// monthlyBound returns the limit of downloads in 30 days.
func (v view) monthlyBound() bound {
	plan, _ := v.policy.InForce(v.state.plan)
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_MONTHLY, plan, "", "",
		v.policy.PlanLimits(v.state.plan).MonthlyDownloads)
}

// deviceTitlesBound returns the limit of active licences on a device.
func (v view) deviceTitlesBound() bound {
	plan, _ := v.policy.InForce(v.state.plan)
	return v.bound(licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES, plan, "", "",
		v.policy.PlanLimits(v.state.plan).TitlesPerDevice)
}

// exceptionEnds returns when other limits end.
func (v view) exceptionEnds() (times []int64) {
	v.eachException(func(e *licensedv1.Exception) {
		if e.GetLimit() != nil {
			times = append(times, millisOf(e.GetUntil()))
		}
	})
	return times
}

// allowedBy returns the numbers of exceptions without which a command that is allowed would be refused: as few as
// possible, and of several that do the later ones.
func (d *decider) allowedBy(check func(view) refusal) (numbers []uint64) {
	if d.state.rare == nil {
		return nil
	}
	v := d.view
	if v.ignored = 1<<MaxExceptions - 1; check(v) == nil {
		return nil
	}
	v.ignored = 0
	for i, e := range d.state.exceptions() {
		if without := v.ignored | 1<<i; counts(e, d.now) {
			former := v.ignored
			if v.ignored = without; check(v) != nil {
				v.ignored = former
				numbers = append(numbers, e.GetNumber())
			}
		}
	}
	return numbers
}

// grant decides GrantException.
func (d *decider) grant(c *licensedv1.GrantException) {
	e, r := d.exception(c)
	if r != nil {
		about := subjectOf(&licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: c}})
		d.refuse(r, &licensedv1.CommandRefused{
			Command: about.kind, DeviceId: about.device, TitleId: about.title, StudioId: about.studio,
		}, nil)
		return
	}
	if id := e.GetMerge().GetNewDeviceId(); id != "" {
		switch i := d.device(id); {
		case i < 0:
			d.add(id, 0, &licensedv1.DeviceActivated{IssuedAtMs: d.issued})
		case d.deactivated(i):
			d.add(id, d.state.devices[i].order, &licensedv1.DeviceActivated{IssuedAtMs: d.issued})
		}
	}
	d.add(customer, d.state.order, &licensedv1.ExceptionGranted{Exception: e})
}

// exception asks the rules of GrantException, and returns the exception complete.
func (v view) exception(c *licensedv1.GrantException) (e *licensedv1.Exception, r refusal) {
	e = &licensedv1.Exception{Number: 1, Reason: c.GetReason(), GrantedAt: timestamp(v.now)}
	if v.state.rare != nil {
		e.Number = v.state.rare.granted + 1
	}
	switch k := c.GetKind().(type) {
	case *licensedv1.GrantException_Limit:
		l := proto.CloneOf(k.Limit)
		e.Until, e.Kind = timestamp(c.GetUntilMs()), &licensedv1.Exception_Limit{Limit: l}
		l.PlanId = ""
		switch l.GetKind() {
		case licensedv1.LimitKind_LIMIT_KIND_DEVICES, licensedv1.LimitKind_LIMIT_KIND_MONTHLY,
			licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES:
			l.PlanId, _ = v.policy.InForce(v.state.plan)
		}
		r = v.mayLimit(l, c.GetUntilMs())
	case *licensedv1.GrantException_Removal:
		at, found := v.latestRemoval(millisOf(k.Removal.GetRemovedAt()))
		if !found {
			return nil, refusedBy(licensedv1.Rule_RULE_NOTHING_TO_FORGIVE)
		}
		e.Until = timestamp(at + window)
		e.Kind = &licensedv1.Exception_Removal{Removal: &licensedv1.ForgivenRemoval{RemovedAt: timestamp(at)}}
	case *licensedv1.GrantException_Use:
		l, at, no := v.latestUse(k.Use)
		if no != nil {
			return nil, no
		}
		e.Until = timestamp(at + window)
		e.Kind = &licensedv1.Exception_Use{Use: &licensedv1.ForgivenUse{
			TitleId: k.Use.GetTitleId(), DeviceId: v.state.devices[l.device].id, UsedAt: timestamp(at),
			Playback: k.Use.GetPlayback(),
		}}
	case *licensedv1.GrantException_Merge:
		old := v.device(k.Merge.GetOldDeviceId())
		if old < 0 {
			return nil, refusedBy(licensedv1.Rule_RULE_UNKNOWN_DEVICE)
		}
		if v.merged(k.Merge.GetOldDeviceId()) != "" {
			return nil, refusedBy(licensedv1.Rule_RULE_MERGE_IS_FINAL)
		}
		m := &licensedv1.MergedDevice{OldDeviceId: k.Merge.GetOldDeviceId(), NewDeviceId: k.Merge.GetNewDeviceId()}
		for i := range v.state.licenses {
			if l := &v.state.licenses[i]; l.device == uint32(old) && !l.forgotten(v.now) {
				m.Licenses++
			}
		}
		e.Until, e.Kind = timestamp(v.now+window), &licensedv1.Exception_Merge{Merge: m}
		r.add(v.mergedPlace(old, v.device(m.GetNewDeviceId())))
	default:
		panic(fmt.Sprintf("license: no exception, but %T", k))
	}
	if n := len(v.exceptions()); r == nil && n >= MaxExceptions {
		r.add(violation{rule: licensedv1.Rule_RULE_EXCEPTION_LIMIT, limit: MaxExceptions, current: uint32(n)})
	}
	return e, r
}

// mergedPlace says whether the plan has a place for the new id of a merged device, if the old one keeps its own: what
// is lent to it stays, since the gateway cannot be told.
func (v view) mergedPlace(old, into int) violation {
	inUse := func(i int) bool { return i >= 0 && (v.activeOn(i) > 0 || len(v.lentTo(i)) > 0) }
	if v.activeOn(old) == 0 || len(v.lentTo(old)) == 0 || inUse(into) {
		return violation{}
	}
	var few [32]bool
	if p := v.places(few[:]); uint64(p.n) < uint64(p.limit) {
		return violation{}
	}
	r := v.deviceLimit(-1)
	r.rule = licensedv1.Rule_RULE_DEVICE_LIMIT
	return r
}

// mayLimit asks the rules of another limit: its date is to come, and its title and studio are known, so that a mistyped
// one is noticed.
func (v view) mayLimit(l *licensedv1.OtherLimit, until int64) refusal {
	if until <= v.now {
		return refusedBy(licensedv1.Rule_RULE_DATE_PASSED)
	}
	holds := func(match func(l *license) bool) bool {
		return slices.ContainsFunc(v.state.licenses, func(l license) bool { return !l.forgotten(v.now) && match(&l) })
	}
	if id := l.GetTitleId(); id != "" && !v.policy.Lists(id) &&
		!holds(func(l *license) bool { return v.state.titles[l.title] == id }) {
		return refusedBy(licensedv1.Rule_RULE_UNKNOWN_TITLE)
	}
	if id := l.GetStudioId(); id != "" && !v.policy.Names(id) &&
		!holds(func(l *license) bool { return v.state.studioOf(l) == id }) {
		return refusedBy(licensedv1.Rule_RULE_UNKNOWN_STUDIO)
	}
	return nil
}

// latestRemoval returns the removal that counts since a time, for 0 the latest one.
func (v view) latestRemoval(at int64) (int64, bool) {
	for _, removed := range slices.Backward(v.state.deactivations) {
		if removed > v.now-window && (at == 0 || at == removed) {
			return removed, true
		}
	}
	return 0, false
}

// latestUse returns the download or playback that is meant, with its licence.
func (v view) latestUse(u *licensedv1.ForgivenUse) (of *license, at int64, r refusal) {
	device := -1
	if u.GetDeviceId() != "" {
		if device = v.device(u.GetDeviceId()); device < 0 {
			return nil, 0, refusedBy(licensedv1.Rule_RULE_UNKNOWN_DEVICE)
		}
	}
	v.eachUse(v.state.title(u.GetTitleId()), func(l *license, found use) {
		if found.playback() != u.GetPlayback() || device >= 0 && l.device != uint32(device) ||
			u.GetUsedAt() != nil && millisOf(u.GetUsedAt()) != found.at() {
			return
		}
		if of == nil || found.at() > at ||
			found.at() == at && v.state.devices[l.device].id < v.state.devices[of.device].id {
			of, at = l, found.at()
		}
	})
	if of == nil {
		return nil, 0, refusedBy(licensedv1.Rule_RULE_NOTHING_TO_FORGIVE)
	}
	return of, at, nil
}

// withdraw decides WithdrawException.
func (d *decider) withdraw(c *licensedv1.WithdrawException) {
	rule := licensedv1.Rule_RULE_UNKNOWN_EXCEPTION
	for _, e := range d.exceptions() {
		if e.GetNumber() != c.GetNumber() {
			continue
		}
		if e.GetMerge() == nil {
			d.add(customer, d.state.order, &licensedv1.ExceptionWithdrawn{
				Exception: proto.CloneOf(e), Reason: c.GetReason(),
			})
			return
		}
		rule = licensedv1.Rule_RULE_MERGE_IS_FINAL
	}
	d.refuse(refusedBy(rule), &licensedv1.CommandRefused{
		Command: licensedv1.CommandKind_COMMAND_KIND_WITHDRAW_EXCEPTION, ExceptionNumber: c.GetNumber(),
	}, nil)
}

// granted applies ExceptionGranted.
func (s *State) granted(e *licensedv1.Exception, at int64) {
	if s.rare == nil {
		s.rare = &rare{}
	}
	s.rare.granted = max(s.rare.granted, e.GetNumber())
	switch k := e.GetKind().(type) {
	case *licensedv1.Exception_Removal:
		removed := millisOf(k.Removal.GetRemovedAt())
		if i := slices.Index(s.deactivations, removed); i >= 0 {
			s.deactivations = slices.Delete(slices.Clone(s.deactivations), i, i+1)
		}
	case *licensedv1.Exception_Use:
		u := newUse(millisOf(k.Use.GetUsedAt()), k.Use.GetPlayback())
		if l := s.licenseOf(k.Use); l != nil {
			if i := slices.Index(l.uses, u); i >= 0 {
				l.uses = slices.Delete(slices.Clone(l.uses), i, i+1)
			}
		}
	case *licensedv1.Exception_Merge:
		s.merge(k.Merge.GetOldDeviceId(), k.Merge.GetNewDeviceId(), at)
	}
	// Those that ended make room: at most MaxExceptions are kept, also by a state that is never pruned.
	s.dropExceptions(func(kept *licensedv1.Exception) bool { return at >= millisOf(kept.GetUntil()) })
	s.rare.exceptions = append(s.rare.exceptions, proto.CloneOf(e))
}

// withdrawn applies ExceptionWithdrawn: what was forgiven counts again, as far as it is remembered.
func (s *State) withdrawn(e *licensedv1.Exception, at int64) {
	if s.rare == nil {
		return
	}
	for _, kept := range s.rare.exceptions {
		if kept.GetNumber() != e.GetNumber() {
			continue
		}
		switch k := kept.GetKind().(type) {
		case *licensedv1.Exception_Removal:
			removed := millisOf(k.Removal.GetRemovedAt())
			i, _ := slices.BinarySearch(s.deactivations, removed)
			s.deactivations = slices.Insert(slices.Clone(s.deactivations), i, removed)
			s.deactivations = s.deactivations[max(0, len(s.deactivations)-maxCounted):]
		case *licensedv1.Exception_Use:
			if l := s.licenseOf(k.Use); l != nil && !l.forgotten(at) {
				l.use(newUse(millisOf(k.Use.GetUsedAt()), k.Use.GetPlayback()))
			}
		}
	}
	s.dropExceptions(func(kept *licensedv1.Exception) bool { return kept.GetNumber() == e.GetNumber() })
}

// licenseOf returns the licence of a forgiven use, nil if it is unknown.
func (s *State) licenseOf(u *licensedv1.ForgivenUse) *license {
	if i := s.license(s.device(u.GetDeviceId()), s.title(u.GetTitleId())); i >= 0 {
		return &s.licenses[i]
	}
	return nil
}

// dropExceptions removes exceptions.
func (s *State) dropExceptions(match func(*licensedv1.Exception) bool) {
	if s.rare != nil {
		s.rare.exceptions = slices.DeleteFunc(slices.Clone(s.rare.exceptions), match)
	}
}

// mergedInto returns the id that a device was merged into, and the id itself for others. A device that was activated
// since is one of its own.
func (s *State) mergedInto(id string, now int64) string {
	of := func(e *licensedv1.Exception) bool {
		return e.GetMerge() != nil && e.GetMerge().GetOldDeviceId() == id && counts(e, now)
	}
	for range s.exceptions() { // The new id of a merge may have been merged as well.
		i := slices.IndexFunc(s.rare.exceptions, of)
		if i < 0 {
			break
		}
		id = s.rare.exceptions[i].GetMerge().GetNewDeviceId()
	}
	return id
}

// merged returns the id that a device was merged into, "" for others.
func (v view) merged(id string) string {
	if into := v.state.mergedInto(id, v.now); into != id {
		return into
	}
	return ""
}

// ownDevice ends the merge of an id that is used again.
func (s *State) ownDevice(id string) {
	if s.rare != nil {
		s.dropExceptions(func(e *licensedv1.Exception) bool {
			return e.GetMerge() != nil && e.GetMerge().GetOldDeviceId() == id
		})
	}
}

// merge moves what a device has to another id. The numbers of facts are counted by id, and stay.
func (s *State) merge(oldID, newID string, at int64) {
	from := s.device(oldID)
	if from < 0 || oldID == newID || s.forgottenDevice(from, at) {
		return
	}
	s.ownDevice(oldID)
	s.ownDevice(newID)
	to := s.device(newID)
	if to < 0 { // The command activates it, unless another release wrote the event.
		s.see(newID, at)
		to = s.device(newID)
	}
	old, d := &s.devices[from], &s.devices[to]
	d.selected = d.selected || old.selected
	d.seen, d.downloaded = max(d.seen, old.seen), max(d.downloaded, old.downloaded)
	d.name, d.kind = cmp.Or(d.name, old.name), cmp.Or(d.kind, old.kind)
	old.deactivated, old.selected = true, false
	if planted.Bug(planted.MergeForgetsNumbers) {
		old.synced = 0
	}
	// Collected first: licences are removed from the table meanwhile.
	var titles []uint32
	for i := range s.licenses {
		if l := &s.licenses[i]; l.device == uint32(from) && !l.forgotten(at) {
			titles = append(titles, l.title)
		}
	}
	for _, title := range titles {
		s.moveLicense(title, from, to, at)
	}
	for i, e := range s.rare.exceptions {
		if e.GetUse().GetDeviceId() == oldID {
			e = proto.CloneOf(e)
			e.GetUse().DeviceId = newID
			s.rare.exceptions[i] = e
		}
	}
}

// moveLicense moves a licence to another device. If that has one for the title, the one that ends later remains, with
// the uses of both.
func (s *State) moveLicense(title uint32, from, to int, at int64) {
	i, j := s.license(from, int(title)), s.license(to, int(title))
	moved := s.licenses[i]
	moved.device, moved.order = uint32(to), 0
	moved.forgetSpans(at)
	if planted.Bug(planted.MergeLosesUses) {
		moved.uses = nil
	}
	if j < 0 {
		s.licenses[i] = moved
		return
	}
	if held := s.licenses[j]; !held.forgotten(at) {
		held.forgetSpans(at)
		moved = mergedLicense(held, moved, at)
	}
	s.licenses[j] = moved
	s.licenses = slices.Delete(s.licenses, i, i+1)
}

// mergedLicense returns one licence in place of two for the same title on the same device.
func mergedLicense(held, moved license, at int64) license {
	stays, goes := held, moved
	if moved.end() > held.end() {
		stays, goes = moved, held
	}
	out := stays
	out.order, out.meant = held.order, max(held.meant, moved.meant)
	out.spans = slices.Concat(stays.spans, goes.spans)
	if to := min(goes.end(), at); to > goes.since {
		out.spans = append(out.spans, span{goes.since, to})
	}
	slices.SortFunc(out.spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	for i := 0; i+1 < len(out.spans); {
		if a, b := out.spans[i], out.spans[i+1]; b.from > a.to && len(out.spans) <= maxSpans {
			i++
		} else { // They overlap, or there are too many.
			out.spans = slices.Replace(out.spans, i, i+2, span{a.from, max(a.to, b.to)})
		}
	}
	out.uses = slices.Clone(stays.uses)
	for _, u := range goes.uses {
		out.use(u)
	}
	return out
}

// CheckReason says what is wrong with the reason of a command, or with that of a call.
func CheckReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return errors.New("reason is required")
	case len(reason) > MaxReason:
		return fmt.Errorf("reason has %d bytes, the limit is %d", len(reason), MaxReason)
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl):
		return errors.New("reason must not contain control characters, or bytes that are not UTF-8")
	}
	return nil
}

// CheckGrant says what is wrong with GrantException, beside ids of the customer and the command.
func CheckGrant(c *licensedv1.GrantException) error {
	if err := CheckReason(c.GetReason()); err != nil {
		return err
	}
	e := &licensedv1.Exception{}
	switch k := c.GetKind().(type) {
	case *licensedv1.GrantException_Limit:
		e.Kind = &licensedv1.Exception_Limit{Limit: k.Limit}
		if c.GetUntilMs() == 0 {
			return errors.New("until is required with another limit")
		}
	case *licensedv1.GrantException_Removal:
		e.Kind = &licensedv1.Exception_Removal{Removal: k.Removal}
	case *licensedv1.GrantException_Use:
		e.Kind = &licensedv1.Exception_Use{Use: k.Use}
	case *licensedv1.GrantException_Merge:
		e.Kind = &licensedv1.Exception_Merge{Merge: k.Merge}
	default:
		return errors.New("an exception of an unknown kind; want limit, removal, use or merge")
	}
	if c.GetUntilMs() != 0 && e.GetLimit() == nil {
		return errors.New("until is for another limit only; other exceptions count until the rules forget " +
			"what they are about")
	}
	return first(checkTime("until", c.GetUntilMs()), checkKind(e))
}

// CheckWithdraw says what is wrong with WithdrawException.
func CheckWithdraw(c *licensedv1.WithdrawException) error {
	if c.GetNumber() == 0 || c.GetNumber() > MaxNumber {
		return fmt.Errorf("exception number %d is not between 1 and %d", c.GetNumber(), uint64(MaxNumber))
	}
	return CheckReason(c.GetReason())
}

// checkKind checks what an exception is about.
func checkKind(e *licensedv1.Exception) error {
	switch k := e.GetKind().(type) {
	case *licensedv1.Exception_Limit:
		return checkLimit(k.Limit)
	case *licensedv1.Exception_Removal:
		return checkStamp("removed_at", k.Removal.GetRemovedAt())
	case *licensedv1.Exception_Use:
		return first(named("title id", k.Use.GetTitleId(), ids.MaxBytes), optional("device id", k.Use.GetDeviceId()),
			checkStamp("used_at", k.Use.GetUsedAt()))
	case *licensedv1.Exception_Merge:
		if k.Merge.GetOldDeviceId() == k.Merge.GetNewDeviceId() {
			return errors.New("old and new device id are the same")
		}
		return first(named("old device id", k.Merge.GetOldDeviceId(), ids.MaxBytes),
			named("new device id", k.Merge.GetNewDeviceId(), ids.MaxBytes))
	}
	return errors.New("an exception of an unknown kind")
}

// checkLimit checks another limit.
func checkLimit(l *licensedv1.OtherLimit) error {
	highest := uint32(policy.MaxYearlyLimit)
	ofTitle, ofStudio := false, false
	switch l.GetKind() {
	case licensedv1.LimitKind_LIMIT_KIND_DEVICES:
		if highest = MaxSelected; l.Limit == nil {
			return errors.New("limit is required for devices, which cannot be unlimited")
		}
	case licensedv1.LimitKind_LIMIT_KIND_STUDIO:
		if highest, ofStudio = maxStudioLimit, true; l.GetStudioId() == "" {
			return errors.New("studio id is required for the limit of a studio")
		}
	case licensedv1.LimitKind_LIMIT_KIND_YEARLY:
		ofTitle, ofStudio = true, true
	case licensedv1.LimitKind_LIMIT_KIND_REMOVALS:
	case licensedv1.LimitKind_LIMIT_KIND_MONTHLY:
	case licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES:
		highest = maxDeviceTitles
	default:
		return fmt.Errorf("unknown limit %d; want devices, studio, yearly, removals, monthly or device-titles",
			l.GetKind())
	}
	switch {
	case l.GetLimit() > highest:
		return fmt.Errorf("limit %d, the highest is %d", l.GetLimit(), highest)
	case l.GetTitleId() != "" && !ofTitle:
		return errors.New("title id is for the yearly limit only")
	case l.GetStudioId() != "" && !ofStudio:
		return errors.New("studio id is for the limit of a studio and the yearly limit only")
	case l.GetTitleId() != "" && l.GetStudioId() != "":
		return errors.New("title id and studio id cannot be given together")
	}
	return first(optional("title id", l.GetTitleId()), optional("studio id", l.GetStudioId()),
		optional("plan id", l.GetPlanId()))
}

// checkStamp checks a time that may be absent.
func checkStamp(what string, t *timestamppb.Timestamp) error {
	if t == nil {
		return nil
	}
	if err := t.CheckValid(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return checkTime(what, t.AsTime().UnixMilli())
}

// checkException checks an exception in an event or a snapshot.
func checkException(e *licensedv1.Exception) error {
	if e.GetNumber() == 0 || e.GetNumber() > MaxNumber {
		return fmt.Errorf("exception number %d is not between 1 and %d", e.GetNumber(), uint64(MaxNumber))
	}
	if e.GetGrantedAt() == nil || e.GetUntil() == nil {
		return errors.New("an exception without its times")
	}
	return first(CheckReason(e.GetReason()), checkStamp("granted_at", e.GetGrantedAt()),
		checkStamp("until", e.GetUntil()), checkKind(e))
}
