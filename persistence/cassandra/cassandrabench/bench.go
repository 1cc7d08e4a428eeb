// Package cassandrabench measures what is written to Cassandra per second against what Cassandra can
// take: the raw limit is the best of a sweep of prepared inserts by the driver alone, of the same rows
// into the same table, in the same run.
//
// Cassandra's compilers need one to two minutes of load before its figures settle, and the order of
// runs matters even then. So a run is: warm up, sweep, then rounds in which every contender has a turn,
// and the medians of the rounds are compared. What shares the machine shares the noise.
package cassandrabench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Contender does one operation at a time in each of several workers.
type Contender struct {
	Name string
	// Do does one operation; worker is below the number in flight and never used twice at once.
	Do func(ctx context.Context, worker int) error
	// InFlight is the number of workers.
	InFlight int
}

// Measure is what one turn, or the median of several, came to.
type Measure struct {
	PerSecond float64
	P50, P99  time.Duration
	// CPU per operation of this process, and of Cassandra if the meter knows its processes.
	CPU, ServerCPU time.Duration
}

// Meter measures. The zero Meter is ready to use.
type Meter struct {
	// ServerPIDs are Cassandra's processes, if they are on this machine.
	ServerPIDs []int
}

// Drive runs a contender for a time. It stops at the first error.
func (m *Meter) Drive(ctx context.Context, c Contender, d time.Duration) (Measure, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	latencies := make([][]time.Duration, c.InFlight)
	var stop atomic.Bool
	var wg sync.WaitGroup
	cpu, serverCPU, start := processCPU(), m.serverCPU(), time.Now()
	for w := range c.InFlight {
		wg.Go(func() {
			for !stop.Load() {
				before := time.Now()
				if err := c.Do(ctx, w); err != nil {
					stop.Store(true)
					cancel(fmt.Errorf("%s: %w", c.Name, err))
					return
				}
				latencies[w] = append(latencies[w], time.Since(before))
			}
		})
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	stop.Store(true)
	wg.Wait()
	elapsed := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return Measure{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return Measure{}, fmt.Errorf("%s: nothing was done in %v", c.Name, d)
	}
	slices.Sort(all)
	return Measure{
		PerSecond: float64(len(all)) / elapsed.Seconds(),
		P50:       all[len(all)/2],
		P99:       all[len(all)*99/100],
		CPU:       (processCPU() - cpu) / time.Duration(len(all)),
		ServerCPU: (m.serverCPU() - serverCPU) / time.Duration(len(all)),
	}, nil
}

// serverCPU is what Cassandra's processes used so far, in the kernel's ticks of 10 ms.
func (m *Meter) serverCPU() time.Duration {
	var ticks int64
	for _, pid := range m.ServerPIDs {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name, in parentheses, may have spaces; after it utime and stime are the 12th and 13th.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		for _, field := range fields[11:13] {
			if n, err := strconv.ParseInt(field, 10, 64); err == nil {
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Rounds gives every contender a turn in each round, in an order that rotates, and returns the medians
// in the order of the contenders.
func (m *Meter) Rounds(ctx context.Context, rounds int, turn time.Duration, contenders ...Contender) ([]Measure, error) {
	turns := make([][]Measure, len(contenders))
	for r := range rounds {
		for i := range contenders {
			i = (i + r) % len(contenders)
			one, err := m.Drive(ctx, contenders[i], turn)
			if err != nil {
				return nil, err
			}
			turns[i] = append(turns[i], one)
		}
	}
	medians := make([]Measure, len(contenders))
	for i, ms := range turns {
		medians[i] = median(ms)
	}
	return medians, nil
}

// median takes each figure by itself.
func median(ms []Measure) Measure {
	return Measure{
		PerSecond: middle(ms, func(m Measure) float64 { return m.PerSecond }),
		P50:       middle(ms, func(m Measure) time.Duration { return m.P50 }),
		P99:       middle(ms, func(m Measure) time.Duration { return m.P99 }),
		CPU:       middle(ms, func(m Measure) time.Duration { return m.CPU }),
		ServerCPU: middle(ms, func(m Measure) time.Duration { return m.ServerCPU }),
	}
}

func middle[T float64 | time.Duration](ms []Measure, figure func(Measure) T) T {
	figures := make([]T, len(ms))
	for i, m := range ms {
		figures[i] = figure(m)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// Print writes a line per contender, with ratios to the first.
func Print(w io.Writer, contenders []Contender, measures []Measure) {
	fmt.Fprintf(w, "%-40s %9s %8s %10s %10s %10s %10s\n", "", "per s", "÷ first", "p50", "p99", "our CPU", "its CPU")
	for i, m := range measures {
		fmt.Fprintf(w, "%-40s %9.0f %8.2f %10v %10v %10v %10v\n", contenders[i].Name, m.PerSecond, m.PerSecond/measures[0].PerSecond,
			m.P50.Round(10*time.Microsecond), m.P99.Round(10*time.Microsecond), m.CPU.Round(100*time.Nanosecond), m.ServerCPU.Round(100*time.Nanosecond))
	}
}
