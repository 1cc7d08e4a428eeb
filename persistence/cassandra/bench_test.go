package cassandra_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"licensed/persistence/cassandra/cassandrabench"
)

// seconds reads a duration in seconds from the environment, for quick runs and thorough ones.
func duration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return otherwise
}

// BenchmarkStore compares appends through the store with raw inserts and compare-and-set. It prints a
// table and reports ratios; LICENSED_BENCH_WARMUP and LICENSED_BENCH_TURN set its pace. Run it with
// -benchtime 1x.
func BenchmarkStore(b *testing.B) {
	ctx := b.Context()
	o := keyspace(b)
	warmup, turn := duration("LICENSED_BENCH_WARMUP", 90*time.Second), duration("LICENSED_BENCH_TURN", 5*time.Second)
	w := cassandrabench.DefaultWorkload()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}

	alone, grouped := o, o
	alone.GroupPartitions = 1
	aloneStore, groupedStore := open(b, alone), open(b, grouped)
	driver, err := cassandrabench.OpenDriver(o, 2, 200*time.Microsecond)
	must(err)
	conditional, err := driver.CompareAndSet(w, 64)
	must(err)
	for end := time.Now().Add(warmup); time.Now().Before(end); {
		for _, c := range []cassandrabench.Contender{driver.Raw(w, 256), cassandrabench.Store("store", groupedStore, w, 256), conditional} {
			_, err := cassandrabench.Drive(ctx, c, warmup/12)
			must(err)
		}
	}

	best, inFlight, err := cassandrabench.Sweep(ctx, o, w, turn/2, func(d *cassandrabench.Driver, n int, m cassandrabench.Measure) {
		fmt.Printf("raw inserts, %d connections, coalescing %v, %d in flight: %.0f/s\n", d.Connections, d.Coalesce, n, m.PerSecond)
	})
	must(err)
	contenders := []cassandrabench.Contender{best.Raw(w, inFlight), best.Raw(w, 8), conditional}
	for _, n := range []int{8, 64, 256} {
		contenders = append(contenders,
			cassandrabench.Store(fmt.Sprintf("store, %d in flight", n), groupedStore, w, n),
			cassandrabench.Store(fmt.Sprintf("store without grouping, %d in flight", n), aloneStore, w, n))
	}
	var measures []cassandrabench.Measure
	for b.Loop() {
		before := groupedStore.Stats()
		measures, err = cassandrabench.Rounds(context.WithoutCancel(ctx), 3, turn, contenders...)
		must(err)
		after := groupedStore.Stats()
		fmt.Printf("writes per request with grouping: %.1f\n", float64(after.Writes-before.Writes)/float64(after.Requests-before.Requests))
	}
	cassandrabench.Print(os.Stdout, contenders, measures)
	b.ReportMetric(measures[5].PerSecond/measures[0].PerSecond, "store64/raw")
	b.ReportMetric(measures[7].PerSecond/measures[0].PerSecond, "store256/raw")
	b.ReportMetric(measures[7].PerSecond/measures[2].PerSecond, "store256/cas")
	b.ReportMetric(float64(measures[3].P50)/float64(measures[1].P50), "p50at8/raw")
}
