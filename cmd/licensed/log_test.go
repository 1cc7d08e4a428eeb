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
		log, err := newLogger(&out, test.level, test.format)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		log.Info("hello")
		if got := out.String(); !strings.HasPrefix(got, test.says) || (got == "") != (test.says == "") {
			t.Errorf("%+v: %q", test, got)
		}
	}
	for _, bad := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := newLogger(new(bytes.Buffer), bad[0], bad[1]); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// TestDurationsHaveUnits: a bare number in a log line would leave open whether it counts seconds or nanoseconds.
func TestDurationsHaveUnits(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out strings.Builder
		log, err := newLogger(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("shards handed over", "duration", 1500*time.Millisecond)
		if !strings.Contains(out.String(), "1.5s") {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}
