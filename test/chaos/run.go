package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
	"licensed/test/chaos/workload"
)

// Config of a run.
type Config struct {
	// Dir is the run's directory. It exists.
	Dir string
	// Deployment is what is broken, in words, for the verdict.
	Deployment string
	// Rules are those that the deployment's policy file has.
	Rules model.Rules
	// Workload and Schedule have the seeds. The schedule's length is that of the phase with faults.
	Workload workload.Config
	Schedule fault.Schedule
	// Kinds of faults that are wanted, by name; none for all that the deployment offers.
	Kinds []string
	// WarmUp is the time without faults at the beginning.
	WarmUp time.Duration
	// Recovery is the time after healing within which every customer must be answered.
	Recovery time.Duration
	Log      *slog.Logger
}

// DefaultConfig of a run of that length, with that seed.
func DefaultConfig(dir string, seed uint64, length time.Duration) Config {
	w := workload.Default()
	w.Seed = seed
	return Config{
		Dir: dir, Rules: model.Standard(time.Now()), Workload: w,
		Schedule: fault.Schedule{Seed: seed, Length: length, Gap: 3 * time.Second, Calm: 5 * time.Second},
		WarmUp:   8 * time.Second, Recovery: 10 * time.Second, Log: slog.Default(),
	}
}

// run is a run in flight.
type run struct {
	Config
	deployment deploy.Deployment
	recorder   *history.Recorder
	gateways   []*client.Client
	load       *workload.Workload
	verdict    *Verdict

	mu       sync.Mutex
	faults   []fault.Record
	samples  []Sample
	baseline map[string]Resources
	loaded   time.Duration // until when the load continued
	notes    []string      // what to know of the machine, and of what could not be tried

	patience time.Duration // with each request of the collection
}

// Accidents collects the ends of processes that nobody asked for. The zero value is ready.
type Accidents struct {
	mu   sync.Mutex
	list []string
}

// Add notes one.
func (a *Accidents) Add(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, err.Error())
}

// List returns all so far.
func (a *Accidents) List() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.list...)
}

// Run runs against a deployment, which it starts and stops. An error means that there is no verdict.
func Run(ctx context.Context, c Config, d deploy.Deployment, accidents *Accidents) (v *Verdict, err error) {
	if err := c.Rules.Check(time.Now(), c.Schedule.Length); err != nil {
		return nil, err
	}
	r := &run{
		Config: c, deployment: d, verdict: newVerdict(&c), baseline: map[string]Resources{}, patience: collectPatient,
	}
	file, err := begin(c.Dir)
	if err != nil {
		return nil, err
	}
	ended := false
	end := func() error {
		if ended {
			return nil
		}
		ended = true
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return errors.Join(d.Stop(stop), file.Close())
	}
	defer func() { err = errors.Join(err, end()) }()
	c.Log.Info("starting the deployment")
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	for _, n := range d.Notes() {
		c.Log.Warn("note", "text", n)
	}
	kinds, err := r.kinds()
	if err != nil {
		return nil, err
	}
	if r.recorder, err = history.NewRecorder(file); err != nil {
		return nil, err
	}
	for _, url := range d.Gateways() {
		g, err := client.New(url)
		if err != nil {
			return nil, err
		}
		defer g.Close()
		r.gateways = append(r.gateways, g)
	}
	if err := r.samePolicy(ctx); err != nil {
		return nil, errors.Join(err, r.recorder.Close())
	}
	r.load = workload.New(c.Workload, &c.Rules, r.recorder, r.gateways)
	if err := r.phases(ctx, kinds); err != nil {
		return nil, errors.Join(err, r.recorder.Close())
	}
	r.verdict.Notes, r.verdict.Points = append(d.Notes(), r.notes...), d.Coverage()
	for _, a := range accidents.List() {
		r.verdict.Accidents = append(r.verdict.Accidents, a)
		r.fail(check.Violation{Check: check.Health, Text: a})
	}
	// A verdict is about all that happened: it is present when nothing can go wrong any more.
	if err := errors.Join(r.recorder.Close(), end()); err != nil {
		return nil, err
	}
	r.judgeCalms()
	return r.verdict, r.finish()
}

