package sim

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
)

var (
	seeds = flag.Int("seeds", 200, "how many seeds to run")
	first = flag.Uint64("seed", 1, "the first seed")
	trace = flag.Bool("trace", false, "print the trace of the first seed")
	doc   = flag.String("table", "", "a `document` whose table of planted bugs is to be brought up to date")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400) // runs are short-lived and small
	code := m.Run()
	if *doc != "" {
		if err := writeTable(*doc); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// TestSeeds runs many schedules and demands that each keeps the promise. A seed that fails is repeated
// with -seed=N -seeds=1 -trace.
func TestSeeds(t *testing.T) { sweep(t, *seeds, Run) }

// TestProtocolSeeds is TestSeeds with the real leases and shards in place of the oracle, half of the seeds.
func TestProtocolSeeds(t *testing.T) { sweep(t, (*seeds+1)/2, RunProtocol) }

// TestReachSeeds is TestProtocolSeeds with processes that cannot reach nodes, a quarter of the seeds.
func TestReachSeeds(t *testing.T) { sweep(t, (*seeds+3)/4, RunReach) }

// TestStampSeeds is TestSeeds with commands that gateways stamp, and clocks of nodes and gateways that jump, half of
// the seeds.
func TestStampSeeds(t *testing.T) { sweep(t, (*seeds+1)/2, RunStamps) }

// TestFactSeeds is TestSeeds with facts of devices, reported late and repeatedly, half of the seeds.
func TestFactSeeds(t *testing.T) { sweep(t, (*seeds+1)/2, RunFacts) }

// TestOverlargeSeeds is TestSeeds with aggregates that are too large for a root, half of the seeds.
func TestOverlargeSeeds(t *testing.T) { sweep(t, (*seeds+1)/2, RunOverlarge) }

// TestForgetSeeds is TestSeeds with aggregates that are forgotten, half of the seeds.
func TestForgetSeeds(t *testing.T) { sweep(t, (*seeds+1)/2, RunForget) }

// sweep runs seeds on all processors. It fails with the lowest of those that fail.
func sweep(t *testing.T, n int, run func(seed uint64, log io.Writer) Counts) {
	var (
		mu      sync.Mutex
		all     Counts
		next    = *first
		failing = uint64(math.MaxUint64)
		failure string
		running sync.WaitGroup
	)
	take := func() (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		seed = next
		next++
		return seed, seed < min(*first+uint64(n), failing)
	}
	work := func() {
		for seed, ok := take(); ok; seed, ok = take() {
			var log io.Writer
			if *trace && seed == *first {
				log = os.Stdout
			}
			c := run(seed, log)
			mu.Lock()
			all.add(c)
			if c.Violation != "" && seed < failing {
				failing, failure = seed, c.Violation
			}
			mu.Unlock()
		}
	}
	for range runtime.GOMAXPROCS(0) {
		running.Go(work)
	}
	running.Wait()
	if failure != "" {
		t.Fatalf("seed %d: %s", failing, failure)
	}
	t.Logf("%d seeds: %+v", n, all)
}

// TestSameSeedSameTrace shows that a seed is all that a run depends on.
func TestSameSeedSameTrace(t *testing.T) { twice(t, Run) }

func TestSameProtocolSeedSameTrace(t *testing.T) { twice(t, RunProtocol) }

func twice(t *testing.T, run func(seed uint64, log io.Writer) Counts) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := run(seed, nil), run(seed, nil)
		if a != b {
			t.Fatalf("seed %d: two runs differ: %+v and %+v", seed, a, b)
		}
	}
}
