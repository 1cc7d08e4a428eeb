package license

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Outcome is the result of a command. Of its fields those that belong to the command are set, or
// Refusal alone.
type Outcome struct {
	// Refusal is set where a rule said no. Sequence and duplicate are the caller's to set.
	Refusal *licensedv1.Refusal
	// License is the licence after a command about one.
	License *licensedv1.License
	// ReleasedTitles are those whose licences DeactivateDevice ended, in alphabetical order. Removal is what it cost
	// and freed; nil if the device was deactivated already, and for outcomes of earlier releases.
	ReleasedTitles []string
	Removal        *licensedv1.Removal
	// StayingDevices are those of SelectDevices, and of ChangePlan if the new plan is exceeded, by id. Binding says
	// that the choice holds now.
	StayingDevices []string
	Binding        bool
	// PlanID, DeviceLimit and PlanChangedAt are those of ChangePlan.
	PlanID        string
	DeviceLimit   uint32
	PlanChangedAt *timestamppb.Timestamp
	// Superseded says that the command meant an earlier licence, activation or plan, and changed nothing.
	Superseded bool
	// Sync is the result of SyncDevice.
	Sync *Sync
	// Allowance is what LendAllowance lent, or what ReturnAllowance returned, without a time.
	Allowance *licensedv1.Allowance
	// Exception is that of GrantException and WithdrawException.
	Exception *licensedv1.Exception
}

// An own codec, since a window has up to 1,024 outcomes: as protobuf messages they made a resident customer with 256
// remembered commands 12,553 B (BenchmarkResidentCustomer), in place of 11,528 B. The bound is 12 KB.
//
// The packed form of an outcome starts with a byte that holds its kind and flags. Numbers are
// varints, times are durations (packDuration) from the time of the events. What the command names is
// not repeated.
const (
	// License: expiry; acquisition unless it is now; renewals; hours after the first playback, if there are any; the
	// rest is the studio.
	outcomeLicense = 1
	// Refusal: rule, limit, current; next_allowed_at if there is one; the rest is the studio or plan.
	outcomeRefusal = 2
	// Titles: what the removal costs, if that is known; for each title the number of bytes it begins with in common
	// with the one before, the number of those that differ, these.
	outcomeTitles = 3
	// Plan: the device limit; when the present plan was chosen unless it is now; where the command was superseded, the
	// rest is the present plan, otherwise the devices that stay, as titles.
	outcomePlan = 4
	// Refusal with all rules: next_allowed_at if there is one, the number of rules, and each of them.
	outcomeBroken = 5
	// Facts: the highest number, how many were recorded, how many of them had no active licence.
	outcomeSync = 6
	// Selection: the devices, as titles.
	outcomeSelection = 7

	// Other: one of the kinds below, which no customer has many of.
	outcomeOther = 0

	outcomeKind = 0x07
	// Of a licence.
	outcomeReleased    = 0x08
	outcomeAcquiredNow = 0x10
	outcomePlayHours   = 0x40
	// Of a plan.
	outcomeChosenBefore = 0x08
	// Of a licence, titles or a plan.
	outcomeSuperseded = 0x20
	// Of a refusal; two bits hold the policy.Counts of the yearly limit.
	outcomeHasNext     = 0x08
	outcomeCountsShift = 4
	outcomeCounts      = 0x30
	// Of a refusal with all rules: behind each rule are the exception that its limit comes from, 0 for none, and the
	// time until which that counts.
	outcomeHasExceptions = 0x10
	// Of both kinds of refusals: labels of devices are behind next_allowed_at, or where that would be.
	outcomeHasLabels = 0x40
	// Of titles.
	outcomeHasRemoval   = 0x08
	outcomeCounted      = 0x10
	outcomeRemovalLimit = 0x40
	// Of a selection.
	outcomeBinding = 0x08
)

// The kinds of other outcomes; the second byte has it.
const (
	// Allowance: its number, 0 or when it ends and 1, its gateway, the rest is the titles.
	otherAllowance = 30
	// Exception: as a message.
	otherException = 18
)

