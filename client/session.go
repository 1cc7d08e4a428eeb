package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/messages/licensedv1"
)

const (
	// messageBytes is the size of a message of a session, but for its last call. Gateways accept 64 KiB, and end a
	// session, with all its calls, that sends more.
	messageBytes = 32 << 10
	// callBytes is the size from which on a call is sent by itself: the gateway's answer to it concerns no other call.
	callBytes = 16 << 10
)

// sessionAge is the time after which a session gives way to a new one, to the gateway that gRPC then chooses: a gateway
// that was restarted gets calls again.
var sessionAge = 30 * time.Second

// sessions is the transport of Options.Session: one session for each gateway, which is opened when it is needed. What
// a session cannot carry is sent by the unary transport.
type sessions struct {
	unary
	client licensedv1.LicenseServiceClient
	next   atomic.Uint64
	open   sync.WaitGroup

	mu  sync.Mutex
	all []*session // nil where none was opened
}

func newSessions(connection *grpc.ClientConn, gateways int) *sessions {
	return &sessions{
		unary:  unary{connection},
		client: licensedv1.NewLicenseServiceClient(connection),
		all:    make([]*session, gateways),
	}
}

// wait returns when all sessions have ended. The connection must be closed.
func (p *sessions) wait() { p.open.Wait() }

// sessionFields are the fields of SessionCall, and of SessionOutcome, of each method.
var sessionFields = func() map[string]protoreflect.FieldDescriptor {
	all := make(map[string]protoreflect.FieldDescriptor)
	fields := (*licensedv1.SessionCall)(nil).ProtoReflect().Descriptor().Fields()
	for number, m := range licensedv1.SessionMethods() {
		all["/"+string(m.Parent().FullName())+"/"+string(m.Name())] = fields.ByNumber(number)
	}
	return all
}()

// invoke implements transport.
func (p *sessions) invoke(
	ctx context.Context, method string, request, reply any, options ...grpc.CallOption,
) (at time.Time, err error) {
	field := sessionFields[method]
	if field == nil || slices.ContainsFunc(options, ofOneReply) || proto.Size(request.(proto.Message)) >= callBytes {
		return p.unary.invoke(ctx, method, request, reply, options...)
	}
	c := &sessionCall{outcome: make(chan *licensedv1.SessionOutcome, 1), SessionCall: &licensedv1.SessionCall{}}
	if err := c.encode(field, request.(proto.Message)); err != nil {
		return time.Time{}, status.Error(codes.Internal, err.Error())
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.Timeout = durationpb.New(max(0, time.Until(deadline)))
	}
	s := p.join(c)
	select {
	case o := <-c.outcome:
		return time.Time{}, deliver(o, field, reply.(proto.Message))
	case <-ctx.Done():
		if s.leave(c) {
			return time.Time{}, because(licensedv1.ReasonNotExecuted, status.FromContextError(ctx.Err()))
		}
		return time.Time{}, status.FromContextError(ctx.Err()).Err()
	}
}

// deliver copies a reply, or returns the error that an outcome is.
func deliver(o *licensedv1.SessionOutcome, field protoreflect.FieldDescriptor, reply proto.Message) error {
	if e := o.GetError(); e != nil {
		return status.FromProto(e).Err()
	}
	m := o.ProtoReflect()
	f := m.Descriptor().Fields().ByNumber(field.Number())
	if !m.Has(f) {
		return status.Error(codes.Internal, "the gateway answered a call of a session as one of another method")
	}
	proto.Merge(reply, m.Get(f).Message().Interface())
	return nil
}

// because returns an error with a reason.
func because(reason string, s *status.Status) error {
	if with, err := s.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: licensedv1.ErrorDomain}); err == nil {
		s = with
	}
	return s.Err()
}

// noOutcome returns the error of a call that was sent over a session which ended with this status. The call was
// certainly not executed only if the gateway gives one of three reasons, or did not accept the caller. The code alone
// is not enough: it may be of gRPC or a proxy, which know nothing of the calls.
func noOutcome(s *status.Status) error {
	ended := status.New(codes.Unavailable, "the session ended: "+s.Message())
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		switch {
		case !ok:
		case info.Reason == licensedv1.ReasonInvalid, info.Reason == licensedv1.ReasonNotExecuted,
			info.Reason == licensedv1.ReasonOverloaded:
			return because(licensedv1.ReasonNotExecuted, ended)
		case denied(s.Code(), info.Reason):
			return s.Err()
		default:
			return because(licensedv1.ReasonOutcomeUnknown, ended)
		}
	}
	return ended.Err()
}

// join queues a call in the session of the next gateway, which is opened if there is none that accepts calls.
func (p *sessions) join(c *sessionCall) *session {
	i := p.next.Add(1) % uint64(len(p.all))
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.all[i]; s != nil && s.add(c) {
		return s
	}
	s := &session{more: make(chan struct{}, 1), waiting: make(map[uint64]*sessionCall)}
	s.add(c)
	p.all[i] = s
	p.open.Go(func() { s.run(p.client) })
	return s
}

