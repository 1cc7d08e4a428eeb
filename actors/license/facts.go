package license

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license/ids"
	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// Facts are what devices report later. Each is judged as of the time at which it occurred, counts from its recording
// on, and undoes nothing that was decided before. A device numbers its facts; the state has the highest number of each
// device, so that a fact which is reported again changes nothing.

const (
	// MaxFacts is the number of facts in one command.
	MaxFacts = 500
	// MaxNumber is the largest number of a fact: JSON clients read it as it is.
	MaxNumber = 1 << 52
)

const (
	// maxAhead is how far a device's clock may be ahead of the server's before its times are corrected.
	maxAhead = int64(5 * time.Minute / time.Millisecond)
	// maxSpans is the number of earlier times of being active that a licence keeps. If there are more, the oldest two
	// become one, which includes the time between them: in doubt a licence was active.
	maxSpans = 8
	// maxStrangers is the number of devices that are kept although they never had a licence. Facts of further ones are
	// recorded, and recorded again if they are reported again; they count nowhere in any case.
	maxStrangers = 32
)

// Verdicts by short names.
const (
	licensed      = licensedv1.FactVerdict_FACT_VERDICT_UNSPECIFIED
	unlicensed    = licensedv1.FactVerdict_FACT_VERDICT_UNLICENSED
	tooOld        = licensedv1.FactVerdict_FACT_VERDICT_TOO_OLD
	notRemembered = licensedv1.FactVerdict_FACT_VERDICT_NOT_REMEMBERED
)

// span is a time during which a licence was active, without its end.
type span struct{ from, to int64 }

// intent is when something was recorded, and when the client meant it: the issue time of the command, or the time of
// recording if the client did not say. Commands of one client are compared by the latter, which is by one clock.
type intent struct{ at, meant int64 }

// intentOf returns the intent of an event with an issue time, 0 for none.
func intentOf(at, issued int64) intent {
	if !isTime(issued) || issued == 0 {
		issued = at
	}
	return intent{at, issued}
}

// pack returns the intent for a snapshot of a state whose last event is at last.
func (i intent) pack(last int64) (ago, after *int64) {
	if i.at == 0 {
		return nil, nil
	}
	if i.meant != i.at {
		after = proto.Int64(i.meant - i.at)
	}
	return proto.Int64(last - i.at), after
}

// unpackIntent is the reverse of pack.
func unpackIntent(last int64, ago, after *int64) (i intent) {
	if ago == nil {
		return i
	}
	i.at = last - *ago
	i.meant = i.at
	if after != nil {
		i.meant += *after
	}
	return i
}

// valid reports whether the times can be reckoned with.
func (i intent) valid() bool { return isTime(i.at) && isTime(i.meant) }

// begin says at a time that the licence is active from at on, after it was not.
func (l *license) begin(at, now int64) {
	if to := min(l.end(), at); to > l.since {
		l.spans = append(l.spans, span{l.since, to})
	}
	// Dropped as a snapshot would have dropped them: the same remain whether or not there was one.
	l.forgetSpans(now)
	if len(l.spans) > maxSpans {
		l.spans[1].from = l.spans[0].from
		l.spans = l.spans[1:]
	}
	l.since = at
}

// forgetSpans drops the times of being active that no fact is judged by any more.
func (l *license) forgetSpans(now int64) {
	for len(l.spans) > 0 && l.spans[0].to <= now-window {
		l.spans = l.spans[1:]
	}
}

// activeAt reports whether the licence was active at a time within the window.
func (l *license) activeAt(at int64) bool {
	if at >= l.since {
		return at < l.end()
	}
	for _, s := range l.spans {
		if at >= s.from && at < s.to {
			return true
		}
	}
	return false
}

// confirm says that a command which acquires the licence found it active.
func (l *license) confirm(at, issued int64) { l.meant = max(l.meant, intentOf(at, issued).meant) }

// packSpans puts when the licence was active into a snapshot.
func (l *license) packSpans(to *licensedv1.LicenseSnapshot_License) {
	if l.meant != l.acquired {
		to.IssuedAfterMs = proto.Int64(l.meant - l.acquired)
	}
	to.SinceAfterMs = l.since - l.acquired
	if len(l.spans) > 0 {
		to.SpansMs = make([]int64, 0, 2*len(l.spans))
	}
	for _, s := range l.spans {
		to.SpansMs = append(to.SpansMs, l.acquired-s.from, s.to-s.from)
	}
}

