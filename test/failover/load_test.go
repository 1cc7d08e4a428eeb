package failover

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

const (
	pause        = 100 * time.Millisecond // between the requests of a client
	renewEvery   = 800 * time.Millisecond // fewer than the 1,024 commands in ten minutes that a customer has
	deadline     = 10 * time.Second       // of an attempt
	titleID      = "GlowS01E01"
	againAfter   = 20 * time.Millisecond
	loadInFlight = 64
)

// load is the clients of a run.
type load struct {
	t       *testing.T
	started time.Time
	pause   time.Duration // between the requests of a client
	targets []licensedv1connect.LicenseServiceClient
	history licensedv1connect.HistoryServiceClient
	clients []*client
	strays  []*client // further ones of the same customers, whose acknowledgements are verified too

	mu     sync.Mutex
	errors map[string]int // attempts that failed, by code and message

	stop    context.CancelFunc
	running sync.WaitGroup
}

// answer is one request that was answered. Times are since the start of the load.
type answer struct {
	began, ended time.Duration
	attempts     int
}

// client is one customer's.
type client struct {
	customer string

	mu      sync.Mutex
	answers []answer
	told    map[string]uint64 // sequence by acknowledged command id
	expires atomic.Int64      // as last told, Unix nanoseconds
}

func newClient(customer string) *client {
	return &client{customer: customer, told: map[string]uint64{}}
}

// newLoad brings all customers to memory, this many of which have a client.
func newLoad(f *fleet, clients int) *load {
	f.t.Helper()
	l := dial(f)
	for k := range clients {
		l.clients = append(l.clients, newClient(fmt.Sprintf("client-%04d", k)))
	}
	var next atomic.Int64
	var loading sync.WaitGroup
	for range loadInFlight {
		loading.Go(func() {
			for k := int(next.Add(1)) - 1; k < *residents+len(l.clients); k = int(next.Add(1)) - 1 {
				c := newClient(fmt.Sprintf("resident-%06d", k))
				if k < len(l.clients) {
					c = l.clients[k]
				}
				l.acquire(c)
			}
		})
	}
	loading.Wait()
	f.t.Logf("%d customers are in memory after %v",
		*residents+len(l.clients), time.Since(l.started).Round(time.Millisecond))
	return l
}

// dial returns a load without clients.
func dial(f *fleet) *load {
	l := &load{t: f.t, started: time.Now(), pause: pause, errors: map[string]int{}}
	for _, g := range f.gateways {
		h := harness.HTTP2(f.t)
		l.targets = append(l.targets, licensedv1connect.NewLicenseServiceClient(h, g.url(8080), connect.WithGRPC()))
		l.history = licensedv1connect.NewHistoryServiceClient(h, g.url(8080), connect.WithGRPC())
	}
	return l
}

// acquire gives a customer its licence.
func (l *load) acquire(c *client) {
	l.ask(context.Background(), c,
		l.targets, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
			r, err := to.AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
				CustomerId: c.customer, DeviceId: "iphone", TitleId: titleID, CommandId: "first",
			}))
			if err == nil {
				c.told["first"] = r.Msg.Sequence
				c.expires.Store(r.Msg.License.ExpiresAt.AsTime().UnixNano())
			}
			return err
		})
}

// run starts the clients; end stops them and waits.
func (l *load) run() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, c := range l.clients {
		l.running.Go(func() {
			time.Sleep(rand.N(l.pause))
			renewed := time.Now().Add(-rand.N(renewEvery))
			for k := 1; ctx.Err() == nil; k++ {
				if time.Since(renewed) >= renewEvery {
					renewed = time.Now()
					l.renew(context.WithoutCancel(ctx), c, l.targets, fmt.Sprint("renewal-", k))
				} else {
					l.read(context.WithoutCancel(ctx), c, l.targets)
				}
				time.Sleep(l.pause)
			}
		})
	}
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

type targets = []licensedv1connect.LicenseServiceClient

func (l *load) renew(ctx context.Context, c *client, to targets, id string) {
	l.ask(ctx, c, to, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
		sequence, expires, err := renew(ctx, to, c.customer, id)
		if err == nil {
			c.told[id] = sequence
			c.expires.Store(expires)
		}
		return err
	})
}

func renew(
	ctx context.Context, to licensedv1connect.LicenseServiceClient, customer, id string,
) (sequence uint64, expires int64, err error) {
	r, err := to.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: titleID, CommandId: id,
	}))
	if err != nil {
		return 0, 0, err
	}
	return r.Msg.Sequence, r.Msg.License.ExpiresAt.AsTime().UnixNano(), nil
}

// read asks for the licences, which must show the last renewal.
func (l *load) read(ctx context.Context, c *client, to targets) {
	l.ask(ctx, c, to, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
		shown, err := read(ctx, to, c.customer)
		if told := c.expires.Load(); err == nil && shown < told {
			l.t.Errorf("%s was told that its licence ends at %v and reads %v",
				c.customer, time.Unix(0, told), time.Unix(0, shown))
		}
		return err
	})
}

// read returns when the customer's licence ends, in Unix nanoseconds; 0 if it has none.
func read(ctx context.Context, to licensedv1connect.LicenseServiceClient, customer string) (expires int64, err error) {
	r, err := to.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer}))
	if err != nil || len(r.Msg.Licenses) != 1 {
		return 0, err
	}
	return r.Msg.Licenses[0].ExpiresAt.AsTime().UnixNano(), nil
}

