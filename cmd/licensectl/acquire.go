package main

import (
	"context"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// acquireCommand returns the verb for LicenseService.AcquireLicense. The reply has the
// licence as it is afterwards, whether it was made, renewed or left as it was.
func (p *program) acquireCommand() *cobra.Command {
	var newDownload bool
	var label deviceLabel
	return newCommand(p, command[*licensedv1.AcquireLicenseResponse]{
		use: "acquire CUSTOMER DEVICE TITLE", short: "Give a device a licence to a title",
		long: "acquire gives a device a licence to a title for the licence period. One that is active already is\n" +
			"returned unchanged; with --new-download another download is recorded. Lists and refusals show the\n" +
			"device by the name and the type that it was given last.",
		example: "  licensectl acquire Bayley iphone GlowS01E01\n" +
			"  licensectl acquire Bayley iphone GlowS01E01 --validate-only\n" +
			"  licensectl acquire Bayley iphone GlowS01E01 --device-name \"Anna's iPhone\" --device-type phone",
		args: []string{"CUSTOMER", "DEVICE", "TITLE"},
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&newDownload, "new-download", false, "record another download of an active licence")
			label.bind(c)
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.AcquireLicenseResponse, error) {
			kind, err := label.kind()
			if err != nil {
				return nil, err
			}
			return c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				TitleId:      args[2],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly, NewDownload: newDownload,
				DeviceName: label.name, DeviceType: kind,
			})
		},
		words: func(r *licensedv1.AcquireLicenseResponse, t tense) string {
			return licenceWords(t.of("acquired", "would acquire"), r.License)
		},
	})
}
