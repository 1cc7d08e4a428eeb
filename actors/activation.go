package actors

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/persistence"
)

// activation is the protoactor shell of a machine: it feeds it what happens and does what it asks
// for. All of it but the callbacks runs in the actor, one message at a time. Entry, mailbox and machine
// lie in it, since a command touches them all: with many aggregates, memory is what it waits for.
type activation struct {
	rt       *Runtime
	entry    entry
	mailbox  mailbox
	space    Machine
	machine  *Machine // nil, or space
	shard    uint32
	cause    error       // why the activation ended
	ended    atomic.Bool // read by callbacks, to spare the dead letters
	timer    *time.Timer // posts a tick; nil until one is asked for
	wakeAt   time.Time   // when it does; zero if it does not
	unpacked bool        // as counted by the registry
	began    time.Time   // of the recovery in progress
	serving  *Request    // the message being received, until it is answered
	givenUp  atomic.Bool // whether givenUp is posted and not yet received
	stuckAt  time.Time   // the machine's progress when the entry became stuck

	reads   atomic.Pointer[RowsRead] // the next read
	reading atomic.Bool              // whether a goroutine looks for it

	// The callbacks of writes, made once.
	appended    func(error)
	rootWritten func(error)
}

// What is posted to an activation, beside *Request.
type (
	topResult struct {
		root *persistence.Root
		err  error
	}
	pastResult struct {
		past persistence.Past
		err  error
	}
	rowsResult struct {
		records []persistence.Record
		err     error
	}
	appendedResult    struct{ err error }
	rootWrittenResult struct{ err error }
	tick              struct{}
	pack              struct{}                     // pack the state if nothing is in progress
	retire            struct{}                     // evict if nothing is in progress
	passivate         struct{ answer chan<- bool } // as retire, and say whether it did
	noteArchived      struct{ through uint64 }
	givenUp           struct{}              // callers gave up requests
	halt              struct{ cause error } // evict at once; ErrNotOwner if that is nil
)

// appendedWell is what is posted most, boxed once.
var appendedWell any = appendedResult{}

// Receive implements actor.Actor.
func (a *activation) Receive(c actor.Context) {
	defer func() {
		// The machine guards the domain's code; this is a bug of ours. Nothing in memory can be trusted.
		if p := recover(); p != nil {
			a.crash(c, fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack()))
		}
	}()
	switch m := c.Message().(type) {
	case *Request:
		a.serving = m
		a.step(c, Input{Kind: InputRequest, Request: m})
		a.serving = nil
	case appendedResult:
		a.step(c, Input{Kind: InputAppended, Err: m.err})
		if m.err == nil {
			a.rt.listener.Appended(AppendedInfo{ID: a.entry.id})
		}
	case rootWrittenResult:
		a.step(c, Input{Kind: InputRootWritten, Err: m.err})
	case topResult:
		a.step(c, Input{Kind: InputTop, Root: m.root, Err: m.err})
	case pastResult:
		a.step(c, Input{Kind: InputPast, Past: &m.past, Err: m.err})
	case rowsResult:
		a.step(c, Input{Kind: InputRows, Records: m.records, Err: m.err})
	case tick:
		a.wakeAt = time.Time{}
		a.step(c, Input{Kind: InputTick})
	case pack:
		a.pack()
	case retire:
		a.retire(c)
	case passivate:
		a.retire(c)
		m.answer <- a.cause != nil
	case givenUp:
		a.givenUp.Store(false)
		if a.machine != nil && !a.machine.Waits().IsZero() {
			a.step(c, Input{Kind: InputGivenUp})
		}
	case noteArchived:
		if a.machine != nil {
			a.machine.NoteArchived(m.through)
		}
	case halt:
		if m.cause == nil {
			m.cause = ErrNotOwner
		}
		if a.cause == nil {
			a.halt(c, m.cause)
		}
	case *actor.Stopped:
		a.abandon()
	}
}

