package actors_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/actors"
	"licensed/actors/actorstest"
)

// rate runs f from so many goroutines for a while and returns calls per second.
func rate(b *testing.B, goroutines int, f func(goroutine, i int)) float64 {
	b.Helper()
	const span = time.Second
	run.Add(1)
	var calls atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	begin := time.Now()
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			i := 0
			for ; !stop.Load(); i++ {
				f(g, i)
			}
			calls.Add(int64(i))
		}()
	}
	time.Sleep(span)
	stop.Store(true)
	wg.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds()
}

// run makes ids of different calls different.
var run atomic.Int64

// command returns a cheap command of its own id, issued now.
func command(goroutine, i int) actors.Command {
	var id [24]byte
	b := strconv.AppendInt(id[:0], int64(goroutine), 36)
	b = strconv.AppendInt(append(b, '-'), int64(i), 36)
	b = strconv.AppendInt(append(b, '-'), run.Load(), 36)
	return actors.Command{ID: string(b), IssuedAt: time.Now(), Payload: one}
}

var one any = actorstest.Add{Amount: 1}

// BenchmarkRuntimeToBareActor holds commands through the runtime, on a journal that is done at once,
// against requests to bare protoactor actors. Both are swept over concurrency, in turn; the ratio is
// best to best.
func BenchmarkRuntimeToBareActor(b *testing.B) {
	const aggregates = 1000
	s := start(b, actorstest.Discard{}, func(o *actors.Options) {
		o.Config.SnapshotEvery = 100
		o.Config.CompactAfter = time.Hour
	})
	system := actors.NewActorSystem(quiet())
	pids := make([]*actor.PID, aggregates)
	for i := range pids {
		pids[i] = system.Root.Spawn(actor.PropsFromFunc(func(c actor.Context) {
			if m, ok := c.Message().(*actorstest.Add); ok {
				c.Respond(m)
			}
		}))
	}
	names := make([]string, aggregates)
	for i := range names {
		names[i] = fmt.Sprint("customer", i)
	}
	message := &actorstest.Add{}
	for b.Loop() {
		var bare, runtime float64
		for _, g := range []int{8, 64, 256} {
			bare = max(bare, rate(b, g, func(g, i int) {
				if _, err := system.Root.RequestFuture(pids[(g*31+i)%aggregates], message, 10*time.Second).Result(); err != nil {
					b.Error(err)
				}
			}))
			runtime = max(runtime, rate(b, g, func(g, i int) {
				if _, err := s.Execute(b.Context(), names[(g*31+i)%aggregates], command(g, i)); err != nil {
					b.Error(err)
				}
			}))
		}
		b.ReportMetric(bare, "bare/s")
		b.ReportMetric(runtime, "runtime/s")
		b.ReportMetric(runtime/bare, "ratio")
	}
}

// hotConfig lets one aggregate go as fast as it can. The defaults hold a customer to 1,024 commands in
// ten minutes, to keep the window of remembered commands small; here it covers a tenth of a second.
func hotConfig(o *actors.Options) {
	o.Config.SnapshotEvery = 1000
	o.Config.Window.MaxCommands = 8192
	o.Config.Window.MinAge = 0
}

// BenchmarkHotCustomer has 512 clients send to one aggregate on a journal that is done at once.
func BenchmarkHotCustomer(b *testing.B) {
	s := start(b, actorstest.Discard{}, hotConfig)
	for b.Loop() {
		r := rate(b, 512, func(g, i int) {
			if _, err := s.Execute(b.Context(), "hot", command(g, i)); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(r, "commands/s")
	}
}

func BenchmarkRuntimeOnly(b *testing.B) {
	s := start(b, actorstest.Discard{}, func(o *actors.Options) { o.Config.CompactAfter = time.Hour })
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("customer", i)
	}
	for b.Loop() {
		r := rate(b, 64, func(g, i int) {
			if _, err := s.Execute(b.Context(), names[(g*31+i)%1000], command(g, i)); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(r, "commands/s")
	}
}
