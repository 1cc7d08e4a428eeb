package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Process is what the process at the other side of a connection may be, by its certificate.
type Process uint8

// What a process may be. A node may do all that a gateway may.
const (
	// Stranger is a process of neither role.
	Stranger Process = iota
	// Gateway may send requests of callers.
	Gateway
	// Node may also be sent requests.
	Node
)

// processKey is the key of a Process in a context.
type processKey struct{}

// ProcessOf returns what the process is that sent a request, given the context of the handler. Without
// Config.Identify every process is a Node.
func ProcessOf(ctx context.Context) Process {
	if p, ok := ctx.Value(processKey{}).(Process); ok {
		return p
	}
	return Node
}

// errStranger says that a certificate is not that of a process of the cluster, or not of one of that role.
var errStranger = errors.New("the names in its certificate are not those of the role; check --node-sans and " +
	"--gateway-sans")

// identify returns what the process at the other side of a stream is. Errors: errStranger.
func (t *Transport) identify(ctx context.Context) (Process, error) {
	if t.config.Identify == nil {
		return Node, nil
	}
	p, _ := grpcpeer.FromContext(ctx)
	if p != nil {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			c := info.State.PeerCertificates[0]
			if process := t.config.Identify(c); process != Stranger {
				return process, nil
			}
			return Stranger, fmt.Errorf("%w: it has %s", errStranger, names(c))
		}
	}
	return Stranger, fmt.Errorf("%w: it has none", errStranger)
}

// names returns the names in a certificate, for people.
func names(c *x509.Certificate) string { return text(fmt.Sprint(c.DNSNames, c.URIs)) }

// identified returns the context of the requests of an incoming stream, or why the stream is refused.
func (t *Transport) identified(ctx context.Context) (context.Context, error) {
	process, err := t.identify(ctx)
	if err != nil {
		t.config.Listener.Rejected("certificate of another role")
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return context.WithValue(ctx, processKey{}, process), nil
}
