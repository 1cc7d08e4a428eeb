package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// stateCommand returns the verb for HistoryService.GetState.
func (p *program) stateCommand() *cobra.Command {
	var at, known string
	c := &cobra.Command{
		Use: "state CUSTOMER", Short: "Show the state of a customer, now or at a moment",
		Long: `state replays a customer's history up to a moment and shows the state then: licences, devices, what
counts against limits. Limits are those of the policy in force now. A time in the future shows what
will have expired. With --at and a time, what had happened by then counts, also if it was reported later;
with --known-at only what was recorded by then.`,
		Example: "  licensectl state Bayley\n  licensectl state Bayley --at 12\n" +
			"  licensectl state Bayley --at 2026-03-01 -o json\n" +
			"  licensectl state Bayley --at 2026-03-01 --known-at 2026-03-05",
		Args: exactArgs("CUSTOMER"),
	}
	c.Flags().StringVar(&at, "at", "now", "`MOMENT` to look at: the number of an event, or a time")
	knownAtFlag(c, &known)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := p.parseMoment("--at", at)
		if err != nil {
			return err
		}
		if m.known, err = p.parseKnownAt(known); err != nil {
			return err
		}
		res, err := p.stateAt(c.Context(), args[0], m)
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			err = p.printJSON(res)
		} else {
			err = p.printState(res)
		}
		// The state was shown and is that of an earlier moment: both, the output and the
		// exit code, are needed.
		if err == nil && len(res.Gaps) > 0 {
			return incomplete("%s; this is the state after event %d of %d",
				res.Gaps[0].Message, res.Moment.Sequence, res.Moment.HeadSequence)
		}
		return err
	}
	return p.customerCommand(c)
}

// stateAt asks for a customer's state at a moment.
func (p *program) stateAt(ctx context.Context, customer string, m moment) (*licensedv1.GetStateResponse, error) {
	r := &licensedv1.GetStateRequest{CustomerId: customer, KnownAt: m.known}
	switch {
	case m.sequence > 0:
		r.At = &licensedv1.GetStateRequest_Sequence{Sequence: m.sequence}
	case !m.time.IsZero():
		r.At = &licensedv1.GetStateRequest_Time{Time: m.timestamp()}
	}
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	return conn.history.GetState(ctx, r)
}

// momentWords returns which moment an answer is about: the event, the time, and the
// policy that its limits come from.
func momentWords(m *licensedv1.Moment) string {
	s := "before the first event"
	if m.Sequence > 0 {
		s = fmt.Sprintf("after event %d of %d (%s UTC)", m.Sequence, m.HeadSequence, clock(m.EventTime))
	}
	if m.LateFacts > 0 {
		s += fmt.Sprintf(" and %s that %s reported later", terminal.Count(m.LateFacts, "fact", "facts"),
			map[bool]string{true: "was", false: "were"}[m.LateFacts == 1])
	}
	s += fmt.Sprintf(", as of %s UTC", clock(m.AsOf))
	if m.KnownAt != nil {
		s += fmt.Sprintf(", as known at %s UTC", clock(m.KnownAt))
	}
	return s + ", policy " + m.PolicyVersion
}

// printState prints the figures, and a table for each part that is not empty.
func (p *program) printState(res *licensedv1.GetStateResponse) error {
	s := res.State
	plan := s.PlanId
	if s.DefaultPlan {
		plan += " (the default)"
	}
	fmt.Fprintf(p.stdout, "%s %s\nplan %s, %d of %s in use, %s, %s in 365 days\n",
		s.CustomerId, momentWords(res.Moment),
		plan, s.DevicesInUse, terminal.Count(s.DeviceLimit, "device", "devices"),
		terminal.Count(s.ActiveLicenses, "active licence", "active licences"),
		terminal.Count(s.Deactivations, "deactivation", "deactivations"))
	return p.printParts(p.licenceTable(s), p.deviceTable(s), p.titleTable(s), p.studioTable(s),
		p.exceptionTable(s.Exceptions))
}

// printParts prints the tables that are not empty, each below an empty line.
func (p *program) printParts(parts ...*terminal.Table) error {
	for _, t := range parts {
		if !t.Empty() {
			fmt.Fprintln(p.stdout)
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// The rows of these tables are few, and written by Flush.

func (p *program) licenceTable(s *licensedv1.CustomerState) *terminal.Table {
	t := p.newTable("LICENCE", "STUDIO", "STATE", "ACQUIRED (UTC)", "EXPIRES (UTC)", "RELEASED (UTC)", ">RENEWALS")
	for _, l := range s.Licenses {
		t.Add(l.DeviceId+"/"+l.TitleId, l.StudioId, licenceState(l), clock(l.AcquiredAt), clock(l.ExpiresAt),
			clock(l.ReleasedAt), fmt.Sprint(l.Renewals))
	}
	return t
}

// licenceState returns what a licence is at the moment.
func licenceState(l *licensedv1.LicenseState) string {
	switch {
	case l.Active:
		return "active"
	case l.ReleasedAt != nil:
		return "released"
	default:
		return "expired"
	}
}

func (p *program) deviceTable(s *licensedv1.CustomerState) *terminal.Table {
	t := p.newTable("DEVICE", "NAME", "TYPE", "STATE", ">ACTIVE LICENCES", "LAST USED (UTC)", "LAST DOWNLOAD (UTC)")
	for _, d := range s.Devices {
		t.Add(d.DeviceId, d.DeviceName, d.DeviceType.Words(), deviceState(d), fmt.Sprint(d.ActiveLicenses),
			clock(d.LastUsedAt), clock(d.LastDownloadAt))
	}
	return t
}

func (p *program) titleTable(s *licensedv1.CustomerState) *terminal.Table {
	t := p.newTable("TITLE", ">DOWNLOADS IN 365 DAYS", ">COUNTED PLAYBACKS")
	for _, x := range s.Titles {
		t.Add(x.TitleId, fmt.Sprint(x.Downloads), fmt.Sprint(x.CountedPlaybacks))
	}
	return t
}

func (p *program) studioTable(s *licensedv1.CustomerState) *terminal.Table {
	t := p.newTable("STUDIO", ">ACTIVE LICENCES")
	for _, x := range s.Studios {
		t.Add(x.StudioId, fmt.Sprint(x.ActiveLicenses))
	}
	return t
}