// appendOutcome packs what events say about the command that they came of: 10 to 20 bytes beside
// a studio's or plan's id.
func appendOutcome(b []byte, events []actors.Event) []byte {
	// The first event that says something decides: what precedes it is a part of the same
	// command.
	for i := range events {
		e := &events[i]
		at := e.Time.UnixMilli()
		if occurrenceOf(e.Value).GetNumber() != 0 {
			return appendSync(b, events)
		}
		switch v := e.Value.(type) {
		case *licensedv1.LicenseAcquired:
			return appendLicense(b, at, &licensedv1.LicenseTerms{
				StudioId: v.GetStudioId(), AcquiredAtMs: at, ExpiresAtMs: v.GetExpiresAtMs(),
				PlayHours: v.GetPlayHours(),
			})
		case *licensedv1.LicenseRenewed:
			return appendLicense(b, at, v.GetLicense())
		case *licensedv1.LicenseReleased:
			return appendLicense(b, at, v.GetLicense())
		case *licensedv1.TitleDownloaded:
			return appendLicense(b, at, v.GetLicense())
		case *licensedv1.TitlePlayed:
			return appendLicense(b, at, v.GetLicense())
		case *licensedv1.DeviceDeactivated:
			return appendTitles(b, v.GetRemoval(), events[i+1:])
		case *licensedv1.PlanChanged:
			b = binary.AppendUvarint(append(b, outcomePlan), uint64(v.GetDeviceLimit()))
			return appendAll(b, v.GetStayingDeviceIds())
		case *licensedv1.DevicesSelected:
			return appendSelection(b, v.GetBinding(), v.GetStayingDeviceIds())
		case *licensedv1.ExceptionGranted:
			return appendException(b, v.GetException())
		case *licensedv1.ExceptionWithdrawn:
			return appendException(b, v.GetException())
		case *licensedv1.CommandRefused:
			return appendRefusal(b, at, v)
		case *licensedv1.AllowanceRedeemed:
			return appendLicense(b, at, v.GetLicense())
		case *licensedv1.AllowanceLent:
			return appendAllowance(b, at, allowanceOf(at, v))
		case *licensedv1.AllowanceReturned:
			return appendAllowance(b, at, &licensedv1.Allowance{Number: v.GetNumber(), TitleIds: v.GetTitleIds()})
		case *licensedv1.CommandAccepted:
			return appendAccepted(b, at, v)
		}
	}
	return b
}

// appendException packs an exception.
func appendException(b []byte, e *licensedv1.Exception) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(b, outcomeOther, otherException), e)
	if err != nil {
		panic(fmt.Sprintf("license: exception: %v", err)) // texts were checked to be UTF-8
	}
	return b
}

// readException is the reverse of appendException.
func readException(r *reader) *licensedv1.Exception {
	e := &licensedv1.Exception{}
	if err := proto.Unmarshal(r.take(uint64(r.left())), e); err != nil || checkException(e) != nil {
		r.fail()
	}
	return e
}

// appendAccepted packs the outcome of a command without effect: the same as that of one
// with it.
func appendAccepted(b []byte, at int64, v *licensedv1.CommandAccepted) []byte {
	kind := len(b)
	switch v.GetCommand() {
	case licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE:
		b = appendTitles(b, nil, nil)
	case licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN:
		b = appendPlan(b, at, v)
	case licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE:
		b = Sync{HighestNumber: v.GetHighestNumber()}.append(b)
	case licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES:
		b = appendSelection(b, v.GetBinding(), v.GetStayingDeviceIds())
	case licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE:
		return appendAllowance(b, at, &licensedv1.Allowance{})
	default:
		b = appendLicense(b, at, v.GetLicense())
	}
	if v.GetSuperseded() {
		b[kind] |= outcomeSuperseded
	}
	return b
}

// appendLicense packs the licence as it is after the command.
func appendLicense(b []byte, at int64, l *licensedv1.LicenseTerms) []byte {
	kind := byte(outcomeLicense)
	if l.GetReleased() {
		kind |= outcomeReleased
	}
	// Times are stored as distances to the command's time, most of which are round.
	if l.GetAcquiredAtMs() == at {
		kind |= outcomeAcquiredNow
	}
	if l.GetPlayHours() > 0 {
		kind |= outcomePlayHours
	}
	b = append(b, kind)
	b = binary.AppendUvarint(b, packDuration(l.GetExpiresAtMs()-at))
	if kind&outcomeAcquiredNow == 0 {
		b = binary.AppendUvarint(b, packDuration(l.GetAcquiredAtMs()-at))
	}
	b = binary.AppendUvarint(b, uint64(l.GetRenewals()))
	if l.GetPlayHours() > 0 {
		b = binary.AppendUvarint(b, uint64(l.GetPlayHours()))
	}
	return append(b, l.GetStudioId()...)
}

