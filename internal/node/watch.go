package node

import (
	"context"
	"sync"
	"time"

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

// unserved counts the shards without a live owner, as this process knows the cluster, and says why. Owners that
// gossip does not list are asked.
func (m *member) unserved(ctx context.Context) (total, unserved int, reason string) {
	own := persistence.Incarnation{}
	if node := m.n.owner.Load(); node != nil {
		own = node.Incarnation()
	}
	rows, lost := m.n.shardMap.Rows(), make(map[persistence.Incarnation]int)
	for _, row := range rows {
		owner := row.Owner
		if owner.IsZero() {
			owner = row.Successor
		}
		if row.Epoch == 0 || owner.IsZero() || owner != own && !m.router.Knows(owner) {
			lost[owner]++
			unserved++
		}
	}
	if unserved > 0 {
		for _, s := range m.router.StatusesOf(ctx, m.hiddenOwners()) {
			if i := incarnationOf(s.Member.Meta); s.Err == nil && incarnationOf(s.Response.GetMeta()) == i {
				unserved -= lost[i]
				delete(lost, i)
			}
		}
	}
	return len(rows), unserved, m.n.members.LostReason(lost)
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
