package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/internal/networks"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Errors of requests to other processes, besides those of package actors and *cluster.NotOwnerError.
var (
	// ErrNotSent: the other process could not be reached, or this one is closing. Not executed.
	ErrNotSent = errors.New("request was not sent")
	// ErrInvalid: the request has a text that is none. Not executed. This one and the next match
	// actors.ErrRejected: a retry cannot succeed.
	ErrInvalid error = rejection("request is malformed")
	// ErrTooLarge: the request is larger than may be sent. Not executed.
	ErrTooLarge error = rejection("request is too large")
	// ErrInternal: the other process failed, or answered what this one does not understand. Whether it
	// executed a command is not known, and asking again would hardly help.
	ErrInternal = errors.New("internal error of another process")
)

// rejection is an error of requests that never get anywhere.
type rejection string

func (r rejection) Error() string { return string(r) }

// Is reports whether the target is actors.ErrRejected.
func (rejection) Is(target error) bool { return target == actors.ErrRejected }

// Handler answers the requests of other processes. It is safe for concurrent use. The context of a
// request ends with its deadline, when its caller gives up, and when the connection of its caller's process ends.
type Handler interface {
	// Execute and Query are as those of actors.Runtime, for aggregates of a kind. Errors: those of
	// package actors, also as *cluster.NotOwnerError.
	Execute(ctx context.Context, kind, id string, c actors.Command) (actors.Reply, error)
	Query(ctx context.Context, kind, id string, query any) (actors.Answer, error)
	// Operate executes an operator's request, perhaps twice. Errors are as those of Query.
	Operate(ctx context.Context, kind, id string, request any) (actors.Answer, error)
	// Status tells how this process does.
	Status(ctx context.Context) (*clusterv1.StatusResponse, error)
	// Drain begins to hand over all shards and to leave. It returns when that is begun.
	Drain(ctx context.Context) error
	// Undrain begins to take shards again after a Drain. It returns when that is begun.
	Undrain(ctx context.Context) error
}

// Codec turns commands, queries and their answers into bytes and back. The cluster does not know their
// types. It is safe for concurrent use.
type Codec interface {
	// Marshal returns a name for the value's type, which never changes, and its bytes.
	Marshal(value any) (name string, data []byte, err error)
	// Unmarshal returns the value that Marshal was given. It gives an error for what it does not know.
	Unmarshal(name string, data []byte) (any, error)
	// UnmarshalRequest is Unmarshal for what another process asks. It also gives an error for answers, and for what
	// would take many times the size of the data in memory.
	UnmarshalRequest(name string, data []byte) (any, error)
}

// Config of a transport. DefaultConfig gives all but Cluster, Bind, Handler and Codec.
type Config struct {
	// Cluster is the name of the cluster.
	Cluster string
	// ClusterID is its random id (zero, in tests: any). Streams from and to processes of another one are refused, and
	// Strangers, if not nil, logs them.
	ClusterID persistence.ClusterID
	Strangers *membership.Strangers
	// Incarnation is what this process says of itself in greetings: its present or last one with a lease, zero for a
	// process that has none. Nil: always zero.
	Incarnation func() persistence.Incarnation
	// Admit, if not nil, decides whether the process that answered under an address, and says that it is of an
	// incarnation, may be sent requests: an error refuses the connection. It may read the store, until ctx ends.
	Admit func(ctx context.Context, address string, i persistence.Incarnation) error
	// Identify, if not nil, says what the process with a certificate may be, for connections in both directions; it
	// needs TLS with certificates on both sides. Processes that are neither are refused, and requests are sent to a
	// process with a lease only if it may be a node.
	Identify func(c *x509.Certificate) Process
	// Bind is the address to listen on, host:port; port 0 takes any.
	Bind string
	// Advertise is the address that others reach it under, host:port; empty: that of Bind.
	Advertise string
	// ServerTLS is for clients that connect, ClientTLS for connecting; nil: not encrypted. For mutual TLS
	// the one demands certificates of clients, and the other has one. ClientTLS is asked for each connection,
	// so that it may change, and belongs to nobody; it must be safe for concurrent use.
	ServerTLS *tls.Config
	ClientTLS func() *tls.Config

	// Networks from which connections are accepted. Empty: all.
	Networks networks.List

	// Handler answers; nil: this process answers nothing.
	Handler Handler
	// Member is the name of this process as a member, for those that ping it.
	Member string
	// Codec of payloads.
	Codec Codec

	// MaxMessageBytes is the largest request or answer (default 8 MiB). All processes of a cluster have
	// the same; it bounds the memory that one peer can make this process take.
	MaxMessageBytes int
	// MaxInFlight bounds the requests to one peer that are not answered, and those of one peer that this
	// process works on (default 8192). One more is answered actors.ErrOverloaded. A request whose caller gives up leaves
	// the first number at once. It leaves the second one when its handler returns after it has heard so. It should be
	// at least twice actors.Config.MaxPerShard, so that one shard leaves room for others on each connection.
	MaxInFlight int
	// MaxPeerBytes bounds the requests to one peer that wait to be written, and those of one peer that this process
	// works on with the responses that are not written, in bytes (default 64 MiB). One more is answered
	// actors.ErrOverloaded. A request that this process works on counts with 4 KiB more than its encoded size. A peer
	// that does not read this many responses is disconnected.
	MaxPeerBytes int
	// MaxBytes bounds the same of all peers that send requests to this process, in bytes (default 256 MiB).
	MaxBytes int
	// MaxUnfinishedBytes bounds what has arrived of frames that are not complete, of all peers, in bytes (default
	// 64 MiB). One address gets half of it. A connection has 256 KiB beside that. One that needs more than is left is
	// closed, and one whose frame then takes longer than 30 s.
	MaxUnfinishedBytes int
	// MaxPeers bounds the connections that are accepted (default 1024), with one stream on each. One address gets
	// half of them, or 16 if that is more.
	MaxPeers int
	// MaxIdle is the time that an accepted connection may have no stream (default 10 s). Then it is closed: a peer
	// keeps one stream open for as long as it is connected.
	MaxIdle time.Duration
	// MaxTimeout caps the time for a request that another process asks for (default 1 min).
	MaxTimeout time.Duration
	// DialTimeout is the time that connecting to a peer may take, with its handshake (default 1 s). Until
	// then, what is sent to it waits.
	DialTimeout time.Duration
	// Silence is the time that a peer may be silent while it owes answers (default 2 s). Then the connection
	// is taken for dead, and the requests on it have an unknown outcome. Shorter finds dead peers
	// sooner, and takes those for dead that were just slow; membership finds them in its own time.
	Silence time.Duration
	// Tracing carries the traces of requests along; nil: none.
	Tracing Tracing
	// Listener hears what happens.
	Listener Listener
	// Log takes what an operator should know (default slog.Default).
	Log *slog.Logger
}

