package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// customersCommand returns the verb for AdminService.ListCustomers. It prints ids as they
// come, since there may be millions.
func (p *program) customersCommand() *cobra.Command {
	var after string
	var limit uint64
	c := &cobra.Command{
		Use: "customers", Short: "List the customers that have a history",
		Example: "  licensectl customers --limit 20\n  licensectl customers --after Bayley",
		Args:    exactArgs(),
	}
	c.Flags().StringVar(&after, "after", "", "begin after that `CUSTOMER`")
	c.Flags().Uint64Var(&limit, "limit", 0, "print at most this `number`; 0 for all (default 0)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		n := uint64(0)
		err := p.eachCustomer(c.Context(), after, func(id string) error {
			if limit > 0 && n == limit {
				return errEnough
			}
			n++
			if p.output == outputJSON {
				// One object a line: an array would have to be read as a whole.
				return json.NewEncoder(p.stdout).Encode(map[string]string{"customerId": id})
			}
			_, err := fmt.Fprintln(p.stdout, id)
			return err
		})
		if err == errEnough { //nolint:errorlint // our own, passed through
			return nil
		}
		return err
	}
	return c
}

// errEnough ends a walk that has enough.
var errEnough = errors.New("enough")
