package failover

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

const (
	pause        = 100 * time.Millisecond // between the requests of a client
	renewEvery   = 8                      // requests
	deadline     = 10 * time.Second       // of an attempt
	titleID      = "GlowS01E01"
	againAfter   = 20 * time.Millisecond
	loadInFlight = 64
)

// load is the clients of a run.
type load struct {
	t       *testing.T
	started time.Time
	targets []licensedv1connect.LicenseServiceClient
	history licensedv1connect.HistoryServiceClient
	clients []*client

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
	expires time.Time         // as last told
}

// newLoad brings all customers to memory.
func newLoad(f *fleet) *load {
	f.t.Helper()
	l := &load{t: f.t, started: time.Now(), errors: map[string]int{}}
	for _, g := range f.gateways {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		h := &http.Client{Transport: transport}
		f.t.Cleanup(transport.CloseIdleConnections)
		l.targets = append(l.targets, licensedv1connect.NewLicenseServiceClient(h, g.url(8080), connect.WithGRPC()))
		l.history = licensedv1connect.NewHistoryServiceClient(h, g.url(8080), connect.WithGRPC())
	}
	for k := range *clients {
		l.clients = append(l.clients, &client{customer: fmt.Sprintf("client-%04d", k), told: map[string]uint64{}})
	}
	var next atomic.Int64
	var loading sync.WaitGroup
	for range loadInFlight {
		loading.Go(func() {
			for k := int(next.Add(1)) - 1; k < *residents+len(l.clients); k = int(next.Add(1)) - 1 {
				c := &client{customer: fmt.Sprintf("resident-%06d", k), told: map[string]uint64{}}
				if k < len(l.clients) {
					c = l.clients[k]
				}
				l.acquire(c)
			}
		})
	}
	loading.Wait()
	f.t.Logf("%d customers are in memory after %v", *residents+len(l.clients), time.Since(l.started).Round(time.Millisecond))
	return l
}

// acquire gives a customer its licence.
func (l *load) acquire(c *client) {
	l.ask(context.Background(), c, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
		r, err := to.AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: c.customer, DeviceId: "iphone", TitleId: titleID, CommandId: "first",
		}))
		if err == nil {
			c.told["first"], c.expires = r.Msg.Sequence, r.Msg.License.ExpiresAt.AsTime()
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
			time.Sleep(rand.N(pause))
			for k := 1; ctx.Err() == nil; k++ {
				if k%renewEvery == 0 {
					l.renew(context.WithoutCancel(ctx), c, fmt.Sprint("renewal-", k))
				} else {
					l.read(context.WithoutCancel(ctx), c)
				}
				time.Sleep(pause)
			}
		})
	}
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

func (l *load) renew(ctx context.Context, c *client, id string) {
	l.ask(ctx, c, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
		r, err := to.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: c.customer, DeviceId: "iphone", TitleId: titleID, CommandId: id,
		}))
		if err == nil {
			c.told[id], c.expires = r.Msg.Sequence, r.Msg.License.ExpiresAt.AsTime()
		}
		return err
	})
}

// read asks for the licences, which must show the last renewal.
func (l *load) read(ctx context.Context, c *client) {
	l.ask(ctx, c, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
		r, err := to.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: c.customer}))
		if err == nil && (len(r.Msg.Licenses) != 1 || r.Msg.Licenses[0].ExpiresAt.AsTime().Before(c.expires)) {
			l.t.Errorf("%s was told %v and reads %v", c.customer, c.expires, r.Msg.Licenses)
		}
		return err
	})
}

// ask sends a request until it is answered.
func (l *load) ask(ctx context.Context, c *client, send func(context.Context, licensedv1connect.LicenseServiceClient) error) {
	a := answer{began: time.Since(l.started)}
	for {
		a.attempts++
		attempt, cancel := context.WithTimeout(ctx, deadline)
		err := send(attempt, l.targets[rand.N(len(l.targets))])
		cancel()
		if err == nil {
			break
		}
		l.mu.Lock()
		l.errors[connect.CodeOf(err).String()+": "+shape(err.Error())]++
		l.mu.Unlock()
		time.Sleep(againAfter)
	}
	a.ended = time.Since(l.started)
	c.mu.Lock()
	c.answers = append(c.answers, a)
	c.mu.Unlock()
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

// failures returns how many attempts failed since the start, and why.
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
	for _, c := range l.clients {
		stream, err := l.history.ListEvents(context.Background(), connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: c.customer}))
		if err != nil {
			l.t.Errorf("%s: %v", c.customer, err)
			continue
		}
		last, recorded := uint64(0), map[string]uint64{}
		for stream.Receive() {
			for _, item := range stream.Msg().Items {
				e := item.GetEvent()
				if e == nil || e.Sequence != last+1 {
					l.t.Errorf("%s: %v after %d", c.customer, item, last)
				}
				if last = e.GetSequence(); e.GetCommandIndex()+1 == e.GetCommandCount() {
					if before, twice := recorded[e.CommandId]; twice {
						l.t.Errorf("%s: %s is recorded at %d and %d", c.customer, e.CommandId, before, e.Sequence)
					}
					recorded[e.CommandId] = e.Sequence
				}
			}
		}
		if err := stream.Err(); err != nil {
			l.t.Errorf("%s: %v", c.customer, err)
		}
		for id, sequence := range c.told {
			if recorded[id] != sequence {
				l.t.Errorf("%s: %s was acknowledged at %d and is recorded at %d", c.customer, id, sequence, recorded[id])
			}
		}
		commands += len(c.told)
	}
	l.t.Logf("%d acknowledged commands of %d customers are in the histories, once each, where they were said to be", commands, len(l.clients))
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
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, p99.9 %v, max %v (%d)", at(.5), at(.9), at(.99), at(.999), at(1), len(d))
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
