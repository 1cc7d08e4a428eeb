package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// words is a codec of strings.
type words struct{}

func (words) Marshal(v any) (string, []byte, error) {
	if s, ok := v.(string); ok {
		return "string", []byte(s), nil
	}
	return "", nil, fmt.Errorf("%T is no string", v)
}

func (words) Unmarshal(name string, data []byte) (any, error) {
	if name != "string" {
		return nil, fmt.Errorf("type %q is not known", name)
	}
	return string(data), nil
}

func (w words) UnmarshalRequest(name string, data []byte) (any, error) {
	return w.Unmarshal(name, data)
}

// echo answers with what it is asked, or does what a test says.
type echo struct {
	execute func(ctx context.Context, id string, c actors.Command) (actors.Reply, error)
	query   func(ctx context.Context, id string, query any) (actors.Answer, error)
	operate func(ctx context.Context, id string, request any) (actors.Answer, error)
}

func (e *echo) Execute(ctx context.Context, _, id string, c actors.Command) (actors.Reply, error) {
	if e.execute != nil {
		return e.execute(ctx, id, c)
	}
	return actors.Reply{Outcome: []byte(id + " " + c.Payload.(string)), Sequence: 1}, nil
}

func (e *echo) Query(ctx context.Context, _, id string, query any) (actors.Answer, error) {
	if e.query != nil {
		return e.query(ctx, id, query)
	}
	return actors.Answer{Value: query}, nil
}

func (e *echo) Operate(ctx context.Context, _, id string, request any) (actors.Answer, error) {
	return e.operate(ctx, id, request)
}

func (*echo) Status(context.Context) (*clusterv1.StatusResponse, error) {
	return &clusterv1.StatusResponse{Name: "echo"}, nil
}

func (*echo) Drain(context.Context) error { return errors.New("it stays") }

func (*echo) Undrain(context.Context) error { return nil }

// journal keeps what a transport observes.
type journal struct {
	mu   sync.Mutex
	said []string
}

func (j *journal) say(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.said = append(j.said, fmt.Sprintf(format, args...))
}

func (j *journal) count(part string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.said {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

func (j *journal) listener() Listener {
	return Listener{
		Connected:    func(a string, _ time.Duration, err error) { j.say("connected %v", err) },
		Disconnected: func(a string, cause error) { j.say("disconnected %v", cause) },
		Rejected:     func(reason string) { j.say("rejected %s", reason) },
	}
}

// process is a transport with what it was made of.
type process struct {
	*Transport
	journal *journal
	handler *echo
}

func start(t testing.TB, change func(*Config)) *process {
	t.Helper()
	p, err := tryStart(t, change)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// startAt starts a process at an address that was another's, as soon as nobody else on the machine has it: any
// connection may, for a while.
func startAt(t testing.TB, address string) *process {
	t.Helper()
	for {
		p, err := tryStart(t, func(c *Config) { c.Bind = address })
		if err == nil {
			return p
		}
		if !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func tryStart(t testing.TB, change func(*Config)) (*process, error) {
	p := &process{journal: &journal{}, handler: &echo{}}
	c := DefaultConfig()
	c.Cluster, c.Bind, c.Handler, c.Codec = "test", "127.0.0.1:0", p.handler, words{}
	c.Listener, c.Log = p.journal.listener(), slog.New(slog.DiscardHandler)
	c.DialTimeout = 10 * time.Second // for busy machines
	if change != nil {
		change(&c)
	}
	var err error
	if p.Transport, err = Start(c); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p, nil
}

// tickBy has the time in which peers may be silent advance by the channel that it returns. No connection exists
// yet.
func (p *process) tickBy() chan<- time.Time {
	c := make(chan time.Time)
	p.tick = func(time.Duration) (<-chan time.Time, func()) { return c, func() {} }
	return c
}

func (p *process) execute(ctx context.Context, to, what string) (string, error) {
	r, err := p.Execute(ctx, to, "Kind", "id", actors.Command{ID: "1", Payload: what})
	return string(r.Outcome), err
}

// works fails the test unless requests to an address are answered.
func (p *process) works(t *testing.T, to string) {
	t.Helper()
	if got, err := p.execute(t.Context(), to, "hello"); got != "id hello" || err != nil {
		t.Fatalf("answer %q, %v", got, err)
	}
}

// until waits for a condition; the test's own deadline is the only limit.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for !f() {
		select {
		case <-t.Context().Done():
			t.Fatalf("no %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func member(name, address string) membership.Member {
	return membership.Member{Name: name, Meta: &clusterv1.Meta{NodeAddress: address}}
}

// proxy passes connections on to an address, until it is told to hold back all that it gets.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	held  chan struct{} // nil: it passes on
	conns []net.Conn
}

func startProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	t.Cleanup(func() { l.Close(); p.pass(); p.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go p.copy(in, out)
			go p.copy(out, in)
		}
	}()
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hold makes the proxy keep all that it gets from now on, with open connections.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// pass ends hold.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// hangs has the process execute each command until it is given up, and say when it has begun one.
func (p *process) hangs() (started <-chan struct{}) {
	begun := make(chan struct{}, 100)
	p.handler.execute = func(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return actors.Reply{}, ctx.Err()
	}
	return begun
}
