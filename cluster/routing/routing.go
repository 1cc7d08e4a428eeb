package routing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/roster"
	"licensed/cluster/shardmap"
	"licensed/cluster/transport"
	"licensed/internal/planted"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Node is the node in this process; *cluster.Node is one. It is safe for concurrent use.
type Node interface {
	// Execute, Query and Operate are those of the owner: a shard that the node does not
	// hold is answered with *cluster.NotOwnerError, which names the owner as far as the
	// node knows it.
	Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error)
	Query(ctx context.Context, id string, query any) (actors.Answer, error)
	Operate(ctx context.Context, id string, request any) (actors.Answer, error)
	// Epoch tells whether a shard is held at this moment, and Incarnation who the node is.
	Epoch(shard uint32) (uint64, bool)
	Incarnation() persistence.Incarnation
}

// Leases is what the store says of incarnations; *roster.Roster is one. It is safe for concurrent use, and never
// blocks.
type Leases interface {
	// Look returns what is known of an incarnation now.
	Look(i persistence.Incarnation) (persistence.Lease, roster.State)
	// Suspect has the lease of an incarnation read again: others say that it is dead, or it does not answer. Call
	// [Router.SetMembers] when that shows a death.
	Suspect(i persistence.Incarnation)
}

// Self is this process as other members see it: what it tells them of itself, and what
// they may ask of it.
type Self interface {
	Status(ctx context.Context) (*clusterv1.StatusResponse, error)
	Drain(ctx context.Context) error
	Undrain(ctx context.Context) error
}

// Transport carries requests to other processes; *transport.Transport does. It is safe for concurrent use.
type Transport interface {
	// Execute, Query and Operate send a request to the node at an address (host:port).
	// Errors: those that the node answered; transport.ErrNotSent if it certainly did not
	// get the request; actors.ErrUnknownOutcome if it may have executed it.
	Execute(ctx context.Context, address, kind, id string, c actors.Command) (actors.Reply, error)
	Query(ctx context.Context, address, kind, id string, query any) (actors.Answer, error)
	Operate(ctx context.Context, address, kind, id string, request any) (actors.Answer, error)
	Status(ctx context.Context, address string) (*clusterv1.StatusResponse, error)
	Drain(ctx context.Context, address string) error
	Undrain(ctx context.Context, address string) error
	// Fail ends the requests in progress to a process that was found to be dead.
	Fail(address string, cause error)
}

// Config of a router. DefaultConfig gives all but Name, Kind, Map, Leases and Transport.
type Config struct {
	// Name of this process as a member.
	Name string
	// Kind is the name of the aggregates' kind, a part of their ids.
	Kind string
	// Map is what the process knows of the owners of shards.
	Map *shardmap.Map
	// Leases is what the store says of the nodes.
	Leases Leases
	// Transport to other processes.
	Transport Transport
	// Node in this process; nil for a gateway.
	Node Node
	// Self tells of this process; nil: Statuses leaves it out.
	Self Self
	// MaxTime is the time for a request without a deadline (default 10 s).
	MaxTime time.Duration
	// Patience is after which time without a node that could be asked, or without an owner of the shard, a request is
	// answered actors.UnservedError (default 2.5 s, the default TTL of leases). Shorter: a single node that restarts,
	// or a slow take-over, fails requests; longer: they wait in vain when all nodes are gone or take no shards.
	Patience time.Duration
	// MaxAttempts bounds how often a request is tried (default 64). The deadline comes first unless
	// something is amiss.
	MaxAttempts int
	// MaxWaiting bounds the requests that wait between two attempts (default 16384); one more is
	// answered actors.ErrOverloaded.
	MaxWaiting int
	// MaxPerNode bounds the requests to one other node that are in progress (default 7500), and MaxPerShard those for
	// one shard (default 1250). Requests that wait for another attempt count. One more is answered
	// actors.ErrOverloaded at once: an unreachable node, or a shard that makes no progress, must not use up what the
	// caller has for all.
	MaxPerNode, MaxPerShard int
	// PauseMin and PauseMax bound the growing pause before an attempt that nothing heard has prompted
	// (defaults 10 ms and 400 ms). News usually end it sooner. Shorter: lost news cost less time;
	// longer: requests for shards that are being taken over cost others less.
	PauseMin, PauseMax time.Duration
	// StatusTimeout is the time one member may take to report its status (default 1 s).
	StatusTimeout time.Duration
	// Listener hears what happens.
	Listener Listener
}

