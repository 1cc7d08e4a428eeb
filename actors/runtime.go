package actors

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/persistence"
)

// Options of a runtime. Kind, Journal, Authority and Config must be given.
type Options struct {
	Kind      Kind
	Journal   persistence.Journal
	Authority Authority
	Config    Config
	// Past reads what the state at the base of a root is built from whose snapshot cannot be read, or that has none
	// (persistence.Past); nil: such an aggregate is corrupt.
	Past func(ctx context.Context, top persistence.Root) (persistence.Past, error)
	// System is the actor system to spawn in; nil makes one, which Close shuts down.
	System *actor.ActorSystem
	// Now is the wall clock (default time.Now).
	Now func() time.Time
	// Elapsed is the time since the start, of a clock that nobody sets (default: the monotonic one). By it
	// aggregates are idle, deadlines pass and pauses end.
	Elapsed func() time.Duration
	// Listener hears what happens.
	Listener Listener
}

// Runtime keeps the aggregates of one kind in memory, each an actor. It is safe for concurrent use.
type Runtime struct {
	env       *Environment
	journal   persistence.Journal
	past      func(ctx context.Context, top persistence.Root) (persistence.Past, error)
	authority Authority
	system    *actor.ActorSystem
	ownSystem bool
	now       func() time.Time
	elapsed   func() time.Duration
	began     time.Time
	listener  Listener

	registry registry
	inFlight atomic.Int64
	floor    atomic.Uint64 // highest version of a root with unresolved outcome ([R6])
	closed   atomic.Bool
	requests sync.Pool // of *Request with a done channel

	spawning sync.Mutex
	spawned  *activation // whose parts the producers of props return, while spawning is locked; else nil
	props    *actor.Props
	root     *actor.RootContext

	context context.Context // of writes, and of the sweeper
	cancel  context.CancelFunc
	reads   context.Context // never ends: a reader has a goroutine of its own to wait on, and stores are faster then
	sweeper sync.WaitGroup
	closing sync.Once
}

// New starts a runtime. Close it after use.
func New(o Options) (*Runtime, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	r := &Runtime{
		env: &Environment{Kind: o.Kind, Config: o.Config, Incarnation: o.Authority.Incarnation(),
			MaxMutation: o.Journal.MaxMutation(), MaxRoot: o.Journal.MaxMutation(), ReadsPast: o.Past != nil},
		journal:   o.Journal,
		past:      o.Past,
		authority: o.Authority,
		system:    o.System,
		now:       o.Now,
		elapsed:   o.Elapsed,
		requests:  sync.Pool{New: func() any { return &Request{done: make(chan struct{}, 1)} }},
	}
	if r.system == nil {
		r.system = NewActorSystem(slog.Default())
		r.ownSystem = true
	}
	r.listener = o.Listener.guarded(r.system.Logger())
	if r.now == nil {
		r.now = time.Now
	}
	r.began = time.Now()
	if r.elapsed == nil {
		r.elapsed = func() time.Duration { return time.Since(r.began) }
	}
	// One set of props for all actors: the activation to start is handed over in
	// r.spawned, under spawning.
	r.props = actor.PropsFromProducer(func() actor.Actor { return r.spawned },
		actor.WithMailbox(func() actor.Mailbox { return &r.spawned.mailbox }),
		actor.WithDispatcher(actor.NewDefaultDispatcher(throughput)))
	r.root = r.system.Root.Copy().WithGuardian(actor.NewOneForOneStrategy(0, 0, neverRestart))
	r.registry.init(min(o.Config.CompactAfter, o.Config.IdleAfter)/8, func(id string) uint32 {
		return r.authority.Shard(AggregateID(id, r.env.Kind))
	})
	r.context, r.cancel = context.WithCancel(context.Background())
	// Without the cancellation: a read whose result is needed is not cut off.
	r.reads = context.WithoutCancel(r.context)
	r.sweeper.Add(1)
	go r.sweep()
	return r, nil
}

// NewActorSystem returns an actor system that logs to l.
func NewActorSystem(l *slog.Logger) *actor.ActorSystem {
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return l }))
}