// step runs the machine and does what it asks for.
func (a *activation) step(c actor.Context, in Input) {
	if a.machine == nil && a.cause == nil {
		a.begin(c)
	}
	if a.cause != nil {
		if in.Kind == InputRequest {
			in.Request.Err = a.cause
			a.reply(in.Request)
			a.stopIfDone(c)
		}
		return
	}
	packed := a.machine.packed != nil
	in.Now, in.Steady = a.rt.now(), a.rt.steady()
	// [R9]: asked for each input, not kept: the shard may have been lost since the last
	// one.
	in.Held = a.rt.authority.Holds(a.shard, a.machine.epoch)
	out := a.machine.Step(in)
	if packed {
		a.setUnpacked(true)
		a.rt.registry.resize(&a.entry, a.size())
	}
	a.do(c, out)
	a.noteStuck(in)
}

// noteStuck says whether the store answers for the aggregate: its requests may otherwise fill the node.
func (a *activation) noteStuck(in Input) {
	if a.machine == nil {
		return
	}
	since := a.machine.Waits()
	switch {
	case a.entry.stuck:
		if !since.Equal(a.stuckAt) {
			a.rt.registry.setStuck(&a.entry, false)
		}
	case !since.IsZero() && (in.Kind == InputGivenUp || in.Steady.Sub(since) > a.rt.env.Config.StuckAfter):
		a.stuckAt = since
		a.rt.registry.setStuck(&a.entry, true)
	}
}

// begin makes the machine, if the shard is held.
func (a *activation) begin(c actor.Context) {
	aggregate := AggregateID(a.entry.id, a.rt.env.Kind)
	a.shard = a.rt.authority.Shard(aggregate)
	epoch, ok := a.rt.authority.Epoch(a.shard)
	if !ok {
		a.finish(c, ErrNotOwner, 0, nil)
		return
	}
	a.space.init(a.rt.env, a.entry.id, epoch, a.rt.floor.Load())
	a.machine = &a.space
	a.setUnpacked(true)
	a.appended = func(err error) {
		if err == nil {
			a.deliver(appendedWell)
			return
		}
		a.deliver(appendedResult{err})
	}
	a.rootWritten = func(err error) { a.deliver(rootWrittenResult{err}) }
}

// do does what the machine asks for. An activation that ended leaves first: nothing of
// its outputs is sent to the store.
func (a *activation) do(c actor.Context, out *Outputs) {
	if out.Ended {
		a.ends(c, out)
		return
	}
	for i, r := range out.Replies {
		out.Replies[i] = nil // it may be another caller's once it is answered: see crash
		a.reply(r)
	}
	out.Replies = out.Replies[:0]
	if out.Append != nil {
		a.rt.journal.Append(a.rt.context, out.Append, a.appended)
	}
	if out.PutRoot != nil {
		a.rt.journal.PutRoot(a.rt.context, out.PutRoot, a.rootWritten)
	}
	if out.ReadTop {
		a.began = a.rt.now()
		top := persistence.RootKey{Aggregate: a.machine.aggregate}
		a.read(&RowsRead{Partition: persistence.Partition{RootKey: top}})
	}
	if out.ReadPast != nil {
		a.read(&RowsRead{past: out.ReadPast})
	}
	if out.ReadRows != nil {
		a.read(out.ReadRows)
	}
	if out.Recovered != nil {
		a.rt.registry.resize(&a.entry, a.size())
		now := a.rt.now()
		a.rt.listener.Activated(ActivatedInfo{
			ID: a.entry.id, Records: out.Recovered.Records, Duration: now.Sub(a.began),
			Ahead:   max(0, time.UnixMilli(a.machine.lastTime).Sub(now)),
			Damaged: out.Recovered.Damaged, Damage: out.Recovered.Damage, Rebuilt: out.Recovered.Rebuilt,
		})
	}
	a.wake(out.Wake)
}