// Listener hears what happens. The functions must be quick and safe for concurrent use. Those that are nil are not
// called.
type Listener struct {
	// Done is told of each request that has ended.
	Done func(DoneInfo)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Done == nil {
		l.Done = func(DoneInfo) {}
	}
	return l
}

// DoneInfo says how a request was brought to its owner.
type DoneInfo struct {
	// Command, else a query.
	Command bool
	// Attempts, and how many of them followed from a later row at once.
	Attempts, Redirects int
	// Remote attempts went over the network.
	Remote int
	// Unknown attempts had an unknown outcome.
	Unknown int
	// Waited is the time between attempts.
	Waited time.Duration
	// Err is the result.
	Err error
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxTime: 10 * time.Second, Patience: 2500 * time.Millisecond, MaxAttempts: 64, MaxWaiting: 16384,
		MaxPerNode: 7500, MaxPerShard: 1250,
		PauseMin: 10 * time.Millisecond, PauseMax: 400 * time.Millisecond, StatusTimeout: time.Second,
	}
}

// validate names the first field that is missing or out of range.
func (c *Config) validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"Name", c.Name != ""}, {"Kind", c.Kind != ""}, {"Map", c.Map != nil}, {"Leases", c.Leases != nil},
		{"Transport", c.Transport != nil},
		{"MaxTime", c.MaxTime > 0}, {"Patience", c.Patience > 0}, {"MaxAttempts", c.MaxAttempts > 0},
		{"MaxWaiting", c.MaxWaiting > 0},
		{"MaxPerNode", c.MaxPerNode > 0}, {"MaxPerShard", c.MaxPerShard > 0},
		{"PauseMin", c.PauseMin > 0}, {"PauseMax", c.PauseMax >= c.PauseMin}, {"StatusTimeout", c.StatusTimeout > 0},
	} {
		if !f.ok {
			return fmt.Errorf("routing configuration: %s is missing or out of range", f.name)
		}
	}
	return nil
}

// Router brings requests to owners. It is safe for concurrent use.
type Router struct {
	config Config
	// loads has one entry a shard, members what is replaced as a whole when gossip or the
	// store shows another picture, waiting the requests between two attempts, and peers
	// those in progress by node.
	loads   []load
	setting sync.Mutex // held while the members change
	members atomic.Pointer[members]
	waiting atomic.Int64
	peers   peers
}

// New returns a router that has heard nothing yet.
func New(c Config) (*Router, error) {
	c.Listener = c.Listener.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &Router{config: c, loads: make([]load, c.Map.Len())}
	for id := range r.loads {
		r.loads[id].shard = uint32(id)
	}
	r.members.Store(newMembers(nil, c.Leases))
	return r, nil
}

// Execute runs a command on the aggregate of that id (without the kind), as actors.Runtime does. Errors:
// those of package actors and package transport. If the deadline ends first, it is joined with
// actors.ErrUnknownOutcome if any attempt may have executed the command, else with actors.ErrExpired.
func (r *Router) Execute(ctx context.Context, id string, c actors.Command) (reply actors.Reply, err error) {
	err = r.route(ctx, id, DoneInfo{Command: true}, func(ctx context.Context, to target) (err error) {
		if to.local {
			reply, err = r.config.Node.Execute(ctx, id, c)
		} else {
			reply, err = r.config.Transport.Execute(ctx, to.address, r.config.Kind, id, c)
		}
		return err
	})
	return reply, err
}

// Query asks the aggregate of that id. The answer is linearizable. Errors are as those of Execute, and none
// leaves anything executed.
func (r *Router) Query(ctx context.Context, id string, query any) (actors.Answer, error) {
	return r.ask(ctx, id, query, Node.Query, Transport.Query)
}

