package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// Names of the two types of messages between processes.
var (
	requestType  = string((&clusterv1.Request{}).ProtoReflect().Descriptor().FullName())
	responseType = string((&clusterv1.Response{}).ProtoReflect().Descriptor().FullName())
)

// maxBatchBytes is from which size on no more messages are written together, so that a batch is at most
// that and one message large.
const maxBatchBytes = 1 << 20

// redialPause is how long after a failed attempt to connect what is sent fails at once.
const redialPause = 100 * time.Millisecond

// Causes of failures.
var (
	errClosedLink   = errors.New("the link is closed")
	errSilent       = errors.New("the peer is silent")
	errDisconnected = errors.New("the peer closed the connection")
	errRedial       = errors.New("connecting failed a moment ago")
)

// link is the stream to a peer as protoactor's writer knows it. It is there at once and never fails;
// behind it is a connection whenever one is needed and can be had. protoactor calls SendMsg from one
// goroutine and RecvMsg from another.
type link struct {
	peer   *peer
	open   func(context.Context) (grpc.ClientStream, error)
	ctx    context.Context
	cancel context.CancelFunc // when protoactor is done with the link
	hello  proto.Message      // protoactor's first message, said at the beginning of each connection
	greet  atomic.Bool        // the answer to it was given

	redial time.Time // the writer's: no attempt before that
	left   bool      // the peer's: protoactor gives calls that begin from now on to the next link

	mu   sync.Mutex
	conn *connection // nil: none
}

var _ grpc.ClientStream = (*link)(nil)

// openLink is the interceptor of streams on the asking side.
func (t *Transport) openLink(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	t.mu.Lock()
	p := t.peers[cc.Target()]
	t.mu.Unlock()
	if p == nil { // protoactor sends only what it is given for a peer
		return nil, fmt.Errorf("%s is no peer", cc.Target())
	}
	l := &link{peer: p, open: func(ctx context.Context) (grpc.ClientStream, error) {
		return streamer(metadata.NewOutgoingContext(ctx, t.config.greeting()), desc, cc, method, opts...)
	}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	p.mu.Lock()
	p.link = l
	p.mu.Unlock()
	return l, nil
}

// SendMsg implements grpc.ClientStream. It never returns an error: protoactor's writer would stop, and
// stay where it is found by all who send.
func (l *link) SendMsg(m any) error {
	message, ok := m.(*remote.RemoteMessage)
	if !ok {
		return nil
	}
	switch t := message.GetMessageType().(type) {
	case *remote.RemoteMessage_ConnectRequest:
		l.hello = message
	case *remote.RemoteMessage_MessageBatch:
		l.send(t.MessageBatch)
	}
	return nil
}

// send writes requests, in as many messages as their size asks for.
func (l *link) send(b *remote.MessageBatch) {
	conn, err := l.connection()
	defer l.peer.dequeued(int64(len(b.Envelopes)))
	if err != nil {
		ids := map[uint32]bool{}
		for _, e := range b.Envelopes {
			ids[e.SenderRequestId] = true
		}
		l.peer.failWhere(func(c *call) bool { return ids[c.id] && c.state == callQueued }, err)
		return
	}
	envelopes := slices.DeleteFunc(b.Envelopes, func(e *remote.MessageEnvelope) bool {
		return !l.peer.write(e.SenderRequestId, conn)
	})
	for len(envelopes) > 0 {
		n, size := 0, 0
		for n < len(envelopes) && size < maxBatchBytes {
			size += len(envelopes[n].MessageData)
			n++
		}
		conn.send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: &remote.MessageBatch{
			TypeNames: b.TypeNames, Targets: b.Targets, Senders: b.Senders, Envelopes: envelopes[:n],
		}}})
		envelopes = envelopes[n:]
	}
}

// connection returns the connection to write to.
func (l *link) connection() (*connection, error) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	if time.Now().Before(l.redial) {
		return nil, errRedial
	}
	t, began := l.peer.transport, time.Now()
	conn, err := l.connect()
	t.config.Observer.Connected(l.peer.address, time.Since(began), err)
	if err != nil {
		l.redial = time.Now().Add(redialPause)
		return nil, err
	}
	return conn, nil
}

// connect opens a stream and shakes hands, in the time for it.
func (l *link) connect() (*connection, error) {
	ctx, cancel := context.WithCancel(l.ctx)
	c := &connection{link: l, cancel: cancel}
	late := time.AfterFunc(l.peer.transport.config.DialTimeout, func() {
		cancel()
		l.peer.hangUp()
	})
	err := c.shakeHands(ctx)
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect: %w", err)
	}
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	if l.ctx.Err() != nil { // closed meanwhile: it may have missed this connection
		c.end(errClosedLink)
		return nil, errClosedLink
	}
	l.peer.transport.running.Go(c.read)
	l.peer.transport.running.Go(c.watch)
	return c, nil
}

// drop breaks the connection, if there is one.
func (l *link) drop(cause error) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		conn.end(cause)
	}
}

// leave has nothing more written to a connection.
func (l *link) leave(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == c {
		l.conn = nil
	}
}

// RecvMsg implements grpc.ClientStream: first the answer to protoactor's greeting, then, when the link is
// closed, its end. What the peer sends is not for protoactor.
func (l *link) RecvMsg(m any) error {
	if message, ok := m.(*remote.RemoteMessage); ok && l.greet.CompareAndSwap(false, true) {
		message.MessageType = &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{}}
		return nil
	}
	<-l.ctx.Done()
	return io.EOF
}

