package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

var (
	kills = flag.Int("kills", 20, "how often TestKillUnderLoad kills the daemon")
	seed  = flag.Uint64("seed", 1, "of the choices that TestKillUnderLoad makes")
)

// TestKillUnderLoad kills the daemon with -9 again and again while clients send commands, some twice,
// some at the same time. After each start every command with an unknown outcome is sent again with
// its id, and so are many that were answered. In the end:
//
//   - every command that was answered is in the history, once, at the sequence that was answered;
//   - all answers that one id ever got are the same, but for the mark that they are repeats;
//   - nothing else is in the history.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	arguments := []string{
		"--policy", "testdata/policy.yaml", "--log-level", "warn",
		// Often, so that the kills meet snapshots, passivations and recoveries.
		"--snapshot-every", "7", "--passivate-after", "20ms",
	}
	l := newLoad()
	if testing.Short() {
		*kills = min(*kills, 4)
	}
	for round := range *kills {
		d := start(t, data, arguments...)
		l.resolve(t, d)
		enough := int64(50 + l.random.IntN(1500))
		acknowledged := l.run(t, d, enough)
		if acknowledged < enough {
			t.Fatalf("round %d: %d acknowledged before the kill, want at least %d", round, acknowledged, enough)
		}
		if t.Failed() {
			t.Fatalf("round %d, seed %d", round, *seed)
		}
	}
	d := start(t, data, arguments...)
	l.resolve(t, d)
	if code := d.Stop(); code != 0 {
		t.Fatalf("exit code %d after SIGTERM", code)
	}
	l.compareWithHistory(t, openStore(t, data))
	t.Logf("%d kills, %d commands, %d had an unknown outcome, %d were refused",
		*kills, len(l.commands), l.unknown, l.refused())
}

const (
	customers = 150
	workers   = 16
)

// load is what the clients did, over all lives of the daemon.
type load struct {
	random *rand.Rand

	mu       sync.Mutex
	commands []*command
	unknown  int
}

func newLoad() *load { return &load{random: rand.New(rand.NewPCG(*seed, 0))} }

// command is one command and the answers that it got.
type command struct {
	customer, id string
	send         func(context.Context, licensedv1connect.LicenseServiceClient) (proto.Message, error)

	mu    sync.Mutex
	first *answer // the first that was not an error about reaching the service
	fresh int     // answers that were not marked as repeats
}

// answer is an outcome: a reply, or a refusal with its code.
type answer struct {
	message   proto.Message // without the mark of a repeat
	code      connect.Code
	sequence  uint64
	duplicate bool
}

func (a *answer) equal(b *answer) bool {
	return a.code == b.code && a.sequence == b.sequence && proto.Equal(a.message, b.message)
}

func (a *answer) String() string {
	if a.code == 0 {
		return fmt.Sprint(a.message)
	}
	return fmt.Sprintf("%v: %v", a.code, a.message)
}

// choose makes the next command.
func (l *load) choose() *command {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &command{
		customer: fmt.Sprintf("customer-%03d", l.random.IntN(customers)),
		id:       fmt.Sprintf("command-%06d", len(l.commands)),
	}
	device := fmt.Sprintf("device-%d", min(l.random.IntN(3), l.random.IntN(3)))
	title := fmt.Sprintf("title-%02d", l.random.IntN(20))
	l.commands = append(l.commands, c)
	switch n := l.random.IntN(100); {
	case n < 70:
		c.send = sender(licensedv1connect.LicenseServiceClient.AcquireLicense, &licensedv1.AcquireLicenseRequest{
			CustomerId: c.customer, DeviceId: device, TitleId: title, CommandId: c.id, NewDownload: n%2 == 0,
		})
	case n < 80:
		c.send = sender(licensedv1connect.LicenseServiceClient.ReleaseLicense, &licensedv1.ReleaseLicenseRequest{
			CustomerId: c.customer, DeviceId: device, TitleId: title, CommandId: c.id,
		})
	case n < 90:
		c.send = sender(licensedv1connect.LicenseServiceClient.RenewLicense, &licensedv1.RenewLicenseRequest{
			CustomerId: c.customer, DeviceId: device, TitleId: title, CommandId: c.id,
		})
	case n < 97:
		c.send = sender(licensedv1connect.LicenseServiceClient.RecordPlayback, &licensedv1.RecordPlaybackRequest{
			CustomerId: c.customer, DeviceId: device, TitleId: title, CommandId: c.id,
		})
	case n < 99:
		c.send = sender(licensedv1connect.LicenseServiceClient.ChangePlan, &licensedv1.ChangePlanRequest{
			CustomerId: c.customer, PlanId: []string{"standard", "premium"}[n%2], CommandId: c.id,
		})
	default:
		c.send = sender(licensedv1connect.LicenseServiceClient.DeactivateDevice, &licensedv1.DeactivateDeviceRequest{
			CustomerId: c.customer, DeviceId: device, CommandId: c.id,
		})
	}
	return c
}

