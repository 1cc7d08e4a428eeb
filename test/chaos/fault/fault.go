// Package fault plans and injects what goes wrong during a chaos run.
//
// # The model
//
// A [Kind] is something that can be done to a deployment, "pause a node"; it makes a [Fault], which names
// its targets, is injected, holds for a while, and is healed. A [Plan] is the faults of a run with the time
// of each, drawn from a seed: alone or overlapping, but never two at once on the same target. The plan
// depends on nothing that happens, so that a seed repeats it; what the faults meet differs from run to run.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// What Inject may return, wrapped, besides that it failed.
var (
	// ErrIdle says that there is nothing to do the fault to, as where the process is down. Nothing was done, the
	// fault has met nothing, and Heal is not called.
	ErrIdle = errors.New("nothing was done")
	// ErrService says that it is the service that failed: it did not stop or start in good order, say.
	ErrService = errors.New("the service failed")
)

// Fault is one fault. Inject and Heal are called once each, in this order, Heal also if Inject failed.
// An error of Heal means that the service does not get over the fault.
type Fault struct {
	// Kind is the name of its kind, Detail what is particular: "3 × TTL".
	Kind, Detail string
	// Targets are what it is done to: names of members, or of links, "n1>n2".
	Targets []string
	// Also are further targets that nothing else may be done to meanwhile; they are not told.
	Also []string
	// Hold is the time it lasts.
	Hold time.Duration

	Inject, Heal func(context.Context) error
	// Came, if it is not nil, is asked after healing what came of it.
	Came func() Effect
}

// Effect is what came of a fault: "killed by the kernel".
type Effect struct {
	Text string
	// Idle says that nothing did: a point where the process was to die was not reached.
	Idle bool
}

func (f *Fault) String() string {
	s := f.Kind + " " + strings.Join(f.Targets, ", ")
	if f.Detail != "" {
		s += " (" + f.Detail + ")"
	}
	return s
}

// Kind of faults.
type Kind struct {
	Name string
	// Weight says how often it is chosen, in relation to the others.
	Weight int
	// Make draws one.
	Make func(*rand.Rand) *Fault
}

// Planned is a fault with its time, from the beginning of the plan.
type Planned struct {
	*Fault
	At time.Duration
}

// Schedule says how dense a plan is.
type Schedule struct {
	Seed   uint64
	Length time.Duration
	// Gap is the mean time between the beginnings of two faults. Faults overlap where it is shorter than
	// they hold.
	Gap time.Duration
	// Calm is the mean time without any fault, after every few.
	Calm time.Duration
}

// burst is the largest number of faults between two calms.
const burst = 6

// Plan draws the faults of a run. Every kind comes at least once if the time suffices.
func (s Schedule) Plan(kinds []Kind) []Planned {
	if len(kinds) == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(s.Seed, 2))
	order := deck(random, kinds)
	busy := map[string]time.Duration{}
	var plan []Planned
	at, left := time.Duration(0), 1+random.IntN(burst)
	var ends time.Duration
	for n := 0; at < s.Length; n++ {
		kind := order[n%len(order)]
		if n%len(order) == len(order)-1 {
			order = deck(random, kinds)
			n = -1
		}
		f := kind.Make(random)
		touched := slices.Concat(f.Targets, f.Also)
		if slices.ContainsFunc(touched, func(t string) bool { return busy[t] > at }) {
			at += s.Gap / 4 // Something else is being done to it.
			continue
		}
		if at+f.Hold > s.Length {
			at += s.Gap / 4 // Another may be short enough.
			continue
		}
		plan = append(plan, Planned{f, at})
		for _, t := range touched {
			busy[t] = at + f.Hold + settle
		}
		ends = max(ends, at+f.Hold)
		at += time.Duration(random.ExpFloat64() * float64(s.Gap))
		if left--; left == 0 {
			at = max(at, ends) + time.Duration(random.ExpFloat64()*float64(s.Calm))
			left = 1 + random.IntN(burst)
		}
	}
	return plan
}

// settle is left between two faults of one target.
const settle = time.Second

// deck returns every kind as often as its weight says, shuffled.
func deck(r *rand.Rand, kinds []Kind) []Kind {
	var d []Kind
	for _, k := range kinds {
		for range max(1, k.Weight) {
			d = append(d, k)
		}
	}
	r.Shuffle(len(d), func(i, j int) { d[i], d[j] = d[j], d[i] })
	return d
}

