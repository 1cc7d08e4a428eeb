package node

import (
	"context"

	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Fail does to a node what a disk error does.
func (n *Node) Fail(err error) { n.fail(err) }

// Share has nodes of one process use a store as processes use Cassandra. Whoever made it closes it.
func (c *Config) Share(s persistence.Store) {
	c.Store, c.shared, c.Archive = "cassandra://shared/test", s, ArchiveOff
}

// Gossip returns the address that others join.
func (n *Node) Gossip() string { return n.member.Load().gossip.Address() }

// NodeAddress returns the address that others reach the node port under.
func (n *Node) NodeAddress() string { return n.member.Load().transport.Address() }

// ClusterStatus returns what the dashboard of a node shows.
func ClusterStatus(ctx context.Context, n *Node) (*licensedv1.ClusterStatus, error) {
	return n.clusterStatus(ctx)
}

// Gossiped returns what a node knows of a member by gossip, nil if nothing.
func (n *Node) Gossiped(name string) *clusterv1.Meta {
	for _, m := range n.member.Load().gossip.Members() {
		if m.Name == name {
			return m.Meta
		}
	}
	return nil
}
