package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/gateway"
	"licensed/gateway/wire"
	"licensed/internal/harness"
	"licensed/internal/protolimit"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

type sessionStream = connect.BidiStreamForClient[licensedv1.SessionRequest, licensedv1.SessionResponse]

// sessionClient makes unary calls over one session, so that tests of the API run over sessions, too.
type sessionClient struct {
	licensedv1connect.LicenseServiceClient
	open func() (*sessionStream, error)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *licensedv1.SessionOutcome
}

func overSession(t testing.TB, c licensedv1connect.LicenseServiceClient) licensedv1connect.LicenseServiceClient {
	s := &sessionClient{LicenseServiceClient: c, waiting: make(map[uint64]chan *licensedv1.SessionOutcome)}
	s.open = sync.OnceValues(func() (*sessionStream, error) {
		stream := c.Session(t.Context())
		if err := stream.Send(nil); err != nil {
			return nil, err
		}
		received := make(chan struct{})
		go func() {
			defer close(received)
			s.receive(stream)
		}()
		// Before the idle connections are closed: a server waits a second for one that it does not find idle.
		t.Cleanup(func() {
			_, _ = stream.CloseRequest(), stream.CloseResponse()
			<-received
		})
		return stream, nil
	})
	return s
}

func (s *sessionClient) receive(stream *sessionStream) {
	for {
		m, err := stream.Receive()
		s.mu.Lock()
		if err != nil {
			for _, c := range s.waiting {
				c <- &licensedv1.SessionOutcome{Outcome: &licensedv1.SessionOutcome_Error{Error: &status.Status{
					Code: int32(connect.CodeOf(err)), Message: "the session ended: " + err.Error(),
				}}}
			}
			s.mu.Unlock()
			return
		}
		if m.GoingAway {
			_ = stream.CloseRequest() // The calls in progress are answered.
		}
		for _, o := range m.Outcomes {
			s.waiting[o.Id] <- o
			delete(s.waiting, o.Id)
		}
		s.mu.Unlock()
	}
}

// callOf returns the call with a request of any method.
func callOf(id uint64, request proto.Message) *licensedv1.SessionCall {
	c := &licensedv1.SessionCall{Id: id}
	fields := c.ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Message() == request.ProtoReflect().Descriptor() {
			c.ProtoReflect().Set(f, protoreflect.ValueOfMessage(request.ProtoReflect()))
		}
	}
	return c
}

// errorOf returns the error of an outcome as a unary call has it.
func errorOf(s *status.Status) error {
	if s == nil {
		return nil
	}
	e := connect.NewError(connect.Code(s.Code), errors.New(s.Message))
	for _, d := range s.Details {
		m, err := d.UnmarshalNew()
		if err != nil {
			return err
		}
		detail, err := connect.NewErrorDetail(m)
		if err != nil {
			return err
		}
		e.AddDetail(detail)
	}
	return e
}

