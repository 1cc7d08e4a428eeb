package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"licensed/messages/clusterv1"
)

// lan is a network of members in one process, without sockets. Packets that no member reads in time are lost, as with
// UDP.
type lan struct {
	mu    sync.Mutex
	ports map[string]*port
}

// port is what one member has of it. It implements memberlist.NodeAwareTransport.
type port struct {
	lan     *lan
	address *net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var errNoPort = errors.New("connection refused")

func (l *lan) open(number int) *port {
	p := &port{
		lan: l, address: &net.UDPAddr{IP: net.IPv4(10, 0, byte(number>>8), byte(number)), Port: 7946},
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 256),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports[p.address.String()] = p
	return p
}

func (l *lan) at(address string) *port {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ports[address]
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.address.IP, p.address.Port, nil
}
func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) IngestPacket(net.Conn, net.Addr, time.Time, bool) error { return errors.ErrUnsupported }
func (p *port) IngestStream(net.Conn) error                            { return errors.ErrUnsupported }

func (p *port) WriteTo(b []byte, address string) (time.Time, error) {
	if to := p.lan.at(address); to != nil {
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: p.address, Timestamp: time.Now()}:
		default:
		}
	}
	return time.Now(), nil
}

func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

func (p *port) DialTimeout(address string, _ time.Duration) (net.Conn, error) {
	to := p.lan.at(address)
	if to == nil {
		return nil, errNoPort
	}
	near, far := net.Pipe()
	select {
	case to.streams <- caller{far, p.address}:
		return near, nil
	default:
		return nil, errors.Join(errNoPort, near.Close(), far.Close())
	}
}

func (p *port) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, d)
}

func (p *port) Shutdown() error {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	delete(p.lan.ports, p.address.String())
	return nil
}

// caller is a connection that knows who opened it.
type caller struct {
	net.Conn
	from net.Addr
}

func (c caller) RemoteAddr() net.Addr { return c.from }

// TestManyStartTogether: members that all start at the same moment, and know one address, list each other within
// seconds, also when they are more than the newcomers that one member lists. Time is simulated; memberlist and its
// queues are real.
func TestManyStartTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s of processor time with the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		const members = maxNewcomers + 16
		l := &lan{ports: map[string]*port{}}
		all := make([]*Membership, members)
		began := time.Now()
		for k := range all {
			c := DefaultConfig()
			c.Name, c.Bind, c.Label, c.Transport = fmt.Sprintf("n%03d", k), "10.0.0.0:7946", "test", l.open(k)
			c.Meta = &clusterv1.Meta{Incarnation: make([]byte, 16), NodeAddress: "127.0.0.1:7947", Version: "1"}
			c.Log = slog.New(slog.DiscardHandler)
			c.Join = []string{"10.0.0.0:7946"}
			var err error
			if all[k], err = Start(c); err != nil {
				t.Fatal(err)
			}
		}
		missing := func() (n int) {
			for _, m := range all {
				n += members - m.count()
			}
			return n
		}
		for missing() > 0 && time.Since(began) < 30*time.Second {
			time.Sleep(50 * time.Millisecond)
		}
		took := time.Since(began)
		t.Logf("%d members list each other after %v", members, took)
		if took > 3*time.Second {
			t.Errorf("it took %v; %d are missing", took, missing())
		}
		var ending sync.WaitGroup
		for _, m := range all {
			ending.Go(func() { _ = m.Abandon() })
		}
		ending.Wait()
		time.Sleep(10 * time.Second) // Probes in progress end by their timeouts.
	})
}
