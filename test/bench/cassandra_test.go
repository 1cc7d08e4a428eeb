package bench

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/internal/storage"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandrabench"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/test/bench/meter"
)

// cassandraRig is Cassandra with all that is measured on it.
type cassandraRig struct {
	*testing.B
	meter   meter.Meter
	options cassandra.Options
	cluster *cassandratest.Cluster // nil: the one that LICENSED_CASSANDRA names
	nodes   int
	work    cassandrabench.Workload
}

// newCassandraRig starts this many nodes as LICENSED_BENCH_NODES says (1), with LICENSED_BENCH_ENV as their
// settings ("SYNC=group BATCH_WARN_KIB=64"), or takes the Cassandra that LICENSED_CASSANDRA names.
func newCassandraRig(b *testing.B) *cassandraRig {
	r := &cassandraRig{B: b, work: cassandrabench.DefaultWorkload(), nodes: 1}
	o, given, err := cassandratest.FromEnvironment()
	if err != nil {
		b.Fatal(err)
	}
	if !given {
		if r.nodes, err = strconv.Atoi(cmp.Or(os.Getenv("LICENSED_BENCH_NODES"), "1")); err != nil {
			b.Fatalf("LICENSED_BENCH_NODES: %v", err)
		}
		r.cluster = cassandratest.Start(b,
			cassandratest.Config{Nodes: r.nodes, Env: strings.Fields(os.Getenv("LICENSED_BENCH_ENV"))})
		r.meter.StorePIDs = r.cluster.PIDs(b)
		o = r.cluster.Options()
	}
	r.options = r.keyspace(o)
	return r
}

// duration reads a duration from the environment.
func (r *cassandraRig) duration(name string, otherwise time.Duration) time.Duration {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		r.Fatalf("%s is %q, want a duration", name, v)
	}
	return d
}

// BenchmarkCassandra holds acknowledged commands on Cassandra, one event of 120 bytes each, snapshots and
// roots included, against prepared inserts of the same rows by the driver alone, and against a
// compare-and-set for each. The raw figure is the best of a sweep. It takes LICENSED_BENCH_WARMUP (90s),
// the sweep, and LICENSED_BENCH_ROUNDS (5) of turns of LICENSED_BENCH_TURN (4s). Run it with -benchtime 1x.
func BenchmarkCassandra(b *testing.B) {
	r := newCassandraRig(b)
	turn, rounds := r.duration("LICENSED_BENCH_TURN", 4*time.Second), 5
	if os.Getenv("LICENSED_BENCH_ROUNDS") != "" {
		rounds, _ = pace(b)
	}
	c := r.contenders()
	r.warmUp(r.duration("LICENSED_BENCH_WARMUP", 90*time.Second), c.all()...)
	raw := r.sweepRaw(turn / 2)
	for b.Loop() {
		results, err := r.meter.Rounds(context.Background(), rounds, turn,
			append([]meter.Contender{raw}, c.all()...)...)
		if err != nil {
			b.Fatal(err)
		}
		meter.Print(os.Stdout, results)
		r.report(results)
		r.disk(b, 5*turn)
	}
	b.ReportMetric(0, "ns/op")
}

// cassandraContenders are those that take turns with the best raw one.
type cassandraContenders struct {
	conditional, raw8  meter.Contender
	runtime, alone     []meter.Contender // at 8 (not alone), 64, 256
	service            []meter.Contender // at 64, 256
	rawWake, coldStart meter.Contender
}

func (c *cassandraContenders) all() []meter.Contender {
	return slices.Concat([]meter.Contender{c.conditional, c.raw8}, c.runtime, c.alone, c.service,
		[]meter.Contender{c.rawWake, c.coldStart})
}

func (r *cassandraRig) contenders() *cassandraContenders {
	c := &cassandraContenders{}
	driver := r.driver(2, 0)
	conditional, err := driver.CompareAndSet(r.work, 64)
	if err != nil {
		r.Fatal(err)
	}
	c.conditional = meter.Contender{Name: "a compare-and-set each, 64 in flight", InFlight: 64, Do: conditional}
	c.raw8 = r.inserts(driver, 8)
	single := r.keyspace(r.options) // its aggregates are others
	single.GroupPartitions, single.BatchesInFlight = 1, 4096
	grouped, alone := openRuntime(r.B, r.open(r.options), nil), openRuntime(r.B, r.open(single), nil)
	service := r.service()
	for _, n := range []int{8, 64, 256} {
		c.runtime = append(c.runtime, commands(grouped, "runtime", n))
		if n > 8 {
			c.alone = append(c.alone, commands(alone, "runtime, customers not grouped", n))
			c.service = append(c.service, renewals(service, n))
		}
	}
	c.coldStart = r.coldStarts(16)
	wake := r.work // with roots of that size
	wake.Customers = sleepers
	c.rawWake = meter.Contender{
		Name: "raw two reads, one insert, 16 in flight", InFlight: 16, Do: driver.Wake(wake, 16),
	}
	return c
}

