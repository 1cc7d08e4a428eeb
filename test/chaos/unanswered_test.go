package chaos

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
	"licensed/test/chaos/workload"
)

// TestUnanswered finds the commands that nobody knows about.
func TestUnanswered(t *testing.T) {
	op := func(id string, call time.Duration, out history.Output) *history.Op {
		return &history.Op{
			Call: int64(call), Input: history.Input{Kind: history.ChangePlan, Customer: "c", Command: id}, Output: out,
		}
	}
	lost := history.Output{Reason: "OUTCOME_UNKNOWN"}
	ops := []*history.Op{
		op("lost", time.Hour, lost), op("lost", time.Hour,
			history.Output{Outcome: history.NotExecuted, Reason: "NOT_EXECUTED"}), op("lost", time.Hour, lost),
		op("found", time.Hour, lost), op("found", time.Hour, history.Output{Outcome: history.Accepted}),
		op("gone", time.Hour, lost), op("gone", time.Hour, history.Output{Reason: "COMMAND_TOO_OLD"}),
		op("never begun", time.Hour, history.Output{Outcome: history.NotExecuted}),
		op("forgotten", 0, lost),
		{Call: int64(time.Hour), Input: history.Input{Kind: history.ListDevices, Customer: "c"}},
	}
	if open := unanswered(ops, 13*time.Hour-time.Second); len(open) != 1 || open[0].Command != "lost" {
		t.Errorf("found %+v", open)
	}
}

// TestResolve finds ids that are never answered.
func TestResolve(t *testing.T) {
	say := func(code connect.Code, reason string) func() error {
		return func() error {
			e := connect.NewError(code, errors.New("no"))
			if d, err := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: reason}); err == nil {
				e.AddDetail(d)
			}
			return e
		}
	}
	n := 0
	for name, c := range map[string]struct {
		answer func() error
		stuck  bool
	}{
		"accepted": {nil, false}, "poisoned": {say(connect.CodeUnavailable, "OUTCOME_UNKNOWN"), true},
		"not served": {say(connect.CodeUnavailable, "NOT_EXECUTED"), true},
		"too old":    {say(connect.CodeOutOfRange, "COMMAND_TOO_OLD"), false},
		"limited":    {say(connect.CodeResourceExhausted, "RATE_LIMITED"), false},
		"at last": {func() error {
			if n++; n < 3 {
				return say(connect.CodeUnavailable, "OUTCOME_UNKNOWN")()
			}
			return say(connect.CodeOutOfRange, "COMMAND_TOO_OLD")()
		}, false},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := &run{verdict: new(Verdict), gateways: []*client.Client{(&stored{answer: c.answer}).client(t)}}
			r.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
			r.Recovery = time.Minute
			r.Workload = workload.Default()
			r.Rules = model.Standard(time.Now())
			if c.stuck || name == "limited" { // It is the same answer each time.
				r.Recovery = 200 * time.Millisecond
			}
			var err error
			if r.recorder, err = history.NewRecorder(io.Discard); err != nil {
				t.Fatal(err)
			}
			r.load = workload.New(r.Workload, &r.Rules, r.recorder, r.gateways)
			op := r.recorder.Call(0, 0,
				history.Input{Kind: history.ChangePlan, Customer: "c", Plan: "one", Command: "c1"})
			r.recorder.Return(op, history.Output{Reason: "OUTCOME_UNKNOWN"})
			r.resolve(context.Background())
			v := r.verdict.Violations
			if c.stuck && (len(v) != 1 || v[0].Check != check.Health || !v[0].Live) || !c.stuck && len(v) > 0 {
				t.Errorf("found %v", v)
			}
		})
	}
}
