// Package hostile has clients that misuse the API: they ask for much and read nothing, begin requests that they never
// finish, or open whatever is limited until nothing is left. Tests and the chaos tool run them beside good clients, to
// show that only they are refused.
//
// An [Attack] says what a client does. [Attack.Start] does it once and holds what it got until it is stopped;
// [Attack.Run] does so again and again. All of them write requests byte by byte, since no library leaves one
// unfinished on purpose, and take little memory themselves.
package hostile

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Target is whom to attack.
type Target struct {
	// Address of the API, HOST:PORT.
	Address string
	// From is the address to connect from, which limits by address go by; nil for any.
	From net.IP
	// Dial, if it is set, makes the connections in place of the machine's own network, and From is not used.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is for an encrypted API; nil if it is not.
	TLS *tls.Config
	// Token is the bearer token of each request; empty for none.
	Token string
}

// Attack is what a hostile client does.
type Attack struct {
	// Name of the attack, for people.
	Name string
	// Connections to open, and requests to begin on each, over HTTP/2. With HTTP1 there is one request on each.
	Connections, Streams int
	HTTP1                bool
	// Path and ContentType of each request; an empty path begins none: the connections are idle.
	Path, ContentType string
	// Body is what is sent of the body, and Declared how many bytes it is said to have; more than are sent is a request
	// that is never finished.
	Body     []byte
	Declared int
	// Deaf clients read nothing at all. Others read the beginning of each reply, and leave the rest unread.
	Deaf bool
}

const (
	admin    = "/licensed.v1.AdminService/"
	history  = "/licensed.v1.HistoryService/"
	licenses = "/licensed.v1.LicenseService/"
)

const jsonType = "application/json"

// UnreadLists asks for the longest lists of customers, and reads none.
func UnreadLists() Attack {
	return complete("unread lists", 4, 1000, admin+"ListCustomers", jsonType, []byte(`{"limit":10000}`))
}

// UnreadLicenses asks for all licences of a customer, and reads none.
func UnreadLicenses(customer string) Attack {
	return complete("unread licences", 4, 1000, licenses+"ListLicenses", jsonType,
		fmt.Appendf(nil, `{"customerId":%q,"includeInactive":true}`, customer))
}

// UnfinishedImports sends the greater part of the largest imports, and never the rest.
func UnfinishedImports() Attack {
	const size = 4 << 20
	return Attack{
		Name: "unfinished imports", Connections: 300, Streams: 1, HTTP1: true, Path: admin + "ImportCustomer",
		ContentType: "application/proto",
		Body:        make([]byte, size-1), Declared: size,
	}
}

// UnfinishedCommands begins commands, and never ends them.
func UnfinishedCommands() Attack {
	return unfinished("unfinished commands", 11, licenses+"AcquireLicense")
}

// UnfinishedOperators does so with requests that only operators make.
func UnfinishedOperators() Attack {
	return unfinished("unfinished requests of operators", 13, admin+"GetNode")
}

// AllStreams follows a customer with as many streams as there are, from one connection.
func AllStreams(customer string) Attack {
	message := fmt.Appendf(nil, `{"customerId":%q}`, customer)
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return complete("all streams", 1, 1200, history+"Follow", "application/connect+json", append(body, message...))
}

// IdleConnections opens connections, and begins no request.
func IdleConnections(n int) Attack { return Attack{Name: "idle connections", Connections: n} }

// All returns every attack, with a customer that exists.
func All(customer string) []Attack {
	return []Attack{
		UnreadLists(), UnreadLicenses(customer), UnfinishedImports(), UnfinishedCommands(), UnfinishedOperators(),
		AllStreams(customer),
		IdleConnections(90),
	}
}

func complete(name string, connections, streams int, path, contentType string, body []byte) Attack {
	return Attack{
		Name: name, Connections: connections, Streams: streams, Path: path, ContentType: contentType, Body: body,
		Declared: len(body),
	}
}

