// Package verify checks what is stored of customers, one or all, and prints the findings: licensectl does so through a
// gateway, licensed in the directory of a stopped node.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// DamagedError has the number of errors among the printed findings.
type DamagedError struct{ Errors int }

func (e DamagedError) Error() string {
	return terminal.Count(e.Errors, "error was found", "errors were found")
}

// Store is what is checked.
type Store interface {
	// Customers returns a page of ids after one, in order; none after the last.
	Customers(ctx context.Context, after string) ([]string, error)
	// Verify checks a customer, and calls progress now and then. It must be safe for concurrent use.
	Verify(
		ctx context.Context, customer string, repair bool, progress func(checked, total uint64),
	) (*licensedv1.CustomerReport, error)
	// NoHistory reports whether an error of Verify says that nothing ever happened to the customer.
	NoHistory(err error) bool
}

// Options say what to check, and how to print what was found.
type Options struct {
	// Customer to check; empty for all.
	Customer string
	// After is the customer after which to begin.
	After string
	// Jobs is the number of customers that are checked at once, at least 1.
	Jobs int
	// Repair repairs what can be repaired with certainty.
	Repair bool
	// Notes prints also what is worth knowing and not wrong.
	Notes bool
	// JSON prints each report as a line of JSON, in place of a table.
	JSON bool

	// Out is for findings, Err for how to continue after an interruption.
	Out, Err io.Writer
	// Width of the terminal in columns; 0 for no limit.
	Width int
	// Progress of the run.
	Progress *terminal.Progress
	// Program is the command to continue with, like "licensectl verify".
	Program string
}

// BindFlags declares the flags of a verb that verifies.
func (o *Options) BindFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.Repair, "repair", false, "repair what can be repaired with certainty (default false)")
	f.StringVar(&o.After, "after", "", "continue after that `CUSTOMER`")
	f.IntVar(&o.Jobs, "jobs", 2, "`number` of customers checked at once")
	f.BoolVar(&o.Notes, "notes", false, "also list what is worth knowing and not wrong")
}

// Check returns what is wrong with the options, or nil.
func (o *Options) Check() error {
	switch {
	case o.Jobs < 1:
		return errors.New("--jobs must be at least 1")
	case o.Customer != "" && o.After != "":
		return errors.New("--after is for checking all customers")
	}
	return nil
}

// Run checks what the options say. Errors: DamagedError, and those of the store.
func Run(ctx context.Context, store Store, o Options) error {
	r := &run{
		Options: o,
		store:   store,
		table:   terminal.NewTable(o.Out, o.Width, "CUSTOMER", "SEVERITY", "CHECK", "EVENTS", "FINDING"),
	}
	if o.Customer == "" {
		if err := r.all(ctx); err != nil {
			return err
		}
		return r.finish(nil)
	}
	report, err := store.Verify(ctx, o.Customer, o.Repair,
		func(checked, total uint64) { r.Progress.Show("%d of %d events", checked, total) })
	if err != nil {
		return errors.Join(r.Progress.Clear(), err)
	}
	if err := r.print(report); err != nil {
		return err
	}
	return r.finish(report)
}

// run is one call of Run. What it counts is used by the goroutine that prints, in the
// order of the customers.
type run struct {
	Options
	store Store

	table                      *terminal.Table
	customers, events          uint64
	errors, warnings, repaired int
	last                       string // all customers up to this one were checked
}

