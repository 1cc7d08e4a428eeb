package sim

import (
	"errors"
	"fmt"
	"time"

	"licensed/actors"
)

// gateway stands between clients and nodes. It sends a request to the node that it takes for the owner,
// and again, with the same id, while nothing certain came back: to another when it hears "not the owner",
// to the same or another when it hears nothing, or that the outcome is unknown.
type gateway struct {
	w      *world
	name   string
	run    int           // which run of the process it is
	owners map[int]*node // by shard, as far as it knows
	ahead  time.Duration // of the wall clock, while it is wrong
}

func (w *world) startGateway(i int) {
	g := &gateway{w: w, name: fmt.Sprint("gateway ", i), owners: map[int]*node{}}
	w.gateways = append(w.gateways, g)
	w.after(w.between(0, second), "disturb "+g.name, g.disturb)
}

// disturb restarts the gateway now and then: it forgets what it knew, and a waiting client hears nothing.
func (g *gateway) disturb() {
	w := g.w
	if w.chance(w.params.Crash) {
		w.note(g.name + " restarts")
		g.run++
		clear(g.owners)
	}
	if w.params.WrongGateway > 0 && w.chance(w.params.WrongGateway) {
		w.jump(g.name, &g.ahead)
	}
	w.after(w.between(100*millisecond, second), "disturb "+g.name, g.disturb)
}

// forwarding is one request in flight through a gateway.
type forwarding struct {
	g        *gateway
	run      int
	o        *op
	deadline micros
	reply    func(*actors.Request)
	attempt  int
	stamp    time.Time // of a command that the client gave no time
	stamps   int
	maybe    bool // some attempt may be or have been executed, for all the gateway knows
	done     bool
}

func (g *gateway) handle(o *op, reply func(*actors.Request)) {
	f := &forwarding{g: g, run: g.run, o: o, deadline: g.w.now + g.w.params.ClientTimeout*3/4, reply: reply}
	f.stamp = epochStart.Add(time.Duration(g.w.now)*time.Microsecond + g.ahead).Truncate(time.Millisecond)
	f.try()
}

// request returns what a node is asked, with the stamp of this attempt.
func (f *forwarding) request() func(*node) *actors.Request {
	stamp := f.stamp
	return func(n *node) *actors.Request {
		r := f.o.request(n)
		if f.o.stamped {
			r.Command.IssuedAt, r.Command.Stamped = stamp, true
		}
		return r
	}
}

func (f *forwarding) try() {
	w, shard := f.g.w, f.g.w.shardOf(f.o.aggregate)
	n := f.g.owners[shard]
	if n == nil {
		n = w.owner(f.o.aggregate)
	}
	f.attempt++
	number := f.attempt
	w.deliver(n, f.o.aggregate, f.o.id, f.request(), func(r *actors.Request) {
		if number == f.attempt && f.alive() {
			f.told(n, r)
		}
	})
	if w.chance(w.params.DuplicateMessage) {
		f.maybe = true
		w.deliver(n, f.o.aggregate, f.o.id, f.request(), func(*actors.Request) {})
	}
	w.after(w.params.ClientTimeout/4, "gateway timeout "+f.o.id, func() {
		if number == f.attempt && f.alive() {
			f.maybe = true
			delete(f.g.owners, shard)
			f.again(actors.ErrUnknownOutcome)
		}
	})
}

// maxStamps is more than a command gets by what other commands do meanwhile.
const maxStamps = 8

func (f *forwarding) alive() bool { return !f.done && f.run == f.g.run }

// told processes the answer of the attempt in progress.
func (f *forwarding) told(n *node, r *actors.Request) {
	w, shard := f.g.w, f.g.w.shardOf(f.o.aggregate)
	var refused *actors.StampError
	switch {
	case errors.As(r.Err, &refused) && !f.maybe:
		f.stamp = refused.At
		w.counts.Stamps++
		if f.stamps++; f.stamps > maxStamps {
			w.fail("%s got %d stamps, and none was accepted: %v", f.o.id, f.stamps, r.Err)
		}
		f.again(r.Err)
	case errors.As(r.Err, &refused): // Another stamp could execute it twice.
		f.finish(&actors.Request{Err: actors.ErrTooOld})
	case f.o.stamped && !f.maybe && (errors.Is(r.Err, actors.ErrTooOld) || errors.Is(r.Err, actors.ErrIssuedAhead)):
		w.fail("%s has no issue time of the client, and was refused because of its stamp: %v", f.o.id, r.Err)
	case r.Err == nil:
		f.g.owners[shard] = n
		f.finish(r)
	case errors.Is(r.Err, actors.ErrUnknownOutcome):
		f.maybe = true
		f.again(r.Err)
	case errors.Is(r.Err, actors.ErrNotOwner), errors.Is(r.Err, actors.ErrUnavailable):
		delete(f.g.owners, shard)
		f.again(r.Err)
	case f.maybe: // this attempt was not executed, which says nothing of the others
		f.finish(&actors.Request{Err: actors.ErrUnknownOutcome})
	default:
		f.finish(r)
	}
}

// again tries once more, if there is time.
func (f *forwarding) again(err error) {
	w := f.g.w
	f.attempt++ // answers to the last attempt are too late
	pause := w.between(2*millisecond, 40*millisecond)
	if w.now+pause >= f.deadline {
		if f.maybe {
			err = actors.ErrUnknownOutcome
		}
		f.finish(&actors.Request{Err: err})
		return
	}
	w.counts.Retries++
	w.after(pause, "gateway tries again "+f.o.id, func() {
		if f.alive() {
			f.try()
		}
	})
}

func (f *forwarding) finish(r *actors.Request) {
	f.done = true
	f.reply(r)
}
