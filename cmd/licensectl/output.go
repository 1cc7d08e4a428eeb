package main

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// printJSON prints a message, or anything else, with two blanks of indentation. Messages
// have the names of the API's JSON.
func (p *program) printJSON(v any) error {
	if m, ok := v.(proto.Message); ok {
		v = terminal.JSON(m)
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", text)
	return err
}

// clock formats a time in tables: UTC, seconds.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.DateTime)
}

// clockMilli is clock with milliseconds.
func clockMilli(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05.000")
}

// size writes a number of bytes.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, exp := float64(n)/unit, 0
	for ; f >= unit && exp < 4; exp++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[exp])
}

// newTable returns a table on stdout; a title that begins with ">" is of a column that is aligned to the right.
func (p *program) newTable(titles ...string) *terminal.Table {
	return terminal.NewTable(p.stdout, p.width(), titles...)
}

// newProgress returns a line on stderr, which shows nothing unless somebody watches.
func (p *program) newProgress() *terminal.Progress {
	if !p.tells {
		return terminal.NewProgress(nil)
	}
	return terminal.NewProgress(p.progress)
}

// maxStaleness is the age of an answer that is shown if no current one can be had: gateways keep none for longer.
func maxStaleness() *durationpb.Duration { return durationpb.New(24 * time.Hour) }

// printStale says before an answer that it may be out of date; nothing if it is current.
func (p *program) printStale(s *licensedv1.Stale) {
	if s == nil {
		return
	}
	source := "read from the store"
	if s.Source == licensedv1.StaleSource_STALE_SOURCE_FORMER_ANSWER {
		source = "as answered before"
	}
	fmt.Fprintf(p.stdout, "STALE: as of %s UTC (%s ago), %s; the node of the customer cannot be reached\n",
		clock(s.AsOf), p.now().Sub(s.AsOf.AsTime()).Round(time.Second), source)
}
