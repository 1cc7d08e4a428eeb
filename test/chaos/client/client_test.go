package client

import (
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/history"
)

// TestFailed says what the errors of docs/reference/api.md tell about the outcome.
func TestFailed(t *testing.T) {
	for _, c := range []struct {
		code   connect.Code
		reason string
		want   history.Outcome
	}{
		{connect.CodeUnavailable, "OUTCOME_UNKNOWN", history.Unknown},
		{connect.CodeUnavailable, "NOT_EXECUTED", history.NotExecuted},
		{connect.CodeResourceExhausted, "RATE_LIMITED", history.NotExecuted},
		{connect.CodeOutOfRange, "COMMAND_TOO_OLD", history.Unknown},
		{connect.CodeAlreadyExists, "COMMAND_ID_REUSED", history.Broken},
		{connect.CodeInternal, "BUG", history.Broken},
		{connect.CodeDataLoss, "CORRUPT_HISTORY", history.Broken},
		{connect.CodeDataLoss, "OUTCOME_UNKNOWN", history.Broken},
	} {
		out := failed(fail(t, c.code, &errdetails.ErrorInfo{Reason: c.reason}))
		if out.Outcome != c.want || !strings.HasPrefix(out.Reason, c.reason) {
			t.Errorf("%v, %s: %+v, want %q", c.code, c.reason, out, c.want)
		}
	}
	if out := failed(errors.New("connection reset")); out.Outcome != history.Unknown {
		t.Errorf("a lost connection: %+v", out)
	}
	refused := failed(fail(t, connect.CodeNotFound, &errdetails.ErrorInfo{Reason: "REFUSED"}, &licensedv1.Refusal{
		Rule: licensedv1.Rule_RULE_NO_LICENSE, Sequence: 7, Duplicate: true,
	}))
	if refused.Outcome != history.Refused || refused.Sequence != 7 || !refused.Duplicate ||
		refused.Refusal.Rule != "RULE_NO_LICENSE" {
		t.Errorf("a refusal: %+v", refused)
	}
}

func fail(t *testing.T, code connect.Code, details ...proto.Message) error {
	t.Helper()
	e := connect.NewError(code, errors.New("no"))
	for _, m := range details {
		d, err := connect.NewErrorDetail(m)
		if err != nil {
			t.Fatal(err)
		}
		e.AddDetail(d)
	}
	return e
}
