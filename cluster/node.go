package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/actors"
	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/cluster/shardmap"
	"licensed/persistence"
)

// Node is one node of a cluster: one incarnation after the other, each with a host of its own. It is
// safe for concurrent use.
type Node struct {
	// Fixed by StartNode.
	config NodeConfig
	log    *slog.Logger
	shards uint32
	// suffix is what an aggregate's id has after the customer's: a colon and the kind.
	suffix string // of aggregate ids
	rows   *shardmap.Map

	// What AwaitName goes by: leases of this name before the first incarnation, which is first, and when they had been
	// read.
	named   []persistence.Lease
	first   persistence.Incarnation
	namedAt lease.Instant

	// current is the incarnation that runs or has just ended. Requests load it once and
	// keep it: one that passed a gate of a former incarnation is answered by that one's
	// host.
	current atomic.Pointer[incarnation]
	reach   atomic.Pointer[reachability] // of the current incarnation
	waiting atomic.Int64                 // requests at gates

	// mu guards the four fields below, and what drain points to.
	mu      sync.Mutex
	members []ownership.Member // as last told
	clock   clockOffset
	reached reached

	drain   *drain        // that the node was told to begin, nil if none; under mu
	resumed chan struct{} // capacity 1: drain is another

	stop       chan struct{} // closed by Close
	stopping   sync.Once
	ended      chan struct{}             // closed when no incarnation follows any more
	former     []persistence.Incarnation // of this process, not seen to be dead; the loop's
	cause      error                     // of the last incarnation's end; after ended
	began      chan struct{}             // closed when the first incarnation has a lease
	beginning  sync.Once
	background sync.WaitGroup
}

// StartNode makes this process a node of the cluster, and returns when it has a lease. It takes shards
// once it was told the members. When its incarnation ends, the node continues as another by itself, unless another
// process has its name then: it stays without a lease, and Happened is told of Ended with ErrNameTaken.
// Errors: those of the store, and ctx's if there is no lease before it ends.
func StartNode(ctx context.Context, c NodeConfig) (*Node, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if c.Map == nil {
		c.Map = shardmap.New(c.Cluster.Shards)
	}
	if c.Map.Len() != c.Cluster.Shards {
		return nil, fmt.Errorf("the map has %d shards, the cluster %d", c.Map.Len(), c.Cluster.Shards)
	}
	n := &Node{
		config: c, log: c.Log, shards: c.Cluster.Shards, suffix: ":" + c.Kind, rows: c.Map,
		resumed: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
		began:   make(chan struct{}),
	}
	if n.named, err = n.namesakes(ctx); err != nil {
		return nil, err
	}
	n.namedAt = c.Clock.Now()
	first, err := n.newIncarnation(nil)
	if err != nil {
		return nil, fmt.Errorf("start the host: %w", err)
	}
	n.first = first.id
	first.named.Store(true) // AwaitName finds that out.
	n.current.Store(first)
	// The map tells what others say of rows from any goroutine; the loop of the
	// incarnation takes it in.
	n.rows.Listen(func(row persistence.Shard) {
		n.current.Load().post(input{Input: ownership.Input{Kind: ownership.InputRow, Row: row}})
	})
	n.background.Go(func() { n.run(first) })
	select {
	case <-n.began:
		return n, nil
	case <-ctx.Done():
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeHostTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("no lease: %w", ctx.Err()), n.Close(closing))
	}
}

// run runs one incarnation after the other.
func (n *Node) run(i *incarnation) {
	defer close(n.ended)
	for {
		if n.Draining() {
			i.post(input{Input: ownership.Input{Kind: ownership.InputDrain}})
		}
		i.tellReached()
		i.tellMembers()
		n.cause = i.run(n.stop)
		over := i
		// In the background: the next incarnation begins meanwhile, and its host is
		// another.
		n.background.Go(func() { n.closeHost(over) })
		if n.cause == nil || errors.Is(n.cause, ErrNameTaken) {
			return
		}
		// A retired one has marked its own lease dead. The others are marked dead by the
		// next incarnation, which need not wait as [R2] has other nodes do: this process
		// knows that they have ended.
		if !errors.Is(n.cause, ownership.ErrRetired) {
			n.former = append(n.former, i.id)
		}
		rested, stopping := n.rest(n.cause)
		if stopping {
			return
		}
		if i = n.next(i, rested); i == nil {
			return
		}
	}
}

