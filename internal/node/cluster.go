package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/cluster/shardmap"
	"licensed/gateway"
	"licensed/gateway/auth"
	"licensed/internal/member"
	"licensed/internal/storage"
	"licensed/persistence"
)

// soloCluster is the name that a node with a store of its own gives its cluster of one.
const soloCluster = "licensed"

// shards tells which shards this process holds.
type shards interface {
	// Incarnation of this process; zero while it has no lease.
	Incarnation() persistence.Incarnation
	// Shards of the cluster.
	Shards() uint32
	// Epoch under which a shard is held, or false.
	Epoch(shard uint32) (uint64, bool)
	// Held returns the number of shards that are held, and the lowest and highest of their epochs; 0 if none is.
	Held() (count int, lowest, highest uint64)
}

// unowned are the shards of a process that is no node: the number of the cluster's, and
// none of them held.
type unowned uint32

func (u unowned) Incarnation() persistence.Incarnation { return persistence.Incarnation{} }
func (u unowned) Shards() uint32                       { return uint32(u) }
func (u unowned) Epoch(uint32) (uint64, bool)          { return 0, false }
func (u unowned) Held() (count int, low, high uint64)  { return 0, 0, 0 }

// shared is what belongs to a cluster whose processes share the store.
type shared struct {
	info    persistence.ClusterInfo
	rows    *shardmap.Map
	metrics *member.Metrics
}

// findCluster reads the row of the cluster that shares the store, and creates it for the first process.
func (n *Node) findCluster(ctx context.Context) error {
	c := &n.config.Cluster
	metrics := member.NewMetrics(n.registry, &n.owner, n.config.Roles.Has(RoleNode))
	info, err := storage.Await(ctx, n.config.StoreWait, n.log, "store", func() (persistence.ClusterInfo, error) {
		return cluster.Open(ctx, n.storage.Hot, c.Name, c.Shards)
	})
	if err != nil {
		return err
	}
	metrics.SetShards(info.Shards)
	n.shared.Set(&shared{info, shardmap.New(info.Shards), metrics})
	n.shards = unowned(info.Shards) // unless it becomes a node
	return nil
}

// listen opens the port for requests of other processes.
func (n *Node) listen(context.Context) error {
	s, _ := n.shared.Get()
	c := member.Config{
		Cluster: n.config.Cluster, Name: n.name, Info: s.info, Store: n.storage.Hot, Map: s.rows, Node: &n.owner,
		Holds: n.config.Roles.Has(RoleNode), AcceptExpiredCRLs: n.acceptsExpiredCRLs(),
		MaxPeers: n.files.Node, MaxPerNode: n.config.perNode(), MaxPerShard: n.config.perShard(),
		Status: n.statusWith, Stopping: n.parts.Stopping(), Health: n.health, Events: &n.events, Members: n.members,
		Metrics: s.metrics,
		Tracer:  n.tracer, Now: n.config.Now, Log: n.log,
	}
	if n.verifier != nil {
		c.Authorizer, c.Authenticator = auth.NewTable(), n.verifier
	}
	if api := n.API(); api != nil {
		c.API = api.String()
	}
	m, err := member.Listen(c)
	if err != nil {
		return err
	}
	n.parts.Push("node address", m.Close) // closed as "node port", unless the start fails before that
	n.member.Set(m)
	n.expiries.Add("node", m.Certificates)
	return nil
}

// join makes the process known to the others of its cluster.
func (n *Node) join(context.Context) error {
	m, _ := n.member.Get()
	n.parts.Push("node port", m.Transport.Close)
	if err := m.Join(); err != nil {
		return err
	}
	n.parts.Push("gossip", m.Leave)
	n.aggregates = m.Router
	return nil
}

// awaitNodes waits until a node is known that can hold customers.
func (n *Node) awaitNodes(ctx context.Context) error {
	m, _ := n.member.Get()
	return m.AwaitNodes(ctx)
}

// watchShards logs shards that nobody serves.
func (n *Node) watchShards(context.Context) error {
	m, _ := n.member.Get()
	m.Watch()
	return nil
}