func callOver[Req, Res any, P interface {
	*Req
	proto.Message
}](ctx context.Context, s *sessionClient, r *connect.Request[Req]) (*connect.Response[Res], error) {
	stream, err := s.open()
	if err != nil {
		return nil, err
	}
	outcome := make(chan *licensedv1.SessionOutcome, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	s.waiting[id] = outcome
	c := callOf(id, P(r.Msg))
	if deadline, ok := ctx.Deadline(); ok {
		c.Timeout = durationpb.New(max(0, time.Until(deadline)))
	}
	err = stream.Send(&licensedv1.SessionRequest{Calls: []*licensedv1.SessionCall{c}})
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	o := <-outcome
	if err := errorOf(o.GetError()); err != nil {
		return nil, err
	}
	field := o.ProtoReflect().WhichOneof(o.ProtoReflect().Descriptor().Oneofs().ByName("outcome"))
	reply, ok := o.ProtoReflect().Get(field).Message().Interface().(any).(*Res)
	if !ok {
		return nil, fmt.Errorf("outcome of another method: %v", o)
	}
	return connect.NewResponse(reply), nil
}

func (s *sessionClient) AcquireLicense(
	ctx context.Context, r *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	return callOver[licensedv1.AcquireLicenseRequest, licensedv1.AcquireLicenseResponse](ctx, s, r)
}

func (s *sessionClient) RenewLicense(
	ctx context.Context, r *connect.Request[licensedv1.RenewLicenseRequest],
) (*connect.Response[licensedv1.RenewLicenseResponse], error) {
	return callOver[licensedv1.RenewLicenseRequest, licensedv1.RenewLicenseResponse](ctx, s, r)
}

func (s *sessionClient) ReleaseLicense(
	ctx context.Context, r *connect.Request[licensedv1.ReleaseLicenseRequest],
) (*connect.Response[licensedv1.ReleaseLicenseResponse], error) {
	return callOver[licensedv1.ReleaseLicenseRequest, licensedv1.ReleaseLicenseResponse](ctx, s, r)
}

func (s *sessionClient) RecordPlayback(
	ctx context.Context, r *connect.Request[licensedv1.RecordPlaybackRequest],
) (*connect.Response[licensedv1.RecordPlaybackResponse], error) {
	return callOver[licensedv1.RecordPlaybackRequest, licensedv1.RecordPlaybackResponse](ctx, s, r)
}

func (s *sessionClient) DeactivateDevice(
	ctx context.Context, r *connect.Request[licensedv1.DeactivateDeviceRequest],
) (*connect.Response[licensedv1.DeactivateDeviceResponse], error) {
	return callOver[licensedv1.DeactivateDeviceRequest, licensedv1.DeactivateDeviceResponse](ctx, s, r)
}

func (s *sessionClient) ChangePlan(
	ctx context.Context, r *connect.Request[licensedv1.ChangePlanRequest],
) (*connect.Response[licensedv1.ChangePlanResponse], error) {
	return callOver[licensedv1.ChangePlanRequest, licensedv1.ChangePlanResponse](ctx, s, r)
}

func (s *sessionClient) SelectDevices(
	ctx context.Context, r *connect.Request[licensedv1.SelectDevicesRequest],
) (*connect.Response[licensedv1.SelectDevicesResponse], error) {
	return callOver[licensedv1.SelectDevicesRequest, licensedv1.SelectDevicesResponse](ctx, s, r)
}

func (s *sessionClient) GrantException(
	ctx context.Context, r *connect.Request[licensedv1.GrantExceptionRequest],
) (*connect.Response[licensedv1.GrantExceptionResponse], error) {
	return callOver[licensedv1.GrantExceptionRequest, licensedv1.GrantExceptionResponse](ctx, s, r)
}

func (s *sessionClient) WithdrawException(
	ctx context.Context, r *connect.Request[licensedv1.WithdrawExceptionRequest],
) (*connect.Response[licensedv1.WithdrawExceptionResponse], error) {
	return callOver[licensedv1.WithdrawExceptionRequest, licensedv1.WithdrawExceptionResponse](ctx, s, r)
}

func (s *sessionClient) LendAllowance(
	ctx context.Context, r *connect.Request[licensedv1.LendAllowanceRequest],
) (*connect.Response[licensedv1.LendAllowanceResponse], error) {
	return callOver[licensedv1.LendAllowanceRequest, licensedv1.LendAllowanceResponse](ctx, s, r)
}

func (s *sessionClient) ReturnAllowance(
	ctx context.Context, r *connect.Request[licensedv1.ReturnAllowanceRequest],
) (*connect.Response[licensedv1.ReturnAllowanceResponse], error) {
	return callOver[licensedv1.ReturnAllowanceRequest, licensedv1.ReturnAllowanceResponse](ctx, s, r)
}

func (s *sessionClient) ListLicenses(
	ctx context.Context, r *connect.Request[licensedv1.ListLicensesRequest],
) (*connect.Response[licensedv1.ListLicensesResponse], error) {
	return callOver[licensedv1.ListLicensesRequest, licensedv1.ListLicensesResponse](ctx, s, r)
}

func (s *sessionClient) ListDownloads(
	ctx context.Context, r *connect.Request[licensedv1.ListDownloadsRequest],
) (*connect.Response[licensedv1.ListDownloadsResponse], error) {
	return callOver[licensedv1.ListDownloadsRequest, licensedv1.ListDownloadsResponse](ctx, s, r)
}

func (s *sessionClient) GetCustomer(
	ctx context.Context, r *connect.Request[licensedv1.GetCustomerRequest],
) (*connect.Response[licensedv1.GetCustomerResponse], error) {
	return callOver[licensedv1.GetCustomerRequest, licensedv1.GetCustomerResponse](ctx, s, r)
}

func (s *sessionClient) ListDevices(
	ctx context.Context, r *connect.Request[licensedv1.ListDevicesRequest],
) (*connect.Response[licensedv1.ListDevicesResponse], error) {
	return callOver[licensedv1.ListDevicesRequest, licensedv1.ListDevicesResponse](ctx, s, r)
}

// openSession opens a session, which ends with the test.
func openSession(t *testing.T, client *http.Client, url string, more ...connect.ClientOption) *sessionStream {
	t.Helper()
	options := []connect.ClientOption{connect.WithGRPC()}
	for _, o := range more {
		if o != nil {
			options = append(options, o)
		}
	}
	s := licensedv1connect.NewLicenseServiceClient(client, url, options...).Session(t.Context())
	context.AfterFunc(t.Context(), func() { _, _ = s.CloseRequest(), s.CloseResponse() })
	if err := s.Send(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// limitsOf returns the first message.
func limitsOf(t *testing.T, s *sessionStream) *licensedv1.SessionLimits {
	t.Helper()
	m, err := s.Receive()
	if err != nil || m.Limits == nil || len(m.Outcomes) > 0 {
		t.Fatalf("the first message is %v, %v", m, err)
	}
	return m.Limits
}

func acquireCall(id uint64) *licensedv1.SessionCall {
	r := acquire()
	r.CommandId = fmt.Sprint("c", id)
	return callOf(id, r)
}

func sendCalls(t *testing.T, s *sessionStream, calls ...*licensedv1.SessionCall) {
	t.Helper()
	if err := s.Send(callsOf(calls...)); err != nil {
		t.Fatal(err)
	}
}

// sendAll sends calls in as few messages as the session's limits allow.
func sendAll(s *sessionStream, limits *licensedv1.SessionLimits, calls []*licensedv1.SessionCall) error {
	for some := range slices.Chunk(calls, int(limits.MaxMessageCalls)) {
		if err := s.Send(callsOf(some...)); err != nil {
			return err
		}
	}
	return nil
}

// acquireCalls returns n calls with the ids from 0.
func acquireCalls(n int) (calls []*licensedv1.SessionCall) {
	for id := range uint64(n) {
		calls = append(calls, acquireCall(id))
	}
	return calls
}

// tooMany returns a message with one call more than is allowed.
func tooMany() *licensedv1.SessionRequest {
	m := &licensedv1.SessionRequest{}
	for id := range uint64(gateway.MaxMessageCalls + 1) {
		m.Calls = append(m.Calls, &licensedv1.SessionCall{Id: id})
	}
	return m
}

// tooLong returns a message with one call, which has more bytes than are allowed.
func tooLong() *licensedv1.SessionRequest {
	c := acquireCall(5)
	c.GetAcquireLicense().CustomerId = strings.Repeat("x", gateway.MaxBodyBytes)
	return callsOf(c)
}

func callsOf(calls ...*licensedv1.SessionCall) *licensedv1.SessionRequest {
	return &licensedv1.SessionRequest{Calls: calls}
}

// await returns the outcomes of n calls by id, each of which has one.
func await(t *testing.T, s *sessionStream, n int) map[uint64]*licensedv1.SessionOutcome {
	t.Helper()
	all := make(map[uint64]*licensedv1.SessionOutcome)
	for len(all) < n {
		m, err := s.Receive()
		if err != nil {
			t.Fatalf("%d outcomes of %d: %v", len(all), n, err)
		}
		for _, o := range m.Outcomes {
			if all[o.Id] != nil {
				t.Fatalf("call %d has two outcomes: %v and %v", o.Id, all[o.Id], o)
			}
			all[o.Id] = o
		}
	}
	return all
}

// ended returns the error of a session, after outcomes that nobody asked for.
func ended(s *sessionStream) error {
	for {
		if _, err := s.Receive(); err != nil {
			return err
		}
	}
}

// unused fails the test if something is still counted.
func (r *rig) unused(t *testing.T, limits ...string) {
	t.Helper()
	for _, limit := range limits {
		series := `licensed_gateway_limit_used{limit="` + limit + `"}`
		harness.Until(func() bool { return r.metric(t, series) == "0" })
	}
}

var allLimits = []string{"requests", "request_bytes", "reply_bytes", "streams", "stream_bytes"}

// TestSessionHasEveryMethod: a session carries each unary method, under one number in both directions.
func TestSessionHasEveryMethod(t *testing.T) {
	requests := (*licensedv1.SessionCall)(nil).ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
	replies := (*licensedv1.SessionOutcome)(nil).ProtoReflect().Descriptor().Oneofs().ByName("outcome").Fields()
	methods := licensedv1.File_licensed_v1_license_service_proto.Services().ByName("LicenseService").Methods()
	unary := 0
	for i := range methods.Len() {
		m := methods.Get(i)
		if m.IsStreamingClient() || m.IsStreamingServer() {
			continue
		}
		unary++
		found := false
		for j := range requests.Len() {
			f := requests.Get(j)
			if f.Message() != m.Input() {
				continue
			}
			reply := replies.ByNumber(f.Number())
			found = reply != nil && reply.Message() == m.Output() && reply.Name() == f.Name()
		}
		if !found {
			t.Errorf("%s has no field of the same number in SessionCall and SessionOutcome", m.Name())
		}
	}
	if requests.Len() != unary {
		t.Errorf("%d requests for %d methods", requests.Len(), unary)
	}
}

// TestSessionAnswersInAnyOrder: a call that waits delays no other, also in the same message.
func TestSessionAnswersInAnyOrder(t *testing.T) {
	leave := make(chan struct{})
	f := failing(nil)
	f.execute = func(_ context.Context, _ string, c actors.Command) (actors.Reply, error) {
		if c.ID == "c1" {
			<-leave
		}
		return actors.Reply{}, actors.ErrOverloaded
	}
	r := start(t, f)
	s := openSession(t, harness.HTTP2(t), r.url)
	limitsOf(t, s)
	sendCalls(t, s, acquireCall(1), acquireCall(2), acquireCall(3))
	if all := await(t, s, 2); all[2] == nil || all[3] == nil {
		t.Errorf("answered: %v", all)
	}
	close(leave)
	if all := await(t, s, 1); all[1] == nil {
		t.Errorf("answered: %v", all)
	}
	// A client that closes its side gets what it waits for, and then the end.
	sendCalls(t, s, acquireCall(1))
	if err := s.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	await(t, s, 1)
	if err := ended(s); !errors.Is(err, io.EOF) {
		t.Errorf("a session that the client closed ended with %v", err)
	}
	r.unused(t, allLimits...)
	if got := r.metric(t, `licensed_gateway_sessions_ended_total{code="ok"}`); got != "1" {
		t.Errorf("%q sessions ended well, want 1", got)
	}
}

// TestSessionDeadlines: each call has its own.
func TestSessionDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(nil)
		f.execute = untilGivenUp
		c := gateway.DefaultConfig()
		s := openSession(t, piped(t, gateway.New(c, f).Handler())["HTTP/2"], "http://pipe")
		if got := limitsOf(t, s).MaxTimeout.AsDuration(); got != c.MaxDeadline {
			t.Errorf("a call may take %v, want %v", got, c.MaxDeadline)
		}
		began := time.Now()
		timeouts := []time.Duration{time.Second, 0, time.Hour, -time.Second}
		var calls []*licensedv1.SessionCall
		for i, d := range timeouts {
			calls = append(calls, acquireCall(uint64(i)))
			calls[i].Timeout = durationpb.New(d)
		}
		sendCalls(t, s, append(calls, acquireCall(9))...)
		all, when := make(map[uint64]error), make(map[uint64]time.Duration)
		for len(all) < 5 {
			m, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range m.Outcomes {
				all[o.Id], when[o.Id] = errorOf(o.GetError()), time.Since(began)
			}
		}
		for id, want := range map[uint64]struct {
			after  time.Duration
			code   connect.Code
			reason string
		}{
			0: {time.Second, connect.CodeDeadlineExceeded, licensedv1.ReasonOutcomeUnknown},
			1: {0, connect.CodeDeadlineExceeded, licensedv1.ReasonNotExecuted},
			2: {c.MaxDeadline, connect.CodeDeadlineExceeded, licensedv1.ReasonOutcomeUnknown},
			3: {0, connect.CodeInvalidArgument, licensedv1.ReasonInvalid},
			9: {c.MaxDeadline, connect.CodeDeadlineExceeded, licensedv1.ReasonOutcomeUnknown},
		} {
			if connect.CodeOf(all[id]) != want.code || reasonOf(all[id]) != want.reason || when[id] != want.after {
				t.Errorf("call %d: %v after %v, want %v of %s after %v",
					id, all[id], when[id], want.code, want.reason, want.after)
			}
		}
	})
}