// drain is a request to hand over all shards, until it is undone.
type drain struct {
	done chan struct{} // closed when nothing is held any more
	over bool          // done is closed; under Node.mu
	err  error         // of the incarnation's end, nil if it retired; after done
}

// rest waits for as long as the node is to hold nothing, now that its incarnation has
// ended. Rested reports whether there was a drain, stopping whether the node was closed
// meanwhile.
func (n *Node) rest(cause error) (rested, stopping bool) {
	if errors.Is(cause, ownership.ErrRetired) {
		cause = nil
	}
	for ; ; rested = true {
		n.mu.Lock()
		d := n.drain
		if d != nil && !d.over {
			d.over, d.err = true, cause
			close(d.done)
		}
		n.mu.Unlock()
		if d == nil {
			return rested, false
		}
		select {
		case <-n.stop:
			return rested, true
		case <-n.resumed:
		}
	}
}

// next returns the incarnation after a former one; nil if the node is stopping. One that lived shortly
// is not followed at once, unless the node rested since.
func (n *Node) next(former *incarnation, rested bool) *incarnation {
	ttl := n.config.Protocol.Timing.TTL
	var pause time.Duration
	// A store that ends each lease at once, or a wrong clock, would otherwise have the
	// node write leases in a loop.
	if !rested && n.config.Clock.Now().Sub(former.began) < ttl {
		pause = ttl / 4
	}
	for {
		select {
		case <-n.stop:
			return nil
		case <-time.After(pause):
		}
		i, err := n.newIncarnation(n.former)
		if err == nil {
			n.current.Store(i)
			return i
		}
		n.log.Error("host of a new incarnation not started", "error", err)
		pause = ttl
	}
}

// closeHostTimeout is the time the host of a former incarnation gets to end.
const closeHostTimeout = 10 * time.Second

// closeHost ends the host of an incarnation that has ended: what is in progress has an unknown outcome.
func (n *Node) closeHost(i *incarnation) {
	// Before Close, which would wait for activations whose replies nobody may get any
	// more ([R9]).
	i.host.Drop(func(string) bool { return true })
	ctx, cancel := context.WithTimeout(context.Background(), closeHostTimeout)
	defer cancel()
	if err := i.host.Close(ctx); err != nil {
		n.log.Warn("host of a former incarnation not closed", "incarnation", i.id, "error", err)
	}
}

// Execute runs a command on an aggregate of that id (without the kind), if its shard is held; a request
// for one that is in transit to or from this node waits. Errors: as actors.Runtime's; *NotOwnerError in
// place of actors.ErrNotOwner.
func (n *Node) Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error) {
	for attempt := 0; ; attempt++ {
		i, g, err := n.enter(ctx, id)
		if err != nil {
			return actors.Reply{}, err
		}
		reply, err := i.host.Execute(ctx, id, c)
		if n.config.Confirm == ConfirmRead && speaks(err) {
			// [R9]: the reply was decided before this read begins.
			if e := i.confirm.wait(ctx); e != nil {
				reply, err = actors.Reply{}, fmt.Errorf("%w: not confirmed by a read of the lease: %w",
					actors.ErrUnknownOutcome, e)
			}
		}
		i.leave(g)
		if again, err := n.after(g.shard, attempt, err); !again {
			return reply, err
		}
	}
}

// Query asks an aggregate of that id, as Execute does. The answer is linearizable.
func (n *Node) Query(ctx context.Context, id string, query any) (actors.Answer, error) {
	return n.ask(ctx, id, query, Host.Query)
}

// Operate has the host of an aggregate execute an operator's request, perhaps twice. Errors are as those of Query.
func (n *Node) Operate(ctx context.Context, id string, request any) (actors.Answer, error) {
	return n.ask(ctx, id, request, Host.Operate)
}

// ask is Execute for requests that change nothing: an answer that is not confirmed is not
// given, and its request may be tried elsewhere.
func (n *Node) ask(
	ctx context.Context, id string, what any, of func(Host, context.Context, string, any) (actors.Answer, error),
) (actors.Answer, error) {
	for attempt := 0; ; attempt++ {
		i, g, err := n.enter(ctx, id)
		if err != nil {
			return actors.Answer{}, err
		}
		answer, err := of(i.host, ctx, id, what)
		if n.config.Confirm == ConfirmRead && speaks(err) {
			if e := i.confirm.wait(ctx); e != nil {
				answer, err = actors.Answer{}, n.queryError(ctx, g.shard, e)
			}
		}
		i.leave(g)
		if again, err := n.after(g.shard, attempt, err); !again {
			return answer, err
		}
	}
}