// startSolo takes all shards, for the lock on the directory proves that nobody else has them, and starts
// the one host.
func (n *Node) startSolo(ctx context.Context) error {
	solo, err := cluster.OpenSolo(ctx, n.storage.Hot,
		cluster.SoloConfig{Cluster: soloCluster, Node: n.name, Log: n.log})
	if err != nil {
		return fmt.Errorf("take ownership: %w", err)
	}
	n.solo.Set(solo)
	if state, _ := n.health.State(); state == gateway.Failed { // before it could be told
		solo.Lose()
	}
	h, err := n.hosts.New(solo)
	if err != nil {
		return err
	}
	n.shards, n.aggregates = solo, h
	n.parts.Push("runtime", h.Close)
	return nil
}

// startNode makes the process a node of its cluster: it has a lease then, and a host for each of its
// incarnations. That one ends is no failure of the process.
func (n *Node) startNode(ctx context.Context) error {
	c := &n.config.Cluster
	s, _ := n.shared.Get()
	protocol := ownership.DefaultConfig()
	// The allowance must be smaller than a short TTL.
	protocol.Timing.TTL, protocol.Timing.Allowance = c.LeaseTTL, min(protocol.Timing.Allowance, c.LeaseTTL/4)
	protocol.MovesPerSecond, protocol.DrainWithin = c.MovesPerSecond, n.config.DrainTimeout/2
	if c.Alone { // Nobody waits while shards move.
		protocol.MovesPerSecond, protocol.MaxMoves = float64(c.Shards), protocol.MaxClaims
	}
	confirm, err := cluster.ParseConfirm(c.Confirm)
	if err != nil {
		return err
	}
	config := cluster.NodeConfig{
		Ownership: n.storage.Hot, Cluster: s.info, Map: s.rows, Name: n.name, Kind: license.Name,
		Protocol: protocol, Confirm: confirm, Log: n.log,
		NewHost: func(a actors.Authority) (cluster.Host, error) {
			h, err := n.hosts.New(a)
			if err != nil {
				return nil, err
			}
			return h, nil
		},
		Listener: cluster.Listener{Happened: n.happened},
	}
	// A process that is alone has nobody who could vote.
	if !c.Alone {
		config.Votes = n.storage.Hot
	}
	if m, ok := n.member.Get(); ok {
		config.Address = m.Transport.Address()
		config.Listener.Changed, config.Listener.Scanned = m.Changed, m.Scanned
	}
	node, err := storage.Await(ctx, n.config.StoreWait, n.log, "store",
		func() (*cluster.Node, error) { return cluster.StartNode(ctx, config) })
	if err != nil {
		return fmt.Errorf("become a node of cluster %s: %w", c.Name, err)
	}
	// Pushed before anything below can fail: an error stops the node, too.
	n.parts.Push("runtime", node.Close)
	if _, err := storage.Await(ctx, n.config.StoreWait, n.log, "store",
		func() (struct{}, error) { return struct{}{}, node.AwaitName(ctx) }); err != nil {
		// The lease ends at once: the process of that name keeps its shards.
		return errors.Join(fmt.Errorf("become a node of cluster %s: %w", c.Name, err), node.Drain(ctx))
	}
	n.owner.Set(node)
	n.shards, n.aggregates = node, node
	return nil
}

// takeAll waits until all shards are held by a process that is alone. If a former one crashed that takes
// until its lease has run out; if one is present, nothing comes of it.
func (n *Node) takeAll(ctx context.Context) error {
	node, _ := n.owner.Get()
	// It is its only member.
	node.SetMembers([]ownership.Member{{Name: n.name, Eligible: true}})
	wait := time.NewTimer(takeAllTimeout + 2*n.config.Cluster.LeaseTTL)
	defer wait.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		held, _, _ := node.Held()
		if held == int(node.Shards()) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
			return fmt.Errorf("only %d of %d shards could be taken: does another process run on %s?",
				held, node.Shards(), n.Store(ctx))
		}
	}
}

// takeAllTimeout is the time that taking all shards may take once nobody else has them.
const takeAllTimeout = 30 * time.Second

// hostName is the default name of a node.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// confirmed returns whether what the clock says of a lease is enough, or a read confirms it too.
func (n *Node) confirmed(ctx context.Context) bool {
	node, ok := n.owner.Get()
	return !ok || node.Confirm(ctx) == nil
}