func unfinished(name string, connections int, path string) Attack {
	return Attack{Name: name, Connections: connections, Streams: 1000, Path: path, ContentType: jsonType,
		Body: []byte("{"), Declared: 1 << 10}
}

// Counts say what came of an attack so far.
type Counts struct {
	// Connections that were made, and those that the server closed, some as soon as they were made.
	Connections, Closed int64
	// Streams that were begun; Refused were answered with RESOURCE_EXHAUSTED or reset, Accepted in another way.
	Streams, Refused, Accepted int64
}

// Running is an attack in progress. Safe for concurrent use.
type Running struct {
	attack                                         Attack
	to                                             Target
	connections, closed, streams, refused, accepts atomic.Int64
	readers                                        sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// Start makes the connections and begins the requests, those of all connections at the same time. It returns when all
// is sent that the server takes, and holds it until Stop. Connections and streams that the server ends are no errors.
func (a Attack) Start(ctx context.Context, to Target) (*Running, error) {
	r := &Running{attack: a, to: to}
	var (
		failed error
		all    sync.WaitGroup
	)
	for range a.Connections {
		all.Go(func() {
			conn, err := to.dial(ctx)
			r.mu.Lock()
			if err != nil {
				failed = errors.Join(failed, err)
				r.closed.Add(1)
			} else {
				r.conns = append(r.conns, conn)
			}
			r.mu.Unlock()
			if err == nil {
				r.connections.Add(1)
				r.use(ctx, conn)
			}
		})
	}
	all.Wait()
	if len(r.conns) == 0 {
		return nil, fmt.Errorf("%s: %w", a.Name, failed)
	}
	return r, nil
}

// Run attacks until ctx ends: each time it holds what it got for so long, then gives it back and starts anew. It
// returns the sum of what came of it.
func (a Attack) Run(ctx context.Context, to Target, hold time.Duration) (sum Counts) {
	for ctx.Err() == nil {
		r, err := a.Start(ctx, to)
		if err == nil {
			Wait(ctx, hold)
			sum.add(r.Stop())
			continue
		}
		Wait(ctx, min(hold, time.Second)) // The server may be down.
	}
	return sum
}

// Wait waits for a time, or until ctx ends.
func Wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *Counts) add(o Counts) {
	c.Connections += o.Connections
	c.Closed += o.Closed
	c.Streams += o.Streams
	c.Refused += o.Refused
	c.Accepted += o.Accepted
}

// Counts returns what came of the attack so far.
func (r *Running) Counts() Counts {
	return Counts{
		Connections: r.connections.Load(), Closed: r.closed.Load(), Streams: r.streams.Load(),
		Refused: r.refused.Load(), Accepted: r.accepts.Load(),
	}
}

// Stop closes all connections.
func (r *Running) Stop() Counts {
	counts := r.Counts()
	for _, c := range r.conns {
		_ = c.Close() // It may be closed by the server.
	}
	r.readers.Wait()
	return counts
}

// host returns what requests say whom they are for.
func (to Target) host() string {
	host, _, err := net.SplitHostPort(to.Address)
	if err != nil {
		return to.Address
	}
	return host
}

func (to Target) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := to.Dial
	if dial == nil {
		d := &net.Dialer{}
		if to.From != nil {
			d.LocalAddr = &net.TCPAddr{IP: to.From}
		}
		dial = d.DialContext
	}
	conn, err := dial(ctx, "tcp", to.Address)
	if err != nil || to.TLS == nil {
		return conn, err
	}
	config := to.TLS.Clone()
	if len(config.NextProtos) == 0 {
		config.NextProtos = []string{http2.NextProtoTLS}
	}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(to.Address)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

const (
	dialTimeout = 5 * time.Second
	// stalled is the time the server may take nothing before an attack is content with what it sent.
	stalled = time.Second
	// piece is how much of a body is sent at once.
	piece = 16 << 10
	// window is how much of each reply over HTTP/2 is read: enough for an error.
	window = 1 << 10
)
