package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/network"
	"licensed/test/hostile"
)

// intruder is a host beside the deployment that none of its members knows: hostile clients and forged gossip come from
// its address.
type intruder struct {
	address string
	port    *network.Port // nil: an address of this machine
}

// dial connects from the intruder's address.
func (i *intruder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if i.port != nil {
		return i.port.Dial(ctx, network, address)
	}
	from := netip.AddrPortFrom(netip.MustParseAddr(i.address), 0)
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
	}
	return d.DialContext(ctx, network, address)
}

// within runs fn where sockets that it opens have the intruder's network.
func (i *intruder) within(fn func() error) error {
	if i.port != nil {
		return i.port.Within(fn)
	}
	return fn()
}

// hostileKind runs hostile clients against the API of a server, beside the load. A good client must be served
// meanwhile.
func hostileKind(from *intruder, ss []*server, ttl time.Duration) fault.Kind {
	const name = "hostile clients"
	return fault.Kind{Name: name, Weight: 3, Make: func(r *rand.Rand) *fault.Fault {
		s := ss[r.IntN(len(ss))]
		attacks := hostile.All("nobody")
		attack := attacks[r.IntN(len(attacks))]
		var running *hostile.Running
		var c hostile.Counts
		good := probe{url: s.API}
		return &fault.Fault{
			Kind:    name,
			Detail:  attack.Name,
			Targets: []string{s.Process.Name()},
			Hold:    2*ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(ctx context.Context) error {
				return alive(s.Process, func() (err error) {
					address := strings.TrimPrefix(s.API, "http://")
					if running, err = attack.Start(ctx, hostile.Target{Address: address, Dial: from.dial}); err != nil {
						return err
					}
					good.start()
					return nil
				})
			},
			Heal: func(context.Context) error {
				if running == nil {
					return nil
				}
				err := good.stop()
				c = running.Stop()
				return err
			},
			Came: func() fault.Effect {
				return fault.Effect{
					Text: fmt.Sprintf("%d connections, %d closed; %d requests, %d refused; "+
						"a good client was served %d of %d times",
						c.Connections, c.Closed, c.Streams, c.Refused, good.served, good.sent),
					Idle: c.Connections == 0,
				}
			},
		}
	}}
}

// probe is a good client: one request at a time, which needs nothing but the server that it is sent to.
type probe struct {
	url          string
	cancel       context.CancelFunc
	running      sync.WaitGroup
	sent, served int
	refused      error // the last refusal for want of room
}

// probePause is the time between two requests of a good client.
const probePause = 100 * time.Millisecond

// start begins to send requests, over connections of their own.
func (p *probe) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.running.Go(func() {
		for p.ask(ctx); ctx.Err() == nil; p.ask(ctx) {
			select {
			case <-ctx.Done():
			case <-time.After(probePause):
			}
		}
	})
}

func (p *probe) ask(ctx context.Context) {
	t := &http.Transport{DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := licensedv1connect.NewAdminServiceClient(&http.Client{Transport: t}, p.url).
		GetNode(ctx, connect.NewRequest(&licensedv1.GetNodeRequest{}))
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	p.sent++
	switch {
	case err == nil:
		p.served++
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		p.refused = err
	}
}

// stop ends the requests. A good client that was refused because of hostile ones, or never served, is an error.
func (p *probe) stop() error {
	p.cancel()
	p.running.Wait()
	switch {
	case p.refused != nil:
		return fmt.Errorf("a good client was refused beside hostile ones: %w", p.refused)
	case p.sent > 0 && p.served == 0:
		return fmt.Errorf("a good client was not served in %d attempts beside hostile ones", p.sent)
	}
	return nil
}
