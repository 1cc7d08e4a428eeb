package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// TestErrors holds the table of docs/reference/errors.md: code, reason, and what the client is told.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   connect.Code
		reason string
		status int
		says   string
		retry  time.Duration
	}{
		{err: actors.ErrIDReused, code: connect.CodeAlreadyExists, reason: licensedv1.ReasonIDReused, status: 409,
			says: "other content"},
		{err: actors.ErrTooOld, code: connect.CodeOutOfRange, reason: licensedv1.ReasonTooOld, status: 400,
			says: "look in the history"},
		{err: actors.ErrIssuedAhead, code: connect.CodeInvalidArgument, reason: licensedv1.ReasonInvalid, status: 400,
			says: "2026-03-01T12:00:00.123456789Z"},
		{err: actors.ErrOverloaded, code: connect.CodeResourceExhausted, reason: licensedv1.ReasonOverloaded,
			status: 429,
			says:   "not executed", retry: 100 * time.Millisecond},
		{
			err: fmt.Errorf("x: %w",
				&actors.RateLimitedError{Reason: "too many refusals", RetryAfter: 1500 * time.Millisecond}),
			code:   connect.CodeResourceExhausted,
			reason: licensedv1.ReasonRateLimited,
			status: 429,
			says:   "too many refusals",
			retry:  1500 * time.Millisecond,
		},
		{err: actors.ErrExpired, code: connect.CodeDeadlineExceeded, reason: licensedv1.ReasonNotExecuted, status: 504,
			says: "not executed"},
		{
			err:    fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, context.DeadlineExceeded),
			code:   connect.CodeDeadlineExceeded,
			reason: licensedv1.ReasonOutcomeUnknown,
			status: 504,
			says:   "same command_id",
		},
		{err: fmt.Errorf("%w: %w", actors.ErrExpired, context.DeadlineExceeded), code: connect.CodeDeadlineExceeded,
			reason: licensedv1.ReasonNotExecuted, status: 504, says: "not executed"},
		{err: fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, context.Canceled), code: connect.CodeCanceled,
			reason: licensedv1.ReasonOutcomeUnknown, status: 499, says: "same command_id"},
		{err: actors.ErrNotOwner, code: connect.CodeUnavailable, reason: licensedv1.ReasonNotExecuted, status: 503,
			says: "not executed"},
		{err: actors.ErrUnavailable, code: connect.CodeUnavailable, reason: licensedv1.ReasonNotExecuted, status: 503,
			says: "not executed"},
		{err: actors.ErrUnknownOutcome, code: connect.CodeUnavailable, reason: licensedv1.ReasonOutcomeUnknown,
			status: 503, says: "same command_id"},
		{err: actors.ErrCorrupt, code: connect.CodeDataLoss, reason: licensedv1.ReasonCorrupt, status: 500,
			says: "cannot be read"},
		{err: persistence.ErrCorrupt, code: connect.CodeDataLoss, reason: licensedv1.ReasonCorrupt, status: 500,
			says: "cannot be read"},
		{err: actors.ErrNotSupported, code: connect.CodeUnimplemented, reason: licensedv1.ReasonUnsupported,
			status: 501,
			says:   "not executed"},
		{
			err: actors.ErrPanic, code: connect.CodeInternal, reason: licensedv1.ReasonBug, status: 500,
			says: "not executed",
		},
		{err: actors.ErrRejected, code: connect.CodeFailedPrecondition, reason: licensedv1.ReasonRejected, status: 400,
			says: "not executed"},
		{err: errors.New("secret internals"), code: connect.CodeInternal, reason: licensedv1.ReasonBug, status: 500,
			says: "outcome unknown"},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			g := start(t, failing(fmt.Errorf("execute Bayley: %w", test.err)))
			for name, client := range protocols(t, g.url) {
				_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
				checkError(t, name, err, test.code, test.reason, test.says)
				checkRetry(t, name, err, test.retry)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%s: %v leaks an internal error", name, err)
				}
			}
			status, header, body := post(t, g.url, "AcquireLicense",
				`{"customerId":"Bayley","deviceId":"iphone","titleId":"GlowS01E01","commandId":"c1"}`)
			if status != test.status {
				t.Errorf("HTTP status %d, want %d: %s", status, test.status, body)
			}
			if got := header.Get("Retry-After"); (got != "") != (test.retry != 0) {
				t.Errorf("Retry-After %q, want one: %v", got, test.retry != 0)
			}
			logged := test.code == connect.CodeInternal || test.code == connect.CodeDataLoss
			if got := strings.Contains(g.logged(), "request failed"); got != logged {
				t.Errorf("logged %v, want %v: %s", got, logged, g.logged())
			}
		})
	}
}

