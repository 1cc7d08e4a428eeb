package node

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/internal/status"
	"licensed/internal/version"
	"licensed/messages/licensedv1"
)

// tellReady remembers the start.
func (n *Node) tellReady() {
	incarnation := status.IncarnationText(n.shards.Incarnation())
	if held, _, highest := n.shards.Held(); n.config.Store == "" && held > 0 {
		n.events.Add(n.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED, Node: n.name, Incarnation: incarnation, Shards: uint32(held),
			Text: fmt.Sprintf("%s took all %d shards, at epochs up to %d", n.name, held, highest),
		})
	}
	n.events.Add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_JOINED, Node: n.name, Incarnation: incarnation,
		Text: fmt.Sprintf("%s is ready, version %s, policy %s", n.name, version.Version(), n.policy.Version()),
	})
}

// shardHappenings are those that come shard by shard.
var shardHappenings = map[cluster.HappeningKind]struct {
	kind licensedv1.HappeningKind
	text string // this node, the shards, the other node
}{
	cluster.Claimed:   {licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED, "%[1]s took %[2]s"},
	cluster.TakenOver: {licensedv1.HappeningKind_HAPPENING_KIND_TAKEN_OVER, "%[1]s took %[2]s over from %[3]s, which is dead"},
	cluster.Released:  {licensedv1.HappeningKind_HAPPENING_KIND_RELEASED, "%[1]s gave %[2]s to %[3]s"},
	cluster.Lost:      {licensedv1.HappeningKind_HAPPENING_KIND_FENCED, "%[1]s found that %[2]s had become another's"},
	cluster.Raised:    {licensedv1.HappeningKind_HAPPENING_KIND_FENCED, "%[1]s raised the epoch of %[2]s above that of its history: was ownership restored from a backup?"},
}

// happened hears what happens to this node of a cluster, from the loop that renews its lease: nothing
// here waits.
func (n *Node) happened(h cluster.Happening) {
	if s, ok := n.shared.Get(); ok {
		s.metrics.Happened(&h)
	}
	if m, ok := n.member.Get(); ok && (h.Kind == cluster.Began || h.Kind == cluster.Ended || h.Kind >= cluster.ClockWrong) {
		m.Retell()
	}
	if h.Kind == cluster.Reachable && h.Cause == nil {
		return // A part of its start.
	}
	what := &licensedv1.Happening{Node: n.name, Incarnation: h.Incarnation.String()}
	if s, ok := shardHappenings[h.Kind]; ok {
		what.Kind, what.Shard, what.OtherNode = s.kind, proto.Uint32(h.Shard), n.members.NameOf(h.Other)
		n.events.Count(n.config.Now(), what, func(w *licensedv1.Happening) string {
			shards, other := fmt.Sprintf("%d shards", w.Shards), w.OtherNode
			if w.Shard != nil {
				shards = fmt.Sprintf("shard %d", w.GetShard())
			}
			if other == "" {
				other = "nobody"
			}
			return fmt.Sprintf(s.text, n.name, shards, other)
		})
		return
	}
	switch h.Kind {
	case cluster.Began:
		what.Kind, what.Text = licensedv1.HappeningKind_HAPPENING_KIND_JOINED, n.name+" acquired a lease"
	case cluster.Ended:
		if errors.Is(h.Cause, ErrNameTaken) {
			n.fail(fmt.Errorf("remain a node of cluster %s: %w", n.config.Cluster.Name, h.Cause))
		}
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_INCARNATION_ENDED
		what.Text = fmt.Sprintf("%s ended an incarnation: %v", n.name, h.Cause)
	case cluster.Died:
		what.Kind, what.OtherNode = licensedv1.HappeningKind_HAPPENING_KIND_DECLARED_DEAD, n.members.NameOf(h.Other)
		what.Text = fmt.Sprintf("the lease of %s was marked dead", what.OtherNode)
	case cluster.ClockWrong:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED
		what.Text = fmt.Sprintf("the clock of %s is %v ahead of the others': it takes no shards", n.name, h.Took.Round(time.Millisecond))
	case cluster.Unreachable:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED
		what.Text = fmt.Sprintf("%s hands its shards over: %v", n.name, h.Cause)
	case cluster.Reachable:
		what.Kind, what.Text = licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED, n.name+" is reachable again"
	case cluster.ClockRight:
		what.Kind, what.Text = licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED, "the clock of "+n.name+" is right again"
	}
	n.events.Add(n.config.Now(), what)
}
