package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestLogger(t *testing.T) {
	for _, test := range []struct{ level, format, says string }{
		{"info", "auto", `{"time":`}, // Not a terminal.
		{"debug", "text", "time="},
		{"warn", "json", ""},
		{"ERROR", "text", ""},
	} {
		var out bytes.Buffer
		newLogger(&out, test.level, test.format).Info("hello")
		if got := out.String(); !strings.HasPrefix(got, test.says) || (got == "") != (test.says == "") {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// TestDurationsHaveUnits: a bare number in a log line would leave open whether it counts seconds or nanoseconds.
func TestDurationsHaveUnits(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out strings.Builder
		newLogger(&out, "info", format).Info("shards handed over", "duration", 1500*time.Millisecond)
		if !strings.Contains(out.String(), "1.5s") {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}
