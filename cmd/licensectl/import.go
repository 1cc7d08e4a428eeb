package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// A request of an import has about this many records or bytes.
const (
	importRecords = 1000
	importBytes   = 1 << 20
)

// importCommand returns the verb that records an export.
func (p *program) importCommand() *cobra.Command {
	var end bool
	c := &cobra.Command{
		Use: "import FILE", Short: "Record the histories of an export in a cluster that does not have them",
		Long: `import records the histories of an export (- is stdin) as they are: sequences, ids, times and data.
It only adds to customers that have no history. What the cluster has already is compared; where it
differs nothing is changed, the customer is named, and the exit code is 7. So an import that was
interrupted is simply run again. A customer takes no commands until its import is complete.

The file is looked through first (stdin by way of a temporary file). Nothing is recorded of a file
that was changed, nor of a customer whose history has a gap or is cut off: the ranges are named, and
the exit code is 6.

With --end nothing is imported: the argument is a customer whose import was left incomplete. The
customer keeps the events that were imported, and takes commands again.`,
		Example: "  licensectl import histories.jsonl\n" +
			"  licensectl -s old:8080 export | licensectl -s new:8080 import -\n" +
			"  licensectl import --end Bayley",
		Args: exactArgs("FILE"),
	}
	c.Flags().BoolVar(&end, "end", false, "end the incomplete import of the customer named instead of a file")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if end {
			return p.endImport(c.Context(), args[0])
		}
		in := os.Stdin
		if args[0] != "-" {
			if in, err = os.Open(args[0]); err != nil {
				return usagef("%w", err)
			}
			defer in.Close()
		}
		// A pipe can be read once, and the file is read twice.
		if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
			spooled, remove, err := spool(in)
			if err != nil {
				return err
			}
			defer remove()
			in = spooled
		}
		return p.importFrom(c.Context(), in)
	}
	return c
}

// endImport has a customer keep what was imported so far and take commands: an import
// without records whose last part is this one.
func (p *program) endImport(ctx context.Context, customer string) error {
	conn, err := p.dial()
	if err != nil {
		return err
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	res, err := conn.admin.ImportCustomer(ctx,
		&licensedv1.ImportCustomerRequest{CustomerId: customer, Last: true})
	if err != nil {
		return err
	}
	if p.output == outputJSON {
		return p.printJSON(map[string]any{"customer": customer, "sequence": res.Sequence})
	}
	fmt.Fprintf(p.stdout, "import of %s ended with %s\n", customer, terminal.Count(res.Sequence, "event", "events"))
	return nil
}

// spool copies what can be read only once to a temporary file, since it is read twice.
// remove deletes it.
func spool(in io.Reader) (f *os.File, remove func(), err error) {
	f, err = os.CreateTemp("", "licensectl-import-*.jsonl")
	if err != nil {
		return nil, nil, err
	}
	remove = func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	if _, err = io.Copy(f, in); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		remove()
		return nil, nil, err
	}
	return f, remove, nil
}

// importing is an import in progress: the second reading of the file. Only the lines of
// one customer are in memory, and of those no more than one request has.
type importing struct {
	*program
	conn *connection
	line *terminal.Progress

	survey   *survey
	customer string // whose lines are being read
	skip     bool   // the rest of that customer
	records  [][]byte
	bytes    int
	// Of the present customer, then of all.
	imported, present      uint64
	customers, total, same uint64
	failed                 []string
	conflicts              int // of those that failed
}

