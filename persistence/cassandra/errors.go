package cassandra

import (
	"context"
	"errors"
	"fmt"
	"regexp"

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
	if isRejected(err) {
		return fmt.Errorf("%w: %w", persistence.ErrRejected, err)
	}
	return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
}

// readError classifies the error of a read: ErrNotFound if Cassandra answered that there
// is no row, else ErrUnavailable.
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

// isRejected reports whether every Cassandra node would refuse the request, now and later: it is too large, for
// example. One whose schema lags behind refuses what is sound.
func isRejected(err error) bool {
	var answer gocql.RequestError
	return isInvalid(err) && errors.As(err, &answer) && !lagging.MatchString(answer.Message())
}

// lagging are Cassandra's words for a table, column, type or keyspace that the node which answers does not know.
// After a change of the schema, or a restart, it may take a node seconds to know what the others know.
var lagging = regexp.MustCompile(`(?i)unconfigured (table|columnfamily)|does not exist|undefined (column )?name|` +
	`unknown (identifier|keyspace|table|column|type)|(table|keyspace|column) .*(not found|unknown)`)

// isAnswer reports whether err came from a Cassandra node, which therefore is alive.
func isAnswer(err error) bool {
	var answer gocql.RequestError
	return err == nil || errors.As(err, &answer)
}

// refusedRetry offers a request that one node called invalid to one other, which may know the schema better. Nothing
// was executed, so that holds for writes and compare-and-sets too. Whatever else failed is repeated by a caller that
// knows whether it may be.
type refusedRetry struct{}

// Attempt implements gocql.RetryPolicy: one repetition, unless the caller gave up.
func (refusedRetry) Attempt(q gocql.RetryableQuery) bool {
	return q.Attempts() < 2 && q.Context().Err() == nil
}

// GetRetryType implements gocql.RetryPolicy.
func (refusedRetry) GetRetryType(err error) gocql.RetryType {
	if isInvalid(err) {
		return gocql.RetryNextHost
	}
	return gocql.Rethrow
}

// readRetry lets a read be tried at two more nodes, unless the caller gave up.
type readRetry struct{}

// readAttempts is the number of nodes that a read is tried at. With replication 3, the
// third may be the only replica that answers quickly.
const readAttempts = 3

// Attempt implements gocql.RetryPolicy.
func (readRetry) Attempt(q gocql.RetryableQuery) bool {
	return q.Attempts() < readAttempts && q.Context().Err() == nil
}

// GetRetryType implements gocql.RetryPolicy. An error of the caller's context would be
// the same at any node.
func (readRetry) GetRetryType(err error) gocql.RetryType {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return gocql.Rethrow
	}
	return gocql.RetryNextHost
}
