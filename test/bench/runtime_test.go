package bench

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/test/bench/meter"
)

// BenchmarkRuntime holds commands through the runtime, on a journal that is done at once, against
// requests to bare protoactor actors.
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
		sweep(b, []int{8, 64, 256},
			func(n int) meter.Contender {
				return counted("bare requests", n, func(worker, i int) error {
					_, err := system.Root.RequestFuture(pids[(worker*7919+i)%aggregates], message, 10*time.Second).
						Result()
					return err
				})
			},
			func(n int) meter.Contender { return commands(r, "runtime on no journal", n) })
	}
}