func checkError(t *testing.T, name string, err error, code connect.Code, reason, says string) {
	t.Helper()
	if got := connect.CodeOf(err); got != code {
		t.Errorf("%s: code %v, want %v: %v", name, got, code, err)
	}
	if info, ok := detail[*errdetails.ErrorInfo](t, err); !ok || info.Reason != reason ||
		info.Domain != licensedv1.ErrorDomain {
		t.Errorf("%s: ErrorInfo %v, want reason %s", name, info, reason)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %q does not say %q", name, err, says)
	}
}

func checkRetry(t *testing.T, name string, err error, want time.Duration) {
	t.Helper()
	info, ok := detail[*errdetails.RetryInfo](t, err)
	if ok != (want != 0) || ok && info.RetryDelay.AsDuration() != want {
		t.Errorf("%s: RetryInfo %v, want %v", name, info, want)
	}
}

func TestErrorOfQuerySpeaksOfNoCommand(t *testing.T) {
	for _, cause := range []error{context.DeadlineExceeded, actors.ErrUnknownOutcome} {
		g := start(t, failing(cause))
		for name, client := range protocols(t, g.url) {
			_, err := client.ListDevices(t.Context(),
				connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: "Bayley"}))
			if info, _ := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != licensedv1.ReasonNotExecuted {
				t.Errorf("%s: %v has reason %q", name, err, info.GetReason())
			}
			if strings.Contains(err.Error(), "command_id") {
				t.Errorf("%s: %v speaks of a command", name, err)
			}
		}
	}
}

func TestPanicFailsOneRequest(t *testing.T) {
	f := failing(nil)
	f.execute = func(_ context.Context, id string, _ actors.Command) (actors.Reply, error) {
		if id == "Bayley" {
			panic("no such luck")
		}
		return actors.Reply{}, actors.ErrOverloaded
	}
	g := start(t, f)
	for name, client := range protocols(t, g.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		checkError(t, name, err, connect.CodeInternal, licensedv1.ReasonBug, "outcome unknown")
		other := acquire()
		other.CustomerId = "Matt"
		_, err = client.AcquireLicense(t.Context(), connect.NewRequest(other))
		checkError(t, name, err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "")
	}
	if log := g.logged(); !strings.Contains(log, "no such luck") ||
		!strings.Contains(log, "gateway_test.go") && !strings.Contains(log, "errors_test.go") {
		t.Errorf("the log lacks the panic or its stack: %s", log)
	}
}

func TestDeadline(t *testing.T) {
	var limit time.Duration
	f := failing(nil)
	f.execute = func(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			return actors.Reply{}, errors.New("no deadline")
		}
		limit = time.Until(deadline)
		return actors.Reply{}, actors.ErrOverloaded
	}
	g := start(t, f, func(c *gateway.Config) { c.MaxDeadline = time.Minute })
	for name, client := range protocols(t, g.url) {
		for _, asked := range []time.Duration{0, time.Hour, 20 * time.Second} {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			want := time.Minute
			if asked > 0 {
				ctx, cancel = context.WithTimeout(ctx, asked)
				want = min(want, asked)
			}
			limit = 0
			_, err := client.AcquireLicense(ctx, connect.NewRequest(acquire()))
			cancel()
			// The bounds are far apart: what counts is whose deadline it is.
			if limit > want || limit < want/2 {
				t.Errorf("%s: asked for %v, the aggregate has %v, want about %v (%v)", name, asked, limit, want, err)
			}
		}
	}
}

func TestExpiredDeadlineIsAnswered(t *testing.T) {
	f := failing(nil)
	f.execute = untilGivenUp
	g := start(t, f, func(c *gateway.Config) { c.MaxDeadline = time.Millisecond })
	for name, client := range protocols(t, g.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		checkError(t, name, err, connect.CodeDeadlineExceeded, licensedv1.ReasonOutcomeUnknown, "same command_id")
	}
}