// TestSessionCancels: a call that is canceled, and those of a client that goes, are withdrawn and free their places.
func TestSessionCancels(t *testing.T) {
	entered, withdrawn := make(chan string), make(chan string)
	f := failing(nil)
	f.execute = func(ctx context.Context, _ string, c actors.Command) (actors.Reply, error) {
		entered <- c.ID
		<-ctx.Done()
		withdrawn <- c.ID
		return actors.Reply{}, ctx.Err()
	}
	r := start(t, f)
	s := openSession(t, harness.HTTP2(t), r.url)
	limitsOf(t, s)
	sendCalls(t, s, acquireCall(1), acquireCall(2))
	<-entered
	<-entered
	if err := s.Send(&licensedv1.SessionRequest{Canceled: []uint64{1, 77}}); err != nil {
		t.Fatal(err)
	}
	if id := <-withdrawn; id != "c1" {
		t.Errorf("%s was withdrawn", id)
	}
	all := await(t, s, 1)
	checkError(t, "canceled", errorOf(all[1].GetError()), connect.CodeCanceled, licensedv1.ReasonOutcomeUnknown, "")
	if got := r.metric(t, `licensed_gateway_limit_used{limit="requests"}`); got != "1" {
		t.Errorf("%s requests are in flight, want 1", got)
	}
	_, _ = s.CloseRequest(), s.CloseResponse()
	if id := <-withdrawn; id != "c2" {
		t.Errorf("%s was withdrawn", id)
	}
	r.unused(t, allLimits...)
}

