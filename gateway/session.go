package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"licensed/internal/protolimit"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// Limits of one session. A message has at most MaxBodyBytes.
const (
	// sessionBytes is what a session is counted with: a message as it arrives, decompressed, and decoded.
	sessionBytes = 256 << 10
	// sessionCallBytes is what a call is counted with beside its request: a goroutine, and what the handler allocates.
	sessionCallBytes = 8 << 10
	// maxMessageCalls is the number of calls in one message. Each may have four of the elements that package protolimit
	// counts (the call, its time, its request, a time in that) in the smallest message.
	maxMessageCalls = protolimit.FreeElements / 4
	// maxHeldCalls is the number of calls whose outcome was not written, and maxHeldBytes the encoded size of their
	// requests and expected outcomes, and of the outcomes.
	maxHeldCalls = 1024
	maxHeldBytes = 4 << 20
	// maxRefused is the number of outcomes that were not written and have no memory of their own, because their calls
	// were refused before it was taken. Each takes less than commandReply; they are a part of sessionBytes.
	maxRefused = 32
	// maxIdleWorkers is the number of goroutines of all sessions that wait for a call.
	maxIdleWorkers = 1024
	// outcomesBytes is the encoded size from which on no more outcomes are added to a message.
	outcomesBytes = 32 << 10
)

// awayTime is the time in which calls that were sent to a gateway that stops have to arrive, and in which the
// client learns that the gateway stops. Longer: more distant clients switch without a failed call; a stop takes longer.
const awayTime = 2 * time.Second

// sessionMethods are the methods that a session carries, by the number of their field in SessionCall and
// SessionOutcome.
type sessionMethods map[protoreflect.FieldNumber]*sessionMethod

type sessionMethod struct {
	route *route
	spec  connect.Spec
	// outcome is the field of SessionOutcome.
	outcome protoreflect.FieldDescriptor
	// run is the handler of the method itself, within the interceptors of the API.
	run connect.UnaryFunc
}

var (
	callRequest = (*licensedv1.SessionCall)(nil).ProtoReflect().Descriptor().Oneofs().ByName("request")
	outcomes    = (*licensedv1.SessionOutcome)(nil).ProtoReflect().Descriptor().Fields()
)

// newSessionMethods gives a session the handlers of the service.
func newSessionMethods(s *service) sessionMethods {
	interceptors := s.interceptors()
	handlers := map[protoreflect.Name]connect.UnaryFunc{
		"AcquireLicense":    handler(s.AcquireLicense),
		"RenewLicense":      handler(s.RenewLicense),
		"ReleaseLicense":    handler(s.ReleaseLicense),
		"RecordPlayback":    handler(s.RecordPlayback),
		"DeactivateDevice":  handler(s.DeactivateDevice),
		"ChangePlan":        handler(s.ChangePlan),
		"SyncDevice":        handler(s.SyncDevice),
		"SelectDevices":     handler(s.SelectDevices),
		"GrantException":    handler(s.GrantException),
		"WithdrawException": handler(s.WithdrawException),
		"ListLicenses":      handler(s.ListLicenses),
		"ListDownloads":     handler(s.ListDownloads),
		"ListDevices":       handler(s.ListDevices),
		"GetCustomer":       handler(s.GetCustomer),
		"LendAllowance":     handler(s.LendAllowance),
		"ReturnAllowance":   handler(s.ReturnAllowance),
	}
	all := make(sessionMethods)
	for number, m := range licensedv1.SessionMethods() {
		procedure := "/" + licensedv1connect.LicenseServiceName + "/" + string(m.Name())
		run := handlers[m.Name()]
		for _, i := range slices.Backward(interceptors) {
			run = i.WrapUnary(run)
		}
		all[number] = &sessionMethod{
			route: s.routes[procedure], outcome: outcomes.ByNumber(number), run: run,
			spec: connect.Spec{StreamType: connect.StreamTypeUnary, Schema: m, Procedure: procedure},
		}
	}
	return all
}

// of returns the method of a call and its request; nil if it has none that is known.
func (all sessionMethods) of(c *licensedv1.SessionCall) (*sessionMethod, proto.Message) {
	m := c.ProtoReflect()
	field := m.WhichOneof(callRequest)
	if field == nil {
		return nil, nil
	}
	return all[field.Number()], m.Get(field).Message().Interface()
}

