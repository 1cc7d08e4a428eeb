package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// licensesCommand returns the verb that lists licences as LicenseService.ListLicenses does. Their states
// are those at the server's clock.
func (p *program) licensesCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "licenses CUSTOMER", Short: "List a customer's licences",
		Example: "  licensectl licenses Bayley\n  licensectl licenses Bayley --all -o json",
		Args:    exactArgs("CUSTOMER"),
	}
	c.Flags().BoolVar(&all, "all", false, "also the released and expired ones that rules still know")
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
		licenses := slices.DeleteFunc(res.Licenses, func(l *licensedv1.CustomerLicense) bool {
			return !all && l.Status != licensedv1.LicenseStatus_LICENSE_STATUS_ACTIVE
		})
		if p.output == outputJSON {
			out := struct {
				AsOf     time.Time         `json:"asOf"`
				Sequence uint64            `json:"sequence,string"`
				Licenses []json.RawMessage `json:"licenses"`
				Stale    json.RawMessage   `json:"stale,omitempty"`
			}{AsOf: res.AsOf.AsTime(), Sequence: res.Sequence, Licenses: []json.RawMessage{}}
			if res.Stale != nil {
				out.Stale = terminal.JSON(res.Stale)
			}
			for _, l := range licenses {
				out.Licenses = append(out.Licenses, terminal.JSON(l))
			}
			return p.printJSON(out)
		}
		p.printStale(res.Stale)
		t := p.newTable("DEVICE", "TITLE", "STUDIO", "ACQUIRED (UTC)", "EXPIRES (UTC)", ">RENEWALS", "STATE")
		for _, x := range licenses {
			l := x.License
			if err := t.Row(l.DeviceId, l.TitleId, l.StudioId, clock(l.AcquiredAt), clock(l.ExpiresAt),
				fmt.Sprint(l.Renewals), enumWord(x.Status.String(), "LICENSE_STATUS_")); err != nil {
				return err
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if len(licenses) == 0 {
			_, err = fmt.Fprintf(p.stdout, "customer %s holds no licence\n", args[0])
		}
		return err
	}
	return p.customerCommand(c)
}