// unpackSpans is the reverse of packSpans. It returns false for what packSpans never writes.
func (l *license) unpackSpans(from *licensedv1.LicenseSnapshot_License) bool {
	l.meant, l.since = l.acquired, l.acquired+from.SinceAfterMs
	if from.IssuedAfterMs != nil {
		l.meant += *from.IssuedAfterMs
	}
	valid := isTime(l.meant) && isTime(l.since) && len(from.SpansMs) <= 2*maxSpans && len(from.SpansMs)%2 == 0
	for i := 1; valid && i < len(from.SpansMs); i += 2 {
		s := span{from: l.acquired - from.SpansMs[i-1]}
		s.to = s.from + from.SpansMs[i]
		l.spans = append(l.spans, s)
		valid = isTime(s.from) && isTime(s.to)
	}
	return valid
}

// occurrenceOf returns the occurrence of an event that was reported later, or nil.
func occurrenceOf(event any) *licensedv1.Occurrence {
	switch v := event.(type) {
	case *licensedv1.TitleDownloaded:
		return v.GetOccurrence()
	case *licensedv1.TitlePlayed:
		return v.GetOccurrence()
	case *licensedv1.TitleDeleted:
		return v.GetOccurrence()
	default:
		return nil
	}
}

// OccurredAt returns when what an event tells occurred: at the time of its recording, unless it was reported later.
func OccurredAt(e actors.Event) time.Time {
	if o := occurrenceOf(e.Value); o != nil {
		return time.UnixMilli(o.GetOccurredAtMs()).UTC()
	}
	if v, ok := e.Value.(*licensedv1.AllowanceRedeemed); ok {
		return time.UnixMilli(v.GetRedeemedAtMs()).UTC()
	}
	return e.Time
}

// IsFact reports whether an event was reported later.
func IsFact(e actors.Event) bool { return occurrenceOf(e.Value) != nil }

// MayBeFact reports whether events of a mapper may have been reported later.
func MayBeFact(mapper string) bool {
	return strings.HasPrefix(mapper, "TitleDownloaded/") || strings.HasPrefix(mapper, "TitlePlayed/") ||
		strings.HasPrefix(mapper, "TitleDeleted/")
}

// ApplyLate applies an event that was recorded after a time to an aggregate as of that time, if what it tells had
// occurred by then, and reports whether it had. A deletion ends the licence at its time.
func ApplyLate(a actors.Aggregate, e actors.Event, asOf time.Time) bool {
	o, own := occurrenceOf(e.Value), a.(*aggregate)
	if o == nil || o.GetOccurredAtMs() > asOf.UnixMilli() {
		return false
	}
	own.state.occurred(e, o, asOf.UnixMilli())
	return true
}

// TitleOfFact returns the title of a fact about a device that has no licence for it, whose aggregate id does not name
// the title; "" for other events.
func TitleOfFact(event any) string { return occurrenceOf(event).GetTitleId() }

// confirm applies a command that changed nothing: what it wanted was wanted until then.
func (s *State) confirm(v *licensedv1.CommandAccepted, at int64) {
	if v.GetSuperseded() {
		return
	}
	switch v.GetCommand() {
	case licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:
		if i := s.license(s.device(v.GetDeviceId()), s.title(v.GetTitleId())); i >= 0 {
			s.licenses[i].confirm(at, v.GetIssuedAtMs())
		}
	case licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN:
		if v.GetPlanId() == s.plan {
			s.choice.meant = max(s.choice.meant, intentOf(at, v.GetIssuedAtMs()).meant)
		}
	}
}