// handler makes a handler of one method one of any.
func handler[Req, Res any](
	f func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error),
) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := f(ctx, connect.NewRequest(r.Any().(*Req)))
		if err != nil {
			return nil, err // Without a response of the type Res, which would be nil and something.
		}
		return res, nil
	}
}

// sessionRequest is the request of a call, as interceptors see those of other methods.
type sessionRequest struct {
	connect.AnyRequest // Always anyRequest.
	message            any
	spec               connect.Spec
	peer               connect.Peer
	header             http.Header
}

func (r *sessionRequest) Any() any            { return r.message }
func (r *sessionRequest) Spec() connect.Spec  { return r.spec }
func (r *sessionRequest) Peer() connect.Peer  { return r.peer }
func (r *sessionRequest) Header() http.Header { return r.header }
func (r *sessionRequest) HTTPMethod() string  { return http.MethodPost }

// anyRequest is for a method of connect.AnyRequest that only package connect can have.
var anyRequest = connect.NewRequest(&emptypb.Empty{})

// session is an open stream of Session. Its reader starts the calls, each is executed by a worker of its own, and the
// writer writes their outcomes.
//
// It ends in one way: the reader stops, the calls in progress are answered, and the stream ends with the reason that
// the reader stopped for. Only a client that has gone, or does not read, has its calls withdrawn and their outcomes
// dropped; then the stream ends with the reason of that, whatever the reader stopped for, see result.
type session struct {
	*service
	call    *call // of the session itself
	stream  *connect.BidiStream[licensedv1.SessionRequest, licensedv1.SessionResponse]
	control *http.ResponseController
	// ctx of the calls.
	ctx      context.Context
	withdraw context.CancelFunc
	// tasks has idle workers wait for calls.
	tasks chan *task
	// more has a token when there may be something to write, and room when the reader may go on.
	more, room chan struct{}

	mu sync.Mutex
	// calls without an outcome.
	calls map[uint64]context.CancelFunc
	// held is the number of calls whose outcome was not written, and bytes what maxHeldBytes bounds.
	held  int
	bytes int64
	// queue has the outcomes that wait to be written.
	queue []*outcome
	// away says that the client is to be told that the gateway stops.
	away bool
	// refused is the number of outcomes that wait to be written, and whose memory is that of the session.
	refused int
	// deaf is set when the client does not read, or has gone: outcomes are dropped from then on. lost says that one
	// was; then the session ends with deaf.
	deaf *connect.Error
	lost bool
	// reason why the reader is to stop, or did stop, which read says: there will be no more calls. It is nil if the
	// client closed its side.
	reason error
	read   bool
	// closed says that the handler returns: its response must not be used.
	closed bool
}

// outcome of a call, which counts until it is written.
type outcome struct {
	call
	*licensedv1.SessionOutcome
	// size is what counts of maxHeldBytes.
	size int64
}

// Session implements licensedv1connect.LicenseServiceHandler.
func (s *service) Session(
	ctx context.Context, stream *connect.BidiStream[licensedv1.SessionRequest, licensedv1.SessionResponse],
) (err error) {
	if s.stopping.Err() != nil {
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"the gateway stops; open the session at another one")
	}
	c := ctx.Value(callKey{}).(*call)
	c.endless = true
	x := &session{
		service: s, call: c, stream: stream, control: http.NewResponseController(c),
		calls: make(map[uint64]context.CancelFunc), tasks: make(chan *task),
		more: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	// A call belongs to the trace of its client, and not to that of the session, which may last for days.
	x.ctx, x.withdraw = context.WithCancel(trace.ContextWithSpan(ctx, nil))
	defer x.withdraw()
	disarm := context.AfterFunc(s.stopping, x.goAway)
	defer disarm()
	if c.claims != nil && !c.claims.Expiry.IsZero() {
		// In time for the client to continue with new credentials, so that no call fails.
		expires := time.AfterFunc(c.claims.Expiry.Sub(s.config.Now())-2*awayTime, x.goAway)
		defer expires.Stop()
	}
	s.metrics.sessions.Inc()
	written := make(chan struct{})
	go func() {
		defer close(written)
		x.write()
	}()
	x.stopped(x.receive())
	<-written
	return x.result()
}

