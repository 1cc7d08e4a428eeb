package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// customerVerb returns the verb for LicenseService.GetCustomer, all pages joined.
func (p *program) customerVerb() *cobra.Command {
	c := &cobra.Command{
		Use: "customer CUSTOMER", Short: "Show all that is accounted for a customer, and what is left of each limit",
		Example: "  licensectl customer Bayley\n  licensectl customer Bayley -o json",
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
			return p.printJSON(res)
		}
		p.printStale(res.Stale)
		return p.printCustomer(res)
	}
	return p.customerCommand(c)
}

// customerOf returns all that is accounted for a customer, all pages joined; those after the first may be of a later
// state. Errors: also if the customer has no history.
func customerOf(ctx context.Context, conn *connection, id string) (*licensedv1.GetCustomerResponse, error) {
	var res *licensedv1.GetCustomerResponse
	err := eachPage(func(token string) (string, error) {
		page, err := conn.GetCustomer(ctx, &licensedv1.GetCustomerRequest{
			CustomerId: id, PageToken: token, MaxStaleness: maxStaleness(),
		})
		if err != nil {
			return "", err
		}
		page.Devices = append(res.GetDevices(), page.Devices...)
		page.Licenses = append(res.GetLicenses(), page.Licenses...)
		page.Titles = append(res.GetTitles(), page.Titles...)
		page.Studios = append(res.GetStudios(), page.Studios...)
		page.Stale = cmp.Or(res.GetStale(), page.Stale)
		res = page
		return page.NextPageToken, nil
	})
	if err != nil {
		return nil, err
	}
	return res, known(id, res.Sequence)
}

// known returns the error that a customer has no history if its last event is number 0: LicenseService answers for any
// id, since the first command makes a customer known.
func known(customer string, sequence uint64) error {
	if sequence > 0 {
		return nil
	}
	return &exitError{
		code: exitNotFound, reason: licensedv1.ReasonNoHistory, err: fmt.Errorf("customer %s has no history", customer),
	}
}

// printCustomer writes a customer for people: the figures, and a table of each list that is not empty.
func (p *program) printCustomer(r *licensedv1.GetCustomerResponse) error {
	plan := r.PlanId
	if r.DefaultPlan {
		plan += " (default)"
	}
	t := p.newTable("AS OF (UTC)", "PLAN", "DEVICES IN USE", "DOWNLOADS IN 30 DAYS", "DEVICES REMOVED IN A YEAR",
		"EVENTS")
	t.Add(clock(r.AsOf), plan, quotaOf(r.DevicesInUse), quotaOf(r.MonthlyDownloads), quotaOf(r.Deactivations),
		fmt.Sprint(r.Sequence))
	devices := p.newTable("DEVICE", "NAME", "TYPE", "STATE", ">ACTIVE LICENCES", "LAST DOWNLOAD (UTC)")
	for _, d := range r.Devices {
		active := fmt.Sprint(d.ActiveLicenses)
		if d.Licenses != nil && d.Licenses.Limit != nil {
			active = quotaOf(d.Licenses)
		}
		devices.Add(d.DeviceId, d.DeviceName, d.DeviceType.Words(), deviceState(d), active, clock(d.LastDownloadAt))
	}
	licenses := p.newTable("DEVICE", "TITLE", "STATE", "ACQUIRED (UTC)", "EXPIRES (UTC)", ">RENEWALS")
	for _, l := range r.Licenses {
		licenses.Add(l.License.DeviceId, l.License.TitleId, enumWord(l.Status.String(), "LICENSE_STATUS_"),
			clock(l.License.AcquiredAt), expiryOf(l), fmt.Sprint(l.License.Renewals))
	}
	titles := p.newTable("TITLE", "STUDIO", ">DOWNLOADS", ">COUNTED PLAYS", "YEARLY LIMIT")
	for _, u := range r.Titles {
		titles.Add(u.TitleId, u.StudioId, fmt.Sprint(u.Downloads), fmt.Sprint(u.CountedPlaybacks), quotaOf(u.Yearly))
	}
	studios := p.newTable("STUDIO", "ACTIVE LICENCES")
	for _, s := range r.Studios {
		studios.Add(s.StudioId, quotaOf(s.Licenses))
	}
	lent := p.newTable("LENT", "DEVICE", "TITLES", "UNTIL (UTC)", "GATEWAY")
	for _, a := range r.Allowances {
		lent.Add(fmt.Sprint(a.Number), a.DeviceId, strings.Join(a.TitleIds, ", "), clock(a.ExpiresAt), a.GatewayId)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.GraceUntil != nil {
		fmt.Fprintf(p.stdout, "The plan is exceeded: until %s UTC, devices that do not stay may renew; "+
			"their licences end then.\n", clock(r.GraceUntil))
	}
	return p.printParts(lent, devices, licenses, titles, studios, p.exceptionTable(r.Exceptions))
}

// expiryOf returns when a licence expires, and what its first playback has to do with it.
func expiryOf(l *licensedv1.CustomerLicense) string {
	s := clock(l.License.ExpiresAt)
	switch {
	case l.License.PlayHours == nil:
		return s
	case l.FirstPlayedAt == nil:
		return fmt.Sprintf("%s, or %d h after a playback", s, l.License.GetPlayHours())
	default:
		return fmt.Sprintf("%s, played first %s", s, clock(l.FirstPlayedAt))
	}
}

// quotaOf returns the use of a limit, and from when on another is allowed if none is now.
func quotaOf(q *licensedv1.Quota) string {
	if q == nil || q.Limit == nil { // nil from a node of an earlier release
		return fmt.Sprintf("%d, no limit", q.GetUsed())
	}
	s := fmt.Sprintf("%d of %d", q.Used, q.GetLimit())
	if q.NextAt != nil {
		s += ", next " + clock(q.NextAt)
	}
	return s
}
