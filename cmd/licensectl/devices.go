package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// devicesCommand returns the verb for LicenseService.ListDevices. All pages are joined;
// those after the first may be of a later state.
func (p *program) devicesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "devices CUSTOMER", Short: "List a customer's devices and the limit of the plan",
		Example: "  licensectl devices Bayley",
		Args:    exactArgs("CUSTOMER"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		var res *licensedv1.ListDevicesResponse
		err = eachPage(func(token string) (string, error) {
			page, err := conn.ListDevices(ctx, &licensedv1.ListDevicesRequest{
				CustomerId: args[0], PageToken: token,
			})
			if err != nil {
				return "", err
			}
			// The last page has the figures that apply to the whole.
			page.Devices = append(res.GetDevices(), page.Devices...)
			res = page
			return page.NextPageToken, nil
		})
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(res)
		}
		t := p.newTable("DEVICE", "STATE", ">ACTIVE LICENCES", "LAST DOWNLOAD (UTC)")
		inUse := 0
		for _, d := range res.Devices {
			state := "active"
			if !d.Active {
				state = "deactivated"
			} else if d.Selected {
				state = "active, stays"
			}
			if d.ActiveLicenses > 0 {
				inUse++
			}
			if err := t.Row(d.DeviceId, state, fmt.Sprint(d.ActiveLicenses), clock(d.LastDownloadAt)); err != nil {
				return err
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%s in use, plan %s allows %d\n",
			terminal.Count(inUse, "device", "devices"), res.PlanId, res.DeviceLimit)
		return err
	}
	return p.customerCommand(c)
}
