package main

import (
	"context"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// releaseCommand returns the verb for LicenseService.ReleaseLicense.
func (p *program) releaseCommand() *cobra.Command {
	acquired := timeFlag{p: p}
	return newCommand(p, command[*licensedv1.ReleaseLicenseResponse]{
		use: "release CUSTOMER DEVICE TITLE", short: "End a licence",
		long: "release ends a licence. Releasing it again changes nothing.",
		example: "  licensectl release Bayley iphone GlowS01E01\n" +
			"  licensectl release Bayley iphone GlowS01E01 --command-id c7",
		args:  []string{"CUSTOMER", "DEVICE", "TITLE"},
		flags: acquired.bindAcquired,
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.ReleaseLicenseResponse, error) {
			return c.ReleaseLicense(ctx, &licensedv1.ReleaseLicenseRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				TitleId:      args[2],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
				AcquiredAt:   acquired.timestamp(),
			})
		},
		words: func(r *licensedv1.ReleaseLicenseResponse, t tense) string {
			return supersededWords(r, t, licenceWords(t.of("released", "would release"), r.License))
		},
	})
}
