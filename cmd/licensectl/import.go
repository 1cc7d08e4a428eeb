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
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// A request of an import has about so many records or bytes.
const (
	importRecords = 1000
	importBytes   = 1 << 20
)

func (p *program) importCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "import FILE", Short: "Record the histories of an export in a cluster that does not have them",
		Long: "import records the histories of an export (- is stdin) as they are: sequences, ids, times and data. It only adds\n" +
			"to customers that have no history. What is there already is compared; where it differs nothing is changed, the\n" +
			"customer is named, and the exit code is 7. So an import that was interrupted is simply run again. A customer takes\n" +
			"no commands until its import is complete. Histories with gaps are not imported.",
		Example: "  licensectl import histories.jsonl\n  licensectl -s old:8080 export | licensectl -s new:8080 import -",
		Args:    exactArgs("FILE"),
	}
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		in := io.Reader(os.Stdin)
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return usagef("%w", err)
			}
			defer f.Close()
			in = f
		}
		return p.importFrom(c.Context(), in)
	}
	return c
}

// importing is an import at work.
type importing struct {
	*program
	conn *connection
	line *progress

	customer string // whose lines are being read
	skip     bool   // the rest of that customer
	expect   uint64 // the next sequence
	records  [][]byte
	bytes    int
	// Of the present customer, then of all.
	imported, present      uint64
	customers, total, same uint64
	failed                 []string
	ended                  bool
}

func (p *program) importFrom(ctx context.Context, in io.Reader) error {
	i := &importing{program: p, line: p.newProgress()}
	var err error
	if i.conn, err = p.dial(); err != nil {
		return err
	}
	err = i.read(ctx, bufio.NewReaderSize(in, 1<<20))
	if clearErr := i.line.clear(); clearErr != nil {
		return clearErr
	}
	result := map[string]any{"customers": i.customers, "imported": i.total, "present": i.same, "failed": i.failed}
	if p.output == outputJSON {
		if printErr := p.printJSON(result); printErr != nil {
			return printErr
		}
	} else {
		fmt.Fprintf(p.stdout, "imported %s of %s; %s were there already\n", count(i.total, "event", "events"),
			count(i.customers, "customer", "customers"), count(i.same, "event", "events"))
	}
	switch {
	case err != nil:
		return err
	case len(i.failed) > 0:
		return &exitError{code: exitConflict, reason: "NOT_IMPORTED", err: fmt.Errorf("%s not imported, see above", count(len(i.failed), "customer was", "customers were"))}
	case !i.ended:
		return incomplete("the file is not complete: it ends without an exportEnd line; complete it (licensectl export --resume) and import it again")
	}
	return nil
}

// read reads the file to its end.
func (i *importing) read(ctx context.Context, r *bufio.Reader) error {
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
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
		if err := i.take(ctx, line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func noExport(line []byte) error {
	return usagef("this is no export of version %d: it begins with %.60q", exportVersion, bytes.TrimSpace(line))
}

// importLine is any line of an export.
type importLine struct {
	exportEnd
	CustomerID   string `json:"customerId"`
	Sequence     uint64 `json:"sequence"`
	CommandIndex uint32 `json:"commandIndex"`
	CommandCount uint32 `json:"commandCount"`
	Record       []byte `json:"record"`
	Gap          *struct {
		Message string `json:"message"`
	} `json:"gap"`
	CustomerEnd bool   `json:"end"`
	Missing     uint64 `json:"missingEvents"`
}

// take takes in a line.
func (i *importing) take(ctx context.Context, line []byte) error {
	var l importLine
	if err := json.Unmarshal(line, &l); err != nil {
		return incomplete("no JSON: %w; the file was cut or changed", err)
	}
	if l.exportEnd.End {
		i.ended = true
		return nil
	}
	if l.CustomerID == "" {
		return usagef("it has no customerId")
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
	case l.Gap != nil:
		i.fail("its history is not whole: " + l.Gap.Message)
		return nil
	case len(l.Record) == 0:
		return usagef("it has no record: was the file made by licensectl export?")
	case l.Sequence != i.expect:
		return incomplete("event %d of customer %s, where event %d belongs; the file was cut or changed", l.Sequence, l.CustomerID, i.expect)
	}
	i.expect++
	i.records = append(i.records, l.Record)
	i.bytes += len(l.Record)
	// A request has whole commands.
	if l.CommandIndex+1 == l.CommandCount && (len(i.records) >= importRecords || i.bytes >= importBytes) {
		return i.send(ctx, false)
	}
	return nil
}

func (i *importing) begin(customer string) {
	i.customer, i.skip, i.expect, i.records, i.bytes = customer, false, 1, nil, 0
	i.imported, i.present = 0, 0
}

// fail gives up on the present customer.
func (i *importing) fail(why string) {
	if err := i.line.clear(); err == nil {
		fmt.Fprintf(i.stderr, "licensectl: customer %s is not imported: %s\n", i.customer, why)
	}
	i.failed = append(i.failed, i.customer)
	i.skip, i.records = true, nil
}

func (i *importing) finish(ctx context.Context) error {
	if err := i.send(ctx, true); err != nil || i.skip {
		i.customer = ""
		return err
	}
	i.customers++
	i.total += i.imported
	i.same += i.present
	i.customer = ""
	i.line.show("%s, %s", count(i.customers, "customer", "customers"), count(i.total, "event", "events"))
	return nil
}

// importAttempts is how often a stretch is sent where that may help.
const importAttempts = 6

// send sends what was read.
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

func (i *importing) sendOnce(ctx context.Context, r *licensedv1.ImportCustomerRequest) (*licensedv1.ImportCustomerResponse, error) {
	ctx, cancel := i.call(ctx)
	defer cancel()
	return unwrapped(i.conn.admin.ImportCustomer(ctx, connect.NewRequest(r)))
}
