package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// verifyFlags are those of verify.
type verifyFlags struct {
	repair     bool
	data       string
	archive    string
	after      string
	jobs       int
	notesShown bool
}

func (p *program) verifyCommand() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use: "verify [CUSTOMER]", Short: "Check all that is stored of a customer, or of all",
		Long: "verify checks the chain of roots, that no event is missing and each can be read, what the archive holds, and that\n" +
			"replaying the events gives each snapshot and the live state. It changes nothing, unless --repair is given: then\n" +
			"records that were archived, verified and not trimmed are trimmed, and archived roots stripped. A damaged snapshot\n" +
			"needs no repair: the state is rebuilt from the events when the customer is loaded next. Nothing else is ever\n" +
			"repaired. If verify is interrupted, it prints how to continue.\n\n" +
			"With --data it checks the directory of a node that is stopped, without any service.",
		Example: "  licensectl verify Bayley\n  licensectl verify\n  licensectl verify --after Bayley --jobs 8\n" +
			"  licensectl verify --data /var/lib/licensed",
		Args: exactArgs("[CUSTOMER]"),
	}
	c.Flags().BoolVar(&f.repair, "repair", false, "repair what can be repaired with certainty (default false)")
	c.Flags().StringVar(&f.data, "data", "", "`DIRECTORY` of a stopped node to check instead of a running service")
	c.Flags().StringVar(&f.archive, "archive", "", "with --data: `DIRECTORY` of its archive (default: archive/ in it)")
	c.Flags().StringVar(&f.after, "after", "", "go on after that `CUSTOMER`")
	c.Flags().IntVar(&f.jobs, "jobs", 2, "customers checked at once")
	c.Flags().BoolVar(&f.notesShown, "notes", false, "also list what is worth knowing and not wrong")
	c.RunE = func(c *cobra.Command, args []string) error {
		if f.jobs < 1 {
			return usagef("--jobs must be at least 1")
		}
		if len(args) == 1 && f.after != "" {
			return usagef("--after is for checking all customers")
		}
		return p.verify(c.Context(), &f, args)
	}
	return p.customerCommand(c)
}

// verifier checks customers, of a service or of a directory.
type verifier interface {
	customers(ctx context.Context, after string) ([]string, error)
	verify(ctx context.Context, customer string, repair bool, progress func(checked, total uint64)) (*licensedv1.CustomerReport, error)
}

