package bench

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/actors"
	"licensed/actors/actorstest"
)

// BenchmarkRuntime holds commands through the runtime, on a journal that is done at once, against
// requests to bare protoactor actors. Both are swept over concurrency, in turn; the ratio is best to
// best.
func BenchmarkRuntime(b *testing.B) {
	r := openRuntime(b, actorstest.Discard{}, nil)
	system := actors.NewActorSystem(quiet())
	defer system.Shutdown()
	pids := make([]*actor.PID, aggregates)
	for i := range pids {
		pids[i] = system.Root.Spawn(actor.PropsFromFunc(func(c actor.Context) {
			if m, ok := c.Message().(*actorstest.Add); ok {
				c.Respond(m)
			}
		}))
	}
	message := &actorstest.Add{}
	for b.Loop() {
		var bare, runtime float64
		for _, n := range []int{8, 64, 256} {
			bareRate := rate(b, n, func(g, i int) error {
				_, err := system.Root.RequestFuture(pids[(g*7919+i)%aggregates], message, 10*time.Second).Result()
				return err
			})
			runtimeRate := rate(b, n, func(g, i int) error {
				_, err := r.Execute(b.Context(), name(g*7919+i), add(g, i))
				return err
			})
			b.Logf("%d in flight: bare %.0f/s, runtime %.0f/s", n, bareRate, runtimeRate)
			bare, runtime = max(bare, bareRate), max(runtime, runtimeRate)
		}
		b.ReportMetric(bare, "bare/s")
		b.ReportMetric(runtime, "commands/s")
		b.ReportMetric(runtime/bare, "ratio")
	}
}