// appendRefusal packs a refusal with its figures.
func appendRefusal(b []byte, at int64, v *licensedv1.CommandRefused) []byte {
	if len(v.GetBroken()) > 0 {
		return appendBroken(b, at, v)
	}
	kind := byte(outcomeRefusal) | byte(v.GetYearlyCounts())<<outcomeCountsShift&outcomeCounts
	if v.GetNextAllowedAtMs() != 0 {
		kind |= outcomeHasNext
	}
	if len(v.GetDevices()) > 0 {
		kind |= outcomeHasLabels
	}
	b = append(b, kind)
	b = binary.AppendUvarint(b, uint64(v.GetRule()))
	b = binary.AppendUvarint(b, uint64(v.GetLimit()))
	b = binary.AppendUvarint(b, uint64(v.GetCurrent()))
	if v.GetNextAllowedAtMs() != 0 {
		b = binary.AppendUvarint(b, packDuration(v.GetNextAllowedAtMs()-at))
	}
	if len(v.GetDevices()) > 0 {
		b = appendLabels(b, v.GetDevices())
	}
	switch v.GetRule() {
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		b = append(b, v.GetStudioId()...)
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_NO_ALLOWANCES:
		b = append(b, v.GetPlanId()...)
	}
	return b
}

// appendBroken packs a refusal with all its rules. What the event says of the first is repeated there.
func appendBroken(b []byte, at int64, v *licensedv1.CommandRefused) []byte {
	kind := byte(outcomeBroken)
	if v.GetNextAllowedAtMs() != 0 {
		kind |= outcomeHasNext
	}
	excepted := slices.ContainsFunc(v.GetBroken(), func(r *licensedv1.BrokenRule) bool {
		return r.GetExceptionNumber() != 0
	})
	if excepted {
		kind |= outcomeHasExceptions
	}
	if len(v.GetDevices()) > 0 {
		kind |= outcomeHasLabels
	}
	b = append(b, kind)
	if v.GetNextAllowedAtMs() != 0 {
		b = binary.AppendUvarint(b, packDuration(v.GetNextAllowedAtMs()-at))
	}
	if len(v.GetDevices()) > 0 {
		b = appendLabels(b, v.GetDevices())
	}
	b = binary.AppendUvarint(b, uint64(len(v.GetBroken())))
	for _, r := range v.GetBroken() {
		// The numbers of both enumerations are small: those of YearlyCounts have two bits.
		head := uint64(r.GetRule())<<3 | uint64(r.GetYearlyCounts())<<1
		if r.GetNextAllowedAtMs() != 0 {
			head |= 1
		}
		b = binary.AppendUvarint(b, head)
		b = binary.AppendUvarint(b, uint64(r.GetLimit()))
		b = binary.AppendUvarint(b, uint64(r.GetCurrent()))
		if r.GetNextAllowedAtMs() != 0 {
			b = binary.AppendUvarint(b, packDuration(r.GetNextAllowedAtMs()-at))
		}
		b = appendText(b, r.GetPlanId()+r.GetStudioId()) // no rule has both
		b = binary.AppendUvarint(b, uint64(r.GetNeeded()))
		b = binary.AppendUvarint(b, uint64(len(r.GetFreedBy())))
		b = appendAll(b, r.GetFreedBy())
		if hasSelection(r.GetRule()) {
			head := uint64(len(r.GetStayingDeviceIds())) << 1
			if r.GetSelectable() {
				head |= 1
			}
			b = appendAll(binary.AppendUvarint(b, head), r.GetStayingDeviceIds())
		}
		if excepted {
			b = binary.AppendUvarint(b, r.GetExceptionNumber())
			b = binary.AppendUvarint(b, packDuration(r.GetExceptionUntilMs()-at))
		}
	}
	return b
}

// hasSelection reports whether the refusal of a rule names the devices that stay.
func hasSelection(rule licensedv1.Rule) bool {
	return rule == licensedv1.Rule_RULE_DEVICE_NOT_SELECTED || rule == licensedv1.Rule_RULE_SELECTION_MADE
}