// TestSessionMeetsLimits: a call that meets one is refused as a call of its own is, and others go on.
func TestSessionMeetsLimits(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	f := holding(entered, leave)
	r := start(t, f, func(c *gateway.Config) { c.MaxInFlight, c.AddressShare = 4, 0.5 })
	s := openSession(t, harness.HTTP2(t), r.url)
	limitsOf(t, s)
	sendCalls(t, s, acquireCall(1), acquireCall(2), acquireCall(3))
	<-entered
	<-entered
	all := await(t, s, 1)
	for _, o := range all {
		err := errorOf(o.GetError())
		checkError(t, "one too many", err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "in flight")
		info, _ := detail[*errdetails.ErrorInfo](t, err)
		_, retry := detail[*errdetails.RetryInfo](t, err)
		if !retry || info.Metadata["limit"] != "requests" || info.Metadata["scope"] != "share" {
			t.Errorf("details of %v: %v", err, info)
		}
	}
	close(leave)
	await(t, s, 2)
	if err := s.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if err := ended(s); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	r.unused(t, allLimits...)
	const refusals = `licensed_gateway_request_duration_seconds_count{code="resource_exhausted",method="AcquireLicense"}`
	if got := r.metric(t, refusals); got != "1" {
		t.Errorf("%q refusals were measured, want 1", got)
	}
}

