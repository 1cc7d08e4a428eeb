// Package harness has what tests of several packages need to drive a cluster and its programs.
package harness

import (
	"fmt"

	"licensed/cluster/placement"
	"licensed/messages/licensedv1"
)

// SettledOwners returns the name of the node that holds each shard, by the shard's id, once the cluster has moved all
// shards that it will: this many nodes are ready, each shard is open at the node that placement chooses, and no shard
// moves. Otherwise the error says what is missing. That no shard moves is not enough: there are pauses between two
// bundles of moves. All nodes must have the same capacity.
func SettledOwners(s *licensedv1.ClusterStatus, nodes int) ([]string, error) {
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
			return nil, fmt.Errorf("shard %d is owned by %q (%s), and should be by %s",
				shard.Id, owners[shard.Id], shard.Owner, owner)
		}
	}
	return owners, nil
}