func (r *cassandraRig) driver(connections int, coalesce time.Duration) *cassandrabench.Driver {
	d, err := cassandrabench.OpenDriver(r.options, connections, coalesce)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(d.Close)
	return d
}

func (r *cassandraRig) inserts(d *cassandrabench.Driver, inFlight int) meter.Contender {
	return meter.Contender{
		Name: fmt.Sprintf("raw inserts, %d in flight", inFlight), InFlight: inFlight, Do: d.Insert(r.work, inFlight),
	}
}

func (r *cassandraRig) open(o cassandra.Options) *cassandra.Store {
	s, err := cassandra.Open(context.Background(), o)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.Error(err)
		}
	})
	return s
}

// warmUp has the contenders run for this long: Cassandra's compilers need that.
func (r *cassandraRig) warmUp(d time.Duration, contenders ...meter.Contender) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, c := range contenders {
			if _, err := r.meter.Drive(context.Background(), c,
				max(d/time.Duration(3*len(contenders)), 100*time.Millisecond)); err != nil {
				r.Fatal(err)
			}
		}
	}
}

// sweepRaw returns the raw contender with the most inserts per second.
func (r *cassandraRig) sweepRaw(turn time.Duration) (best meter.Contender) {
	var most float64
	for _, connections := range []int{1, 2, 4} {
		for _, coalesce := range []time.Duration{0, 200 * time.Microsecond} {
			d := r.driver(connections, coalesce)
			for _, n := range []int{64, 256, 1024} {
				c := r.inserts(d, n)
				m, err := r.meter.Drive(context.Background(), c, turn)
				if err != nil {
					r.Fatal(err)
				}
				fmt.Printf("sweep: %d connections, coalescing for %v, %d in flight: %.0f inserts/s\n",
					connections, coalesce, n, m.PerSecond)
				if m.PerSecond > most {
					most, best = m.PerSecond, c
				}
			}
		}
	}
	best.Name += ", best of the sweep"
	return best
}

// sleepers is the number of customers that are woken.
const sleepers = 2000

// coldStarts returns a contender that brings customers to memory, one after the other, and lets them leave
// again. Their roots are those of ten licences; the raw wakings get the size.
func (r *cassandraRig) coldStarts(inFlight int) meter.Contender {
	const customers = sleepers
	p, err := policy.Parse("generous", []byte(generous))
	if err != nil {
		r.Fatal(err)
	}
	store, kind := r.open(r.options), license.NewKind(p)
	rt, err := actors.New(actors.Options{
		Kind:      kind,
		Journal:   store,
		Authority: newHeld(),
		Config:    actors.DefaultConfig(),
		System:    actors.NewActorSystem(quiet()),
	})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = rt.Close(context.Background()) })
	customer := func(i int) string { return "sleeper-" + strconv.Itoa(i) }
	leave := func(i int) error {
		if _, left := rt.Passivate(context.Background(), customer(i)); !left {
			return fmt.Errorf("%s did not leave", customer(i))
		}
		return nil
	}
	each(r.B, customers, func(i int) {
		for n := range 10 {
			if _, err := rt.Execute(context.Background(), customer(i), acquire(n)); err != nil {
				r.Error(err)
			}
		}
		if err := leave(i); err != nil {
			r.Error(err)
		}
	})
	one, err := rt.Query(context.Background(), customer(0), actors.HeadQuery{})
	if err != nil {
		r.Fatal(err)
	}
	root, err := store.ReadRoot(context.Background(), one.Head.Partition.RootKey)
	if err != nil {
		r.Fatal(err)
	}
	r.work.SnapshotBytes = len(root.Snapshot)
	next := make([]int, inFlight)
	of := func(worker int) int { return worker + next[worker]*inFlight%(customers/inFlight*inFlight) }
	return meter.Contender{
		Name: fmt.Sprintf("cold activation, %d in flight", inFlight), InFlight: inFlight,
		Do: func(ctx context.Context, worker int) error {
			_, err := rt.Query(ctx, customer(of(worker)), actors.HeadQuery{})
			return err
		},
		Clear: func(_ context.Context, worker int) error {
			err := leave(of(worker))
			next[worker]++
			return err
		},
	}
}

