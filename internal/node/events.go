package node

import (
	"errors"
	"fmt"

	"licensed/cluster"
	"licensed/internal/status"
	"licensed/internal/version"
	"licensed/messages/licensedv1"
)

// tellReady remembers the start.
func (n *Node) tellReady() {
	incarnation := status.IncarnationText(n.shards.Incarnation())
	// A node of a cluster is told of each shard; a process that is alone took all at
	// once.
	if held, _, highest := n.shards.Held(); n.config.Store == "" && held > 0 {
		n.events.Add(n.config.Now(), &licensedv1.Happening{
			Kind:        licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED,
			Node:        n.name,
			Incarnation: incarnation,
			Shards:      uint32(held),
			Text:        fmt.Sprintf("%s took all %d shards, at epochs up to %d", n.name, held, highest),
		})
	}
	n.events.Add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_JOINED, Node: n.name, Incarnation: incarnation,
		Text: fmt.Sprintf("%s is ready, version %s, policy %s", n.name, version.Version(), n.policy.Version()),
	})
}

// happened hears what happens to this node of a cluster, from the loop that renews its lease: nothing
// here waits.
func (n *Node) happened(h cluster.Happening) {
	if s, ok := n.shared.Get(); ok {
		s.metrics.Happened(&h)
	}
	if m, ok := n.member.Get(); ok &&
		// What others know of this process has changed: its incarnation, or whether it
		// takes shards.
		(h.Kind == cluster.Began || h.Kind == cluster.Ended || h.Kind >= cluster.ClockWrong) {
		m.Retell()
	}
	// The name was taken by another process: this one must not go on.
	if h.Kind == cluster.Ended && errors.Is(h.Cause, ErrNameTaken) {
		n.fail(fmt.Errorf("remain a node of cluster %s: %w", n.config.Cluster.Name, h.Cause))
	}
	n.members.Happened(&h)
}