// Record is what happened to one fault, for the timeline. Times are since the start of the run.
type Record struct {
	Kind    string   `json:"kind"`
	Detail  string   `json:"detail,omitempty"`
	Targets []string `json:"targets"`
	// Injected and Healed are when these were done; Healing when healing began.
	Injected time.Duration `json:"injected"`
	Healing  time.Duration `json:"healing"`
	Healed   time.Duration `json:"healed"`
	// Effect is what came of it, as far as that can be told; Idle says that nothing did.
	Effect string `json:"effect,omitempty"`
	Idle   bool   `json:"idle,omitempty"`
	// Failed says that it could not be injected. Error is about injecting and healing.
	Failed bool   `json:"failed,omitempty"`
	Error  string `json:"error,omitempty"`
	// Unhealed says that the service did not get over it: it was not healed, or Inject said [ErrService].
	Unhealed bool `json:"unhealed,omitempty"`
}

// Count is what became of the faults of one kind.
type Count struct {
	// Injected are those that were done, without those that met nothing and those that failed.
	Injected int `json:"injected"`
	Idle     int `json:"idle,omitempty"`
	Failed   int `json:"failed,omitempty"`
	// LeftOut are those that were planned and not tried: their targets were still being healed.
	LeftOut int `json:"left_out,omitempty"`
}

// Plus adds two counts.
func (c Count) Plus(o Count) Count {
	return Count{
		Injected: c.Injected + o.Injected,
		Idle:     c.Idle + o.Idle,
		Failed:   c.Failed + o.Failed,
		LeftOut:  c.LeftOut + o.LeftOut,
	}
}

// Add counts a fault.
func (c *Count) Add(r *Record) {
	switch {
	case r.Failed:
		c.Failed++
	case r.Idle:
		c.Idle++
	default:
		c.Injected++
	}
}

// Run injects and heals the faults of a plan. It returns as soon as all are healed; when
// ctx ends, what is still injected is healed and the rest left out. now is the time of the run, note gets
// each fault when it has ended. A fault whose target is still being healed of another is left out: healing
// may take longer than planned.
func Run(ctx context.Context, plan []Planned, now func() time.Duration, note func(Record)) {
	var wg sync.WaitGroup
	var busy targets
	begin := now()
	for _, p := range plan {
		if !sleep(ctx, begin+p.At-now()) {
			break
		}
		touched := slices.Concat(p.Targets, p.Also)
		if !busy.take(touched) {
			continue
		}
		if ctx.Err() != nil { // It may have ended since, with what had these targets.
			break
		}
		wg.Go(func() {
			defer busy.release(touched)
			note(p.run(ctx, now))
		})
	}
	wg.Wait()
}

// targets are those of faults that are not healed yet. The zero value is ready.
type targets struct {
	mu   sync.Mutex
	busy map[string]bool
}

// take takes all or none.
func (t *targets) take(names []string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(names, func(n string) bool { return t.busy[n] }) {
		return false
	}
	if t.busy == nil {
		t.busy = map[string]bool{}
	}
	for _, n := range names {
		t.busy[n] = true
	}
	return true
}

func (t *targets) release(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		delete(t.busy, n)
	}
}

// grace is the time that injecting and healing may take: a whole Cassandra to start on a busy machine.
const grace = 8 * time.Minute

func (p *Planned) run(ctx context.Context, now func() time.Duration) Record {
	r := Record{Kind: p.Kind, Detail: p.Detail, Targets: p.Targets, Injected: now()}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := p.Inject(work)
	switch {
	case errors.Is(err, ErrIdle):
		r.Healing, r.Healed, r.Idle, r.Effect = now(), now(), true, err.Error()
		return r
	case err != nil:
		r.Failed, r.Unhealed, err = true, errors.Is(err, ErrService), fmt.Errorf("inject: %w", err)
	default:
		sleep(ctx, p.Hold)
	}
	r.Healing = now()
	if healed := p.Heal(work); healed != nil {
		r.Unhealed, err = true, errors.Join(err, fmt.Errorf("heal: %w", healed))
	}
	r.Healed = now()
	if p.Came != nil {
		came := p.Came()
		r.Effect, r.Idle = came.Text, came.Idle
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
