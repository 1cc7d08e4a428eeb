package settings

import (
	"testing"
	"time"
)

func TestPeriod(t *testing.T) {
	for text, want := range map[string]struct {
		value time.Duration
		shown string
	}{
		"90d":   {90 * day, "90d"},
		"0d":    {0, "0d"},
		"0":     {0, "0d"},
		"36h":   {36 * time.Hour, "36h0m0s"},
		"48h":   {2 * day, "2d"},
		"1h30m": {90 * time.Minute, "1h30m0s"}, "100ms": {100 * time.Millisecond, "100ms"},
	} {
		var d time.Duration
		p := Period{&d}
		if err := p.Set(text); err != nil || d != want.value || p.String() != want.shown {
			t.Errorf("%q: %v shown as %q, %v", text, d, p, err)
		}
		var again time.Duration
		if err := (Period{&again}).Set(p.String()); err != nil || again != d {
			t.Errorf("%q is shown as %q, which is %v, %v", text, p, again, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "90", "-3h", "99999999d", "x"} {
		d := 7 * time.Second
		if err := (Period{&d}).Set(text); err == nil || d != 7*time.Second {
			t.Errorf("%q is taken as %v", text, d)
		}
	}
}
