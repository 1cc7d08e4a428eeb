package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/internal/historyjson"
	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// exportVersion is that of the format of exports. Readers accept no other.
const exportVersion = 1

// The lines of an export beside historyjson.Event and historyjson.Gap. An export is
// written once and read by later releases: fields are only added.
type (
	// exportHeader is the first line.
	exportHeader struct {
		Version    int    `json:"licensedExport"`
		ExportedAt string `json:"exportedAt"`
		Server     string `json:"server"`
	}
	// customerEnd comes after the events of each customer.
	customerEnd struct {
		CustomerID string `json:"customerId"`
		End        bool   `json:"end"`
		Events     uint64 `json:"events"`
		Missing    uint64 `json:"missingEvents"`
		// Unreadable says that not even the end of the history can be read.
		Unreadable bool `json:"unreadable,omitempty"`
	}
	// exportEnd is the last line.
	exportEnd struct {
		End       bool   `json:"exportEnd"`
		Customers uint64 `json:"customers"`
		Events    uint64 `json:"events"`
	}
)

// exportCommand returns the verb that writes histories to a file.
func (p *program) exportCommand() *cobra.Command {
	var out string
	var resume bool
	c := &cobra.Command{
		Use: "export [CUSTOMER]", Short: "Write histories as JSON lines, of one customer or of all",
		Long: `export writes every event of both tiers, one JSON object a line, as events --json=talk does, with the
stored record in base64 beside it; import takes such a file. After each customer comes a line with
"end", at the end of all one with "exportEnd": a file without it is not complete.

Each customer is as it was when its turn came. What cannot be read is a line with "gap", and the
exit code is 6.`,
		Example: "  licensectl export --out histories.jsonl\n  licensectl export --out histories.jsonl --resume\n" +
			"  licensectl export Bayley | jq .Event",
		Args: exactArgs("[CUSTOMER]"),
	}
	c.Flags().StringVar(&out, "out", "", "`FILE` to write, which must not exist; - is stdout (default: -)")
	c.Flags().BoolVar(&resume, "resume", false, "continue a file after its last complete customer")
	c.RunE = func(c *cobra.Command, args []string) error {
		if out == "-" {
			out = ""
		}
		if resume && (out == "" || len(args) > 0) {
			return usagef("--resume continues an export of all customers to a --out file")
		}
		return p.export(c.Context(), args, out, resume)
	}
	return p.customerCommand(c)
}

// export writes the histories. After an error it says how to continue; the file then ends
// within a customer, which --resume removes.
func (p *program) export(ctx context.Context, args []string, out string, resume bool) (err error) {
	e := &exporting{program: p, line: p.newProgress()}
	if e.conn, err = p.dial(); err != nil {
		return err
	}
	w, after := p.stdout, ""
	if out != "" {
		f, err := e.open(out, resume, &after)
		if err != nil {
			return err
		}
		// Closing may be what fails on a full disk.
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	e.w = bufio.NewWriterSize(w, 1<<20)
	if !e.begun {
		header := exportHeader{exportVersion, p.now().UTC().Format(time.RFC3339), p.server}
		if err := e.write(header); err != nil {
			return err
		}
	}
	if len(args) == 1 {
		err = e.customer(ctx, args[0])
	} else {
		err = p.eachCustomer(ctx, after, func(id string) error {
			err := e.customer(ctx, id)
			// A damaged customer must not end the export of all others.
			if status.Code(err) == codes.DataLoss {
				return e.unreadable(id, err)
			}
			if err != nil && !isReason(err, licensedv1.ReasonNoHistory) {
				return fmt.Errorf("customer %s: %w", id, err)
			}
			return nil
		})
	}
	if err == nil {
		err = e.write(exportEnd{true, e.customers, e.events})
	}
	// What was written before the error must reach the file: --resume continues after it.
	if err := errors.Join(e.line.Clear(), e.w.Flush(), err); err != nil {
		if out != "" && len(args) == 0 {
			fmt.Fprintf(p.stderr, "licensectl: continue with: licensectl export --out %s --resume\n", out)
		}
		return err
	}
	fmt.Fprintf(p.stderr, "licensectl: exported %s, %s\n",
		terminal.Count(e.customers, "customer", "customers"), terminal.Count(e.events, "event", "events"))
	if e.damaged > 0 {
		return incomplete("%s cannot be read; licensectl verify names the damage",
			terminal.Count(e.damaged, "customer", "customers"))
	}
	if e.missing > 0 {
		return incomplete("%s cannot be read", terminal.Count(e.missing, "event", "events"))
	}
	return nil
}

// exporting is an export in progress. The counts include what a resumed file had.
type exporting struct {
	*program
	conn                       *connection
	w                          *bufio.Writer
	line                       *terminal.Progress
	begun                      bool // the file has its first line
	customers, events, missing uint64
	damaged                    uint64 // customers of whom nothing can be read
}

// write appends a line.
func (e *exporting) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = e.w.Write(append(line, '\n'))
	return err
}

