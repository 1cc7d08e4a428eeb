// Package demo simulates customers of a licence service, through its public API only, so that a new
// operator has something to look at.
//
// # The model
//
// A fixed number of customers with a few devices each go about their evenings: they acquire licences,
// play, renew and release them, now and then remove a device, and sometimes send a command twice, as
// phones on bad networks do. They know no rules: what the policy forbids is refused, and they continue.
// Commands start at a steady rate, whatever the answers' pace (an open loop); when too many are under
// way the simulation falls behind and reports it rather than adding to the trouble.
//
// [Past] is another simulation: what households and the support did in a year, one command after the other, at a
// service whose clock it moves.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// Config of a simulation.
type Config struct {
	// Rate of commands per second.
	Rate float64
	// Customers is the number of customers.
	Customers int
	// MaxInFlight commands are in progress at once.
	MaxInFlight int
	// Summary is the interval at which a line about the last period is logged.
	Summary time.Duration
	// Seed makes the choices repeatable.
	Seed uint64
	// Logger takes the summary.
	Logger *slog.Logger
}

// DefaultConfig returns 20 commands/s of 100 customers.
func DefaultConfig() Config {
	return Config{Rate: 20, Customers: 100, MaxInFlight: 64, Summary: 10 * time.Second, Logger: slog.Default()}
}

// Simulation of customers. Run is called once.
type Simulation struct {
	config Config
	client Service
	random *rand.Rand // used by Run only
	// slots has a token for each command in progress.
	slots chan struct{}

	// mu guards what follows: commands are answered on goroutines of their own.
	mu     sync.Mutex
	period tally
	held   map[string][]download // what each customer acquired of late, newest last
}

// download is a title on a device.
type download struct{ device, title string }

// remembered downloads per customer.
const remembered = 8

// tally is what happened in a period.
type tally struct {
	accepted, repeated, skipped int
	refused, failed             map[string]int
	latency                     *hdrhistogram.Histogram
}

// newTally returns a tally of nothing.
func newTally() tally {
	return tally{
		refused: make(map[string]int), failed: make(map[string]int),
		latency: hdrhistogram.New(1, time.Minute.Microseconds(), 2),
	}
}

// Service is what the simulation calls; *client.Client is one.
type Service interface {
	AcquireLicense(context.Context, *licensedv1.AcquireLicenseRequest) (*licensedv1.AcquireLicenseResponse, error)
	RenewLicense(context.Context, *licensedv1.RenewLicenseRequest) (*licensedv1.RenewLicenseResponse, error)
	ReleaseLicense(context.Context, *licensedv1.ReleaseLicenseRequest) (*licensedv1.ReleaseLicenseResponse, error)
	RecordPlayback(context.Context, *licensedv1.RecordPlaybackRequest) (*licensedv1.RecordPlaybackResponse, error)
	DeactivateDevice(context.Context, *licensedv1.DeactivateDeviceRequest) (*licensedv1.DeactivateDeviceResponse, error)
}

// New returns a simulation of the customers of the service behind the client.
func New(c Config, client Service) *Simulation {
	return &Simulation{
		config: c, client: client,
		random: rand.New(rand.NewPCG(c.Seed, c.Seed)),
		slots:  make(chan struct{}, c.MaxInFlight),
		period: newTally(),
		held:   make(map[string][]download),
	}
}

// tick is the interval at which commands are started.
const tick = 10 * time.Millisecond

// Run simulates until ctx ends and the commands in progress are answered. What is due
// accumulates with the time that has passed, so that a late tick starts the commands that
// it missed.
func (s *Simulation) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ticks, summaries := time.NewTicker(tick), time.NewTicker(s.config.Summary)
	defer ticks.Stop()
	defer summaries.Stop()
	last, due := time.Now(), 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-summaries.C:
			s.summarize()
		case now := <-ticks.C:
			due += s.config.Rate * now.Sub(last).Seconds()
			last = now
			for ; due >= 1; due-- {
				s.start(ctx, &running)
			}
		}
	}
}

// start sends one command in the background, or skips it if too many are in progress. One
// of twenty is sent twice, under the same id.
func (s *Simulation) start(ctx context.Context, running *sync.WaitGroup) {
	send, repeats := s.choose(), 1
	if s.random.IntN(20) == 0 {
		repeats = 2
	}
	select {
	case s.slots <- struct{}{}:
	default:
		s.mu.Lock()
		s.period.skipped++
		s.mu.Unlock()
		return
	}
	running.Go(func() {
		defer func() { <-s.slots }()
		for range repeats {
			began := time.Now()
			duplicate, err := send(ctx)
			s.note(time.Since(began), duplicate, err)
		}
	})
}

// title returns what is acquired next: a few titles are much watched, the others seldom.
func (s *Simulation) title() string {
	if s.random.IntN(2) == 0 {
		return fmt.Sprintf("GlowS01E%02d", 1+s.random.IntN(10))
	}
	return fmt.Sprintf("DarkS%02dE%02d", 1+s.random.IntN(3), 1+s.random.IntN(10))
}

// devices that customers have; more than most plans allow.
var devices = []string{"iphone", "ipad", "android-tv"}

