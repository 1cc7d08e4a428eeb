package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// maxStreams per HTTP/2 connection: one busy client may use a single connection.
const maxStreams = 1000

// readTimeout is how long a request may take to arrive, replyTimeout how long its reply may take to be taken.
const (
	readTimeout  = 30 * time.Second
	replyTimeout = 10 * time.Second
)

// Server serves a handler on one TCP address: HTTP/1.1 and HTTP/2, encrypted or not.
type Server struct {
	listener net.Listener
	http     *http.Server
	failed   chan error
}

// Listen binds the address ("127.0.0.1:8080"; port 0 chooses one). Clients may connect from then on,
// and are served from Start on. With a TLS configuration, which has a certificate
// or gets one for each client, it speaks nothing else. A request is cut off if its reply is not with the
// client when it had the time to arrive, the time that handlers may take to answer it, and some seconds
// more; handlers that answer for longer set the write deadline themselves.
func Listen(address string, encryption *tls.Config, answer time.Duration, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(encryption != nil)
	protocols.SetUnencryptedHTTP2(encryption == nil)
	return &Server{
		listener: l,
		failed:   make(chan error, 1),
		http: &http.Server{
			Protocols: &protocols,
			TLSConfig: encryption,
			HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			// A client that trickles its request, or does not take its reply, must not hold what it has for ever:
			// a connection, a goroutine, a place among the requests in flight.
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       readTimeout,
			WriteTimeout:      readTimeout + answer + replyTimeout,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}, nil
}

// Addr returns the address that was bound.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Start serves in the background. Should serving end other than by Shutdown, the error is sent on the
// channel returned. Start is called at most once.
func (s *Server) Start(h http.Handler) <-chan error {
	s.http.Handler = h
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

// Shutdown takes no more connections and requests, and waits for those under way until ctx ends; then
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
