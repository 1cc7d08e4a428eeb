package gateway

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/actors"
	"licensed/gateway/fallback"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// overloadRetry is the time to wait before a retry at an overloaded node. Queues hold milliseconds of work;
// the client is expected to add jitter.
const overloadRetry = 100 * time.Millisecond

// importRetry is the time to wait before a retry for a customer that is being imported.
const importRetry = time.Second

// apiError makes an error of the API: every one has an ErrorInfo and says in its message what to do.
func apiError(code connect.Code, reason, message string, details ...proto.Message) *connect.Error {
	return infoError(code, reason, message, nil, details...)
}

// infoError is apiError with an ErrorInfo that has more in it.
func infoError(
	code connect.Code, reason, message string, metadata map[string]string, details ...proto.Message,
) *connect.Error {
	e := connect.NewError(code, errors.New(message))
	addDetail(e, &errdetails.ErrorInfo{Reason: reason, Domain: licensedv1.ErrorDomain, Metadata: metadata})
	for _, d := range details {
		addDetail(e, d)
	}
	return e
}

// addDetail adds a message that clients find by its type.
func addDetail(e *connect.Error, m proto.Message) {
	d, err := connect.NewErrorDetail(m)
	if err != nil {
		panic(err) // Only a message that cannot be marshalled; all of these can.
	}
	e.AddDetail(d)
}

// retryError is an error that goes away by waiting. It has this time as detail and as HTTP header (a
// trailer in gRPC).
func retryError(code connect.Code, reason, message string, after time.Duration) *connect.Error {
	return retryAfter(apiError(code, reason, message), after)
}