// choose picks the next command and returns how to send it; sent again, it is a repeat.
func (s *Simulation) choose() func(context.Context) (duplicate bool, err error) {
	customer, id := fmt.Sprintf("demo-%04d", s.random.IntN(s.config.Customers)), uuid.NewString()
	n := s.random.IntN(100)
	d, held := s.download(customer)
	// A customer without licences mostly acquires one.
	if n < 50 || !held && s.random.IntN(50) > 0 {
		return s.acquire(customer, id)
	}
	switch {
	case n < 75:
		return sender(s.client.RecordPlayback, &licensedv1.RecordPlaybackRequest{
			CustomerId: customer, DeviceId: d.device, TitleId: d.title, CommandId: id,
		})
	case n < 82:
		return sender(s.client.RenewLicense, &licensedv1.RenewLicenseRequest{
			CustomerId: customer, DeviceId: d.device, TitleId: d.title, CommandId: id,
		})
	case n < 99:
		s.forget(customer, func(other download) bool { return other == d })
		return sender(s.client.ReleaseLicense, &licensedv1.ReleaseLicenseRequest{
			CustomerId: customer, DeviceId: d.device, TitleId: d.title, CommandId: id,
		})
	default:
		s.forget(customer, func(other download) bool { return other.device == d.device })
		return sender(s.client.DeactivateDevice, &licensedv1.DeactivateDeviceRequest{
			CustomerId: customer, DeviceId: d.device, CommandId: id,
		})
	}
}

// acquire downloads a title, and remembers it if that is allowed.
func (s *Simulation) acquire(customer, id string) func(context.Context) (bool, error) {
	d := download{devices[min(s.random.IntN(6), s.random.IntN(len(devices)))], s.title()}
	send := sender(s.client.AcquireLicense, &licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: d.device, TitleId: d.title, CommandId: id, NewDownload: s.random.IntN(4) == 0,
	})
	return func(ctx context.Context) (bool, error) {
		duplicate, err := send(ctx)
		if err == nil && !duplicate {
			s.mu.Lock()
			held := s.held[customer]
			if !slices.Contains(held, d) {
				held = append(held, d)
			}
			s.held[customer] = held[max(0, len(held)-remembered):]
			s.mu.Unlock()
		}
		return duplicate, err
	}
}

// download picks one that the customer holds, or another and false if it holds none.
func (s *Simulation) download(customer string) (download, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.held[customer]; len(held) > 0 {
		return held[s.random.IntN(len(held))], true
	}
	return download{devices[0], s.title()}, false
}

// forget drops downloads that the customer gives up.
func (s *Simulation) forget(customer string, which func(download) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[customer] = slices.DeleteFunc(s.held[customer], which)
}

// sender returns a function that makes the call.
func sender[Q any, A interface{ GetDuplicate() bool }](
	call func(context.Context, Q) (A, error), message Q,
) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		res, err := call(ctx, message)
		return res.GetDuplicate(), err
	}
}

// note counts an answer.
func (s *Simulation) note(took time.Duration, duplicate bool, err error) {
	if errors.Is(err, context.Canceled) {
		return // The simulation is being stopped.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.period
	// Longer than a minute does not fit, and no request lasts that long.
	_ = p.latency.RecordValue(took.Microseconds())
	var refusal *client.Refusal
	var e *client.Error
	switch {
	case err == nil && duplicate, errors.As(err, &refusal) && refusal.Duplicate:
		p.repeated++
	case err == nil:
		p.accepted++
	case refusal != nil:
		p.refused[strings.ToLower(strings.TrimPrefix(refusal.Rule.String(), "RULE_"))]++
	case errors.As(err, &e) && e.Reason != "":
		p.failed[strings.ToLower(e.Reason)]++
	default:
		p.failed["unreachable"]++
	}
}

// summarize logs the last period and begins another.
func (s *Simulation) summarize() {
	s.mu.Lock()
	p := s.period
	s.period = newTally()
	s.mu.Unlock()
	log, level := s.config.Logger, slog.LevelInfo
	attributes := []any{
		"accepted", p.accepted, "refused", list(p.refused), "repeated", p.repeated,
		"p50", time.Duration(p.latency.ValueAtQuantile(50) * int64(time.Microsecond)).String(),
		"p99", time.Duration(p.latency.ValueAtQuantile(99) * int64(time.Microsecond)).String(),
	}
	if len(p.failed) > 0 {
		level = slog.LevelWarn
		attributes = append(attributes, "failed", list(p.failed))
	}
	if p.skipped > 0 {
		level = slog.LevelWarn
		attributes = append(attributes, "skipped", p.skipped)
	}
	log.Log(context.Background(), level, "demo", attributes...)
}

// list renders counts by name, the largest first.
func list(counts map[string]int) string {
	names := make([]string, 0, len(counts))
	total := 0
	for name, n := range counts {
		names = append(names, name)
		total += n
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	fmt.Fprint(&b, total)
	for i, name := range names {
		b.WriteString([]string{" (", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s %d", name, counts[name])
	}
	if len(names) > 0 {
		b.WriteString(")")
	}
	return b.String()
}
