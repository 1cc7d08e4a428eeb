package model_test

import (
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/model"
)

// TestCheck refuses runs that see licences expire.
func TestCheck(t *testing.T) {
	start := time.UnixMilli(1_790_000_000_123)
	for _, c := range []struct {
		name  string
		until time.Duration // of a title, after the start
		run   time.Duration
		says  string
	}{
		{"gone before", -25 * time.Hour, time.Hour, ""},
		{"gone just before, for a clock that jumps", -time.Hour, time.Hour, "title B"},
		{"gone meanwhile", 30 * time.Minute, time.Hour, "title B"},
		{"gone just after", 2 * time.Hour, time.Hour, "title B"},
		{"gone after", 26 * time.Hour, time.Hour, ""},
		{"the title that is gone on the tenth day", 26 * 24 * time.Hour, 9*24*time.Hour + time.Hour, "title G"},
		{"longer than licences", 100 * 24 * time.Hour, 29 * 24 * time.Hour, "licences of 720h"},
	} {
		r := model.Standard(start)
		title := r.Titles["B"]
		title.Until = start.Add(c.until).UnixMilli()
		r.Titles["B"] = title
		err := r.Check(start, c.run)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
	if r := model.Standard(start); r.Check(start, time.Hour) != nil {
		t.Error("the standard is refused")
	}
}