// CloseSend implements grpc.ClientStream: protoactor is done with the link and forgets what is queued.
func (l *link) CloseSend() error {
	l.close(errClosedLink)
	return nil
}

func (l *link) close(cause error) {
	p := l.peer
	p.mu.Lock()
	current, left := p.link == l, l.left
	if current {
		p.link = nil
	}
	p.mu.Unlock()
	l.cancel()
	l.drop(cause)
	if current {
		p.queued.Store(0)
	}
	if current && !left {
		p.failWhere(func(*call) bool { return true }, cause)
	}
}

// Header implements grpc.ClientStream.
func (l *link) Header() (metadata.MD, error) { return nil, nil }

// Trailer implements grpc.ClientStream.
func (l *link) Trailer() metadata.MD { return nil }

// Context implements grpc.ClientStream.
func (l *link) Context() context.Context { return l.ctx }

// connection is one stream to a peer, from its handshake until it breaks.
type connection struct {
	link   *link
	stream grpc.ClientStream
	cancel context.CancelFunc
	heard  atomic.Uint64         // messages from the peer
	ended  atomic.Pointer[error] // the cause, once it is broken
	last   bool                  // the reader's: nothing more is written, it ends with the last answer

	sending sync.Mutex // of the stream: the writer's requests, and signs of life
}

func (c *connection) shakeHands(ctx context.Context) error {
	var err error
	if c.stream, err = c.link.open(ctx); err != nil {
		return err
	}
	if err := c.stream.SendMsg(c.link.hello); err != nil && !errors.Is(err, io.EOF) { // the reason for EOF is received
		return err
	}
	answer := &remote.RemoteMessage{}
	if err := c.stream.RecvMsg(answer); err != nil {
		return cmp.Or(c.refuse(), err)
	}
	if answer.GetConnectResponse() == nil {
		return fmt.Errorf("greeting answered by %T", answer.GetMessageType())
	}
	return c.admit(ctx)
}

// send writes a message. If it fails, so do the requests on the connection.
func (c *connection) send(m *remote.RemoteMessage) {
	c.sending.Lock()
	err := c.stream.SendMsg(m)
	c.sending.Unlock()
	if err != nil {
		c.end(fmt.Errorf("write: %w", err))
	} else if c.ended.Load() != nil { // it may have missed what was just marked as written
		c.failCalls()
	}
}

// end breaks the connection for a reason. What was written to it has an unknown outcome, for the first reason
// that was given: breaking it gives others.
func (c *connection) end(cause error) {
	if c.ended.CompareAndSwap(nil, &cause) {
		c.cancel()
		l := c.link
		l.leave(c)
		l.peer.transport.config.Observer.Disconnected(l.peer.address, cause)
	}
	c.failCalls()
}

// failCalls ends what was written to a connection that is broken.
func (c *connection) failCalls() {
	c.link.peer.failWhere(func(o *call) bool { return o.on == c }, *c.ended.Load())
}

// read takes in answers until the connection ends.
func (c *connection) read() {
	for {
		m := &remote.RemoteMessage{}
		if err := c.stream.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				err = errDisconnected
			}
			c.end(err)
			return
		}
		c.heard.Add(1)
		switch t := m.GetMessageType().(type) {
		case *remote.RemoteMessage_MessageBatch:
			c.answers(t.MessageBatch)
		case *remote.RemoteMessage_DisconnectRequest:
			c.last = true
			c.link.leave(c)
		}
		if c.last && !c.link.peer.waiting(c) {
			c.end(errDisconnected)
			return
		}
	}
}

func (c *connection) answers(b *remote.MessageBatch) {
	for _, e := range b.GetEnvelopes() {
		r := &clusterv1.Response{}
		err := proto.Unmarshal(e.GetMessageData(), r)
		if i := int(e.GetTypeId()); err == nil && (i < 0 || i >= len(b.TypeNames) || b.TypeNames[i] != responseType) {
			err = errors.New("it is of a type that is not known")
		}
		if err != nil {
			err = fmt.Errorf("%w: answer of %s: %w", ErrInternal, c.link.peer.address, err)
		}
		c.link.peer.answered(e.GetTargetRequestId(), c, r, err)
	}
}

// watch ends the connection if the peer owes answers and is silent. It counts its own ticks and not the
// time, which also passes while this process is paused.
func (c *connection) watch() {
	const ticks = 4
	tick, stop := c.link.peer.transport.tick(c.link.peer.transport.config.Silence / ticks)
	defer stop()
	heard, silent := c.heard.Load(), 0
	for {
		select {
		case <-c.stream.Context().Done():
			return
		case <-tick:
		}
		if now := c.heard.Load(); now != heard || !c.link.peer.waiting(c) {
			heard, silent = now, 0
			continue
		}
		if silent++; silent > ticks {
			c.end(fmt.Errorf("%w for %v", errSilent, c.link.peer.transport.config.Silence))
			c.link.peer.hangUp()
			return
		}
		if silent == 1 {
			c.askForLife()
		}
	}
}

// askForLife greets the peer once more, unless something is being written to it anyway.
func (c *connection) askForLife() {
	if c.sending.TryLock() {
		defer c.sending.Unlock()
		_ = c.stream.SendMsg(c.link.hello) // the reader finds out
	}
}
