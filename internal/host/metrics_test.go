package host

import (
	"testing"
	"time"
)

// TestRate: the rate is a mean over the last ten seconds, however often it is read.
func TestRate(t *testing.T) {
	var c counts
	if got := c.rate(); got != 0 {
		t.Errorf("%d before there are samples", got)
	}
	now := time.Unix(1000, 0)
	for range 20 {
		c.sample(now)
		for range 3 {
			if got := c.rate(); got != 0 {
				t.Errorf("%d without commands, want 0", got)
			}
		}
		now = now.Add(time.Second)
	}
	c.commands.Add(144) // in the second before the sample
	for i := range 12 {
		want := uint64(14)
		if i > 9 {
			want = 0
		}
		c.sample(now)
		if got := c.rate(); got != want {
			t.Errorf("%d s later: %d, want %d", i, got, want)
		}
		now = now.Add(time.Second)
	}
	if len(c.samples) > 11 {
		t.Errorf("%d samples are kept", len(c.samples))
	}
}