// appendAll packs strings, of each what differs from the one before.
func appendAll(b []byte, list []string) []byte {
	former := ""
	for _, s := range list {
		b = appendAfter(b, former, s)
		former = s
	}
	return b
}

// appendSelection packs the devices that stay.
func appendSelection(b []byte, binding bool, devices []string) []byte {
	kind := byte(outcomeSelection)
	if binding {
		kind |= outcomeBinding
	}
	return appendAll(append(b, kind), devices)
}

// appendText packs a string with its length.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendAfter packs what differs in a string from the one before.
func appendAfter(b []byte, former, s string) []byte {
	n := 0
	for n < len(former) && n < len(s) && former[n] == s[n] {
		n++
	}
	return appendText(binary.AppendUvarint(b, uint64(n)), s[n:])
}

// appendTitles packs the titles of released licences. They are sorted, and each has only
// what differs from the one before.
func appendTitles(b []byte, r *licensedv1.Removal, events []actors.Event) []byte {
	b = appendRemoval(b, r)
	former := ""
	for i := range events {
		_, title, ok := strings.Cut(events[i].AggregateID, "/")
		if _, released := events[i].Value.(*licensedv1.LicenseReleased); !released || !ok {
			continue
		}
		b = appendAfter(b, former, title)
		former = title
	}
	return b
}

// appendRemoval packs what a removal costs.
func appendRemoval(b []byte, r *licensedv1.Removal) []byte {
	kind := byte(outcomeTitles)
	if r == nil {
		return append(b, kind)
	}
	if kind |= outcomeHasRemoval; r.GetCounted() {
		kind |= outcomeCounted
	}
	if r.Limit != nil {
		kind |= outcomeRemovalLimit
	}
	b = binary.AppendUvarint(append(b, kind), uint64(r.GetRemovals()))
	if r.Limit != nil {
		b = binary.AppendUvarint(b, uint64(r.GetLimit()))
	}
	b = binary.AppendUvarint(b, uint64(r.GetDevicesInUse()))
	return binary.AppendUvarint(b, uint64(r.GetDeviceLimit()))
}

// readRemoval is the reverse of appendRemoval.
func readRemoval(r *reader, kind byte) *licensedv1.Removal {
	if kind&outcomeHasRemoval == 0 {
		return nil
	}
	out := &licensedv1.Removal{Counted: kind&outcomeCounted != 0, Removals: r.small()}
	if kind&outcomeRemovalLimit != 0 {
		limit := r.small()
		out.Limit = &limit
	}
	out.DevicesInUse, out.DeviceLimit = r.small(), r.small()
	return out
}

// appendPlan packs the plan that stays; its id is in the command, unless that was superseded.
func appendPlan(b []byte, at int64, v *licensedv1.CommandAccepted) []byte {
	b = append(b, outcomePlan)
	kind := len(b) - 1
	b = binary.AppendUvarint(b, uint64(v.GetDeviceLimit()))
	if chosen := v.GetPlanChangedAtMs(); chosen != 0 {
		b[kind] |= outcomeChosenBefore
		b = binary.AppendUvarint(b, packDuration(chosen-at))
	}
	if v.GetSuperseded() {
		b = append(b, v.GetPlanId()...)
	}
	return b
}

// DecodeOutcome returns what Kind.Outcome packed: the outcome of that command of that customer, whose
// events are of the time at (actors.Reply.Time). Errors: persistence.ErrCorrupt.
func DecodeOutcome(customer string, c *licensedv1.Command, at time.Time, outcome []byte) (Outcome, error) {
	o, ok := decodeOutcome(customer, subjectOf(c), at.UnixMilli(), outcome)
	if !ok {
		return Outcome{}, fmt.Errorf("outcome of %v: %w", subjectOf(c).kind, persistence.ErrCorrupt)
	}
	return o, nil
}