// stopped notes that there will be no more calls, and why, unless the reader was told to stop.
func (x *session) stopped(reason error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.read = true
	if x.reason == nil {
		x.reason = reason
	}
	notify(x.more)
}

// result returns what the session ends with, when nothing more is read or written. Nothing else decides that.
//
// The reader's reason says that calls without an outcome were not executed, and OK says that there are none. Both are
// true as long as each call that was started has an outcome, and that outcome was written. A call that is withdrawn has
// an outcome, too, which is dropped.
func (x *session) result() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	_ = x.control.SetWriteDeadline(time.Now().Add(lastWords)) // The end of the stream must not wait for the client.
	err := x.reason
	if x.lost {
		err = x.deaf
	}
	x.metrics.sessionEnded(err)
	return err
}

// receive starts the calls of the client until it closes its side, or the session ends.
func (x *session) receive() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = x.panicked(x.call, p)
		}
	}()
	for x.await() {
		m, err := x.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return x.unreadable(err)
		}
		arrived := time.Now()
		if len(m.Calls) > maxMessageCalls {
			return sessionFault(connect.CodeInvalidArgument,
				fmt.Sprintf("a message has more than %d calls", maxMessageCalls))
		}
		x.cancel(m.Canceled)
		m.Canceled = nil // The message may be held for long.
		for i, c := range m.Calls {
			if !x.await() {
				break
			}
			m.Calls[i] = nil
			if err := x.start(c, arrived); err != nil {
				return err
			}
		}
	}
	return x.ctx.Err()
}

// unreadable returns what it means that no message can be read.
func (x *session) unreadable(err error) error {
	var typed *connect.Error
	if !errors.As(err, &typed) ||
		typed.Code() != connect.CodeInvalidArgument && typed.Code() != connect.CodeResourceExhausted {
		return err
	}
	x.call.method.malformed.Inc()
	return sessionFault(typed.Code(), typed.Message())
}

// sessionFault is the error for a client that sends what no session may have.
func sessionFault(code connect.Code, what string) error {
	return apiError(code, licensedv1.ReasonInvalid,
		what+"; the session ends, calls without an outcome were not executed")
}

// await returns when the session may hold a further call; false if the session ends.
func (x *session) await() bool {
	for {
		x.mu.Lock()
		full, over := x.held >= maxHeldCalls || x.bytes >= maxHeldBytes || x.refused >= maxRefused, x.reason != nil
		x.mu.Unlock()
		switch {
		case over || x.ctx.Err() != nil:
			return false
		case !full:
			return true
		}
		select {
		case <-x.room:
		case <-x.ctx.Done():
		}
	}
}

// notify leaves a token, unless there is one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cancel withdraws calls.
func (x *session) cancel(ids []uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		if cancel := x.calls[id]; cancel != nil {
			cancel()
		}
	}
}

// start admits a call and has it executed. An error ends the session.
func (x *session) start(c *licensedv1.SessionCall, arrived time.Time) error {
	o := &outcome{
		call: call{
			holders: x.call.holders, budgets: x.call.budgets, limits: x.call.limits, claims: x.call.claims,
			source: x.call.source,
			caller: x.call.caller,
		},
		SessionOutcome: &licensedv1.SessionOutcome{Id: c.Id}, size: int64(proto.Size(c)),
	}
	m, request := x.methods.of(c)
	size := o.size
	if m != nil && m.route.reply != nil {
		o.size += m.route.reply(request)
	}
	timeout, err := x.timeout(c)
	ctx, cancel := context.WithDeadline(x.ctx, arrived.Add(timeout))
	if !x.hold(o, cancel) {
		cancel()
		return sessionFault(connect.CodeInvalidArgument,
			fmt.Sprintf("id %d is that of a call without an outcome", c.Id))
	}
	if m == nil {
		err = apiError(connect.CodeUnimplemented, licensedv1.ReasonUnsupported,
			"the call has no request that this release knows; not executed")
	}
	if err == nil {
		o.method, o.route = m.route.metrics, m.route
		if err = o.paced(arrived); err == nil {
			err = o.enter(sessionCallBytes + 2*size)
		}
		if err = asLimit(err); err != nil {
			o.method.observe(connect.CodeOf(err), time.Since(arrived))
		}
	}
	if err != nil {
		cancel()
		x.answer(o, err)
		return nil
	}
	r := &sessionRequest{AnyRequest: anyRequest, message: request, spec: m.spec, peer: x.stream.Peer()}
	if c.Traceparent != "" {
		r.header = http.Header{"Traceparent": {c.Traceparent}}
	}
	t := &task{outcome: o, request: r, to: m, ctx: ctx, cancel: cancel, arrived: arrived}
	select {
	case x.tasks <- t:
	default: // No worker is idle.
		go x.work(t)
	}
	return nil
}

