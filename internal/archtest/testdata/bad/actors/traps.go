package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

type request struct{ Err error }

// A type or a field may have the name of what must not be called.
type asked struct{ Stash request }

func traps(ctx actor.Context, a asked) {
	ctx.Stash()                                      // want "traps of protoactor are not called"
	ctx.SetReceiveTimeout(time.Second)               // want "traps of protoactor are not called"
	actor.WithMailbox(actor.Bounded(1))              // want "traps of protoactor are not called"
	ctx.ActorSystem().Root.RequestWithCustomSender() // with a reply of one's own
	use(a.Stash)
}