// Execute runs a command on the aggregate of that id ("Bayley", without the kind) and returns its
// first outcome. Errors are those of this package. If ctx ends first, the error is joined with the context's:
// ErrExpired if the command was not decided by then, and never will be; else ErrUnknownOutcome.
func (r *Runtime) Execute(ctx context.Context, id string, c Command) (Reply, error) {
	if len(c.ID) > maxIDLength || len(c.ID) == 0 && !c.ValidateOnly {
		return Reply{}, fmt.Errorf("command id of %d bytes, want 1 to %d", len(c.ID), maxIDLength)
	}
	q := r.requests.Get().(*Request)
	q.Command = c
	if err := r.ask(ctx, id, q); err != nil {
		return Reply{}, err
	}
	reply, err := q.Reply, q.Err
	r.recycle(q)
	return reply, err
}

// recycle keeps an answered request for another use.
func (r *Runtime) recycle(q *Request) {
	*q = Request{done: q.done}
	r.requests.Put(q)
}

// Query asks the aggregate of that id. The answer is linearizable: it reflects every command that was
// acknowledged before the call. Errors are those of this package; none leaves an unknown outcome.
func (r *Runtime) Query(ctx context.Context, id string, query any) (Answer, error) {
	q := r.requests.Get().(*Request)
	q.Query = query
	if err := r.ask(ctx, id, q); err != nil {
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return Answer{}, err
	}
	answer, err := q.Answer, q.Err
	r.recycle(q)
	return answer, err
}

// ask sends a request to the aggregate's actor and waits for the answer. An error means
// that the request may still be in use by the actor, and must not be used again; without
// one the answer is in the request.
func (r *Runtime) ask(ctx context.Context, id string, q *Request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrExpired, err)
	}
	now := r.elapsed()
	if deadline, ok := ctx.Deadline(); ok {
		// By the runtime's clock, so that steps of the wall clock do not matter.
		q.Deadline = r.began.Add(now + time.Until(deadline))
	}
	if err := r.admit(); err != nil {
		return err
	}
	e, err := r.registry.acquire(id, now, &r.env.Config, r.start)
	if err != nil {
		r.inFlight.Add(-1)
		return err
	}
	// This goroutine handles some messages itself: that saves a change of goroutines for
	// a quiet aggregate.
	e.act.mailbox.postAndRun(q, guestMessages)
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return r.giveUp(e.act, q, ctx.Err())
	}
}

// admit takes a slot for a request.
func (r *Runtime) admit() error {
	if n := r.inFlight.Add(1); r.closed.Load() { // after the count: Close sees it, or it sees Close
		r.inFlight.Add(-1)
		return ErrNotOwner
	} else if n > int64(r.env.Config.MaxInFlight) {
		r.inFlight.Add(-1)
		return fmt.Errorf("%w: %d requests are waiting in this node", ErrOverloaded, r.env.Config.MaxInFlight)
	}
	return nil
}

// steady is the clock that nobody sets, as machines see it.
func (r *Runtime) steady() time.Time { return r.began.Add(r.elapsed()) }

// giveUp ends the waiting for a request whose context ended: its slot is free at once. The request is the actor's
// from then on, unless it has been answered meanwhile.
func (r *Runtime) giveUp(a *activation, q *Request, cause error) error {
	gone, notExecuted := q.GiveUp()
	if !gone {
		<-q.done
		return nil
	}
	r.inFlight.Add(-1)
	if a.givenUp.CompareAndSwap(false, true) {
		a.post(givenUp{})
	}
	if notExecuted {
		return fmt.Errorf("%w: %w", ErrExpired, cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, cause)
}

// start spawns an actor and returns its entry. The name is new each time: the former actor of the aggregate
// may not have left protoactor's registry yet. Props are shared, since each takes as much memory as an
// idle aggregate, so the producers are told whose activation and mailbox they are to return. They are called here
// and never again: protoactor calls them for a restart too, which would put another aggregate's activation behind this
// one's mailbox, and the guardian restarts nobody.
func (r *Runtime) start(id string) *entry {
	a := &activation{rt: r}
	a.entry.id, a.entry.act = id, a
	r.spawning.Lock()
	defer r.spawning.Unlock()
	r.spawned = a
	r.root.Spawn(r.props)
	r.spawned = nil
	return &a.entry
}

// neverRestart stops an actor that failed. See start.
func neverRestart(any) actor.Directive { return actor.StopDirective }

// raiseFloor notes the version of a root whose outcome is unknown ([R6]).
func (r *Runtime) raiseFloor(version uint64) {
	for {
		f := r.floor.Load()
		if version <= f || r.floor.CompareAndSwap(f, version) {
			return
		}
	}
}

// Drop ends the activations that the function selects, at once: what they have in progress has an
// unknown outcome. For shards that were lost. There may be very many: idle ones end on the caller's goroutine, which
// must not hold locks.
func (r *Runtime) Drop(of func(id string) bool) {
	r.registry.each(func(e *entry) {
		if of(e.id) {
			e.act.deliver(halt{})
		}
	})
}

// Passivate takes an aggregate out of memory unless it is active. It reports whether it was in memory,
// and whether it is not any more. If ctx ends first it is taken to be active.
func (r *Runtime) Passivate(ctx context.Context, id string) (resident, left bool) {
	e := r.registry.find(id)
	if e == nil {
		return false, true
	}
	answer := make(chan bool, 1)
	e.act.post(passivate{answer})
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case left := <-answer:
			return true, left
		case <-look.C: // An activation that ended meanwhile does not answer.
			if r.registry.find(id) != e {
				return true, true
			}
		case <-ctx.Done():
			return true, false
		}
	}
}

