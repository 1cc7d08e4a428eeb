package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"licensed/gateway/server"
	"licensed/internal/budget"
)

// quiet is the default configuration without a log.
func quiet() server.Config {
	c := server.DefaultConfig()
	c.Logger = slog.New(slog.DiscardHandler)
	return c
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	s, err := server.Listen("127.0.0.1:0", quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(s.Addr().String(), quiet()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port in use: %v", err)
	}
	if _, err := server.Listen("nonsense", quiet()); err == nil ||
		!strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("bad address: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a server that never started and was shut down goes on listening: %v", err)
	}
}

// TestConnections: one address has its share of them, and each is given back.
func TestConnections(t *testing.T) {
	c := quiet()
	c.MaxConnections, c.AddressShare = 4, 0.5
	s, err := server.Listen("127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(http.NotFoundHandler())
	defer s.Close()
	connections := s.Connections()
	open := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	served := func(conn net.Conn) bool {
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return err == nil
	}
	first, second := open("127.0.0.1"), open("127.0.0.1")
	if !served(first) || !served(second) {
		t.Fatal("connections within the share are not served")
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil && served(conn) {
		t.Error("a connection above the share is served")
	}
	if other := open("127.0.0.2"); !served(other) {
		t.Error("another address is not served")
	}
	if connections.Refused(budget.Share) != 1 || connections.Used() != 3 {
		t.Errorf("%d refused, %d open", connections.Refused(budget.Share), connections.Used())
	}
	_ = first.Close()
	for connections.Used() != 2 { // The server notices.
		time.Sleep(time.Millisecond)
	}
	if again := open("127.0.0.1"); !served(again) {
		t.Error("the place of a closed connection stays taken")
	}
}

// poorListener has too few files at first.
type poorListener struct {
	net.Listener
	failures atomic.Int64
}

func (l *poorListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestAcceptWithoutFiles: a server waits until there are files again.
func TestAcceptWithoutFiles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	poor := &poorListener{Listener: l}
	poor.failures.Store(3)
	s := server.New(poor, quiet())
	failed := s.Start(http.NotFoundHandler())
	defer s.Close()
	res, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
	if errors.Is(err, syscall.EMFILE) || poor.failures.Load() >= 0 {
		t.Error("no attempt failed")
	}
}

// TestHiddenRequest: a request that is hidden in the body of another one, for a proxy that goes by the length, is not
// executed.
func TestHiddenRequest(t *testing.T) {
	s, err := server.Listen("127.0.0.1:0", quiet())
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	served := make(chan string, 10)
	s.Start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		served <- r.URL.Path
	}))
	defer s.Close()
	const hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, headers := range []string{
		"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
		"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n",
		"Content-Length: 6\r\nContent-Length: 44\r\n", "Transfer-Encoding: \vchunked\r\nContent-Length: 6\r\n",
	} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // For a server that does not end the connection.
		request := "POST /open HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n0\r\n\r\n" + hidden
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %v", headers, err)
		}
		_ = conn.Close()
	}
	for len(served) > 0 {
		paths = append(paths, <-served)
	}
	if slices.Contains(paths, "/hidden") || !slices.Contains(paths, "/open") {
		t.Errorf("served %q", paths)
	}
}
