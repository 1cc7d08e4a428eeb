package fallback

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"licensed/actors"
)

// waitOf returns the time for which a command that can be deferred waits for an owner that does not answer it, while
// the owner answers another command after each period, for as long as talks says.
func waitOf(
	t *testing.T, talks, period time.Duration, other func(ctx context.Context, f *Fallback, i int) error,
) (waited time.Duration) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &owner{}
		f := newFallback(t, o, dir)
		f.config.Patience = 50 * time.Millisecond
		f.config.Execute = func(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
			if customer == "slow" {
				<-ctx.Done()
				return actors.Reply{}, fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, ctx.Err())
			}
			return o.Execute(ctx, customer, c)
		}
		started := time.Now()
		go func() {
			for i := 0; time.Since(started) < talks; i++ {
				time.Sleep(period)
				if err := other(t.Context(), f, i); err != nil {
					t.Error(err)
				}
			}
		}()
		_, err := f.Execute(t.Context(), "slow", command("c", true), true)
		waited = time.Since(started)
		if !Unavailable(err) || !errors.Is(err, actors.ErrUnknownOutcome) {
			t.Errorf("%v: %v", waited, err)
		}
		f.config.Journal.Close()
		time.Sleep(talks) // The other commands end.
	})
	return waited
}

// TestSilence: a command that can be deferred waits for the patience where its owner answers nobody, and longer where
// it answers others; repeats, which an owner answers from memory, do not count.
func TestSilence(t *testing.T) {
	fresh := func(ctx context.Context, f *Fallback, i int) error {
		_, err := f.Execute(ctx, "other", command(fmt.Sprint("c", i), true), true)
		return err
	}
	repeat := func(ctx context.Context, f *Fallback, _ int) error {
		_, err := f.Execute(ctx, "other", command("same", true), true)
		return err
	}
	ms := time.Millisecond
	for _, test := range []struct {
		what          string
		talks, period time.Duration
		other         func(context.Context, *Fallback, int) error
		want          time.Duration
	}{
		{"silent from the start", 0, 0, fresh, 50 * ms},
		{"slow", 200 * ms, 20 * ms, fresh, 250 * ms},
		{"slow for as long as anybody waits", 3 * time.Second, 20 * ms, fresh, maxWait},
		{"one answer each 60 ms", 300 * ms, 60 * ms, fresh, 50 * ms},
		{"repeats only", 300 * ms, 20 * ms, repeat, 70 * ms}, // the first one is none
	} {
		if waited := waitOf(t, test.talks, test.period, test.other); waited != test.want {
			t.Errorf("%s: waited %v, want %v", test.what, waited, test.want)
		}
	}
}

// TestSilenceAndDeadline: a quarter of the time of a request is left for the journal.
func TestSilenceAndDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if left := longest(ctx); left <= 0 || left > 150*time.Millisecond {
		t.Errorf("%v of 200 ms", left)
	}
	if left := longest(t.Context()); left != maxWait {
		t.Errorf("%v without a deadline", left)
	}
}
