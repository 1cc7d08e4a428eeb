// Package meter measures contenders against each other so that a noisy machine does not decide.
//
// # The model
//
// A contender does one operation at a time in each of several workers. Contenders take short turns, round
// by round, in an order that rotates: what else the machine does meets them alike. A rate is the median of
// a contender's turns. A ratio is taken within each round, and is the median of these; its quarters say
// how far it is to be trusted. What an operation takes of CPU time is measured too, here and in the
// processes of a store, since it depends less on what else runs.
package meter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
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
	// Do does one operation; worker is below InFlight and never used twice at once.
	Do func(ctx context.Context, worker int) error
	// Clear, if set, is called after Do and is not part of its latency.
	Clear func(ctx context.Context, worker int) error
	// InFlight is the number of workers.
	InFlight int
	// Counters, if set, returns what was used so far, each of some kind. It is called at the start and at the end of a
	// turn, at the start as late and at the end as early as possible.
	Counters func(ctx context.Context, start bool) ([]float64, error)
}

// Measure is what one turn, or the median of several, resulted in.
type Measure struct {
	PerSecond float64
	P50, P99  time.Duration
	// CPU per operation of this process, and of the store if the meter knows its processes.
	CPU, StoreCPU time.Duration
	// Used per operation, of each counter of the contender.
	Used []float64
}

// Meter measures. The zero Meter is ready to use.
type Meter struct {
	// StorePIDs are processes of the store, if they are on this machine.
	StorePIDs []int
	// Progress, if set, is called by Rounds after each turn.
	Progress func(done, all int, c Contender, m Measure)
}

// Drive gives a contender one turn. It stops at the first error.
func (m *Meter) Drive(ctx context.Context, c Contender, turn time.Duration) (Measure, error) {
	return m.measure(ctx, c, math.MaxInt64, turn)
}

// Count is Drive for this many operations, however long they take.
func (m *Meter) Count(ctx context.Context, c Contender, operations int) (Measure, error) {
	return m.measure(ctx, c, int64(operations), math.MaxInt64)
}

func (m *Meter) measure(ctx context.Context, c Contender, operations int64, turn time.Duration) (Measure, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	latencies := make([][]time.Duration, c.InFlight)
	var stop atomic.Bool
	var left atomic.Int64
	left.Store(operations)
	counted, err := c.counters(ctx, true)
	if err != nil {
		return Measure{}, err
	}
	var wg sync.WaitGroup
	cpu, storeCPU, start := ProcessCPU(), m.storeCPU(), time.Now()
	for w := range c.InFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 { // a turn is one operation of each worker at least
				took, err := c.once(ctx, w)
				if err != nil {
					stop.Store(true)
					cancel(fmt.Errorf("%s: %w", c.Name, err))
					return
				}
				if latencies[w] = append(latencies[w], took); stop.Load() {
					return
				}
			}
		})
	}
	over := time.AfterFunc(turn, func() { stop.Store(true) })
	wg.Wait()
	over.Stop()
	elapsed := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return Measure{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return Measure{}, fmt.Errorf("%s: nothing was done", c.Name)
	}
	n := time.Duration(len(all))
	used, storeUsed := ProcessCPU()-cpu, m.storeCPU()-storeCPU
	each, err := c.counters(ctx, false)
	if err != nil {
		return Measure{}, err
	}
	for i := range each {
		each[i] = (each[i] - counted[i]) / float64(n)
	}
	slices.Sort(all)
	return Measure{
		PerSecond: float64(n) / elapsed.Seconds(),
		P50:       all[len(all)/2],
		P99:       all[len(all)*99/100],
		CPU:       used / n,
		StoreCPU:  storeUsed / n,
		Used:      each,
	}, nil
}

func (c *Contender) counters(ctx context.Context, start bool) ([]float64, error) {
	if c.Counters == nil {
		return nil, nil
	}
	all, err := c.Counters(ctx, start)
	if err != nil {
		return nil, fmt.Errorf("%s: read the counters: %w", c.Name, err)
	}
	return all, nil
}

func (c *Contender) once(ctx context.Context, worker int) (time.Duration, error) {
	began := time.Now()
	if err := c.Do(ctx, worker); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if c.Clear != nil {
		return took, c.Clear(ctx, worker)
	}
	return took, nil
}

