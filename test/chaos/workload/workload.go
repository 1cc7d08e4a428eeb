// Package workload keeps a licence service busy the way its clients do, and notes what they see.
//
// # The model
//
// Some customers are hot and get half of all requests, from several clients at once; the others come, go
// about their evening and leave for good, so that there are always customers of every age. A client sends
// one request after the other through a gateway that it chooses anew each time. A command without an
// outcome is sent again with the same id, also through another gateway, until the outcome is known or the
// client loses patience. Now and then a command is sent by two clients at the same time, or again long
// after it was answered.
//
// The choices follow from the seed. When they are made does not: it depends on how fast answers come.
package workload

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"licensed/test/chaos/client"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// Config of a workload.
type Config struct {
	Seed uint64
	// Prefix of the customers' ids, so that runs against one store do not meet.
	Prefix string
	// Clients that send at the same time.
	Clients int
	// Customers at the same time, Hot of them hot.
	Customers, Hot int
	// Rate of requests per second at most; 0 is as fast as the answers come.
	Rate float64
	// Timeout of one attempt, and Patience for a command in all.
	Timeout, Patience time.Duration
}

// Default returns a workload that meets all limits within seconds.
func Default() Config {
	return Config{
		Seed: 1, Prefix: "c", Clients: 32, Customers: 200, Hot: 6, Timeout: 2 * time.Second, Patience: 2 * time.Minute,
	}
}

// Workload is the clients of a run.
type Workload struct {
	config   Config
	recorder *history.Recorder
	gateways []*client.Client
	generate *generator
	limiter  *rate.Limiter

	acknowledged atomic.Int64
	waiting      []atomic.Int64 // by client: when its present request began, 0 if there is none

	mu     sync.Mutex
	recent []history.Input // answered commands, to be repeated
}

// remembered answered commands are candidates for a late repeat.
const remembered = 512

// New returns a workload that is not running.
func New(c Config, r *model.Rules, rec *history.Recorder, gateways []*client.Client) *Workload {
	w := &Workload{
		config:   c,
		recorder: rec,
		gateways: gateways,
		generate: newGenerator(c, r),
		limiter:  rate.NewLimiter(rate.Inf, 1),
		waiting:  make([]atomic.Int64, c.Clients),
	}
	if c.Rate > 0 {
		w.limiter = rate.NewLimiter(rate.Limit(c.Rate), c.Clients)
	}
	return w
}

// Run sends requests until ctx ends, then lets every client finish what it began: within its patience.
func (w *Workload) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range w.config.Clients {
		wg.Go(func() {
			for ctx.Err() == nil && w.limiter.Wait(ctx) == nil {
				w.step(i)
			}
		})
	}
	wg.Wait()
}

// Acknowledged returns the number of commands that were accepted or refused so far.
func (w *Workload) Acknowledged() int64 { return w.acknowledged.Load() }

// Customers returns the ids of all customers so far, and of those that still take part.
func (w *Workload) Customers() (all, active []string) { return w.generate.customers() }

// Stuck returns the longest time for which a client has been waiting for an outcome.
func (w *Workload) Stuck() time.Duration {
	longest, now := int64(0), w.recorder.Now()
	for i := range w.waiting {
		if since := w.waiting[i].Load(); since != 0 {
			longest = max(longest, now-since)
		}
	}
	return time.Duration(longest)
}

// step is one request of one client, with its repeats.
func (w *Workload) step(i int) {
	w.waiting[i].Store(max(1, w.recorder.Now()))
	defer w.waiting[i].Store(0)
	if w.generate.chance(40) {
		if in, ok := w.answered(); ok {
			w.attempt(i, in)
			return
		}
	}
	in := w.generate.next(func() int64 { return time.Now().UnixMilli() })
	if !in.Records() {
		w.attempt(i, in)
		return
	}
	var twin sync.WaitGroup
	if w.generate.chance(25) {
		twin.Go(func() { w.attempt(i, in) })
	}
	w.insist(i, in)
	twin.Wait()
}

// Pauses between attempts.
const (
	firstPause = 10 * time.Millisecond
	longPause  = time.Second
)

// insist sends a command until its outcome is known.
func (w *Workload) insist(i int, in history.Input) {
	pause, certain := firstPause, true // certain: no attempt can have been executed
	for began := time.Now(); time.Since(began) < w.config.Patience; {
		out := w.attempt(i, in)
		certain = certain && out.Outcome == history.NotExecuted
		switch {
		case certain && (out.Reason == "RATE_LIMITED" || w.generate.chance(4)):
			// The service promised that nothing was executed, and some take its word: then nothing may be
			// found. Of a customer that it keeps from filling it, all do.
			return
		case out.Known():
			w.acknowledged.Add(1)
			w.remember(in)
			return
		case out.Outcome == history.Broken:
			return
		case out.Reason == "INVALID_REQUEST", out.Reason == "COMMAND_TOO_OLD":
			return // A clock was made to jump; another attempt would be told the same.
		}
		time.Sleep(pause/2 + time.Duration(w.generate.pick(int(pause))))
		pause = min(2*pause, longPause)
	}
}

// attempt sends a request once, through any gateway.
func (w *Workload) attempt(i int, in history.Input) history.Output {
	g := w.generate.pick(len(w.gateways))
	ctx, cancel := context.WithTimeout(context.Background(), w.config.Timeout)
	defer cancel()
	op := w.recorder.Call(i, g, in)
	out := w.gateways[g].Do(ctx, &in)
	w.recorder.Return(op, out)
	return out
}

func (w *Workload) remember(in history.Input) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recent) < remembered {
		w.recent = append(w.recent, in)
		return
	}
	w.recent[w.generate.pick(remembered)] = in
}

// answered returns a command that was answered before.
func (w *Workload) answered() (history.Input, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recent) == 0 {
		return history.Input{}, false
	}
	return w.recent[w.generate.pick(len(w.recent))], true
}

// Probe sends one command of its own for a customer until it is answered, at most so long, and returns
// how long that took, or false.
func (w *Workload) Probe(ctx context.Context, customer string, within time.Duration) (time.Duration, bool) {
	in := w.generate.probe(customer)
	began, pause := time.Now(), firstPause
	for time.Since(began) < within && ctx.Err() == nil {
		if out := w.attempt(-1, in); out.Known() {
			w.acknowledged.Add(1)
			return time.Since(began), true
		}
		time.Sleep(pause)
		pause = min(2*pause, longPause/4)
	}
	return time.Since(began), false
}

// Resolve sends a command again, whose outcome nobody knows, until it is known or certain that it will not
// be, at most so long. It returns the last answer, and false if that says neither.
func (w *Workload) Resolve(ctx context.Context, in history.Input, within time.Duration) (out history.Output, ok bool) {
	for began, pause := time.Now(), firstPause; ; pause = min(2*pause, longPause/4) {
		out = w.attempt(-1, in)
		switch {
		case out.Known():
			w.acknowledged.Add(1)
			return out, true
		case out.Outcome == history.Broken: // That is found by itself.
			return out, true
		case out.Reason == "INVALID_REQUEST", out.Reason == "COMMAND_TOO_OLD":
			return out, true
		case time.Since(began) >= within || ctx.Err() != nil:
			// A customer may be kept from filling the service for longer than that.
			return out, out.Reason == "RATE_LIMITED"
		}
		time.Sleep(pause)
	}
}
