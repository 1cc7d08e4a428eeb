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

// unowned are the shards of a gateway: as many, and none of them held.
type unowned uint32

func (u unowned) Incarnation() persistence.Incarnation { return persistence.Incarnation{} }
func (u unowned) Shards() uint32                       { return uint32(u) }
func (u unowned) Epoch(uint32) (uint64, bool)          { return 0, false }
func (u unowned) Held() (count int, low, high uint64)  { return 0, 0, 0 }

// startCluster reads the row of the cluster that shares the store, and creates it for the first process.
func (n *Node) startCluster(ctx context.Context) error {
	if n.config.Store == "" {
		return nil
	}
	n.clusterMetrics = newClusterMetrics(n)
	c := &n.config.Cluster
	info, err := storage.Await(ctx, n.config.StoreWait, n.log, "store", func() (persistence.ClusterInfo, error) {
		return cluster.Open(ctx, n.storage.Hot, c.Name, c.Shards)
	})
	if err != nil {
		return err
	}
	n.cluster, n.shardMap = info, shardmap.New(info.Shards)
	n.clusterMetrics.shards.Set(float64(info.Shards))
	return nil
}

// startOwner starts what owns shards: alone on a store of its own, or as a node of a cluster. A gateway
// owns none.
func (n *Node) startOwner(ctx context.Context) error {
	switch {
	case n.config.Store == "":
		return n.startSolo(ctx)
	case n.config.Roles.Has(RoleNode):
		return n.startNode(ctx)
	}
	n.shards = unowned(n.cluster.Shards)
	return nil
}

// startSolo takes all shards, for the lock on the directory proves that nobody else has them, and starts
// the one host.
func (n *Node) startSolo(ctx context.Context) error {
	solo, err := cluster.OpenSolo(ctx, n.storage.Hot, cluster.SoloConfig{Cluster: soloCluster, Node: n.name, Log: n.log})
	if err != nil {
		return fmt.Errorf("take ownership: %w", err)
	}
	n.onFail(solo.Lose)
	h, err := n.hosts.New(solo)
	if err != nil {
		return err
	}
	n.shards, n.aggregates = solo, h
	n.push("runtime", h.Close)
	return nil
}

// startNode makes the process a node of its cluster: it has a lease then, and a host for each of its
// incarnations. That one ends is no failure of the process.
func (n *Node) startNode(ctx context.Context) error {
	c := &n.config.Cluster
	protocol := ownership.DefaultConfig()
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
		Ownership: n.storage.Hot, Cluster: n.cluster, Map: n.shardMap, Name: n.name, Kind: license.Name,
		Protocol: protocol, Confirm: confirm, Log: n.log,
		NewHost: func(a actors.Authority) (cluster.Host, error) {
			h, err := n.hosts.New(a)
			if err != nil {
				return nil, err
			}
			return h, nil
		},
		Changed:  n.changed,
		Happened: n.happened,
	}
	if !c.Alone {
		config.Votes = n.storage.Hot
	}
	if m := n.joining; m != nil {
		config.Address, config.Scanned = m.transport.Address(), m.scanned
	}
	node, err := storage.Await(ctx, n.config.StoreWait, n.log, "store", func() (*cluster.Node, error) { return cluster.StartNode(ctx, config) })
	if err != nil {
		return fmt.Errorf("become a node of cluster %s: %w", c.Name, err)
	}
	n.push("runtime", node.Close)
	if _, err := storage.Await(ctx, n.config.StoreWait, n.log, "store", func() (struct{}, error) { return struct{}{}, node.AwaitName(ctx) }); err != nil {
		return errors.Join(fmt.Errorf("become a node of cluster %s: %w", c.Name, err), node.Drain(ctx))
	}
	n.owner.Store(node)
	n.shards, n.aggregates = node, node
	if c.Alone {
		return n.takeAll(ctx, node)
	}
	return nil
}

// takeAll waits until all shards are held by a process that is alone. If a former one crashed that takes
// until its lease has run out; if one is present, nothing comes of it.
func (n *Node) takeAll(ctx context.Context, node *cluster.Node) error {
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
	node := n.owner.Load()
	return node == nil || node.Confirm(ctx) == nil
}
