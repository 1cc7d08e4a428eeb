package sim

import (
	"errors"
	"fmt"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
)

type opKind uint8

const (
	opAdd opKind = iota
	opValidate
	opRead
)

// op is one thing that a client wants, with all its attempts.
type op struct {
	kind      opKind
	aggregate string
	id        string
	add       actorstest.Add
	issuedAt  time.Time
	stamped   bool   // the client gives no issue time; gateways do
	first     micros // when the command was sent for the first time
	began     micros
	ended     micros // 0 while it is open

	// What the client was told.
	acked   bool
	reply   actors.Reply
	answer  actors.Answer
	refusal error // a certain "no" of the runtime (too old, rate limited, …)

	unsettled int // attempts that may yet be or may have been executed
}

// client does one op after the other.
type client struct {
	w    *world
	id   int
	next int
	done int
	past []*op // own ops, to be repeated late
	// facts are those that the client has as a device, by aggregate.
	facts map[string]*queue
}

func (c *client) loop() {
	w := c.w
	if c.done >= w.params.OpsPerClient {
		return
	}
	c.done++
	if len(c.past) > 0 && w.chance(w.params.RepeatOld) {
		if o := c.past[w.IntN(len(c.past))]; w.repeatable(o) {
			c.repeat(o)
			return
		}
	}
	c.next++
	o := &op{
		aggregate: aggregateName(w.IntN(w.params.Aggregates)),
		id:        fmt.Sprintf("c%d-%d", c.id, c.next),
		issuedAt:  epochStart.Add(time.Duration(w.now) * time.Microsecond),
		first:     w.now,
		began:     w.now,
	}
	switch {
	case w.Float64() < w.params.Read, w.awaitsImport(o.aggregate):
		o.kind = opRead
	case w.Float64() < 0.05:
		o.kind = opValidate
		fallthrough
	default:
		o.add = actorstest.Add{Amount: uint64(1 + w.IntN(4)), Split: 1 + w.IntN(3)}
		o.add.Frees = w.params.Frees > 0 && w.chance(w.params.Frees)
		o.add.Panic = o.kind == opAdd && w.chance(w.params.PanicDecide)
		if w.params.Facts > 0 && o.kind == opAdd && w.chance(w.params.Facts) {
			c.report(o)
		}
	}
	o.stamped = o.kind != opRead && w.params.Stamped > 0 && w.Float64() < w.params.Stamped
	w.ops = append(w.ops, o)
	if o.kind == opAdd {
		c.past = append(c.past, o)
	}
	c.attempt(o, 1)
}

// repeat sends an old command once more and checks nothing yet: whatever it is told must agree with
// the history in the end.
func (c *client) repeat(o *op) {
	again := &op{kind: opAdd, aggregate: o.aggregate, id: o.id, add: o.add, issuedAt: o.issuedAt, stamped: o.stamped,
		first: o.first, began: c.w.now}
	c.w.ops = append(c.w.ops, again)
	c.w.counts.Repeats++
	c.attempt(again, 3)
}

// attempt sends the op to a node and waits for an answer, for a time.
func (c *client) attempt(o *op, number int) {
	w := c.w
	settled := false
	o.unsettled++
	c.send(o, func(r *actors.Request) {
		if settled {
			return
		}
		settled = true
		c.told(o, r, number)
	})
	if w.chance(w.params.DuplicateMessage) && w.repeatable(o) {
		o.unsettled++
		c.send(o, func(*actors.Request) {})
	}
	w.after(w.params.ClientTimeout, "client timeout "+o.id, func() {
		if !settled {
			settled = true
			c.again(o, number)
		}
	})
}

// send brings a request to a gateway, if there are any, or to a node, and its answer back; either may be
// lost.
func (c *client) send(o *op, reply func(*actors.Request)) {
	w := c.w
	if len(w.gateways) == 0 {
		w.deliver(w.owner(o.aggregate), o.aggregate, o.id, o.request, reply)
		return
	}
	g := w.gateways[w.IntN(len(w.gateways))]
	w.carry("request "+o.id+" to "+g.name, func() {
		g.handle(o, func(r *actors.Request) { w.carry("reply "+o.id, func() { reply(r) }) })
	})
}

