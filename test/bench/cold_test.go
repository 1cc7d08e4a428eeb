package bench

import (
	"context"
	"fmt"
	"os"
	"testing"

	"licensed/actors"
	"licensed/persistence"
	"licensed/test/bench/meter"
)

// BenchmarkColdActivation holds bringing a customer to memory against what it asks of the store: two reads and
// one insert of the same bytes. Every customer has a root of ten licences and a command after it.
func BenchmarkColdActivation(b *testing.B) {
	const customers, turns = 20_000, 10
	r := newRig(b)
	customer := func(i int) string { return fmt.Sprintf("customer-%06d", i) }
	command := func(n int) {
		each(b, customers, func(i int) {
			r.do(customer(i), n)
			r.leave(customer(i))
		})
	}
	for n := range 10 {
		command(n)
	}
	for b.Loop() {
		for _, inFlight := range []int{8, 64, 256} {
			command(10)
			raw := meter.Result{
				Contender: meter.Contender{Name: fmt.Sprintf("raw two reads, one insert, %d in flight", inFlight)},
			}
			cold := meter.Result{
				Contender: meter.Contender{Name: fmt.Sprintf("cold activation, %d in flight", inFlight)},
			}
			// Raw calls and activations take turns, each with customers that nobody had before.
			for turn := range turns {
				first := turn * customers / turns
				raw.Turns = append(raw.Turns, r.turn(first, inFlight, func(i int) error {
					return r.raw(actors.AggregateID(customer(i), r.kind))
				}))
				cold.Turns = append(cold.Turns, r.turn(first+customers/turns/2, inFlight, func(i int) error {
					_, err := r.Query(context.Background(), customer(i), actors.HeadQuery{})
					return err
				}))
			}
			meter.Print(os.Stdout, []meter.Result{raw, cold})
			latency, cpu := meter.Over(cold, raw, meter.P50), meter.Over(cold, raw, meter.CPU)
			fmt.Printf("times raw: %v in median latency, %v in CPU time\n", latency, cpu)
			b.ReportMetric(latency.Median, fmt.Sprintf("p50/raw-at%d", inFlight))
			b.ReportMetric(cpu.Median, fmt.Sprintf("cpu/raw-at%d", inFlight))
		}
		b.ReportMetric(0, "ns/op")
	}
}

// turn calls f for a thousand customers.
func (r *rig) turn(first, inFlight int, f func(i int) error) meter.Measure {
	next := make(chan int, 1000)
	for i := range cap(next) {
		next <- first + i
	}
	c := meter.Contender{InFlight: inFlight, Do: func(context.Context, int) error { return f(<-next) }}
	m, err := new(meter.Meter).Count(r.Context(), c, cap(next))
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// raw does to the store what an activation does, and nothing else.
func (r *rig) raw(aggregate string) error {
	ctx := context.Background()
	root, err := r.hot.TopRoot(ctx, aggregate)
	if err != nil {
		return err
	}
	if _, err = r.hot.ReadRecords(ctx, root.Partition(), root.Base, 256); err != nil {
		return err
	}
	done := make(chan error, 1)
	// Far below the real ones, so that none is hidden.
	root.Key.Aggregate = "raw-" + aggregate
	root.Parent = persistence.RootKey{}
	root.ParentIncarnation = persistence.Incarnation{}
	r.hot.PutRoot(ctx, &root, func(err error) { done <- err })
	return <-done
}