// Listener hears what happens. The functions must be quick and safe for concurrent use.
// Those that are nil are not called.
type Listener struct {
	// Pinged is told of each other process that reached this one: the run of the process and its name as a member.
	Pinged func(process persistence.Incarnation, name string)
	// Connected is told of each attempt to connect to a peer; err is nil if it succeeded.
	Connected func(address string, took time.Duration, err error)
	// Disconnected is told of each connection to a peer that ended, and why.
	Disconnected func(address string, cause error)
	// Rejected is told what peers sent and was turned away, by a few fixed reasons.
	Rejected func(reason string)
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Bind: "0.0.0.0:7947", MaxMessageBytes: 8 << 20, MaxInFlight: 8192, MaxPeerBytes: 64 << 20, MaxBytes: 256 << 20, MaxUnfinishedBytes: 64 << 20,
		MaxPeers: 1024, MaxIdle: 10 * time.Second, MaxTimeout: time.Minute,
		DialTimeout: time.Second, Silence: 2 * time.Second, Log: slog.Default(),
	}
}

func (c *Config) validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"Cluster", c.Cluster != ""}, {"Codec", c.Codec != nil}, {"Log", c.Log != nil},
		{"MaxMessageBytes", c.MaxMessageBytes > 0 && c.MaxMessageBytes <= 1<<30}, {"MaxInFlight", c.MaxInFlight > 0},
		{"MaxPeerBytes", c.MaxPeerBytes >= c.MaxMessageBytes}, {"MaxBytes", c.MaxBytes >= c.MaxPeerBytes},
		{"MaxUnfinishedBytes", c.MaxUnfinishedBytes > 0}, {"MaxPeers", c.MaxPeers > 0}, {"MaxIdle", c.MaxIdle > 0}, {"MaxTimeout", c.MaxTimeout > 0}, {"DialTimeout", c.DialTimeout > 0},
		{"Silence", c.Silence > 0},
	} {
		if !f.ok {
			return fmt.Errorf("transport configuration: %s is missing or out of range", f.name)
		}
	}
	if _, _, err := net.SplitHostPort(c.Bind); err != nil {
		return fmt.Errorf("transport configuration: address to bind: %w", err)
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			return fmt.Errorf("transport configuration: address to advertise: %w", err)
		}
	}
	return nil
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Pinged == nil {
		l.Pinged = func(persistence.Incarnation, string) {}
	}
	if l.Connected == nil {
		l.Connected = func(string, time.Duration, error) {}
	}
	if l.Disconnected == nil {
		l.Disconnected = func(string, error) {}
	}
	if l.Rejected == nil {
		l.Rejected = func(string) {}
	}
	return l
}

// Tracing carries traces from one process to another. It is safe for concurrent use.
type Tracing interface {
	// Inject returns what travels with a request under ctx, at most 64 bytes of ASCII; empty for nothing.
	Inject(ctx context.Context) string
	// Extract returns ctx with what travelled along with a request. It comes from another process, and may
	// be anything.
	Extract(ctx context.Context, traceparent string) context.Context
}
