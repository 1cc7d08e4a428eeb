// Package settled tells when a cluster has moved all shards that it will. That none is on its way does not
// say so: there are pauses between two bundles.
package settled

import (
	"fmt"

	"licensed/cluster/placement"
	"licensed/messages/licensedv1"
)

// Owners returns the name of the node that holds each shard, by the shard's id, if so many nodes are ready, each
// shard is open at the one that should have it, and nothing is on its way; else an error that says what is
// missing. Nodes have the same capacity.
func Owners(s *licensedv1.ClusterStatus, nodes int) ([]string, error) {
	names, open := map[string]string{}, uint32(0)
	var ready []placement.Node
	for _, n := range s.Nodes {
		if n.State != licensedv1.NodeState_NODE_STATE_READY || n.Incarnation == "" {
			continue
		}
		if n.ShardsMoving > 0 || n.ShardsExpected > 0 {
			return nil, fmt.Errorf("%s has %d shards moving, %d expected", n.Name, n.ShardsMoving, n.ShardsExpected)
		}
		names[n.Incarnation] = n.Name
		ready = append(ready, placement.Node{Name: n.Name})
		open += n.ShardsOpen
	}
	if len(ready) != nodes || open != s.Shards || uint32(len(s.ShardMap)) != s.Shards {
		return nil, fmt.Errorf("%d of %d nodes are ready, %d of %d shards open", len(ready), nodes, open, s.Shards)
	}
	should := placement.New(ready)
	owners := make([]string, s.Shards)
	for _, shard := range s.ShardMap {
		owner, _ := should.Owner(shard.Id)
		if owners[shard.Id] = names[shard.Owner]; owners[shard.Id] != owner {
			return nil, fmt.Errorf("shard %d is owned by %q (%s), and should be by %s", shard.Id, owners[shard.Id], shard.Owner, owner)
		}
	}
	return owners, nil
}
