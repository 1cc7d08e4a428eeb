package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// exceptionCommand returns the command about exceptions from the rules.
func (p *program) exceptionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exception",
		Short: "Grant, list and withdraw exceptions from the rules for a customer",
		Long: "exception lets one customer deviate from the rules. The caller must be an operator, or support.\n" +
			"--reason is required, and recorded in the customer's history.",
		Example: "  licensectl exception grant devices Bayley 5 --until 2026-06-01 --reason \"ticket 4711\"\n" +
			"  licensectl exception list Bayley\n" +
			"  licensectl exception withdraw Bayley 3 --reason \"ticket 4711\"",
		Args: exactArgs(),

		Annotations: map[string]string{textOnly: "; use exception list"},
		RunE:        func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.grantCommand(), p.exceptionListCommand(), p.withdrawCommand())
	return c
}

// grantCommand returns the command with a verb for each kind of exception.
func (p *program) grantCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "grant",
		Short: "Grant a customer an exception",
		Long: "grant sets another limit until a date (devices, titles, monthly, studio, yearly, removals),\n" +
			"forgives something that happened, so that it does not count any more (removal, download, play),\n" +
			"or moves all that a device has to the id under which it was installed anew (merge).",
		Example: "  licensectl exception grant devices Bayley 5 --until 2026-06-01 --reason \"ticket 4711\"\n" +
			"  licensectl exception grant removal Bayley --reason \"ticket 4711\"\n" +
			"  licensectl exception grant merge Bayley old-iphone new-iphone --reason \"ticket 4711\"",
		Args: exactArgs(),

		Annotations: map[string]string{textOnly: "; use one of its verbs"},
		RunE:        func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, v := range p.grantVerbs() {
		c.AddCommand(p.grant(v))
	}
	return c
}

// grantVerbs returns the verbs of grant.
func (p *program) grantVerbs() []grantVerb {
	return []grantVerb{
		p.grantLimit("devices", "5", "devices for the present plan", licensedv1.LimitKind_LIMIT_KIND_DEVICES),
		p.grantLimit("titles", "50", "titles on each device for the present plan",
			licensedv1.LimitKind_LIMIT_KIND_DEVICE_TITLES),
		p.grantLimit("monthly", "60", "downloads in 30 days for the present plan",
			licensedv1.LimitKind_LIMIT_KIND_MONTHLY),
		p.grantLimit("removals", "unlimited", "removals in 365 days", licensedv1.LimitKind_LIMIT_KIND_REMOVALS),
		p.grantStudio(), p.grantYearly(), p.grantRemoval(),
		p.grantUse("download", "download"), p.grantUse("play", "counted playback"), p.grantMerge(),
	}
}

// grantVerb is a verb that grants one kind of exception.
type grantVerb struct {
	use, short, example string
	args                []string
	flags               func(*cobra.Command)
	// set sets the kind of the exception. Errors: usage errors.
	set func(r *licensedv1.GrantExceptionRequest, args []string) error
}

// grant returns the verb.
func (p *program) grant(v grantVerb) *cobra.Command {
	return newCommand(p, command[*licensedv1.GrantExceptionResponse]{
		use: v.use, short: v.short, example: "  licensectl exception grant " + v.example + " --reason \"ticket 4711\"",
		args: v.args, flags: v.flags,
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.GrantExceptionResponse, error) {
			r := &licensedv1.GrantExceptionRequest{
				CustomerId: i.customer, CommandId: i.commandID, IssuedAt: i.issuedAt, ValidateOnly: i.validateOnly,
				Reason: p.reason,
			}
			if err := p.reasonGiven(); err != nil {
				return nil, err
			}
			if err := v.set(r, args); err != nil {
				return nil, err
			}
			return c.GrantException(ctx, r)
		},
		words: func(r *licensedv1.GrantExceptionResponse, t tense) string {
			return exceptionWords(t.of("granted", "would be granted"), r.CustomerId, r.Exception)
		},
	})
}

// exceptionWords describes an exception after a command.
func exceptionWords(done, customer string, e *licensedv1.Exception) string {
	return fmt.Sprintf("%s: exception %d of %s, %s", done, e.GetNumber(), customer, e.Words())
}

// reasonGiven returns a usage error unless there is a reason.
func (p *program) reasonGiven() error {
	if p.reason == "" {
		return usagef("--reason is required: say why, for the customer's history")
	}
	return nil
}