// evolveFact applies an event that was reported later.
func (s *State) evolveFact(e actors.Event, o *licensedv1.Occurrence, at int64) {
	deviceID, titleID, ofLicense := strings.Cut(e.AggregateID, "/")
	occurred := min(o.GetOccurredAtMs(), at)
	// A device that was merged keeps the numbers of its facts.
	d := s.report(cmp.Or(o.GetReportedBy(), deviceID), at)
	if d == nil {
		return
	}
	// A report is no use of the device: what it reports is.
	d.seen, d.synced = max(d.seen, occurred), max(d.synced, o.GetNumber())
	if !ofLicense {
		d.order = e.Order + 1
		return
	}
	l := s.hold(deviceID, titleID)
	l.order = e.Order + 1
	d = &s.devices[l.device]
	d.seen = max(d.seen, occurred)
	if v, ok := e.Value.(*licensedv1.TitlePlayed); ok && v.GetStartsHours() {
		l.play(occurred)
	}
	if o.GetVerdict() != licensed {
		return
	}
	if planted.Bug(planted.MonthByRecording) {
		occurred = at
	}
	switch v := e.Value.(type) {
	case *licensedv1.TitleDownloaded:
		l.use(newUse(occurred, false))
		d.downloaded = max(d.downloaded, occurred)
	case *licensedv1.TitlePlayed:
		if v.GetCounted() {
			l.use(newUse(occurred, true))
		}
	}
}

// report returns the device that reports something, nil for a stranger that is not kept. A device that never had a
// licence is not active.
func (s *State) report(id string, at int64) *device {
	i := s.device(id)
	if i >= 0 && !s.forgottenDevice(i, at) {
		return &s.devices[i]
	}
	strangers := 0
	for j := range s.devices {
		if d := &s.devices[j]; d.deactivated && d.activation.at == 0 && !s.forgottenDevice(j, at) {
			strangers++
		}
	}
	if strangers >= maxStrangers {
		return nil
	}
	if i < 0 {
		i = len(s.devices)
		s.devices = append(s.devices, device{})
	}
	s.devices[i] = device{id: id, deactivated: true}
	return &s.devices[i]
}

// issueTime returns when the client issued a command, 0 if the client did not say.
func issueTime(c *licensedv1.Command) int64 {
	if issued := c.GetIssuedAtMs(); issued != 0 {
		return max(1, min(issued, maxTime)) // before 1970 is before everything
	}
	return 0
}

// outdated reports whether a command means an earlier choice than the present one: another than the one that it names,
// or, if it names none, one from before the command that chose the present one.
func (d *decider) outdated(present intent, named int64) bool {
	switch {
	case present.at == 0: // none, or unknown
		return false
	case named != 0:
		return named != present.at
	default:
		return d.issued != 0 && d.issued < present.meant
	}
}

// superseded records a command that means an earlier licence than the present one, and reports whether it does.
func (d *decider) superseded(kind licensedv1.CommandKind, t target, acquired int64) bool {
	l := d.license(t)
	if l == nil || !d.outdated(intent{l.acquired, l.meant}, acquired) {
		return false
	}
	d.add(customer, d.state.order, &licensedv1.CommandAccepted{
		Command: kind, DeviceId: t.deviceID, TitleId: t.titleID, License: d.terms(l), Superseded: true,
	})
	return true
}

// occurrence returns when something occurred that a device's clock dates. sent is when the device sent it by that
// clock, 0 if that is unknown, and received when the service received it. byDevice is the time to compare with the
// issue times of the device's commands, which may be a little ahead.
func occurrence(deviceTime, sent, received int64) (o *licensedv1.Occurrence, byDevice int64) {
	byDevice = deviceTime
	if ahead := sent - received; sent != 0 && ahead > maxAhead {
		byDevice -= ahead
	}
	byDevice = max(0, min(byDevice, received+maxAhead))
	o = &licensedv1.Occurrence{OccurredAtMs: min(byDevice, received)}
	if o.OccurredAtMs != deviceTime {
		o.DeviceTimeMs = deviceTime
	}
	return o, byDevice
}

// judge says whether a licence was active when something occurred.
func (d *decider) judge(l *license, at int64) licensedv1.FactVerdict {
	switch {
	case at <= d.now-window:
		return tooOld
	case l == nil || !l.activeAt(at):
		return unlicensed
	default:
		return licensed
	}
}

// room returns the number of further downloads and counted playbacks that are remembered; the result is at most atMost.
func (d *decider) room(atMost int) int {
	limit := int(d.policy.Remembered()) * policy.RememberedUses
	if d.state.uses()+d.state.units()+atMost <= limit {
		return atMost
	}
	return max(0, min(atMost, limit-len(d.useTimes())))
}

