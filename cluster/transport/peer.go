package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// Pause after a failed attempt to connect, in which requests fail at once. It doubles with each failure, and a random
// part of it, up to a half, is left out.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// Causes of failures.
var (
	errSilent       = errors.New("the peer is silent")
	errDisconnected = errors.New("the peer closed the connection")
	errLeft         = errors.New("the member left")
	errForgotten    = errors.New("the peer was forgotten")
)

// peer is another process, by its address, with the requests to it.
type peer struct {
	transport *Transport
	address   string
	ready     chan struct{} // has an element if there may be something to write

	mu      sync.Mutex
	gone    bool // another peer may have its address
	asked   time.Time
	running bool    // there is a goroutine in run
	stream  *stream // the writer's; nil: none
	queue   []*call // not given to a stream yet, in order
	bytes   int     // in the queue
	pending int     // calls that are not over

	failure error // of the last attempt to connect; nil after a success
	pause   time.Duration
	retry   time.Time // no attempt to connect before
}

// call is a request to a peer. The peer's lock guards the fields from stream on, until done is closed.
type call struct {
	id   uint64
	part part
	done chan struct{}

	stream   *stream // that it was given to; nil: it is in the queue
	response *clusterv1.Response
	err      error
}

// begin queues a call. It returns errForgotten if there may be another peer at the address.
func (p *peer) begin(c *call) error {
	config := &p.transport.config
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.gone:
		return errForgotten
	case p.pending >= config.MaxInFlight:
		return fmt.Errorf("%w: %s has not answered %d requests", actors.ErrOverloaded, p.address, p.pending)
	case p.bytes > 0 && p.bytes+len(c.part) > config.MaxPeerBytes:
		return fmt.Errorf("%w: %d bytes of requests wait to be written to %s", actors.ErrOverloaded, p.bytes, p.address)
	// After a failure, requests are refused at once until the pause has passed: they
	// would only wait for the next one.
	case p.failure != nil && now.Before(p.retry):
		return p.notSent(p.failure)
	}
	p.asked = now
	p.pending++
	p.bytes += len(c.part)
	p.queue = append(p.queue, c)
	if !p.running {
		p.running = true
		p.transport.running.Go(p.run)
	}
	p.wake()
	return nil
}

// wake has the writer look for something to send.
func (p *peer) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// notSent returns the error of a request that the peer certainly did not get.
func (p *peer) notSent(cause error) error {
	return fmt.Errorf("%w to %s: %w", ErrNotSent, p.address, cause)
}

// run connects and writes for as long as there is a stream, or something to be sent.
func (p *peer) run() {
	for p.wanted() {
		s, err := p.connect()
		if err != nil {
			p.unreachable(err)
			continue
		}
		s.write()
	}
}

// wanted reports whether requests are queued. If not, the next one starts another goroutine.
func (p *peer) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = len(p.queue) > 0
	return p.running
}

// unreachable fails what is queued, and what is about to be for a while.
func (p *peer) unreachable(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = min(max(2*p.pause, firstPause), longestPause)
	p.retry = time.Now().Add(p.pause - rand.N(p.pause/2))
	p.failure = cause
	p.failQueue(cause)
}

// failQueue ends the calls that were given to no stream; the peer is locked.
func (p *peer) failQueue(cause error) {
	for _, c := range p.queue {
		p.over(c, nil, p.notSent(cause))
	}
	p.queue, p.bytes = nil, 0
}

// over ends a call; the peer is locked.
func (p *peer) over(c *call, r *clusterv1.Response, err error) {
	c.response, c.err = r, err
	p.pending--
	close(c.done)
}

// abandon ends a call, unless it has ended, because its caller's context ended. If the call was given to a stream, the
// next frame tells the peer, so that the peer does not work on it until the deadline.
func (p *peer) abandon(c *call, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-c.done: // The answer was faster.
		return
	default:
	}
	if c.stream != nil {
		delete(c.stream.calls, c.id)
		c.stream.abandoned = append(c.stream.abandoned, c.id)
		p.wake()
		p.over(c, nil, c.stream.unknown(cause))
		return
	}
	// In the queue: nothing of it was written.
	i := slices.Index(p.queue, c)
	p.queue = slices.Delete(p.queue, i, i+1)
	p.bytes -= len(c.part)
	p.over(c, nil, fmt.Errorf("%w: it was not sent to %s yet: %w", actors.ErrExpired, p.address, cause))
}

