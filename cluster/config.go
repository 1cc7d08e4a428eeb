package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"licensed/actors"
	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/cluster/shardmap"
	"licensed/persistence"
)

// Host runs the aggregates of one incarnation. It is safe for concurrent use.
type Host interface {
	// Execute runs a command on the aggregate of that id (without the kind). Execute and
	// Query have the errors of actors.Runtime: actors.ErrNotOwner is what an activation
	// answers that has ended.
	Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error)
	// Query answers from the aggregate's state, without confirming the lease: the node
	// does that.
	Query(ctx context.Context, id string, query any) (actors.Answer, error)
	// Operate executes an operator's request, perhaps twice.
	Operate(ctx context.Context, id string, request any) (actors.Answer, error)
	// Drop ends the activations that the function selects, at once.
	Drop(of func(id string) bool)
	// Close takes no more requests, and returns when none is in progress or ctx ended.
	Close(ctx context.Context) error
}

// Confirm says how a node makes sure, before a reply goes out, that it may still speak ([R9]).
type Confirm uint8

const (
	// ConfirmLease asks the clock: the lease, as last renewed, is valid.
	ConfirmLease Confirm = iota
	// ConfirmRead also waits for a read of its own lease row, begun after the reply was decided. It
	// holds where a machine can be frozen together with its clock, as a virtual machine that is paused,
	// and costs a linearizable read per tick and the time of one to two reads per request.
	ConfirmRead
)

// ParseConfirm reads "lease" or "read".
func ParseConfirm(s string) (Confirm, error) {
	for _, c := range []Confirm{ConfirmLease, ConfirmRead} {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("confirm is %q, want lease or read", s)
}

func (c Confirm) String() string {
	if c == ConfirmRead {
		return "read"
	}
	return "lease"
}

// NodeConfig of a node. Ownership, Cluster, Name, Kind and NewHost must be given.
type NodeConfig struct {
	// Ownership keeps leases and shards; all nodes of the cluster share it.
	Ownership persistence.Ownership
	// Cluster is the row of the cluster, as [Open] returned it.
	Cluster persistence.ClusterInfo
	// Name of the node, the same after a restart: placement goes by it.
	Name string
	// Address is where other processes reach the node, host:port. It is written to the lease rows of its
	// incarnations; empty for a node that nobody needs to reach.
	Address string
	// Kind is the name of the aggregates' kind, a part of their ids.
	Kind string
	// Map is what the process knows of the owners of shards, shared with its router (default: a map of the node's
	// own). The node adds what the store shows, and listens to what others say.
	Map *shardmap.Map
	// Protocol has the knobs of the protocol (without a Timing: ownership.DefaultConfig). Its Incarnation, Node,
	// Former and Shards are set for each incarnation.
	Protocol ownership.Config
	// Confirm is how replies are confirmed (default ConfirmLease).
	Confirm Confirm
	// MaxWaiting bounds the requests that wait for shards in transit to or from this node (default
	// 16384); one more is answered actors.ErrOverloaded.
	MaxWaiting int
	// MaxWait bounds the time that a request waits for a shard (default 5 s), whatever its deadline.
	MaxWait time.Duration
	// Clock of leases (default lease.SystemClock).
	Clock lease.Clock

	// Votes has which processes cannot reach which nodes. With it, the node takes shards when another process has
	// reached it (SetReached), and hands them over when most others cannot. Nil: nobody else is to reach it.
	Votes persistence.Votes

	// NewHost returns what runs the aggregates of a new incarnation, which is their authority. It is
	// called once for each; the host is closed when the incarnation has ended.
	NewHost func(actors.Authority) (Host, error)
	// Listener hears what happens.
	Listener Listener
	// Log takes what an operator should know (default slog.Default).
	Log *slog.Logger
}

// withDefaults returns the configuration with what was left out.
func (c NodeConfig) withDefaults() (NodeConfig, error) {
	if c.Protocol.Timing == (lease.Timing{}) {
		c.Protocol = ownership.DefaultConfig()
	}
	if c.MaxWaiting == 0 {
		// The limit bounds memory: each waiting request keeps a goroutine and its
		// message.
		c.MaxWaiting = 16384
	}
	if c.MaxWait == 0 {
		c.MaxWait = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Clock == nil {
		clock, err := lease.SystemClock()
		if err != nil {
			return c, err
		}
		c.Clock = clock
	}
	c.Listener = c.Listener.withDefaults()
	return c, c.validate()
}

// Listener hears what happens to a node. The functions are called from the node's loop, which renews the lease: they
// must not block or call Status. Those that are nil are not called.
type Listener struct {
	// Changed is told what others should hear: rows of shards gained and released, incarnations found
	// dead. Who is to hear of a release at once is the successor in it. The news belong to the callee.
	Changed func(News)
	// Scanned is told of the rows of all shards after each read of all of them. The slice belongs to the callee.
	Scanned func(rows []persistence.Shard)
	// Happened is told what happens, in order.
	Happened func(Happening)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Changed == nil {
		l.Changed = func(News) {}
	}
	if l.Scanned == nil {
		l.Scanned = func([]persistence.Shard) {}
	}
	if l.Happened == nil {
		l.Happened = func(Happening) {}
	}
	return l
}

// validate returns an error that names the first field that is missing or out of range,
// or that of the protocol's configuration. It checks the latter with an incarnation that
// is thrown away, so that a wrong timing is found at the start and not when a lease has
// ended.
func (c *NodeConfig) validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"Ownership", c.Ownership != nil}, {"Cluster", c.Cluster.Name != ""}, {"Name", c.Name != ""},
		{"Kind", c.Kind != ""},
		{"NewHost", c.NewHost != nil}, {"MaxWaiting", c.MaxWaiting > 0}, {"MaxWait", c.MaxWait > 0},
		{"Confirm", c.Confirm <= ConfirmRead},
	} {
		if !f.ok {
			return fmt.Errorf("node configuration: %s is missing or out of range", f.name)
		}
	}
	probe := c.protocol(persistence.NewIncarnation(), nil, c.Cluster.Shards)
	return probe.Validate()
}