// customer writes the history of a customer and its end. The end is what makes the
// customer complete for --resume and import.
func (e *exporting) customer(ctx context.Context, id string) error {
	r := &licensedv1.ListEventsRequest{CustomerId: id, IncludeRecord: true}
	end, err := listEvents(ctx, e.conn, r, func(i *licensedv1.HistoryItem) error {
		e.line.Show("%s, %s", terminal.Count(e.customers, "customer", "customers"),
			terminal.Count(e.events, "event", "events"))
		if i.GetEvent() != nil {
			e.events++
		}
		return e.write(historyjson.Of(id, i))
	})
	if err != nil {
		return err
	}
	e.customers++
	e.missing += end.MissingEvents
	return e.write(customerEnd{CustomerID: id, End: true, Events: end.Events, Missing: end.MissingEvents})
}

// unreadable writes, in the place of a history of which not even the end can be read, a gap and an end: the import
// refuses such a customer, and continues with the next.
func (e *exporting) unreadable(id string, damage error) error {
	e.damaged++
	line := historyjson.Gap{CustomerID: id}
	line.Gap.From, line.Gap.Reason, line.Gap.Message = 1, "corrupt", e.explain(damage).Error()
	if err := e.write(line); err != nil {
		return err
	}
	return e.write(customerEnd{CustomerID: id, End: true, Unreadable: true})
}

// open opens the file to write to. With resume it is cut after the last complete customer.
func (e *exporting) open(name string, resume bool, after *string) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE
	if !resume {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, usagef("%s exists; --resume continues it", name)
	}
	if err != nil || !resume {
		return f, err
	}
	whole, err := e.complete(f, after)
	e.begun = whole > 0
	if err == nil {
		if err = f.Truncate(whole); err == nil {
			_, err = f.Seek(whole, io.SeekStart)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// complete returns the length of the part of an export that has complete customers, and
// the last of them. It counts what that part has.
func (e *exporting) complete(f io.Reader, after *string) (whole int64, err error) {
	r, at := bufio.NewReaderSize(f, 1<<20), int64(0)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil // A line without its end is not complete.
		}
		if err != nil {
			return 0, err
		}
		at += int64(len(line))
		var header exportHeader
		if at == int64(len(line)) {
			if err := json.Unmarshal(line, &header); err != nil || header.Version != exportVersion {
				return 0, noExport(line)
			}
			whole = at
			continue
		}
		// Lines are searched before they are decoded: nearly all of them are events.
		if !bytes.Contains(line, []byte(`"end":true`)) && !bytes.Contains(line, []byte(`"exportEnd":true`)) {
			continue
		}
		var end customerEnd
		if json.Unmarshal(line, &end) == nil && end.End {
			whole, *after = at, end.CustomerID
			if end.Unreadable {
				e.damaged++
				continue
			}
			e.customers++
			e.events += end.Events
			e.missing += end.Missing
		}
	}
}