// importFrom looks through the file, then imports it customer by customer. A customer
// that cannot be imported is reported and passed over.
func (p *program) importFrom(ctx context.Context, in io.ReadSeeker) error {
	i := &importing{program: p, line: p.newProgress(), survey: &survey{refused: map[string][]string{}}}
	var err error
	if i.conn, err = p.dial(); err != nil {
		return err
	}
	if err := eachLine(in, i.survey.take); err != nil {
		return err
	}
	// The last customer of a file that was cut off has no end line: begin finds that out.
	i.survey.begin("")
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err = eachLine(in, func(l *importLine) error { return i.take(ctx, l) })
	if clearErr := i.line.Clear(); clearErr != nil {
		return clearErr
	}
	result := map[string]any{"customers": i.customers, "imported": i.total, "present": i.same, "failed": i.failed}
	if p.output == outputJSON {
		if printErr := p.printJSON(result); printErr != nil {
			return printErr
		}
	} else {
		// Figures first: they say what was recorded, whatever the error below is.
		fmt.Fprintf(p.stdout, "imported %s of %s; %s existed already\n", terminal.Count(i.total, "event", "events"),
			terminal.Count(i.customers, "customer", "customers"), terminal.Count(i.same, "event", "events"))
	}
	switch {
	case err != nil:
		return err
	case len(i.failed) > 0:
		e := &exitError{code: exitDamaged, reason: "NOT_IMPORTED", err: fmt.Errorf("%s not imported, see above",
			terminal.Count(len(i.failed), "customer was", "customers were"))}
		if i.conflicts > 0 {
			e.code = exitConflict
		}
		return e
	case !i.survey.ended:
		return incomplete("the file is not complete: it ends without an exportEnd line; " +
			"complete it (licensectl export --resume) and import it again")
	}
	return nil
}