// limitFlags are those of the verbs that set another limit.
type limitFlags struct{ until timeFlag }

// bind adds the flags to a verb.
func (f *limitFlags) bind(c *cobra.Command) {
	c.Flags().Var(&f.until, "until", "`TIME` until which the limit holds; required")
}

// set sets the limit of a request.
func (f *limitFlags) set(r *licensedv1.GrantExceptionRequest, number string, l *licensedv1.OtherLimit) error {
	if number != "unlimited" {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return usagef("%q is not a number, or unlimited", number)
		}
		limit := uint32(n)
		l.Limit = &limit
	}
	if f.until.at.IsZero() {
		return usagef("--until is required: the time until which the limit holds")
	}
	r.Until, r.Kind = f.until.timestamp(), &licensedv1.GrantExceptionRequest_Limit{Limit: l}
	return nil
}

func (p *program) grantStudio() grantVerb {
	f := &limitFlags{until: timeFlag{p: p}}
	return grantVerb{
		use: "studio CUSTOMER STUDIO N", short: "Set another number of active licences of a studio, until a date",
		example: "studio Bayley netflix 5 --until 2026-06-01", args: []string{"CUSTOMER", "STUDIO", "N"}, flags: f.bind,
		set: func(r *licensedv1.GrantExceptionRequest, args []string) error {
			return f.set(r, args[2], &licensedv1.OtherLimit{
				Kind: licensedv1.LimitKind_LIMIT_KIND_STUDIO, StudioId: args[1],
			})
		},
	}
}

func (p *program) grantYearly() grantVerb {
	f := &limitFlags{until: timeFlag{p: p}}
	var title, studio string
	return grantVerb{
		use: "yearly CUSTOMER N", short: "Set another yearly limit of titles, until a date",
		example: "yearly Bayley 5 --title GlowS01E01 --until 2026-06-01", args: []string{"CUSTOMER", "N"},
		flags: func(c *cobra.Command) {
			f.bind(c)
			c.Flags().StringVar(&title, "title", "", "only for this `TITLE` (default: each title)")
			c.Flags().StringVar(&studio, "studio", "", "only for the titles of this `STUDIO` (default: of each)")
		},
		set: func(r *licensedv1.GrantExceptionRequest, args []string) error {
			return f.set(r, args[1], &licensedv1.OtherLimit{
				Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, TitleId: title, StudioId: studio,
			})
		},
	}
}

// grantLimit returns the verb that sets another limit of a kind that needs no more than a number.
func (p *program) grantLimit(name, number, what string, kind licensedv1.LimitKind) grantVerb {
	f := &limitFlags{until: timeFlag{p: p}}
	return grantVerb{
		use: name + " CUSTOMER N", short: "Set another number of " + what + ", until a date",
		example: name + " Bayley " + number + " --until 2026-06-01", args: []string{"CUSTOMER", "N"}, flags: f.bind,
		set: func(r *licensedv1.GrantExceptionRequest, args []string) error {
			return f.set(r, args[1], &licensedv1.OtherLimit{Kind: kind})
		},
	}
}

func (p *program) grantRemoval() grantVerb {
	at := timeFlag{p: p}
	return grantVerb{
		use: "removal CUSTOMER", short: "Forgive the removal of a device", example: "removal Bayley",
		args: []string{"CUSTOMER"},
		flags: func(c *cobra.Command) {
			c.Flags().Var(&at, "at", "`TIME` of the removal (default: the latest that counts)")
		},
		set: func(r *licensedv1.GrantExceptionRequest, _ []string) error {
			r.Kind = &licensedv1.GrantExceptionRequest_Removal{
				Removal: &licensedv1.ForgivenRemoval{RemovedAt: at.timestamp()},
			}
			return nil
		},
	}
}

func (p *program) grantUse(name, what string) grantVerb {
	at := timeFlag{p: p}
	var device string
	return grantVerb{
		use: name + " CUSTOMER TITLE", short: "Forgive a " + what + " of a title", example: name + " Bayley GlowS01E01",
		args: []string{"CUSTOMER", "TITLE"},
		flags: func(c *cobra.Command) {
			c.Flags().Var(&at, "at", "`TIME` of the "+what+", as downloads -o json shows it (default: the latest that counts)")
			c.Flags().StringVar(&device, "device", "", "only on this `DEVICE` (default: any)")
		},
		set: func(r *licensedv1.GrantExceptionRequest, args []string) error {
			r.Kind = &licensedv1.GrantExceptionRequest_Use{Use: &licensedv1.ForgivenUse{
				TitleId: args[1], DeviceId: device, UsedAt: at.timestamp(), Playback: name == "play",
			}}
			return nil
		},
	}
}