// retryAfter adds the time after which an error goes away.
func retryAfter(e *connect.Error, after time.Duration) *connect.Error {
	addDetail(e, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	e.Meta().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	return e
}

// invalid makes the error for a malformed request; nil if there are no violations.
func invalid(v violations) error {
	if len(v) == 0 {
		return nil
	}
	words := make([]string, len(v))
	for i, f := range v {
		words[i] = f.Field + " " + f.Description
	}
	return apiError(connect.CodeInvalidArgument, licensedv1.ReasonInvalid, strings.Join(words, "; "),
		&errdetails.BadRequest{FieldViolations: v})
}

// refused makes the error for a command that a rule said no to.
func refused(r *licensedv1.Refusal) error {
	code := connect.CodeFailedPrecondition
	switch r.Rule {
	case licensedv1.Rule_RULE_NO_LICENSE, licensedv1.Rule_RULE_UNKNOWN_DEVICE, licensedv1.Rule_RULE_UNKNOWN_PLAN,
		licensedv1.Rule_RULE_UNKNOWN_TITLE, licensedv1.Rule_RULE_UNKNOWN_STUDIO,
		licensedv1.Rule_RULE_UNKNOWN_EXCEPTION:
		code = connect.CodeNotFound
	}
	return apiError(code, licensedv1.ReasonRefused, r.Message, r)
}

// runtimeError returns what an error of the aggregates means for the client. command says
// whether the request could have changed anything. The order matters: an error may wrap
// several, and the first that fits is the one that says most about what to do.
// docs/reference/errors.md lists the results.
func runtimeError(err error, command bool, now time.Time) *connect.Error {
	var limited *actors.RateLimitedError
	var denied *actors.DeniedError
	switch {
	case errors.As(err, &limited):
		return retryError(connect.CodeResourceExhausted, licensedv1.ReasonRateLimited,
			limited.Error(), limited.RetryAfter)
	case errors.As(err, &denied):
		return apiError(connect.CodePermissionDenied, licensedv1.ReasonNotAllowed,
			"the node does not allow this: "+denied.Text+"; not executed")
	case errors.Is(err, actors.ErrIDReused):
		return apiError(connect.CodeAlreadyExists, licensedv1.ReasonIDReused,
			"this command_id was used before with other content; use a new one for a new command")
	case errors.Is(err, actors.ErrTooOld):
		return tooOld(now)
	case errors.Is(err, actors.ErrIssuedAhead):
		return issuedAhead(now)
	case errors.Is(err, actors.ErrOverloaded):
		return retryError(connect.CodeResourceExhausted, licensedv1.ReasonOverloaded,
			"overloaded; not executed, retry later", overloadRetry)
	case errors.Is(err, actors.ErrForgotten):
		return forgotten(err)
	case errors.Is(err, actors.ErrImporting):
		return retryError(connect.CodeUnavailable, licensedv1.ReasonImporting,
			"the customer's history is being imported; not executed, retry when that is done", importRetry)
	case errors.Is(err, actors.ErrNotSupported):
		return apiError(connect.CodeUnimplemented, licensedv1.ReasonUnsupported,
			"the node that holds this customer is of a release that does not know this request; not executed, "+
				"retry when the upgrade is finished")
	case errors.Is(err, actors.ErrCorrupt), errors.Is(err, persistence.ErrCorrupt):
		return apiError(connect.CodeDataLoss, licensedv1.ReasonCorrupt,
			"the stored history of this customer cannot be read; not executed, an operator must look at it")
	}
	return outcomeError(err, command)
}

// forgotten makes the error for a customer that was removed for good.
func forgotten(err error) *connect.Error {
	when, metadata := "", map[string]string(nil)
	if f := (*persistence.ForgottenError)(nil); errors.As(err, &f) {
		when = " on " + f.At.UTC().Format(time.DateOnly)
		metadata = map[string]string{"forgotten_at": f.At.UTC().Format(time.RFC3339Nano)}
	}
	return infoError(connect.CodeFailedPrecondition, licensedv1.ReasonForgotten,
		"the customer was forgotten"+when+"; not executed, this id cannot be used again", metadata)
}

// unreadable makes the error for a command that was executed, and whose result cannot be read: it is
// damaged, or recorded by another release.
func unreadable() *connect.Error {
	return apiError(connect.CodeDataLoss, licensedv1.ReasonOutcomeUnknown,
		"executed, but its result cannot be read; look in the history, or retry with the same command_id on "+
			"another release")
}

// outcomeError maps the errors where it matters whether the command was executed.
// ErrUnknownOutcome overrides everything that says "not executed": it may be wrapped
// together with the reason of the last attempt, while an earlier attempt was sent.
func outcomeError(err error, command bool) *connect.Error {
	unknown, retry := licensedv1.ReasonOutcomeUnknown, "outcome unknown; retry with the same command_id to learn it"
	if !command || planted.Bug(planted.SayNotExecuted) {
		// A query leaves nothing executed, however it ended.
		unknown, retry = licensedv1.ReasonNotExecuted, "not answered; retry"
	}
	var unserved *actors.UnservedError
	switch {
	case errors.Is(err, fallback.ErrOpen):
		return retryError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"other requests to the node that holds this customer failed just now; not executed, retry later",
			fallback.RetryAfter)
	case errors.As(err, &unserved) && !errors.Is(err, actors.ErrUnknownOutcome):
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"no node serves this customer: "+unserved.Known+"; not executed, retry")
	case errors.Is(err, actors.ErrExpired):
		return apiError(connect.CodeDeadlineExceeded, licensedv1.ReasonNotExecuted,
			"the deadline passed before execution; not executed")
	case !errors.Is(err, actors.ErrUnknownOutcome) &&
		(errors.Is(err, actors.ErrNotOwner) || errors.Is(err, actors.ErrUnavailable) ||
			errors.Is(err, persistence.ErrUnavailable)):
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"the customer's aggregate is not available now; not executed, retry")
	case !command && errors.Is(err, persistence.ErrClosed):
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"the node's store is closed; not answered, ask another node")
	// Before the next: the runtime joins these two with the unknown outcome that they leave.
	case errors.Is(err, context.DeadlineExceeded):
		return apiError(connect.CodeDeadlineExceeded, unknown, "deadline exceeded, "+retry)
	case errors.Is(err, context.Canceled):
		return apiError(connect.CodeCanceled, unknown, "canceled, "+retry)
	case errors.Is(err, actors.ErrUnknownOutcome):
		return apiError(connect.CodeUnavailable, unknown, retry)
	case errors.Is(err, actors.ErrRejected):
		return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonRejected,
			"the customer's state is too large for the store; not executed, an operator must look at it")
	case errors.Is(err, actors.ErrPanic):
		return apiError(connect.CodeInternal, licensedv1.ReasonBug, "internal error; not executed")
	}
	return apiError(connect.CodeInternal, licensedv1.ReasonBug, "internal error; outcome unknown")
}

// tooOld tells a client, whose clock may be slow, what time it is here.
func tooOld(now time.Time) *connect.Error {
	return infoError(connect.CodeOutOfRange, licensedv1.ReasonTooOld,
		"the command was issued too long ago to know whether it was executed; not executed now, look in the history",
		serverTime(now))
}

// serverTime returns the metadata of errors that a wrong clock may cause.
func serverTime(now time.Time) map[string]string {
	return map[string]string{"server_time": now.UTC().Format(time.RFC3339Nano)}
}

// issuedAhead tells a client whose clock is fast what time it is here.
func issuedAhead(now time.Time) *connect.Error {
	metadata := serverTime(now)
	var v violations
	v.add("issued_at", "lies more than 5 minutes in the future; the server's time is "+metadata["server_time"])
	return infoError(connect.CodeInvalidArgument, licensedv1.ReasonInvalid, "issued_at "+v[0].Description, metadata,
		&errdetails.BadRequest{FieldViolations: v})
}