// TestSessionReadsWhatItMayHold: calls beyond the limits of a session wait, and are executed when others are
// answered.
func TestSessionReadsWhatItMayHold(t *testing.T) {
	var inFlight, most atomic.Int64
	full, leave := make(chan struct{}), make(chan struct{})
	f := failing(nil)
	var limits *licensedv1.SessionLimits
	f.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == int64(limits.MaxCalls) {
			close(full)
		}
		<-leave
		return actors.Reply{}, actors.ErrNotOwner
	}
	r := start(t, f)
	s := openSession(t, harness.HTTP2(t), r.url)
	limits = limitsOf(t, s)
	n := 3 * int(limits.MaxCalls)
	sent := make(chan error, 1)
	go func() { sent <- sendAll(s, limits, acquireCalls(n)) }()
	<-full
	close(leave)
	await(t, s, n)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if most.Load() > int64(limits.MaxCalls) {
		t.Errorf("%d calls were in flight, want %d at most", most.Load(), limits.MaxCalls)
	}
	r.unused(t, "requests", "request_bytes", "reply_bytes")
}

// TestSessionFaults end a session with the reason, after what is in progress is answered.
func TestSessionFaults(t *testing.T) {
	for name, test := range map[string]struct {
		message *licensedv1.SessionRequest
		code    connect.Code
		says    string
		option  connect.ClientOption
	}{
		"an id twice":    {callsOf(acquireCall(1)), connect.CodeInvalidArgument, "id 1", nil},
		"many calls":     {tooMany(), connect.CodeInvalidArgument, "256 calls", nil},
		"many as JSON":   {tooMany(), connect.CodeInvalidArgument, "256 calls", connect.WithProtoJSON()},
		"a long message": {tooLong(), connect.CodeResourceExhausted, "65536", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			leave := make(chan struct{})
			f := holding(nil, leave)
			g := gateway.New(gateway.DefaultConfig(), f)
			s := openSession(t, piped(t, g.Handler())["HTTP/2"], "http://pipe", test.option)
			limitsOf(t, s)
			sendCalls(t, s, acquireCall(1))
			if err := s.Send(test.message); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			close(leave)
			await(t, s, 1)
			err := ended(s)
			checkError(t, name, err, test.code, licensedv1.ReasonInvalid, test.says)
			checkError(t, name, err, test.code, licensedv1.ReasonInvalid, "were not executed")
			if len(f.commands) != 1 {
				t.Errorf("%s: %d commands were executed, want 1", name, len(f.commands))
			}
			synctest.Wait()
			if n := g.InFlight(); n != 0 {
				t.Errorf("%s: %d requests are in flight", name, n)
			}
		})
	}
}