// session is one that is being opened, is open, or has ended.
type session struct {
	// more has a token when there may be something to send.
	more chan struct{}

	mu sync.Mutex
	// queue has the calls to be sent, waiting those that were sent and have no outcome.
	queue   []*sessionCall
	waiting map[uint64]*sessionCall
	// canceled are ids of calls that were sent, and whose outcome is not wanted.
	canceled []uint64
	last     uint64
	// limits of the gateway; nil until it said them.
	limits *licensedv1.SessionLimits
	// away says that further calls belong to another session, and ended that there will be no more outcomes.
	away, ended bool
}

// sessionCall is a call with the place for its outcome.
type sessionCall struct {
	*licensedv1.SessionCall
	outcome chan *licensedv1.SessionOutcome
}

// encode sets the request. It is encoded at once, since the caller may change it when a call that it gave up has
// returned, while the message with the call is being written.
func (c *sessionCall) encode(field protoreflect.FieldDescriptor, request proto.Message) error {
	size := proto.Size(request)
	b := make([]byte, 0, protowire.SizeTag(field.Number())+protowire.SizeBytes(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, field.Number(), protowire.BytesType), uint64(size))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, request)
	if err != nil {
		return fmt.Errorf("encode a call of a session: %w", err)
	}
	c.ProtoReflect().SetUnknown(b) // These are written as they are.
	return nil
}

// add queues a call; false if the session accepts no more.
func (s *session) add(c *sessionCall) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away || s.ended {
		return false
	}
	s.last++
	c.Id = s.last
	s.queue = append(s.queue, c)
	s.notify()
	return true
}

// notify leaves a token, unless there is one.
func (s *session) notify() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// leave withdraws a call, and reports whether it was never sent.
func (s *session) leave(c *sessionCall) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue, c); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
		return true
	}
	if s.waiting[c.Id] == c {
		s.canceled = append(s.canceled, c.Id)
		s.notify()
	}
	return false
}

// run opens the session and works on it until it ends.
func (s *session) run(client licensedv1.LicenseServiceClient) {
	ctx, cancel := context.WithCancel(context.Background()) // The end of the connection ends it.
	defer cancel()
	stream, err := client.Session(ctx)
	if err == nil {
		aged := time.AfterFunc(sessionAge/2+rand.N(sessionAge), s.retire)
		defer aged.Stop()
		var writing sync.WaitGroup
		writing.Go(func() { s.write(stream) })
		err = s.read(stream)
		s.end(err)
		cancel()
		writing.Wait()
		return
	}
	s.end(err)
}

// retire has further calls sent over another session.
func (s *session) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = true
	s.notify()
}

// read delivers outcomes until the session ends.
func (s *session) read(stream licensedv1.LicenseService_SessionClient) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Unavailable, "the gateway ended the session")
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		if m.Limits != nil {
			s.limits = m.Limits
		}
		s.away = s.away || m.GoingAway
		for _, o := range m.Outcomes {
			if c := s.waiting[o.Id]; c != nil {
				delete(s.waiting, o.Id)
				c.outcome <- o
			}
		}
		s.notify()
		s.mu.Unlock()
	}
}

// end fails the calls that have no outcome.
func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	fail := func(c *sessionCall, err error) {
		c.outcome <- &licensedv1.SessionOutcome{
			Outcome: &licensedv1.SessionOutcome_Error{Error: status.Convert(err).Proto()},
		}
	}
	why := status.Convert(err)
	for _, c := range s.waiting {
		fail(c, noOutcome(why))
	}
	for _, c := range s.queue {
		fail(c, because(licensedv1.ReasonNotExecuted,
			status.New(codes.Unavailable, "the session ended: "+why.Message())))
	}
	s.waiting, s.queue = nil, nil
	s.notify()
}

// write sends calls until the session ends. A session that accepts no more calls is closed after the last one.
func (s *session) write(stream licensedv1.LicenseService_SessionClient) {
	for {
		<-s.more
		runtime.Gosched() // Others may have calls for the same message.
		for {
			m, last := s.message()
			if m == nil && !last {
				break
			}
			if m != nil && stream.Send(m) != nil {
				return // The reader learns why.
			}
			if last {
				_ = stream.CloseSend() // It returns no error.
				return
			}
		}
	}
}

// message returns what is to be sent now, nil for nothing, and whether there will be nothing more.
func (s *session) message() (m *licensedv1.SessionRequest, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < min(len(s.queue), int(s.limits.GetMaxMessageCalls())) && size < messageBytes &&
		len(s.waiting) < int(s.limits.GetMaxCalls()) {
		c := s.queue[n]
		s.waiting[c.Id] = c
		size += proto.Size(c.SessionCall)
		n++
	}
	if n > 0 || len(s.canceled) > 0 {
		m = &licensedv1.SessionRequest{Canceled: s.canceled}
		for _, c := range s.queue[:n] {
			m.Calls = append(m.Calls, c.SessionCall)
		}
		s.queue, s.canceled = slices.Delete(s.queue, 0, n), nil
	}
	return m, s.ended || s.away && len(s.queue) == 0
}
