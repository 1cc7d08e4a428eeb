package outage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/client"
)

// Gateway is a gateway by its URLs.
type Gateway struct{ API, Admin string }

// Site is what the store is taken away from.
type Site struct {
	Gateways []Gateway
	// StoreAway and StoreBack take the store away, and bring it back.
	StoreAway, StoreBack func(ctx context.Context) error
	// Kill kills a gateway at once. Revive starts it again; it may wait for the store.
	Kill, Revive func(ctx context.Context, gateway int) error
}

// Config of a run.
type Config struct {
	// Customers with a licence each.
	Customers int
	// Rate of requests per second.
	Rate float64
	// WarmUp is the time with load before the store goes, Length the time that it is unavailable.
	WarmUp, Length time.Duration
	// Settle is the time within which all must be settled after the store is back. Within is the time within which
	// renewals and releases are to be answered, and Share the share of them that must be.
	Settle, Within time.Duration
	Share          float64
	// KillEvery is the time between kills of gateways while the store is unavailable; 0 for none.
	KillEvery time.Duration
	// Seed of all choices. It is in the ids of customers.
	Seed uint64
	Log  *slog.Logger
}

// Policy is that of the service.
const Policy = `
version: outage
default_plan: standard
licence_days: 30
provisional_renewals: 4
plans:
  standard: {devices: 2}
studios:
  some: {downloads: 5}
titles:
  Renewed: {studio: some}
  Another: {studio: some, yearly_limit: 3}
`

const (
	device = "phone"
	// patience is the time in which a client tries one request again, at the gateways in turn.
	patience = 5 * time.Second
	// attempt is the time that a client gives one gateway.
	attempt = 2 * time.Second
	// hands is the number of requests at the same time where they are not the load.
	hands = 192
	// maxInFlight bounds the requests of the load; beyond it a request counts as unanswered.
	maxInFlight = 5000
)

// Kinds of requests, by weight in the load: a third can be deferred.
const (
	renew   = "renew"
	release = "release"
	facts   = "sync"
	acquire = "acquire"
	ask     = "ask"
)

var weights = []struct {
	kind   string
	weight int
}{{renew, 20}, {release, 10}, {facts, 5}, {acquire, 20}, {ask, 45}}

// customer is one of them.
type customer struct {
	mu     sync.Mutex
	token  string
	number int // of commands, for their ids
	// acknowledged is the highest sequence of an answer that was not provisional.
	acknowledged uint64
	commands     []command
}

// command is one that was sent.
type command struct {
	id string
	// answered says that it was accepted, executed or refused; otherwise its outcome is unknown.
	answered bool
}

type run struct {
	Config
	site      Site
	clients   []*client.Client
	customers []*customer
	report    *Report
	random    *rand.Rand

	judging  atomic.Bool // the store is unavailable
	inFlight atomic.Int64
	wg       sync.WaitGroup
	// next customer of each kind.
	renewed, released, synced int
}

// Run takes the store away and returns what it saw. Errors say that there is nothing to judge.
func Run(ctx context.Context, c Config, site Site) (*Report, error) {
	r := &run{Config: c, site: site, report: newReport(&c), random: rand.New(rand.NewPCG(c.Seed, 1))}
	for _, g := range site.Gateways {
		one, err := client.New(g.API)
		if err != nil {
			return nil, err
		}
		defer one.Close()
		r.clients = append(r.clients, one)
	}
	for range c.Customers {
		r.customers = append(r.customers, new(customer))
	}
	started := time.Now()
	if err := r.acquireAll(ctx); err != nil {
		return nil, err
	}
	c.Log.Info("licences acquired", "customers", c.Customers, "took", time.Since(started).Round(time.Second))
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan struct{})
	go func() { defer close(loaded); r.load(loading) }()
	err := r.outage(ctx)
	stop()
	<-loaded
	r.wg.Wait()
	if err != nil {
		return nil, err
	}
	c.Log.Info("checking every customer")
	r.check(ctx)
	r.report.finish()
	return r.report, ctx.Err()
}

