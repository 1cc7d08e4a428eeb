package path

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandrabench"
	"licensed/test/bench/meter"
)

// Variant is a build of licensed with parameters of its store.
type Variant struct {
	// Name is what tables call it.
	Name string
	// Tree is what to build: a directory with sources, or a commit of the repository of Config.Tree. Empty: Program is
	// built already.
	Tree string
	// Program is the path of licensed.
	Program string
	// Parameters are added to the URL of the store, such as "batches_in_flight=2". Cassandra only.
	Parameters string
}

// Config of a run.
type Config struct {
	// Tree is the directory of the sources, with scripts/cassandra.sh.
	Tree string
	// Dir has programs, logs and data. It must exist.
	Dir string
	// Cassandra is the number of its nodes, 1 or more; 0 for the embedded store, in one process for each variant.
	Cassandra int
	// CassandraEnv are settings of scripts/cassandra.sh, "HEAP=2G".
	CassandraEnv []string
	// Nodes of licensed of each cluster.
	Nodes int
	// Variants are measured in turns; the first is what the others are compared with.
	Variants []Variant
	// InFlight are the numbers of requests in flight that are measured.
	InFlight []int
	// Customers of each cluster. Each may give 1,024 commands in ten minutes.
	Customers int
	// WarmUp is the time of load, or without any for Idle, before what is measured.
	WarmUp time.Duration
	// Turn is the time that a contender has in each of the Rounds.
	Turn   time.Duration
	Rounds int
	// Log is told of the progress, a line at a time.
	Log io.Writer
}

