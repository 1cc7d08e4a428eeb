package actors

import (
	"errors"
	"fmt"
	"time"

	"licensed/persistence"
)

// Errors of the runtime. Those marked "not executed" are certain: the request left no trace and never
// will; it may be sent again, also with the same id. The result of an earlier request with that id is
// another matter: only an answer to it, or to a repeat, tells.
var (
	// ErrNotOwner: this process does not hold the aggregate's shard (any more). Not executed.
	ErrNotOwner = errors.New("not the owner of the aggregate")
	// ErrOverloaded: the queue of the aggregate or of the node is full. Not executed.
	ErrOverloaded = errors.New("overloaded")
	// ErrExpired: the deadline passed before the command was decided. Not executed.
	ErrExpired = errors.New("deadline passed before execution")
	// ErrUnavailable: the aggregate could not be read from the store. Not executed.
	ErrUnavailable = errors.New("aggregate unavailable")
	// ErrUnknownOutcome: the command may or may not have been executed. Sending it again with the
	// same id is safe and tells.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrIDReused: the id was used before with other content. Not executed.
	ErrIDReused = errors.New("command id was used with other content")
	// ErrTooOld: the command was issued before the window of remembered commands. Not executed by
	// this request; whether an earlier one executed it, history tells.
	ErrTooOld = errors.New("command is too old")
	// ErrIssuedAhead: the command's issue time lies too far in the future. Not executed.
	ErrIssuedAhead = errors.New("command is issued in the future")
	// ErrCorrupt: the aggregate's history cannot be read back. Not executed.
	ErrCorrupt = errors.New("aggregate is corrupt")
	// ErrPanic: the handler of the command panicked, a bug. Not executed.
	ErrPanic = errors.New("command handler panicked")
	// ErrForgotten: the aggregate was removed for good, and its id takes nothing any more (persistence.ForgottenError).
	// Not executed.
	ErrForgotten = persistence.ErrForgotten
	// ErrRejected: the store does not take the command's events, or the snapshot that they need (too large). Not
	// executed. Of a query: the answer is larger than a message between processes.
	ErrRejected = errors.New("rejected by the store")
	// ErrNotSupported: the owner, a process of another release, does not know what was asked. Not executed.
	ErrNotSupported = errors.New("request is not understood")
)

// DeniedError says that the owner does not let the caller do what the request asks for. Not executed.
type DeniedError struct {
	// Text says to the caller what is missing.
	Text string
}

// Error says why.
func (e *DeniedError) Error() string { return "denied by the owner: " + e.Text }

// StampError refuses a command that the gateway stamped (Command.Stamped), because commands with a later stamp are
// forgotten. Not executed, and an attempt with this stamp never will be. The gateway sends the command again with the
// time At, if no attempt with the former stamp may have been executed.
type StampError struct {
	// At is the first time that is accepted, unless further commands are forgotten meanwhile. In whole milliseconds.
	At time.Time
}

// Error has the next stamp, for logs; gateways use the field.
func (e *StampError) Error() string {
	return fmt.Sprintf("%v; the next stamp is %s", ErrTooOld, e.At.UTC().Format(time.RFC3339Nano))
}

// Unwrap returns ErrTooOld.
func (*StampError) Unwrap() error { return ErrTooOld }

// maxStamps bounds how often a command gets another stamp. One is enough, unless the aggregate forgets commands
// meanwhile.
const maxStamps = 8

// Restamp runs a command, and again with another stamp as long as the owner refuses the stamp. It is the same command
// to the client: an attempt with a refused stamp was not executed and never will be. The last stamp stays in c. Errors:
// those of execute but *StampError; ErrUnavailable if too many stamps were refused.
func Restamp(c *Command, execute func(Command) (Reply, error)) (reply Reply, err error) {
	for range maxStamps {
		if reply, err = execute(*c); err == nil {
			return reply, nil
		}
		var refused *StampError
		if !errors.As(err, &refused) {
			return reply, err
		}
		c.IssuedAt = refused.At
	}
	return reply, fmt.Errorf("%w: %d stamps were refused: %s", ErrUnavailable, maxStamps, err.Error())
}

// UnservedError says that no process of the cluster can serve the aggregate. Not executed.
type UnservedError struct {
	// Known is what is known of it, for people: which nodes do not respond or take no shards, or that none has a lease.
	Known string
}

// Error says why, as far as it is known.
func (e *UnservedError) Error() string { return "no node serves the aggregate: " + e.Known }

// Unwrap returns ErrUnavailable.
func (e *UnservedError) Unwrap() error { return ErrUnavailable }

// RateLimitedError says that the aggregate takes no such command for a while. Not executed.
type RateLimitedError struct {
	// Reason in words: too many commands remembered, or too many refusals.
	Reason string
	// RetryAfter is when it makes sense to try again, counted from now.
	RetryAfter time.Duration
}

// Error has the time to wait.
func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("rate limited: %s, retry after %v", e.Reason, e.RetryAfter)
}
