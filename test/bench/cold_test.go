package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"licensed/actors"
	"licensed/persistence"
)

// BenchmarkColdActivation holds bringing a customer to memory against what it asks of the store: two reads and
// one insert of the same bytes. The two take turns in short slices, at several concurrencies; the ratios
// are those of the best concurrency of each, in time and in CPU time of the process.
func BenchmarkColdActivation(b *testing.B) {
	const customers, slice = 12_000, 1000
	r := newRig(b)
	customer := func(i int) string { return fmt.Sprintf("customer-%06d", i%customers) }
	each(b, customers, func(i int) {
		for n := range 10 {
			r.do(customer(i), n)
		}
		r.leave(customer(i))
	})
	raw := func(i int) error { return r.raw(actors.AggregateID(customer(i), r.kind)) }
	cold := func(i int) error {
		_, err := r.Query(b.Context(), customer(i), actors.HeadQuery{})
		return err
	}
	for b.Loop() {
		best := [2]cost{{time: time.Hour}, {time: time.Hour}}
		for _, n := range []int{16, 64, 256} {
			var sum [2]cost
			for first := 0; first < customers; first += slice {
				which := first / slice % 2
				sum[which].add(b, n, first, slice, [...]func(int) error{raw, cold}[which])
			}
			// All but those who were woken read as much next time as they did now: one command.
			each(b, customers, func(i int) {
				r.do(customer(i), 10+n)
				r.leave(customer(i))
			})
			b.Logf("%d at a time: raw %v, activations %v", n, sum[0], sum[1])
			for i := range best {
				best[i] = best[i].min(sum[i])
			}
		}
		b.ReportMetric(best[0].rate(), "raw/s")
		b.ReportMetric(best[1].rate(), "activations/s")
		b.ReportMetric(best[1].perCall().Seconds()/best[0].perCall().Seconds(), "times-raw")
		b.ReportMetric(best[1].cpuPerCall().Seconds()/best[0].cpuPerCall().Seconds(), "times-raw-cpu")
	}
}

// cost is what calls took.
type cost struct {
	calls     int
	time, cpu time.Duration
}

// add runs f for first … first+count-1, so many at a time.
func (c *cost) add(b *testing.B, atATime, first, count int, f func(i int) error) {
	var next atomic.Int64
	var g errgroup.Group
	began, cpu := time.Now(), processCPU()
	for range atATime {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := f(first + i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	c.calls += count
	c.time += time.Since(began)
	c.cpu += processCPU() - cpu
}

func (c cost) rate() float64             { return float64(c.calls) / c.time.Seconds() }
func (c cost) perCall() time.Duration    { return c.time / time.Duration(max(1, c.calls)) }
func (c cost) cpuPerCall() time.Duration { return c.cpu / time.Duration(max(1, c.calls)) }

// min returns the one that is faster.
func (c cost) min(d cost) cost {
	if c.calls == 0 || d.perCall() < c.perCall() {
		return d
	}
	return c
}

func (c cost) String() string {
	return fmt.Sprintf("%.0f/s with %v of CPU each", c.rate(), c.cpuPerCall())
}

// processCPU is the CPU time that this process used.
func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raw does to the store what an activation does, and nothing else.
func (r *rig) raw(aggregate string) error {
	root, err := r.hot.TopRoot(r.Context(), aggregate)
	if err != nil {
		return err
	}
	if _, err = r.hot.ReadRecords(r.Context(), root.Partition(), root.Base, 256); err != nil {
		return err
	}
	done := make(chan error, 1)
	// Far below the real ones, so that none is hidden.
	root.Key.Aggregate, root.Parent, root.ParentIncarnation = "raw-"+aggregate, persistence.RootKey{}, persistence.Incarnation{}
	r.hot.PutRoot(context.Background(), &root, func(err error) { done <- err })
	return <-done
}
