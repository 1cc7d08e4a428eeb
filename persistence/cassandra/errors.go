package cassandra

import (
	"context"
	"errors"
	"fmt"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// Errors of opening a store, beside persistence.ErrUnavailable.
var (
	// ErrCredentials says that Cassandra refuses the user name or password.
	ErrCredentials = errors.New("credentials refused")
	// ErrSchema says that the keyspace does not have the schema that this program needs.
	ErrSchema = errors.New("schema does not fit")
	// ErrUnsafe says that the keyspace or cluster is set up in a way that can lose acknowledged events.
	ErrUnsafe = errors.New("unsafe setup")
)

// writeError classifies the error of a plain write or compare-and-set: ErrRejected if it certainly was
// not and will not be done, else ErrUnknownOutcome.
func writeError(err error) error {
	if isInvalid(err) {
		return fmt.Errorf("%w: %w", persistence.ErrRejected, err)
	}
	return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
}

// readError classifies the error of a read.
func readError(err error) error {
	if errors.Is(err, gocql.ErrNotFound) {
		return persistence.ErrNotFound
	}
	return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
}

// isInvalid reports whether Cassandra refused the request as such. It checks that before it executes
// anything.
func isInvalid(err error) bool {
	var answer gocql.RequestError
	return errors.As(err, &answer) && answer.Code() == gocql.ErrCodeInvalid
}

// isAnswer reports whether err came from a Cassandra node, which therefore is alive.
func isAnswer(err error) bool {
	var answer gocql.RequestError
	return err == nil || errors.As(err, &answer)
}

// readRetry lets a read be tried at two more nodes, unless the caller gave up or the answer would be
// the same.
type readRetry struct{}

const readAttempts = 3

func (readRetry) Attempt(q gocql.RetryableQuery) bool {
	return q.Attempts() < readAttempts && q.Context().Err() == nil
}

func (readRetry) GetRetryType(err error) gocql.RetryType {
	if isInvalid(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return gocql.Rethrow
	}
	return gocql.RetryNextHost
}