// Operate has the owner of an aggregate execute an operator's request, perhaps twice. Errors are as those of Query.
func (r *Router) Operate(ctx context.Context, id string, request any) (actors.Answer, error) {
	return r.ask(ctx, id, request, Node.Operate, Transport.Operate)
}

// ask is Execute for requests that change nothing: an attempt of unknown outcome can be
// repeated.
func (r *Router) ask(
	ctx context.Context, id string, what any, local func(Node, context.Context, string, any) (actors.Answer, error),
	remote func(t Transport, ctx context.Context, address, kind, id string, what any) (actors.Answer, error),
) (answer actors.Answer, err error) {
	err = r.route(ctx, id, DoneInfo{}, func(ctx context.Context, to target) (err error) {
		if to.local {
			answer, err = local(r.config.Node, ctx, id, what)
		} else {
			answer, err = remote(r.config.Transport, ctx, to.address, r.config.Kind, id, what)
		}
		return err
	})
	return answer, err
}

// route tries a request until it has its answer.
func (r *Router) route(ctx context.Context, id string, info DoneInfo, try func(context.Context, target) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.config.MaxTime)
		defer cancel()
	}
	t := &trial{
		router: r,
		shard:  cluster.ShardOf(id+":"+r.config.Kind, r.config.Map.Len()),
		info:   info,
		pause:  r.config.PauseMin,
	}
	s := &r.loads[t.shard]
	// enter counts the request even if it returns an error: leave in any case.
	if t.info.Err = s.enter(r.config.MaxPerShard); t.info.Err == nil {
		t.info.Err = t.run(ctx, try)
	}
	s.leave()
	t.depart()
	r.config.Listener.Done(t.info)
	return t.info.Err
}

// trial is one request in flight.
type trial struct {
	router *Router
	shard  uint32
	info   DoneInfo
	pause  time.Duration // before the next attempt, if nothing is heard
	last   error         // of the attempt before

	avoid  string              // the address of the node that was just not reached; empty for none
	alone  time.Time           // since when there is nobody to ask who can be reached; zero if there is
	silent map[string]struct{} // addresses that could not be reached since
	// unowned is since when the shard has no owner, and no node that was asked took it;
	// zero if it may have one. Denied is since when the owner by the row has denied that
	// it has the shard; zero if it has not. With alone they decide when the request is
	// answered UnservedError.
	unowned, denied time.Time

	counted string // the address of the node that the request is counted for; empty for none
}

// run makes attempts until one has the answer, the request is given up (over), or nobody
// will serve it (unserved). It returns the request's result.
func (t *trial) run(ctx context.Context, try func(context.Context, target) error) error {
	for {
		// The view is taken before the attempt: whatever changes from here on closes its
		// channels, and wait returns at once.
		view := t.router.elsewhere(t.router.look(t.shard), t.shard, t.avoid)
		err := view.none
		if err == nil {
			if err := t.admit(view); err != nil {
				return t.result(err)
			}
			t.info.Attempts++
			if !view.to.local {
				t.info.Remote++
			}
			if err = try(ctx, view.to); err == nil {
				return nil
			}
		}
		// What the attempt learned is kept for all requests, before this one judges it.
		t.last, t.avoid = err, unreached(view, err)
		redirected := t.router.learn(view, err)
		switch v := judge(err); {
		case v == unknown:
			t.info.Unknown++
		case v == final:
			return t.result(err)
		}
		if err := t.unserved(view, err); err != nil {
			return t.result(err)
		}
		if ctx.Err() != nil || t.info.Attempts >= t.router.config.MaxAttempts {
			return t.over(ctx)
		}
		// A later row names another owner: no pause, for nothing has to change first. The
		// attempts are bounded all the same.
		if redirected {
			t.info.Redirects++
			continue
		}
		if err := t.wait(ctx, view); err != nil {
			return t.result(err)
		}
		if ctx.Err() != nil {
			return t.over(ctx)
		}
	}
}

// result returns an error of an attempt, if nothing before it says otherwise.
func (t *trial) result(err error) error {
	var stamp *actors.StampError
	switch {
	case t.info.Unknown == 0, planted.Bug(planted.ForgetUnknownAttempt):
		return err
	case errors.As(err, &stamp) && !planted.Bug(planted.StampAfterUnknown):
		// An attempt with the former stamp may have been executed: another stamp could execute it twice.
		return actors.ErrTooOld
	case certain(err):
		return err
	}
	return fmt.Errorf("%w: an earlier attempt may have been executed; the last: %s",
		actors.ErrUnknownOutcome, err.Error())
}