// repeatable says whether a client may send a command again that may have been executed: with an issue time always,
// without one while the window promises to remember it. That is for its age, unless so great a number of commands
// follow that number counts. The repeat must reach the owner by then: it may be in flight for longer than the client
// takes to send it.
func (w *world) repeatable(o *op) bool {
	return !o.stamped || w.params.Config.Window.MaxCommands == roomy &&
		w.now-o.first < micros(w.params.Config.Window.MaxAge/time.Microsecond)/4
}

// carry brings a message from one place to another, unless it is lost.
func (w *world) carry(what string, arrive func()) {
	if !w.chance(w.params.LoseMessage) {
		w.after(w.latency(), what, arrive)
	}
}

// owner returns the node that most would send requests for an aggregate to, or any other.
func (w *world) owner(aggregate string) *node {
	n := w.authority.guess(w.shardOf(aggregate))
	if n == nil || w.chance(0.1) {
		n = w.nodes[w.IntN(len(w.nodes))]
	}
	return n
}

// deliver brings a request to a node and its answer back; either may be lost.
func (w *world) deliver(
	n *node, aggregate, what string, request func(*node) *actors.Request, reply func(*actors.Request),
) {
	w.carry("request "+what+" to "+n.name, func() {
		if !n.up {
			return
		}
		n.later(0, "handle "+what, func() {
			n.request(aggregate, request(n), func(r *actors.Request) {
				w.carry("reply "+what, func() { reply(r) })
			})
		})
	})
}

// request returns what a node is asked for the op.
func (o *op) request(n *node) *actors.Request {
	if o.kind == opRead {
		return &actors.Request{Query: actorstest.Total{}}
	}
	return &actors.Request{
		Command: actors.Command{
			ID: o.id, Fingerprint: o.add.Number<<32 | o.add.Amount<<8 | uint64(o.add.Split), IssuedAt: o.issuedAt,
			ValidateOnly: o.kind == opValidate, Payload: o.add,
		},
		Deadline: n.steady().Add(time.Duration(n.w.params.ClientTimeout) * time.Microsecond),
	}
}

// told processes an answer.
func (c *client) told(o *op, r *actors.Request, number int) {
	w := c.w
	err := r.Err
	var limited *actors.RateLimitedError
	switch {
	case err == nil:
		o.acked, o.reply, o.answer = true, r.Reply, r.Answer
		w.counts.Acked++
		c.finish(o)
	case errors.Is(err, actors.ErrUnknownOutcome):
		c.again(o, number)
	case errors.Is(err, actors.ErrForgotten):
		o.unsettled--
		w.noteForgotten(o.aggregate)
		c.finish(o)
	case errors.Is(err, actors.ErrIDReused):
		w.fail("%s was told that its id was used with other content", o.id)
	case errors.Is(err, actors.ErrTooOld), errors.As(err, &limited), errors.Is(err, actors.ErrPanic),
		errors.Is(err, actors.ErrRejected):
		o.unsettled--
		o.refusal = err
		if errors.Is(err, actors.ErrTooOld) {
			w.counts.TooOld++
		}
		c.finish(o)
	default: // not executed
		o.unsettled--
		c.again(o, number)
	}
}

func (c *client) again(o *op, number int) {
	w := c.w
	if number >= 4 || !w.repeatable(o) && o.unsettled > 0 {
		c.finish(o)
		return
	}
	w.after(w.between(millisecond, 60*millisecond), "retry "+o.id, func() { c.attempt(o, number+1) })
}

func (c *client) finish(o *op) {
	if o.ended != 0 {
		return
	}
	o.ended = c.w.now
	if o.acked && o.add.Number > 0 {
		c.facts[o.aggregate].recorded(o.add.Number)
	}
	if o.acked && o.kind == opRead {
		c.w.heads = append(c.w.heads, readHead{o})
		if c.w.chance(0.5) {
			c.w.readHistory(o.aggregate, o.answer.Head)
		}
	}
	c.w.after(c.w.between(100, 20*millisecond), "next op", c.loop)
}
