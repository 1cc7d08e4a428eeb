package dashboard

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// shownRefusals is the number of refusals that a page lists.
const shownRefusals = 50

// refusalsView is the list of what was refused, the newest first.
type refusalsView struct {
	Selection
	// Total is the number of refusals, Listed of those of the chosen rule.
	Total, Listed int
	Rules         []ruleCount
	Items         []refusalView
	// Looked is the number of the newest events that were searched; 0 for all.
	Looked uint64
}

// ruleCount is a rule and the number of commands that it refused.
type ruleCount struct {
	Rule  string
	Count int
}

// refusalView is a command that was refused.
type refusalView struct {
	Sequence uint64
	At       *timestamppb.Timestamp
	Command  string
	Rules    []string
}

// add counts an event if it is a refusal. Events come oldest first.
func (v *refusalsView) add(e *licensedv1.HistoryEvent) {
	refused := refusedBy(e)
	if refused == nil {
		return
	}
	item := refusalView{Sequence: e.Sequence, At: e.EventTime, Command: commandTitle(refused)}
	for _, r := range brokenBy(refused) {
		item.Rules = append(item.Rules, clusterrates.RuleWords(r.Rule))
	}
	v.Total++
	for _, rule := range item.Rules {
		i := slices.IndexFunc(v.Rules, func(c ruleCount) bool { return c.Rule == rule })
		if i < 0 {
			i, v.Rules = len(v.Rules), append(v.Rules, ruleCount{Rule: rule})
		}
		v.Rules[i].Count++
	}
	if v.Rule == "" || slices.Contains(item.Rules, v.Rule) {
		v.Listed++
		v.Items = append(v.Items, item)
	}
}

// done brings what was added into the order in which it is shown.
func (v *refusalsView) done() {
	slices.Reverse(v.Items)
	v.Items = v.Items[:min(len(v.Items), shownRefusals)]
	slices.SortFunc(v.Rules, func(a, b ruleCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Rule, b.Rule))
	})
}

// refusedBy returns the refusal that an event is; nil for other events, and for one that cannot be decoded.
func refusedBy(e *licensedv1.HistoryEvent) *licensedv1.CommandRefused {
	var refused licensedv1.CommandRefused
	if e.GetData() == nil || !e.Data.MessageIs(&refused) || e.Data.UnmarshalTo(&refused) != nil {
		return nil
	}
	return &refused
}

// brokenBy returns the rules that refused a command. Events of earlier releases have one.
func brokenBy(e *licensedv1.CommandRefused) []*licensedv1.BrokenRule {
	if len(e.Broken) > 0 {
		return e.Broken
	}
	return []*licensedv1.BrokenRule{{
		Rule: e.Rule, Limit: e.Limit, Current: e.Current, StudioId: e.StudioId, PlanId: e.PlanId,
		NextAllowedAtMs: e.NextAllowedAtMs,
	}}
}

// kinds are the commands that can be tried, by the word of the form for it, with a noun for people.
var kinds = map[licensedv1.CommandKind]struct{ try, noun string }{
	licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE:   {"acquire", "Download"},
	licensedv1.CommandKind_COMMAND_KIND_RENEW_LICENSE:     {"renew", "Renewal"},
	licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE:   {"release", "Release"},
	licensedv1.CommandKind_COMMAND_KIND_RECORD_PLAYBACK:   {"play", "Playback"},
	licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE: {"deactivate", "Removal"},
	licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN:       {"plan", "Change of plan"},
	licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES:    {"", "Choice of devices"},
}

// commandTitle names a refused command: "Download of GlowS01E01 on tv".
func commandTitle(e *licensedv1.CommandRefused) string {
	noun := kinds[e.Command].noun
	if noun == "" {
		noun = sentence(commandWords(e.Command))
		noun = noun[:len(noun)-1]
	}
	plan := ""
	if e.Command == licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN {
		plan = e.PlanId
	}
	return noun + subject(licensedv1.DeviceWords(e.Devices, e.DeviceId), e.TitleId, plan)
}