// fail ends all calls and the stream.
func (p *peer) fail(cause error) {
	p.mu.Lock()
	p.failQueue(cause)
	s := p.stream
	p.mu.Unlock()
	if s != nil {
		s.end(cause)
	}
}

// forget lets no more calls begin if nothing was asked of the peer for a time.
func (p *peer) forget(after time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = p.pending == 0 && time.Since(p.asked) >= after
	return p.gone
}

// retire lets no more calls begin, and ends those that there are.
func (p *peer) retire(cause error) {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.fail(cause)
}

// stream is one stream to a peer, from its acceptance until it breaks.
type stream struct {
	peer    *peer
	client  *grpc.ClientConn
	grpc    grpc.ClientStream
	cancel  context.CancelFunc
	heard   atomic.Uint64 // frames of the peer
	stopped chan struct{} // closed when nothing more is to be written

	// The peer's lock guards the rest.
	conn   net.Conn         // nil: not dialed yet
	calls  map[uint64]*call // given to the stream, not over
	stops  bool             // stopped is closed
	ended  bool
	closed bool // conn is to be closed

	// Ids of calls that were given to the stream and then abandoned, to be written. There are at most MaxInFlight: only
	// take adds calls, and it removes these.
	abandoned []uint64
}

// connect opens a stream and waits until the peer accepts it, within the time for that.
func (p *peer) connect() (*stream, error) {
	t := p.transport
	ctx, cancel := context.WithCancel(t.context)
	s := &stream{peer: p, cancel: cancel, calls: map[uint64]*call{}, stopped: make(chan struct{})}
	began := time.Now()
	// The timer ends the stream's context, and with it everything in open.
	late := time.AfterFunc(t.config.DialTimeout, cancel)
	err := s.open(ctx)
	if !late.Stop() {
		err = errors.Join(fmt.Errorf("not accepted within %v", t.config.DialTimeout), err)
	}
	t.config.Listener.Connected(p.address, time.Since(began), err)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	p.mu.Lock()
	// The next failure begins with the shortest pause again.
	p.stream, p.failure, p.pause = s, nil, 0
	p.mu.Unlock()
	t.running.Go(s.read)
	t.running.Go(s.watch)
	return s, nil
}

// open dials the peer and greets it.
func (s *stream) open(ctx context.Context) (err error) {
	t := s.peer.transport
	if s.client, err = grpc.NewClient("passthrough:///"+s.peer.address, t.dialOptions(s.dial)...); err != nil {
		return err
	}
	ctx = metadata.NewOutgoingContext(ctx, t.config.greeting())
	if s.grpc, err = s.client.NewStream(ctx, &exchange, exchangeMethod); err != nil {
		return err
	}
	// The first frame of the other side says that it accepts the stream, and is empty.
	if err := s.grpc.RecvMsg(&incoming{}); err != nil {
		return s.refused(err)
	}
	return s.admit(ctx)
}

// dial connects to the peer. The connection is kept at hand: gRPC would wait to say goodbye on one that is stuck.
func (s *stream) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	s.conn = conn
	return conn, nil
}

// dialOptions returns how to connect to a peer. Nothing is shared among connections, and none is made again by gRPC.
func (t *Transport) dialOptions(dial func(context.Context, string) (net.Conn, error)) []grpc.DialOption {
	secure := insecure.NewCredentials()
	if c := t.config.ClientTLS; c != nil {
		secure = credentials.NewTLS(c())
	}
	// A lost stream is made again by the peer's own loop, which knows what was given to
	// it.
	return []grpc.DialOption{
		grpc.WithTransportCredentials(secure), grpc.WithContextDialer(dial), grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(t.largest()), grpc.MaxCallSendMsgSize(t.largest())),
		grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
	}
}

// close ends the connection. The peer must not be locked.
func (s *stream) close() {
	// The context first: a read that is in progress ends with it.
	s.cancel()
	s.peer.mu.Lock()
	s.closed = true
	conn := s.conn
	s.peer.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	if s.client != nil {
		_ = s.client.Close()
	}
}