// decodeOutcome reads what appendOutcome wrote. It returns false for bytes that no
// release wrote for this command.
func decodeOutcome(customer string, c subject, at int64, outcome []byte) (Outcome, bool) {
	if len(outcome) == 0 {
		return Outcome{}, false
	}
	r := &reader{data: outcome[1:]}
	kind := outcome[0]
	var o Outcome
	switch kind & outcomeKind {
	case outcomeLicense, outcomeTitles, outcomePlan:
		o.Superseded = kind&outcomeSuperseded != 0
	}
	switch kind & outcomeKind {
	case outcomeLicense:
		o.License = readLicense(r, kind, at)
		o.License.CustomerId, o.License.DeviceId, o.License.TitleId = customer, c.device, c.title
		if c.title == "" {
			return Outcome{}, false
		}
	case outcomeRefusal:
		o.Refusal = readRefusal(r, kind, at, c)
	case outcomeBroken:
		o.Refusal = readBroken(r, kind, at, c)
	case outcomeTitles:
		o.Removal = readRemoval(r, kind)
		o.ReleasedTitles = readAll(r)
		r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE
	case outcomePlan:
		readPlan(r, kind, at, c, &o)
		r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN
	case outcomeSync:
		o.Sync = &Sync{HighestNumber: r.uvarint(), Recorded: r.small(), Unlicensed: r.small()}
		r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE
	case outcomeSelection:
		o.StayingDevices, o.Binding = readAll(r), kind&outcomeBinding != 0
		r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES
	case outcomeOther:
		switch r.uvarint() {
		case otherAllowance:
			o.Allowance = readAllowance(r, at, c)
		case otherException:
			o.Exception = readException(r)
			r.bad = r.bad || c.kind != licensedv1.CommandKind_COMMAND_KIND_GRANT_EXCEPTION &&
				c.kind != licensedv1.CommandKind_COMMAND_KIND_WITHDRAW_EXCEPTION
		default:
			return Outcome{}, false
		}
	default:
		return Outcome{}, false
	}
	return o, !r.bad && r.left() == 0
}

// readLicense is the reverse of appendLicense.
func readLicense(r *reader, kind byte, at int64) *licensedv1.License {
	l := &licensedv1.License{AcquiredAt: timestamp(at), Released: kind&outcomeReleased != 0}
	l.ExpiresAt = r.timestamp(at)
	if kind&outcomeAcquiredNow == 0 {
		l.AcquiredAt = r.timestamp(at)
	}
	l.Renewals = r.small()
	if kind&outcomePlayHours != 0 {
		l.PlayHours = optionalHours(r.small())
	}
	l.StudioId = r.rest()
	return l
}

// readPlan is the reverse of appendPlan, and reads what PlanChanged resulted in.
func readPlan(r *reader, kind byte, at int64, c subject, o *Outcome) {
	o.PlanID, o.DeviceLimit, o.PlanChangedAt = c.plan, r.small(), timestamp(at)
	if kind&outcomeChosenBefore != 0 {
		o.PlanChangedAt = r.timestamp(at)
	}
	if o.Superseded {
		o.PlanID = r.rest()
		return
	}
	o.StayingDevices = readAll(r)
	o.Binding = len(o.StayingDevices) > 0
}

// readRefusal is the reverse of appendRefusal.
func readRefusal(r *reader, kind byte, at int64, c subject) *licensedv1.Refusal {
	e := &licensedv1.CommandRefused{
		Command: c.kind, DeviceId: c.device, TitleId: c.title, PlanId: c.plan, StudioId: c.studio,
		ExceptionNumber: c.exception,
		Rule:            licensedv1.Rule(r.index(1 << 16)), Limit: r.small(), Current: r.small(),
		YearlyCounts: licensedv1.YearlyCounts(kind & outcomeCounts >> outcomeCountsShift),
	}
	if kind&outcomeHasNext != 0 {
		e.NextAllowedAtMs = r.millis(at)
	}
	if kind&outcomeHasLabels != 0 {
		e.Devices = readLabels(r)
	}
	switch e.Rule {
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		e.StudioId = r.rest()
	case licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_NO_ALLOWANCES:
		e.PlanId = r.rest()
	}
	return RefusalOf(e)
}

// maxBroken is more than the number of rules that a command can violate.
const maxBroken = 32