// TestSessionOfUnknownCall: a method that the server does not know fails its call.
func TestSessionOfUnknownCall(t *testing.T) {
	r := start(t, failing(actors.ErrNotOwner)) // Before the client, whose connections are then closed first.
	s := openSession(t, harness.HTTP2(t), r.url)
	limitsOf(t, s)
	sendCalls(t, s, &licensedv1.SessionCall{Id: 1}, acquireCall(2))
	all := await(t, s, 2)
	checkError(t, "no request", errorOf(all[1].GetError()),
		connect.CodeUnimplemented, licensedv1.ReasonUnsupported, "not executed")
	checkError(t, "the other", errorOf(all[2].GetError()), connect.CodeUnavailable, licensedv1.ReasonNotExecuted, "")
}

// TestSessionGoesAway: a gateway that stops sends word, executes and answers what arrives, and ends.
func TestSessionGoesAway(t *testing.T) {
	for _, closes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			leave := make(chan struct{})
			f := holding(nil, leave)
			g := gateway.New(gateway.DefaultConfig(), f)
			client := piped(t, g.Handler())["HTTP/2"]
			s := openSession(t, client, "http://pipe")
			limitsOf(t, s)
			sendCalls(t, s, acquireCall(1))
			synctest.Wait()
			g.EndStreams()
			if m, err := s.Receive(); err != nil || !m.GoingAway {
				t.Fatalf("the gateway stops: %v, %v", m, err)
			}
			sendCalls(t, s, acquireCall(2))
			if closes {
				if err := s.CloseRequest(); err != nil {
					t.Fatal(err)
				}
			}
			time.AfterFunc(5*time.Second, func() { close(leave) })
			await(t, s, 2)
			err := ended(s)
			if closes && !errors.Is(err, io.EOF) {
				t.Errorf("a client that switched sees %v", err)
			}
			if !closes {
				checkError(t, "a client that stays", err,
					connect.CodeUnavailable, licensedv1.ReasonNotExecuted, "another gateway")
			}
			checkError(t, "a new session", ended(openSession(t, client, "http://pipe")),
				connect.CodeUnavailable, licensedv1.ReasonNotExecuted, "stops")
		})
	}
}