// queryError is the error of a query whose answer must not be given: nothing was executed.
func (n *Node) queryError(ctx context.Context, shard uint32, unconfirmed error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(unconfirmed, errDead):
		return &NotOwnerError{Row: n.Row(shard)}
	}
	return fmt.Errorf("%w: not confirmed by a read of the lease: %w", actors.ErrUnavailable, unconfirmed)
}

// attempts is the number of times that a request is tried again that meets an ending
// activation. Each attempt waits for the host to end one, so that more are met only if
// the shard changes hands that often.
const attempts = 4

// after looks at a host's error: whether to try again, and otherwise what to say. A shard that is held
// may still have an activation of a former epoch, which knows only that it has ended.
func (n *Node) after(shard uint32, attempt int, err error) (again bool, _ error) {
	_, said := err.(*NotOwnerError) //nolint:errorlint // made here, wrapped by nobody
	if err == nil || said || !errors.Is(err, actors.ErrNotOwner) {
		return false, err
	}
	if i := n.current.Load(); attempt < attempts && (i.valid() && i.gates[shard].kind() != ownership.GateShut) {
		return true, nil
	}
	return false, &NotOwnerError{Row: n.Row(shard)}
}

// speaks reports whether a host's answer says something about the aggregate, which must be confirmed.
func speaks(err error) bool {
	for _, silent := range []error{
		actors.ErrNotOwner, actors.ErrOverloaded, actors.ErrExpired, actors.ErrUnknownOutcome, actors.ErrUnavailable,
	} {
		if err != nil && errors.Is(err, silent) {
			return false
		}
	}
	return true
}

// shardOf returns the shard of an aggregate by its id without the kind.
func (n *Node) shardOf(id string) uint32 {
	// On the stack for ids of the usual length: each request comes through here.
	var space [128]byte
	b := append(append(space[:0], id...), n.suffix...)
	return uint32(xxhash.Sum64(b) % uint64(n.shards))
}

// enter passes the gate of an aggregate's shard. The caller has the incarnation leave it.
func (n *Node) enter(ctx context.Context, id string) (*incarnation, *gate, error) {
	shard := n.shardOf(id)
	i := n.current.Load()
	g := &i.gates[shard]
	ok, quiet := g.enter()
	if ok {
		return n.admit(i, g)
	}
	if quiet {
		i.quiet(g)
	}
	return n.await(ctx, shard)
}

// admit lets a request that passed the gate through, if the lease is valid: otherwise it would end an aggregate that
// stays in memory until the lease is renewed.
func (n *Node) admit(i *incarnation, g *gate) (*incarnation, *gate, error) {
	if i.valid() {
		return i, g, nil
	}
	i.leave(g)
	return nil, nil, &NotOwnerError{Row: n.Row(g.shard)}
}

// await waits for a gate to open.
func (n *Node) await(ctx context.Context, shard uint32) (*incarnation, *gate, error) {
	defer n.waiting.Add(-1)
	// The request counts itself in before it compares, so that the limit is exact under
	// concurrency.
	if n.waiting.Add(1) > int64(n.config.MaxWaiting) {
		return nil, nil, fmt.Errorf("%w: %d requests wait for shards", actors.ErrOverloaded, n.config.MaxWaiting)
	}
	timeout := time.NewTimer(n.config.MaxWait)
	defer timeout.Stop()
	// what was promised may turn out to be wrong, without a change here
	again := time.NewTicker(n.config.Protocol.Timing.TTL / 8)
	defer again.Stop()
	for {
		i := n.current.Load()
		g := &i.gates[shard]
		kind, changed := g.look()
		switch {
		case kind == ownership.GateOpen:
			ok, quiet := g.enter()
			if ok {
				return n.admit(i, g)
			}
			if quiet {
				i.quiet(g)
			}
			continue
		case kind == ownership.GateShut && !n.promised(i, shard):
			return nil, nil, &NotOwnerError{Row: n.Row(shard)}
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w: shard %d is changing hands: %w", actors.ErrExpired, shard, ctx.Err())
		case <-timeout.C:
			return nil, nil, &NotOwnerError{Row: n.Row(shard)}
		}
	}
}