// begin starts the history of a run. What a former run left in its directory is not this one's verdict.
func begin(dir string) (*os.File, error) {
	for _, name := range []string{verdictFile, reportFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.Create(filepath.Join(dir, historyFile))
}

// phases are what happens while the service runs.
func (r *run) phases(ctx context.Context, kinds []fault.Kind) error {
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { r.load.Run(loading) })
	sampling, stopSampling := context.WithCancel(ctx)
	defer stopSampling()
	background.Go(func() { r.sample(sampling) })

	r.Log.Info("warming up", "for", r.WarmUp)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.WarmUp):
	}
	r.baseline = r.resources(ctx)
	r.notes = unmeasured(r.deployment.Members(), r.baseline)
	plan := r.Schedule.Plan(kinds)
	r.Log.Info("injecting faults", "planned", len(plan), "for", r.Schedule.Length, "seed", r.Schedule.Seed)
	r.verdict.plan(kinds, plan)
	r.verdict.FaultsFrom = r.now()
	fault.Run(ctx, plan, r.now, r.noteFault)
	r.verdict.FaultsTo = r.now()
	if err := ctx.Err(); err != nil {
		return err
	}
	r.notes = append(r.notes, crowded()...)
	r.Log.Info("healed; looking for progress")
	r.progress(ctx)
	select { // The load continues for as long as was asked for.
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.verdict.FaultsFrom + r.Schedule.Length - r.now()):
	}
	r.loaded = r.now()
	r.Log.Info("waiting for clients")
	stopLoad()
	if err := r.drained(&background, stopSampling); err != nil {
		return err
	}
	r.resolve(ctx)
	r.settled(ctx, "after the load")
	if err := errors.Join(r.collect(ctx), ctx.Err()); err != nil {
		return err
	}
	r.settled(ctx, "after the collection")
	return ctx.Err()
}

// kinds are those of the deployment that are wanted.
func (r *run) kinds() ([]fault.Kind, error) {
	all := r.deployment.Kinds()
	if len(r.Kinds) == 0 {
		return all, nil
	}
	var names []string
	for _, k := range all {
		names = append(names, k.Name)
	}
	for _, name := range r.Kinds {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no kind of faults %q here; there are: %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(k fault.Kind) bool { return !slices.Contains(r.Kinds, k.Name) }), nil
}

// samePolicy makes sure that the service decides by the rules of the model.
func (r *run) samePolicy(ctx context.Context) error {
	for i, g := range r.gateways {
		res, err := g.Admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
		if err != nil {
			return fmt.Errorf("gateway %d: %w", i+1, err)
		}
		if v := res.PolicyVersion; v != r.Rules.Version {
			return fmt.Errorf("gateway %d has policy %q, the run needs %q (licensed-chaos policy prints one)",
				i+1, v, r.Rules.Version)
		}
	}
	return nil
}

// now is the time of the run.
func (r *run) now() time.Duration { return time.Duration(r.recorder.Now()) }

// drained waits until every client has finished.
func (r *run) drained(background *sync.WaitGroup, stopSampling func()) error {
	stopSampling()
	done := make(chan struct{})
	go func() { background.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(2*r.Workload.Patience + time.Minute):
		return errors.New("the clients do not end: a defect of the tool")
	}
}

func (r *run) noteFault(f fault.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
	if f.Unhealed {
		r.verdict.Violations = append(r.verdict.Violations, check.Violation{
			Check: check.Health,
			Live:  true,
			Text:  fmt.Sprintf("%s of %s: %s", f.Kind, strings.Join(f.Targets, ", "), f.Error),
		})
	}
	if f.Error != "" {
		r.Log.Warn("a fault did not go as planned", "fault", f.Kind, "targets", f.Targets, "error", f.Error)
	} else {
		r.Log.Info("fault", "kind", f.Kind, "targets", f.Targets, "detail", f.Detail, "effect", f.Effect,
			"lasted", (f.Healed - f.Injected).Round(time.Millisecond))
	}
}

// note keeps what to know of the run, once.
func (r *run) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

// fail notes what the running service shows.
func (r *run) fail(v check.Violation) {
	v.Live = true
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict.Violations = append(r.verdict.Violations, v)
}

// progress sends a command for every customer that takes part, and looks for clients that wait. Time counts
// from healing, also that until a customer's turn comes.
func (r *run) progress(ctx context.Context) {
	_, active := r.load.Customers()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	var longest time.Duration
	var mu sync.Mutex
	healed := time.Now()
	deadline := healed.Add(r.Recovery)
	for _, id := range active {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			_, ok := r.load.Probe(ctx, id, max(time.Second, time.Until(deadline)))
			took := time.Since(healed)
			mu.Lock()
			longest = max(longest, took)
			mu.Unlock()
			if !ok || took > r.Recovery {
				r.fail(check.Violation{
					Check: check.Health, Customer: id, Text: fmt.Sprintf("no answer within %v of healing", r.Recovery),
				})
			}
		})
	}
	wg.Wait()
	r.verdict.Recovery = longest
	for until := deadline; time.Now().Before(until) && r.load.Stuck() > r.Recovery; {
		time.Sleep(50 * time.Millisecond)
	}
	if stuck := r.load.Stuck(); stuck > r.Recovery {
		r.fail(check.Violation{
			Check: check.Health,
			Text:  fmt.Sprintf("a client has been waiting for %v, also %v after healing", stuck, r.Recovery),
		})
	}
}

// writeLines writes a file of JSON lines.
func writeLines[T any](path string, lines []T) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e := json.NewEncoder(f)
	for i := range lines {
		if err := e.Encode(&lines[i]); err != nil {
			return err
		}
	}
	return nil
}
