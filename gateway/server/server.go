// Package server serves an HTTP handler on a port, or without one to parts of the same process. A server bounds what
// clients may take before a request of theirs is read: connections, streams, headers, and the time that they take. It
// knows nothing of the API.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"licensed/internal/budget"
)

// Config of a server. DefaultConfig gives sensible values.
type Config struct {
	// Name of the limit of connections, a label of metrics.
	Name string
	// TLS encrypts; with a configuration, which has a certificate or gets one for each client, the server speaks
	// nothing else. Nil for HTTP/1.1 and unencrypted HTTP/2.
	TLS *tls.Config
	// ReadTimeout is the time a request may take to arrive, Answer how long handlers may take to answer it, and
	// ReplyTimeout how long the reply may take to be read. A request that needs more than all three is cut off;
	// handlers that answer for longer set the write deadline themselves. A connection on which nothing can be written
	// for ReplyTimeout is closed.
	ReadTimeout, Answer, ReplyTimeout time.Duration
	// MaxConnections are accepted at once, and AddressShare is what part of them one address may have, above 0 up to 1.
	// Further ones are closed. Each takes a file, and some 40 KiB.
	MaxConnections int
	AddressShare   float64
	// MaxStreams is the number of requests a client may have in progress on one HTTP/2 connection.
	MaxStreams int
	Logger     *slog.Logger
}

// DefaultConfig returns the configuration that a server has unless told otherwise.
func DefaultConfig() Config {
	return Config{
		Name: "connections", ReadTimeout: 10 * time.Second, Answer: 10 * time.Second, ReplyTimeout: 10 * time.Second,
		MaxConnections: 4096, AddressShare: 0.25, MaxStreams: 250, Logger: slog.Default(),
	}
}

// What a connection may take before any request is admitted, in bytes: headers, and what arrived of bodies.
const (
	maxHeader       = 16 << 10
	maxFrame        = 16 << 10
	connectionQueue = 256 << 10
	streamQueue     = 64 << 10
)

// headerTimeout is the time that headers may take, idleTimeout the time that a connection
// may be idle.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Server serves a handler on one TCP address: HTTP/1.1 and HTTP/2, encrypted or not.
type Server struct {
	listener net.Listener
	// Places of connections; listener takes them.
	connections *budget.Budget
	http        *http.Server
	// Has room for the one error of serving.
	failed chan error
}

// Listen binds the address ("127.0.0.1:8080"; port 0 chooses one). Clients may connect from then on,
// and are served from Start on.
func Listen(address string, c Config) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	return New(l, c), nil
}

// New returns a server of the connections that a listener accepts; it closes the listener.
func New(l net.Listener, c Config) *Server {
	var protocols http.Protocols
	// Without TLS, HTTP/2 is spoken with prior knowledge, as gRPC clients do.
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(c.TLS != nil)
	protocols.SetUnencryptedHTTP2(c.TLS == nil)
	// Connections are counted by address as soon as they are accepted, before a byte is
	// read.
	connections := budget.New(c.Name, int64(c.MaxConnections), budget.Each{Address: c.AddressShare})
	return &Server{
		listener:    &countedListener{l, connections},
		connections: connections,
		failed:      make(chan error, 1),
		http: &http.Server{
			Protocols: &protocols,
			TLSConfig: c.TLS,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: c.MaxStreams, MaxReadFrameSize: maxFrame,
				MaxReceiveBufferPerConnection: connectionQueue, MaxReceiveBufferPerStream: streamQueue,
				// The deadlines of requests do not end a connection that takes no bytes at all.
				WriteByteTimeout: c.ReplyTimeout,
			},
			// A client that trickles its request, or does not take its reply, must not hold what it has forever:
			// a connection, a goroutine, a place among the requests in flight.
			ReadHeaderTimeout: min(headerTimeout, c.ReadTimeout),
			ReadTimeout:       c.ReadTimeout,
			WriteTimeout:      c.ReadTimeout + c.Answer + c.ReplyTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(c.Logger.Handler(), slog.LevelWarn),
		},
	}
}

// countedListener closes connections that are too many. An error of Accept, such as too few files, is the server's to
// wait out.
type countedListener struct {
	net.Listener
	connections *budget.Budget
}

// Accept implements net.Listener.
func (l *countedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		grant, err := l.connections.Take(1, budget.FromRemote(c.RemoteAddr().String()))
		if err == nil {
			return &countedConn{Conn: c, grant: grant}, nil
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // Nothing of it is to stay in the kernel.
		}
		_ = c.Close() // There is nothing to lose.
	}
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	once  sync.Once
	grant budget.Grant
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.grant.Release)
	return err
}

// Connections returns the budget of connections.
func (s *Server) Connections() *budget.Budget { return s.connections }

// Addr returns the address that was bound.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Start serves in the background. Should serving end other than by Shutdown, the error is sent on the
// channel returned. Start is called at most once.
func (s *Server) Start(h http.Handler) <-chan error {
	s.http.Handler = oneChunked(h)
	go func() {
		serve := s.http.Serve
		if s.http.TLSConfig != nil {
			serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
		}
		if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serve %v: %w", s.Addr(), err)
		}
	}()
	return s.failed
}

// oneChunked ends a connection of HTTP/1.1 after a request whose body came in chunks. Such a request may have a length
// too, which package net/http drops without a word. A proxy that goes by the length sees another end of it than we do,
// and would forward what one client hid in its body as the next request of another one. RFC 9112, section 6.1 demands
// the end of the connection then.
func oneChunked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Shutdown takes no more connections and requests, and waits for those in progress until ctx ends; then
// it cuts off the rest and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	// Shutdown closes the listener only if Serve was called.
	_ = s.listener.Close()
	if err != nil {
		_ = s.http.Close()
	}
	return err
}

// Close releases the address of a server that was not started. After Shutdown it does nothing.
func (s *Server) Close() {
	// Nothing can be done about, or lost by, a listener that does not close.
	_ = s.http.Close()
	_ = s.listener.Close()
}