func TestInFlightLimit(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	f := holding(entered, leave)
	g := start(t, f, func(c *gateway.Config) { c.MaxInFlight = 1 })
	first := make(chan error)
	go func() {
		_, err := protocols(t, g.url)["grpc"].AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		first <- err
	}()
	<-entered
	for name, client := range protocols(t, g.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		checkError(t, name, err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "in flight")
		checkRetry(t, name, err, 100*time.Millisecond)
	}
	res, err := http.Get(g.url + "/readyz")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("a busy gateway is not ready: %v %v", res, err)
	}
	res.Body.Close()
	close(leave)
	if err := <-first; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the first request: %v", err)
	}
}

func TestBodyLimit(t *testing.T) {
	f := failing(actors.ErrNotOwner)
	g := start(t, f)
	long := acquire()
	long.CustomerId = strings.Repeat("x", gateway.MaxBodyBytes+1)
	for name, client := range protocols(t, g.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(long))
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "65536") {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := detail[*errdetails.RetryInfo](t, err); ok {
			t.Errorf("%s: %v invites to retry", name, err)
		}
	}
	if len(f.commands) > 0 {
		t.Error("a request that is too large reached the aggregates")
	}
	if got := g.metric(t, `licensed_gateway_malformed_requests_total{method="AcquireLicense"}`); got != "7" {
		t.Errorf("malformed requests counted: %s, want 7", got)
	}
}

func TestBadJSON(t *testing.T) {
	g := start(t, failing(actors.ErrNotOwner))
	for body, says := range map[string]string{
		``:                    "zero-length payload",
		`{}`:                  "customerId is required",
		`{`:                   "unexpected",
		`{"customerId":3}`:    "customerId",
		`{"issuedAt":"noon"}`: `(line 1:13): invalid google.protobuf.Timestamp value \"noon\"`,
		`[]`:                  "unexpected",
	} {
		status, _, reply := post(t, g.url, "AcquireLicense", body)
		if status != http.StatusBadRequest || !strings.Contains(reply, "invalid_argument") ||
			!strings.Contains(reply, says) {
			t.Errorf("%q: %d %s, want it to say %q", body, status, reply, says)
		}
	}
}

// TestViolationsInJSON name fields as JSON does, whatever carries it.
func TestViolationsInJSON(t *testing.T) {
	g := start(t, failing(actors.ErrNotOwner))
	for _, body := range []string{
		`{"deviceId":"a/b","commandId":"c"}`, `{"customerId":"x","deviceId":"y","titleId":"z"}`,
	} {
		_, _, reply := post(t, g.url, "AcquireLicense", body)
		if strings.Contains(reply, "_id") || !strings.Contains(reply, `"field":"`) ||
			!strings.Contains(reply, "Id is required") {
			t.Errorf("%s: %s", body, reply)
		}
	}
	for name, options := range map[string][]connect.ClientOption{
		"Connect": {connect.WithProtoJSON()}, "gRPC": {connect.WithProtoJSON(), connect.WithGRPC()},
		"gRPC-Web": {connect.WithProtoJSON(), connect.WithGRPCWeb()},
	} {
		licenses := licensedv1connect.NewLicenseServiceClient(harness.HTTP2(t), g.url, options...)
		_, err := licenses.ListDevices(t.Context(), connect.NewRequest(&licensedv1.ListDevicesRequest{}))
		if v, ok := detail[*errdetails.BadRequest](t, err); !ok || v.FieldViolations[0].Field != "customerId" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestErrorsHaveBodies: methods and content types that no call takes are explained.
func TestErrorsHaveBodies(t *testing.T) {
	g := start(t, failing(actors.ErrNotOwner))
	path := g.url + "/" + licensedv1connect.LicenseServiceName + "/AcquireLicense"
	for _, c := range []struct{ method, kind, says string }{
		{http.MethodGet, "", "this call takes POST only"},
		{http.MethodPut, "application/json", "this call takes POST only"},
		{http.MethodPost, "text/xml", "application/json"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", c.kind)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode < 400 || !strings.Contains(string(body), c.says) || !json.Valid(body) {
			t.Errorf("%s %s: %d %q, %v", c.method, c.kind, res.StatusCode, body, err)
		}
	}
}
