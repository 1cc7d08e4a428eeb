package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// planCommand returns the verb for LicenseService.ChangePlan.
func (p *program) planCommand() *cobra.Command {
	chosen := timeFlag{p: p}
	return newCommand(p, command[*licensedv1.ChangePlanResponse]{
		use: "plan CUSTOMER PLAN", short: "Move a customer to another plan",
		long:    "plan moves a customer to another plan. A smaller one ends no licence; further devices are refused.",
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
		words: func(r *licensedv1.ChangePlanResponse) string {
			return supersededWords(r, fmt.Sprintf("plan of %s: %s, which allows downloads on %s",
				r.CustomerId, r.PlanId, terminal.Count(r.DeviceLimit, "device", "devices")))
		},
	})
}
