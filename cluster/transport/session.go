package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// signEvery is the interval at which a peer hears that this process lives while it is owed responses.
const signEvery = 500 * time.Millisecond

// session is a stream of a process that sends requests.
type session struct {
	transport *Transport
	stream    grpc.ServerStream
	conn      *acceptedConn
	ctx       context.Context
	cancel    context.CancelFunc
	ready     chan struct{} // has an element if something may be in the queue
	// tasks has idle workers wait for requests.
	tasks chan *work
	idle  atomic.Int32 // workers

	mu      sync.Mutex
	over    bool
	queue   []part // to be written, in order
	bytes   int    // of the queue, and of requests that are not answered
	working int    // requests that are neither dropped nor answered by a response that was written
	works   map[uint64]*work
}

// work is a request whose handler runs.
type work struct {
	*clusterv1.Request
	size      int
	ctx       context.Context
	cancel    context.CancelFunc
	abandoned bool // guarded by the session's lock
}

// serve is the answering side of a stream.
func (t *Transport) serve(stream grpc.ServerStream) error {
	// The greeting goes out with the first frame: the other side checks it before it
	// sends requests.
	if err := stream.SetHeader(t.config.greeting()); err != nil {
		return err
	}
	from := ""
	if p, ok := grpcpeer.FromContext(stream.Context()); ok {
		from = p.Addr.String()
	}
	if err := t.ours(stream.Context(), from); err != nil {
		return err
	}
	ctx, err := t.identified(stream.Context())
	if err != nil {
		return err
	}
	if !uncompressed(stream.Context()) {
		t.config.Listener.Rejected("compressed stream")
		return status.Error(codes.Unimplemented, "compressed frames are not supported; send without grpc-encoding")
	}
	s, err := t.newSession(ctx, stream, from)
	if err != nil {
		return err
	}
	defer t.endSession(s)
	t.running.Go(s.write)
	return s.read()
}

// uncompressed reports whether the frames of an incoming stream are certainly not compressed. A compressed frame may
// take a thousand times its bytes on the wire, which the connection counts. gRPC decompresses with each compressor that
// any package of the program registers, and has no option that forbids it. It ends streams with compressed frames that
// do not name the compressor in their headers.
func uncompressed(ctx context.Context) bool {
	// The header is not in the metadata. The stream of gRPC has it.
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ RecvCompress() string })
	if !ok {
		return false // gRPC has changed, and every test of this package fails.
	}
	name := s.RecvCompress()
	return name == "" || name == encoding.Identity
}

// newSession begins a session on an accepted stream. Error: the transport is closed, or
// the connection is gone.
func (t *Transport) newSession(ctx context.Context, stream grpc.ServerStream, from string) (*session, error) {
	s := &session{transport: t, stream: stream, conn: t.listener.conn(from), ready: make(chan struct{}, 1),
		tasks: make(chan *work), works: map[uint64]*work{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.conn == nil || t.closed.Load() {
		return nil, status.Error(codes.Unavailable, errClosed.Error())
	}
	// The frames until now were those of the handshake.
	s.conn.finished()
	s.ctx, s.cancel = context.WithCancel(ctx)
	t.sessions[s] = struct{}{}
	return s, nil
}

// endSession ends the work that is in progress, and forgets the session.
func (t *Transport) endSession(s *session) {
	s.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, s)
}

// read starts the work on requests and does not wait for it. It returns when the stream or the session ends.
func (s *session) read() error {
	for {
		f := &incoming{}
		err := s.stream.RecvMsg(f)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.start(f)
			s.conn.finished()
		}
		if err != nil {
			if status.Code(err) == codes.Internal { // It could not be decoded.
				s.transport.config.Listener.Rejected("unreadable frame")
			}
			return err
		}
	}
}

// start starts the work on the requests of a frame, one by one, until the session ends. A request is decoded once it is
// admitted.
func (s *session) start(f *incoming) error {
	defer f.free()
	for _, b := range f.requests {
		if err := s.ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		size := requestBytes + len(b)
		// Refused with an answer of its own, for which the id must be known.
		if !s.admit(size) {
			id, err := requestID(b)
			if err != nil {
				return unreadable(err)
			}
			s.transport.config.Listener.Rejected("too many requests")
			s.post(0, s.transport.encode(id, tooMany()))
			continue
		}
		m := &clusterv1.Request{}
		if err := proto.Unmarshal(b, m); err != nil {
			s.release(size, 1)
			return unreadable(err)
		}
		// working is what Close waits for.
		s.transport.working.Add(1)
		w := s.begin(m, size)
		select {
		case s.tasks <- w:
		default: // No worker is idle.
			go s.work(w)
		}
	}
	s.abandon(f.abandoned)
	return nil
}

// unreadable returns the error that ends a stream with bytes that are no frame.
func unreadable(err error) error {
	return status.Error(codes.Internal, "unreadable frame: "+err.Error())
}

// begin returns the work on a request that was admitted. Its context ends with the deadline of the request, when the
// peer says that the caller gave up, and with the session.
func (s *session) begin(m *clusterv1.Request, size int) *work {
	w := &work{Request: m, size: size}
	w.ctx, w.cancel = context.WithTimeout(s.ctx, s.transport.timeout(m))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.works[m.GetId()] = w
	return w
}

// abandon ends the contexts of requests whose callers gave up. Ids of requests that were answered meanwhile are
// unknown.
func (s *session) abandon(ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if w := s.works[id]; w != nil {
			w.abandoned = true
			w.cancel()
		}
	}
}

