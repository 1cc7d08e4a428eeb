package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// licensesCommand returns the verb for LicenseService.ListLicenses, all pages joined.
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
		var res *licensedv1.ListLicensesResponse
		err = eachPage(func(token string) (string, error) {
			page, err := conn.ListLicenses(ctx, &licensedv1.ListLicensesRequest{
				CustomerId: args[0], IncludeInactive: all, PageToken: token,
			})
			if err != nil {
				return "", err
			}
			page.Licenses = append(res.GetLicenses(), page.Licenses...)
			res = page
			return page.NextPageToken, nil
		})
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(res)
		}
		t := p.newTable("DEVICE", "TITLE", "STUDIO", "ACQUIRED (UTC)", "EXPIRES (UTC)", ">RENEWALS", "STATE")
		now := p.now()
		for _, l := range res.Licenses {
			state := "active"
			switch {
			case l.Released:
				state = "released"
			case !now.Before(l.ExpiresAt.AsTime()):
				state = "expired"
			}
			if err := t.Row(l.DeviceId, l.TitleId, l.StudioId, clock(l.AcquiredAt), clock(l.ExpiresAt),
				fmt.Sprint(l.Renewals), state); err != nil {
				return err
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if len(res.Licenses) == 0 {
			_, err = fmt.Fprintf(p.stdout, "customer %s holds no licence\n", args[0])
		}
		return err
	}
	return p.customerCommand(c)
}