// playedBefore decides RecordPlayback of a playback that is reported later. No limit refuses it: it happened.
func (d *decider) playedBefore(t target, c *licensedv1.RecordPlayback) {
	l := d.license(t)
	o, _ := occurrence(c.GetPlayedAtMs(), c.GetSentAtMs(), d.now)
	o.Verdict = d.judge(l, o.OccurredAtMs)
	if l == nil || o.Verdict == unlicensed {
		rule := licensedv1.Rule_RULE_NOT_ACTIVE
		switch {
		case l == nil:
			rule = licensedv1.Rule_RULE_NO_LICENSE
		case l.released != 0 && o.OccurredAtMs >= l.released:
			rule = licensedv1.Rule_RULE_RELEASED
		}
		d.refuse(refusedBy(rule), &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK, DeviceId: t.deviceID, TitleId: t.titleID,
		}, nil)
		return
	}
	counts := o.Verdict == licensed && d.countsPlays(t.titleID)
	if counts && d.room(1) == 0 {
		counts, o.Verdict = false, notRemembered
	}
	l, starts := d.startHours(l, o)
	d.add(t.aggregateID(), l.order, &licensedv1.TitlePlayed{
		License: d.terms(l), Counted: counts, Occurrence: o, StartsHours: starts,
	})
}

// startHours returns the licence as it is after a playback that is reported later, and whether the playback begins its
// hours.
func (d *decider) startHours(l *license, o *licensedv1.Occurrence) (*license, bool) {
	was := o.GetVerdict() == licensed || o.GetVerdict() == notRemembered
	if l == nil || !was || !d.startsHours(l, o.GetOccurredAtMs()) {
		return l, false
	}
	after := *l
	after.play(o.GetOccurredAtMs())
	return &after, true
}

// sync decides SyncDevice.
func (d *decider) sync(c *licensedv1.SyncDevice) {
	mustBeID("device", c.GetDeviceId())
	r := reporter{decider: d, device: c.GetDeviceId(), sent: c.GetSentAtMs(), orders: map[string]uint64{}}
	r.received = d.now
	if at := c.GetReceivedAtMs(); at != 0 {
		r.received = min(at, d.now)
	}
	r.owner = d.state.mergedInto(r.device, d.now)
	if i := d.device(r.device); i >= 0 {
		r.highest, r.orders[r.device] = d.state.devices[i].synced, d.state.devices[i].order
	}
	if c.GetAfterNumber() <= r.highest {
		facts := slices.Clone(c.GetFacts())
		slices.SortStableFunc(facts, func(a, b *licensedv1.SyncDevice_Fact) int {
			return cmp.Compare(a.GetNumber(), b.GetNumber())
		})
		r.room = d.room(len(facts))
		for _, f := range facts {
			if f.GetNumber() > r.highest || planted.Bug(planted.CountRepeatedFact) {
				r.record(f)
			}
		}
	}
	if len(d.decision.Events) == 0 {
		d.add(customer, d.state.order, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE, DeviceId: r.device, HighestNumber: r.highest,
		})
	}
}

// reporter records the facts of one command.
type reporter struct {
	*decider
	device   string
	owner    string // the device that has its licences: another one if it was merged
	sent     int64
	received int64 // when the service received the command, before now if it was deferred
	highest  uint64
	room     int                 // how many more uses are remembered
	orders   map[string]uint64   // the next order number by aggregate id, for those that have events
	played   map[string]*license // by aggregate id: licences whose hours a fact of the command began, as they are then
	released map[string]bool     // aggregate ids of the licences that ended
}

// record records one fact.
func (r *reporter) record(f *licensedv1.SyncDevice_Fact) {
	t := r.target(r.owner, f.GetTitleId())
	l := r.license(t)
	if p := r.played[t.aggregateID()]; p != nil {
		l = p
	}
	o, byDevice := occurrence(f.GetAtMs(), r.sent, r.received)
	o.Number, r.highest = f.GetNumber(), f.GetNumber()
	o.Verdict = r.judge(l, o.OccurredAtMs)
	id := t.aggregateID()
	if l == nil {
		id, o.TitleId = r.device, t.titleID
	} else {
		if _, ok := r.orders[id]; !ok {
			r.orders[id] = l.order
		}
		if r.owner != r.device {
			o.ReportedBy = r.device
		}
	}
	switch f.GetKind() {
	case licensedv1.FactKind_FACT_KIND_DOWNLOADED:
		r.count(o)
		r.next(id, &licensedv1.TitleDownloaded{Occurrence: o})
	case licensedv1.FactKind_FACT_KIND_PLAYED:
		counts := o.Verdict == licensed && r.countsPlays(t.titleID) && r.count(o)
		after, starts := l, false
		if !r.released[id] {
			after, starts = r.startHours(l, o)
		}
		if starts {
			if r.played == nil {
				r.played = map[string]*license{}
			}
			r.played[id] = after
		}
		r.next(id, &licensedv1.TitlePlayed{Counted: counts, Occurrence: o, StartsHours: starts})
	case licensedv1.FactKind_FACT_KIND_DELETED:
		r.next(id, &licensedv1.TitleDeleted{Occurrence: o})
		r.end(id, l, byDevice)
	default:
		panic(fmt.Sprintf("license: no fact, but %v", f))
	}
}

