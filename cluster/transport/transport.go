package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/internal/caller"
	"licensed/messages/clusterv1"
)

// gRPC's log is one variable of the whole process. It is discarded: what goes wrong with peers is told by this package.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// The service, and its only method.
const (
	service        = "licensed.cluster.v1.Peer"
	exchangeMethod = "/" + service + "/Exchange"
)

// exchange describes the method.
var exchange = grpc.StreamDesc{
	StreamName: "Exchange", ClientStreams: true, ServerStreams: true,
	Handler: func(t any, stream grpc.ServerStream) error { return t.(*Transport).serve(stream) },
}

// What gRPC holds of a connection: at most windowBytes of a stream until its handler reads, and a header. A
// handler that reads has gRPC hold its whole frame: see acceptedConn. Larger windows would let one stream use more
// of a network with a long delay.
const (
	windowBytes    = 128 << 10
	maxHeaderBytes = 8 << 10
)

// Keepalive of connections on which nothing happens. It also bounds how long data may be in flight without a
// receipt.
const (
	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// connectTimeout is the time that a process that connects may take for the handshakes of TLS and HTTP/2.
const connectTimeout = 5 * time.Second

// Transport is this process as others reach it, and reaches others. It is safe for concurrent use.
type Transport struct {
	config   Config
	address  string
	listener *listener
	server   *grpc.Server
	context  context.Context // ends when the transport is closed
	cancel   context.CancelFunc
	closing  sync.Once
	running  sync.WaitGroup // goroutines of peers and sessions
	lastID   atomic.Uint64  // of requests to others
	working  atomic.Int64   // requests of others whose handlers run
	bytes    atomic.Int64   // of requests of others that are not answered, and of responses that are not written

	// As the constants and package time have them, except in tests.
	forgetAfter, signEvery time.Duration
	tick                   func(every time.Duration) (c <-chan time.Time, stop func())

	mu       sync.Mutex
	closed   atomic.Bool
	members  map[string]bool  // by address, as last listed
	peers    map[string]*peer // by address
	sessions map[*session]struct{}
}

// Start listens for others. Close the transport after use.
func Start(c Config) (*Transport, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	advertise, err := c.advertised()
	if err != nil {
		return nil, err
	}
	c.Listener = c.Listener.withDefaults()
	l, err := net.Listen("tcp", c.Bind)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	if advertise == "" {
		advertise = l.Addr().String()
	}
	t := &Transport{
		config: c, address: advertise, listener: newListener(l, &c),
		forgetAfter: forgetAfter,
		signEvery:   signEvery,
		tick:        tick,
		peers:       map[string]*peer{},
		sessions:    map[*session]struct{}{},
	}
	t.context, t.cancel = context.WithCancel(context.Background())
	t.server = grpc.NewServer(t.serverOptions()...)
	t.server.RegisterService(
		&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{exchange}}, t,
	)
	t.running.Go(func() { _ = t.server.Serve(t.listener) })
	return t, nil
}

// serverOptions returns how to serve others.
func (t *Transport) serverOptions() []grpc.ServerOption {
	secure := insecure.NewCredentials()
	if c := t.config.ServerTLS; c != nil {
		secure = credentials.NewTLS(c)
	}
	return []grpc.ServerOption{
		grpc.Creds(secure), grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(t.unknownMethod),
		// One stream on a connection, so that the bytes of a connection are those of one
		// stream.
		grpc.MaxRecvMsgSize(t.largest()), grpc.MaxConcurrentStreams(1), grpc.ConnectionTimeout(connectTimeout),
		grpc.InitialWindowSize(windowBytes), grpc.InitialConnWindowSize(windowBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		// A handler that is still running may use the transport.
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveEvery, Timeout: keepaliveTimeout, MaxConnectionIdle: t.config.MaxIdle,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             keepaliveEvery / 2,
			PermitWithoutStream: true,
		}),
	}
}

// largest is the largest frame, in bytes. Earlier releases write frames of a MiB and one message.
func (t *Transport) largest() int { return t.config.MaxMessageBytes + 1<<20 + maxFrameBytes }

// unknownMethod refuses methods that this process does not have.
func (t *Transport) unknownMethod(_ any, stream grpc.ServerStream) error {
	t.config.Listener.Rejected("unknown method")
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented,
		"unknown method %q: this process speaks wire version %s; run releases of one wire version in a cluster",
		method, wireVersion)
}

// tick ticks until it is stopped.
func tick(every time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// advertised returns the address to advertise; empty: the one listened on.
func (c *Config) advertised() (string, error) {
	host, service, err := net.SplitHostPort(c.Bind)
	port := 0
	if err == nil {
		port, err = net.LookupPort("tcp", service)
	}
	if err != nil {
		return "", fmt.Errorf("transport: address to bind: %w", err)
	}
	// A specific address to bind is the one to advertise.
	if ip := net.ParseIP(host); c.Advertise != "" || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return c.Advertise, nil
	}
	own, err := sockaddr.GetPrivateIP()
	if err != nil || own == "" || port == 0 {
		return "", fmt.Errorf("transport: %s does not tell which address others reach this process under: "+
			"advertise one", c.Bind)
	}
	return net.JoinHostPort(own, service), nil
}

