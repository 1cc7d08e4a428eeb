package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// deactivateCommand returns the verb for LicenseService.DeactivateDevice.
func (p *program) deactivateCommand() *cobra.Command {
	activated := timeFlag{p: p}
	return newCommand(p, command[*licensedv1.DeactivateDeviceResponse]{
		use: "deactivate CUSTOMER DEVICE", short: "Remove a device and release its licences",
		long: "deactivate removes a device and releases every active licence on it. " +
			"--validate-only tells which would\n" +
			"end, what the removal would cost and how many devices would then be in use. A device without active\n" +
			"licences costs no removal.",
		example: "  licensectl deactivate Bayley iphone --validate-only\n  licensectl deactivate Bayley iphone",
		args:    []string{"CUSTOMER", "DEVICE"},
		flags: func(c *cobra.Command) {
			c.Flags().Var(&activated, "activated-at",
				"`TIME` of the activation that is meant; nothing changes if it is not the present one (default: the present one)")
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.DeactivateDeviceResponse, error) {
			return c.DeactivateDevice(ctx, &licensedv1.DeactivateDeviceRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
				ActivatedAt:  activated.timestamp(),
			})
		},
		words: func(r *licensedv1.DeactivateDeviceResponse, t tense) string {
			released := t.of("no licence was active on it", "no licence is active on it")
			if len(r.ReleasedTitleIds) > 0 {
				released = t.of("released ", "and release ") + strings.Join(r.ReleasedTitleIds, ", ")
			}
			return supersededWords(r, t, fmt.Sprintf("%s: %s of %s, %s%s", t.of("deactivated", "would remove"),
				r.DeviceId, r.CustomerId, released, removalWords(r.Removal)))
		},
	})
}

// removalWords says what a removal costs and frees.
func removalWords(r *licensedv1.Removal) string {
	if r == nil {
		return ""
	}
	used := fmt.Sprintf("%d in 365 days", r.Removals)
	if r.Limit != nil {
		used = fmt.Sprintf("%d of %d in 365 days", r.Removals, *r.Limit)
	}
	cost := "no removal, " + used + " used"
	if r.Counted {
		cost = "1 removal, " + used
	}
	return fmt.Sprintf("\n  cost: %s\n  then in use: %d of %s", cost, r.DevicesInUse,
		terminal.Count(r.DeviceLimit, "device", "devices"))
}