// sender returns a function that makes the call of a method with that request.
func sender[Q, A any, P interface {
	*A
	proto.Message
}](
	method func(
		licensedv1connect.LicenseServiceClient, context.Context, *connect.Request[Q],
	) (*connect.Response[A], error),
	request *Q,
) func(context.Context, licensedv1connect.LicenseServiceClient) (proto.Message, error) {
	return func(ctx context.Context, client licensedv1connect.LicenseServiceClient) (proto.Message, error) {
		res, err := method(client, ctx, connect.NewRequest(request))
		if err != nil {
			return nil, err
		}
		return P(res.Msg), nil
	}
}

// ask sends a command and notes the answer; false if the outcome is not known now.
func (c *command) ask(t *testing.T, client licensedv1connect.LicenseServiceClient) bool {
	message, err := c.send(t.Context(), client)
	a := outcome(message, err)
	if a == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.duplicate {
		c.fresh++
	}
	switch {
	case c.first == nil:
		c.first = a
	case !c.first.equal(a):
		t.Errorf("%s of %s was answered\n%v\nand before\n%v", c.id, c.customer, a, c.first)
	}
	if c.fresh > 1 {
		t.Errorf("%s of %s was executed %d times", c.id, c.customer, c.fresh)
	}
	return true
}

// detail returns the detail of type M that an error of the API carries, or nil.
func detail[M proto.Message](err error) (m M) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return m
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if m, ok := v.(M); ok {
				return m
			}
		}
	}
	return m
}

// outcome returns the outcome that a reply or error tells, nil if it tells none.
func outcome(message proto.Message, err error) *answer {
	code := connect.Code(0)
	if err != nil {
		r := detail[*licensedv1.Refusal](err)
		if r == nil {
			return nil
		}
		message, code = r, connect.CodeOf(err)
	}
	message = known(message)
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName("duplicate")
	a := &answer{
		message: message, code: code, duplicate: m.Get(field).Bool(),
		sequence: m.Get(m.Descriptor().Fields().ByName("sequence")).Uint(),
	}
	m.Clear(field)
	return a
}

// known returns a message without what only another release knows the meaning of.
func known(m proto.Message) proto.Message {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // It was received.
	}
	out := m.ProtoReflect().New().Interface()
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, out); err != nil {
		panic(err)
	}
	return out
}

// run sends commands until that many were acknowledged, then kills the daemon while they continue, and
// returns the number acknowledged.
func (l *load) run(t *testing.T, d *daemon, enough int64) int64 {
	var acknowledged atomic.Int64
	reached := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	clients := d.clients()
	for w := range workers {
		wg.Go(func() {
			for i := w; ; i++ {
				c := l.choose()
				if i%10 == 0 { // At the same time, by another way.
					wg.Go(func() { c.ask(t, clients[(i+1)%len(clients)]) })
				}
				if c.ask(t, clients[i%len(clients)]) && acknowledged.Add(1) >= enough {
					once.Do(func() { close(reached) })
				}
				select {
				case <-d.Exited:
					return
				default:
				}
			}
		})
	}
	select {
	case <-reached:
	case <-d.Exited:
		t.Errorf("the daemon ended by itself: %v", d.Cmd.ProcessState)
	}
	d.Kill()
	wg.Wait()
	return acknowledged.Load()
}

// resolve sends every command with an unknown outcome again until it is known, and many of the others.
func (l *load) resolve(t *testing.T, d *daemon) {
	clients := d.clients()
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers)
	again := func(c *command, client licensedv1connect.LicenseServiceClient) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for !c.ask(t, client) {
				select {
				case <-d.Exited:
					t.Errorf("the daemon ended by itself: %v", d.Cmd.ProcessState)
					return
				case <-time.After(20 * time.Millisecond): // A rate limit, perhaps.
				}
			}
		})
	}
	for i, c := range l.commands {
		if c.first == nil {
			l.unknown++
			again(c, clients[i%len(clients)])
		} else if recent := len(l.commands) - i; recent < 500 || l.random.IntN(20) == 0 {
			again(c, clients[(i+1)%len(clients)])
		}
	}
	wg.Wait()
}

func (l *load) refused() (n int) {
	for _, c := range l.commands {
		if c.first.code != 0 {
			n++
		}
	}
	return n
}