// promised reports whether a shard that is not held was released to this incarnation, which has only
// just been told.
func (n *Node) promised(i *incarnation, shard uint32) bool {
	// A hint of a release that never was would let requests wait here for the whole of
	// MaxWait.
	row, heard := n.rows.Row(shard)
	fresh := time.Since(heard) < n.config.Protocol.Timing.TTL // a hint expires
	return row.Owner.IsZero() && row.Successor == i.id && fresh && i.valid()
}

// SetMembers says who seems to be alive, this node among them. Whatever it says of this node's
// incarnation is replaced by the current one.
func (n *Node) SetMembers(members []ownership.Member) {
	n.mu.Lock()
	n.members = slices.Clone(members)
	n.mu.Unlock()
	n.current.Load().tellMembers()
}

// tellMembers tells the machine who is present.
func (i *incarnation) tellMembers() {
	n := i.node
	n.mu.Lock()
	defer n.mu.Unlock()
	// The slice may be nil for members that were never told, and empty for a node that
	// sees nobody.
	if n.members == nil || !i.named.Load() {
		return
	}
	members := slices.Clone(n.members)
	for k := range members {
		if m := &members[k]; m.Name == n.config.Name {
			m.Incarnation = i.id
			m.Eligible = m.Eligible && !n.clock.wrong
		}
	}
	// Under n.mu, so that an older list never comes after a newer one.
	i.post(input{Input: ownership.Input{Kind: ownership.InputMembers, Members: members}})
}

// Suspect has the node read the lease of an incarnation that others say is dead.
func (n *Node) Suspect(i persistence.Incarnation) {
	n.current.Load().post(input{Input: ownership.Input{Kind: ownership.InputSuspect, Suspect: i}})
}

// Row returns the row of a shard as last heard of: a hint. A shard that is out of range has none.
func (n *Node) Row(shard uint32) persistence.Shard {
	row, _ := n.rows.Row(shard)
	return row
}

// Shards returns the number of shards of the cluster.
func (n *Node) Shards() uint32 { return n.shards }

// Shard returns the shard of an aggregate (its id with the kind).
func (n *Node) Shard(aggregate string) uint32 { return ShardOf(aggregate, n.shards) }

// Epoch returns the epoch under which a shard is held at this moment, or false.
func (n *Node) Epoch(shard uint32) (uint64, bool) { return n.current.Load().Epoch(shard) }

// Holds says whether the shard is held under that epoch at this very moment, as actors.Authority does.
// With ConfirmRead what is said or done because of it needs a call of Confirm after it.
func (n *Node) Holds(shard uint32, epoch uint64) bool { return n.current.Load().Holds(shard, epoch) }

// Confirm returns nil once it is certain that this node's incarnation was not dead when Confirm was
// called: at once, or after a read with ConfirmRead.
func (n *Node) Confirm(ctx context.Context) error {
	i := n.current.Load()
	if n.config.Confirm == ConfirmRead {
		return i.confirm.wait(ctx)
	}
	if !i.valid() {
		return fmt.Errorf("%w: the lease has ended", actors.ErrNotOwner)
	}
	return nil
}

// Incarnation returns the incarnation that has a lease and the node's name at this moment; zero if there is none.
func (n *Node) Incarnation() persistence.Incarnation {
	if i := n.current.Load(); i.valid() && i.named.Load() {
		return i.id
	}
	return persistence.Incarnation{}
}