// wake sees to a tick at that time, zero for none. There is one timer, which may be early, so that a time
// that is put off costs nothing.
func (a *activation) wake(at time.Time) {
	if at.IsZero() || !a.wakeAt.IsZero() && !at.Before(a.wakeAt) {
		return
	}
	a.wakeAt = at
	d := max(0, at.Sub(a.rt.steady()))
	if a.timer == nil {
		a.timer = time.AfterFunc(d, func() { a.post(tick{}) })
		return
	}
	a.timer.Reset(d)
}

// read starts a read, of records or, with Limit 0, of the top root. What was read may well ask for the
// next read on the goroutine that read it; that one continues with it then.
func (a *activation) read(r *RowsRead) {
	a.reads.Store(r)
	if a.reading.CompareAndSwap(false, true) {
		go a.readAll()
	}
}

// readAll reads until nothing is asked for.
func (a *activation) readAll() {
	for {
		if r := a.reads.Swap(nil); r != nil {
			a.deliver(a.readOne(r))
			continue
		}
		a.reading.Store(false)
		if a.reads.Load() == nil || !a.reading.CompareAndSwap(false, true) {
			return
		}
	}
}

// readOne performs one read of the store, and returns its result as a message for the
// activation. It runs on a goroutine of its own.
func (a *activation) readOne(r *RowsRead) (result any) {
	if r.past != nil {
		if a.rt.past == nil {
			return pastResult{err: fmt.Errorf("snapshot of root %s: %w", r.past.Key, persistence.ErrCorrupt)}
		}
		past, err := a.rt.past(a.rt.reads, *r.past)
		return pastResult{past, err}
	}
	if r.Limit == 0 {
		root, err := a.rt.journal.TopRoot(a.rt.reads, r.Partition.Aggregate)
		return topResult{&root, err}
	}
	records, err := a.rt.journal.ReadRecords(a.rt.reads, r.Partition, r.After, r.Limit)
	return rowsResult{records, err}
}

// post sends a message to the actor, from any goroutine.
func (a *activation) post(message any) {
	if !a.ended.Load() {
		a.mailbox.PostUserMessage(message)
	}
}

// deliver posts the result of a read or write from a goroutine of the store's, or of ours, that has nothing
// better to do than to hand it over as well.
func (a *activation) deliver(result any) {
	if !a.ended.Load() {
		a.mailbox.postAndRun(result, 1)
	}
}

// reply answers a request, and releases what it holds. It does nothing for a request that
// was answered already; one that was given up is only released.
func (a *activation) reply(r *Request) {
	if r == a.serving {
		a.serving = nil
	}
	stage := r.stage.Swap(stageAnswered)
	if stage == stageAnswered { // by what panicked then: see crash
		return
	}
	a.rt.registry.release(&a.entry)
	if stage == stageWithdrawn || stage == stageAbandoned { // the caller has released the slot
		a.rt.recycle(r)
		return
	}
	a.rt.inFlight.Add(-1)
	r.done <- struct{}{}
}

// ends records that the machine gave up.
func (a *activation) ends(c actor.Context, out *Outputs) {
	if out.StaleEpoch > 0 {
		a.rt.authority.StaleEpoch(a.shard, a.machine.aggregate, out.StaleEpoch)
	}
	a.rt.listener.Ended(EndedInfo{ID: a.entry.id, Cause: out.Cause})
	a.finish(c, out.Cause, out.Unresolved, out.Replies)
}

// finish takes the actor out of the registry, so that the next request makes another, and answers
// the waiting requests. The order matters: the next activation must see the floor ([R6]), and nobody who was
// answered may meet this one again. Requests already in flight here are answered with the cause, then
// the actor stops.
func (a *activation) finish(c actor.Context, cause error, unresolved uint64, answered []*Request) {
	a.rt.raiseFloor(unresolved)
	a.leave()
	a.cause = cause
	a.ended.Store(true)
	a.rt.registry.remove(&a.entry, false)
	for _, r := range answered {
		a.reply(r)
	}
	a.stopIfDone(c)
}

// halt gives up from outside.
func (a *activation) halt(c actor.Context, cause error) {
	if a.machine == nil || a.machine.packed != nil { // nothing is in progress
		a.finish(c, cause, 0, nil)
		return
	}
	out := a.machine.Halt(cause)
	a.finish(c, cause, out.Unresolved, out.Replies)
}

