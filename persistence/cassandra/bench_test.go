package cassandra_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandrabench"
	"licensed/persistence/cassandra/cassandratest"
)

// duration reads a duration from the environment, for quick runs and thorough ones.
func duration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return otherwise
}

// bench is the Cassandra of a benchmark: that of the tests or, if LICENSED_BENCH_NODES says how many,
// nodes of its own, with LICENSED_BENCH_ENV as their settings ("SYNC=group BATCH_WARN_KIB=64").
func bench(b *testing.B) (cassandra.Options, *cassandratest.Cluster) {
	b.Helper()
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv("LICENSED_BENCH_NODES"), "0"))
	check(b, err)
	if nodes == 0 {
		return keyspace(b), shared.cluster
	}
	c := cassandratest.Start(b, cassandratest.Config{Nodes: nodes, Env: strings.Fields(os.Getenv("LICENSED_BENCH_ENV"))})
	return cassandratest.Keyspace(b, c.Options(), min(nodes, 3)), c
}

// BenchmarkStore compares appends through the store with raw inserts and compare-and-set. It prints a
// table and reports ratios; LICENSED_BENCH_WARMUP (90s), LICENSED_BENCH_TURN (5s) and
// LICENSED_BENCH_ROUNDS (5) set its pace. Run it with -benchtime 1x.
func BenchmarkStore(b *testing.B) {
	ctx := context.WithoutCancel(b.Context())
	o, cluster := bench(b)
	warmup, turn := duration("LICENSED_BENCH_WARMUP", 90*time.Second), duration("LICENSED_BENCH_TURN", 5*time.Second)
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("LICENSED_BENCH_ROUNDS"), "5"))
	check(b, err)
	w := cassandrabench.DefaultWorkload()
	var meter cassandrabench.Meter
	if cluster != nil {
		meter.ServerPIDs = cluster.PIDs(b)
	}

	single := o
	single.GroupPartitions, single.BatchesInFlight = 1, 4096
	alone, grouped := open(b, single), open(b, o)
	driver, err := cassandrabench.OpenDriver(o, 2, 0)
	check(b, err)
	defer driver.Close()
	conditional, err := driver.CompareAndSet(w, 64)
	check(b, err)
	warm := []cassandrabench.Contender{
		driver.Raw(w, 256), cassandrabench.Store("", grouped, w, 256), conditional, driver.RawWake(w, 16),
	}
	for end := time.Now().Add(warmup); time.Now().Before(end); {
		for _, c := range warm {
			_, err := meter.Drive(ctx, c, warmup/16)
			check(b, err)
		}
	}

	best, inFlight, err := meter.Sweep(ctx, o, w, turn/2, func(d *cassandrabench.Driver, n int, m cassandrabench.Measure) {
		fmt.Printf("raw inserts, %d connections, coalescing %v, %d in flight: %.0f/s\n", d.Connections, d.Coalesce, n, m.PerSecond)
	})
	check(b, err)
	defer best.Close()
	contenders := []cassandrabench.Contender{best.Raw(w, inFlight), conditional, driver.Raw(w, 8)}
	for _, n := range []int{8, 64, 256} {
		contenders = append(contenders,
			cassandrabench.Store(fmt.Sprintf("store, %d in flight", n), grouped, w, n),
			cassandrabench.Store(fmt.Sprintf("store without grouping, %d in flight", n), alone, w, n))
	}
	contenders = append(contenders, driver.RawWake(w, 16), cassandrabench.Wake("store, waking, 16 in flight", grouped, w, 16))
	var ms []cassandrabench.Measure
	for b.Loop() {
		before := grouped.Stats()
		ms, err = meter.Rounds(ctx, rounds, turn, contenders...)
		check(b, err)
		after := grouped.Stats()
		fmt.Printf("writes per request with grouping: %.1f\n", float64(after.Writes-before.Writes)/float64(after.Requests-before.Requests))
	}
	cassandrabench.Print(os.Stdout, contenders, ms)
	report(b, ms)
}

// report reports the ratios of BenchmarkStore's measures.
func report(b *testing.B, ms []cassandrabench.Measure) {
	raw, conditional, rawAt8, storeAt8, storeAt64, storeAt256, rawWake, wake := ms[0], ms[1], ms[2], ms[3], ms[5], ms[7], ms[9], ms[10]
	b.ReportMetric(storeAt64.PerSecond/raw.PerSecond, "at64/raw")
	b.ReportMetric(storeAt256.PerSecond/raw.PerSecond, "at256/raw")
	b.ReportMetric(storeAt64.PerSecond/conditional.PerSecond, "at64/cas")
	b.ReportMetric(storeAt256.PerSecond/conditional.PerSecond, "at256/cas")
	b.ReportMetric(float64(storeAt8.P50)/float64(rawAt8.P50), "p50-at8/raw")
	b.ReportMetric(float64(wake.P50)/float64(rawWake.P50), "p50-wake/raw")
}

// BenchmarkDiskBytes reports what an event of 120 bytes takes on the disk of one node, after
// compaction. The events do not compress; real ones do.
func BenchmarkDiskBytes(b *testing.B) {
	o, cluster := bench(b)
	if cluster == nil {
		b.Skip("the files of the Cassandra that was given cannot be seen")
	}
	s := open(b, o)
	w := cassandrabench.DefaultWorkload()
	for b.Loop() {
		_, err := new(cassandrabench.Meter).Drive(context.WithoutCancel(b.Context()), cassandrabench.Store("store", s, w, 256), 20*time.Second)
		check(b, err)
	}
	for _, command := range []string{"flush", "compact"} {
		cluster.Do(b, "nodetool", "1", command, o.Keyspace)
	}
	stats := s.Stats()
	events := cluster.DiskUsage(b, o.Keyspace, "events")
	roots, err := cassandra.Rows(b.Context(), o, "snapshots")
	check(b, err)
	b.ReportMetric(float64(events)/float64(stats.Rows-uint64(roots)), "bytes/event")
	b.ReportMetric(float64(cluster.DiskUsage(b, o.Keyspace, "snapshots"))/float64(roots), "bytes/root-of-2000")
}