// all checks all customers, several at once, and prints the reports in the order of their
// ids. After an error it prints how to continue.
func (r *run) all(ctx context.Context) error {
	type job struct {
		customer string
		report   *licensedv1.CustomerReport
		err      error
		done     chan struct{}
	}
	g, ctx := errgroup.WithContext(ctx)
	// In order, so that there is one place to continue from.
	ordered, work := make(chan *job, 4*r.Jobs), make(chan *job)
	g.Go(func() error {
		defer close(ordered)
		defer close(work)
		return Pages(r.After, func(after string) ([]string, error) {
			return r.store.Customers(ctx, after)
		}, func(id string) error {
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
	for range r.Jobs {
		g.Go(func() error {
			for j := range work {
				j.report, j.err = r.store.Verify(ctx, j.customer, r.Repair, func(uint64, uint64) {})
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
			if j.err != nil && !r.store.NoHistory(j.err) {
				return fmt.Errorf("customer %s: %w", j.customer, j.err)
			}
			r.last = j.customer
			if j.report == nil {
				continue // Known, but nothing ever happened.
			}
			if err := r.print(j.report); err != nil {
				return err
			}
		}
		return nil
	})
	err := g.Wait()
	if err == nil {
		return nil
	}
	if flushErr := errors.Join(r.Progress.Clear(), r.table.Flush()); flushErr != nil {
		return flushErr
	}
	if r.last != "" {
		program, _, _ := strings.Cut(r.Program, " ")
		fmt.Fprintf(r.Err, "%s: %s checked; continue with: %s --after %s\n",
			program, terminal.Count(r.customers, "customer", "customers"), r.Program, r.last)
	}
	return err
}

// Pages calls f with the ids of all pages after one.
func Pages(after string, page func(after string) ([]string, error), f func(id string) error) error {
	for {
		ids, err := page(after)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := f(id); err != nil {
				return err
			}
			after = id
		}
	}
}

// print counts and prints a report.
func (r *run) print(report *licensedv1.CustomerReport) error {
	r.customers++
	r.events += report.Events
	r.Progress.Show("%s, %s", terminal.Count(r.customers, "customer", "customers"),
		terminal.Count(r.events, "event", "events"))
	for _, f := range report.Findings {
		switch {
		case f.Mended:
			r.repaired++
		case f.Severity == licensedv1.Severity_SEVERITY_ERROR:
			r.errors++
		case f.Severity == licensedv1.Severity_SEVERITY_WARNING:
			r.warnings++
		}
		if err := r.printFinding(report.CustomerId, f); err != nil {
			return err
		}
	}
	if r.JSON {
		_, err := fmt.Fprintf(r.Out, "%s\n", terminal.JSON(report))
		return err
	}
	return nil
}

// printFinding adds a finding to the table.
func (r *run) printFinding(customer string, f *licensedv1.Finding) error {
	if r.JSON || f.Severity == licensedv1.Severity_SEVERITY_NOTE && !r.Notes {
		return nil
	}
	where := "-"
	if f.ToSequence > 0 {
		where = fmt.Sprintf("%d-%d", f.FromSequence, f.ToSequence)
	}
	message := f.Message
	if f.Mended {
		message = "REPAIRED: " + message
	}
	return r.table.Row(customer, strings.ToLower(strings.TrimPrefix(f.Severity.String(), "SEVERITY_")), f.Check,
		where, message)
}

// finish prints the end; of a single customer what was checked.
func (r *run) finish(only *licensedv1.CustomerReport) error {
	if err := errors.Join(r.Progress.Clear(), r.table.Flush()); err != nil {
		return err
	}
	if !r.JSON {
		if only != nil {
			live := "compared"
			if !only.LiveStateCompared {
				live = "not compared"
			}
			fmt.Fprintf(r.Out, "%s: %s (%d archived), %s (and %d stray), %s; snapshots that equal the replay: %d; "+
				"live state: %s\n",
				only.CustomerId, terminal.Count(only.Events, "event", "events"), only.ArchivedEvents,
				terminal.Count(only.Roots, "root", "roots"),
				only.StrayRoots, terminal.Count(only.Segments, "segment", "segments"), only.SnapshotsEqual, live)
		}
		fmt.Fprintf(r.Out, "checked %s, %s: %s, %s", terminal.Count(r.customers, "customer", "customers"),
			terminal.Count(r.events, "event", "events"), terminal.Count(r.errors, "error", "errors"),
			terminal.Count(r.warnings, "warning", "warnings"))
		if r.repaired > 0 {
			fmt.Fprintf(r.Out, ", %d repaired", r.repaired)
		}
		fmt.Fprintln(r.Out)
	}
	if r.errors > 0 {
		return DamagedError{r.errors}
	}
	return nil
}
