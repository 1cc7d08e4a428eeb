package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"licensed/internal/verify"
	"licensed/messages/licensedv1"
)

// verifyCommand returns the verb for AdminService.VerifyCustomer.
func (p *program) verifyCommand() *cobra.Command {
	var o verify.Options
	c := &cobra.Command{
		Use: "verify [CUSTOMER]", Short: "Check all that is stored of a customer, or of all",
		Long: `verify checks the chain of roots, that no event is missing and each can be read, what the archive
holds, and that replaying the events gives each snapshot and the live state. It changes nothing,
unless --repair is given: then records that were archived, verified and not trimmed are trimmed, and
archived roots stripped. A damaged snapshot needs no repair: the state is rebuilt from the events
when the customer is loaded next. Nothing else is ever repaired. If verify is interrupted, it prints
how to continue.

licensed store verify checks the directory of a stopped node, without any service.`,
		Example: "  licensectl verify Bayley\n  licensectl verify\n  licensectl verify --after Bayley --jobs 8",
		Args:    exactArgs("[CUSTOMER]"),
	}
	o.BindFlags(c.Flags())
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			o.Customer = args[0]
		}
		if err := o.Check(); err != nil {
			return usagef("%w", err)
		}
		return p.verify(c.Context(), o)
	}
	return p.customerCommand(c)
}

// verify checks one customer or all, by the code that licensed store verify shares.
func (p *program) verify(ctx context.Context, o verify.Options) error {
	conn, err := p.dial()
	if err != nil {
		return err
	}
	o.JSON, o.Out, o.Err, o.Width, o.Progress = p.output == outputJSON, p.stdout, p.stderr, p.width(), p.newProgress()
	o.Program = "licensectl verify"
	err = verify.Run(ctx, verifiedService{p, conn}, o)
	// Damage that was reported is not a failure of the program: the code says that the
	// history is damaged.
	var damaged verify.DamagedError
	if errors.As(err, &damaged) {
		return incomplete("%w", err)
	}
	return err
}

// verifiedService is a service to verify.
type verifiedService struct {
	*program
	conn *connection
}

// Customers implements verify.Store.
func (v verifiedService) Customers(ctx context.Context, after string) ([]string, error) {
	return v.customerPage(ctx, v.conn, after)
}

// NoHistory implements verify.Store.
func (v verifiedService) NoHistory(err error) bool { return isReason(err, licensedv1.ReasonNoHistory) }

// Verify implements verify.Store: the owner examines the customer, and the stream tells
// of its progress.
func (v verifiedService) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64),
) (*licensedv1.CustomerReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v.conn.admin.VerifyCustomer(ctx,
		&licensedv1.VerifyCustomerRequest{CustomerId: customer, Mend: repair})
	if err != nil {
		return nil, err
	}
	var report *licensedv1.CustomerReport
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		progress(m.CheckedEvents, m.TotalEvents)
		report = m.Report
	}
	if report == nil {
		return nil, fmt.Errorf("verify: %w", errNoAnswer)
	}
	return report, nil
}
