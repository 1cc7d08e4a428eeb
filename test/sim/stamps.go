package sim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
)

// roomy is a window that forgets by age alone: no run has that number of commands.
const roomy = 100_000

// RunStamps runs one seed as Run does, with commands that gateways stamp, and with wall clocks of nodes and gateways
// that jump, ahead and back. Clients repeat such commands only where the window promises to remember them. In runs
// where they do, either the nodes' clocks jump or the gateways', as that promise holds against one wrong clock.
func RunStamps(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x7374616d7073))
	p := paramsOf(r)
	p.Gateways, p.Stamped, p.ClocksBehind = 1+r.IntN(3), 0.3+0.7*r.Float64(), true
	p.Config.Window.MaxAge = 8 * time.Second
	p.WrongClock, p.WrongGateway = 0.6*r.Float64(), 0.6*r.Float64()
	switch r.IntN(3) {
	case 0:
		p.Config.Window.MaxCommands, p.WrongGateway = roomy, 0
	case 1:
		p.Config.Window.MaxCommands, p.WrongClock = roomy, 0
	}
	return runWith(r, p, log)
}

// checkServed demands that every aggregate takes commands once the world is healed and clocks are right, whatever
// gateways stamped before: one with an issue time of the client, and one without.
func (w *world) checkServed() {
	if w.params.Stamped == 0 {
		return
	}
	for i := range w.params.Aggregates {
		for _, stamped := range []bool{true, false} {
			o := &op{
				kind: opAdd, aggregate: aggregateName(i), id: fmt.Sprintf("last-%s-%t", aggregateName(i), stamped),
				first: w.now, began: w.now,
				add:      actorstest.Add{Amount: 1, Split: 1},
				stamped:  stamped,
				issuedAt: epochStart.Add(time.Duration(w.now) * time.Microsecond),
			}
			w.ops = append(w.ops, o)
			if err := w.insist(o); err != nil && !errors.Is(err, actors.ErrImporting) {
				w.fail("%s takes no command after the world was healed: %v", o.aggregate, err)
			}
		}
	}
}

// insist sends an op until it is answered, or refused for good.
func (w *world) insist(o *op) (err error) {
	for range 100 {
		answered := false
		w.gateways[0].handle(o, func(r *actors.Request) {
			if answered = true; r.Err == nil && !o.acked {
				o.acked, o.reply, o.ended = true, r.Reply, w.now
			}
			err = r.Err
		})
		for range 50 {
			if w.run(w.now + 10*millisecond); answered {
				break
			}
		}
		var limited *actors.RateLimitedError
		switch {
		case answered && err == nil:
			return nil
		case errors.As(err, &limited):
			w.run(w.now + micros(limited.RetryAfter/time.Microsecond))
		case o.stamped && errors.Is(err, actors.ErrTooOld):
			// An attempt was answered late, so the gateway must not stamp the command again. The client sends
			// another one.
			o.id += "-again"
		case errors.Is(err, actors.ErrTooOld), errors.Is(err, actors.ErrIssuedAhead),
			errors.Is(err, actors.ErrIDReused):
			return err
		}
	}
	return fmt.Errorf("no answer: %w", err)
}