// storeCPU is what the store's processes used so far, in the kernel's ticks of 10 ms.
func (m *Meter) storeCPU() time.Duration {
	var ticks int64
	for _, pid := range m.StorePIDs {
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

// ProcessCPU returns the CPU time that this process used so far.
func ProcessCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Result is a contender with its turns, one for each round.
type Result struct {
	Contender
	Turns []Measure
}

// Rounds gives every contender a turn in each round, and returns the results in their order.
func (m *Meter) Rounds(ctx context.Context, rounds int, turn time.Duration, contenders ...Contender) ([]Result, error) {
	results := make([]Result, len(contenders))
	for i, c := range contenders {
		results[i].Contender = c
	}
	for r := range rounds {
		for i := range results {
			one := &results[(i+r)%len(results)]
			measure, err := m.Drive(ctx, one.Contender, turn)
			if err != nil {
				return nil, err
			}
			one.Turns = append(one.Turns, measure)
			if m.Progress != nil {
				m.Progress(r*len(results)+i+1, rounds*len(results), one.Contender, measure)
			}
		}
	}
	return results, nil
}

// Median returns the median of each figure by itself.
func (r *Result) Median() Measure {
	return Measure{
		PerSecond: middle(r.Turns, Rate),
		P50:       time.Duration(middle(r.Turns, P50)),
		P99:       time.Duration(middle(r.Turns, func(m Measure) float64 { return float64(m.P99) })),
		CPU:       time.Duration(middle(r.Turns, CPU)),
		StoreCPU:  time.Duration(middle(r.Turns, func(m Measure) float64 { return float64(m.StoreCPU) })),
		Used:      r.used(),
	}
}

// used returns the median of each counter.
func (r *Result) used() []float64 {
	all := make([]float64, len(r.Turns[0].Used))
	for i := range all {
		all[i] = middle(r.Turns, func(m Measure) float64 { return m.Used[i] })
	}
	return all
}

// Figures that results are compared by.
var (
	Rate = func(m Measure) float64 { return m.PerSecond }
	P50  = func(m Measure) float64 { return float64(m.P50) }
	CPU  = func(m Measure) float64 { return float64(m.CPU) }
)

func middle(turns []Measure, figure func(Measure) float64) float64 {
	_, m, _ := quarters(figuresOf(turns, figure))
	return m
}

func figuresOf(turns []Measure, figure func(Measure) float64) []float64 {
	figures := make([]float64, len(turns))
	for i, m := range turns {
		figures[i] = figure(m)
	}
	return figures
}

func quarters(figures []float64) (low, middle, high float64) {
	slices.Sort(figures)
	n := len(figures)
	return figures[n/4], figures[n/2], figures[n-1-n/4]
}

// Best returns the result with the highest median rate.
func Best(results ...Result) Result {
	return slices.MaxFunc(results, func(a, b Result) int {
		return int(a.Median().PerSecond - b.Median().PerSecond)
	})
}

// Ratio is one contender's figure over another's in the same rounds.
type Ratio struct{ Low, Median, High float64 }

// Over compares a with b, round by round. They must be of one call of Rounds.
func Over(a, b Result, figure func(Measure) float64) Ratio {
	ratios := figuresOf(a.Turns, figure)
	for i, f := range figuresOf(b.Turns, figure) {
		ratios[i] /= f
	}
	var r Ratio
	r.Low, r.Median, r.High = quarters(ratios)
	return r
}

func (r Ratio) String() string { return fmt.Sprintf("%.2f (%.2f to %.2f)", r.Median, r.Low, r.High) }

// Print writes a line per result, with its rate over the first one's.
func Print(w io.Writer, results []Result) {
	fmt.Fprintf(w, "%-44s %9s %8s %10s %10s %10s %10s\n", "", "per s", "÷ first", "p50", "p99", "our CPU", "store's")
	for _, r := range results {
		m := r.Median()
		fmt.Fprintf(w, "%-44s %9.0f %8.2f %10v %10v %10v %10v\n", r.Name, m.PerSecond, Over(r, results[0], Rate).Median,
			m.P50.Round(time.Microsecond), m.P99.Round(time.Microsecond), m.CPU.Round(100*time.Nanosecond),
			m.StoreCPU.Round(100*time.Nanosecond))
	}
}
