package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// tryCommand returns the verb for HistoryService.TryAt.
func (p *program) tryCommand() *cobra.Command {
	var at string
	var newDownload bool
	var with []string
	c := &cobra.Command{
		Use:   "try CUSTOMER [--at MOMENT] VERB ARGUMENTS",
		Short: "Show what a command would return at a moment; record nothing",
		Long: `try replays a customer's history up to a moment and shows what a command would return there, under
the policy in force now. Nothing is recorded. Verbs and arguments are those of acquire, renew,
release, play, deactivate, plan and select. --with shows what it would return after an exception,
with the words of exception grant or withdraw. The exit code is 3 if the command would be refused.`,
		Example: "  licensectl try Bayley acquire ipad GlowS01E02\n" +
			"  licensectl try Bayley --at 12 renew iphone GlowS01E01\n" +
			"  licensectl try Bayley --at 2026-06-01 deactivate iphone\n" +
			"  licensectl try Bayley --with \"devices 3 --until 2026-06-01\" acquire ipad GlowS01E02",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("%s is missing (see %s --help)", []string{"CUSTOMER", "VERB"}[len(args)], c.CommandPath())
			}
			return nil
		},
	}
	c.Flags().StringVar(&at, "at", "now", "`MOMENT` to look at: the number of an event, or a time")
	c.Flags().BoolVar(&newDownload, "new-download", false, "with acquire: record another download of an active licence")
	c.Flags().StringArrayVar(&with, "with", nil,
		"`EXCEPTION` that is granted first, \"devices 3 --until TIME\", or ended, \"withdraw 3\"; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := p.parseMoment("--at", at)
		if err != nil {
			return err
		}
		command, err := parseVerb(args[1:], newDownload)
		if err != nil {
			return err
		}
		r := &licensedv1.TryAtRequest{CustomerId: args[0], Command: command}
		for _, text := range with {
			first, err := p.parseWith(text)
			if err != nil {
				return err
			}
			r.First = append(r.First, first)
		}
		return p.try(c.Context(), m, r)
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

// parseWith reads an exception that is granted or ended first, in the words of the verbs for that without the customer.
// Errors: usage errors.
func (p *program) parseWith(text string) (*licensedv1.Command, error) {
	words := strings.Fields(text)
	if len(words) == 2 && words[0] == "withdraw" {
		n, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return nil, usagef("--with %q: %q is not the number of an exception", text, words[1])
		}
		return &licensedv1.Command{Command: &licensedv1.Command_WithdrawException{
			WithdrawException: &licensedv1.WithdrawException{Reason: triedReason, Number: n},
		}}, nil
	}
	verbs := p.grantVerbs()
	i := slices.IndexFunc(verbs, func(v grantVerb) bool {
		return len(words) > 0 && strings.HasPrefix(v.use, words[0]+" ")
	})
	if i < 0 {
		return nil, usagef("--with %q: give a verb of exception grant with its arguments, or withdraw and a number",
			text)
	}
	v, c := verbs[i], &cobra.Command{Use: verbs[i].use}
	if v.flags != nil {
		v.flags(c)
	}
	if err := c.ParseFlags(words[1:]); err != nil {
		return nil, usagef("--with %q: %v", text, err)
	}
	args := append([]string{""}, c.Flags().Args()...) // The first one is the customer.
	if len(args) != len(v.args) {
		return nil, usagef("--with %q: %s wants %s", text, words[0], strings.Join(v.args[1:], " "))
	}
	r := &licensedv1.GrantExceptionRequest{}
	if err := v.set(r, args); err != nil {
		return nil, usagef("--with %q: %v", text, err)
	}
	return grantOf(r), nil
}

// triedReason is the reason of exceptions that are only tried.
const triedReason = "only tried"

// grantOf returns the command of a request, with the reason of those that are tried.
func grantOf(r *licensedv1.GrantExceptionRequest) *licensedv1.Command {
	g := &licensedv1.GrantException{Reason: triedReason}
	if r.Until != nil {
		g.UntilMs = r.Until.AsTime().UnixMilli()
	}
	switch k := r.Kind.(type) {
	case *licensedv1.GrantExceptionRequest_Limit:
		g.Kind = &licensedv1.GrantException_Limit{Limit: k.Limit}
	case *licensedv1.GrantExceptionRequest_Removal:
		g.Kind = &licensedv1.GrantException_Removal{Removal: k.Removal}
	case *licensedv1.GrantExceptionRequest_Use:
		g.Kind = &licensedv1.GrantException_Use{Use: k.Use}
	case *licensedv1.GrantExceptionRequest_Merge:
		g.Kind = &licensedv1.GrantException_Merge{Merge: k.Merge}
	}
	return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: g}}
}

// try asks what a command would return, and prints it. A refusal is printed as the result
// and also sets the exit code, as that of a real command does.
func (p *program) try(ctx context.Context, m moment, r *licensedv1.TryAtRequest) error {
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
		err = known(r.CustomerId, res.Moment.GetHeadSequence())
	}
	if err != nil {
		return err
	}
	if p.output == outputJSON {
		err = p.printJSON(res)
	} else {
		err = p.printTry(r.CustomerId, res)
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
	case res.RefusedFirst > 0:
		fmt.Fprintf(p.stdout, "exception %d of --with would be refused by %s\n", res.RefusedFirst,
			refusalWords(res.Refusal))
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
