package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// archiveCommand returns the verb for AdminService.ArchiveCustomer. The customer is
// loaded by it.
func (p *program) archiveCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "archive CUSTOMER", Short: "Move the closed part of a customer's history to the archive now",
		Long: "archive does at once what the archiver would do in its time: it copies the closed partitions of a\n" +
			"customer to the archive, verifies the copy, and trims the hot tier.",
		Example: "  licensectl archive Bayley\n  licensectl archive Bayley --all",
		Args:    exactArgs("CUSTOMER"),
	}
	c.Flags().BoolVar(&all, "all", false, "also what is too little for a segment yet")
	c.RunE = func(c *cobra.Command, args []string) error {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		res, err := conn.admin.ArchiveCustomer(ctx,
			&licensedv1.ArchiveCustomerRequest{CustomerId: args[0], All: all})
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(res)
		}
		_, err = fmt.Fprintf(p.stdout, "%s of %s moved to %s (%s); the archive has the history up to event %d\n",
			terminal.Count(res.Events, "event", "events"), terminal.Count(res.Partitions, "partition", "partitions"),
			terminal.Count(res.Segments, "segment", "segments"), size(res.SegmentBytes), res.Through)
		return err
	}
	return p.customerCommand(c)
}