// protocol returns the configuration of an incarnation's machine.
func (c *NodeConfig) protocol(
	i persistence.Incarnation, former []persistence.Incarnation, shards uint32,
) ownership.Config {
	p := c.Protocol
	// Former is cloned: the loop of the node removes from its slice, and the machine
	// keeps what it got.
	p.Incarnation, p.Node, p.Address, p.Former, p.Shards = i, c.Name, c.Address, slices.Clone(former), shards
	p.Witnessed = c.Votes != nil
	return p
}

// NotOwnerError says that this node does not own the shard of a request, which was not executed.
// It matches actors.ErrNotOwner.
type NotOwnerError struct {
	// Row of the shard as far as this node knows, with its present or next owner. A hint.
	Row persistence.Shard
}

func (e *NotOwnerError) Error() string {
	switch {
	case !e.Row.Owner.IsZero():
		return fmt.Sprintf("shard %d is owned by %s at epoch %d", e.Row.ID, e.Row.Owner, e.Row.Epoch)
	case !e.Row.Successor.IsZero():
		return fmt.Sprintf("shard %d goes to %s after epoch %d", e.Row.ID, e.Row.Successor, e.Row.Epoch)
	}
	return fmt.Sprintf("shard %d is owned by nobody as far as is known", e.Row.ID)
}

// Is reports whether the target is actors.ErrNotOwner.
func (e *NotOwnerError) Is(target error) bool { return target == actors.ErrNotOwner }

// ErrOtherCluster says that the store belongs to a cluster of another name.
var ErrOtherCluster = errors.New("the store belongs to another cluster")

// Open returns the row of the cluster that uses the store. The first process creates it, with that number of shards (0:
// DefaultShards); an existing cluster keeps its own. Errors: ErrOtherCluster, and those of the store.
func Open(
	ctx context.Context, ownership persistence.Ownership, name string, shards uint32,
) (persistence.ClusterInfo, error) {
	if shards == 0 {
		shards = DefaultShards
	}
	// A compare-and-set: of several processes that start a cluster at the same time one
	// creates the row, and all get it.
	info, err := ownership.CreateCluster(ctx, persistence.ClusterInfo{Name: name, Shards: shards})
	switch {
	case err != nil:
		return info, fmt.Errorf("find cluster %s: %w", name, err)
	case info.Name != name:
		return info, fmt.Errorf("%w: it is %q, this process is configured for %q", ErrOtherCluster, info.Name, name)
	}
	return info, nil
}