// eachLine calls f with the lines of an export, after its header. Errors have the number
// of the line.
func eachLine(in io.Reader, f func(*importLine) error) error {
	r := bufio.NewReaderSize(in, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		// The last line may lack its newline.
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 1 {
			var header exportHeader
			if err := json.Unmarshal(line, &header); err != nil || header.Version != exportVersion {
				return noExport(line)
			}
			continue
		}
		var l importLine
		if err = json.Unmarshal(line, &l); err != nil {
			err = incomplete("no JSON: %w; the file was cut or changed", err)
		} else {
			err = f(&l)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// noExport returns the error about a file whose first line is another one.
func noExport(line []byte) error {
	return usagef("this is not an export of version %d: it begins with %.60q", exportVersion, bytes.TrimSpace(line))
}

// importLine is any line of an export: an event, a gap, an end. Which one shows by the
// fields that are set.
type importLine struct {
	exportEnd
	CustomerID   string `json:"customerId"`
	Sequence     uint64 `json:"sequence"`
	CommandIndex uint32 `json:"commandIndex"`
	CommandCount uint32 `json:"commandCount"`
	Record       []byte `json:"record"`
	Gap          *struct {
		To      uint64 `json:"toSequence"`
		Message string `json:"message"`
	} `json:"gap"`
	CustomerEnd bool   `json:"end"`
	Missing     uint64 `json:"missingEvents"`
}

// survey is what was seen when an export was looked through before anything of it is
// recorded: half a history that was imported would have to be completed before the
// customer takes commands.
type survey struct {
	customer string // whose lines are being read; empty between customers
	expect   uint64 // the next sequence
	ended    bool   // the last line was present
	// refused customers, and why: histories that are not whole.
	refused map[string][]string
}

// begin records that the lines of another customer come, or none. One whose lines end
// without their end is refused.
func (s *survey) begin(customer string) {
	if s.customer != "" {
		s.refused[s.customer] = append(s.refused[s.customer],
			fmt.Sprintf("the file has no end of it after event %d", s.expect-1))
	}
	s.customer, s.expect = customer, 1
}

// take checks a line against those before it. A sequence that is wrong ends the import of
// everything: the file is not what was exported.
func (s *survey) take(l *importLine) error {
	if l.exportEnd.End {
		s.ended = true
		return nil
	}
	if l.CustomerID == "" {
		return usagef("it has no customerId")
	}
	// Lines of one customer follow one another.
	if l.CustomerID != s.customer {
		s.begin(l.CustomerID)
	}
	switch {
	case l.CustomerEnd:
		s.customer = ""
	case l.Gap != nil:
		s.refused[l.CustomerID] = append(s.refused[l.CustomerID], l.Gap.Message)
		// What follows a gap is checked as well, although nothing of the customer is
		// imported.
		s.expect = max(s.expect, l.Gap.To+1)
	case len(l.Record) == 0:
		return usagef("it has no record: was the file made by licensectl export?")
	case l.Sequence != s.expect:
		return incomplete("event %d of customer %s, where event %d belongs; the file was cut or changed",
			l.Sequence, l.CustomerID, s.expect)
	default:
		s.expect++
	}
	return nil
}

// why returns why a customer is not imported; "" if it is.
func (s *survey) why(customer string) string {
	const most = 3
	gaps := s.refused[customer]
	switch n := len(gaps); {
	case n == 0:
		return ""
	case n > most:
		gaps = append(slices.Clone(gaps[:most]), "and "+terminal.Count(uint64(n-most), "more gap", "more gaps"))
	}
	return "its history is not whole: " + strings.Join(gaps, "; ")
}

// take processes a line that the survey has seen. Lines are sent when they are enough for
// a request, at the end of a command.
func (i *importing) take(ctx context.Context, l *importLine) error {
	if l.exportEnd.End {
		return nil
	}
	if l.CustomerID != i.customer {
		i.begin(l.CustomerID)
	}
	switch {
	case l.CustomerEnd && i.skip:
		i.customer = ""
		return nil
	case l.CustomerEnd:
		return i.finish(ctx)
	case i.skip:
		return nil
	}
	i.records = append(i.records, l.Record)
	i.bytes += len(l.Record)
	// A request has whole commands, so that it may exceed the limits by one command.
	if l.CommandIndex+1 == l.CommandCount && (len(i.records) >= importRecords || i.bytes >= importBytes) {
		return i.send(ctx, false)
	}
	return nil
}

// begin starts the next customer, or passes over one that the survey refused.
func (i *importing) begin(customer string) {
	i.customer, i.skip, i.records, i.bytes = customer, false, nil, 0
	i.imported, i.present = 0, 0
	if why := i.survey.why(customer); why != "" {
		i.fail(why)
	}
}

// fail gives up on the present customer.
func (i *importing) fail(why string) {
	if err := i.line.Clear(); err == nil {
		fmt.Fprintf(i.stderr, "licensectl: customer %s is not imported: %s\n", i.customer, why)
	}
	i.failed = append(i.failed, i.customer)
	i.skip, i.records = true, nil
}

// finish sends the rest of a customer as the last part, and counts it.
func (i *importing) finish(ctx context.Context) error {
	if err := i.send(ctx, true); err != nil || i.skip {
		i.customer = ""
		return err
	}
	i.customers++
	i.total += i.imported
	i.same += i.present
	i.customer = ""
	i.line.Show("%s, %s", terminal.Count(i.customers, "customer", "customers"),
		terminal.Count(i.total, "event", "events"))
	return nil
}

// importAttempts is the number of times that a part is sent where that may help.
const importAttempts = 6

// send sends what was read of the customer. Where that may help it is repeated, with
// growing pauses: the service compares what it has already. A conflict fails the
// customer, another error ends the import.
func (i *importing) send(ctx context.Context, last bool) error {
	r := &licensedv1.ImportCustomerRequest{CustomerId: i.customer, Records: i.records, Last: last}
	for attempt := 0; ; attempt++ {
		res, err := i.sendOnce(ctx, r)
		if err == nil {
			i.imported += res.Imported
			i.present += res.Present
			i.records, i.bytes = nil, 0
			return nil
		}
		e := i.explain(err)
		switch {
		case e.code == exitConflict, e.code == exitUsage:
			i.fail(e.Error())
			i.conflicts++
			return nil
		case e.code != exitNotNow || attempt == importAttempts || ctx.Err() != nil:
			return fmt.Errorf("customer %s: %w", i.customer, err)
		}
		select {
		case <-time.After(100 * time.Millisecond << attempt):
		case <-ctx.Done():
		}
	}
}

// sendOnce sends a request once.
func (i *importing) sendOnce(
	ctx context.Context, r *licensedv1.ImportCustomerRequest,
) (*licensedv1.ImportCustomerResponse, error) {
	ctx, cancel := i.call(ctx)
	defer cancel()
	return i.conn.admin.ImportCustomer(ctx, r)
}
