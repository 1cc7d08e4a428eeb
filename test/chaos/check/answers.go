package check

import (
	"encoding/json"
	"reflect"
	"strings"

	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// answers compares what was told about one command with whether and where it is recorded.
func (k *checker) answers(c *command) {
	id, fresh := c.in.Command, 0
	for _, o := range c.attempts {
		if o.Input != c.in {
			k.fail(Acknowledged, "command %s was sent with two contents: a defect of the tool", id)
		}
		if !o.Output.Known() {
			continue
		}
		if !o.Output.Duplicate { // There may be none: a gateway repeats by itself what it lost the answer to.
			fresh++
		}
		if a, b := told(&c.known.Output), told(&o.Output); !reflect.DeepEqual(a, b) {
			k.fail(Acknowledged, "command %s was answered %s and %s", id, text(a), text(b))
		}
	}
	if fresh > 1 {
		k.fail(Acknowledged, "command %s was executed %d times, by its answers", id, fresh)
	}
	switch {
	case c.known != nil && len(c.events) == 0:
		k.fail(Acknowledged, "command %s was %s at %d and is not recorded",
			id, c.known.Output.Outcome, c.known.Output.Sequence)
	case c.known != nil && c.last() != c.known.Output.Sequence:
		k.fail(Acknowledged, "command %s was %s at %d and is recorded at %d",
			id, c.known.Output.Outcome, c.known.Output.Sequence, c.last())
	case c.known != nil && c.known.Output.Outcome == history.Refused && c.events[0].Name != "CommandRefused":
		k.fail(Refused, "command %s was refused and recorded as %s at %d", id, c.events[0].Name, c.last())
	case c.known == nil && !c.unsettled && len(c.events) > 0:
		k.fail(Refused, "command %s was told not to be executed (%s) and is recorded at %d",
			id, c.attempts[0].Output.Reason, c.last())
	}
}

// told is an answer without what may differ between the first one and its repeats.
func told(o *history.Output) history.Output {
	out := *o
	out.Duplicate = false
	return out
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// replay executes the recorded commands on the model, in their order and at their times, and compares
// events, answers and what members say in the end.
func (k *checker) replay() {
	state := model.New(k.rules)
	for _, c := range k.order {
		next, want, events := state.Apply(&c.in, c.events[0].Time)
		if !k.sameEvents(c, events) {
			return
		}
		if !k.sameContent(c, &want, next) {
			return
		}
		if c.known != nil {
			if got := told(&c.known.Output); !reflect.DeepEqual(got, want) {
				k.fail(Acknowledged, "command %s was answered %s, its history says %s",
					c.in.Command, text(got), text(want))
				return
			}
		}
		state = next
	}
	for _, v := range k.recorded.Views {
		want := state.Answer(&v.Input)
		if !reflect.DeepEqual(v.Output, want) {
			k.fail(Structure, "%s answers %s with %s, the replay with %s",
				v.Member, v.Input.Kind, text(v.Output), text(want))
		}
	}
}

// sameEvents compares names and aggregates of the recorded events with the model's.
func (k *checker) sameEvents(c *command, want []model.Event) bool {
	var got []model.Event
	for _, e := range c.events {
		got = append(got, model.Event{Aggregate: e.Aggregate, Name: e.Name})
	}
	if reflect.DeepEqual(got, want) {
		return true
	}
	check := Acknowledged
	if want[0].Name == "CommandRefused" {
		check = Limits
	}
	k.fail(check, "command %s (%s) is recorded as %v at %d, by the rules it is %v",
		c.in.Command, text(c.in), got, c.last(), want)
	return false
}

// sameContent compares what the recorded events say with the result of the model.
func (k *checker) sameContent(c *command, want *history.Output, next *model.State) bool {
	for i := range c.events {
		e := &c.events[i]
		if got, must := said(e), k.says(c, e, want, next); !reflect.DeepEqual(got, must) {
			k.fail(Acknowledged, "command %s: event %d (%s) says %s instead of %s",
				c.in.Command, e.Sequence, e.Name, text(got), text(must))
			return false
		}
	}
	return true
}

// said is what an event says beyond its name and place.
func said(e *history.Event) history.Event {
	return history.Event{License: e.License, Refusal: e.Refusal, Device: e.Device, Title: e.Title, Plan: e.Plan,
		Limit: e.Limit, Counted: e.Counted}
}

// says is what an event of a command must say, by its name.
func (k *checker) says(c *command, e *history.Event, want *history.Output, next *model.State) (must history.Event) {
	device, title, _ := strings.Cut(e.Aggregate, "/")
	switch e.Name {
	case "LicenseAcquired", "LicenseRenewed", "LicenseReleased", "LicenseShortened":
		must.License = terms(next, device, title)
	case "TitleDownloaded":
		if c.events[0].Sequence == e.Sequence { // Where the same command acquired it, the event before tells.
			must.License = terms(next, device, title)
		}
	case "TitlePlayed":
		must.License, must.Counted = terms(next, device, title), k.rules.Titles[title].Yearly != model.Unlimited
	case "PlanChanged":
		must.Plan, must.Limit = want.Plan, want.DeviceLimit
	case "CommandAccepted":
		// The plan is the present one, also where the command meant an earlier one.
		must.Device, must.Title, must.Plan, must.Limit = c.in.Device, c.in.Title, want.Plan, want.DeviceLimit
		if want.License != nil {
			must.License = terms(next, c.in.Device, c.in.Title)
		}
	case "CommandRefused":
		must.Refusal, must.Device, must.Title, must.Plan = want.Refusal, c.in.Device, c.in.Title, c.in.Plan
		if r := want.Refusal; r != nil && model.OfPlan(r.Rule) {
			must.Plan = next.Answer(&history.Input{Kind: history.ListDevices}).Plan // Whose limit it is.
		}
	}
	return must
}

// terms is a licence as events carry it: which one it is, their aggregate says.
func terms(s *model.State, device, title string) *history.License {
	l := s.License(device, title)
	if l != nil {
		l.Device, l.Title = "", ""
	}
	return l
}
