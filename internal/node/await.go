package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"licensed/persistence"
)

// Pauses between two attempts to reach a store that is unavailable.
const (
	firstStorePause = 200 * time.Millisecond
	maxStorePause   = 2 * time.Second
)

// awaitStore calls a function until the store is present, for Config.StoreWait: processes that start before
// Cassandra does, as after a power failure, begin to serve when it is present. Any other error is final: waiting
// does not correct a wrong password.
func awaitStore[T any](ctx context.Context, n *Node, what string, do func() (T, error)) (T, error) {
	if n.config.StoreWait <= 0 {
		return do()
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstStorePause, maxStorePause
	began, attempts := time.Now(), 0
	result, err := backoff.Retry(ctx, func() (T, error) {
		attempts++
		result, err := do()
		if err != nil && !errors.Is(err, persistence.ErrUnavailable) && !errors.Is(err, persistence.ErrUnknownOutcome) {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(n.config.StoreWait), backoff.WithNotify(func(err error, pause time.Duration) {
		n.log.Warn("the "+what+" cannot be reached, trying again", "in", pause.Round(time.Millisecond),
			"giving_up_in", (n.config.StoreWait - time.Since(began)).Round(time.Second), "error", err)
	}))
	if err != nil && attempts > 1 && ctx.Err() == nil {
		err = fmt.Errorf("%w (tried %d times in %v)", err, attempts, time.Since(began).Round(time.Second))
	}
	return result, err
}
