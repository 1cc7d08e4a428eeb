package main

import (
	"io"
	"log/slog"
	"strings"

	"licensed/internal/terminal"
)

// newLogger returns a logger that writes in a format: text, json, or auto, which is text on a terminal and JSON
// elsewhere. What is no level is info.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // The settings allow levels only.
	options := &slog.HandlerOptions{Level: l, ReplaceAttr: withUnits}
	if strings.EqualFold(format, "text") || strings.EqualFold(format, "auto") && terminal.Columns(w) > 0 {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// withUnits writes durations as text, like "1.5s": the JSON handler would write a bare number of nanoseconds.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