// finish ends the work on a request. It reports whether the response is wanted.
func (s *session) finish(w *work) bool {
	w.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := w.GetId(); s.works[id] == w { // A peer may have used an id twice.
		delete(s.works, id)
	}
	return !w.abandoned
}

// requestBytes is what a request counts for beside its encoded size: its message, contexts and goroutine.
const requestBytes = 4 << 10

// admit counts a request, unless it is one too many.
func (s *session) admit(size int) bool {
	t := s.transport
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working++
	// One request is always admitted, however large: it fits into the limit of a message.
	if s.working > t.config.MaxInFlight || s.bytes > 0 && s.bytes+size > t.config.MaxPeerBytes {
		return false
	}
	if all := t.bytes.Add(int64(size)); all > int64(max(size, t.config.MaxBytes)) {
		t.bytes.Add(-int64(size))
		return false
	}
	s.bytes += size
	return true
}

// tooMany is the response to requests that are not admitted.
func tooMany() *clusterv1.Response {
	return failure(fmt.Errorf("%w: too many requests of this process, or of all, are in progress",
		actors.ErrOverloaded))
}

// maxIdleWorkers is the number of goroutines of a session that wait for requests.
const maxIdleWorkers = 64

// work answers requests, one after the other, until the session ends or enough workers are idle. The stack of a worker
// has the size that a request needs; to let a new one grow costs a good part of a request.
func (s *session) work(w *work) {
	for w != nil {
		s.answer(w)
		w = nil
		if s.idle.Add(1) <= maxIdleWorkers {
			select {
			case w = <-s.tasks:
			case <-s.ctx.Done():
			}
		}
		s.idle.Add(-1)
	}
}

// answer does what a request asks for, and queues the response. The response to an abandoned request is dropped.
func (s *session) answer(w *work) {
	t := s.transport
	defer t.working.Add(-1)
	r := t.answer(w.ctx, w.Request)
	if !s.finish(w) {
		s.release(w.size, 1)
		return
	}
	s.post(w.size, t.encode(w.GetId(), r))
}

// sayClosing asks the peer to send nothing more.
func (s *session) sayClosing() {
	s.mu.Lock()
	s.working++
	s.mu.Unlock()
	s.post(0, closingPart())
}

// maxRefusals is the number of responses more than there may be requests in flight wait for a peer that does not read
// them.
const maxRefusals = 1024

// post queues the response to a request of a size. A peer that does not read its responses is disconnected.
func (s *session) post(size int, b part) {
	t := s.transport
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		t.bytes.Add(-int64(size))
		return
	}
	// The memory of the request is that of its response now.
	s.queue = append(s.queue, b)
	s.bytes += len(b) - size
	t.bytes.Add(int64(len(b) - size))
	// A slow reader is disconnected: memory must not grow with what it does not read.
	slow := len(s.queue) > t.config.MaxInFlight+maxRefusals || s.bytes > t.config.MaxPeerBytes+t.config.MaxMessageBytes
	s.mu.Unlock()
	if slow {
		t.config.Listener.Rejected("responses are not read")
		s.end()
		_ = s.conn.Close()
		return
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// end drops what is queued, and what will be.
func (s *session) end() {
	s.cancel()
	s.mu.Lock()
	s.over = true
	dropped := s.queue
	s.queue = nil
	s.mu.Unlock()
	s.done(dropped)
}

// done counts responses that were written, or never will be.
func (s *session) done(parts []part) {
	n := 0
	for _, b := range parts {
		n += len(b)
	}
	s.release(n, len(parts))
}

// release frees the places of requests and the bytes that they or their responses held.
func (s *session) release(bytes, requests int) {
	s.transport.bytes.Add(-int64(bytes))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= bytes
	s.working -= requests
}

// write accepts the stream by an empty frame, and sends what is queued until the session ends.
func (s *session) write() {
	sign := time.NewTicker(s.transport.signEvery)
	defer sign.Stop()
	for f := (outgoing{}); f != nil; f = s.next(sign.C) {
		err := s.stream.SendMsg(f)
		s.done(f)
		if err != nil {
			s.cancel()
			return
		}
	}
}

// next waits for a frame to write: what is queued, or an empty one as a sign of life. It returns nil if the session is
// over.
func (s *session) next(sign <-chan time.Time) outgoing {
	for {
		if f := s.take(); len(f) > 0 {
			return f
		}
		select {
		case <-s.ready:
			runtime.Gosched() // As in stream.write.
		case <-sign:
			if s.owed() > 0 {
				return outgoing{}
			}
		case <-s.ctx.Done():
			return nil
		}
	}
}

// take removes from the queue what goes into one frame.
func (s *session) take() outgoing {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := fits(s.queue)
	f := outgoing(s.queue[:n:n])
	s.queue = s.queue[n:]
	return f
}

// owed returns the number of unanswered requests.
func (s *session) owed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working
}

// encode returns a response as the part of a frame, or in its place one that says why it cannot be sent.
func (t *Transport) encode(id uint64, r *clusterv1.Response) part {
	r.Id = id
	b, err := encode(responsesField, r)
	if err == nil && len(b) > t.config.MaxMessageBytes {
		err = fmt.Errorf("%w: answer of %d bytes, at most %d", ErrInternal, len(b), t.config.MaxMessageBytes)
	}
	if err == nil {
		return b
	}
	t.config.Log.Error("transport: answer not sent", "error", err)
	r = failure(err) // Its text can be sent.
	r.Id = id
	b, _ = encode(responsesField, r)
	return b
}
