package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// overSessions has dial make clients that use sessions.
var overSessions bool

// TestOverSessions runs the tests of calls over sessions.
func TestOverSessions(t *testing.T) {
	overSessions = true
	defer func() { overSessions = false }()
	defer client.SetSessionAge(20 * time.Millisecond)() // Sessions give way to others all the time.
	for name, test := range map[string]func(*testing.T){
		"retries": TestRetriesCarryTheSameID, "errors": TestErrors, "attempts": TestAnEarlierAttemptMayHaveExecuted,
		"pauses": TestRetryWaitsAsAsked, "budget": TestRetriesHaveABudget, "stalled": TestStalledGateway,
		"failover": TestFailover, "hedge": TestHedgedRead, "canceled": TestCanceledCall, "close": TestClose,
		"TLS": TestTLSAndToken,
	} {
		t.Run(name, test)
	}
}

// Session answers calls as the methods of their own do.
func (g *gateway) Session(s licensedv1.LicenseService_SessionServer) error {
	limits := &licensedv1.SessionLimits{MaxMessageBytes: 64 << 10, MaxMessageCalls: 1024, MaxCalls: g.mostCalls()}
	if err := s.Send(&licensedv1.SessionResponse{Limits: limits}); err != nil {
		return err
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	var mu sync.Mutex
	cancels := make(map[uint64]context.CancelFunc)
	for n := 0; ; {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		mu.Lock()
		for _, id := range m.Canceled {
			if cancel := cancels[id]; cancel != nil {
				cancel()
			}
		}
		mu.Unlock()
		for _, c := range m.Calls {
			if g.ends != nil {
				if err := g.ends(c); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
			}
			if n++; n == g.awayAfter {
				mu.Lock()
				err := s.Send(&licensedv1.SessionResponse{GoingAway: true})
				mu.Unlock()
				if err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(s.Context(), c.Timeout.AsDuration())
			mu.Lock()
			cancels[c.Id] = cancel
			mu.Unlock()
			calls.Go(func() {
				defer cancel()
				o := g.answer(ctx, c)
				mu.Lock()
				defer mu.Unlock()
				delete(cancels, c.Id)
				_ = s.Send(&licensedv1.SessionResponse{Outcomes: []*licensedv1.SessionOutcome{o}})
			})
		}
	}
}

func (g *gateway) mostCalls() uint32 {
	if g.most > 0 {
		return g.most
	}
	return 1024
}

func (g *gateway) answer(ctx context.Context, c *licensedv1.SessionCall) *licensedv1.SessionOutcome {
	o := &licensedv1.SessionOutcome{Id: c.Id}
	var err error
	switch r := c.Request.(type) {
	case *licensedv1.SessionCall_AcquireLicense:
		var res *licensedv1.AcquireLicenseResponse
		res, err = g.AcquireLicense(ctx, r.AcquireLicense)
		o.Outcome = &licensedv1.SessionOutcome_AcquireLicense{AcquireLicense: res}
	case *licensedv1.SessionCall_ListDevices:
		var res *licensedv1.ListDevicesResponse
		res, err = g.ListDevices(ctx, r.ListDevices)
		o.Outcome = &licensedv1.SessionOutcome_ListDevices{ListDevices: res}
	default:
		err = status.Error(codes.Unimplemented, fmt.Sprintf("no request in %v", c))
	}
	if err != nil {
		o.Outcome = &licensedv1.SessionOutcome_Error{Error: status.Convert(err).Proto()}
	}
	return o
}

// TestSessionHoldsBack: no more calls are sent than the gateway holds, and those that wait go with their callers.
func TestSessionHoldsBack(t *testing.T) {
	arrived, leave := make(chan struct{}, 9), make(chan struct{})
	g := (&gateway{most: 2, acquire: acquiring(func() error { arrived <- struct{}{}; <-leave; return nil })}).start(t)
	c := dial(t, client.Options{Session: true, RetryRatio: -1}, g)
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() {
			if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
				t.Error(err)
			}
		})
		<-arrived
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.AcquireLicense(ctx, request())
	if !errors.Is(err, client.ErrNotExecuted) || status.Code(err) != codes.DeadlineExceeded || len(g.arrived()) != 2 {
		t.Errorf("the third call: %v, %d calls arrived", err, len(g.arrived()))
	}
	close(leave)
	calls.Wait()
}

