package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// deactivateCommand returns the verb for LicenseService.DeactivateDevice.
func (p *program) deactivateCommand() *cobra.Command {
	return newCommand(p, command[*licensedv1.DeactivateDeviceResponse]{
		use: "deactivate CUSTOMER DEVICE", short: "Remove a device and release its licences",
		long: "deactivate removes a device and releases every active licence on it. " +
			"--validate-only tells which would end.",
		example: "  licensectl deactivate Bayley iphone --validate-only\n  licensectl deactivate Bayley iphone",
		args:    []string{"CUSTOMER", "DEVICE"},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.DeactivateDeviceResponse, error) {
			return c.DeactivateDevice(ctx, &licensedv1.DeactivateDeviceRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
			})
		},
		words: func(r *licensedv1.DeactivateDeviceResponse) string {
			released := "no licence was active on it"
			if len(r.ReleasedTitleIds) > 0 {
				released = "released " + strings.Join(r.ReleasedTitleIds, ", ")
			}
			return fmt.Sprintf("deactivated: %s of %s, %s", r.DeviceId, r.CustomerId, released)
		},
	})
}