// task is an admitted call.
type task struct {
	*outcome
	request *sessionRequest
	to      *sessionMethod
	ctx     context.Context
	cancel  context.CancelFunc
	arrived time.Time
}

// work executes calls, one after the other, until the session ends or enough workers are idle. The stack of a worker
// has the size that a call needs; to let a new one grow costs as much as a call.
func (x *session) work(t *task) {
	for t != nil {
		err := x.execute(t)
		t.cancel()
		t.method.observe(t.code, time.Since(t.arrived))
		x.answer(t.outcome, err)
		t = nil
		if x.idle.Add(1) <= maxIdleWorkers {
			select {
			case t = <-x.tasks:
			case <-x.ctx.Done():
			}
		}
		x.idle.Add(-1)
	}
}

// hold counts a call; false if there is one of its id.
func (x *session) hold(o *outcome, cancel context.CancelFunc) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.calls[o.Id] != nil {
		return false
	}
	x.calls[o.Id] = cancel
	x.held++
	x.bytes += o.size
	return true
}

// timeout returns the time that a call may take.
func (x *session) timeout(c *licensedv1.SessionCall) (time.Duration, error) {
	if c.Timeout == nil {
		return x.config.MaxDeadline, nil
	}
	if err := c.Timeout.CheckValid(); err != nil || c.Timeout.AsDuration() < 0 {
		var v violations
		v.add("timeout", "is negative, or no duration")
		return 0, invalid(v)
	}
	return min(c.Timeout.AsDuration(), x.config.MaxDeadline), nil
}

// execute runs the handler of the method, and sets the outcome if there is no error.
func (x *session) execute(t *task) (err error) {
	defer func() {
		if p := recover(); p != nil { // In an interceptor; those of handlers are recovered there.
			err = x.panicked(&t.call, p)
		}
	}()
	res, err := t.to.run(context.WithValue(t.ctx, callKey{}, &t.call), t.request)
	if err != nil {
		return err
	}
	t.ProtoReflect().Set(t.to.outcome, protoreflect.ValueOfMessage(res.Any().(proto.Message).ProtoReflect()))
	return nil
}

// answer has an outcome written. The place of its call is free at once, its memory when it is written.
func (x *session) answer(o *outcome, err error) {
	if err != nil {
		o.Outcome = &licensedv1.SessionOutcome_Error{Error: statusOf(err)}
	}
	size := int64(proto.Size(o.SessionOutcome))
	if held := o.memory.Size(); err != nil && held > 0 {
		o.memory.Force(max(held, commandReply+replyFactor*size))
	}
	o.slot.Release()
	o.request.Release()
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.calls, o.Id)
	if o.memory.Size() == 0 {
		x.refused++
	}
	x.bytes += size - o.size
	o.size = size
	x.queue = append(x.queue, o)
	if x.deaf != nil {
		x.drop()
	}
	notify(x.more)
}

// statusOf returns an error as it is sent.
func statusOf(err error) *status.Status {
	typed := connect.NewError(connect.CodeOf(err), err)
	_ = errors.As(err, &typed)
	s := &status.Status{Code: int32(typed.Code()), Message: typed.Message()}
	for _, d := range typed.Details() {
		s.Details = append(s.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + d.Type(), Value: d.Bytes()})
	}
	return s
}

