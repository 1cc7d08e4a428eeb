package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"github.com/hashicorp/go-sockaddr"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// frontName is the name of the actor that others can reach.
const frontName = "front"

// Transport is this process as others reach it, and reaches others. It is safe for concurrent use.
type Transport struct {
	config  Config
	address string
	system  *actor.ActorSystem
	cluster *protocluster.Cluster
	front   *actor.PID
	started chan struct{}   // closed once the fields above are set: protoactor serves before
	context context.Context // ends when the transport is closed
	cancel  context.CancelFunc
	closed  atomic.Bool
	closing sync.Once
	running sync.WaitGroup // of links and sessions
	working atomic.Int64   // requests of others that are not answered

	members members

	// As the constants and package time have them, but in tests.
	forgetAfter, signEvery time.Duration
	tick                   func(every time.Duration) (c <-chan time.Time, stop func())

	mu       sync.Mutex
	peers    map[string]*peer // by address
	sessions map[string]*session
	nextID   uint64
}

// Start listens for others. Close the transport after use.
func Start(c Config) (*Transport, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	host, port, advertise, err := c.addresses()
	if err != nil {
		return nil, err
	}
	c.Observer = c.Observer.withDefaults()
	t := &Transport{
		config: c, forgetAfter: forgetAfter, signEvery: signEvery, tick: tick,
		peers: map[string]*peer{}, sessions: map[string]*session{}, started: make(chan struct{}),
	}
	t.system = actors.NewActorSystem(slog.New(quiet{c.Log.Handler()}))
	t.context, t.cancel = context.WithCancel(context.Background())
	t.members.init()
	options := t.remoteOptions()
	if advertise != "" {
		options = append(options, remote.WithAdvertisedHost(advertise))
	}
	config := protocluster.Configure(c.Cluster, provider{}, &lookup{t}, remote.Configure(host, port, options...))
	// Its gossip and its heartbeats would block members by id for ever: they never have their turn.
	config.GossipInterval, config.HeartbeatExpiration = never, never
	t.cluster = protocluster.New(t.system, config)
	if err := t.startMember(); err != nil {
		t.cancel()
		return nil, fmt.Errorf("transport: %w", err)
	}
	t.address = t.system.Address()
	close(t.started)
	return t, nil
}

// tick ticks until it is stopped.
func tick(every time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// never is longer than any process runs.
const never = 100 * 365 * 24 * time.Hour

// startMember starts the front and protoactor's cluster, parts of which panic if they cannot start.
func (t *Transport) startMember() (err error) {
	front, err := t.system.Root.SpawnNamed(actor.PropsFromFunc(t.receive), frontName)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
		if err != nil {
			t.system.Root.Stop(front)
			t.system.Shutdown()
		}
	}()
	if err := startCluster(t.cluster); err != nil {
		return err
	}
	t.front = t.system.NewLocalPID(front.Id)
	return nil
}

// addresses returns where to listen, and the address to advertise; empty: the one listened on.
func (c *Config) addresses() (host string, port int, advertise string, err error) {
	host, service, err := net.SplitHostPort(c.Bind)
	if err == nil {
		port, err = net.LookupPort("tcp", service)
	}
	if err != nil {
		return "", 0, "", fmt.Errorf("transport: address to bind: %w", err)
	}
	if ip := net.ParseIP(host); c.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		own, err := sockaddr.GetPrivateIP()
		if err != nil || own == "" || port == 0 {
			return "", 0, "", fmt.Errorf("transport: %s does not tell which address others reach this process under: advertise one", c.Bind)
		}
		return host, port, net.JoinHostPort(own, service), nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]" // protoactor joins it to the port as it is
	}
	return host, port, c.Advertise, nil
}

// Address returns the address that others reach this process under.
func (t *Transport) Address() string { return t.address }