// readBroken is the reverse of appendBroken.
func readBroken(r *reader, kind byte, at int64, c subject) *licensedv1.Refusal {
	e := &licensedv1.CommandRefused{
		Command: c.kind, DeviceId: c.device, TitleId: c.title, PlanId: c.plan, StudioId: c.studio,
		ExceptionNumber: c.exception,
	}
	if kind&outcomeHasNext != 0 {
		e.NextAllowedAtMs = r.millis(at)
	}
	if kind&outcomeHasLabels != 0 {
		e.Devices = readLabels(r)
	}
	for range r.index(maxBroken) {
		head := r.index(1 << 16)
		b := &licensedv1.BrokenRule{
			Rule: licensedv1.Rule(head >> 3), YearlyCounts: licensedv1.YearlyCounts(head >> 1 & 3),
			Limit: r.small(), Current: r.small(),
		}
		if head&1 != 0 {
			b.NextAllowedAtMs = r.millis(at)
		}
		name := string(r.take(r.uvarint()))
		r.bad = r.bad || !utf8.ValidString(name)
		switch b.Rule {
		case licensedv1.Rule_RULE_STUDIO_LIMIT:
			b.StudioId = name
		default:
			b.PlanId = name
		}
		b.Needed = r.small()
		b.FreedBy = readSome(r, int(r.index(maxFreedBy+1)))
		if hasSelection(b.Rule) {
			head := r.index(2*maxFreedBy + 2)
			b.Selectable, b.StayingDeviceIds = head&1 != 0, readSome(r, int(head>>1))
		}
		if kind&outcomeHasExceptions != 0 {
			b.ExceptionNumber, b.ExceptionUntilMs = r.uvarint(), r.millis(at)
		}
		e.Broken = append(e.Broken, b)
	}
	if len(e.Broken) == 0 {
		r.fail()
		return nil
	}
	e.Rule, e.Limit, e.Current = e.Broken[0].Rule, e.Broken[0].Limit, e.Broken[0].Current
	return RefusalOf(e)
}

// readSome reads this many strings that appendAll wrote.
func readSome(r *reader, n int) (list []string) {
	former := ""
	for range n {
		former = r.after(former)
		list = append(list, former)
	}
	return list
}

// readAll reads the strings that appendAll wrote up to the end.
func readAll(r *reader) (list []string) {
	former := ""
	for r.left() > 0 {
		former = r.after(former)
		list = append(list, former)
	}
	return list
}

// after reads the string that appendAfter wrote.
func (r *reader) after(former string) string {
	n, rest := r.uvarint(), r.take(r.uvarint())
	if r.bad || n > uint64(len(former)) {
		r.fail()
		return ""
	}
	s := former[:n] + string(rest)
	r.bad = r.bad || !utf8.ValidString(s)
	return s
}

// millis takes a duration from at.
func (r *reader) millis(at int64) int64 {
	ms := at + unpackDuration(r.uvarint())
	if ms < -maxTime || ms > maxTime {
		r.bad = true
		return 0
	}
	return ms
}

// timestamp takes a duration from at as a message.
func (r *reader) timestamp(at int64) *timestamppb.Timestamp { return timestamp(r.millis(at)) }

// rest takes all that is left as a name.
func (r *reader) rest() string {
	s := string(r.take(uint64(r.left())))
	r.bad = r.bad || !utf8.ValidString(s)
	return s
}

// optionalTime returns Unix milliseconds as a message; nil for 0.
func optionalTime(ms int64) *timestamppb.Timestamp {
	if ms == 0 {
		return nil
	}
	return timestamp(ms)
}

// timestamp returns Unix milliseconds as a message.
func timestamp(ms int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(ms)) }

// subject is what a command names.
type subject struct {
	kind                        licensedv1.CommandKind
	device, title, plan, studio string
	exception                   uint64
}

