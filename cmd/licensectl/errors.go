package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"licensed/client"
	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// Exit codes. exitCodes says what each means; scripts rely on them, so that a number
// never gets another meaning.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitRefused  = 3
	exitNotFound = 4
	exitNotNow   = 5
	exitDamaged  = 6
	exitConflict = 7
)

// exitCodes is the part of the help that lists them. They are an interface: scripts go by
// them.
const exitCodes = `Exit codes:
  0  done
  1  failed for another reason
  2  called wrongly
  3  refused by a rule (with try and --validate-only: it would be)
  4  not found: no such customer or event, or it expired
  5  not now: unreachable, overloaded, or the outcome is unknown; the same command id may be sent again
  6  the history is damaged or can be read only in part; what could be read was shown
  7  conflict: the command id was used with other content or is too old, or there is another history`

// exitError is an error with its exit code and what programs want to know of it. Only
// report turns one into output.
type exitError struct {
	code   int
	reason string // of the API, "COMMAND_ID_REUSED"
	silent bool   // what it says was printed as the result
	err    error
	// refusal is set with exitRefused.
	refusal *licensedv1.Refusal
}

// Error returns the text without the code.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap returns the error that the code was found for.
func (e *exitError) Unwrap() error { return e.err }

// within returns the error with what was said around it.
func (e *exitError) within(err error) *exitError {
	if err.Error() == e.Error() {
		return e
	}
	return &exitError{code: e.code, reason: e.reason, refusal: e.refusal, err: err}
}

// usagef returns the error of a wrong call.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// report prints an error on stderr, as text or as one line of JSON, and returns the exit
// code.
func (p *program) report(err error) int {
	e := p.explain(err)
	if e.silent {
		return e.code
	}
	if p.output != outputJSON {
		fmt.Fprintf(p.stderr, "licensectl: %v\n", e)
		return e.code
	}
	out := struct {
		ExitCode int             `json:"exitCode"`
		Reason   string          `json:"reason,omitempty"`
		Error    string          `json:"error"`
		Refusal  json.RawMessage `json:"refusal,omitempty"`
	}{ExitCode: e.code, Reason: e.reason, Error: e.Error()}
	if e.refusal != nil {
		out.Refusal = terminal.JSON(e.refusal)
	}
	line, jsonErr := json.Marshal(out)
	if jsonErr != nil {
		line = []byte(jsonErr.Error())
	}
	fmt.Fprintf(p.stderr, "%s\n", line)
	return e.code
}

// explain returns an error with its exit code and what to do. One that was explained
// already keeps its code.
func (p *program) explain(err error) *exitError {
	var done *exitError
	if errors.As(err, &done) {
		return done.within(err)
	}
	var api *client.Error
	switch {
	case errors.As(err, &api):
		e := p.explainAPI(api)
		// What licensectl put before the API's words stays.
		if before, ok := strings.CutSuffix(err.Error(), api.Error()); ok && before != "" {
			e.err = fmt.Errorf("%s%w", before, e.err)
		}
		return e
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		// The user ended it: a command may have been executed, so the code is that of an
		// unknown outcome.
		return &exitError{code: exitNotNow, err: err}
	}
	return &exitError{code: exitFailed, err: err}
}

// explainAPI says what an error of package client means. The code is a fallback: where
// the gateway gave a reason, that decides.
func (p *program) explainAPI(api *client.Error) *exitError {
	e := &exitError{code: exitFailed, reason: api.Reason, err: errors.New(api.Message)}
	for _, d := range api.GRPCStatus().Details() {
		if refusal, ok := d.(*licensedv1.Refusal); ok {
			e.code, e.refusal = exitRefused, refusal
			e.err = fmt.Errorf("refused by %s", refusalWords(refusal))
			return e
		}
	}
	code := api.Code
	if api.Reason == "" && (code == codes.Internal || code == codes.Unknown) {
		code = codes.Unavailable // The answer was cut off, by kill -9 of the gateway for instance.
	}
	switch code {
	case codes.InvalidArgument:
		e.code = exitUsage
	case codes.NotFound:
		e.code = exitNotFound
	case codes.OutOfRange:
		if e.code = exitNotFound; e.reason == licensedv1.ReasonTooOld {
			e.code = exitConflict
		}
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Canceled:
		e.code = exitNotNow
		if e.reason == "" { // Not the gateway's word: it was not reached, or not to the end.
			e.err = fmt.Errorf("no answer from %s: %s; "+
				"is licensed running there? --server or LICENSED_SERVER names another",
				p.server, dialError(api.Message))
		}
	case codes.DataLoss:
		e.code = exitDamaged
	case codes.AlreadyExists, codes.FailedPrecondition:
		e.code = exitConflict
	case codes.Unauthenticated:
		e.err = fmt.Errorf("%s; --token-file or LICENSED_TOKEN gives a token, --tls-cert and --tls-key a certificate",
			api.Message)
	case codes.PermissionDenied:
		if e.reason == licensedv1.ReasonNoReason {
			e.err = fmt.Errorf("%s; --reason gives one", api.Message)
		}
	case codes.Unimplemented:
		if e.reason == "" {
			e.err = fmt.Errorf("%s does not know this call: %s; it is of another release, or no gateway",
				p.server, api.Message)
		}
	}
	return e
}

// dialError returns what gRPC says of a connection that could not be made, without the layers that the error passed.
func dialError(message string) string {
	if _, cause, ok := strings.Cut(message, "Error while dialing: "); ok {
		return strings.TrimSuffix(cause, `"`)
	}
	return message
}

// refusalWords returns the rules of a refusal and its message, and below them, if there are several, each rule with its
// own time.
func refusalWords(r *licensedv1.Refusal) string {
	names := ruleName(r.Rule)
	var each strings.Builder
	if len(r.Violations) > 1 {
		for i, v := range r.Violations {
			if i > 0 {
				names += ", " + ruleName(v.Rule)
			}
			fmt.Fprintf(&each, "\n  %s: %s", ruleName(v.Rule), v.Message)
		}
	}
	return names + ": " + r.Message + each.String()
}

// ruleName returns the name of a rule without what all begin with.
func ruleName(r licensedv1.Rule) string { return strings.TrimPrefix(r.String(), "RULE_") }

// incomplete is the error after a history that could be read only in part.
func incomplete(format string, args ...any) error {
	return &exitError{code: exitDamaged, reason: "INCOMPLETE", err: fmt.Errorf(format, args...)}
}