// Address returns the address that others reach this process under.
func (t *Transport) Address() string { return t.address }

// Execute runs a command on an aggregate that the process at an address owns, or answers that it does
// not. Errors: those of package actors, also as *cluster.NotOwnerError, and those of this package. If ctx
// ends first it is joined with actors.ErrExpired if the command was certainly not executed, else with
// actors.ErrUnknownOutcome; the other process is told, and withdraws the command if it is not decided yet.
func (t *Transport) Execute(ctx context.Context, address, kind, id string, c actors.Command) (actors.Reply, error) {
	m, err := commandMessage(t.config.Codec, c)
	if err != nil {
		return actors.Reply{}, err
	}
	res, err := t.request(ctx, address, &clusterv1.Request{
		Kind: kind, Aggregate: id, Body: &clusterv1.Request_Command{Command: m},
	})
	if err != nil {
		return actors.Reply{}, err
	}
	// OK without a body: the other side is of a release that answers otherwise.
	if res.GetReply() == nil {
		return actors.Reply{}, noBody(address)
	}
	return replyOf(res.GetReply()), nil
}

// Query asks an aggregate. Errors are as those of Execute.
func (t *Transport) Query(ctx context.Context, address, kind, id string, query any) (actors.Answer, error) {
	m, err := queryMessage(t.config.Codec, query)
	if err != nil {
		return actors.Answer{}, err
	}
	return t.ask(ctx, address, &clusterv1.Request{Kind: kind, Aggregate: id, Body: &clusterv1.Request_Query{Query: m}})
}

// Operate has the owner of an aggregate execute an operator's request, perhaps twice. Errors are as those of Execute.
func (t *Transport) Operate(ctx context.Context, address, kind, id string, request any) (actors.Answer, error) {
	p, err := payloadOf(t.config.Codec, request)
	if err != nil {
		return actors.Answer{}, fmt.Errorf("operator's request: %w", err)
	}
	return t.ask(ctx, address, &clusterv1.Request{
		Kind: kind, Aggregate: id, Body: &clusterv1.Request_Operator{Operator: &clusterv1.OperatorRequest{Payload: p}},
	})
}

// ask sends a request whose response is an answer.
func (t *Transport) ask(ctx context.Context, address string, m *clusterv1.Request) (actors.Answer, error) {
	res, err := t.request(ctx, address, m)
	if err != nil {
		return actors.Answer{}, err
	}
	if res.GetAnswer() == nil {
		return actors.Answer{}, noBody(address)
	}
	return answerOf(t.config.Codec, res.GetAnswer())
}

// Status asks the process at an address for its status.
func (t *Transport) Status(ctx context.Context, address string) (*clusterv1.StatusResponse, error) {
	res, err := t.request(ctx, address,
		&clusterv1.Request{Body: &clusterv1.Request_Status{Status: &clusterv1.StatusRequest{}}})
	if err == nil && res.GetStatus() == nil {
		err = noBody(address)
	}
	return res.GetStatus(), err
}

// Drain asks the process at an address to hand over all shards and to leave.
func (t *Transport) Drain(ctx context.Context, address string) error {
	res, err := t.request(ctx, address,
		&clusterv1.Request{Body: &clusterv1.Request_Drain{Drain: &clusterv1.DrainRequest{}}})
	if err == nil && res.GetDrain() == nil {
		err = noBody(address)
	}
	return err
}

// Undrain asks the process at an address to take shards again after a Drain. Errors: actors.ErrNotSupported if it is
// of an older release.
func (t *Transport) Undrain(ctx context.Context, address string) error {
	res, err := t.request(ctx, address,
		&clusterv1.Request{Body: &clusterv1.Request_Undrain{Undrain: &clusterv1.UndrainRequest{}}})
	if err == nil && res.GetUndrain() == nil {
		err = noBody(address)
	}
	return err
}

// noBody returns the error for an answer without content.
func noBody(address string) error {
	return fmt.Errorf("%w: %s answered without saying what", ErrInternal, address)
}

// request sends a request and returns its response, if that is OK.
func (t *Transport) request(ctx context.Context, address string, m *clusterv1.Request) (*clusterv1.Response, error) {
	c, err := t.prepare(ctx, m)
	if err != nil {
		return nil, err
	}
	p, err := t.begin(address, c)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	// An abandoned call ends at once: its channel need not be waited for.
	case <-ctx.Done():
		p.abandon(c, ctx.Err())
	}
	return c.response, c.err
}

