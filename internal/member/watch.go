package member

import (
	"context"
	"time"

	"licensed/cluster/membership"
	"licensed/cluster/routing"
	"licensed/internal/status"
	"licensed/persistence"
)

// unserved counts the shards without a live owner, and says why. It goes by the rows that the store showed. If the
// owner of a shard by the store is not listed, the nodes that may serve it all the same are asked: that owner, since
// forged messages can hide it, and the node that is said to have taken the shard.
func (m *Self) unserved(ctx context.Context) (total, unserved int, reason string) {
	own := persistence.Incarnation{}
	if node, ok := m.config.Node.Get(); ok {
		own = node.Incarnation()
	}
	stored, heard := m.config.Map.StoredRows(), m.config.Map.Rows()
	lost, takers := make(map[uint32]persistence.Incarnation), make(map[persistence.Incarnation]bool)
	for id, row := range stored {
		owner := expected(row)
		if row.Epoch == 0 || owner.IsZero() || owner != own && !m.Router.Knows(owner) {
			lost[row.ID], takers[expected(heard[id])] = owner, true
		}
	}
	if len(lost) > 0 {
		for _, s := range m.Router.StatusesOf(ctx, append(m.hiddenOwners(), m.listedOf(takers)...)) {
			found(lost, stored, &s)
		}
	}
	owners := make(map[persistence.Incarnation]int)
	for _, owner := range lost {
		owners[owner]++
	}
	return len(stored), len(lost), m.config.Members.LostReason(owners)
}

// expected returns the incarnation that a row names as the owner, or else as the next one; zero if there is none.
func expected(row persistence.Shard) persistence.Incarnation {
	if row.Owner.IsZero() {
		return row.Successor
	}
	return row.Owner
}

// listedOf returns those of the incarnations that are listed and have a lease.
func (m *Self) listedOf(all map[persistence.Incarnation]bool) (listed []membership.Member) {
	for i := range all {
		if !m.Router.Knows(i) {
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
	i := status.IncarnationOf(s.Member.Meta)
	if s.Err != nil || status.IncarnationOf(s.Response.GetMeta()) != i {
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
func (m *Self) watchShards() {
	w := status.NewShardWatch(m.config.Log)
	t := time.NewTicker(status.WatchEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			total, unserved, reason := m.unserved(m.context)
			w.Look(time.Now(), total, unserved, reason)
		case <-m.context.Done():
			return
		}
	}
}