// next appends an event with its order number.
func (r *reporter) next(id string, event proto.Message) {
	r.add(id, r.orders[id], event)
	r.orders[id]++
}

// count reports whether a download or playback counts, and says in the occurrence why not.
func (r *reporter) count(o *licensedv1.Occurrence) bool {
	if o.Verdict != licensed {
		return false
	}
	if r.room == 0 {
		o.Verdict = notRemembered
		return false
	}
	r.room--
	return true
}

// end releases the licence of a deleted title, unless it was acquired later.
func (r *reporter) end(id string, l *license, deleted int64) {
	if l == nil || l.released != 0 || deleted < l.meant || r.released[id] {
		return
	}
	if r.released == nil {
		r.released = map[string]bool{}
	}
	r.released[id] = true
	terms := r.terms(l)
	terms.Released = true
	r.decision.Frees = true
	r.next(id, &licensedv1.LicenseReleased{License: terms})
}

// Sync is the result of SyncDevice.
type Sync struct {
	// HighestNumber is the highest number that is recorded for the device.
	HighestNumber uint64
	// Recorded is the number of facts that the command recorded, and Unlicensed of those among them that occurred
	// without an active licence.
	Recorded, Unlicensed uint32
}

// append packs the result.
func (s Sync) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, outcomeSync), s.HighestNumber)
	b = binary.AppendUvarint(b, uint64(s.Recorded))
	return binary.AppendUvarint(b, uint64(s.Unlicensed))
}

// appendSync packs what the events of facts say about their command.
func appendSync(b []byte, events []actors.Event) []byte {
	var s Sync
	for i := range events {
		o := occurrenceOf(events[i].Value)
		if o == nil {
			continue // the release that a deletion resulted in
		}
		s.HighestNumber = max(s.HighestNumber, o.GetNumber())
		s.Recorded++
		if o.GetVerdict() == unlicensed {
			s.Unlicensed++
		}
	}
	return s.append(b)
}

// checkSync says what is wrong with a command.
func checkSync(c *licensedv1.SyncDevice) error {
	if err := named("device id", c.GetDeviceId(), ids.MaxBytes); err != nil {
		return err
	}
	if n := len(c.GetFacts()); n > MaxFacts {
		return fmt.Errorf("%d facts, the limit is %d", n, MaxFacts)
	}
	for _, f := range c.GetFacts() {
		_, known := licensedv1.FactKind_name[int32(f.GetKind())]
		switch {
		case f.GetNumber() == 0 || f.GetNumber() > MaxNumber:
			return fmt.Errorf("fact number %d is not between 1 and %d", f.GetNumber(), uint64(MaxNumber))
		case !known || f.GetKind() == licensedv1.FactKind_FACT_KIND_UNSPECIFIED:
			return fmt.Errorf("fact %d has the unknown kind %d", f.GetNumber(), f.GetKind())
		}
		if err := first(named("title id", f.GetTitleId(), ids.MaxBytes), checkTime("fact", f.GetAtMs())); err != nil {
			return err
		}
	}
	return first(checkTime("send time", c.GetSentAtMs()), checkTime("receive time", c.GetReceivedAtMs()))
}

// checkOccurrence checks the occurrence in an event, which may lack one.
func checkOccurrence(o *licensedv1.Occurrence) error {
	if o.GetNumber() > MaxNumber {
		return fmt.Errorf("fact number %d, the largest is %d", o.GetNumber(), uint64(MaxNumber))
	}
	return first(optional("title id", o.GetTitleId()), optional("reporter", o.GetReportedBy()),
		checkTime("occurrence", o.GetOccurredAtMs()),
		checkTime("device time", o.GetDeviceTimeMs()))
}