// subjectOf returns the kind and the ids of a command.
func subjectOf(c *licensedv1.Command) subject {
	switch c := c.GetCommand().(type) {
	case *licensedv1.Command_AcquireLicense:
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE,
			device: c.AcquireLicense.GetDeviceId(), title: c.AcquireLicense.GetTitleId(),
		}
	case *licensedv1.Command_RenewLicense:
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE,
			device: c.RenewLicense.GetDeviceId(), title: c.RenewLicense.GetTitleId(),
		}
	case *licensedv1.Command_ReleaseLicense:
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE,
			device: c.ReleaseLicense.GetDeviceId(), title: c.ReleaseLicense.GetTitleId(),
		}
	case *licensedv1.Command_RecordPlayback:
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK,
			device: c.RecordPlayback.GetDeviceId(), title: c.RecordPlayback.GetTitleId(),
		}
	case *licensedv1.Command_DeactivateDevice:
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE,
			device: c.DeactivateDevice.GetDeviceId(),
		}
	case *licensedv1.Command_ChangePlan:
		return subject{kind: licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN, plan: c.ChangePlan.GetPlanId()}
	case *licensedv1.Command_SyncDevice:
		return subject{
			kind: licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE, device: c.SyncDevice.GetDeviceId(),
		}
	case *licensedv1.Command_SelectDevices:
		return subject{kind: licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES}
	case *licensedv1.Command_LendAllowance:
		return subject{
			kind: licensedv1.CommandKind_COMMAND_KIND_LEND_ALLOWANCE, device: c.LendAllowance.GetDeviceId(),
		}
	case *licensedv1.Command_ReturnAllowance:
		return subject{
			kind: licensedv1.CommandKind_COMMAND_KIND_RETURN_ALLOWANCE, device: c.ReturnAllowance.GetDeviceId(),
		}
	case *licensedv1.Command_GrantException:
		g := c.GrantException
		return subject{
			kind:   licensedv1.CommandKind_COMMAND_KIND_GRANT_EXCEPTION,
			device: g.GetUse().GetDeviceId() + g.GetMerge().GetOldDeviceId(),
			title:  g.GetUse().GetTitleId() + g.GetLimit().GetTitleId(), studio: g.GetLimit().GetStudioId(),
		}
	case *licensedv1.Command_WithdrawException:
		return subject{
			kind: licensedv1.CommandKind_COMMAND_KIND_WITHDRAW_EXCEPTION, exception: c.WithdrawException.GetNumber(),
		}
	default:
		return subject{}
	}
}