// prepare encodes a request with its deadline.
func (t *Transport) prepare(ctx context.Context, m *clusterv1.Request) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", actors.ErrExpired, err)
	}
	// The time left and not the deadline: the clocks of two machines differ.
	if deadline, ok := ctx.Deadline(); ok {
		m.TimeoutMicros = max(time.Until(deadline).Microseconds(), 1)
	}
	if t.config.Tracing != nil {
		m.Traceparent = t.config.Tracing.Inject(ctx)
	}
	m.Caller = callerMessage(caller.FromContext(ctx))
	m.Id = t.lastID.Add(1)
	b, err := encode(requestsField, m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(b) > t.config.MaxMessageBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), t.config.MaxMessageBytes)
	}
	return &call{id: m.Id, part: b, done: make(chan struct{})}, nil
}

// begin gives a call to the peer at an address.
func (t *Transport) begin(address string, c *call) (*peer, error) {
	for {
		p, err := t.peer(address)
		if err != nil {
			return nil, err
		}
		if err := p.begin(c); !errors.Is(err, errForgotten) {
			return p, err
		}
	}
}

// peer returns the peer at an address.
func (t *Transport) peer(address string) (*peer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed.Load() {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, errClosed)
	}
	p := t.peers[address]
	if p == nil {
		// Requests to itself would wait for its own limits.
		if address == "" || address == t.address {
			return nil, fmt.Errorf("%w: %q is not the address of another process", ErrNotSent, address)
		}
		p = &peer{transport: t, address: address, ready: make(chan struct{}, 1), asked: time.Now()}
		t.peers[address] = p
	}
	return p, nil
}

// Fail ends the requests in progress to the process at an address: those that were written have an unknown outcome, the
// others were not sent. It is meant for processes found to be dead.
func (t *Transport) Fail(address string, cause error) {
	t.mu.Lock()
	p := t.peers[address]
	t.mu.Unlock()
	if p != nil {
		p.fail(cause)
	}
}

// forgetAfter is the time without requests after which an address that is no member's is forgotten.
// Requests that were in flight to a member that left may still come.
const forgetAfter = time.Minute

// SetMembers tells which members are listed, this process among them or not. Requests to a member that is not listed
// any more fail. To be called when something changed and every few seconds; it may be called concurrently.
func (t *Transport) SetMembers(all []membership.Member) {
	listed := map[string]bool{}
	for _, o := range all {
		listed[o.Meta.GetNodeAddress()] = true
	}
	failed := map[*peer]error{}
	t.mu.Lock()
	for address, p := range t.peers {
		switch {
		case listed[address]:
		case t.members[address]:
			failed[p] = errLeft
		case p.forget(t.forgetAfter):
			failed[p] = errForgotten
			delete(t.peers, address)
		}
	}
	t.members = listed
	t.mu.Unlock()
	// Without t.mu, which callers of the failing requests may take.
	for p, cause := range failed {
		p.fail(cause)
	}
}

// drainTimeout is the time that Close gives to responses if its caller sets none, and goodbyeTimeout the time that
// peers have to disconnect.
const (
	drainTimeout   = 5 * time.Second
	goodbyeTimeout = time.Second
)

// Causes of the failure of requests when this process closes.
var (
	errClosed  = errors.New("the transport is closed")
	errLeaving = errors.New("this process is leaving")
)

// Close accepts no more requests, waits until those of others are answered or ctx ends, and leaves. Requests to others
// that are in progress fail. Further calls do nothing.
func (t *Transport) Close(ctx context.Context) (err error) {
	t.closing.Do(func() {
		t.mu.Lock()
		t.closed.Store(true)
		// Peers are told not to send more, and to leave when they have their answers.
		for s := range t.sessions {
			s.sayClosing()
		}
		peers := slices.Collect(maps.Values(t.peers))
		t.mu.Unlock()
		err = t.drain(ctx)
		// Requests to others have no end of their own.
		for _, p := range peers {
			p.retire(errLeaving)
		}
		// Only the peers know that they have all their responses: they disconnect.
		ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
		defer cancel()
		wait(ctx, func() bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			return len(t.sessions) == 0
		})
		t.cancel()
		t.server.Stop()
		t.running.Wait()
	})
	return err
}

// drain waits for the requests of others.
func (t *Transport) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if !wait(ctx, func() bool { return t.owed() == 0 }) {
		return fmt.Errorf("transport: %d requests of others are not answered: %w", t.owed(), ctx.Err())
	}
	return nil
}

// owed returns the number of unanswered requests of others.
func (t *Transport) owed() int {
	n := int(t.working.Load())
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.sessions {
		n += s.owed()
	}
	return n
}

// wait returns true when a condition holds, or false if ctx ends first.
func wait(ctx context.Context, holds func() bool) bool {
	for !holds() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Millisecond):
		}
	}
	return true
}
