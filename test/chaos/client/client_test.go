package client

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"licensed/client"
	"licensed/messages/licensedv1"
	"licensed/test/chaos/history"
)

// TestFailed says what the errors of docs/reference/api.md tell about the outcome; those that were not executed are
// known to package client.
func TestFailed(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		reason string
		want   history.Outcome
	}{
		{codes.Unavailable, "OUTCOME_UNKNOWN", history.Unknown},
		{codes.OutOfRange, "COMMAND_TOO_OLD", history.Unknown},
		{codes.AlreadyExists, "COMMAND_ID_REUSED", history.Broken},
		{codes.Internal, "BUG", history.Broken},
		{codes.DataLoss, "CORRUPT_HISTORY", history.Broken},
		{codes.DataLoss, "OUTCOME_UNKNOWN", history.Broken},
	} {
		out := failed(&client.Error{Code: c.code, Reason: c.reason, Message: "no"})
		if out.Outcome != c.want || !strings.HasPrefix(out.Reason, c.reason) {
			t.Errorf("%v, %s: %+v, want %q", c.code, c.reason, out, c.want)
		}
	}
	for _, err := range []error{
		&client.Error{Code: codes.Unavailable, Message: "connection reset"}, errors.New("connection reset"),
	} {
		if out := failed(err); out.Outcome != history.Unknown || !strings.Contains(out.Reason, "connection reset") {
			t.Errorf("a lost connection: %+v", out)
		}
	}
	refused := failed(&client.Refusal{Rule: licensedv1.Rule_RULE_NO_LICENSE, Sequence: 7, Duplicate: true})
	if refused.Outcome != history.Refused || refused.Sequence != 7 || !refused.Duplicate ||
		refused.Refusal.Rule != "RULE_NO_LICENSE" {
		t.Errorf("a refusal: %+v", refused)
	}
}