// write sends what is queued, until the stream ends or stops.
func (s *stream) write() {
	for {
		for f := s.take(); len(f) > 0; f = s.take() { // First, since a former stream may have left requests.
			switch err := s.grpc.SendMsg(f); {
			case errors.Is(err, io.EOF): // The reader is told why.
				<-s.stopped
				return
			case err != nil:
				s.end(fmt.Errorf("write: %w", err))
				return
			}
		}
		select {
		case <-s.peer.ready:
		case <-s.stopped:
			return
		}
		// Goroutines that are about to queue something do so first: with fewer frames a request costs half of the CPU
		// time at 64 in flight (docs/design/transport.md).
		runtime.Gosched()
	}
}

// take returns the next frame; nil if there is nothing to write. It moves calls from the queue to the stream, as many
// as go into one frame. From now on their outcome is unknown if the stream ends.
func (s *stream) take() outgoing {
	p := s.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.stops {
		return nil
	}
	var f outgoing
	n, size := 0, 0
	// Abandoned requests first: what they use is freed before more is asked for.
	ids := s.abandoned[:min(len(s.abandoned), maxFrameMessages)]
	if len(ids) > 0 {
		b := abandonedPart(ids)
		f, size = append(f, b), len(b)
		p.bytes += size // It is subtracted with the requests.
		s.abandoned = s.abandoned[len(ids):]
	}
	for ; n < len(p.queue) && len(ids)+n < maxFrameMessages && size < maxFrameBytes; n++ {
		c := p.queue[n]
		size += len(c.part)
		f = append(f, c.part)
		c.part, c.stream, s.calls[c.id] = nil, s, c
	}
	p.queue = slices.Delete(p.queue, 0, n)
	p.bytes -= size
	return f
}

// read receives responses until the stream ends.
func (s *stream) read() {
	for {
		f := &incoming{}
		if err := s.grpc.RecvMsg(f); err != nil {
			s.end(fmt.Errorf("%w: %w", errDisconnected, err))
			return
		}
		// Every frame is a sign of life, an empty one too.
		s.heard.Add(1)
		if s.answered(f) {
			s.end(errDisconnected)
			return
		}
	}
}

// answered ends calls with their responses. Responses to calls that have ended are dropped. It reports whether the
// stream is of no more use.
func (s *stream) answered(f *incoming) (last bool) {
	p := s.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	// A response to a call that was abandoned meets no call.
	for _, r := range f.responses {
		if c := s.calls[r.GetId()]; c != nil {
			delete(s.calls, c.id)
			p.over(c, r, errorOf(r))
		}
	}
	if f.closing {
		s.stop()
	}
	return s.stops && len(s.calls) == 0
}

// stop lets nothing more be written; the peer is locked.
func (s *stream) stop() {
	if !s.stops {
		s.stops = true
		close(s.stopped)
	}
	if s.peer.stream == s {
		s.peer.stream = nil
	}
}

// end breaks the stream for a reason: that of the first call counts. The calls that were given to it have an unknown
// outcome.
func (s *stream) end(cause error) {
	p := s.peer
	p.mu.Lock()
	// Only the first cause is the true one; the others follow from it.
	first := !s.ended
	s.ended = true
	s.stop()
	for _, c := range s.calls {
		p.over(c, nil, s.unknown(cause))
	}
	clear(s.calls)
	p.mu.Unlock()
	if first {
		s.close()
		p.transport.config.Listener.Disconnected(p.address, cause)
	}
}

// unknown returns the error of a call that the peer may have executed.
func (s *stream) unknown(cause error) error {
	return fmt.Errorf("%w: %s: %w", actors.ErrUnknownOutcome, s.peer.address, cause)
}

// owed reports whether the peer owes responses.
func (s *stream) owed() bool {
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	return len(s.calls) > 0
}

// watch ends the stream if the peer owes responses and is silent. It counts its own ticks and not the time, which also
// passes while this process is paused.
func (s *stream) watch() {
	const ticks = 4
	silence := s.peer.transport.config.Silence
	tick, stop := s.peer.transport.tick(silence / ticks)
	defer stop()
	heard, silent := s.heard.Load(), 0
	for {
		select {
		case <-s.grpc.Context().Done():
			return
		case <-tick:
		}
		if now := s.heard.Load(); now != heard || !s.owed() {
			heard, silent = now, 0
			continue
		}
		if silent++; silent > ticks {
			s.end(fmt.Errorf("%w for %v", errSilent, silence))
			return
		}
	}
}
