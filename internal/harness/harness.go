package harness

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Log keeps what is written to it. It is safe for concurrent use. The zero Log is empty.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Until waits until a condition is true. If that never happens, go test's timeout ends the test with all stacks.
func Until(condition func() bool) {
	for !condition() {
		time.Sleep(time.Millisecond)
	}
}

// Get returns the status and the body of a page.
func Get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// HTTP2 returns a client over HTTP/2 without TLS, with connections of its own. They come from an address of this
// machine if one is given.
func HTTP2(t testing.TB, from ...net.IP) *http.Client {
	var dialer net.Dialer
	for _, ip := range from {
		dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	var mu sync.Mutex
	var open []net.Conn
	h := &http.Transport{Protocols: new(http.Protocols)}
	h.Protocols.SetUnencryptedHTTP2(true)
	h.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			open = append(open, c)
		}
		return c, err
	}
	// A stream that has just ended may keep its connection from being idle, and a server that stops waits a second for
	// each that is not.
	t.Cleanup(func() {
		h.CloseIdleConnections()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	return &http.Client{Transport: h}
}