// unserved returns an error if nobody has served the shard for long enough, for one of three reasons. No node has a
// lease, or none of those that have one can be reached: while one can, it takes over the shards of those that cannot.
// Or nobody has owned the shard since, as the store shows it, and the nodes that were asked have not taken it: after a
// failure the patience begins when the lease of the former owner is marked dead, and others take the shard at once. Or
// the owner by the row, which gossip shows to run, denies that it has the shard. A process that was restarted at the
// owner's address does not count: the lease of the former run ends soon, and others take the shard then.
func (t *trial) unserved(view view, err error) error {
	notSent, notOwner := errors.Is(err, transport.ErrNotSent), errors.Is(err, actors.ErrNotOwner)
	t.unowned = during(t.unowned, view.unowned && (notSent || notOwner))
	_, listed := view.members.byIncarnation[view.row.Owner]
	t.denied = during(t.denied, view.owner && listed && notOwner)
	if t.alone = during(t.alone, view.none != nil || notSent); t.alone.IsZero() {
		t.silent = nil
	} else if view.none == nil {
		if t.silent == nil {
			t.silent = map[string]struct{}{}
		}
		t.silent[view.to.address] = struct{}{}
	}
	c := t.router.members.Load()
	switch {
	case t.left(t.alone) == 0 && t.allSilent(c):
		return &actors.UnservedError{Known: c.absent()}
	case t.left(t.unowned) == 0:
		return &actors.UnservedError{Known: c.idle()}
	case t.left(t.denied) == 0:
		return &actors.UnservedError{
			Known: "the owner of its shard does not hold it: " + view.members.who(view.row.Owner),
		}
	}
	return nil
}

// during returns since when a condition holds; zero if it does not.
func during(since time.Time, holds bool) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case since.IsZero():
		return time.Now()
	}
	return since
}

// left returns what is left of the patience with a condition that holds since then. If it does not hold, that is all.
func (t *trial) left(since time.Time) time.Duration {
	if since.IsZero() {
		return t.router.config.Patience
	}
	return max(0, t.router.config.Patience-time.Since(since))
}

// allSilent reports whether none of the nodes with a lease could be reached.
func (t *trial) allSilent(c *members) bool {
	for _, address := range c.byIncarnation {
		if _, ok := t.silent[address]; !ok {
			return false
		}
	}
	return true
}

// over returns the error of a request that is given up. What the last attempt met is for people only:
// programs must not take it for what became of all of them.
func (t *trial) over(ctx context.Context) error {
	what, cause := actors.ErrExpired, ctx.Err()
	if t.info.Unknown > 0 {
		what = actors.ErrUnknownOutcome
	} else if cause == nil {
		what = actors.ErrUnavailable
	}
	err := fmt.Errorf("%w: after %d attempts; the last: %s", what, t.info.Attempts, t.last.Error())
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// wait returns when something is heard that may help, after a pause, or when ctx ends.
func (t *trial) wait(ctx context.Context, view view) error {
	r := t.router
	if r.waiting.Add(1) > int64(r.config.MaxWaiting) {
		r.waiting.Add(-1)
		return fmt.Errorf("%w: %d requests wait for the owners of their shards",
			actors.ErrOverloaded, r.config.MaxWaiting)
	}
	defer r.waiting.Add(-1)
	began := time.Now()
	// Random, so that requests which failed together do not come back together.
	pause := t.pause/2 + rand.N(t.pause/2+1)
	// The patience may end before the pause does, and must be answered then.
	for _, since := range []time.Time{t.alone, t.unowned, t.denied} {
		if left := t.left(since); left > 0 {
			pause = min(pause, left)
		}
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-view.changed:
	case <-view.members.changed:
	case <-timer.C:
		t.pause = min(2*t.pause, r.config.PauseMax)
	case <-ctx.Done():
	}
	t.info.Waited += time.Since(began)
	return nil
}
