package transport

import (
	"errors"
	"net"
	"sync"
	"time"

	"licensed/internal/budget"
	"licensed/internal/networks"
)

// listener bounds the connections that are accepted and what gRPC holds of each, of all addresses together and of each.
// gRPC buffers a message until it is complete and tells nobody, so that the connections count the bytes that arrive.
// The listener keeps the connections at hand: a gRPC server can end a stream only when the peer has read what was
// written before.
type listener struct {
	net.Listener
	connections, unfinished *budget.Budget
	rejected                func(reason string)
	networks                networks.List

	mu    sync.Mutex
	conns map[string]*acceptedConn // by remote address with port
}

// minShare is the number of connections one address gets at least: the processes of a small cluster may be on one
// machine.
const minShare = 16

func newListener(l net.Listener, c *Config) *listener {
	return &listener{
		Listener: l, rejected: c.Listener.Rejected, networks: c.Networks, conns: map[string]*acceptedConn{},
		// It is rounded down.
		connections: budget.New("connections", int64(c.MaxPeers),
			budget.Each{Address: max(0.5, (minShare+0.5)/float64(c.MaxPeers))}),
		unfinished: budget.New("unfinished frames", int64(c.MaxUnfinishedBytes), budget.Each{Address: 0.5}),
	}
}

// Accept implements net.Listener. It closes connections that are too many, or from other networks.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := l.networks.Check(raw.RemoteAddr()); err != nil {
			l.rejected(err.Error())
			_ = raw.Close()
			continue
		}
		c, err := l.add(raw)
		if err != nil {
			l.rejected(reason("too many connections", err))
			_ = raw.Close()
			continue
		}
		return c, nil
	}
}

// reason returns what is told of a limit that was reached.
func reason(what string, err error) string {
	var exceeded *budget.ExceededError
	if errors.As(err, &exceeded) && exceeded.Scope == budget.Share {
		what += " of one address"
	}
	return what
}

// add counts a connection. Errors: *budget.ExceededError.
func (l *listener) add(raw net.Conn) (c *acceptedConn, err error) {
	c = &acceptedConn{Conn: raw, listener: l, remote: raw.RemoteAddr().String()}
	holder := budget.FromRemote(c.remote)
	if c.place, err = l.connections.Take(1, holder); err != nil {
		return nil, err
	}
	// Bytes of an unfinished frame are counted on the connection, none at first.
	if c.excess, err = l.unfinished.Take(0, holder); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the remote address, under which gRPC hands the stream over.
	l.conns[c.remote] = c
	return c, nil
}

// conn returns the connection from an address; nil if it is closed.
func (l *listener) conn(remote string) *acceptedConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[remote]
}

// allowanceBytes may arrive without budget since the last frame was complete: while the handler works on a frame of
// small messages, which fits into windowBytes, the peer fills the window with the frames that follow. As many may
// arrive before a stream is accepted: the handshakes of TLS and HTTP/2, a header, and a window of what a process sends
// too early.
const allowanceBytes = 2 * windowBytes

// frameTimeout is the time that a frame may take to arrive from the point on at which its connection has used up its
// allowance.
const frameTimeout = 30 * time.Second

// acceptedConn counts itself out when it is closed. It counts the bytes that arrived since its last frame was handled:
// allowanceBytes are free, for more it asks the budget. There is one stream on a connection, so that these are all
// bytes that gRPC holds of it, but for those that were in the stream's window before, at most windowBytes.
type acceptedConn struct {
	net.Conn
	listener *listener
	remote   string

	mu         sync.Mutex
	closed     bool
	greeted    bool // the stream was accepted
	unfinished int64
	excess     budget.Grant // beyond the allowance
	place      budget.Grant
}

// Read implements net.Conn. It closes a connection that has too many bytes of an unfinished frame.
func (c *acceptedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if refused := c.arrived(n); refused != "" {
		c.listener.rejected(refused)
		return 0, errors.Join(errors.New(refused), c.Close())
	}
	return n, err
}

// arrived counts bytes, or returns why they are too many.
func (c *acceptedConn) arrived(n int) (refused string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unfinished += int64(n)
	excess := c.unfinished - allowanceBytes
	switch {
	case excess <= 0 || c.closed:
		return ""
	case !c.greeted:
		return "too many bytes before the handshake"
	case c.excess.Size() == 0:
		_ = c.SetReadDeadline(time.Now().Add(frameTimeout)) // If it fails, so does the next read.
	}
	if err := c.excess.Resize(excess); err != nil {
		return reason("too many bytes of unfinished frames", err)
	}
	return ""
}

// finished begins a new count: the stream was accepted, or a frame was handled and is not held any more.
func (c *acceptedConn) finished() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted, c.unfinished = true, 0
	if c.excess.Size() > 0 {
		c.excess.Release()
		_ = c.SetReadDeadline(time.Time{}) // If it fails, so does the next read.
	}
}

// Close implements net.Conn. It closes the connection with all that was not read from it.
func (c *acceptedConn) Close() error {
	l := c.listener
	l.mu.Lock()
	if l.conns[c.remote] == c {
		delete(l.conns, c.remote)
	}
	l.mu.Unlock()
	c.mu.Lock()
	// Both are given back under the lock: a read that is in progress counts bytes on
	// them.
	defer c.mu.Unlock()
	c.closed = true
	c.excess.Release()
	c.place.Release()
	return c.Conn.Close()
}
