package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// planCommand returns the verb for LicenseService.ChangePlan.
func (p *program) planCommand() *cobra.Command {
	chosen := timeFlag{p: p}
	return newCommand(p, command[*licensedv1.ChangePlanResponse]{
		use: "plan CUSTOMER PLAN", short: "Move a customer to another plan",
		long: "plan moves a customer to another plan. A smaller one ends no licence. If more devices hold active\n" +
			"licences than it allows, those used last stay; the others neither acquire nor renew.\n" +
			"select chooses others.",
		example: "  licensectl plan Bayley premium",
		args:    []string{"CUSTOMER", "PLAN"},
		flags: func(c *cobra.Command) {
			c.Flags().Var(&chosen, "plan-changed-at",
				"`TIME` of the choice that is replaced; nothing changes if it is not the present one (default: the present one)")
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.ChangePlanResponse, error) {
			return c.ChangePlan(ctx, &licensedv1.ChangePlanRequest{
				CustomerId:   i.customer,
				PlanId:       args[1],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly, PlanChangedAt: chosen.timestamp(),
			})
		},
		words: func(r *licensedv1.ChangePlanResponse, t tense) string {
			staying := ""
			if len(r.StayingDeviceIds) > 0 {
				staying = t.of("; more are in use, and these stay: ", "; more are in use, and these would stay: ") +
					strings.Join(r.StayingDeviceIds, ", ")
			}
			return supersededWords(r, t, fmt.Sprintf("%s of %s: %s, which allows downloads on %s%s",
				t.of("plan", "new plan"), r.CustomerId, r.PlanId,
				terminal.Count(r.DeviceLimit, "device", "devices"), staying))
		},
	})
}

// selectCommand returns the verb for LicenseService.SelectDevices.
func (p *program) selectCommand() *cobra.Command {
	c := newCommand(p, command[*licensedv1.SelectDevicesResponse]{
		use: "select CUSTOMER DEVICE...", short: "Choose the devices that stay in a smaller plan",
		long: "select chooses the devices that stay. If the plan is exceeded, the choice holds at once and is made\n" +
			"once for each change of plan; otherwise it holds for the next smaller plan.",
		example: "  licensectl select Bayley iphone laptop",
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.SelectDevicesResponse, error) {
			return c.SelectDevices(ctx, &licensedv1.SelectDevicesRequest{
				CustomerId:   i.customer,
				DeviceIds:    args[1:],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
			})
		},
		words: func(r *licensedv1.SelectDevicesResponse, t tense) string {
			from := "from the next smaller plan on"
			if r.Binding {
				from = "from now on"
			}
			return fmt.Sprintf("devices of %s that %s %s: %s", r.CustomerId, t.of("stay", "would stay"), from,
				strings.Join(r.DeviceIds, ", "))
		},
	})
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < 2 {
			return usagef("CUSTOMER and at least one DEVICE are required (see %s --help)", c.CommandPath())
		}
		return nil
	}
	return c
}