// Drain hands over all shards and ends the lease. It returns when that is done; if ctx ends first, or the lease runs
// out, it continues in the background. Requests are then answered with the rows of the owners of the shards. Undrain or
// close the node after it. Errors: ErrLapsed if the lease is not valid, and that of ctx.
func (n *Node) Drain(ctx context.Context) error {
	n.mu.Lock()
	if n.drain == nil {
		n.drain = &drain{done: make(chan struct{})}
	}
	d := n.drain
	n.mu.Unlock()
	// The incarnation may have ended: rest completes the drain then, or run has the next
	// incarnation retire.
	n.current.Load().post(input{Input: ownership.Input{Kind: ownership.InputDrain}})
	again := time.NewTicker(longestPause)
	defer again.Stop()
	for {
		select {
		case <-d.done:
			switch {
			case errors.Is(d.err, lease.ErrEnded):
				return fmt.Errorf("drain: %w: %w", ErrLapsed, d.err)
			case d.err != nil:
				return fmt.Errorf("drain: %w", d.err)
			}
			return nil
		case <-n.ended:
			return nil // Closed meanwhile: nothing is held.
		case <-again.C:
			if n.current.Load().lapsed.Load() != 0 {
				return fmt.Errorf("drain: %w", ErrLapsed)
			}
		case <-ctx.Done():
			return fmt.Errorf("drain: %w", ctx.Err())
		}
	}
}

// ErrLapsed says that a node that drains has no valid lease, so it serves nobody and can give nothing away. If it stops
// then, others take its shards as those of a crashed one.
var ErrLapsed = errors.New("the lease has run out")

// Undrain has a node that was drained begin a new incarnation, which takes shards again. A drain that is not complete
// is completed first: its incarnation has begun to retire. Undrain returns when the new incarnation may begin.
// Without a drain it does nothing. Errors: ctx's, and the drain then stays.
func (n *Node) Undrain(ctx context.Context) error {
	n.mu.Lock()
	d := n.drain
	n.mu.Unlock()
	if d == nil {
		return nil
	}
	select {
	case <-d.done:
	case <-n.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("undrain: the node still hands over its shards: %w", ctx.Err())
	}
	// Another Undrain may have done it, and another Drain begun since: that one stays.
	n.mu.Lock()
	if n.drain == d {
		n.drain = nil
	}
	n.mu.Unlock()
	select {
	case n.resumed <- struct{}{}:
	default:
	}
	return nil
}

// Draining says whether the node was told to hand over what it has, and takes nothing until it is undrained or started
// again.
func (n *Node) Draining() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.drain != nil
}

// Close stops the node. Without a Drain before it, others take the node's shards as those of a crashed
// one. It waits until hosts and operations on the store have ended, or ctx has.
func (n *Node) Close(ctx context.Context) error {
	n.stopping.Do(func() { close(n.stop) })
	done := make(chan struct{})
	go func() {
		n.background.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the node: %w", ctx.Err())
	}
}

// happened logs a happening and reports it to the configuration.
func (n *Node) happened(h Happening) {
	switch h.Kind {
	case Began:
		n.beginning.Do(func() { close(n.began) })
		n.log.Info("lease acquired", "incarnation", h.Incarnation)
	case Ended:
		switch {
		case h.Cause == nil || errors.Is(h.Cause, lease.ErrRetired):
			n.log.Info("incarnation ended", "incarnation", h.Incarnation, "cause", h.Cause)
		case errors.Is(h.Cause, ErrNameTaken):
			n.log.Error("node stopped: another process has its name", "incarnation", h.Incarnation, "error", h.Cause)
		default:
			n.log.Warn("lease lost, restarting as a new incarnation", "incarnation", h.Incarnation, "cause", h.Cause)
		}
	case Raised:
		n.log.Error("shard epoch raised: ownership was older than history; was it restored from a backup?",
			"shard", h.Shard, "epoch", h.Epoch)
	case Lost:
		n.log.Warn("shard lost", "shard", h.Shard, "epoch", h.Epoch)
	case Died:
		n.log.Warn("incarnation marked dead", "incarnation", h.Other)
	case Unreachable:
		n.log.Warn("node became unreachable", "error", h.Cause)
	case Reachable:
		n.log.Info("node became reachable")
	case Lapsed:
		n.log.Warn("lease not renewed in time: requests are refused until the store answers",
			"incarnation", h.Incarnation)
	case Resumed:
		n.log.Info("lease renewed: customers in memory are served again", "incarnation", h.Incarnation,
			"after", h.Took.String())
	case ClockWrong, ClockRight:
		n.log.Warn("wall clock compared with peers", "state", h.Kind.String(), "ahead", h.Took.String())
	default:
		n.log.Debug("shard changed", "change", h.Kind.String(), "shard", h.Shard, "epoch", h.Epoch, "other", h.Other,
			"duration", h.Took.String())
	}
	n.config.Listener.Happened(h)
}