// TestSessionSwitches: when a gateway goes away, calls in progress are answered, and others go elsewhere, without one
// that fails.
func TestSessionSwitches(t *testing.T) {
	g := (&gateway{awayAfter: 3}).start(t)
	failed := func(a client.Attempt) {
		if a.Err != nil {
			t.Error(a.Err)
		}
	}
	c := dial(t, client.Options{Session: true, Listener: client.Listener{Attempted: failed}}, g)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 50 {
				if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	calls.Wait()
}

// TestSessionEnds: a call without an outcome was not executed if the gateway gives one of three reasons, and is of
// unknown outcome otherwise, whatever the code of the end is. It is repeated with the same id in both cases.
func TestSessionEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  error
		want error
	}{
		"the gateway stops": {failure(codes.Unavailable, licensedv1.ReasonNotExecuted, "stops"), client.ErrNotExecuted},
		"a fault":           {failure(codes.InvalidArgument, licensedv1.ReasonInvalid, "id 1"), client.ErrNotExecuted},
		"outcomes not read": {
			failure(codes.ResourceExhausted, licensedv1.ReasonOutcomeUnknown, "read"), client.ErrOutcomeUnknown,
		},
		"a bug":               {failure(codes.Internal, licensedv1.ReasonBug, "bug"), client.ErrOutcomeUnknown},
		"OK":                  {io.EOF, client.ErrOutcomeUnknown},
		"a proxy's limit":     {status.Error(codes.ResourceExhausted, "calm"), client.ErrOutcomeUnknown},
		"a proxy's rule":      {status.Error(codes.PermissionDenied, "no"), client.ErrOutcomeUnknown},
		"a proxy's ignorance": {status.Error(codes.Unimplemented, "what"), client.ErrOutcomeUnknown},
		"a broken connection": {status.Error(codes.Unavailable, "reset"), client.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var ids []string
			g := (&gateway{ends: func(c *licensedv1.SessionCall) error {
				mu.Lock()
				defer mu.Unlock()
				if ids = append(ids, c.GetAcquireLicense().CommandId); len(ids) == 1 {
					return test.end
				}
				return nil
			}}).start(t)
			var attempts []error
			listener := client.Listener{Attempted: func(a client.Attempt) {
				attempts = append(attempts, a.Err)
			}}
			c := dial(t, client.Options{Session: true, RetryRatio: 1, Listener: listener}, g)
			if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
				t.Fatal(err)
			}
			if len(attempts) != 2 || !errors.Is(attempts[0], test.want) || len(ids) != 2 || ids[0] != ids[1] {
				t.Errorf("attempts: %v with the ids %q, want first %v", attempts, ids, test.want)
			}
		})
	}
}

// TestSessionOfLongCall: what a gateway does not accept in a session is sent by itself, and no other call fails.
func TestSessionOfLongCall(t *testing.T) {
	arrived, leave := make(chan struct{}, 9), make(chan struct{})
	g := (&gateway{acquire: func(_ context.Context, m *licensedv1.AcquireLicenseRequest) error {
		if len(m.TitleId) < 100 {
			arrived <- struct{}{}
			<-leave
		}
		return nil
	}, ends: func(c *licensedv1.SessionCall) error {
		if len(c.GetAcquireLicense().TitleId) > 100 {
			return failure(codes.ResourceExhausted, licensedv1.ReasonInvalid, "too long")
		}
		return nil
	}}).start(t)
	c := dial(t, client.Options{Session: true, RetryRatio: -1}, g)
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	long := request()
	long.TitleId = strings.Repeat("x", 70<<10)
	if _, err := c.AcquireLicense(t.Context(), long); err != nil {
		t.Errorf("the long call: %v", err)
	}
	close(leave)
	calls.Wait()
}

// TestSessionDenied: a caller that the gateway does not let in learns that nothing was executed, and nothing is
// repeated.
func TestSessionDenied(t *testing.T) {
	for code, reason := range map[codes.Code]string{
		codes.Unauthenticated:  licensedv1.ReasonExpiredCredentials,
		codes.PermissionDenied: licensedv1.ReasonNotAllowed,
	} {
		g := (&gateway{ends: func(*licensedv1.SessionCall) error { return failure(code, reason, "no") }}).start(t)
		_, err := dial(t, client.Options{Session: true, RetryRatio: 1}, g).AcquireLicense(t.Context(), request())
		var e *client.Error
		if !errors.As(err, &e) || e.Code != code || e.Attempts != 1 || !errors.Is(err, client.ErrNotExecuted) {
			t.Errorf("%v: %v", code, err)
		}
	}
}