// reasons say to a customer why a rule refuses. %[1]d is the count, %[2]d the limit. A rule without an entry is named
// with its figures.
var reasons = map[licensedv1.Rule]string{
	licensedv1.Rule_RULE_DEVICE_LIMIT:       "%[1]d devices have downloads, and the plan allows %[2]d",
	licensedv1.Rule_RULE_STUDIO_LIMIT:       "there are %[1]d downloads of this studio, and %[2]d are allowed",
	licensedv1.Rule_RULE_YEARLY_LIMIT:       "the title was used %[1]d times in 365 days, and %[2]d times are allowed",
	licensedv1.Rule_RULE_DEACTIVATION_LIMIT: "%[1]d devices were removed in 365 days, and %[2]d removals are allowed",
	licensedv1.Rule_RULE_NO_LICENSE:         "there is no download of the title on this device",
	licensedv1.Rule_RULE_RELEASED:           "the download was ended; the title can be downloaded again",
	licensedv1.Rule_RULE_NOT_ACTIVE:         "the download has expired",
	licensedv1.Rule_RULE_DEVICE_DEACTIVATED: "the device was removed",
	licensedv1.Rule_RULE_UNKNOWN_DEVICE:     "the device is not known",
	licensedv1.Rule_RULE_UNKNOWN_PLAN:       "there is no such plan",
	licensedv1.Rule_RULE_TITLE_UNAVAILABLE:  "the title can no longer be downloaded",
	licensedv1.Rule_RULE_REMEMBERED_LIMIT:   "the account has too many recent downloads",
	licensedv1.Rule_RULE_DEVICE_NOT_SELECTED: "more devices are in use than the plan allows, and the device is not " +
		"one of those that stay",
	licensedv1.Rule_RULE_SELECTION_MADE:  "the devices that stay were chosen already",
	licensedv1.Rule_RULE_PLAYED:          "the download was played, and is not renewed after that",
	licensedv1.Rule_RULE_DEVICE_TITLES:   "there are %[1]d downloads on this device, and the plan allows %[2]d",
	licensedv1.Rule_RULE_MONTHLY_LIMIT:   "there were %[1]d downloads in 30 days, and the plan allows %[2]d",
	licensedv1.Rule_RULE_NO_ALLOWANCES:   "the plan lends no downloads",
	licensedv1.Rule_RULE_ALLOWANCE_LIMIT: "%[1]d allowances are lent, and the plan allows %[2]d",
	licensedv1.Rule_RULE_ALLOWANCE_ENDED: "the title is not in the allowance any more",
}

// reasonOf returns why a rule refused, as part of a sentence.
func reasonOf(r *licensedv1.BrokenRule) string {
	format, ok := reasons[r.Rule]
	switch {
	case ok && strings.Contains(format, "%"):
		return fmt.Sprintf(format, r.Current, r.Limit)
	case ok:
		return format
	case r.Limit > 0:
		return fmt.Sprintf("%s: %d of %d", clusterrates.RuleWords(r.Rule), r.Current, r.Limit)
	}
	return clusterrates.RuleWords(r.Rule)
}

// refusedView explains one refusal.
type refusedView struct {
	Selection
	refusalView
	// Latest says that it was not selected: it is the last one of the customer.
	Latest bool
	// Device and Title of the command; empty if it names none.
	OfDevice, OfTitle string
	// Spoken is what can be read to the customer.
	Spoken string
	Broken []brokenView
	// Allowed says that the same command would be accepted now, and Verdict how it stands.
	Allowed bool
	Verdict string
	// Frees is what the customer can do now, and Blocks what does not help. Both are of the present state and policy.
	Frees, Blocks []string
}

// brokenView is a rule that refused, with its date.
type brokenView struct{ Rule, Text, Until string }

// TryLink returns the address at which the command is tried now.
func (v *refusedView) TryLink() string {
	s := v.Selection
	s.At = 0
	return s.link() + "#try"
}

