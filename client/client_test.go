package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/client"
	"licensed/internal/certs"
	"licensed/messages/licensedv1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is a gateway that answers as the test says. A nil function is success.
type gateway struct {
	licensedv1.UnimplementedLicenseServiceServer
	licensedv1.UnimplementedHistoryServiceServer
	acquire func(ctx context.Context, m *licensedv1.AcquireLicenseRequest) error
	list    func(ctx context.Context) error
	license *licensedv1.License // acquired
	follow  func(m *licensedv1.FollowRequest, s grpc.ServerStreamingServer[licensedv1.FollowResponse]) error

	// most is the number of calls that a session holds, 1024 if it is 0; after awayAfter calls it goes away.
	most      uint32
	awayAfter int
	// ends returns what a session ends with when a call arrives; nil: the session continues.
	ends func(c *licensedv1.SessionCall) error

	address string
	server  *grpc.Server
	mu      sync.Mutex
	ids     []string // of the commands that arrived
}

func (g *gateway) AcquireLicense(
	ctx context.Context, m *licensedv1.AcquireLicenseRequest,
) (*licensedv1.AcquireLicenseResponse, error) {
	g.mu.Lock()
	g.ids = append(g.ids, m.CommandId)
	g.mu.Unlock()
	if g.acquire != nil {
		if err := g.acquire(ctx, m); err != nil {
			return nil, err
		}
	}
	return &licensedv1.AcquireLicenseResponse{Sequence: 4, License: g.license}, nil
}

func (g *gateway) ListDevices(
	ctx context.Context, _ *licensedv1.ListDevicesRequest,
) (*licensedv1.ListDevicesResponse, error) {
	if g.list != nil {
		if err := g.list(ctx); err != nil {
			return nil, err
		}
	}
	return &licensedv1.ListDevicesResponse{PlanId: "basic"}, nil
}

func (g *gateway) Follow(m *licensedv1.FollowRequest, s grpc.ServerStreamingServer[licensedv1.FollowResponse]) error {
	return g.follow(m, s)
}

// arrived returns the ids of the commands that arrived.
func (g *gateway) arrived() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.ids)
}

// start serves a gateway until the test ends.
func (g *gateway) start(t *testing.T, options ...grpc.ServerOption) *gateway {
	t.Helper()
	_, stop := g.serve(options...)
	t.Cleanup(stop)
	return g
}

func (g *gateway) serve(options ...grpc.ServerOption) (address string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	g.address, g.server = l.Addr().String(), grpc.NewServer(options...)
	licensedv1.RegisterLicenseServiceServer(g.server, g)
	licensedv1.RegisterHistoryServiceServer(g.server, g)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.server.Serve(l) })
	return g.address, func() {
		g.server.Stop()
		serving.Wait()
	}
}

func dial(t *testing.T, o client.Options, gateways ...*gateway) *client.Client {
	t.Helper()
	o.Session = o.Session || overSessions
	var addresses []string
	for _, g := range gateways {
		addresses = append(addresses, g.address)
	}
	c, err := client.Dial(addresses, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func failure(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{
		&errdetails.ErrorInfo{Reason: reason, Domain: licensedv1.ErrorDomain},
	}, details...)...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func retryInfo(after time.Duration) protoadapt.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}
}

var (
	notExecuted = failure(codes.Unavailable, licensedv1.ReasonNotExecuted,
		"no node serves this customer; not executed, retry")
	unknown = failure(codes.Unavailable, licensedv1.ReasonOutcomeUnknown,
		"outcome unknown; retry with the same command_id to learn it")
)

func overloaded(after time.Duration) error {
	return failure(codes.ResourceExhausted, licensedv1.ReasonOverloaded, "overloaded; not executed, retry later",
		retryInfo(after))
}

// inTurn returns what fails with these errors in turn, then succeeds.
func inTurn(errs ...error) func() error {
	var n atomic.Int64
	return func() error {
		if i := int(n.Add(1)); i <= len(errs) {
			return errs[i-1]
		}
		return nil
	}
}

