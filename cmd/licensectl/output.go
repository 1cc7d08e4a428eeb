package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// compactJSON returns a message in the protobuf mapping, in one line. (protojson varies its spacing.)
func compactJSON(m proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		text = fmt.Appendf(nil, "%q", err.Error())
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return fmt.Appendf(nil, "%q", err.Error())
	}
	return b.Bytes()
}

// printJSON prints a message, or anything else, for people and programs.
func (p *program) printJSON(v any) error {
	if m, ok := v.(proto.Message); ok {
		v = compactJSON(m)
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

// count writes a number with its noun.
func count[N int | uint32 | uint64 | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
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