// crash gives up after a panic in the runtime itself: whatever was in progress has an unknown outcome.
func (a *activation) crash(c actor.Context, cause error) {
	cause = fmt.Errorf("%w: %w", ErrUnknownOutcome, cause)
	a.rt.listener.Ended(EndedInfo{ID: a.entry.id, Cause: cause})
	var unresolved uint64
	var left []*Request
	if m := a.machine; m != nil {
		unresolved = m.root.Version
		if m.hot != nil {
			for _, w := range m.hot.waiting {
				left = append(left, w.request)
			}
			left = append(left, m.hot.backlog...)
			// do sets those to nil that it has answered.
			left = append(left, slices.DeleteFunc(m.hot.out.Replies, func(r *Request) bool { return r == nil })...)
		}
	}
	if a.serving != nil && !slices.Contains(left, a.serving) { // the machine has not got it
		left = append(left, a.serving)
	}
	for _, r := range left {
		r.Err = cause
	}
	a.finish(c, cause, unresolved, left)
}

// abandon sees to an actor that was stopped because crash panicked too. The next request must make another, and those
// that this one still had end with their own deadline: their callers release their slots. After any other stop
// nothing is left to do.
func (a *activation) abandon() {
	if a.ended.Swap(true) && a.entry.pending.Load() == 0 {
		return
	}
	a.rt.registry.remove(&a.entry, false)
	a.leave()
	a.entry.pending.Store(0)
}

// stopIfDone stops the actor of an activation that has ended, once no request is pending
// for it: a request that is about to reach the mailbox is still answered.
func (a *activation) stopIfDone(c actor.Context) {
	if a.entry.pending.Load() == 0 {
		c.Stop(c.Self())
	}
}

// pack has the machine keep its state as bytes, if nothing is in progress.
func (a *activation) pack() {
	if a.machine == nil || a.cause != nil || a.machine.packed != nil {
		return
	}
	if !a.machine.Pack() {
		a.rt.registry.busy(&a.entry)
		return
	}
	a.setUnpacked(false)
	a.rt.registry.resize(&a.entry, a.size())
}

// retire evicts the aggregate unless a request is in flight: then this continues, and no request ever meets a
// stopping actor.
func (a *activation) retire(c actor.Context) {
	if a.cause != nil {
		return
	}
	if a.machine != nil && !a.machine.Quiescent() || !a.rt.registry.remove(&a.entry, true) {
		a.rt.registry.stay(&a.entry)
		return
	}
	info := a.passivated()
	a.leave()
	a.cause = ErrNotOwner
	a.ended.Store(true)
	a.rt.listener.Passivated(info)
	c.Stop(c.Self())
}

// passivated tells where the history of a machine that has nothing in progress ends.
func (a *activation) passivated() PassivatedInfo {
	info := PassivatedInfo{ID: a.entry.id}
	if m := a.machine; m != nil && m.phase == phaseActive && a.rt.authority.Holds(a.shard, m.epoch) {
		if head := m.head(); head.Sequence > 0 {
			info.Head, info.ArchivedThrough = &head, m.archived
		}
	}
	return info
}

// leave releases the machine and the timer, which would keep the activation in memory.
func (a *activation) leave() {
	a.setUnpacked(false)
	a.rt.registry.setStuck(&a.entry, false)
	a.machine, a.space = nil, Machine{}
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}

// setUnpacked keeps the count of unpacked aggregates.
func (a *activation) setUnpacked(unpacked bool) {
	switch {
	case unpacked && !a.unpacked:
		a.rt.registry.unpacked.Add(1)
	case !unpacked && a.unpacked:
		a.rt.registry.unpacked.Add(-1)
	}
	a.unpacked = unpacked
}

// size estimates the memory of the aggregate with its actor.
func (a *activation) size() int64 {
	const shell = 900
	return shell + int64(a.machine.Size())
}

var _ actor.Actor = (*activation)(nil)
