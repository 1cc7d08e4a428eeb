package gateway_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// sessionFrames returns the number of calls of methods of sessions that have not returned, in all goroutines.
func sessionFrames() int {
	b := make([]byte, 8<<20)
	return strings.Count(string(b[:runtime.Stack(b, true)]), "licensed/gateway.(*session)")
}

// TestSessionStorms: thousands of calls in flight are canceled, or abandoned in several ways. Every place, byte and
// goroutine is given back, and each canceled call has its outcome.
func TestSessionStorms(t *testing.T) {
	const sessions, calls = 4, 1000
	for name, storm := range map[string]func(t *testing.T, s *sessionStream, hangUp func()){
		"canceled": func(t *testing.T, s *sessionStream, _ func()) {
			m := &licensedv1.SessionRequest{}
			for id := range uint64(calls) {
				m.Canceled = append(m.Canceled, id, id, id+calls) // Some twice, some unknown.
			}
			if err := s.Send(m); err != nil {
				t.Error(err)
			}
			await(t, s, calls)
			_ = s.CloseRequest()
			if err := ended(s); !errors.Is(err, io.EOF) {
				t.Errorf("all calls were canceled, and the session ended with %v", err)
			}
		},
		"canceled and abandoned": func(t *testing.T, s *sessionStream, hangUp func()) {
			m := &licensedv1.SessionRequest{}
			for id := range uint64(calls) {
				m.Canceled = append(m.Canceled, id)
			}
			if err := s.Send(m); err != nil {
				t.Error(err)
			}
			hangUp()
		},
		"reset": func(_ *testing.T, _ *sessionStream, hangUp func()) { hangUp() },
		"closed, then reset": func(_ *testing.T, s *sessionStream, hangUp func()) {
			_ = s.CloseRequest()
			hangUp()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var entered atomic.Int64
			f := failing(nil)
			f.execute = func(ctx context.Context, id string, c actors.Command) (actors.Reply, error) {
				entered.Add(1)
				return untilGivenUp(ctx, id, c)
			}
			r := start(t, f, func(c *gateway.Config) { c.AddressShare, c.MaxDeadline = 1, time.Hour })
			var all sync.WaitGroup
			for range sessions {
				ctx, cancel := context.WithCancel(t.Context())
				s := licensedv1connect.NewLicenseServiceClient(harness.HTTP2(t), r.url, connect.WithGRPC()).Session(ctx)
				hangUp := func() {
					cancel()
					_, _ = s.CloseRequest(), s.CloseResponse()
				}
				defer hangUp()
				if err := s.Send(nil); err != nil {
					t.Fatal(err)
				}
				if err := sendAll(s, limitsOf(t, s), acquireCalls(calls)); err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					harness.Until(func() bool { return entered.Load() == sessions*calls })
					storm(t, s, hangUp)
				})
			}
			all.Wait()
			r.unused(t, allLimits...)
			harness.Until(func() bool { return sessionFrames() == 0 })
			if got := r.metric(t, "licensed_gateway_sessions"); got != "0" {
				t.Errorf("%s sessions are open", got)
			}
		})
	}
}