func acquiring(f func() error) func(context.Context, *licensedv1.AcquireLicenseRequest) error {
	return func(context.Context, *licensedv1.AcquireLicenseRequest) error { return f() }
}

func request() *licensedv1.AcquireLicenseRequest {
	return &licensedv1.AcquireLicenseRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01"}
}

// TestRetriesCarryTheSameID: a command that fails in ways that another attempt may repair is repeated under one
// id, which the client makes; the next command gets another.
func TestRetriesCarryTheSameID(t *testing.T) {
	g := (&gateway{acquire: acquiring(inTurn(
		notExecuted, unknown, overloaded(time.Millisecond), status.Error(codes.Unavailable, "connection reset"),
		status.Error(codes.Internal, "stream terminated by RST_STREAM"),
		failure(codes.DeadlineExceeded, licensedv1.ReasonOutcomeUnknown,
			"deadline exceeded, outcome unknown")))}).start(t)
	var attempts []client.Attempt
	listener := client.Listener{Attempted: func(a client.Attempt) { attempts = append(attempts, a) }}
	c := dial(t, client.Options{Listener: listener}, g)
	m := request()
	res, err := c.AcquireLicense(t.Context(), m)
	if err != nil || res.Sequence != 4 {
		t.Fatalf("%v, %v", res, err)
	}
	first := g.arrived()
	if len(first) != 7 || len(first[0]) != 36 || len(slices.Compact(slices.Clone(first))) != 1 {
		t.Errorf("ids of the attempts: %q", first)
	}
	if m.CommandId != "" {
		t.Errorf("the caller's request was changed: %v", m)
	}
	for i, a := range attempts {
		if a.Number != i+1 || a.CommandID != first[0] || !strings.HasSuffix(a.Method, "/AcquireLicense") ||
			(a.Err == nil) != (i == 6) {
			t.Errorf("attempt %d: %+v", i+1, a)
		}
	}
	if _, err := c.AcquireLicense(t.Context(), m); err != nil || g.arrived()[7] == first[0] {
		t.Errorf("%v; the next command has the id of the one before", err)
	}
	m.CommandId = "mine"
	if _, err := c.AcquireLicense(t.Context(), m); err != nil || g.arrived()[8] != "mine" {
		t.Errorf("%v; the caller's id was not used: %q", err, g.arrived())
	}
	if _, err := c.AcquireLicense(t.Context(),
		&licensedv1.AcquireLicenseRequest{ValidateOnly: true}); err != nil || g.arrived()[9] != "" {
		t.Errorf("%v; a request that only validates got the id %q", err, g.arrived()[9])
	}
}

func TestRefusal(t *testing.T) {
	next := time.Date(2026, 12, 23, 7, 28, 4, 0, time.UTC)
	g := (&gateway{acquire: func(ctx context.Context, _ *licensedv1.AcquireLicenseRequest) error {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("date", "Mon, 30 Nov 2026 10:00:00 GMT"))
		return failure(codes.FailedPrecondition, licensedv1.ReasonRefused, "1 device has active licences",
			&licensedv1.Refusal{
				Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 1, Current: 1, NextAllowedAt: timestamppb.New(next),
				Message: "1 device has active licences", Sequence: 6,
			})
	}}).start(t)
	_, err := dial(t, client.Options{}, g).AcquireLicense(t.Context(), request())
	var refusal *client.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("%T: %v", err, err)
	}
	if refusal.Rule != licensedv1.Rule_RULE_DEVICE_LIMIT || refusal.Limit != 1 || refusal.Current != 1 ||
		refusal.Sequence != 6 ||
		!refusal.NextAllowedAt.Equal(next) || refusal.ServerTime.Hour() != 10 || refusal.CommandID != g.arrived()[0] ||
		refusal.Error() != "1 device has active licences" {
		t.Errorf("%+v", refusal)
	}
	var e *client.Error
	if !errors.As(err, &e) || e.Code != codes.FailedPrecondition || status.Code(err) != codes.FailedPrecondition ||
		e.Reason != licensedv1.ReasonRefused {
		t.Errorf("%+v, code %v", e, status.Code(err))
	}
	if errors.Is(err, client.ErrNotExecuted) || errors.Is(err, client.ErrOutcomeUnknown) || len(g.arrived()) != 1 {
		t.Errorf("a refusal is an outcome: %v after %d attempts", err, len(g.arrived()))
	}
}

