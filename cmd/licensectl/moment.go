package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// moment is a point of a history as people give it: an event, a time, or now.
type moment struct {
	sequence uint64
	time     time.Time // zero with sequence, and for now
	known    *timestamppb.Timestamp
}

// knownAtFlag adds the flag for the time by which what counts was recorded.
func knownAtFlag(c *cobra.Command, known *string) {
	c.Flags().StringVar(known, "known-at", "",
		"`TIME` by which what counts was recorded; without --at the answer is also as of then (default: all is known)")
}

// parseKnownAt reads the value of that flag; nil if it is not given.
func (p *program) parseKnownAt(s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	m, err := p.parseTime("--known-at", s)
	if err == nil && m.time.IsZero() {
		m.time = p.now()
	}
	return m.timestamp(), err
}

// parseMoment reads a MOMENT as the help describes it.
func (p *program) parseMoment(what, s string) (moment, error) {
	switch {
	case s == "now" || s == "":
		return moment{}, nil
	case strings.HasPrefix(s, "-"):
		ago, err := parseAgo(s[1:])
		if err != nil {
			return moment{}, usagef("%s: %q is not a time ago, like -36h or -7d", what, s)
		}
		return moment{time: p.now().Add(-ago)}, nil
	}
	// A number is an event, never a year: 2026 is the 2026th event.
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		if n == 0 {
			return moment{}, usagef("%s: events are counted from 1", what)
		}
		return moment{sequence: n}, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly, "2006-01-02T15:04:05", "2006-01-02T15:04",
	} {
		// Times without a zone are in UTC, as all output is.
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return moment{time: t.UTC()}, nil
		}
	}
	return moment{}, usagef("%s: %q is not a moment: give an event's number, a time like 2026-03-01T20:15:00Z, "+
		"a time ago like -36h, or now", what, s)
}

// parseTime reads a MOMENT that is not the number of an event.
func (p *program) parseTime(what, s string) (moment, error) {
	m, err := p.parseMoment(what, s)
	if err != nil || m.sequence != 0 {
		err = usagef("%s: %q is not a time: give one like 2026-03-01 or 2026-03-01T20:15:00Z, a time ago like -36h, "+
			"or now", what, s)
	}
	return m, err
}

// parseAgo reads a duration, which may also be in days.
func parseAgo(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// timestamp returns the moment's time, nil if it has none.
func (m moment) timestamp() *timestamppb.Timestamp {
	if m.time.IsZero() {
		return nil
	}
	return timestamppb.New(m.time)
}
