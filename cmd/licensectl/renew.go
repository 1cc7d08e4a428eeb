package main

import (
	"context"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// renewCommand returns the verb for LicenseService.RenewLicense.
func (p *program) renewCommand() *cobra.Command {
	acquired := timeFlag{p: p}
	var label deviceLabel
	return newCommand(p, command[*licensedv1.RenewLicenseResponse]{
		use: "renew CUSTOMER DEVICE TITLE", short: "Move the expiry of a licence to a full period from now",
		long: "renew moves the expiry to a full licence period from now. A released licence is never renewed.",
		example: "  licensectl renew Bayley iphone GlowS01E01\n" +
			"  licensectl renew Bayley iphone GlowS01E01 --command-id c7",
		args: []string{"CUSTOMER", "DEVICE", "TITLE"},
		flags: func(c *cobra.Command) {
			acquired.bindAcquired(c)
			label.bind(c)
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.RenewLicenseResponse, error) {
			kind, err := label.kind()
			if err != nil {
				return nil, err
			}
			return c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				TitleId:      args[2],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
				AcquiredAt:   acquired.timestamp(),
				DeviceName:   label.name, DeviceType: kind,
			})
		},
		words: func(r *licensedv1.RenewLicenseResponse, t tense) string {
			return supersededWords(r, t, licenceWords(t.of("renewed", "would renew"), r.License))
		},
	})
}
