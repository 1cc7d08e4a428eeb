package chaos

import (
	"context"
	"fmt"
	"sync"
	"time"

	"licensed/test/chaos/check"
	"licensed/test/chaos/history"
)

// remembered is for how long, at least, the service remembers the ids of commands: what is older may be
// executed anew.
const remembered = 12 * time.Hour

// tooOld is the reason by which the service says that it does not know any more.
const tooOld = "COMMAND_TOO_OLD"

// unanswered returns the commands of which nobody knows the result, but for those that were told to
// be too old for that: what clients gave up, and what they did not repeat.
func unanswered(ops []*history.Op, now time.Duration) []history.Input {
	type fate struct{ open, closed bool }
	fates := map[[2]string]fate{}
	of := func(o *history.Op) [2]string { return [2]string{o.Input.Customer, o.Input.Command} }
	for _, o := range ops {
		if !o.Input.Records() {
			continue
		}
		f := fates[of(o)]
		if o.Output.Outcome == history.Unknown {
			f.open = true
		}
		f.closed = f.closed || o.Output.Known() || o.Output.Outcome == history.Broken || o.Output.Reason == tooOld ||
			now-time.Duration(o.Call) > remembered
		fates[of(o)] = f
	}
	var open []history.Input
	for _, o := range ops { // In the order of their calls.
		if f := fates[of(o)]; o.Input.Records() && f.open && !f.closed {
			open = append(open, o.Input)
			fates[of(o)] = fate{closed: true}
		}
	}
	return open
}

// resolve sends once more what was never answered. A client that does so after a failure must learn what came of
// a command: an id that stays without an answer is stuck, though its customer may be served.
func (r *run) resolve(ctx context.Context) {
	open := unanswered(r.recorder.Ops(), r.now())
	r.Log.Info("sending again what was never answered", "commands", len(open))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, in := range open {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if last, ok := r.load.Resolve(ctx, in, r.Recovery); !ok {
				r.fail(check.Violation{Check: check.Health, Customer: in.Customer, Text: fmt.Sprintf(
					"command %s is stuck: no answer within %v, sent again after healing; the last: %s", in.Command,
					r.Recovery, last.Reason)})
			}
		})
	}
	wg.Wait()
}
