package license

import (
	"fmt"
	"strings"
	"time"

	"licensed/messages/licensedv1"
)

// Why returns the explanation as of a time, in at most about a screen of steps: what repeats is told
// once, and if that does not do, the middle is left out and said to be. The state is that of the owner
// at the end of the history, so the verdict is right even if parts of the history cannot be read; nil if the customer
// cannot be rebuilt. Gaps and moment are the caller's to add.
func (x *Explainer) Why(now time.Time, state *licensedv1.CustomerState) *licensedv1.WhyResponse {
	// Expiries are no events: they are added where they fell.
	x.timePasses(now.UnixMilli())
	res := &licensedv1.WhyResponse{}
	for _, l := range state.GetLicenses() {
		if l.DeviceId == x.device && l.TitleId == x.title {
			res.License = l
		}
	}
	if res.Verdict = x.verdict(res.License); state == nil {
		res.Verdict = "The status of the licence is unknown: the customer cannot be rebuilt from the remaining history."
	}
	for _, s := range shortened(x.steps) {
		res.Steps = append(res.Steps, s.WhyStep)
	}
	return res
}

// verdict says how the licence stands and which step made it so.
func (x *Explainer) verdict(l *licensedv1.LicenseState) string {
	var b strings.Builder
	switch {
	case l == nil && x.acquired == nil && !x.missing:
		fmt.Fprintf(&b, "Device %s never had a licence for title %s.", x.device, x.title)
	case l == nil && x.acquired == nil:
		b.WriteString("There is no licence. The events that can be read do not show whether there ever was one.")
	case l == nil && x.moved != nil:
		fmt.Fprintf(&b, "There is no licence any more: it moved with its device%s.", x.moved.named())
	case l == nil:
		b.WriteString("There is no licence any more: it has been inactive for more than 365 days, " +
			"and the rules have forgotten it.")
	case l.ReleasedAt != nil:
		fmt.Fprintf(&b, "Not active: it was released at %s%s.",
			clockOf(l.ReleasedAt.AsTime().UnixMilli()), x.released.named())
		if x.after(x.renewed, x.released) {
			fmt.Fprintf(&b,
				" The renewal after that%s moved the expiry to %s, which does not bring a released licence back.",
				x.renewed.named(), clockOf(l.ExpiresAt.AsTime().UnixMilli()))
		}
	case !l.Active:
		fmt.Fprintf(&b, "Not active: it expired at %s, and nothing renewed it in time.",
			clockOf(l.ExpiresAt.AsTime().UnixMilli()))
	default:
		fmt.Fprintf(&b, "Active until %s: acquired at %s%s", clockOf(l.ExpiresAt.AsTime().UnixMilli()),
			clockOf(l.AcquiredAt.AsTime().UnixMilli()), x.acquired.named())
		if l.Renewals > 0 {
			fmt.Fprintf(&b, ", renewed %s%s", count(l.Renewals, "time", "times"), x.renewed.last())
		}
		b.WriteString(".")
	}
	if l != nil || x.acquired == nil {
		x.verdictOnRefusal(&b)
	}
	if x.missing {
		b.WriteString(" Some events cannot be read, so steps are missing.")
	}
	return b.String()
}

// verdictOnRefusal adds the last refusal, if the licence did not change since.
func (x *Explainer) verdictOnRefusal(b *strings.Builder) {
	if x.refused == nil || x.after(x.acquired, x.refused) || x.after(x.renewed, x.refused) ||
		x.after(x.released, x.refused) {
		return
	}
	fmt.Fprintf(b, " The last command about it, at %s%s: %s%s",
		clockOf(x.refused.Time.AsTime().UnixMilli()), x.refused.named(),
		strings.ToLower(x.refused.Text[:1]), x.refused.Text[1:])
	if x.refused.rule == licensedv1.Rule_RULE_RELEASED {
		b.WriteString(" A released licence is never renewed or played; it can be acquired again.")
	}
}

// after reports whether a step came after another.
func (x *Explainer) after(a, b *step) bool {
	return a != nil && (b == nil || a.Sequence > b.Sequence)
}

// named names a step's event in a sentence.
func (s *step) named() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf(" (event %d)", s.event)
}

// last names the event of the last renewal.
func (s *step) last() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf(" (last by event %d)", s.event)
}

// screen is about how many steps are told.
const screen = 40

// shortened tells steps that repeat as one; renewals only if there are many steps.
func shortened(steps []*step) []*step {
	out := joined(steps, func(s *step) bool { return s.kind != "" && s.kind != "Renewed" })
	if len(out) > screen/2 {
		out = joined(out, func(s *step) bool { return s.kind != "" })
	}
	if len(out) <= screen {
		return out
	}
	// The beginning tells how it came about, and the end how it is now.
	head, tail := out[:screen/4], out[len(out)-screen*3/4:]
	left := out[len(head) : len(out)-len(tail)]
	between := &step{WhyStep: &licensedv1.WhyStep{
		Sequence:   left[0].Sequence,
		ToSequence: left[len(left)-1].ToSequence,
		Time:       left[0].Time,
		ToTime:     left[len(left)-1].ToTime,
		Count:      uint32(len(left)), Effect: licensedv1.WhyEffect_WHY_EFFECT_UNCHANGED,
		Text: fmt.Sprintf("… %d steps are left out here; the list of events has them.", len(left)),
	}}
	return append(append(append([]*step(nil), head...), between), tail...)
}

// joined joins neighbours of one kind.
func joined(steps []*step, may func(*step) bool) []*step {
	var out []*step
	for _, s := range steps {
		if n := len(out); n > 0 && may(s) && out[n-1].kind == s.kind {
			out[n-1] = out[n-1].with(s)
			continue
		}
		out = append(out, s)
	}
	return out
}

// with returns both steps as one.
func (s *step) with(next *step) *step {
	both := &step{kind: s.kind, what: s.what, detail: next.detail, was: s.was, is: next.is,
		WhyStep: &licensedv1.WhyStep{
			Sequence:   s.Sequence,
			ToSequence: next.ToSequence,
			Time:       s.Time,
			ToTime:     next.ToTime,
			Count:      s.Count + next.Count,
			Event:      s.Event, Effect: s.Effect,
		}}
	if s.Principal == next.Principal && s.Reason == next.Reason {
		both.Principal, both.Reason = s.Principal, s.Reason
	}
	switch s.kind {
	case "Played":
		both.Text = fmt.Sprintf("Played %d times.", both.Count)
	case "Renewed":
		both.Text = fmt.Sprintf("Renewed %d times: the expiry moved from %s to %s.",
			both.Count, clockOf(both.was), clockOf(both.is))
	default:
		both.Text = fmt.Sprintf("%s, %d times, at last: %s.", s.what, both.Count, next.detail)
	}
	return both
}