// id of a customer.
func (r *run) id(i int) string { return fmt.Sprintf("outage-%d-%d", r.Seed, i) }

// each calls f for each customer, of many at the same time.
func (r *run) each(ctx context.Context, f func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, hands)
	for h := range hands {
		wg.Go(func() {
			for ctx.Err() == nil && errs[h] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(r.customers) {
					return
				}
				errs[h] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// acquireAll gives each customer a licence.
func (r *run) acquireAll(ctx context.Context) error {
	return r.each(ctx, func(i int) error {
		for tries := 0; ; tries++ {
			res, err := r.clients[(i+tries)%len(r.clients)].AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
				CustomerId: r.id(i), DeviceId: device, TitleId: "Renewed", CommandId: "first", Signed: true,
			})
			if err == nil {
				r.customers[i].token, r.customers[i].acknowledged = res.SignedLicense, res.Sequence
				return nil
			}
			if tries == 100 || ctx.Err() != nil {
				return fmt.Errorf("acquire a licence for %s: %w", r.id(i), err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// outage is what happens to the store and the gateways.
func (r *run) outage(ctx context.Context) error {
	if err := pause(ctx, r.WarmUp); err != nil {
		return err
	}
	r.report.load("before the outage")
	r.report.begin()
	r.judging.Store(true)
	r.Log.Info("taking the store away", "for", r.Length)
	if err := r.site.StoreAway(ctx); err != nil {
		return err
	}
	killing, stop := context.WithCancel(ctx)
	defer stop()
	var revived sync.WaitGroup
	if r.KillEvery > 0 {
		revived.Go(func() { r.kill(ctx, killing, &revived) })
	}
	if err := pause(ctx, r.Length); err != nil {
		return err
	}
	stop()
	r.judging.Store(false)
	r.report.Deferred, _ = r.waiting(ctx)
	r.report.load("at the end of the outage")
	r.Log.Info("bringing the store back", "deferred", r.report.Deferred)
	if err := r.site.StoreBack(ctx); err != nil {
		return err
	}
	back := time.Now()
	revived.Wait()
	for {
		left, err := r.waiting(ctx)
		if err == nil && left == 0 {
			break
		}
		if time.Since(back) > 10*r.Settle {
			r.report.fail("%d commands are still deferred %v after the store is back (%v)", left, 10*r.Settle, err)
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	r.report.Settled = time.Since(back).Round(10 * time.Millisecond)
	if r.report.Settled > r.Settle {
		r.report.fail("all was settled %v after the store was back, want %v", r.report.Settled, r.Settle)
	}
	r.report.load("after settling")
	return nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// kill kills a gateway each time, but for the last that runs, and starts it again.
func (r *run) kill(ctx, killing context.Context, revived *sync.WaitGroup) {
	var down sync.Map
	for i := 0; pause(killing, r.KillEvery) == nil; i++ {
		g := i % len(r.site.Gateways)
		running := 0
		for other := range r.site.Gateways {
			if _, dead := down.Load(other); !dead {
				running++
			}
		}
		if _, dead := down.Load(g); dead || running < 2 {
			continue
		}
		down.Store(g, true)
		if err := r.site.Kill(ctx, g); err != nil {
			r.report.fail("kill gateway %d: %v", g+1, err)
			return
		}
		r.report.Kills++
		r.Log.Info("gateway killed", "gateway", g+1)
		revived.Go(func() {
			if err := r.site.Revive(ctx, g); err != nil {
				r.report.fail("start gateway %d again: %v", g+1, err)
			}
			down.Delete(g)
		})
	}
}

var deferredCommands = regexp.MustCompile(`(?m)^licensed_gateway_deferred_commands (\d+)$`)

// waiting returns the number of commands in the journals of all gateways that answer; an error if one does not.
func (r *run) waiting(ctx context.Context) (sum int, failed error) {
	for _, g := range r.site.Gateways {
		n, err := waitingAt(ctx, g.Admin)
		sum, failed = sum+n, errors.Join(failed, err)
	}
	return sum, failed
}

func waitingAt(ctx context.Context, admin string) (int, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	found := deferredCommands.FindSubmatch(body)
	if found == nil {
		return 0, fmt.Errorf("%s has no fallbacks", admin)
	}
	return strconv.Atoi(string(found[1]))
}

// load sends requests at the rate until ctx ends.
func (r *run) load(ctx context.Context) {
	started := time.Now()
	for n := 0; ; n++ {
		due := started.Add(time.Duration(float64(n) / r.Rate * float64(time.Second)))
		if pause(ctx, time.Until(due)) != nil {
			return
		}
		kind, i := r.choose()
		gateway := r.random.IntN(len(r.clients))
		if r.inFlight.Load() >= maxInFlight {
			r.report.note(kind, r.judging.Load(), due, patience, false, "too many requests in progress")
			continue
		}
		r.inFlight.Add(1)
		r.wg.Go(func() {
			defer r.inFlight.Add(-1)
			r.send(context.WithoutCancel(ctx), kind, i, gateway, due)
		})
	}
}

// choose chooses a request. The first half of the customers release their licences, once; the others renew theirs, and
// report one fact each.
func (r *run) choose() (kind string, i int) {
	n := r.random.IntN(100)
	for _, w := range weights {
		if kind = w.kind; n < w.weight {
			break
		}
		n -= w.weight
	}
	half := len(r.customers) / 2
	if kind == release {
		if r.released < half {
			r.released++
			return release, r.released - 1
		}
		kind = renew
	}
	if kind == facts {
		if r.synced < half {
			r.synced++
			return facts, half + r.synced - 1
		}
		kind = renew
	}
	if kind == renew {
		r.renewed++
		return renew, half + (r.renewed-1)%(len(r.customers)-half)
	}
	return kind, half + r.random.IntN(len(r.customers)-half)
}

// send sends one request, to the gateways in turn, and notes what its client saw.
func (r *run) send(ctx context.Context, kind string, i, gateway int, due time.Time) {
	judged := r.judging.Load()
	c := r.customers[i]
	c.mu.Lock()
	c.number++
	id, token, known := fmt.Sprintf("%s-%d", kind, c.number), c.token, c.acknowledged
	c.mu.Unlock()
	var a answer
	var err error
	for tries := 0; ; tries++ {
		one, cancel := context.WithTimeout(ctx, attempt)
		a, err = r.once(one, r.clients[(gateway+tries)%len(r.clients)], kind, i, id, token, due)
		cancel()
		// The last two kinds take a refusal to answer for an answer: their clients try again later.
		if err == nil || !again(err) || kind == acquire || kind == ask || time.Since(due) > patience {
			break
		}
		if tries >= len(r.clients) {
			time.Sleep(20 * time.Millisecond)
		}
	}
	took := time.Since(due)
	answered := err == nil || !again(err)
	if kind != ask {
		c.mu.Lock()
		c.commands = append(c.commands, command{id, answered})
		if err == nil && !a.provisional {
			c.acknowledged = max(c.acknowledged, a.sequence)
		}
		c.mu.Unlock()
	} else if err == nil && a.source == 0 && a.sequence < known {
		r.report.fail("%s: an answer at %d is not marked as stale; %d was acknowledged before",
			r.id(i), a.sequence, known)
	}
	words := a.words()
	if err != nil {
		words = status.Code(err).String()
	}
	r.report.note(kind, judged, due, took, answered, words)
}

// again says whether a request may be sent again: nobody has decided on it.
func again(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Canceled, codes.Unknown,
		codes.Internal:
		return true
	}
	return false
}

// answer is what a request got.
type answer struct {
	sequence    uint64
	provisional bool
	source      licensedv1.StaleSource
}

func (a answer) words() string {
	switch {
	case a.provisional:
		return "provisional"
	case a.source != 0:
		return a.source.String()
	}
	return "executed"
}

// once sends a request to one gateway.
func (r *run) once(
	ctx context.Context, g *client.Client, kind string, i int, id, token string, due time.Time,
) (answer, error) {
	who := r.id(i)
	switch kind {
	case renew:
		res, err := g.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
			CustomerId: who, DeviceId: device, TitleId: "Renewed", CommandId: id, SignedLicense: token,
		})
		return answer{sequence: res.GetSequence(), provisional: res.GetProvisional() != nil}, err
	case release:
		res, err := g.ReleaseLicense(ctx, &licensedv1.ReleaseLicenseRequest{
			CustomerId: who, DeviceId: device, TitleId: "Renewed", CommandId: id, SignedLicense: token,
		})
		return answer{sequence: res.GetSequence(), provisional: res.GetProvisional() != nil}, err
	case facts:
		res, err := g.SyncDevice(ctx, &licensedv1.SyncDeviceRequest{
			CustomerId: who, DeviceId: device, CommandId: id, Facts: []*licensedv1.Fact{{
				Number: 1, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "Renewed", At: timestamppb.New(due),
			}},
		})
		return answer{sequence: res.GetSequence(), provisional: res.GetProvisional() != nil}, err
	case acquire:
		res, err := g.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: who, DeviceId: device, TitleId: "Another", CommandId: id, NewDownload: true,
		})
		return answer{sequence: res.GetSequence()}, err
	}
	res, err := g.GetCustomer(ctx, &licensedv1.GetCustomerRequest{CustomerId: who})
	return answer{sequence: res.GetSequence(), source: res.GetStale().GetSource()}, err
}

// check compares what clients were told with the history of each customer.
func (r *run) check(ctx context.Context) {
	var checked atomic.Int64
	err := r.each(ctx, func(i int) error {
		c := r.customers[i]
		if len(c.commands) == 0 {
			return nil
		}
		events, err := r.events(ctx, i)
		if err != nil {
			return err
		}
		for _, sent := range c.commands {
			switch n := events[sent.id]; {
			case n == 0 && sent.answered:
				r.report.fail("%s: %s was answered, and is not in the history", r.id(i), sent.id)
			case n > 1:
				r.report.fail("%s: %s is in the history %d times", r.id(i), sent.id, n)
			}
			checked.Add(1)
		}
		return r.limits(ctx, i)
	})
	r.report.Checked = int(checked.Load())
	if err != nil {
		r.report.fail("check: %v", err)
	}
}

// events returns how often each command is in the history of a customer.
func (r *run) events(ctx context.Context, i int) (map[string]int, error) {
	var last error
	for tries := range 50 {
		found, err := r.eventsAt(ctx, r.clients[(i+tries)%len(r.clients)], i)
		if err == nil {
			return found, nil
		}
		last = err
		time.Sleep(100 * time.Millisecond)
	}
	return nil, last
}

func (r *run) eventsAt(ctx context.Context, g *client.Client, i int) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := g.History.ListEvents(ctx, &licensedv1.ListEventsRequest{CustomerId: r.id(i)})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, item := range m.Items {
			if e := item.GetEvent(); e != nil && e.CommandIndex == 0 {
				found[e.CommandId]++
			}
		}
		if m.End != nil {
			return found, nil
		}
	}
}

// limits checks that a customer is within all limits.
func (r *run) limits(ctx context.Context, i int) error {
	var res *licensedv1.GetCustomerResponse
	var err error
	for tries := range 50 {
		g := r.clients[(i+tries)%len(r.clients)]
		res, err = g.GetCustomer(ctx, &licensedv1.GetCustomerRequest{CustomerId: r.id(i)})
		if err == nil && res.Stale == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	within := func(what string, q *licensedv1.Quota) {
		if q != nil && q.Limit != nil && q.Used > q.GetLimit() {
			r.report.fail("%s: %s: %d of %d", r.id(i), what, q.Used, q.GetLimit())
		}
	}
	within("devices", res.DevicesInUse)
	for _, s := range res.Studios {
		within("licences of "+s.StudioId, s.Licenses)
	}
	for _, t := range res.Titles {
		within("uses of "+t.TitleId, t.Yearly)
	}
	return nil
}
