package node

import (
	"context"
	"sync"
	"time"

	"licensed/cluster/membership"
	"licensed/cluster/routing"
	"licensed/internal/status"
	"licensed/persistence"
)

// readEvery is the interval at which a gateway computes the status for its metrics, if nobody asks for it.
const readEvery = 10 * time.Second

// readStatus computes the status of the cluster every few seconds until the process stops.
func (n *Node) readStatus(ctx context.Context) {
	t := time.NewTicker(readEvery)
	defer t.Stop()
	m, shown := n.statusMetrics, false
	for {
		// After an error the metrics keep the time of the last status. Before the first one there are none: 0 is OK.
		if _, err := n.clusterStatus(ctx); err == nil && !shown {
			m.Register(n.registry)
			shown = true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// startStatus has a gateway compute the status for its metrics, and each member of a cluster log unserved shards.
func (n *Node) startStatus(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	if n.config.Roles.Has(RoleGateway) {
		running.Go(func() { n.readStatus(ctx) })
	}
	if m := n.member.Load(); m != nil {
		running.Go(func() { m.watchShards(ctx) })
	}
	n.push("status", func(context.Context) error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}

// unserved counts the shards without a live owner, and says why. It goes by the rows that the store showed. If the
// owner of a shard by the store is not listed, the nodes that may serve it all the same are asked: that owner, since
// forged messages can hide it, and the node that is said to have taken the shard.
func (m *member) unserved(ctx context.Context) (total, unserved int, reason string) {
	own := persistence.Incarnation{}
	if node := m.n.owner.Load(); node != nil {
		own = node.Incarnation()
	}
	stored, heard := m.n.shardMap.StoredRows(), m.n.shardMap.Rows()
	lost, takers := make(map[uint32]persistence.Incarnation), make(map[persistence.Incarnation]bool)
	for id, row := range stored {
		owner := expected(row)
		if row.Epoch == 0 || owner.IsZero() || owner != own && !m.router.Knows(owner) {
			lost[row.ID], takers[expected(heard[id])] = owner, true
		}
	}
	if len(lost) > 0 {
		for _, s := range m.router.StatusesOf(ctx, append(m.hiddenOwners(), m.listedOf(takers)...)) {
			found(lost, stored, &s)
		}
	}
	owners := make(map[persistence.Incarnation]int)
	for _, owner := range lost {
		owners[owner]++
	}
	return len(stored), len(lost), m.n.members.LostReason(owners)
}

// expected returns the incarnation that a row names as the owner, or else as the next one; zero if there is none.
func expected(row persistence.Shard) persistence.Incarnation {
	if row.Owner.IsZero() {
		return row.Successor
	}
	return row.Owner
}

// listedOf returns those of the incarnations that are listed and have a lease.
func (m *member) listedOf(all map[persistence.Incarnation]bool) (listed []membership.Member) {
	for i := range all {
		if !m.router.Knows(i) {
			continue
		}
		if o, ok := m.leaseholder(i); ok {
			listed = append(listed, o)
		}
	}
	return listed
}

// found removes from the lost shards those whose owner by the store gave that answer, and those that the node that gave
// it holds at a later epoch.
func found(lost map[uint32]persistence.Incarnation, stored []persistence.Shard, s *routing.Status) {
	i := incarnationOf(s.Member.Meta)
	if s.Err != nil || incarnationOf(s.Response.GetMeta()) != i {
		return
	}
	for id, owner := range lost {
		if owner == i {
			delete(lost, id)
		}
	}
	held := s.Response.GetHeld()
	for k, id := range held.GetIds() {
		if _, ok := lost[id]; ok && k < len(held.GetEpochs()) && held.GetEpochs()[k] > stored[id].Epoch {
			delete(lost, id)
		}
	}
}

// watchShards logs unserved shards until the process stops.
func (m *member) watchShards(ctx context.Context) {
	w := status.NewShardWatch(m.n.log)
	t := time.NewTicker(status.WatchEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			total, unserved, reason := m.unserved(ctx)
			w.Look(time.Now(), total, unserved, reason)
		case <-ctx.Done():
			return
		}
	}
}
