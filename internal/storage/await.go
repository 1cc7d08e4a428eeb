package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"licensed/persistence"
)

// Pauses between two attempts to reach a store that is unavailable.
const (
	firstStorePause = 200 * time.Millisecond
	maxStorePause   = 2 * time.Second
)

// Await calls a function until the store can be reached, for a time (Config.StoreWait): processes that start before
// Cassandra does, as after a power failure, begin to serve once it runs. Any other error is final: waiting
// does not correct a wrong password. what is "store" or "archive".
func Await[T any](
	ctx context.Context, wait time.Duration, log *slog.Logger, what string, do func() (T, error),
) (T, error) {
	if wait <= 0 {
		return do()
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstStorePause, maxStorePause
	began, attempts := time.Now(), 0
	result, err := backoff.Retry(ctx, func() (T, error) {
		attempts++
		result, err := do()
		// An unknown outcome is that of a compare-and-set at the start, which may be
		// repeated.
		if err != nil && !errors.Is(err, persistence.ErrUnavailable) && !errors.Is(err, persistence.ErrUnknownOutcome) {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(wait),
		backoff.WithNotify(func(err error, pause time.Duration) {
			log.Warn("the "+what+" cannot be reached, trying again", "in", pause.Round(time.Millisecond),
				"giving_up_in", (wait - time.Since(began)).Round(time.Second), "error", err)
		}))
	if err != nil && attempts > 1 && ctx.Err() == nil {
		err = fmt.Errorf("%w (tried %d times in %v)", err, attempts, time.Since(began).Round(time.Second))
	}
	return result, err
}