// write writes outcomes until there will be no more.
func (x *session) write() {
	patience := time.AfterFunc(sendTimeout, x.slow)
	defer patience.Stop()
	send := func(m *licensedv1.SessionResponse) {
		patience.Reset(sendTimeout)
		defer patience.Stop()
		if err := x.stream.Send(m); err != nil {
			x.cutOff(err)
		}
	}
	send(&licensedv1.SessionResponse{Limits: &licensedv1.SessionLimits{
		MaxMessageBytes: MaxBodyBytes, MaxMessageCalls: maxMessageCalls, MaxCalls: maxHeldCalls, MaxBytes: maxHeldBytes,
		MaxTimeout: durationpb.New(x.config.MaxDeadline),
	}})
	for {
		runtime.Gosched() // Other calls may have outcomes for the same message.
		m, batch, done := x.next()
		switch {
		case m != nil:
			send(m)
			x.release(batch)
		case done:
			return
		default:
			<-x.more
		}
	}
}

// next returns the next message with its outcomes, nil if there is none, and whether there never will be.
func (x *session) next() (m *licensedv1.SessionResponse, batch []*outcome, done bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.deaf != nil || len(x.queue) == 0 && !x.away {
		return nil, nil, x.read && len(x.calls) == 0
	}
	n := 0
	for size := int64(0); n < len(x.queue) && size < outcomesBytes; n++ {
		size += x.queue[n].size
	}
	batch, x.queue = x.queue[:n:n], x.queue[n:]
	m = &licensedv1.SessionResponse{GoingAway: x.away, Outcomes: make([]*licensedv1.SessionOutcome, n)}
	for i, o := range batch {
		m.Outcomes[i] = o.SessionOutcome
	}
	x.away = false
	return m, batch, false
}

// release counts outcomes no more.
func (x *session) release(batch []*outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(batch)
}

// forget is release, for those that have the lock.
func (x *session) forget(batch []*outcome) {
	for _, o := range batch {
		if o.memory.Size() == 0 {
			x.refused--
		}
		o.memory.Release()
		x.bytes -= o.size
	}
	x.held -= len(batch)
	notify(x.room)
}

// drop releases the outcomes that wait. The caller has the lock.
func (x *session) drop() {
	x.lost = x.lost || len(x.queue) > 0
	x.forget(x.queue)
	x.queue = nil
}

// end stops the reader, for a reason. The calls in progress are answered. The caller has the lock.
func (x *session) end(reason error) {
	if x.closed {
		return
	}
	if !x.read && x.reason == nil {
		x.reason = reason
	}
	notify(x.room)
	_ = x.control.SetReadDeadline(time.Now().Add(-time.Second))
}

// deafen ends a session whose client does not hear. The calls in progress are withdrawn. The caller has the lock.
func (x *session) deafen(code connect.Code, why string) {
	if x.deaf == nil {
		x.deaf = apiError(code, licensedv1.ReasonOutcomeUnknown,
			why+"; the session ends, repeat commands without an outcome with the same command_id")
	}
	x.end(x.deaf)
	x.drop()
	x.withdraw()
}

// cutOff ends a session whose client has gone, or does not read the last message in time: a message was not written.
func (x *session) cutOff(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	code := connect.CodeOf(err)
	if x.ctx.Err() != nil {
		code = connect.CodeCanceled
	}
	x.deafen(code, "write outcomes: "+err.Error())
	x.lost = true
}

// slow ends a session whose client does not read. The client has some time more to read what is being written, and
// the reason.
func (x *session) slow() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deafen(connect.CodeResourceExhausted, fmt.Sprintf("outcomes were not read for %v", sendTimeout))
	x.expectReader(lastWords)
}

// goAway tells the client that the gateway stops, or that its credentials expire, and ends the session soon.
func (x *session) goAway() {
	x.mu.Lock()
	x.away = true
	x.mu.Unlock()
	notify(x.more)
	time.AfterFunc(awayTime, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.end(apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"the gateway stops, or the credentials expire; calls without an outcome were not executed, repeat them "+
				"in a session at another gateway"))
		if x.deaf == nil {
			x.expectReader(x.config.MaxDeadline + lastWords)
		}
	})
}

// expectReader cuts the client off if it has not read all by then. The caller has the lock.
func (x *session) expectReader(within time.Duration) {
	if !x.closed {
		_ = x.control.SetWriteDeadline(time.Now().Add(within))
	}
}