// TestErrors: what each error tells, and that these are not repeated.
func TestErrors(t *testing.T) {
	violations := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "device_id", Description: "must not contain '/'"}, {Field: "title_id", Description: "is required"},
	}}
	for _, c := range []struct {
		err  error
		want error
	}{
		{
			failure(codes.InvalidArgument, licensedv1.ReasonInvalid, "device_id must not contain '/'", violations),
			client.ErrNotExecuted,
		},
		{
			failure(codes.AlreadyExists, licensedv1.ReasonIDReused, "this command_id was used before"),
			client.ErrNotExecuted,
		},
		{failure(codes.OutOfRange, licensedv1.ReasonTooOld, "issued too long ago"), nil},
		{failure(codes.DataLoss, licensedv1.ReasonCorrupt, "cannot be read"), client.ErrNotExecuted},
		{failure(codes.Internal, licensedv1.ReasonBug, "internal error"), client.ErrOutcomeUnknown},
		{status.Error(codes.ResourceExhausted, "the message is larger than 65536 bytes"), client.ErrNotExecuted},
		{status.Error(codes.Unimplemented, "unknown method"), client.ErrNotExecuted},
		{status.Error(codes.Unauthenticated, "no token"), client.ErrNotExecuted},
		{failure(codes.Unauthenticated, licensedv1.ReasonExpiredCredentials, "expired"), client.ErrNotExecuted},
		{failure(codes.PermissionDenied, licensedv1.ReasonNotAllowed, "no role"), client.ErrNotExecuted},
		{failure(codes.ResourceExhausted, licensedv1.ReasonTooManyAttempts, "wait"), client.ErrNotExecuted},
	} {
		g := (&gateway{acquire: acquiring(func() error { return c.err })}).start(t)
		_, err := dial(t, client.Options{}, g).AcquireLicense(t.Context(), request())
		var e *client.Error
		if !errors.As(err, &e) || e.Attempts != 1 || e.CommandID != g.arrived()[0] {
			t.Errorf("%v: %+v", c.err, e)
			continue
		}
		for _, sentinel := range []error{client.ErrNotExecuted, client.ErrOutcomeUnknown} {
			if errors.Is(err, sentinel) != errors.Is(c.want, sentinel) {
				t.Errorf("%v: %v is %t", c.err, sentinel, errors.Is(err, sentinel))
			}
		}
		if e.Reason == licensedv1.ReasonInvalid && !slices.Equal(e.Violations, []client.Violation{
			{Field: "device_id", Description: "must not contain '/'"}, {Field: "title_id", Description: "is required"},
		}) {
			t.Errorf("violations: %v", e.Violations)
		}
	}
}

// TestAnEarlierAttemptMayHaveExecuted: the last attempt was not executed, but the one before may have been, so the
// outcome of the command is unknown.
func TestAnEarlierAttemptMayHaveExecuted(t *testing.T) {
	g := (&gateway{acquire: acquiring(inTurn(unknown, overloaded(time.Hour)))}).start(t)
	_, err := dial(t, client.Options{}, g).AcquireLicense(t.Context(), request())
	var e *client.Error
	if !errors.As(err, &e) || e.Reason != licensedv1.ReasonOverloaded || e.Attempts != 2 || e.RetryAfter != time.Hour {
		t.Fatalf("%+v", e)
	}
	if !errors.Is(err, client.ErrOutcomeUnknown) || errors.Is(err, client.ErrNotExecuted) {
		t.Errorf("%v", err)
	}
}