func (p *program) verify(ctx context.Context, f *verifyFlags, args []string) error {
	var v verifier
	if f.data != "" {
		offline, err := node.OpenOffline(node.Config{
			Data: f.data, Archive: f.archive, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			return err
		}
		defer offline.Close()
		v = offlineVerifier{offline}
	} else {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		v = onlineVerifier{p, conn}
	}
	r := &verifyRun{program: p, flags: f, verifier: v, table: p.newTable("CUSTOMER", "SEVERITY", "CHECK", "EVENTS", "FINDING"), line: p.newProgress()}
	if len(args) == 1 {
		report, err := v.verify(ctx, args[0], f.repair, func(checked, total uint64) { r.line.show("%d of %d events", checked, total) })
		if err != nil {
			return errors.Join(r.line.clear(), err)
		}
		if err := r.take(report); err != nil {
			return err
		}
		return r.finish(report)
	}
	if err := r.all(ctx); err != nil {
		return err
	}
	return r.finish(nil)
}

// verifyRun is a run of verify.
type verifyRun struct {
	*program
	flags    *verifyFlags
	verifier verifier

	table                      *table
	line                       *progress
	customers, events          uint64
	errors, warnings, repaired int
	last                       string // all customers up to this one were checked
}

// all checks all customers, some at a time.
func (r *verifyRun) all(ctx context.Context) error {
	type job struct {
		customer string
		report   *licensedv1.CustomerReport
		err      error
		done     chan struct{}
	}
	g, ctx := errgroup.WithContext(ctx)
	// In order, so that there is one place to continue from.
	ordered, work := make(chan *job, 4*r.flags.jobs), make(chan *job)
	g.Go(func() error {
		defer close(ordered)
		defer close(work)
		return pages(r.flags.after, func(after string) ([]string, error) { return r.verifier.customers(ctx, after) }, func(id string) error {
			j := &job{customer: id, done: make(chan struct{})}
			for _, c := range []chan *job{ordered, work} {
				select {
				case c <- j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range r.flags.jobs {
		g.Go(func() error {
			for j := range work {
				j.report, j.err = r.verifier.verify(ctx, j.customer, r.flags.repair, func(uint64, uint64) {})
				close(j.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range ordered {
			select {
			case <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			var gone *exitError
			if j.err != nil && !(errors.As(r.explain(j.err), &gone) && gone.reason == "NO_HISTORY") {
				return fmt.Errorf("customer %s: %w", j.customer, j.err)
			}
			r.last = j.customer
			if j.report == nil {
				continue // Known, but nothing ever happened.
			}
			if err := r.take(j.report); err != nil {
				return err
			}
		}
		return nil
	})
	err := g.Wait()
	if err == nil {
		return nil
	}
	if flushErr := errors.Join(r.line.clear(), r.table.flush()); flushErr != nil {
		return flushErr
	}
	if r.last != "" {
		fmt.Fprintf(r.stderr, "licensectl: %s checked; go on with: licensectl verify --after %s\n", count(r.customers, "customer", "customers"), r.last)
	}
	return err
}

// take takes in a report.
func (r *verifyRun) take(report *licensedv1.CustomerReport) error {
	r.customers++
	r.events += report.Events
	r.line.show("%s, %s", count(r.customers, "customer", "customers"), count(r.events, "event", "events"))
	if r.output == outputJSON {
		_, err := fmt.Fprintf(r.stdout, "%s\n", compactJSON(report))
		r.tally(report)
		return err
	}
	r.tally(report)
	for _, f := range report.Findings {
		if f.Severity == licensedv1.Severity_SEVERITY_NOTE && !r.flags.notesShown {
			continue
		}
		where := "-"
		if f.ToSequence > 0 {
			where = fmt.Sprintf("%d-%d", f.FromSequence, f.ToSequence)
		}
		message := f.Message
		if f.Mended {
			message = "REPAIRED: " + message
		}
		if err := r.table.row(report.CustomerId, severityName(f.Severity), f.Check, where, message); err != nil {
			return err
		}
	}
	return nil
}

func severityName(s licensedv1.Severity) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "SEVERITY_"))
}

func (r *verifyRun) tally(report *licensedv1.CustomerReport) {
	for _, f := range report.Findings {
		switch {
		case f.Mended:
			r.repaired++
		case f.Severity == licensedv1.Severity_SEVERITY_ERROR:
			r.errors++
		case f.Severity == licensedv1.Severity_SEVERITY_WARNING:
			r.warnings++
		}
	}
}

// finish prints the end; of a single customer what was checked.
func (r *verifyRun) finish(only *licensedv1.CustomerReport) error {
	if err := errors.Join(r.line.clear(), r.table.flush()); err != nil {
		return err
	}
	if r.output == outputTable {
		if only != nil {
			live := "compared"
			if !only.LiveStateCompared {
				live = "not compared"
			}
			fmt.Fprintf(r.stdout, "%s: %s (%d archived), %s (and %d stray), %s; snapshots that equal the replay: %d; live state: %s\n",
				only.CustomerId, count(only.Events, "event", "events"), only.ArchivedEvents, count(only.Roots, "root", "roots"), only.StrayRoots,
				count(only.Segments, "segment", "segments"), only.SnapshotsEqual, live)
		}
		fmt.Fprintf(r.stdout, "checked %s, %s: %s, %s", count(r.customers, "customer", "customers"), count(r.events, "event", "events"),
			count(r.errors, "error", "errors"), count(r.warnings, "warning", "warnings"))
		if r.repaired > 0 {
			fmt.Fprintf(r.stdout, ", %d repaired", r.repaired)
		}
		fmt.Fprintln(r.stdout)
	}
	if r.errors > 0 {
		return incomplete("%s found", count(r.errors, "error was", "errors were"))
	}
	return nil
}

// onlineVerifier asks a service.
type onlineVerifier struct {
	*program
	conn *connection
}

func (v onlineVerifier) customers(ctx context.Context, after string) ([]string, error) {
	ctx, cancel := v.call(ctx)
	defer cancel()
	res, err := unwrapped(v.conn.admin.ListCustomers(ctx, connect.NewRequest(&licensedv1.ListCustomersRequest{After: after})))
	return res.GetCustomerIds(), err
}

func (v onlineVerifier) verify(ctx context.Context, customer string, repair bool, progress func(checked, total uint64)) (*licensedv1.CustomerReport, error) {
	stream, err := v.conn.admin.VerifyCustomer(ctx, connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: customer, Mend: repair}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var report *licensedv1.CustomerReport
	for stream.Receive() {
		progress(stream.Msg().CheckedEvents, stream.Msg().TotalEvents)
		report = stream.Msg().Report
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if report == nil {
		return nil, fmt.Errorf("verify: %w", errNoAnswer)
	}
	return report, nil
}

// offlineVerifier reads a directory.
type offlineVerifier struct{ *node.Offline }

func (v offlineVerifier) customers(ctx context.Context, after string) ([]string, error) {
	return v.Customers(ctx, after, 1000)
}

func (v offlineVerifier) verify(ctx context.Context, customer string, repair bool, progress func(checked, total uint64)) (*licensedv1.CustomerReport, error) {
	return v.Verify(ctx, customer, repair, func(checked, total uint64) error { progress(checked, total); return ctx.Err() })
}
