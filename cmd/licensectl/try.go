package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// tryCommand returns the verb for HistoryService.TryAt.
func (p *program) tryCommand() *cobra.Command {
	var at string
	var newDownload bool
	c := &cobra.Command{
		Use:   "try CUSTOMER [--at MOMENT] VERB ARGUMENTS",
		Short: "Show what a command would return at a moment; record nothing",
		Long: `try replays a customer's history up to a moment and shows what a command would return there, under
the policy in force now. Nothing is recorded. Verbs and arguments are those of acquire, renew,
release, play, deactivate, plan and select. The exit code is 3 if the command would be refused.`,
		Example: "  licensectl try Bayley acquire ipad GlowS01E02\n" +
			"  licensectl try Bayley --at 12 renew iphone GlowS01E01\n" +
			"  licensectl try Bayley --at 2026-06-01 deactivate iphone",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("%s is missing (see %s --help)", []string{"CUSTOMER", "VERB"}[len(args)], c.CommandPath())
			}
			return nil
		},
	}
	c.Flags().StringVar(&at, "at", "now", "`MOMENT` to look at: the number of an event, or a time")
	c.Flags().BoolVar(&newDownload, "new-download", false, "with acquire: record another download of an active licence")
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := p.parseMoment("--at", at)
		if err != nil {
			return err
		}
		command, err := parseVerb(args[1:], newDownload)
		if err != nil {
			return err
		}
		return p.try(c.Context(), args[0], m, command)
	}
	return p.customerCommand(c)
}

// parseVerb reads a command, "renew iphone GlowS01E01", with the arguments that the verbs
// of the same name have. Errors: usage errors.
func parseVerb(args []string, newDownload bool) (*licensedv1.Command, error) {
	verb, args := args[0], args[1:]
	if verb == "select" && len(args) > 0 {
		return &licensedv1.Command{
			Command: &licensedv1.Command_SelectDevices{SelectDevices: &licensedv1.SelectDevices{DeviceIds: args}},
		}, nil
	}
	names, ok := commandVerbs[verb]
	if !ok {
		meant := ""
		if near := terminal.Nearest(verb, slices.Collect(maps.Keys(commandVerbs))); near != "" {
			meant = "; did you mean " + near + "?"
		}
		return nil, usagef("%q is not acquire, renew, release, play, deactivate, plan or select%s", verb, meant)
	}
	if len(args) != len(names) {
		return nil, usagef("%s wants %s", verb, strings.Join(names, " "))
	}
	switch verb {
	case "acquire":
		return &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{DeviceId: args[0], TitleId: args[1], NewDownload: newDownload},
		}}, nil
	case "renew":
		return &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{
			RenewLicense: &licensedv1.RenewLicense{DeviceId: args[0], TitleId: args[1]},
		}}, nil
	case "release":
		return &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
			ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: args[0], TitleId: args[1]},
		}}, nil
	case "play":
		return &licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{
			RecordPlayback: &licensedv1.RecordPlayback{DeviceId: args[0], TitleId: args[1]},
		}}, nil
	case "deactivate":
		return &licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{
			DeactivateDevice: &licensedv1.DeactivateDevice{DeviceId: args[0]},
		}}, nil
	default:
		return &licensedv1.Command{
			Command: &licensedv1.Command_ChangePlan{ChangePlan: &licensedv1.ChangePlan{PlanId: args[0]}},
		}, nil
	}
}

// try asks what a command would return, and prints it. A refusal is printed as the result
// and also sets the exit code, as that of a real command does.
func (p *program) try(ctx context.Context, customer string, m moment, command *licensedv1.Command) error {
	r := &licensedv1.TryAtRequest{CustomerId: customer, Command: command}
	switch {
	case m.sequence > 0:
		r.At = &licensedv1.TryAtRequest_Sequence{Sequence: m.sequence}
	case !m.time.IsZero():
		r.At = &licensedv1.TryAtRequest_Time{Time: m.timestamp()}
	}
	conn, err := p.dial()
	if err != nil {
		return err
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	res, err := conn.history.TryAt(ctx, r)
	if err == nil {
		err = known(customer, res.Moment.GetHeadSequence())
	}
	if err != nil {
		return err
	}
	if p.output == outputJSON {
		err = p.printJSON(res)
	} else {
		err = p.printTry(customer, res)
	}
	if err == nil && res.Refusal != nil {
		return &exitError{
			code: exitRefused, reason: "WOULD_BE_REFUSED", refusal: res.Refusal,
			err: fmt.Errorf("would be refused by %s", refusalWords(res.Refusal)),
		}
	}
	return err
}

// printTry prints the verdict and the events that the command would record.
func (p *program) printTry(customer string, res *licensedv1.TryAtResponse) error {
	fmt.Fprintf(p.stdout, "%s %s\n", customer, momentWords(res.Moment))
	switch {
	case res.Refusal != nil:
		fmt.Fprintf(p.stdout, "would be refused by %s\n", refusalWords(res.Refusal))
	case res.Exception != nil:
		fmt.Fprintf(p.stdout, "would be accepted: exception %d, %s\n", res.Exception.Number, res.Exception.Words())
	case res.License != nil:
		fmt.Fprintln(p.stdout, licenceWords("would be accepted", res.License))
	case res.PlanId != "":
		fmt.Fprintf(p.stdout, "would be accepted: plan %s, which allows downloads on %s\n",
			res.PlanId, terminal.Count(res.DeviceLimit, "device", "devices"))
		if len(res.StayingDeviceIds) > 0 {
			fmt.Fprintf(p.stdout, "these devices would stay: %s\n", strings.Join(res.StayingDeviceIds, ", "))
		}
	case len(res.StayingDeviceIds) > 0:
		fmt.Fprintf(p.stdout, "would be accepted; these devices would stay: %s\n",
			strings.Join(res.StayingDeviceIds, ", "))
	case len(res.ReleasedTitleIds) > 0:
		fmt.Fprintf(p.stdout, "would be accepted, and release %s%s\n", strings.Join(res.ReleasedTitleIds, ", "),
			removalWords(res.Removal))
	default:
		fmt.Fprintf(p.stdout, "would be accepted, and release no licence%s\n", removalWords(res.Removal))
	}
	fmt.Fprintln(p.stdout, "nothing was recorded; these events would be:")
	t := p.newTable("  EVENT", "ABOUT", ">ORDER", "DATA")
	for _, e := range res.Events {
		t.Add("  "+e.Event, e.AggregateId, fmt.Sprint(e.EventOrderNumber), dataWords(e))
	}
	return t.Flush()
}