// TestRetryWaitsAsAsked: a pause is never shorter than the service asks.
func TestRetryWaitsAsAsked(t *testing.T) {
	const asked = 60 * time.Millisecond
	g := (&gateway{acquire: acquiring(inTurn(overloaded(asked)))}).start(t)
	began := time.Now()
	if _, err := dial(t, client.Options{}, g).AcquireLicense(t.Context(), request()); err != nil ||
		time.Since(began) < asked {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// TestRetriesHaveABudget: where everything fails, requests are repeated some, not all the time.
func TestRetriesHaveABudget(t *testing.T) {
	g := (&gateway{
		acquire: acquiring(func() error { return overloaded(0) }),
		list:    func(context.Context) error { return overloaded(time.Nanosecond) },
	}).start(t)
	var attempts atomic.Int64
	c := dial(t, client.Options{Listener: client.Listener{Attempted: func(client.Attempt) { attempts.Add(1) }}}, g)
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() { _, _ = c.ListDevices(t.Context(), &licensedv1.ListDevicesRequest{}) })
	}
	calls.Wait()
	// 200 requests, 50 saved retries, 20 earned by requests, and one a second.
	if n := attempts.Load(); n < 250 || n > 300 {
		t.Errorf("%d attempts", n)
	}
	never := dial(t, client.Options{RetryRatio: -1}, g)
	if _, err := never.AcquireLicense(t.Context(), request()); err == nil || len(g.arrived()) != 1 {
		t.Errorf("%v after %d attempts", err, len(g.arrived()))
	}
}

// TestStalledGateway: an attempt that is not answered ends, and the other gateway answers the same command.
func TestStalledGateway(t *testing.T) {
	stalled := (&gateway{acquire: func(ctx context.Context, _ *licensedv1.AcquireLicenseRequest) error {
		<-ctx.Done()
		return ctx.Err()
	}}).start(t)
	other := (&gateway{}).start(t)
	c := dial(t, client.Options{AttemptTimeout: 50 * time.Millisecond}, stalled, other)
	for len(stalled.arrived()) == 0 {
		before := len(other.arrived())
		if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		if ids := other.arrived(); len(ids) != before+1 ||
			len(stalled.arrived()) > 0 && !slices.Contains(stalled.arrived(), ids[before]) {
			t.Errorf("the other gateway got %q, the stalled one %q", ids[before:], stalled.arrived())
		}
	}
}

// TestFailover: while one gateway is stopped, another answers every command.
func TestFailover(t *testing.T) {
	one, two := (&gateway{}).start(t), (&gateway{}).start(t)
	c := dial(t, client.Options{}, one, two)
	for len(one.arrived()) == 0 || len(two.arrived()) == 0 { // Both are connected.
		if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
	}
	stopped := make(chan struct{})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 20 {
				if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
					t.Error(err)
				}
			}
			<-stopped
			if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
				t.Error(err)
			}
		})
	}
	one.server.Stop()
	close(stopped)
	calls.Wait()
}

// TestHedgedRead: a query that is not answered soon is sent once more; a command never is.
func TestHedgedRead(t *testing.T) {
	var asked atomic.Int64
	released := make(chan error, 1)
	g := (&gateway{
		list: func(ctx context.Context) error {
			if asked.Add(1) == 1 {
				<-ctx.Done()
				released <- ctx.Err()
				return ctx.Err()
			}
			return nil
		},
		acquire: acquiring(func() error { time.Sleep(20 * time.Millisecond); return nil }),
	}).start(t)
	c := dial(t, client.Options{HedgeAfter: time.Millisecond}, g)
	if res, err := c.ListDevices(t.Context(),
		&licensedv1.ListDevicesRequest{}); err != nil || res.PlanId != "basic" || asked.Load() != 2 {
		t.Errorf("%v, %v after %d requests", res, err, asked.Load())
	}
	if err := <-released; !errors.Is(err, context.Canceled) {
		t.Errorf("the slow attempt ended by %v", err)
	}
	if _, err := c.AcquireLicense(t.Context(), request()); err != nil || len(g.arrived()) != 1 {
		t.Errorf("%v after %d attempts", err, len(g.arrived()))
	}
}

