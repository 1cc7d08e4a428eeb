package fallback

import (
	"context"
	"errors"
	"time"

	"licensed/actors"
	"licensed/persistence"
)

// Causes of attempts that are given up.
var (
	errOpened = errors.New("other requests to the owner failed just now")
	errSilent = errors.New("the owner answers nobody")
)

// ErrOpen says that a request was not sent to the owner, because others to it failed just now. Not executed.
var ErrOpen = errors.New("the owner could not be reached just now")

// RetryAfter is when it makes sense to send a request again after ErrOpen.
const RetryAfter = time.Second

// Unavailable reports whether an error says that the owner of a customer, or its store, could not be reached in time.
// Only such failures qualify for a fallback: after all others the owner has answered, or the request cannot be executed
// as it is. The command may have been executed all the same.
func Unavailable(err error) bool {
	if denied := (*actors.DeniedError)(nil); errors.As(err, &denied) {
		return false
	}
	for _, answered := range []error{
		actors.ErrIDReused, actors.ErrTooOld, actors.ErrIssuedAhead, actors.ErrCorrupt, actors.ErrPanic,
		actors.ErrRejected, actors.ErrNotSupported, actors.ErrImporting, persistence.ErrCorrupt,
		actors.ErrForgotten,
	} {
		if errors.Is(err, answered) {
			return false
		}
	}
	for _, unavailable := range []error{
		ErrOpen, actors.ErrUnavailable, actors.ErrNotOwner, actors.ErrUnknownOutcome, actors.ErrExpired,
		actors.ErrOverloaded, persistence.ErrUnavailable, context.DeadlineExceeded, errOpened, errSilent,
	} {
		if errors.Is(err, unavailable) {
			return true
		}
	}
	return false
}

// notSent reports whether an error says that the command was certainly not executed, and never will be.
func notSent(err error) bool {
	return !errors.Is(err, actors.ErrUnknownOutcome) && (errors.Is(err, ErrOpen) ||
		errors.Is(err, actors.ErrUnavailable) || errors.Is(err, actors.ErrNotOwner) ||
		errors.Is(err, actors.ErrExpired) || errors.Is(err, actors.ErrOverloaded))
}
