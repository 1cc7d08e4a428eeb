package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// nodeCommand returns the verb for AdminService.GetNode: the process that answers, and no
// other.
func (p *program) nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "node", Short: "Show the status of one node",
		Example: "  licensectl node\n  licensectl node -s 10.0.0.7:8080 -o json",
		Args:    exactArgs(),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
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
			return p.printJSON(res)
		}
		for _, line := range nodeLines(res) {
			fmt.Fprintf(p.stdout, "%-12s %s\n", line[0], line[1])
		}
		return nil
	}
	return c
}

// nodeLines returns the lines of the status, each a title and a text.
func nodeLines(r *licensedv1.GetNodeResponse) [][2]string {
	lines := [][2]string{
		{"node", fmt.Sprintf("%s, %s", r.Name, r.State)},
		{"incarnation", r.Incarnation},
		{"version", fmt.Sprintf("%s (%s)", r.Version, r.GoVersion)},
		{"up", fmt.Sprintf("%s, since %s UTC", r.Uptime.AsDuration().Round(time.Second), clock(r.StartedAt))},
		{"customers", fmt.Sprintf("%d in memory, %d of them unpacked, %s",
			r.ResidentCustomers, r.UnpackedCustomers, size(r.ResidentBytes))},
		{"requests", fmt.Sprintf("%d in flight, %s",
			r.RequestsInFlight, terminal.Count(r.Followers, "follower", "followers"))},
		{"shards", fmt.Sprintf("%d of %d held, epochs %d to %d",
			r.ShardsHeld, r.Shards, r.LowestEpoch, r.HighestEpoch)},
		{"policy", fmt.Sprintf("%s (%s)", r.PolicyVersion, r.PolicySource)},
	}
	if s := r.Store; s != nil {
		lines = append(lines, [2]string{"store", storeLine(s)})
	}
	a := r.Archive
	if a == nil {
		return append(lines, [2]string{"archive", "none"})
	}
	lines = append(lines, [2]string{"archive", fmt.Sprintf("%s: %s in %s (%s)", a.Location,
		terminal.Count(a.ArchivedEvents, "event", "events"), terminal.Count(a.Segments, "segment", "segments"),
		size(a.SegmentBytes))})
	waiting := fmt.Sprintf("%s waiting, the longest for %s",
		terminal.Count(a.WaitingCustomers, "customer", "customers"), a.Lag.AsDuration().Round(time.Second))
	if a.LastError != "" {
		waiting += fmt.Sprintf("; %s, the last: %s",
			terminal.Count(a.Failures, "failure", "failures"), strings.TrimSpace(a.LastError))
	}
	return append(lines, [2]string{"archive lag", waiting})
}

// storeLine describes a store: one on other machines has requests in place of syncs, and a disk that is
// not known here.
func storeLine(s *licensedv1.StoreStatus) string {
	writes := terminal.Count(s.Writes, "write", "writes")
	if s.DiskBytes == 0 {
		return fmt.Sprintf("%s in %s, %s in %s",
			s.Kind, s.Location, writes, terminal.Count(s.Syncs, "request", "requests"))
	}
	return fmt.Sprintf("%s in %s, %s, %s in %s",
		s.Kind, s.Location, size(s.DiskBytes), writes, terminal.Count(s.Syncs, "sync", "syncs"))
}
