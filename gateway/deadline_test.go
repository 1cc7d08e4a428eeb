package gateway_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"licensed/gateway"
	"licensed/gateway/server"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// pipes is a listener on connections within the process: there all that waits is seen to wait, and clocks jump.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.accepted <- theirs
	return ours, nil
}

// piped serves a handler on pipes within a bubble, and returns a client of each protocol.
func piped(t *testing.T, h http.Handler) map[string]*http.Client {
	t.Helper()
	p := newPipes()
	s := server.New(p, serverConfig(slog.New(slog.DiscardHandler)))
	s.Start(h)
	h1 := &http.Transport{DialContext: p.dial}
	h2 := &http.Transport{
		DialContext: p.dial, Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
	}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() {
		h1.CloseIdleConnections()
		h2.CloseIdleConnections()
		s.Close()
	})
	return map[string]*http.Client{"HTTP/1.1": {Transport: h1}, "HTTP/2": {Transport: h2}}
}

// flood answers without end, and tells when it cannot any more.
func flood(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	}
}

// TestReplyNobodyTakes ends, so that a client that reads nothing holds nothing forever.
func TestReplyNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error)
		for name, client := range piped(t, flood(ended)) {
			res, err := client.Get("http://pipe/")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := <-ended; err == nil {
				t.Errorf("%s: it was all taken", name)
			}
			if _, err := io.Copy(io.Discard, res.Body); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s: a reply that was cut off looks whole", name)
			}
			_ = res.Body.Close()
		}
	})
}

// verifier is operations of which only the verification matters.
type verifier struct {
	*past
	verify func(ctx context.Context, progress func(checked, total uint64) error) error
}

func (v verifier) Verify(
	ctx context.Context, _ string, _ bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	if err := v.verify(ctx, progress); err != nil {
		return nil, err
	}
	return new(licensedv1.CustomerReport), nil
}

// verifying returns a gateway with it.
func verifying(
	t *testing.T, verify func(ctx context.Context, progress func(checked, total uint64) error) error,
) *gateway.Gateway {
	t.Helper()
	p := newPast(t)
	c := historyConfig(p)
	c.Operations = verifier{p, verify}
	return gateway.New(c, p)
}

// TestStreamPauses: what bounds a stream is that each message is taken, not how long the next is in coming.
func TestStreamPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := verifying(t, func(_ context.Context, progress func(checked, total uint64) error) error {
			time.Sleep(time.Hour)
			for i := range uint64(3) {
				if err := progress(i, 3); err != nil {
					return err
				}
				time.Sleep(time.Hour)
			}
			return nil
		})
		for name, client := range piped(t, g.Handler()) {
			stream, err := licensedv1connect.NewAdminServiceClient(client, "http://pipe").VerifyCustomer(
				t.Context(), connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n := 0
			for stream.Receive() {
				n++
			}
			if err := stream.Err(); err != nil || n != 4 {
				t.Errorf("%s: %d messages, %v", name, n, err)
			}
			_ = stream.Close()
		}
	})
}

// TestStreamsEndWithTheNode whatever they do: wait for something, or for a client that does not take what it is
// sent.
func TestStreamsEndWithTheNode(t *testing.T) {
	for _, name := range []string{"HTTP/1.1", "HTTP/2"} {
		synctest.Test(t, func(t *testing.T) {
			waits, ended := make(chan struct{}, 2), make(chan struct{})
			again := false
			g := verifying(t, func(ctx context.Context, _ func(checked, total uint64) error) error {
				waits <- struct{}{}
				<-ctx.Done()
				if again {
					return nil // It is done; its result can no longer be sent.
				}
				again = true
				return ctx.Err()
			})
			client := licensedv1connect.NewAdminServiceClient(piped(t, g.Handler())[name], "http://pipe")
			go func() {
				defer close(ended)
				<-waits
				g.EndStreams()
				g.EndStreams() // a second time does nothing
			}()
			for _, when := range []string{"present", "future"} {
				stream, err := client.VerifyCustomer(t.Context(),
					connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
				if err != nil {
					t.Fatal(err)
				}
				for stream.Receive() {
				}
				if err := stream.Err(); connect.CodeOf(err) != connect.CodeUnavailable ||
					reasonOf(err) != licensedv1.ReasonNotExecuted {
					t.Errorf("%s: a %s stream ended with %v", name, when, err)
				}
				_ = stream.Close()
			}
			<-ended
		})
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error)
			g := verifying(t, func(_ context.Context, progress func(checked, total uint64) error) error {
				for {
					if err := progress(1, 2); err != nil {
						ended <- err
						return err
					}
				}
			})
			client := licensedv1connect.NewAdminServiceClient(piped(t, g.Handler())[name], "http://pipe")
			stream, err := client.VerifyCustomer(t.Context(),
				connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // The windows are full.
			began := time.Now()
			g.EndStreams()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s: the node waited %v for a client that reads nothing", name, took)
			}
			_ = stream.Close()
		})
	}
}