// TestSessionOfDeafClient: a client that does not read gets a bounded number of bytes, and its session ends. If it
// then reads, it learns why.
func TestSessionOfDeafClient(t *testing.T) {
	for _, wakes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := wholeLists(1000)
			var asked atomic.Int64
			answer := f.answer
			f.answer = func(q *licensedv1.Query) (actors.Answer, error) {
				asked.Add(1)
				return answer(q)
			}
			c := gateway.DefaultConfig()
			g := gateway.New(c, f)
			s := openSession(t, piped(t, g.Handler())["HTTP/2"], "http://pipe")
			limits := limitsOf(t, s)
			const calls = 2000
			go func() {
				for id := range uint64(calls) {
					if s.Send(&licensedv1.SessionRequest{Calls: []*licensedv1.SessionCall{
						callOf(id, &licensedv1.ListLicensesRequest{CustomerId: "Bayley"}),
					}}) != nil {
						return
					}
				}
			}()
			time.Sleep(time.Second)
			list, _ := f.answer(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{}})
			size := int64(proto.Size(list.Value.(proto.Message)))
			// Outcomes may be larger than was expected.
			if n := asked.Load(); n*size > 2*int64(limits.MaxBytes) {
				t.Errorf("%d calls of %d bytes were executed for a client that reads nothing, the limit is %d bytes",
					n, size, limits.MaxBytes)
			}
			time.Sleep(30 * time.Second)
			if !wakes {
				time.Sleep(10 * time.Second)
			}
			synctest.Wait()
			if n := g.InFlight(); n > 1 || n > 0 && !wakes {
				t.Errorf("%d requests are in flight", n)
			}
			if err := ended(s); wakes {
				checkError(t, "deaf", err, connect.CodeResourceExhausted, licensedv1.ReasonOutcomeUnknown, "not read")
			} else if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("a session that was cut off looks whole: %v", err)
			}
		})
	}
}

// spy is an interceptor that notes the calls it surrounds.
type spy struct {
	mu    sync.Mutex
	calls []string
}

