package transport

import (
	"net"
	"net/netip"
	"sync"
)

// listener bounds the connections that are accepted, of all addresses together and of each. It keeps them at hand: a
// gRPC server can end a stream only when the peer has read what was written before.
type listener struct {
	net.Listener
	most, share int
	rejected    func(reason string)

	mu    sync.Mutex
	conns map[string]*acceptedConn // by remote address with port
	of    map[netip.Addr]int       // by remote address
}

// minShare is the number of connections one address gets at least: the processes of a small cluster may be on one machine.
const minShare = 16

func newListener(l net.Listener, most int, rejected func(reason string)) *listener {
	return &listener{
		Listener: l, most: most, share: max(most/2, minShare), rejected: rejected,
		conns: map[string]*acceptedConn{}, of: map[netip.Addr]int{},
	}
}

// Accept implements net.Listener. It closes connections that are too many.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &acceptedConn{Conn: raw, listener: l, remote: raw.RemoteAddr().String()}
		if a, err := netip.ParseAddrPort(c.remote); err == nil {
			c.host = a.Addr().Unmap()
		}
		if reason := l.add(c); reason != "" {
			l.rejected(reason)
			_ = raw.Close()
			continue
		}
		return c, nil
	}
}

// add counts a connection, or returns why it is not accepted.
func (l *listener) add(c *acceptedConn) (reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.conns) >= l.most:
		return "too many connections"
	case l.of[c.host] >= l.share:
		return "too many connections of one address"
	}
	l.conns[c.remote] = c
	l.of[c.host]++
	return ""
}

// hangUp closes a connection with all that was not read from it.
func (l *listener) hangUp(remote string) {
	l.mu.Lock()
	c := l.conns[remote]
	l.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// acceptedConn counts itself out when it is closed.
type acceptedConn struct {
	net.Conn
	listener *listener
	remote   string
	host     netip.Addr
	once     sync.Once
}

// Close implements net.Conn.
func (c *acceptedConn) Close() error {
	c.once.Do(func() {
		l := c.listener
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c.remote)
		if l.of[c.host]--; l.of[c.host] == 0 {
			delete(l.of, c.host)
		}
	})
	return c.Conn.Close()
}
