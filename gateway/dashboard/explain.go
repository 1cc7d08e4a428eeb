package dashboard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// whyView is the explanation of a licence.
type whyView struct {
	Device, Title string
	*licensedv1.WhyResponse
	Steps   []stepView
	Problem string
}

// stepView is a step of the explanation with the class of its effect.
type stepView struct {
	*licensedv1.WhyStep
	Kind string
}

// effects are the classes of effects; those of a newer release have none.
var effects = map[licensedv1.WhyEffect]string{
	licensedv1.WhyEffect_WHY_EFFECT_CHANGED: "good",
	licensedv1.WhyEffect_WHY_EFFECT_REFUSED: "bad",
	licensedv1.WhyEffect_WHY_EFFECT_TIME:    "end",
	licensedv1.WhyEffect_WHY_EFFECT_CONTEXT: "device",
	licensedv1.WhyEffect_WHY_EFFECT_STRANGE: "bad",
	licensedv1.WhyEffect_WHY_EFFECT_UNKNOWN: "bad",
}

// why explains the licence that is selected, if one is.
func (d *Dashboard) why(ctx context.Context, s Selection) (*whyView, error) {
	if s.WhyDevice == "" || s.WhyTitle == "" {
		return nil, nil
	}
	v := &whyView{Device: s.WhyDevice, Title: s.WhyTitle}
	res, err := d.config.History.Why(ctx, connect.NewRequest(&licensedv1.WhyRequest{
		CustomerId: s.Customer, DeviceId: s.WhyDevice, TitleId: s.WhyTitle,
	}))
	// What the API refuses (an unknown licence, a history that cannot be read) is shown
	// in place of the answer; other errors fail the page.
	if err != nil {
		v.Problem, err = problem(err)
		return v, err
	}
	v.WhyResponse = res.Msg
	for _, step := range res.Msg.Steps {
		kind, ok := effects[step.Effect]
		if !ok {
			kind = "other"
		}
		v.Steps = append(v.Steps, stepView{step, kind})
	}
	return v, nil
}

// problem returns what an error of the API says, where people can do something about it.
func problem(err error) (string, error) {
	var api *connect.Error
	if errors.As(err, &api) {
		if _, ok := statuses[api.Code()]; ok {
			return sentence(api.Message()), nil
		}
	}
	return "", err
}

// tryView is the result that a command would have had.
type tryView struct {
	// Command in words.
	Command string
	Accepts bool
	Verdict string
	Events  []eventView
	Problem string
}

// try asks the result that a command would have had at the moment, if one is selected.
func (d *Dashboard) try(ctx context.Context, s Selection) (*tryView, error) {
	if s.Try == "" {
		return nil, nil
	}
	command, words := commandOf(s)
	v := &tryView{Command: words}
	r := &licensedv1.TryAtRequest{CustomerId: s.Customer, Command: command}
	// Without a moment the command is tried on the present state.
	if s.At > 0 {
		r.At = &licensedv1.TryAtRequest_Sequence{Sequence: s.At}
	}
	res, err := d.config.History.TryAt(ctx, connect.NewRequest(r))
	if err != nil {
		v.Problem, err = problem(err)
		return v, err
	}
	v.Accepts, v.Verdict = verdictOf(res.Msg)
	for _, e := range res.Msg.Events {
		v.Events = append(v.Events, eventOf(e))
	}
	return v, nil
}

// verdictOf returns in one sentence what a command would have returned.
func verdictOf(res *licensedv1.TryAtResponse) (accepts bool, verdict string) {
	switch {
	case res.Refusal != nil:
		names := make([]string, len(res.Refusal.Violations))
		for i, v := range res.Refusal.Violations {
			names[i] = clusterrates.RuleWords(v.Rule)
		}
		return false, fmt.Sprintf("It would be refused, by the %s rule: %s",
			strings.Join(names, ", "), sentence(res.Refusal.Message))
	case res.License != nil && res.License.Released:
		return true, "It would be accepted, and the licence would end."
	case res.License != nil:
		return true, "It would be accepted, with a licence until " + day(res.License.ExpiresAt) + "."
	case res.PlanId != "":
		return true, fmt.Sprintf("It would be accepted: plan %s, which allows downloads on %s.",
			res.PlanId, count(res.DeviceLimit, "device", "devices"))
	case len(res.ReleasedTitleIds) > 0:
		return true, "It would be accepted, and end the licences for " + strings.Join(res.ReleasedTitleIds, ", ") + "."
	}
	return true, "It would be accepted, and end no licence."
}

// commandOf makes the command that is selected, and says it in words. An unknown one is
// nil, for which the API returns an error with the reason.
func commandOf(s Selection) (*licensedv1.Command, string) {
	on := fmt.Sprintf("%s on %s", s.TryTitle, s.TryDevice)
	switch s.Try {
	case "acquire":
		return &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{DeviceId: s.TryDevice, TitleId: s.TryTitle},
		}}, "Acquire " + on
	case "renew":
		return &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{
			RenewLicense: &licensedv1.RenewLicense{DeviceId: s.TryDevice, TitleId: s.TryTitle},
		}}, "Renew " + on
	case "release":
		return &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
			ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: s.TryDevice, TitleId: s.TryTitle},
		}}, "Release " + on
	case "play":
		return &licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{
			RecordPlayback: &licensedv1.RecordPlayback{DeviceId: s.TryDevice, TitleId: s.TryTitle},
		}}, "Play " + on
	case "deactivate":
		return &licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{
			DeactivateDevice: &licensedv1.DeactivateDevice{DeviceId: s.TryDevice},
		}}, "Remove " + s.TryDevice
	case "plan":
		return &licensedv1.Command{
			Command: &licensedv1.Command_ChangePlan{ChangePlan: &licensedv1.ChangePlan{PlanId: s.TryPlan}},
		}, "Change to plan " + s.TryPlan
	}
	return nil, s.Try
}
