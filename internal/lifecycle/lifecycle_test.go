package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestMost: parts that do not end, be they several, leave the parts that are stopped after them some of the drain
// timeout.
func TestMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		for _, left := range []time.Duration{10 * time.Second, 2500 * time.Millisecond} {
			err := Most(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("%v, and then there is no time left: %v", err, ctx.Err())
			}
			if end, _ := ctx.Deadline(); time.Until(end) != left {
				t.Errorf("%v left, want %v", time.Until(end), left)
			}
		}
	})
}

// TestGo: a part that runs has returned before the parts that were started before it are stopped.
func TestGo(t *testing.T) {
	var returned, stopped bool
	p := New()
	p.Push("first", func(context.Context) error {
		if stopped = true; !returned {
			t.Error("stopped while a later part runs")
		}
		return nil
	})
	p.Go("second", func(ctx context.Context) {
		<-ctx.Done()
		returned = true
	})
	if err := p.Stop(t.Context(), slog.New(slog.DiscardHandler)); err != nil || !stopped {
		t.Errorf("stopped: %v, %v", stopped, err)
	}
}
