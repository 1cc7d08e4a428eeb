package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"licensed/messages/licensedv1"
)

// Options of a client. The zero value is ready to use.
type Options struct {
	// TLS encrypts the connections. Nil: they are not encrypted.
	TLS *tls.Config
	// NewTLS, if not nil, is in place of TLS. It is called for each connection, also concurrently, so that CAs can
	// change without another client.
	NewTLS func() *tls.Config
	// Token returns the bearer token that each request carries. It is called for each attempt, also concurrently, and
	// should return the same token until that is about to expire. Needs TLS, unless all addresses are on this machine.
	Token func(context.Context) (string, error)

	// Timeout is the time that a call may take with all its attempts if its context has no deadline. 0: 30 s.
	Timeout time.Duration
	// AttemptTimeout is the time that one attempt may take. 0: 12 s. It should be longer than the service's
	// --max-deadline (10 s), so that it is the gateway that tells whether a late command was executed. Shorter: a
	// stalled gateway is left sooner, and outcomes stay unknown more often.
	AttemptTimeout time.Duration
	// RetryRatio is the number of retries that each request earns, in addition to one a second. 0: 0.1, that is one
	// retry in ten requests. Negative: nothing is ever repeated.
	RetryRatio float64
	// HedgeAfter is the time after which a query that is not answered is sent once more, to the next gateway; the first
	// answer counts. 0: never. A good value is the p99 of queries. Hedges are paid from the budget of retries.
	HedgeAfter time.Duration

	// Session has commands and queries of LicenseService sent over one session for each address, in place of requests
	// of their own: with many calls at a time, a call costs both sides a fraction of the CPU. Errors then have no
	// ServerTime unless a wrong clock may be the cause. Calls with options of gRPC are sent as requests.
	Session bool

	// Listener hears what happens.
	Listener Listener
	// DialOptions are further options of gRPC, such as a stats handler for traces.
	DialOptions []grpc.DialOption
}

// Listener hears what happens. The functions must return soon, and are called concurrently. Those that are nil are not
// called.
type Listener struct {
	// Attempted is called after each attempt, and when a stream of Follow broke.
	Attempted func(Attempt)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Attempted == nil {
		l.Attempted = func(Attempt) {}
	}
	return l
}

// Attempt is one attempt of a call that ended.
type Attempt struct {
	// Method is the gRPC method, "/licensed.v1.LicenseService/AcquireLicense".
	Method string
	// CommandID of a command; empty for others.
	CommandID string
	// Number counts the attempts of the call from 1. A hedge has the number of the attempt that it was sent beside. Of
	// Follow, it counts the streams that broke since the last message.
	Number int
	// Took is the duration of the attempt.
	Took time.Duration
	// Err is nil, *Error or *Refusal. Of a stream that the gateway ended without an error, it is io.EOF.
	Err error
}

const (
	defaultTimeout        = 30 * time.Second
	defaultAttemptTimeout = 12 * time.Second
	defaultRetryRatio     = 0.1
)

// How long a gateway that does not react is believed to live: keepalive pings of connections with calls.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
)

// Each request goes to the next gateway that is connected.
const balancing = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// Client calls a licence service. It is safe for concurrent use. Close it.
type Client struct {
	options    Options
	connection *grpc.ClientConn
	transport  transport
	sessions   *sessions // nil without
	budget     *budget

	// closing ends pauses and streams, and stop ends it.
	closing context.Context
	stop    context.CancelFunc
	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup

	licenses licensedv1.LicenseServiceClient
	history  licensedv1.HistoryServiceClient
}