// say writes a line of progress.
func (c *Config) say(format string, args ...any) {
	fmt.Fprintf(c.Log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// rig is what is running.
type rig struct {
	*Config
	store  *store // nil: the embedded one
	pids   []int  // of the store
	fleets []*fleet
	raw    *cassandrabench.Driver // nil without Cassandra
}

// start builds the variants and starts the store. The caller stops the rig, also after an error.
func (c *Config) start(ctx context.Context) (*rig, error) {
	r := &rig{Config: c}
	c.Variants = slices.Clone(c.Variants)
	built := map[string]string{}
	for i := range c.Variants {
		v := &c.Variants[i]
		if v.Tree == "" {
			continue
		}
		if v.Program = built[v.Tree]; v.Program != "" {
			continue
		}
		c.say("building %s of %s", v.Name, v.Tree)
		var err error
		if v.Program, err = build(ctx, c, v.Tree, key(i)); err != nil {
			return r, err
		}
		built[v.Tree] = v.Program
	}
	if c.Cassandra == 0 {
		return r, nil
	}
	c.say("starting Cassandra (nodes: %d)", c.Cassandra)
	var err error
	if r.store, err = startStore(ctx, c); err != nil {
		return r, err
	}
	r.pids, err = r.store.pids(ctx)
	return r, err
}

// stop ends everything, the last first.
func (r *rig) stop() error {
	var errs []error
	for _, f := range r.fleets {
		errs = append(errs, f.stop())
	}
	if r.raw != nil {
		r.raw.Close()
	}
	if r.store != nil {
		errs = append(errs, r.store.destroy())
	}
	return errors.Join(errs...)
}

// key is the name of the files and the keyspace of a variant.
func key(i int) string { return fmt.Sprint("variant", i+1) }

// launch starts the cluster of the i-th variant.
func (r *rig) launch(ctx context.Context, i int, fail func(error)) (*fleet, error) {
	v := r.Variants[i]
	r.say("starting %s", v.Name)
	if r.store != nil {
		if err := r.store.createKeyspace(ctx, v.Program, key(i)); err != nil {
			return nil, err
		}
	}
	f, err := launch(ctx, r.Config, v, key(i), r.store, fail)
	if f != nil {
		r.fleets = append(r.fleets, f)
	}
	if err != nil {
		return f, err
	}
	r.say("giving %d customers of %s a licence", r.Customers, v.Name)
	return f, f.acquire(ctx)
}

// dialRaw connects the driver alone, on a keyspace of its own.
func (r *rig) dialRaw(ctx context.Context) error {
	const keyspace = "raw"
	if err := r.store.createKeyspace(ctx, r.Variants[0].Program, keyspace); err != nil {
		return err
	}
	o := cassandra.DefaultOptions()
	o.Hosts, o.Keyspace = r.store.hosts(), keyspace
	var err error
	r.raw, err = cassandrabench.OpenDriver(o, 2, 0)
	return err
}

// row is a contender with what it is.
type row struct {
	fleet    *fleet
	mode     string
	inFlight int
	counters *counters
	meter.Result
}

// The modes of a row.
const (
	unary   = "unary"
	session = "session"
)

// Run measures the request path and writes tables to w. It returns the first error, also that of a process that ended.
func Run(ctx context.Context, c Config, w io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := c.start(ctx)
	defer func() { err = errors.Join(err, r.stop()) }()
	if err != nil {
		return err
	}
	for i := range c.Variants {
		if _, err := r.launch(ctx, i, cancel); err != nil {
			return because(ctx, err)
		}
	}
	if r.store != nil {
		if err := r.dialRaw(ctx); err != nil {
			return err
		}
	}
	rows := r.rows()
	var all []meter.Contender
	for _, row := range rows {
		all = append(all, row.Contender)
	}
	if r.raw != nil {
		all = append(all, meter.Contender{
			Name: "raw insert, 1 in flight", InFlight: 1, Do: r.raw.Insert(cassandrabench.DefaultWorkload(), 1),
		})
	}
	var m meter.Meter
	if err := r.warmUp(ctx, &m, all); err != nil {
		return because(ctx, err)
	}
	if err := r.calibrate(ctx); err != nil {
		return because(ctx, err)
	}
	m.Progress = func(done, of int, c meter.Contender, m meter.Measure) {
		r.say("%d of %d: %s: %.0f commands/s, p50 %v", done, of, c.Name, m.PerSecond, m.P50.Round(time.Microsecond))
	}
	results, err := m.Rounds(ctx, c.Rounds, c.Turn, all...)
	if err != nil {
		return because(ctx, err)
	}
	t := &tables{Config: &c, rows: rows}
	for i := range rows {
		t.rows[i].Result = results[i]
	}
	if r.raw != nil {
		t.raw = &results[len(results)-1]
	}
	return t.print(w)
}

// because returns why the context ended, if it did, and else the error.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// rows returns the contenders of all variants.
func (r *rig) rows() (all []row) {
	for _, f := range r.fleets {
		c := count(f, r.pids)
		for _, n := range r.InFlight {
			all = append(all, row{f, unary, n, c, meter.Result{Contender: f.renewals(f.unary, unary, n, c)}})
		}
		if f.session == nil {
			r.say("%s has no sessions", f.Name)
			continue
		}
		for _, n := range r.InFlight {
			all = append(all, row{f, session, n, c, meter.Result{Contender: f.renewals(f.session, session, n, c)}})
		}
	}
	return all
}

// warmUp has the contenders take turns: Cassandra's compilers need that.
func (r *rig) warmUp(ctx context.Context, m *meter.Meter, all []meter.Contender) error {
	r.say("warming up for %v", r.WarmUp)
	turn := max(r.WarmUp/time.Duration(3*len(all)), 100*time.Millisecond)
	for end := time.Now().Add(r.WarmUp); time.Now().Before(end); {
		for _, c := range all {
			if _, err := m.Drive(ctx, c, turn); err != nil {
				return err
			}
		}
	}
	return nil
}

// calibrate finds out what reading the counters costs.
func (r *rig) calibrate(ctx context.Context) error {
	for _, f := range r.fleets {
		for _, m := range f.processes {
			if err := m.calibrate(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Idle measures what processes use of the processors without any request, for the time of a turn, and writes a table
// to w. Variants run one after the other; before them Cassandra is measured alone.
func Idle(ctx context.Context, c Config, w io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := c.start(ctx)
	defer func() { err = errors.Join(err, r.stop()) }()
	if err != nil {
		return err
	}
	t := &idleTable{}
	if r.store != nil {
		alone := &counters{groups: []group{{name: "Cassandra", pids: r.pids}}}
		if err := r.idle(ctx, t, "no cluster", alone); err != nil {
			return because(ctx, err)
		}
	}
	for i, v := range c.Variants {
		f, err := r.launch(ctx, i, cancel)
		if err == nil {
			err = r.idle(ctx, t, v.Name, eachProcess(f, r.pids))
		}
		if err != nil {
			return because(ctx, err)
		}
		r.fleets = nil
		if err := f.stop(); err != nil {
			return err
		}
	}
	return t.print(w)
}

// idle adds a row to the table for each process.
func (r *rig) idle(ctx context.Context, t *idleTable, name string, c *counters) error {
	r.say("%s: waiting for %v, then measuring for %v", name, r.WarmUp, r.Turn)
	if err := sleep(ctx, r.WarmUp); err != nil {
		return err
	}
	before, began := make([]float64, len(c.groups)*kinds), time.Now()
	after := make([]float64, len(before))
	if err := c.readKernel(ctx, before, true); err != nil {
		return err
	}
	if err := sleep(ctx, r.Turn); err != nil {
		return err
	}
	if err := c.readKernel(ctx, after, false); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	for i, g := range c.groups {
		t.add(name, g.name, (after[index(i, cpu)]-before[index(i, cpu)])/took)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