// Execute runs a command on an aggregate that the process at an address owns, or answers that it does
// not. Errors: those of package actors, also as *cluster.NotOwnerError, and those of this package. If ctx
// ends first it is joined with actors.ErrExpired if the command was certainly not executed, else with
// actors.ErrUnknownOutcome.
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
	res, err := t.request(ctx, address, &clusterv1.Request{
		Kind: kind, Aggregate: id, Body: &clusterv1.Request_Query{Query: m},
	})
	if err != nil {
		return actors.Answer{}, err
	}
	if res.GetAnswer() == nil {
		return actors.Answer{}, noBody(address)
	}
	return answerOf(t.config.Codec, res.GetAnswer())
}

// Status asks the process at an address how it does.
func (t *Transport) Status(ctx context.Context, address string) (*clusterv1.StatusResponse, error) {
	res, err := t.request(ctx, address, &clusterv1.Request{Body: &clusterv1.Request_Status{Status: &clusterv1.StatusRequest{}}})
	if err == nil && res.GetStatus() == nil {
		err = noBody(address)
	}
	return res.GetStatus(), err
}

// Drain asks the process at an address to hand over all shards and to leave.
func (t *Transport) Drain(ctx context.Context, address string) error {
	res, err := t.request(ctx, address, &clusterv1.Request{Body: &clusterv1.Request_Drain{Drain: &clusterv1.DrainRequest{}}})
	if err == nil && res.GetDrain() == nil {
		err = noBody(address)
	}
	return err
}

// Undrain asks the process at an address to take shards again after a Drain. Errors: actors.ErrNotSupported if it is of an older
// release.
func (t *Transport) Undrain(ctx context.Context, address string) error {
	res, err := t.request(ctx, address, &clusterv1.Request{Body: &clusterv1.Request_Undrain{Undrain: &clusterv1.UndrainRequest{}}})
	if err == nil && res.GetUndrain() == nil {
		err = noBody(address)
	}
	return err
}

func noBody(address string) error {
	return fmt.Errorf("%w: %s answered without saying what", ErrInternal, address)
}

// request sends a request and returns its response, if that is OK.
func (t *Transport) request(ctx context.Context, address string, m *clusterv1.Request) (*clusterv1.Response, error) {
	if err := t.prepare(ctx, m); err != nil {
		return nil, err
	}
	p, c, err := t.begin(address)
	if err != nil {
		return nil, err
	}
	t.system.Root.RequestWithCustomSender(p.front, m, &actor.PID{Address: t.address, Id: replyName, RequestId: c.id})
	select {
	case <-c.done:
	case <-ctx.Done():
		c.abandon(ctx.Err())
		<-c.done
	}
	if c.err == nil {
		c.err = errorOf(c.response)
	}
	return c.response, c.err
}

// replyName stands for who asked; the other side keeps only the number beside it.
const replyName = "reply"

// prepare checks what is to be sent, since protoactor would drop without a word what cannot be, and
// sets its deadline.
func (t *Transport) prepare(ctx context.Context, m *clusterv1.Request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", actors.ErrExpired, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		m.TimeoutMicros = max(time.Until(deadline).Microseconds(), 1)
	}
	if t.config.Tracing != nil {
		m.Traceparent = t.config.Tracing.Inject(ctx)
	}
	if n := proto.Size(m); n > t.config.MaxMessageBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, t.config.MaxMessageBytes)
	}
	return checkText(m)
}

// Fail ends the requests under way to the process at an address: those that were written have an
// unknown outcome, the others were not sent. It is meant for processes found to be dead.
func (t *Transport) Fail(address string, cause error) {
	t.mu.Lock()
	p := t.peers[address]
	t.mu.Unlock()
	if p != nil {
		p.reset(cause)
	}
}

// begin makes a call to the peer at an address.
func (t *Transport) begin(address string) (*peer, *call, error) {
	for {
		p, err := t.peer(address)
		if err != nil {
			return nil, nil, err
		}
		if c, err := p.begin(); !errors.Is(err, errDropped) {
			return p, c, err
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
		if address == "" || address == t.address {
			return nil, fmt.Errorf("%w: %q is not the address of another process", ErrNotSent, address)
		}
		p = &peer{transport: t, address: address, front: actor.NewPID(address, frontName), calls: map[uint32]*call{}}
		t.peers[address] = p
	}
	return p, nil
}

var errClosed = errors.New("the transport is closed")