// Dial returns a client of the gateways at these addresses, HOST:PORT each. A single address may also be another target
// of gRPC; of a name with several IP addresses, each is a gateway. Connections are made in the background: that no
// gateway is reachable is an error of the calls, not of Dial.
func Dial(addresses []string, o Options) (*Client, error) {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.AttemptTimeout <= 0 {
		o.AttemptTimeout = defaultAttemptTimeout
	}
	if o.RetryRatio == 0 {
		o.RetryRatio = defaultRetryRatio
	}
	o.Listener = o.Listener.withDefaults()
	target, options, err := o.dialing(addresses)
	if err != nil {
		return nil, fmt.Errorf("dial the licence service: %w", err)
	}
	connection, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dial the licence service at %q: %w", addresses, err)
	}
	connection.Connect()
	c := &Client{
		options: o, connection: connection, transport: unary{connection},
		budget: newBudget(o.RetryRatio, time.Now()),
	}
	if o.Session {
		c.sessions = newSessions(connection, len(addresses))
		c.transport = c.sessions
	}
	c.closing, c.stop = context.WithCancel(context.Background())
	c.licenses = licensedv1.NewLicenseServiceClient(c)
	c.history = licensedv1.NewHistoryServiceClient(c)
	return c, nil
}

// dialing returns the target for these addresses, and the options of gRPC.
func (o *Options) dialing(addresses []string) (target string, options []grpc.DialOption, err error) {
	security := insecure.NewCredentials()
	switch {
	case o.NewTLS != nil:
		security = eachTLS{credentials.NewTLS(o.NewTLS()), o.NewTLS}
	case o.TLS != nil:
		security = credentials.NewTLS(o.TLS)
	}
	options = []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultServiceConfig(balancing),
		grpc.WithDisableServiceConfig(),
		// A gateway that restarts is found again within seconds.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
	}
	if o.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer{o.Token, !allLocal(addresses)}))
	}
	switch len(addresses) {
	case 0:
		return "", nil, errors.New("no address; pass HOST:PORT of at least one gateway")
	case 1:
		target = addresses[0]
	default:
		gateways := manual.NewBuilderWithScheme("licensed")
		var state resolver.State
		for _, a := range addresses {
			host, _, err := net.SplitHostPort(a)
			if err != nil {
				return "", nil, fmt.Errorf("address %q is not HOST:PORT: %w", a, err)
			}
			state.Endpoints = append(state.Endpoints,
				resolver.Endpoint{Addresses: []resolver.Address{{Addr: a, ServerName: host}}})
		}
		gateways.InitialState(state)
		options, target = append(options, grpc.WithResolvers(gateways)), "licensed:///gateways"
	}
	return target, append(options, o.DialOptions...), nil
}

// eachTLS asks for the configuration of each connection.
type eachTLS struct {
	credentials.TransportCredentials
	config func() *tls.Config
}

// ClientHandshake implements credentials.TransportCredentials.
func (e eachTLS) ClientHandshake(ctx context.Context, authority string, c net.Conn) (
	net.Conn, credentials.AuthInfo, error,
) {
	return credentials.NewTLS(e.config()).ClientHandshake(ctx, authority, c)
}

// Clone implements credentials.TransportCredentials.
func (e eachTLS) Clone() credentials.TransportCredentials {
	return eachTLS{e.TransportCredentials.Clone(), e.config}
}

// allLocal reports whether all addresses are on this machine, where nobody listens to what is sent.
func allLocal(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(a string) bool {
		host, _, err := net.SplitHostPort(a)
		ip := net.ParseIP(host)
		return err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

// bearer adds a token to each request.
type bearer struct {
	token     func(context.Context) (string, error)
	encrypted bool // it must not be sent otherwise
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("get the token of a request: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.encrypted }

// Close ends the client: further calls fail with ErrClosed, and streams end. It waits for the attempts in progress, at
// most Options.AttemptTimeout; a call is not repeated any more.
func (c *Client) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	c.stop()
	c.calls.Wait()
	err := c.connection.Close()
	if c.sessions != nil {
		c.sessions.wait()
	}
	if err != nil {
		return fmt.Errorf("close the connections to the licence service: %w", err)
	}
	return nil
}

// begin counts a call in; done counts it out.
func (c *Client) begin() (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.calls.Add(1)
	return c.calls.Done, nil
}
