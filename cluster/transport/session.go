package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// receiveMethod is the only method of protoactor's service that works: the others panic.
const receiveMethod = "/remote.Remoting/Receive"

// handshakeTimeout is how long one who connects may take to say something.
const handshakeTimeout = 5 * time.Second

// signEvery is how often who asked hears that this process lives while it owes answers. To be asked for it is
// not enough: the question may wait behind many requests.
const signEvery = 500 * time.Millisecond

// maxTogether is how many answers travel in one message.
const maxTogether = 128

// session is the stream of one who asks, as protoactor's reader knows it.
type session struct {
	grpc.ServerStream
	transport *Transport
	pid       *actor.PID // of who asks, for requests in this process
	ctx       context.Context
	cancel    context.CancelCauseFunc

	in      chan *remote.MessageBatch // checked
	greeted chan struct{}             // closed when something was heard
	out     outbox
	working atomic.Int64 // requests whose answers were not written
	heard   atomic.Bool  // something, since the last sign of life
}

// refuseUnary is the interceptor of methods that are not streams: all of protoactor's panic.
func refuseUnary(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
	return nil, status.Error(codes.Unimplemented, "not offered")
}

// accept is the interceptor of streams on the answering side.
func (t *Transport) accept(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if info.FullMethod != receiveMethod {
		return status.Error(codes.Unimplemented, "not offered")
	}
	if err := stream.SetHeader(t.config.greeting()); err != nil {
		return err
	}
	if err := t.ours(stream.Context()); err != nil {
		return err
	}
	if err := t.awaitStart(stream.Context()); err != nil {
		return err
	}
	s, err := t.newSession(stream)
	if err != nil {
		return err
	}
	defer t.endSession(s)
	defer func() {
		if r := recover(); r != nil {
			t.config.Observer.Rejected("panic")
			t.config.Log.Error("transport: reader of protoactor panicked, connection closed", "panic", r)
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	t.running.Go(s.pump)
	t.running.Go(s.write)
	err = handler(srv, s)
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return status.Error(codes.InvalidArgument, cause.Error())
	}
	return err
}

// awaitStart waits until requests can be taken: who redials a process that was restarted on its port may be
// faster than Start.
func (t *Transport) awaitStart(ctx context.Context) error {
	select {
	case <-t.started:
		return nil
	case <-t.context.Done(): // it did not start
		return status.Error(codes.Unavailable, errClosed.Error())
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (t *Transport) newSession(stream grpc.ServerStream) (*session, error) {
	s := &session{
		ServerStream: stream, transport: t, in: make(chan *remote.MessageBatch), greeted: make(chan struct{}),
		out: outbox{ready: make(chan struct{}, 1), most: t.config.MaxInFlight + maxTogether},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed.Load():
		return nil, status.Error(codes.Unavailable, errClosed.Error())
	case len(t.sessions) >= t.config.MaxPeers:
		t.config.Observer.Rejected("too many streams")
		return nil, status.Error(codes.ResourceExhausted, "too many streams")
	}
	t.nextID++
	s.pid = &actor.PID{Address: t.address, Id: "session" + strconv.FormatUint(t.nextID, 36)}
	s.ctx, s.cancel = context.WithCancelCause(stream.Context())
	t.sessions[s.pid.Id] = s
	return s, nil
}

func (t *Transport) endSession(s *session) {
	s.cancel(nil)
	t.mu.Lock()
	delete(t.sessions, s.pid.Id)
	t.mu.Unlock()
}

func (t *Transport) session(id string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[id]
}

// RecvMsg implements grpc.ServerStream for protoactor's reader. It returns io.EOF when the session is to
// end: after an error the reader would do without goodbye what it then does in order.
func (s *session) RecvMsg(m any) error {
	if !s.awaitGreeting() {
		return io.EOF
	}
	select {
	case b := <-s.in:
		message, ok := m.(*remote.RemoteMessage)
		if !ok {
			return fmt.Errorf("receive a %T", m)
		}
		message.MessageType = &remote.RemoteMessage_MessageBatch{MessageBatch: b}
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

// awaitGreeting returns true when the peer has said something, and false if the session is over.
func (s *session) awaitGreeting() bool {
	select {
	case <-s.greeted:
		return true
	default:
	}
	late := time.NewTimer(handshakeTimeout)
	defer late.Stop()
	select {
	case <-s.greeted:
		return true
	case <-s.ctx.Done():
		return false
	case <-late.C:
		s.reject("no greeting")
		return false
	}
}

// reject ends the session for what the peer did.
func (s *session) reject(reason string) {
	s.transport.config.Observer.Rejected(reason)
	s.cancel(errors.New(reason))
}

// pump receives from the peer, and passes on what may come to protoactor's reader. Greetings are
// answered here, also those that ask for a sign of life.
func (s *session) pump() {
	for first := true; s.ctx.Err() == nil; first = false {
		m := &remote.RemoteMessage{}
		if err := s.ServerStream.RecvMsg(m); err != nil {
			s.cancel(nil)
			return
		}
		if first {
			close(s.greeted)
		}
		s.heard.Store(true)
		switch t := m.GetMessageType().(type) {
		case *remote.RemoteMessage_ConnectRequest:
			s.post(outgoing{message: s.greeting()})
		case *remote.RemoteMessage_MessageBatch:
			b, err := s.admit(t.MessageBatch)
			if err != nil {
				s.reject(err.Error())
				return
			}
			if len(b.Envelopes) == 0 {
				continue
			}
			select {
			case s.in <- b:
			case <-s.ctx.Done():
				return
			}
		default: // of another release
			s.transport.config.Observer.Rejected("unknown message")
		}
	}
}

// greeting is the answer to a greeting, and a sign of life.
func (s *session) greeting() *remote.RemoteMessage {
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{
		ConnectResponse: &remote.ConnectResponse{MemberId: s.transport.system.ID},
	}}
}

// Reasons to end a session.
var (
	errBadIndex  = errors.New("index out of range")
	errBadTarget = errors.New("message for nobody")
	errBadSender = errors.New("request without a number")
	errBadData   = errors.New("message that cannot be read")
)

// admit returns what of a batch may come to protoactor's reader: requests for the front, from this session.
// A message of an unknown type is made a request of which nothing is understood, to be answered so.
func (s *session) admit(b *remote.MessageBatch) (*remote.MessageBatch, error) {
	t := s.transport
	admitted := &remote.MessageBatch{
		TypeNames: []string{requestType}, Targets: []*actor.PID{t.front}, Senders: []*actor.PID{s.pid},
	}
	for _, e := range b.GetEnvelopes() {
		if err := check(b, e); err != nil {
			return nil, err
		}
		data := e.GetMessageData()
		if b.TypeNames[e.GetTypeId()] != requestType || e.GetSerializerId() != 0 {
			t.config.Observer.Rejected("unknown type")
			data = nil
		}
		if s.working.Add(1) > int64(t.config.MaxInFlight) {
			t.config.Observer.Rejected("too many requests")
			s.post(outgoing{id: e.GetSenderRequestId(), response: overloaded(t.config.MaxInFlight)})
			continue
		}
		admitted.Envelopes = append(admitted.Envelopes, &remote.MessageEnvelope{
			MessageData: data, Sender: 1, SenderRequestId: e.GetSenderRequestId(),
		})
	}
	return admitted, nil
}

// check returns an error for an envelope that no process of ours sends.
func check(b *remote.MessageBatch, e *remote.MessageEnvelope) error {
	within := func(i int32, n int) bool { return i >= 0 && int(i) < n }
	switch {
	case e == nil, !within(e.GetTypeId(), len(b.TypeNames)), !within(e.GetTarget(), len(b.Targets)),
		!within(e.GetSender(), len(b.Senders)+1):
		return errBadIndex
	case b.Targets[e.GetTarget()].GetId() != frontName:
		return errBadTarget
	case e.GetSender() == 0, e.GetSenderRequestId() == 0:
		return errBadSender
	case b.TypeNames[e.GetTypeId()] == requestType && e.GetSerializerId() == 0 && !readable(e.GetMessageData()):
		return errBadData
	}
	return nil
}

// SendMsg implements grpc.ServerStream, for what protoactor says.
func (s *session) SendMsg(m any) error {
	if message, ok := m.(*remote.RemoteMessage); ok {
		s.post(outgoing{message: message})
	}
	return nil
}

// post puts something in the queue to the peer. There is room for an answer to each request that is
// admitted; a peer that asks for more and does not read is not kept.
func (s *session) post(o outgoing) {
	if !s.out.put(o) {
		s.reject("answers are not read")
		hangUp(s.ServerStream.Context())
	}
}

// write sends what is in the queue until the session ends.
func (s *session) write() {
	sign := time.NewTicker(s.transport.signEvery)
	defer sign.Stop()
	for {
		select {
		case <-s.out.ready:
		case <-sign.C:
			if heard := s.heard.Swap(false); heard || s.working.Load() > 0 {
				s.post(outgoing{message: s.greeting()})
			}
			continue
		case <-s.ctx.Done():
			return
		}
		for left := s.out.take(); len(left) > 0; {
			var m *remote.RemoteMessage
			m, left = s.together(left)
			if err := s.ServerStream.SendMsg(m); err != nil {
				s.cancel(nil)
				return
			}
			s.working.Add(-int64(len(m.GetMessageBatch().GetEnvelopes())))
		}
	}
}

// together returns the first of what is to be sent as a message, with the answers that follow it if it is
// one, and what is left.
func (s *session) together(all []outgoing) (*remote.RemoteMessage, []outgoing) {
	if m := all[0].message; m != nil {
		return m, all[1:]
	}
	b := &remote.MessageBatch{TypeNames: []string{responseType}, Targets: []*actor.PID{{Id: replyName}}}
	for size := 0; len(all) > 0 && all[0].message == nil && size < maxBatchBytes && len(b.Envelopes) < maxTogether; all = all[1:] {
		data := s.transport.encode(all[0].response)
		size += len(data)
		b.Envelopes = append(b.Envelopes, &remote.MessageEnvelope{MessageData: data, TargetRequestId: all[0].id})
	}
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}, all
}

// encode returns a response as it travels, or in its place one that says why it cannot.
func (t *Transport) encode(r *clusterv1.Response) []byte {
	b, err := proto.Marshal(r)
	if err == nil && len(b) > t.config.MaxMessageBytes {
		err = fmt.Errorf("%w: answer of %d bytes, at most %d", ErrInternal, len(b), t.config.MaxMessageBytes)
	}
	if err == nil {
		return b
	}
	t.config.Log.Error("transport: answer not sent", "error", err)
	b, _ = proto.Marshal(failure(err)) // its text was made to fit
	return b
}