// ask sends a request until it is answered.
func (l *load) ask(
	ctx context.Context, c *client, to targets,
	send func(context.Context, licensedv1connect.LicenseServiceClient) error,
) {
	a := l.insist(ctx, to, send)
	c.mu.Lock()
	c.answers = append(c.answers, a)
	c.mu.Unlock()
}

// insist sends a request until it is answered, each time to any of the targets.
func (l *load) insist(
	ctx context.Context, to targets, send func(context.Context, licensedv1connect.LicenseServiceClient) error,
) answer {
	a := answer{began: time.Since(l.started)}
	for {
		a.attempts++
		attempt, cancel := context.WithTimeout(ctx, deadline)
		err := send(attempt, to[rand.N(len(to))])
		cancel()
		if err == nil {
			a.ended = time.Since(l.started)
			return a
		}
		l.mu.Lock()
		l.errors[connect.CodeOf(err).String()+": "+shape(err.Error())]++
		l.mu.Unlock()
		time.Sleep(againAfter)
	}
}

// shape makes errors that differ in ids and numbers only alike.
func shape(message string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '#'
		}
		return r
	}, message)
}

// now is the time of the load.
func (l *load) now() time.Duration { return time.Since(l.started) }

// failures returns the number of attempts that failed since the start, and why.
func (l *load) failures() (n int, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for message, times := range l.errors {
		n += times
		lines = append(lines, fmt.Sprintf("%6d × %s", times, message))
	}
	slices.Sort(lines)
	return n, strings.Join(lines, "\n")
}

// served waits until each of the customers was answered a request that began after that time.
func (l *load) served(after time.Duration, of func(string) bool) {
	l.t.Helper()
	for _, c := range l.clients {
		for give := time.Now().Add(time.Minute); of(c.customer); time.Sleep(10 * time.Millisecond) {
			c.mu.Lock()
			ok := len(c.answers) > 0 && c.answers[len(c.answers)-1].began > after
			c.mu.Unlock()
			if ok {
				break
			}
			if time.Now().After(give) {
				l.t.Fatalf("%s is not served", c.customer)
			}
		}
	}
}

// gaps returns the longest time without success of each of the customers between two moments.
func (l *load) gaps(from, to time.Duration, of func(string) bool) (gaps []time.Duration) {
	for _, c := range l.clients {
		if !of(c.customer) {
			continue
		}
		var longest, last time.Duration
		c.mu.Lock()
		for _, a := range c.answers {
			if last > 0 && a.ended > from && last < to {
				longest = max(longest, a.ended-last)
			}
			last = a.ended
		}
		c.mu.Unlock()
		gaps = append(gaps, longest)
	}
	return gaps
}

// latencies returns those of the requests of some customers that began and ended between two moments.
func (l *load) latencies(from, to time.Duration, of func(string) bool) (all []time.Duration) {
	for _, c := range l.clients {
		if !of(c.customer) {
			continue
		}
		c.mu.Lock()
		for _, a := range c.answers {
			if a.began >= from && a.ended < to {
				all = append(all, a.ended-a.began)
			}
		}
		c.mu.Unlock()
	}
	return all
}

// verify compares what was acknowledged with the histories.
func (l *load) verify() {
	l.t.Helper()
	commands := 0
	for _, c := range slices.Concat(l.clients, l.strays) {
		l.compare(c.customer, c.told)
		commands += len(c.told)
	}
	l.t.Logf("%d acknowledged commands of %d customers are in the histories, once each, where they were said to be",
		commands, len(l.clients))
}

// compare compares what was acknowledged to a customer, by command id, with its history.
func (l *load) compare(customer string, told map[string]uint64) {
	stream, err := l.history.ListEvents(context.Background(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: customer}))
	if err != nil {
		l.t.Errorf("%s: %v", customer, err)
		return
	}
	defer stream.Close()
	last, recorded := uint64(0), map[string]uint64{}
	for stream.Receive() {
		for _, item := range stream.Msg().Items {
			e := item.GetEvent()
			if e == nil || e.Sequence != last+1 {
				l.t.Errorf("%s: %v after %d", customer, item, last)
			}
			if last = e.GetSequence(); e.GetCommandIndex()+1 == e.GetCommandCount() {
				if before, twice := recorded[e.CommandId]; twice {
					l.t.Errorf("%s: %s is recorded at %d and %d", customer, e.CommandId, before, e.Sequence)
				}
				recorded[e.CommandId] = e.Sequence
			}
		}
	}
	if err := stream.Err(); err != nil {
		l.t.Errorf("%s: %v", customer, err)
	}
	for id, sequence := range told {
		if recorded[id] != sequence {
			l.t.Errorf("%s: %s was acknowledged at %d and is recorded at %d", customer, id, sequence, recorded[id])
		}
	}
}

// spread describes a distribution.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "nothing"
	}
	d = slices.Clone(d)
	slices.Sort(d)
	at := func(q float64) time.Duration {
		return d[min(len(d)-1, int(q*float64(len(d))))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, p99.9 %v, max %v (%d)",
		at(.5), at(.9), at(.99), at(.999), at(1), len(d))
}

// quantile of a distribution.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}
