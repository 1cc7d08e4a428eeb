package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// downloadsCommand returns the verb for LicenseService.ListDownloads, all pages joined.
func (p *program) downloadsCommand() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "downloads CUSTOMER [TITLE]", Short: "List downloads and counted plays, and whether another is allowed",
		Example: "  licensectl downloads Bayley\n  licensectl downloads Bayley GlowS01E01\n" +
			"  licensectl downloads Bayley GlowS01E01 --since 2020-01-01",
		Args: exactArgs("CUSTOMER", "[TITLE]"),
	}
	c.Flags().StringVar(&since, "since", "", "`TIME` from which on (default: the last 365 days)")
	c.RunE = func(c *cobra.Command, args []string) error {
		from, err := p.parseTime("--since", since)
		if err != nil {
			return err
		}
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		title := strings.Join(args[1:], "")
		var res *licensedv1.ListDownloadsResponse
		err = eachPage(func(token string) (string, error) {
			page, err := conn.ListDownloads(ctx, &licensedv1.ListDownloadsRequest{
				CustomerId: args[0], TitleId: title, Since: from.timestamp(), PageToken: token,
				MaxStaleness: maxStaleness(),
			})
			if err != nil {
				return "", err
			}
			page.Downloads = append(res.GetDownloads(), page.Downloads...)
			page.Stale = cmp.Or(res.GetStale(), page.Stale)
			res = page
			return page.NextPageToken, nil
		})
		if err == nil {
			err = known(args[0], res.Sequence)
		}
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.printJSON(res)
		}
		p.printStale(res.Stale)
		t := p.newTable("TIME (UTC)", "DEVICE", "TITLE", "USE")
		for _, d := range res.Downloads {
			use := "download"
			if d.Playback {
				use = "playback"
			}
			if err := t.Row(clock(d.At), d.DeviceId, d.TitleId, use); err != nil {
				return err
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%s\n", downloadWords(res))
		return err
	}
	return p.customerCommand(c)
}

// downloadWords returns the sentence below the table: the yearly limit, and whether
// another download is allowed.
func downloadWords(r *licensedv1.ListDownloadsResponse) string {
	plays := 0
	for _, d := range r.Downloads {
		if d.Playback {
			plays++
		}
	}
	s := terminal.Count(len(r.Downloads)-plays, "download", "downloads")
	if plays > 0 {
		s += " and " + terminal.Count(plays, "counted playback", "counted playbacks")
	}
	switch {
	case r.TitleId == "":
		return s
	case r.Limit == nil:
		return s + "; the title has no yearly limit"
	}
	s += fmt.Sprintf("; the yearly limit is %d, ", *r.Limit)
	switch {
	case r.Allowed:
		return s + "another is allowed"
	case r.NextAllowedAt != nil:
		return s + "another is allowed from " + clock(r.NextAllowedAt) + " UTC"
	default:
		return s + "another is not allowed"
	}
}