// explain explains a refusal: what was recorded, and what the same command would return now.
func (d *Dashboard) explainRefusal(ctx context.Context, s Selection, e *licensedv1.HistoryEvent) (*refusedView, error) {
	refused := refusedBy(e)
	if refused == nil {
		return nil, nil
	}
	s.Try, s.TryDevice, s.TryTitle = kinds[refused.Command].try, refused.DeviceId, refused.TitleId
	s.TryPlan = refused.PlanId
	if s.Try != "plan" {
		s.TryPlan = "" // It is the plan whose limit was met.
	}
	v := &refusedView{
		Selection: s, refusalView: refusalView{Sequence: e.Sequence, At: e.EventTime, Command: commandTitle(refused)},
		OfDevice: refused.DeviceId, OfTitle: refused.TitleId,
	}
	var why []string
	for _, r := range brokenBy(refused) {
		b := brokenView{Rule: clusterrates.RuleWords(r.Rule), Text: sentence(reasonOf(r))}
		if r.NextAllowedAtMs > 0 {
			b.Until = milliTime(r.NextAllowedAtMs)
		}
		v.Broken = append(v.Broken, b)
		why = append(why, reasonOf(r))
	}
	v.Spoken = fmt.Sprintf("%s was not possible on %s: %s.", v.Command, day(e.EventTime), strings.Join(why, "; "))
	if s.Try == "" {
		return v, nil
	}
	command, _ := commandOf(s)
	now, err := d.config.History.TryAt(ctx,
		connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: s.Customer, Command: command}))
	if err != nil {
		v.Verdict, err = problem(err)
		return v, err
	}
	v.now(now.Msg.Refusal)
	return v, nil
}

// now adds how the same command stands at present; r is nil if it would be accepted.
func (v *refusedView) now(r *licensedv1.Refusal) {
	if v.Allowed = r == nil; v.Allowed {
		v.Verdict = "The same command would be accepted now."
		v.Spoken += " It is possible now."
		return
	}
	v.Verdict = "It would still be refused now: " + r.Message
	if !strings.HasSuffix(v.Verdict, ".") {
		v.Verdict += "."
	}
	later := ""
	if r.NextAllowedAt != nil {
		later = day(r.NextAllowedAt)
	}
	for _, x := range r.Violations {
		rule := clusterrates.RuleWords(x.Rule)
		switch {
		case len(x.FreedBy) > 0:
			v.Frees = append(v.Frees, fmt.Sprintf("For the %s: %s.", rule, remedyWords(r, x)))
		case x.NextAllowedAt != nil:
			v.Blocks = append(v.Blocks, fmt.Sprintf("Only time ends the %s, on %s: no release and no removal does.",
				rule, day(x.NextAllowedAt)))
		default:
			v.Blocks = append(v.Blocks, fmt.Sprintf("Neither time nor a release or a removal ends the %s.", rule))
		}
	}
	if len(v.Frees) > 0 && len(v.Blocks) > 0 {
		v.Blocks = append(v.Blocks, "What ends one rule alone does not help.")
	}
	switch {
	case r.CanBeFreed:
		v.Spoken += " To make it possible at once: " + remedies(r) + "."
		if later != "" {
			v.Spoken += " Otherwise it is possible from " + later + " on."
		}
	case later != "":
		v.Spoken += " It is possible again from " + later + " on."
	default:
		v.Spoken += " Waiting does not change this."
	}
}

// remedies joins what the customer has to do.
func remedies(r *licensedv1.Refusal) string {
	words := make([]string, len(r.Violations))
	for i, x := range r.Violations {
		words[i] = remedyWords(r, x)
	}
	return strings.Join(words, "; and ")
}

// remedyWords says what ends a violation at once.
func remedyWords(refusal *licensedv1.Refusal, x *licensedv1.RuleViolation) string {
	verb, choices := "remove ", make([]string, len(x.FreedBy))
	for i, r := range x.FreedBy {
		choices[i] = licensedv1.DeviceWords(refusal.Devices, r.DeviceId)
		if r.TitleId != "" {
			verb, choices[i] = "end the download of ", r.TitleId+" on "+choices[i]
		}
	}
	switch n := int(x.Needed); {
	case n <= 1:
		return verb + strings.Join(choices, " or ")
	case n >= len(choices):
		return verb + strings.Join(choices, " and ")
	default:
		return fmt.Sprintf("%s%d of these: %s", verb, n, strings.Join(choices, ", "))
	}
}
