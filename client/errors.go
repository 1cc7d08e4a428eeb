package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/messages/licensedv1"
)

// Errors of calls, for errors.Is.
var (
	// ErrNotExecuted: the command left no trace, and did not in an earlier attempt. The same id may be used again.
	ErrNotExecuted = errors.New("not executed")
	// ErrOutcomeUnknown: the command was executed or was not. Sent again with the same id, it is not executed
	// twice, and the answer tells.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrClosed: the client was closed. Nothing was sent.
	ErrClosed = errors.New("the client of the licence service is closed")
)

// Error is a call that failed. Its text is the gateway's, or gRPC's if none answered.
type Error struct {
	// Code is the code of gRPC.
	Code codes.Code
	// Reason distinguishes errors of the same code. Empty if the error is not the gateway's, for instance because none
	// was reached.
	Reason string
	// Message is for people.
	Message string
	// Violations are all fields that make a request invalid (licensedv1.ReasonInvalid), named as in the .proto files.
	Violations []Violation
	// Metadata has further facts about the reason, such as the limit that was met (licensedv1.ReasonOverloaded).
	Metadata map[string]string
	// RetryAfter is the time that the service asks clients to wait; 0 if it does not.
	RetryAfter time.Duration
	// ServerTime is the gateway's clock when it answered, to a second or better. Zero if none answered.
	ServerTime time.Time
	// CommandID is that of the command, also if the client made it; empty for other calls.
	CommandID string
	// Attempts is the number of attempts that were made.
	Attempts int

	outcome error // ErrNotExecuted, ErrOutcomeUnknown or nil
	cause   error // of the context, if it ended the call
	status  *status.Status
}

// Violation is what is wrong with a field of a request.
type Violation struct{ Field, Description string }

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.CommandID != "" && e.outcome != nil && !strings.Contains(e.Message, e.outcome.Error()) {
		fmt.Fprintf(&b, "; %v", e.outcome)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (after %d attempts)", e.Attempts)
	}
	return b.String()
}

// Is implements errors.Is for ErrNotExecuted and ErrOutcomeUnknown.
func (e *Error) Is(target error) bool { return e.outcome != nil && target == e.outcome }

// Unwrap returns why the context ended the call, or nil.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus returns the status as gRPC received it, with all details; status.FromError uses it.
func (e *Error) GRPCStatus() *status.Status {
	if e.status == nil { // A test made it.
		return status.New(e.Code, e.Message)
	}
	return e.status
}

// Refusal is the answer of the rules that said no to a command. The refusal is recorded, and the same id gets it again;
// to try again, use a new id.
type Refusal struct {
	// Rule that refused, the first of Violations.
	Rule licensedv1.Rule
	// Message is for people: the limits, when they end, and what ends them at once.
	Message string
	// Limit in force, 0 where the rule has none, and Current, the count that met it.
	Limit, Current uint32
	// NextAllowedAt is when no rule refuses the same command any more by the passing of time alone, by the service's
	// clock; zero if never. ServerTime is that clock when it answered, to a second.
	NextAllowedAt, ServerTime time.Time
	// Violations are all rules that the command violates, each with its own figures and time.
	Violations []*licensedv1.RuleViolation
	// CanBeFreed says that the customer can make the command allowed at once, by what Violations name in FreedBy.
	// If not, no release and no removal helps before NextAllowedAt.
	CanBeFreed bool
	// Sequence is the position of the refusal in the customer's history; 0 with validate_only.
	Sequence uint64
	// Duplicate says that the command was refused before under this id.
	Duplicate bool
	// CommandID is that of the command, also if the client made it.
	CommandID string

	err *Error
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the *Error, with the code and what else gRPC received. A refusal that a test made has none.
func (r *Refusal) Unwrap() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// decode returns the *Error or *Refusal of an attempt, for the command of that id.
func decode(err error, at time.Time, id string) error {
	s := status.Convert(err)
	e := &Error{Code: s.Code(), Message: s.Message(), ServerTime: at, CommandID: id, status: s}
	var refused *licensedv1.Refusal
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = d.Reason, d.Metadata
			if t, err := time.Parse(time.RFC3339Nano, d.Metadata["server_time"]); err == nil {
				e.ServerTime = t
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				e.Violations = append(e.Violations, Violation{v.Field, v.Description})
			}
		case *licensedv1.Refusal:
			refused = d
		}
	}
	if refused == nil {
		return e
	}
	r := &Refusal{
		Rule: refused.Rule, Message: refused.Message, Limit: refused.Limit, Current: refused.Current,
		ServerTime: e.ServerTime, Violations: refused.Violations, CanBeFreed: refused.CanBeFreed,
		Sequence: refused.Sequence, Duplicate: refused.Duplicate, CommandID: id, err: e,
	}
	if refused.NextAllowedAt != nil {
		r.NextAllowedAt = refused.NextAllowedAt.AsTime()
	}
	return r
}

// of returns the *Error that an error of decode is or has.
func of(err error) (e *Error) {
	errors.As(err, &e)
	return e
}

// untouched are the reasons, and the codes without a reason, by which a command certainly was not executed.
var (
	untouched = map[string]bool{
		licensedv1.ReasonInvalid:     true,
		licensedv1.ReasonIDReused:    true,
		licensedv1.ReasonNotExecuted: true,
		licensedv1.ReasonOverloaded:  true,
		licensedv1.ReasonRateLimited: true,
		licensedv1.ReasonCorrupt:     true,
		licensedv1.ReasonRejected:    true,
		licensedv1.ReasonImporting:   true,

		licensedv1.ReasonNoCredentials:      true,
		licensedv1.ReasonBadCredentials:     true,
		licensedv1.ReasonExpiredCredentials: true,
		licensedv1.ReasonTooManyAttempts:    true,
		licensedv1.ReasonNotAllowed:         true,
		licensedv1.ReasonOtherCustomer:      true,
		licensedv1.ReasonNoReason:           true,

		licensedv1.ReasonNoSigningKey:  true,
		licensedv1.ReasonAllowance:     true,
		licensedv1.ReasonOtherGateway:  true,
		licensedv1.ReasonSignedLicense: true,
		licensedv1.ReasonUnsupported:   true,
	}
	untouchedCodes = map[codes.Code]bool{
		codes.InvalidArgument:   true,
		codes.ResourceExhausted: true,
		codes.Unimplemented:     true,
		codes.Unauthenticated:   true,
		codes.PermissionDenied:  true,
	}
)

// denied reports whether a gateway did not let the caller in, by the error of a session.
func denied(code codes.Code, reason string) bool {
	return untouched[reason] && (code == codes.Unauthenticated || code == codes.PermissionDenied)
}

// outcomeOf tells whether a command was executed, by the error of one attempt; nil if a rule answered, or if it is too
// old to be known.
func outcomeOf(e *Error) error {
	switch {
	case e.Reason == licensedv1.ReasonRefused || e.Reason == licensedv1.ReasonTooOld:
		return nil
	case untouched[e.Reason], e.Reason == "" && untouchedCodes[e.Code]:
		return ErrNotExecuted
	}
	return ErrOutcomeUnknown
}

// repeatable reports whether another attempt may be answered otherwise. Without a reason the error is not the
// gateway's: the answer was cut off, or a proxy's.
func (e *Error) repeatable() bool {
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.ResourceExhausted:
		return e.RetryAfter > 0
	case codes.Internal, codes.Unknown:
		return e.Reason == ""
	}
	return false
}
