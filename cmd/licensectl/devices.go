package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// devicesCommand returns the verb that lists devices as LicenseService.ListDevices does.
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
		res, err := customerOf(ctx, conn, args[0])
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(&licensedv1.ListDevicesResponse{
				Devices: res.Devices, DeviceLimit: res.DevicesInUse.GetLimit(), PlanId: res.PlanId,
				PlanChangedAt: res.PlanChangedAt, Sequence: res.Sequence, Stale: res.Stale,
				Exceptions: res.Exceptions,
			})
		}
		p.printStale(res.Stale)
		t := p.newTable("DEVICE", "NAME", "TYPE", "STATE", ">ACTIVE LICENCES", "LAST DOWNLOAD (UTC)")
		for _, d := range res.Devices {
			t.Add(d.DeviceId, d.DeviceName, d.DeviceType.Words(), deviceState(d), fmt.Sprint(d.ActiveLicenses),
				clock(d.LastDownloadAt))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%s in use, plan %s allows %d\n",
			terminal.Count(res.DevicesInUse.GetUsed(), "device", "devices"), res.PlanId, res.DevicesInUse.GetLimit())
		if err != nil {
			return err
		}
		return p.printParts(p.exceptionTable(res.Exceptions))
	}
	return p.customerCommand(c)
}

// deviceState returns what a device is.
func deviceState(d interface {
	GetActive() bool
	GetSelected() bool
	GetMergedInto() string
	GetActivatedAt() *timestamppb.Timestamp
	GetLastDownloadAt() *timestamppb.Timestamp
}) string {
	switch {
	case d.GetMergedInto() != "":
		return "merged into " + d.GetMergedInto()
	case !d.GetActive() && d.GetActivatedAt() == nil && d.GetLastDownloadAt() == nil:
		return "never had a licence" // It only reported facts.
	case !d.GetActive():
		return "deactivated"
	case d.GetSelected():
		return "active, stays"
	default:
		return "active"
	}
}
