package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"licensed/client"
	"licensed/internal/historyjson"
	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// eventsFlags are those of events.
type eventsFlags struct {
	follow, newest bool
	// json is the form of --json: "api", "talk", or "" for tables or what --output says.
	json           string
	from, to, tier string
	device, title  string
	limit          uint64
}

// Values of --json.
const (
	formAPI  = "api"
	formTalk = "talk"
)

// eventsCommand returns the verb for HistoryService.ListEvents and Follow.
func (p *program) eventsCommand() *cobra.Command {
	var f eventsFlags
	c := &cobra.Command{
		Use: "events CUSTOMER", Short: "List what happened to a customer",
		Long: `events lists the events of a customer, hot and archived ones as one history. Events that cannot be
read are named in their place, and the exit code is 6.

With --json, as with --output json, each line is an object with "event" or "gap": a HistoryItem of the
API. With --json=talk a line has the names of the talk: Event, Event Time (UTC), aggregateId, committed,
eventTimeStamp (milliseconds since 1970), eventOrderNumber, sequence, epoch, rowId, commandId, tier,
bytes, mapper, data, …`,
		Example: "  licensectl events Bayley\n" +
			"  licensectl events Bayley --json=talk --device iphone --title GlowS01E01\n" +
			"  licensectl events Bayley --newest --limit 20\n" +
			"  licensectl events Bayley --from 2026-03-01 --to 2026-04-01 --tier archive\n" +
			"  licensectl events Bayley --follow",
		Args: exactArgs("CUSTOMER"),
		RunE: func(c *cobra.Command, args []string) error { return p.events(c.Context(), args[0], &f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.json, "json", "", "one object a line, in the `FORM` of the API (api) or with the names of the talk (talk)")
	fl.Lookup("json").NoOptDefVal = formAPI
	fl.StringVar(&f.from, "from", "", "first `MOMENT`: that event, or at or after that time")
	fl.StringVar(&f.to, "to", "", "last `MOMENT`: that event, or before that time")
	fl.StringVar(&f.tier, "tier", "both", "hot, archive or both")
	fl.BoolVar(&f.newest, "newest", false, "newest first")
	fl.BoolVarP(&f.follow, "follow", "f", false, "wait for new events and print them, until interrupted")
	fl.StringVar(&f.device, "device", "", "only events about that device and its licences")
	fl.StringVar(&f.title, "title", "", "only events about licences for that title")
	fl.Uint64Var(&f.limit, "limit", 0, "print at most this `number`; 0 for all (default 0)")
	return p.customerCommand(c)
}

// eventsRequest returns the flags as a request. Errors: usage errors.
func (p *program) eventsRequest(customer string, f *eventsFlags) (*licensedv1.ListEventsRequest, error) {
	from, err := p.parseMoment("--from", f.from)
	if err != nil {
		return nil, err
	}
	to, err := p.parseMoment("--to", f.to)
	if err != nil {
		return nil, err
	}
	tier, ok := map[string]licensedv1.Tier{
		"both":    licensedv1.Tier_TIER_UNSPECIFIED,
		"hot":     licensedv1.Tier_TIER_HOT,
		"archive": licensedv1.Tier_TIER_ARCHIVE,
	}[f.tier]
	if !ok {
		return nil, usagef("--tier %q is not hot, archive or both", f.tier)
	}
	// A stream of events as they come has no end, no other order and one tier.
	if f.follow && (f.newest || f.to != "" || f.limit > 0 || tier != licensedv1.Tier_TIER_UNSPECIFIED) {
		return nil, usagef("--follow runs until it is interrupted, oldest event first: it takes no --to, --newest, " +
			"--tier or --limit")
	}
	return &licensedv1.ListEventsRequest{
		CustomerId:   customer,
		FromSequence: from.sequence,
		ToSequence:   to.sequence,
		FromTime:     from.timestamp(),
		ToTime:       to.timestamp(),
		NewestFirst:  f.newest, Tier: tier, DeviceId: f.device, TitleId: f.title, Limit: f.limit,
	}, nil
}

// events prints the events of a customer. What was printed before an error stays: a long
// listing may be useful without its end. With --follow it continues where the listing
// ended, also for a customer without a history.
func (p *program) events(ctx context.Context, customer string, f *eventsFlags) error {
	switch f.json {
	case formAPI, formTalk:
		p.output = outputJSON
	case "":
	default:
		return usagef("--json=%s is not api or talk", f.json)
	}
	r, err := p.eventsRequest(customer, f)
	if err != nil {
		return err
	}
	conn, err := p.dial()
	if err != nil {
		return err
	}
	w := p.newEventWriter(customer, f.json)
	end, err := listEvents(ctx, conn, r, w.item)
	// The stream's error says only that it was cut off.
	if ctx.Err() != nil {
		err = errInterrupted
	}
	// A customer without a history may get one while it is followed.
	missing := f.follow && isReason(err, licensedv1.ReasonNoHistory)
	if err != nil && !missing {
		return errors.Join(w.flush(), err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	if f.follow {
		return p.follow(ctx, conn, w, &licensedv1.FollowRequest{
			CustomerId: customer, AfterSequence: new(end.GetHeadSequence()), DeviceId: f.device, TitleId: f.title,
		})
	}
	return p.eventsEnd(w, end)
}

// listEvents calls f with the items of a listing and returns its end. Errors: those of f
// and of the API, and errNoAnswer for a stream without an end.
func listEvents(
	ctx context.Context, conn *connection, r *licensedv1.ListEventsRequest, f func(*licensedv1.HistoryItem) error,
) (*licensedv1.HistoryEnd, error) {
	ctx, cancel := context.WithCancel(ctx) // also where f has enough
	defer cancel()
	stream, err := conn.history.ListEvents(ctx, r)
	if err != nil {
		return nil, err
	}
	var end *licensedv1.HistoryEnd
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for _, i := range m.Items {
			if err := f(i); err != nil {
				return nil, err
			}
		}
		end = m.End
	}
	if end == nil {
		return nil, fmt.Errorf("events: %w", errNoAnswer)
	}
	return end, nil
}

// isReason reports whether an error is the API's for that reason.
func isReason(err error, reason string) bool {
	var api *client.Error
	return errors.As(err, &api) && api.Reason == reason
}

// eventsEnd prints the number of events, and returns an error if some could not be read.
func (p *program) eventsEnd(w *eventWriter, end *licensedv1.HistoryEnd) error {
	if p.output == outputTable {
		s := terminal.Count(end.Events, "event", "events")
		if end.Limited {
			s += ", and there are more: --limit"
		}
		if end.HeadSequence != end.Events {
			s += fmt.Sprintf("; the history has %d", end.HeadSequence)
		}
		fmt.Fprintln(p.stdout, s)
	}
	if end.Gaps > 0 {
		return incomplete("%s cannot be read, see above", terminal.Count(end.MissingEvents, "event", "events"))
	}
	return nil
}

// follow prints new events until interrupted. A stream that breaks off is continued where
// it ended; only an error that the gateway reports about the customer, such as a damaged
// history, ends it.
func (p *program) follow(
	ctx context.Context, conn *connection, w *eventWriter, r *licensedv1.FollowRequest,
) error {
	for item, err := range conn.Follow(ctx, r) {
		if err == nil {
			err = errors.Join(w.item(item), w.flush())
		}
		if ctx.Err() != nil {
			return nil // Interrupted is how this ends.
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// brokeOff reports a stream of Follow that cannot be opened for a while.
func (p *program) brokeOff(a client.Attempt) {
	if a.Method == licensedv1.HistoryService_Follow_FullMethodName && a.Number > 4 {
		fmt.Fprintf(p.stderr, "licensectl: the stream broke off, trying again: %v\n", a.Err)
	}
}

// eventWriter prints items of a history, as lines of JSON or as rows of a table.
type eventWriter struct {
	p        *program
	customer string
	talk     bool // JSON has the names of the talk
	limit    int  // of the terminal's columns, 0 for none
	narrow   bool // leaves out what takes room from the data
	table    *terminal.Table
	columns  int
	lines    *json.Encoder // with JSON, in place of the table
	out      *bufio.Writer
}

// wideEnough is the width of a terminal from which all columns are shown.
const wideEnough = 150

// newEventWriter returns a writer for the customer's events. On a narrow terminal it
// leaves out the columns that are rarely read.
func (p *program) newEventWriter(customer, form string) *eventWriter {
	titles := []string{">SEQ", "EVENT TIME (UTC)", "EVENT", "ABOUT", ">ORDER", "TIER", "ROW", "COMMAND", "DATA"}
	limit := p.width()
	narrow := limit > 0 && limit < wideEnough
	if narrow {
		titles = []string{">SEQ", "EVENT TIME (UTC)", "EVENT", "ABOUT", "TIER", "DATA"}
	}
	out := bufio.NewWriter(p.stdout)
	return &eventWriter{
		p: p, customer: customer, talk: form == formTalk, limit: limit, narrow: narrow,
		table: p.newTable(titles...), columns: len(titles),
		out: out, lines: json.NewEncoder(out),
	}
}

// item prints an event or a gap.
func (w *eventWriter) item(i *licensedv1.HistoryItem) error {
	switch {
	case w.talk:
		return w.lines.Encode(historyjson.Of(w.customer, i))
	case w.p.output == outputJSON:
		return w.lines.Encode(historyjson.OfAPI(i))
	}
	if g := i.GetGap(); g != nil {
		cells := make([]string, w.columns)
		cells[0], cells[1], cells[2], cells[len(cells)-1] = fmt.Sprint(g.FromSequence), "…", "CANNOT BE READ", g.Message
		return w.table.Row(cells...)
	}
	e := i.GetEvent()
	if w.narrow {
		return w.table.Row(fmt.Sprint(e.Sequence), clock(e.EventTime), e.Event, e.AggregateId, tierName(e.Tier),
			dataWords(e))
	}
	return w.table.Row(fmt.Sprint(e.Sequence), clockMilli(e.EventTime), e.Event, e.AggregateId,
		fmt.Sprint(e.EventOrderNumber),
		tierName(e.Tier), row(e), w.command(e.CommandId), dataWords(e))
}

// flush writes what is buffered.
func (w *eventWriter) flush() error { return errors.Join(w.out.Flush(), w.table.Flush()) }

// tierName returns TIER_HOT as "hot".
func tierName(t licensedv1.Tier) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "TIER_"))
}

// row names the partition of an event in short: the part of the row id that differs between the rows of a
// customer, and the epoch.
func row(e *licensedv1.HistoryEvent) string {
	return fmt.Sprintf("%s@e%d", e.RowId[strings.LastIndexByte(e.RowId, ':')+1:], e.Epoch)
}

// command returns a command's id, on a terminal only so much of a UUID that one knows it again.
func (w *eventWriter) command(id string) string {
	if _, err := uuid.Parse(id); err == nil && len(id) == 36 && w.limit > 0 {
		return id[:8] + "…"
	}
	return id
}

// dataWords returns the fields of an event in one cell, with who gave the command and why.
func dataWords(e *licensedv1.HistoryEvent) string {
	if e.Problem != "" {
		return "CANNOT BE DECODED: " + e.Problem
	}
	words := fields("", historyjson.Data(e.Data))
	if e.Principal != "" {
		words = append(words, "principal="+e.Principal)
	}
	// The data of an exception has the same reason already.
	if reason := fmt.Sprintf("reason=%q", e.Reason); e.Reason != "" && !slices.Contains(words, reason) {
		words = append(words, reason)
	}
	return strings.Join(words, " ")
}

// fields lists names and values, those of inner objects too.
func fields(prefix string, data map[string]any) []string {
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	// Maps have no order; the lines of two runs must be equal.
	sort.Strings(names)
	var out []string
	for _, name := range names {
		if inner, ok := data[name].(map[string]any); ok {
			out = append(out, fields(prefix, inner)...)
			continue
		}
		if list, ok := data[name].([]any); ok {
			out = append(out, prefix+name+"="+listWords(list))
			continue
		}
		value := fmt.Sprint(data[name])
		if t, err := time.Parse(time.RFC3339, value); err == nil {
			value = t.UTC().Format("2006-01-02T15:04:05Z")
		}
		if name == "reason" {
			value = strconv.Quote(value)
		}
		out = append(out, prefix+name+"="+value)
	}
	return out
}

// listWords returns a list of values, or of objects in braces.
func listWords(list []any) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = fmt.Sprint(v)
		if inner, ok := v.(map[string]any); ok {
			words[i] = "{" + strings.Join(fields("", inner), " ") + "}"
		}
	}
	return strings.Join(words, ",")
}
