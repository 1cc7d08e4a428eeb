package gateway

import (
	"net/http"
	"testing"
	"time"
)

// TestOneDeadline: a request has one deadline, the client's or the gateway's, and package connect makes no other one. A
// timeout that is not valid stays for package connect to refuse.
func TestOneDeadline(t *testing.T) {
	const most = 10 * time.Second
	g := &Gateway{config: Config{MaxDeadline: most}}
	now := time.Now()
	for timeout, want := range map[string]time.Duration{"": most, "3S": 3 * time.Second, "12S": most, "soon": most} {
		h := http.Header{"Content-Type": {"application/grpc+proto"}}
		if timeout != "" {
			h.Set("Grpc-Timeout", timeout)
		}
		deadline := takeDeadline(h, now)
		if _, left := h["Grpc-Timeout"]; left != (timeout == "soon") {
			t.Errorf("%q: header left: %t", timeout, left)
		}
		got := g.capped(&route{}, deadline).Sub(now)
		if got < want || got > want+time.Minute {
			t.Errorf("%q: %v, want %v", timeout, got, want)
		}
		if stream := g.capped(&route{stream: true}, deadline); !stream.Equal(deadline) {
			t.Errorf("%q: a stream has %v, want %v", timeout, stream, deadline)
		}
	}
}
