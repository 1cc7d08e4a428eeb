package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// printLimits prints the limits of a policy, one a line; nothing for a node of an earlier release.
func (p *program) printLimits(l *licensedv1.PolicyLimits) error {
	if l == nil {
		return nil
	}
	t := p.newTable("LIMIT", "OF", ">VALUE")
	for _, plan := range l.Plans {
		of := "plan " + plan.PlanId
		if plan.DefaultPlan {
			of += " (default)"
		}
		t.Add("devices with active licences", of, fmt.Sprint(plan.Devices))
		t.Add("active licences on one device", of, limitWords(plan.TitlesPerDevice))
		t.Add("downloads in 30 days", of, limitWords(plan.DownloadsPerMonth))
		grace := "until expiry, no renewal"
		if plan.GraceDays != nil {
			grace = fmt.Sprint(*plan.GraceDays)
		}
		t.Add("days of grace after a smaller plan", of, grace)
		if a := plan.Allowances; a != nil {
			t.Add("downloads that are lent at a time", of, fmt.Sprint(a.Downloads))
			t.Add("allowances at a time", of, fmt.Sprint(a.Allowances))
			t.Add("hours of an allowance", of, fmt.Sprint(a.Hours))
		}
	}
	for _, s := range l.Studios {
		t.Add("active licences", "studio "+s.StudioId, limitWords(s.Licenses))
		if s.PlayHours != nil {
			t.Add("hours after the first playback", "studio "+s.StudioId, hoursWords(*s.PlayHours))
		}
	}
	t.Add("active licences", "any other studio", limitWords(l.StudioLicenses))
	counts := strings.ToLower(strings.TrimPrefix(l.YearlyCounts.String(), "YEARLY_COUNTS_"))
	if l.YearlyCounts == licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH {
		counts = "downloads and playbacks"
	}
	t.Add(counts+" in 365 days", "any title that is not listed", limitWords(l.UnlistedYearly))
	t.Add("titles with limits of their own", "the catalogue", fmt.Sprint(l.ListedTitles))
	t.Add("removals of devices in 365 days", "a customer", limitWords(l.Deactivations))
	t.Add("licences that are remembered", "a customer", fmt.Sprint(l.RememberedLicenses))
	t.Add("days until expiry", "a licence", fmt.Sprint(l.LicenseDays))
	t.Add("hours after the first playback", "any other title", hoursWords(l.GetPlayHours()))
	renew := "no"
	if l.RenewAfterPlay {
		renew = "yes"
	}
	t.Add("renewal after the first playback", "a licence with such hours", renew)
	end := "keep their expiry"
	if l.EndWithinDays != nil {
		end = fmt.Sprintf("%d days after it", *l.EndWithinDays)
	}
	t.Add("licences beyond available_until", "any title that does not say", end)
	t.Add("provisional renewals in an outage", "a licence and gateway", fmt.Sprint(l.ProvisionalRenewals))
	t.Add("hours until expiry", "a provisional renewal", fmt.Sprint(l.ProvisionalHours))
	keep := "unlimited"
	if l.HistoryByNode {
		keep = "set by the nodes"
	} else if l.HistoryDays != nil {
		keep = fmt.Sprint(*l.HistoryDays)
	}
	t.Add("days that events are kept", "the archive", keep)
	return t.Flush()
}

// hoursWords returns a number of hours; 0 for none that end anything.
func hoursWords(n uint32) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// limitWords returns a limit, or that there is none.
func limitWords(limit *uint32) string {
	if limit == nil {
		return "unlimited"
	}
	return fmt.Sprint(*limit)
}

// policyCommand returns the verb that shows the policy of the node that answers, and
// below it the one for AdminService.ReloadPolicy.
func (p *program) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Show the policy in force with its limits, or have its file read again",
		Example: "  licensectl policy\n  licensectl policy reload",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			conn, err := p.dial()
			if err != nil {
				return err
			}
			ctx, cancel := p.call(c.Context())
			defer cancel()
			res, err := conn.admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(map[string]any{
					"policyVersion": res.PolicyVersion, "policySource": res.PolicySource,
					"limits": terminal.JSON(res.PolicyLimits),
				})
			}
			fmt.Fprintf(p.stdout, "policy %s (%s)\n", res.PolicyVersion, res.PolicySource)
			return p.printLimits(res.PolicyLimits)
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "reload", Short: "Read the policy file again now",
		Long:    "reload reads the policy file again. A file with mistakes changes nothing; they are named.",
		Example: "  licensectl policy reload",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			conn, err := p.dial()
			if err != nil {
				return err
			}
			ctx, cancel := p.call(c.Context())
			defer cancel()
			res, err := conn.admin.ReloadPolicy(ctx, &licensedv1.ReloadPolicyRequest{})
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(res)
			}
			what := "the file is unchanged"
			if res.Changed {
				what = "in force from now on"
			}
			_, err = fmt.Fprintf(p.stdout, "policy %s, %s\n", res.PolicyVersion, what)
			return err
		},
	})
	return c
}
