package harness

import (
	"bytes"
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
	h := &http.Transport{Protocols: new(http.Protocols)}
	h.Protocols.SetUnencryptedHTTP2(true)
	for _, ip := range from {
		h.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}).DialContext
	}
	t.Cleanup(h.CloseIdleConnections)
	return &http.Client{Transport: h}
}
