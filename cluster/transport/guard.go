package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
)

// guard stands where gRPC takes connections in. It bounds their number, and keeps them at hand: a server
// of gRPC by itself can end a stream only when what was written before was read.
type guard struct {
	credentials.TransportCredentials
	open *atomic.Int64
	most int64
	full func()
}

var errTooMany = errors.New("too many connections")

// ServerHandshake implements credentials.TransportCredentials.
func (g guard) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if g.open.Add(1) > g.most {
		g.open.Add(-1)
		g.full()
		return nil, nil, errTooMany
	}
	counted := &countedConn{Conn: raw, open: g.open}
	conn, info, err := g.TransportCredentials.ServerHandshake(counted)
	if err != nil {
		_ = counted.Close()
		return nil, nil, err
	}
	return conn, guarded{info, counted}, nil
}

// Clone implements credentials.TransportCredentials.
func (g guard) Clone() credentials.TransportCredentials {
	g.TransportCredentials = g.TransportCredentials.Clone()
	return g
}

// dialing secures connections to others, each with what TLS has to be like when it begins.
type dialing struct{ config func() *tls.Config }

// ClientHandshake implements credentials.TransportCredentials.
func (d dialing) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(d.config()).ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials.
func (d dialing) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("for connecting only")
}

// Info implements credentials.TransportCredentials.
func (d dialing) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (d dialing) Clone() credentials.TransportCredentials { return d }

// OverrideServerName implements credentials.TransportCredentials, which has it for tests long gone.
func (d dialing) OverrideServerName(string) error { return errors.ErrUnsupported }

// guarded is what is known of a connection.
type guarded struct {
	credentials.AuthInfo
	conn net.Conn
}

// hangUp closes the connection of a stream, with all that was not read from it.
func hangUp(ctx context.Context) {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if g, ok := p.AuthInfo.(guarded); ok {
			_ = g.conn.Close()
		}
	}
}

// countedConn counts itself out when it is closed.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