// service starts a whole service on Cassandra, with a keyspace of its own, and returns a client over loopback.
func (r *cassandraRig) service() licensedv1connect.LicenseServiceClient {
	o := r.keyspace(r.options)
	c := node.DefaultConfig()
	c.Store = cassandratest.URL(o, "accept_risk=all")
	c.Data, c.Listen, c.Admin, c.Archive = r.TempDir(), "127.0.0.1:0", "", storage.ArchiveOff
	c.Cluster.Alone = true
	c.Runtime.Window.MinAge = 0
	c.Logger = slog.New(slog.DiscardHandler)
	n, err := node.Start(context.Background(), c)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			r.Error(err)
		}
	})
	client := licensedv1connect.NewLicenseServiceClient(harness.HTTP2(r), "http://"+n.API().String(),
		connect.WithGRPC())
	each(r.B, aggregates, func(i int) {
		_, err := client.AcquireLicense(context.Background(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: ledger(i), DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: uuid.NewString(),
		}))
		if err != nil {
			r.Error(err)
		}
	})
	return client
}

// keyspace makes a keyspace on the Cassandra of the options.
func (r *cassandraRig) keyspace(o cassandra.Options) cassandra.Options {
	o = cassandratest.Keyspace(r.B, o, min(r.nodes, 3))
	o.Logger = quiet() // the risks are known
	return o
}

// renewals returns a contender that renews licences through the API, each time another customer's.
func renewals(client licensedv1connect.LicenseServiceClient, inFlight int) meter.Contender {
	return counted("gateway", inFlight, func(worker, i int) error {
		_, err := client.RenewLicense(context.Background(), connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: ledger(worker*7919 + i), DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: uuid.NewString(),
		}))
		return err
	})
}

// report prints the ratios of the issue, with what was aimed at. The order of results is that of
// BenchmarkCassandra.
func (r *cassandraRig) report(results []meter.Result) {
	raw, conditional, raw8, rawWake := results[0], results[1], results[2], results[len(results)-2]
	runtime, alone, service := results[3:6], results[6:8], results[8:10]
	line := func(what, metric string, ratio meter.Ratio, aim string) {
		fmt.Printf("%-62s %-24v aim %s\n", what, ratio, aim)
		r.ReportMetric(ratio.Median, metric)
	}
	fmt.Println()
	for i, n := range []int{64, 256} {
		line(fmt.Sprintf("runtime at %d ÷ best raw inserts", n), fmt.Sprintf("runtime%d/raw", n),
			meter.Over(runtime[i+1], raw, meter.Rate), "≥ 0.9, grouped ≥ 1.1")
		line(fmt.Sprintf("runtime at %d, customers not grouped ÷ best raw inserts", n),
			fmt.Sprintf("ungrouped%d/raw", n), meter.Over(alone[i], raw, meter.Rate), "≥ 0.9")
		line(fmt.Sprintf("runtime at %d ÷ compare-and-set", n), fmt.Sprintf("runtime%d/cas", n),
			meter.Over(runtime[i+1], conditional, meter.Rate), "≥ 5")
		line(fmt.Sprintf("gateway at %d ÷ best raw inserts", n), fmt.Sprintf("gateway%d/raw", n),
			meter.Over(service[i], raw, meter.Rate), "")
	}
	line("median latency of the runtime at 8 ÷ raw insert's at 8", "p50-runtime8/raw8",
		meter.Over(runtime[0], raw8, meter.P50), "≤ 1.3")
	line("median latency of a cold activation ÷ two reads and an insert", "p50-cold/raw",
		meter.Over(results[len(results)-1], rawWake, meter.P50), "≤ 1.25")
}

// disk reports what an event of 120 bytes takes on the disk of one node, after compaction, and what a root
// takes. The bytes of these events do not compress; those of real ones do.
func (r *cassandraRig) disk(b *testing.B, took time.Duration) {
	if r.cluster == nil {
		fmt.Println("bytes on disk: the files of the Cassandra that was given cannot be seen")
		return
	}
	o := r.keyspace(r.options)
	if _, err := r.meter.Drive(context.Background(),
		commands(openRuntime(r.B, r.open(o), nil), "runtime", 256), took); err != nil {
		b.Fatal(err)
	}
	for i := range r.nodes {
		for _, command := range []string{"flush", "compact"} {
			r.cluster.Do(b, "nodetool", strconv.Itoa(i+1), command, o.Keyspace)
		}
	}
	driver, err := cassandrabench.OpenDriver(o, 2, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer driver.Close()
	for _, t := range []struct {
		name, column, metric string
	}{{"events", "sequence", "B/event"}, {"snapshots", "base", "B/root"}} {
		rows, err := driver.Rows(context.Background(), t.name, t.column)
		if err != nil {
			b.Fatal(err)
		}
		bytes := r.cluster.DiskUsage(b, o.Keyspace, t.name) / int64(r.nodes)
		each := float64(bytes) / float64(max(1, rows))
		fmt.Printf("%s after compaction: %d rows, %.0f bytes each on the disk of a node\n", t.name, rows, each)
		b.ReportMetric(each, t.metric)
	}
}
