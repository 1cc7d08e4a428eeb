package node

import (
	"context"
	"slices"
	"time"

	"licensed/cluster/membership"
	"licensed/internal/member"
	"licensed/internal/storage"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Fail does to a node what a disk error does.
func (n *Node) Fail(err error) { n.fail(err) }

// Share has nodes of one process use a store as processes use Cassandra. Its maker closes it.
func (c *Config) Share(s persistence.Store) {
	c.Store, c.Shared, c.Archive = "cassandra://shared/test", s, storage.ArchiveOff
}

// InMemory returns the number of customers that are in memory.
func (n *Node) InMemory() int64 { return n.hosts.Stats().Resident }

// self returns a process that is one of several.
func (n *Node) self() *member.Self {
	m, _ := n.member.Get()
	return m
}

// Gossip returns the address that others join.
func (n *Node) Gossip() string { return n.self().Gossip.Address() }

// NodeAddress returns the address that others reach the node port under.
func (n *Node) NodeAddress() string { return n.self().Transport.Address() }

// ClusterStatus returns what the dashboard of a node shows.
func ClusterStatus(ctx context.Context, n *Node) (*licensedv1.ClusterStatus, error) {
	return n.clusterStatus(ctx)
}

// Gossiped returns what a node knows of a member by gossip, nil if nothing.
func (n *Node) Gossiped(name string) *clusterv1.Meta {
	for _, m := range n.self().Gossip.Members() {
		if m.Name == name {
			return m.Meta
		}
	}
	return nil
}

// Crash ends what others know of a node, as kill -9 does. Stop it all the same.
func (n *Node) Crash() {
	m := n.self()
	_ = m.Gossip.Abandon()
	if node, ok := n.owner.Get(); ok {
		_ = node.Close(context.Background())
	}
	_ = m.Transport.Close(context.Background())
}

// GossipID and GossipAddress return what memberlist knows a member by.
func (n *Node) GossipID(name string) string      { return n.gossiped(name).ID }
func (n *Node) GossipAddress(name string) string { return n.gossiped(name).Gossip }

func (n *Node) gossiped(name string) membership.Member {
	for _, m := range n.self().Gossip.Members() {
		if m.Name == name {
			return m
		}
	}
	return membership.Member{}
}

// Clocks returns the number of members' clocks that were compared, whether they count or not.
func (n *Node) Clocks() int {
	ids := map[string]bool{}
	for _, m := range n.self().Gossip.Members() {
		ids[m.ID] = true
	}
	_, peers := n.self().Gossip.ClockOffset(ids)
	return peers
}

// ClockAhead returns what a node makes of the clocks of others.
func (n *Node) ClockAhead() time.Duration {
	m := n.self()
	ahead, _ := m.ClockOffset(m.Gossip.Members())
	return ahead
}

// Rows returns the rows that a process sends requests by.
func (n *Node) Rows() []persistence.Shard {
	s, _ := n.shared.Get()
	return s.rows.Rows()
}

// HideMembers has a node see nobody else in gossip, until gossip tells of something.
func (n *Node) HideMembers() {
	m := n.self()
	all := m.Gossip.Members()
	m.SetMembers(slices.DeleteFunc(all, func(o membership.Member) bool { return o.ID != m.Gossip.ID() }))
}

// Pinged returns the number of nodes a process pings.
func (n *Node) Pinged() int { return n.self().Prober.Nodes() }

// ReachedBy returns the number of processes that pinged a process lately.
func (n *Node) ReachedBy() int { return len(n.self().Prober.Reached()) }

// Exposed returns the ports that others reach and that are not protected.
func (c *Config) Exposed() []Exposed {
	_, refused := c.exposed()
	return refused
}