// TestCanceledCall: the error tells that the caller gave up, and that the outcome is unknown.
func TestCanceledCall(t *testing.T) {
	arrived := make(chan struct{})
	g := (&gateway{acquire: func(ctx context.Context, _ *licensedv1.AcquireLicenseRequest) error {
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	}}).start(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := dial(t, client.Options{}, g).AcquireLicense(ctx, request())
	if !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrOutcomeUnknown) ||
		status.Code(err) != codes.Canceled {
		t.Errorf("%v, code %v", err, status.Code(err))
	}
}

// TestClose waits for the attempt in progress, and calls after it fail.
func TestClose(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	g := (&gateway{acquire: acquiring(func() error { close(arrived); <-answer; return nil })}).start(t)
	c := dial(t, client.Options{}, g)
	answered := make(chan error, 1)
	go func() {
		_, err := c.AcquireLicense(t.Context(), request())
		answered <- err
	}()
	<-arrived
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	for {
		if _, err := c.ListDevices(t.Context(), &licensedv1.ListDevicesRequest{}); errors.Is(err, client.ErrClosed) {
			break
		}
	}
	close(answer)
	if err := <-answered; err != nil {
		t.Errorf("the call in progress: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestTLSAndToken: each of several gateways must have a certificate for its own name, and gets the token.
func TestTLSAndToken(t *testing.T) {
	ca := certs.New(t)
	tokens := make(chan []string, 2)
	secure := func() *gateway {
		g := &gateway{acquire: func(ctx context.Context, _ *licensedv1.AcquireLicenseRequest) error {
			md, _ := metadata.FromIncomingContext(ctx)
			tokens <- md["authorization"]
			return nil
		}}
		return g.start(t, grpc.Creds(credentials.NewServerTLSFromCert(new(ca.Sign(2)))))
	}
	o := client.Options{
		TLS:   &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS13},
		Token: func(context.Context) (string, error) { return "secret", nil },
	}
	for _, c := range []*client.Client{dial(t, o, secure()), dial(t, o, secure(), secure())} {
		if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		if got := <-tokens; !slices.Equal(got, []string{"Bearer secret"}) {
			t.Errorf("authorization: %q", got)
		}
	}
	o.TLS.RootCAs = certs.New(t).Pool()
	o.RetryRatio = -1
	if _, err := dial(t, o, secure()).AcquireLicense(t.Context(), request()); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of another authority: %v", err)
	}
}

// TestNewTLS: a client reaches a gateway of another authority as soon as its own configuration trusts that.
func TestNewTLS(t *testing.T) {
	former, next := certs.New(t), certs.New(t)
	first := new(gateway)
	_, stop := first.serve(grpc.Creds(credentials.NewServerTLSFromCert(new(former.Sign(2)))))
	defer stop()
	second := new(gateway).start(t, grpc.Creds(credentials.NewServerTLSFromCert(new(next.Sign(3)))))
	var trusted atomic.Pointer[certs.Authority]
	trusted.Store(former)
	c := dial(t, client.Options{NewTLS: func() *tls.Config {
		return &tls.Config{RootCAs: trusted.Load().Pool(), MinVersion: tls.VersionTLS13}
	}}, first, second)
	for range 4 {
		if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(second.arrived()); n != 0 {
		t.Fatalf("%d requests at a gateway that is not trusted", n)
	}
	trusted.Store(next)
	stop()
	if _, err := c.AcquireLicense(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if len(second.arrived()) == 0 {
		t.Error("no request at the gateway that is trusted now")
	}
}

func TestDialWithoutAddresses(t *testing.T) {
	for _, c := range []struct {
		addresses []string
		options   client.Options
		want      string
	}{
		{nil, client.Options{}, "no address"},
		{[]string{"a:1", "b"}, client.Options{}, `"b" is not HOST:PORT`},
		{[]string{"a:1"}, client.Options{Token: func(context.Context) (string, error) {
			return "x",
				nil
		}}, "transport level security"},
	} {
		if _, err := client.Dial(c.addresses, c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.addresses, err, c.want)
		}
	}
}