func (p *program) grantMerge() grantVerb {
	return grantVerb{
		use: "merge CUSTOMER DEVICE NEW-DEVICE", short: "Move all of a device to the id of its new installation",
		example: "merge Bayley old-iphone new-iphone", args: []string{"CUSTOMER", "DEVICE", "NEW-DEVICE"},
		set: func(r *licensedv1.GrantExceptionRequest, args []string) error {
			r.Kind = &licensedv1.GrantExceptionRequest_Merge{
				Merge: &licensedv1.MergedDevice{OldDeviceId: args[1], NewDeviceId: args[2]},
			}
			return nil
		},
	}
}

// withdrawCommand returns the verb for LicenseService.WithdrawException.
func (p *program) withdrawCommand() *cobra.Command {
	return newCommand(p, command[*licensedv1.WithdrawExceptionResponse]{
		use: "withdraw CUSTOMER EXCEPTION", short: "End an exception",
		long: "withdraw ends an exception: the limit of the policy holds again, or what was forgiven counts again.\n" +
			"The merge of a device cannot be withdrawn.",
		example: "  licensectl exception withdraw Bayley 3 --reason \"ticket 4711\"",
		args:    []string{"CUSTOMER", "EXCEPTION"},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.WithdrawExceptionResponse, error) {
			n, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return nil, usagef("%q is not the number of an exception (see licensectl exception list)", args[1])
			}
			if err := p.reasonGiven(); err != nil {
				return nil, err
			}
			return c.WithdrawException(ctx, &licensedv1.WithdrawExceptionRequest{
				CustomerId: i.customer, CommandId: i.commandID, IssuedAt: i.issuedAt, ValidateOnly: i.validateOnly,
				Reason: p.reason, Number: n,
			})
		},
		words: func(r *licensedv1.WithdrawExceptionResponse, t tense) string {
			return exceptionWords(t.of("withdrawn", "would be withdrawn"), r.CustomerId, r.Exception)
		},
	})
}

// exceptionListCommand returns the verb that lists the exceptions that count now.
func (p *program) exceptionListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list CUSTOMER", Short: "List a customer's exceptions that count now",
		Long: "list shows the exceptions that count now. Those that ended are in the history:\n" +
			"licensectl events CUSTOMER.",
		Example: "  licensectl exception list Bayley",
		Args:    exactArgs("CUSTOMER"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		res, err := conn.GetCustomer(ctx, &licensedv1.GetCustomerRequest{
			CustomerId: args[0], PageSize: 1, MaxStaleness: maxStaleness(),
		})
		if err != nil {
			return err
		}
		if err := known(args[0], res.Sequence); err != nil {
			return err
		}
		if p.output == outputJSON {
			all := make([]json.RawMessage, len(res.Exceptions))
			for i, e := range res.Exceptions {
				all[i] = terminal.JSON(e)
			}
			var stale json.RawMessage
			if res.Stale != nil {
				stale = terminal.JSON(res.Stale)
			}
			return p.printJSON(struct {
				CustomerID string            `json:"customerId"`
				Exceptions []json.RawMessage `json:"exceptions"`
				Stale      json.RawMessage   `json:"stale,omitempty"`
			}{res.CustomerId, all, stale})
		}
		p.printStale(res.Stale)
		if len(res.Exceptions) == 0 {
			_, err := fmt.Fprintf(p.stdout, "%s has no exceptions\n", res.CustomerId)
			return err
		}
		return p.exceptionTable(res.Exceptions).Flush()
	}
	return p.customerCommand(c)
}

// exceptionTable returns a table of exceptions.
func (p *program) exceptionTable(all []*licensedv1.Exception) *terminal.Table {
	t := p.newTable(">EXCEPTION", "WHAT", "COUNTS UNTIL (UTC)", "GRANTED (UTC)", "REASON")
	for _, e := range all {
		t.Add(fmt.Sprint(e.Number), e.Words(), clock(e.Until), clock(e.GrantedAt), e.Reason)
	}
	return t
}
