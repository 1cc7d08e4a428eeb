package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// passivateCommand returns the verb for AdminService.PassivateCustomer. A customer that
// is busy is no failure of the service, so it has the code of "not now".
func (p *program) passivateCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "passivate CUSTOMER", Short: "Evict a customer from memory",
		Long: `passivate evicts a customer from memory, unless it has requests in progress. Nothing is lost; the
next request builds the state from the store again.`,
		Example: "  licensectl passivate Bayley",
		Args:    exactArgs("CUSTOMER"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		res, err := conn.admin.PassivateCustomer(ctx,
			&licensedv1.PassivateCustomerRequest{CustomerId: args[0]})
		if err == nil && !res.Busy {
			// A query also loads a customer without a history. The history is read without loading the customer.
			_, err = listEvents(ctx, conn, &licensedv1.ListEventsRequest{
				CustomerId: args[0], NewestFirst: true, Limit: 1,
			}, func(*licensedv1.HistoryItem) error { return nil })
		}
		if err != nil {
			return err
		}
		switch {
		case p.output == outputJSON:
			err = p.printJSON(res)
		case res.Passivated:
			_, err = fmt.Fprintf(p.stdout, "%s evicted from memory\n", args[0])
		// Neither evicted nor busy: that is no error, since the result is what was asked
		// for.
		case !res.Busy:
			_, err = fmt.Fprintf(p.stdout, "%s was not in memory\n", args[0])
		}
		if err == nil && res.Busy {
			return &exitError{
				code:   exitNotNow,
				reason: "BUSY",
				err:    fmt.Errorf("%s has requests in progress and stays in memory; try again", args[0]),
			}
		}
		return err
	}
	return p.customerCommand(c)
}