func (s *spy) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		s.mu.Lock()
		s.calls = append(s.calls, fmt.Sprintf("%s %s %s %s",
			r.Spec().Procedure, r.Peer().Protocol, r.Header().Get("traceparent"), r.HTTPMethod()))
		s.mu.Unlock()
		if r.Any().(*licensedv1.AcquireLicenseRequest).DeviceId == "broken" {
			panic("no such luck")
		}
		return next(ctx, r)
	}
}

func (s *spy) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (s *spy) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestSessionInterceptors surround each call as if it were one of its own, and a panic of them fails that call.
func TestSessionInterceptors(t *testing.T) {
	watch := &spy{}
	r := start(t, failing(actors.ErrNotOwner), func(c *gateway.Config) {
		c.Interceptors = []connect.Interceptor{watch}
	})
	s := openSession(t, harness.HTTP2(t), r.url)
	limitsOf(t, s)
	traced, broken := acquireCall(1), acquireCall(2)
	traced.Traceparent, broken.GetAcquireLicense().DeviceId = "00-x-y-01", "broken"
	sendCalls(t, s, traced)
	await(t, s, 1)
	sendCalls(t, s, broken)
	checkError(t, "panic", errorOf(await(t, s, 1)[2].GetError()), connect.CodeInternal, licensedv1.ReasonBug, "")
	want := []string{
		"/licensed.v1.LicenseService/AcquireLicense grpc 00-x-y-01 POST",
		"/licensed.v1.LicenseService/AcquireLicense grpc  POST",
	}
	if got := strings.Join(watch.calls, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("surrounded:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// TestSessionGRPC opens a session with the client that most others use.
func TestSessionGRPC(t *testing.T) {
	d := newDomain(t)
	s, err := licensedv1.NewLicenseServiceClient(dialGRPC(t, d.start().url)).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(callsOf(callOf(7, acquire()))); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var outcomes []*licensedv1.SessionOutcome
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, m.Outcomes...)
	}
	if len(outcomes) != 1 || outcomes[0].Id != 7 || outcomes[0].GetAcquireLicense().GetSequence() != 4 {
		t.Errorf("outcomes: %v", outcomes)
	}
}

// FuzzSessionMessage: no message is decoded into more calls than a session reads at one time.
func FuzzSessionMessage(f *testing.F) {
	calls := &licensedv1.SessionRequest{Calls: acquireCalls(3), Canceled: []uint64{3}}
	binary, err := proto.Marshal(calls)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(binary)
	f.Add([]byte(strings.Repeat("\n\x00", 1025)))
	f.Add([]byte(`{"calls":[{"id":"1","x":"\\"{"},{}]}`))
	f.Add([]byte(`{"calls":[` + strings.Repeat("{},", 2100) + `{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, codec := range []connect.Codec{wire.Proto, wire.JSON} {
			m := &licensedv1.SessionRequest{}
			most := protolimit.FreeElements + len(data)/protolimit.BytesPerElement
			if codec.Unmarshal(data, m) == nil && len(m.Calls) > most {
				t.Errorf("%s: %d calls", codec.Name(), len(m.Calls))
			}
		}
	})
}

// TestFullSessionMessage: a message with as many calls as it may have is decoded, however short the calls are.
func TestFullSessionMessage(t *testing.T) {
	full := &licensedv1.SessionRequest{}
	for id := range uint64(gateway.MaxMessageCalls) {
		full.Calls = append(full.Calls, &licensedv1.SessionCall{Id: id, Timeout: &durationpb.Duration{},
			Request: &licensedv1.SessionCall_AcquireLicense{AcquireLicense: &licensedv1.AcquireLicenseRequest{
				IssuedAt: &timestamppb.Timestamp{},
			}}})
	}
	for _, codec := range []connect.Codec{wire.Proto, wire.JSON} {
		b, err := codec.Marshal(full)
		if err == nil {
			err = codec.Unmarshal(b, &licensedv1.SessionRequest{})
		}
		if err != nil {
			t.Errorf("%s: %v", codec.Name(), err)
		}
	}
}
