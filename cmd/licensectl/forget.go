package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// forgetTimeout is the time that forgetting a customer may take, unless --timeout is longer: files are rewritten.
const forgetTimeout = 5 * time.Minute

// forgetCommand returns the verb for AdminService.ForgetCustomer. It prints a receipt.
func (p *program) forgetCommand() *cobra.Command {
	unknown := false
	c := &cobra.Command{
		Use: "forget CUSTOMER --reason TEXT", Short: "Remove a customer for good",
		Long: `forget deletes the history and the state of a customer in the store and in the archive. There is no way
back, and the id is never accepted again, also not by an import: give a customer who returns another id.
A tombstone with an HMAC of the id stays, so that nothing of the customer comes back. After a backup was
restored that is older, run forget again. Running it again is harmless.

An id without a history is an error, since it may be mistyped. With --even-if-unknown it gets a tombstone, too, so that
nobody can ever use it.

The receipt says what was deleted, and what remains elsewhere.`,
		Example: "  licensectl forget Bayley --reason \"request 4711 of the data subject\"",
		Args:    exactArgs("CUSTOMER"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if p.reason == "" {
			return usagef("state why the customer is forgotten with --reason; it is recorded in the audit log")
		}
		conn, err := p.dial()
		if err != nil {
			return err
		}
		p.timeout = max(p.timeout, forgetTimeout)
		ctx, cancel := p.call(c.Context())
		defer cancel()
		res, err := conn.admin.ForgetCustomer(ctx, &licensedv1.ForgetCustomerRequest{
			CustomerId: args[0], EvenIfUnknown: unknown,
		})
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(res)
		}
		return p.printReceipt(args[0], res)
	}
	c.Flags().BoolVar(&unknown, "even-if-unknown", unknown, "also forget an id that has no history")
	return p.customerCommand(c)
}

// printReceipt prints what was deleted and what remains.
func (p *program) printReceipt(customer string, r *licensedv1.ForgetCustomerResponse) error {
	if r.Before {
		fmt.Fprintf(p.stdout, "%s was forgotten before, at %s.\n", customer, clock(r.ForgottenAt))
	} else {
		fmt.Fprintf(p.stdout, "%s was forgotten at %s.\n", customer, clock(r.ForgottenAt))
	}
	fmt.Fprintf(p.stdout, "Deleted: %s and %s with their snapshots of the store, %s of the archive.\n",
		terminal.Count(r.Events, "event", "events"), terminal.Count(r.Roots, "root", "roots"),
		terminal.Count(r.Segments, "segment", "segments"))
	fmt.Fprintf(p.stdout, "Tombstone: %s\nWhat remains:\n", r.Tombstone)
	for _, remains := range r.Remains {
		if _, err := fmt.Fprintf(p.stdout, "- %s\n", remains); err != nil {
			return err
		}
	}
	return nil
}