// reason returns in one sentence why a rule refused a command, for people. Programs go by the rule and the figures.
func reason(e *licensedv1.CommandRefused, b *licensedv1.BrokenRule) string {
	device, title := licensedv1.DeviceWords(e.GetDevices(), e.GetDeviceId()), e.GetTitleId()
	limit, current := fmt.Sprint(b.GetLimit()), b.GetCurrent()
	if b.GetExceptionNumber() != 0 {
		limit = fmt.Sprintf("%d by exception %d until %s", b.GetLimit(), b.GetExceptionNumber(),
			instant(b.GetExceptionUntilMs()))
	}
	switch b.GetRule() {
	case licensedv1.Rule_RULE_DEVICE_NOT_SELECTED:
		why := fmt.Sprintf("%s active licences, the limit of plan %s is %s; the devices that stay: %s",
			count(current, "device has", "devices have"), b.GetPlanId(), limit, stayingWords(e, b))
		if b.GetSelectable() {
			why += " (SelectDevices can choose others)"
		}
		return why
	case licensedv1.Rule_RULE_SELECTION_MADE:
		return fmt.Sprintf("%s were chosen to stay in plan %s; the choice can be made again after a change of plan, "+
			"or when one of them is deactivated", stayingWords(e, b), b.GetPlanId())
	case licensedv1.Rule_RULE_DEVICE_LIMIT:
		if e.GetCommand() == licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES {
			return fmt.Sprintf("%s selected, the limit of plan %s is %s", count(current, "device", "devices"),
				b.GetPlanId(), limit)
		}
		return fmt.Sprintf("%s active licences, the limit of plan %s is %s",
			count(current, "device has", "devices have"), b.GetPlanId(), limit)
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		return fmt.Sprintf("%s of studio %s, the limit is %s",
			count(current, "active licence", "active licences"), b.GetStudioId(), limit)
	case licensedv1.Rule_RULE_YEARLY_LIMIT:
		return fmt.Sprintf("%s of title %s in the last 365 days, the limit is %s", uses(b), title, limit)
	case licensedv1.Rule_RULE_PLAYED:
		ago := count(current, "hour", "hours")
		if current == 0 {
			ago = "less than an hour"
		}
		return fmt.Sprintf("the licence of device %s for title %s was first played %s ago and is not renewed after "+
			"that; the title can be acquired again when the licence has ended", device, title, ago)
	case licensedv1.Rule_RULE_DEVICE_TITLES:
		return fmt.Sprintf("%s on device %s, the limit of plan %s is %s",
			count(current, "active licence", "active licences"), device, b.GetPlanId(), limit)
	case licensedv1.Rule_RULE_MONTHLY_LIMIT:
		return fmt.Sprintf("%s in the last 30 days, the limit of plan %s is %s",
			count(current, "download", "downloads"), b.GetPlanId(), limit)
	case licensedv1.Rule_RULE_DEACTIVATION_LIMIT:
		return fmt.Sprintf("%s in the last 365 days, the limit is %s",
			count(current, "device was deactivated", "devices were deactivated"), limit)
	case licensedv1.Rule_RULE_REMEMBERED_LIMIT:
		what := count(current, "licence is", "licences are")
		if b.GetYearlyCounts() != 0 {
			what = count(current, "download or playback is", "downloads and playbacks are")
		}
		return fmt.Sprintf("%s remembered for the customer, the limit is %s", what, limit)
	case licensedv1.Rule_RULE_NO_LICENSE:
		return fmt.Sprintf("device %s has no licence for title %s", device, title)
	case licensedv1.Rule_RULE_RELEASED:
		return fmt.Sprintf("the licence of device %s for title %s is released", device, title)
	case licensedv1.Rule_RULE_NOT_ACTIVE:
		return fmt.Sprintf("the licence of device %s for title %s has expired", device, title)
	case licensedv1.Rule_RULE_DEVICE_DEACTIVATED:
		if device == "" {
			return "one of the devices is deactivated"
		}
		return fmt.Sprintf("device %s is deactivated", device)
	case licensedv1.Rule_RULE_UNKNOWN_DEVICE:
		if device == "" {
			return "one of the devices is unknown"
		}
		return fmt.Sprintf("device %s is unknown", device)
	case licensedv1.Rule_RULE_UNKNOWN_PLAN:
		return fmt.Sprintf("plan %s is unknown", e.GetPlanId())
	case licensedv1.Rule_RULE_TITLE_UNAVAILABLE:
		return fmt.Sprintf("title %s is no longer available", title)
	case licensedv1.Rule_RULE_NO_ALLOWANCES:
		return fmt.Sprintf("plan %s lends no allowances", b.GetPlanId())
	case licensedv1.Rule_RULE_ALLOWANCE_LIMIT:
		return fmt.Sprintf("%s lent, the limit of plan %s is %s",
			count(current, "allowance or download is", "allowances or downloads are"), b.GetPlanId(), limit)
	case licensedv1.Rule_RULE_ALLOWANCE_ENDED:
		return fmt.Sprintf("title %s is not lent to device %s, or was downloaded or returned already", title, device)
	case licensedv1.Rule_RULE_UNKNOWN_TITLE:
		return fmt.Sprintf("title %s is unknown: "+
			"the catalogue does not list it, and the customer has no licence for it", title)
	case licensedv1.Rule_RULE_UNKNOWN_STUDIO:
		return fmt.Sprintf("studio %s is unknown: the policy does not name it, and the customer has no licence of it",
			e.GetStudioId())
	case licensedv1.Rule_RULE_UNKNOWN_EXCEPTION:
		return fmt.Sprintf("the customer has no exception %d, or it does not count any more", e.GetExceptionNumber())
	case licensedv1.Rule_RULE_NOTHING_TO_FORGIVE:
		switch {
		case title == "":
			return "no such removal of a device counts"
		case device == "":
			return fmt.Sprintf("no such download or playback of title %s counts", title)
		}
		return fmt.Sprintf("no such download or playback of title %s on device %s counts", title, device)
	case licensedv1.Rule_RULE_DATE_PASSED:
		return "the date until which the limit is to hold has passed"
	case licensedv1.Rule_RULE_EXCEPTION_LIMIT:
		return fmt.Sprintf("%s, the limit is %s; withdraw one first", count(current, "exception counts",
			"exceptions count"), limit)
	case licensedv1.Rule_RULE_MERGE_IS_FINAL:
		if e.GetCommand() == licensedv1.CommandKind_COMMAND_KIND_GRANT_EXCEPTION {
			return fmt.Sprintf("device %s was merged into another already, which has its licences; merge that one",
				device)
		}
		return fmt.Sprintf("exception %d merged a device, which cannot be withdrawn; "+
			"the licences can be moved to another device by another merge", e.GetExceptionNumber())
	default:
		return fmt.Sprintf("refused by rule %v", b.GetRule())
	}
}

// stayingWords names the devices that stay.
func stayingWords(e *licensedv1.CommandRefused, b *licensedv1.BrokenRule) string {
	if len(b.GetStayingDeviceIds()) == 0 {
		return "others"
	}
	return strings.Join(allWords(e, b.GetStayingDeviceIds()), ", ")
}

// count returns a number with its noun.
func count(n uint32, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
