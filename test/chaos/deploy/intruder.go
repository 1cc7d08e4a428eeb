package deploy

import (
	"cmp"
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
// meanwhile. Nothing is done to the server or also meanwhile, for that would excuse it.
func hostileKind(from *intruder, ss []*server, also []string, ttl time.Duration) fault.Kind {
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
			Also:    also,
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
						"a good client was served: %s",
						c.Connections, c.Closed, c.Streams, c.Refused, &good),
					Idle: c.Connections == 0,
				}
			},
		}
	}}
}

// probe is a good client of one server. It sends three kinds of requests, one of each at a time.
type probe struct {
	url     string
	within  time.Duration // for an answer; 0: servedWithin
	cancel  context.CancelFunc
	running sync.WaitGroup
	node    tally // a request of an operator, which needs nothing but the server
	query   tally
	command tally
}

// tally is what became of the requests of one kind.
type tally struct {
	sent, served int
	refused      error // the last refusal for want of room
	last         error // of the last request
	// longest is the longest time without an answer.
	longest time.Duration
}

// probePause is the time between two requests of a good client.
const probePause = 100 * time.Millisecond

// start begins to send requests, over connections of their own.
func (p *probe) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.within = cancel, cmp.Or(p.within, servedWithin)
	customer := fmt.Sprintf("good-%d", time.Now().UnixNano())
	p.running.Go(func() {
		p.repeat(ctx, &p.node, func(ctx context.Context, c *http.Client) error {
			_, err := licensedv1connect.NewAdminServiceClient(c, p.url).
				GetNode(ctx, connect.NewRequest(&licensedv1.GetNodeRequest{}))
			return err
		})
	})
	p.running.Go(func() {
		p.repeat(ctx, &p.query, func(ctx context.Context, c *http.Client) error {
			_, err := licensedv1connect.NewLicenseServiceClient(c, p.url).
				ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer}))
			return err
		})
	})
	p.running.Go(func() {
		p.repeat(ctx, &p.command, func(ctx context.Context, c *http.Client) error {
			// Another customer each time: the commands of one are rate-limited.
			_, err := licensedv1connect.NewLicenseServiceClient(c, p.url).AcquireLicense(ctx,
				connect.NewRequest(&licensedv1.AcquireLicenseRequest{
					CustomerId: fmt.Sprint(customer, "-", p.command.sent), DeviceId: "good", TitleId: "B",
					CommandId: "good",
				}))
			return err
		})
	})
}

// repeat sends requests of one kind until ctx ends and the last one was answered, or no answer came for within.
func (p *probe) repeat(ctx context.Context, t *tally, send func(context.Context, *http.Client) error) {
	for answered := time.Now(); ; time.Sleep(probePause) {
		err := p.ask(send)
		t.sent++
		t.last, t.longest = err, max(t.longest, time.Since(answered))
		switch {
		case err == nil:
			t.served++
			answered = time.Now()
		case connect.CodeOf(err) == connect.CodeResourceExhausted:
			t.refused = err
		}
		if ctx.Err() != nil && err == nil || t.longest > p.within {
			return
		}
	}
}

func (p *probe) ask(send func(context.Context, *http.Client) error) error {
	t := &http.Transport{DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), p.within/2)
	defer cancel()
	return send(ctx, &http.Client{Transport: t})
}

// String returns the numbers of requests of each kind, and of those served.
func (p *probe) String() string {
	return fmt.Sprintf("%d of %d requests, %d of %d queries, %d of %d commands", p.node.served, p.node.sent,
		p.query.served, p.query.sent, p.command.served, p.command.sent)
}

// stop ends the requests once the last of each kind was answered. It is an error if the server refused its operator
// because of hostile clients, or left one without an answer for longer than a client of the load may wait.
func (p *probe) stop() (err error) {
	p.cancel()
	p.running.Wait()
	if p.node.refused != nil {
		err = fmt.Errorf("a good client was refused beside hostile ones: %w", p.node.refused)
	}
	for name, t := range map[string]*tally{"requests": &p.node, "queries": &p.query, "commands": &p.command} {
		if t.longest > p.within {
			err = errors.Join(err, fmt.Errorf(
				"no answer to %s of a good client for %v beside hostile ones; the last: %w",
				name, t.longest.Round(time.Millisecond), t.last))
		}
	}
	return err
}