// Resident reports whether an aggregate is in memory, or being loaded or evicted.
func (r *Runtime) Resident(id string) bool { return r.registry.find(id) != nil }

// NoteArchived tells an aggregate, if it is in memory, that its history up to that sequence is in the
// archive. Its roots to come record this: see persistence.Root.
func (r *Runtime) NoteArchived(id string, through uint64) {
	if e := r.registry.find(id); e != nil {
		e.act.post(noteArchived{through})
	}
}

// Stats are counts at a moment.
type Stats struct {
	// Resident aggregates in memory, and their estimated size in bytes.
	Resident, ResidentBytes int64
	// Unpacked aggregates among them: active, or since a short time not.
	Unpacked int64
	// InFlight requests whose callers wait for the answer.
	InFlight int64
	// Stuck requests wait for aggregates that the store does not answer for; callers may have given them up.
	Stuck int64
}

// Stats returns the counts of now.
func (r *Runtime) Stats() Stats {
	return Stats{
		Resident: r.registry.resident.Load(), ResidentBytes: r.registry.bytes.Load(),
		Unpacked: r.registry.unpacked.Load(), InFlight: r.inFlight.Load(), Stuck: r.registry.stuck.Load(),
	}
}

// Close takes no more requests, waits for those in progress that have not been given up, and drops all aggregates. If
// ctx ends first, the requests that are left get ErrUnknownOutcome or ErrNotOwner, and Close returns an error that
// has the number.
func (r *Runtime) Close(ctx context.Context) error {
	var err error
	r.closing.Do(func() {
		// Requests that come from now on are refused; those in progress end by
		// themselves, or with ctx.
		r.closed.Store(true)
		err = r.drain(ctx)
		r.Drop(func(string) bool { return true })
		for r.registry.resident.Load() > 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		r.cancel()
		r.sweeper.Wait()
		if r.ownSystem {
			r.system.Shutdown()
		}
	})
	return err
}

// drain waits until no request is in progress. Error: their number when ctx ended.
func (r *Runtime) drain(ctx context.Context) error {
	for r.inFlight.Load() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d requests were in progress when the time to stop had passed: %w",
				r.inFlight.Load(), ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// sweep packs and passivates idle aggregates until the runtime closes.
func (r *Runtime) sweep() {
	defer r.sweeper.Done()
	t := time.NewTicker(r.env.Config.SweepEvery)
	defer t.Stop()
	idle := idleness{after: r.env.Config.IdleAfter}
	for {
		select {
		case <-r.context.Done():
			return
		case <-t.C:
			c := &r.env.Config
			now := r.elapsed()
			if idle.look(now, r.authority.Suspended()) {
				r.registry.sweepIdle(now-c.CompactAfter, idle.before(now))
			}
			if c.MaxResidentBytes > 0 {
				r.registry.sweepBytes(c.MaxResidentBytes)
			}
		}
	}
}

// idleness says which aggregates were idle for too long. Time in which the process owns none does not count: when the
// store is back after an outage, the ones that were active before are needed.
type idleness struct {
	after time.Duration
	last  time.Duration // look
	// until is the end of the last time that does not count, and lost the sum of those that matter still.
	until, lost time.Duration
}

// look notes whether the process is suspended at this moment, and reports whether it is not.
func (i *idleness) look(now time.Duration, suspended bool) bool {
	switch {
	case suspended:
		i.until, i.lost = now, i.lost+now-i.last
	case now-i.after >= i.until: // What was used before it has been looked at since.
		i.lost = 0
	}
	i.last = now
	return !suspended
}

// before returns the time such that aggregates that were used last before it have been idle for too long. None was used
// while the process was suspended.
func (i *idleness) before(now time.Duration) time.Duration { return now - i.after - i.lost }
