package license

import (
	"fmt"
	"strings"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// meant says what a superseded command meant.
func (x *Explainer) meant(kind licensedv1.CommandKind) string {
	if kind == licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE {
		return "it meant an earlier activation of the device"
	}
	if l := x.license(); l != nil {
		return "it meant an earlier licence than that of " + clockOf(l.acquired)
	}
	return "it meant an earlier licence"
}

// tellFact explains what was reported later, and which decisions it would have changed.
func (x *Explainer) tellFact(e *Recorded, o *licensedv1.Occurrence, changes []*choice) {
	what, on, effect := "Played", "", unchanged
	switch v := e.Value.(type) {
	case *licensedv1.TitleDownloaded:
		what = "Downloaded again"
	case *licensedv1.TitleDeleted:
		what = "Deleted"
	case *licensedv1.TitlePlayed:
		if v.GetStartsHours() {
			effect = changed
		}
	}
	if !x.concerns(&e.Event) { // told for what it would have changed
		effect, on = aside, fmt.Sprintf(" (%s)", e.AggregateID)
	}
	s := x.add(e, effect, "", "%s%s at %s, reported later%s: %s.", what, on, clockOf(o.GetOccurredAtMs()), byDevice(o),
		counting(e.Value, o))
	s.OccurredAt = timestamp(o.GetOccurredAtMs())
	for _, c := range changes {
		s.Text += " " + c.words()
		s.WouldChange = append(s.WouldChange, c.sequence)
	}
}

// byDevice says what the device's clock showed, if that was corrected.
func byDevice(o *licensedv1.Occurrence) string {
	if o.GetDeviceTimeMs() == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s by the device's clock)", clockOf(o.GetDeviceTimeMs()))
}

// counting says whether something that was reported later counts.
func counting(event any, o *licensedv1.Occurrence) string {
	switch {
	case o.GetVerdict() == unlicensed:
		return "no licence was active then, so it counts nowhere"
	case o.GetVerdict() == tooOld:
		return "more than 365 days before its report, so it counts nowhere"
	case o.GetVerdict() == notRemembered:
		return "the customer has too many downloads and playbacks, so it counts nowhere"
	}
	switch v := event.(type) {
	case *licensedv1.TitleDeleted:
		return "a licence was active then"
	case *licensedv1.TitlePlayed:
		if !v.GetCounted() {
			return "a licence was active then" + hoursBegin(v)
		}
		return "a licence was active then, and it counts against the title's yearly limit" + hoursBegin(v)
	}
	return "a licence was active then, and it counts against the title's yearly limit"
}

// hoursBegin says whether a playback begins the hours of the licence.
func hoursBegin(v *licensedv1.TitlePlayed) string {
	if v.GetStartsHours() {
		return "; the hours after the first playback begin then"
	}
	return ""
}

const (
	// maxChoices is the number of decisions that are compared with what was reported after them, the latest.
	maxChoices = 256
	// maxChoiceLicenses is the number of licences up to which a customer's decisions are compared.
	maxChoiceLicenses = 1000
)

// choice is a decision that was made on what was known then. Its state also gets what was reported after it and
// occurred before.
type choice struct {
	sequence      uint64
	at            int64
	device, title string
	command       licensedv1.CommandKind
	newDownload   bool
	refused       bool
	state         []byte
	// rule is the one that would have refused it, by the state; none if it would have been accepted.
	rule licensedv1.Rule
}

// choiceOf returns the decision that an event is of; nil for events of none about a licence.
func choiceOf(e *Recorded) *choice {
	c := &choice{sequence: e.Sequence, at: e.Time.UnixMilli()}
	c.device, c.title, _ = strings.Cut(e.AggregateID, "/")
	switch v := e.Value.(type) {
	case *licensedv1.LicenseAcquired:
		c.command = licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE
	case *licensedv1.TitleDownloaded:
		if v.GetLicense() == nil {
			return nil // a part of the acquisition
		}
		c.command, c.newDownload = licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE, true
	case *licensedv1.TitlePlayed:
		c.command = licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK
	case *licensedv1.LicenseRenewed:
		c.command = licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE
	case *licensedv1.CommandRefused:
		c.command, c.refused = v.GetCommand(), true
		c.device, c.title = v.GetDeviceId(), v.GetTitleId()
	default:
		return nil
	}
	return c
}

// remember keeps a decision about the title or the device, before its event changes the state.
func (x *Explainer) remember(e *Recorded) {
	if x.policy == nil || x.missing || occurrenceOf(e.Value) != nil || len(x.state.licenses) > maxChoiceLicenses {
		return
	}
	c := choiceOf(e)
	if c == nil || c.title == "" || c.title != x.title && c.device != x.device {
		return
	}
	// What today's policy decides otherwise is not compared: the difference would not be that of a fact.
	rule, ok := c.decide(x.policy, x.state)
	if !ok || (rule != licensedv1.Rule_RULE_UNSPECIFIED) != c.refused {
		return
	}
	c.rule, c.state = rule, x.state.encode()
	if x.choices = append(x.choices, c); len(x.choices) > maxChoices {
		x.choices = x.choices[1:]
	}
}

// decide returns the first rule that refuses the command on a state, none if it is accepted.
func (c *choice) decide(p *policy.Policy, s *State) (rule licensedv1.Rule, ok bool) {
	v := view{now: c.at, policy: p, state: s}.ended()
	t := v.find(c.device, c.title)
	var r refusal
	switch c.command {
	case licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:
		r = v.mayAcquire(t, c.newDownload)
	case licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE:
		r = v.mayRenew(t)
	case licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK:
		r = v.mayPlay(t)
	default:
		return rule, false
	}
	if len(r) > 0 {
		rule = r[0].rule
	}
	return rule, true
}

// changes returns the decisions that would have been others if a fact had been known in time: those about the licence,
// and where the fact is about the licence, all.
func (x *Explainer) changes(e *Recorded, o *licensedv1.Occurrence) (changed []*choice) {
	about := x.concerns(&e.Event)
	for _, c := range x.choices {
		if o.GetOccurredAtMs() >= c.at {
			continue
		}
		s, err := decode(c.state)
		if err != nil {
			continue // It was encoded here, so that it can be decoded.
		}
		s.occurred(e.Event, o, c.at)
		c.state = s.encode()
		was := c.rule
		c.rule, _ = c.decide(x.policy, s)
		if (was == licensedv1.Rule_RULE_UNSPECIFIED) != (c.rule == licensedv1.Rule_RULE_UNSPECIFIED) &&
			(about || c.device == x.device && c.title == x.title) {
			changed = append(changed, c)
		}
	}
	return changed
}

// occurred applies a fact to a state that did not know it. A deletion ends the licence at its time.
func (s *State) occurred(e actors.Event, o *licensedv1.Occurrence, now int64) {
	s.evolveFact(e, o, now)
	device, title, _ := strings.Cut(e.AggregateID, "/")
	i := s.license(s.device(device), s.title(title))
	if i < 0 {
		return
	}
	l := &s.licenses[i]
	switch e.Value.(type) {
	case *licensedv1.TitleDeleted:
		if l.released == 0 && o.GetOccurredAtMs() >= l.meant {
			l.released = o.GetOccurredAtMs()
		}
	case *licensedv1.TitlePlayed:
		// When it was recorded, the licence may have been renewed since.
		if o.GetOccurredAtMs() >= l.granted && (o.GetVerdict() == licensed || o.GetVerdict() == notRemembered) {
			l.play(o.GetOccurredAtMs())
		}
	}
}

// words says how the decision would have been with what is known now.
func (c *choice) words() string {
	what := attempt(c.command)
	what = "The" + what[strings.IndexByte(what, ' '):]
	if c.newDownload {
		what = "The download"
	}
	what = fmt.Sprintf("%s of %s on %s at %s (event %d)", what, c.title, c.device, clockOf(c.at), c.sequence)
	if c.rule == licensedv1.Rule_RULE_UNSPECIFIED {
		return what + " would have been accepted if this had been known."
	}
	return what + " would have been refused by " + ruleWords(c.rule) + " if this had been known."
}

// ruleWords names a rule in a sentence.
func ruleWords(rule licensedv1.Rule) string {
	switch rule {
	case licensedv1.Rule_RULE_DEVICE_LIMIT:
		return "the device limit"
	case licensedv1.Rule_RULE_STUDIO_LIMIT:
		return "the studio limit"
	case licensedv1.Rule_RULE_DEVICE_TITLES:
		return "the limit of titles on a device"
	case licensedv1.Rule_RULE_MONTHLY_LIMIT:
		return "the monthly limit"
	case licensedv1.Rule_RULE_PLAYED:
		return "its first playback"
	case licensedv1.Rule_RULE_YEARLY_LIMIT:
		return "the yearly limit"
	case licensedv1.Rule_RULE_RELEASED:
		return "its release"
	case licensedv1.Rule_RULE_DEVICE_DEACTIVATED:
		return "the deactivation of the device"
	default:
		return "the rule " + strings.TrimPrefix(rule.String(), "RULE_")
	}
}
