package sim

import (
	"flag"
	"io"
	"os"
	"testing"
)

var (
	seeds = flag.Int("seeds", 200, "how many seeds to run")
	first = flag.Uint64("seed", 1, "the first seed")
	trace = flag.Bool("trace", false, "print the trace of the first seed")
)

// TestSeeds runs many schedules and demands that each keeps the promise. A seed that fails is repeated
// with -seed=N -seeds=1 -trace.
func TestSeeds(t *testing.T) {
	var all Counts
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		c := run(seed)
		if c.Violation != "" {
			t.Fatalf("seed %d: %s", seed, c.Violation)
		}
		all.add(c)
	}
	t.Logf("%d seeds: %+v", *seeds, all)
}

func run(seed uint64) Counts {
	if *trace && seed == *first {
		return Run(seed, os.Stdout)
	}
	return Run(seed, nil)
}

// TestSameSeedSameTrace shows that a seed is all that a run depends on.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := Run(seed, nil), Run(seed, nil)
		if a != b {
			t.Fatalf("seed %d: two runs differ: %+v and %+v", seed, a, b)
		}
	}
}

// TestProtocolSeeds is TestSeeds with the real leases and shards in place of the oracle, half of the seeds.
func TestProtocolSeeds(t *testing.T) {
	var all Counts
	for seed := *first; seed < *first+uint64(*seeds+1)/2; seed++ {
		var log io.Writer
		if *trace && seed == *first {
			log = os.Stdout
		}
		c := RunProtocol(seed, log)
		if c.Violation != "" {
			t.Fatalf("seed %d: %s", seed, c.Violation)
		}
		all.add(c)
	}
	t.Logf("%d seeds: %+v", (*seeds+1)/2, all)
}

func TestSameProtocolSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := RunProtocol(seed, nil), RunProtocol(seed, nil)
		if a != b {
			t.Fatalf("seed %d: two runs differ: %+v and %+v", seed, a, b)
		}
	}
}
