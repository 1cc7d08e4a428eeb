package status

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/messages/licensedv1"
)

// shardHappenings are those that come shard by shard.
var shardHappenings = map[cluster.HappeningKind]struct {
	kind licensedv1.HappeningKind
	text string // this node, the shards, the other node
}{
	cluster.Claimed: {licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED, "%[1]s took %[2]s"},
	cluster.TakenOver: {
		licensedv1.HappeningKind_HAPPENING_KIND_TAKEN_OVER, "%[1]s took %[2]s over from %[3]s, which is dead",
	},
	cluster.Released: {licensedv1.HappeningKind_HAPPENING_KIND_RELEASED, "%[1]s gave %[2]s to %[3]s"},
	cluster.Lost:     {licensedv1.HappeningKind_HAPPENING_KIND_FENCED, "%[1]s found that %[2]s had become another's"},
	cluster.Raised: {
		licensedv1.HappeningKind_HAPPENING_KIND_FENCED,
		"%[1]s raised the epoch of %[2]s above that of its history: was ownership restored from a backup?",
	},
}

// Happened remembers what happened to the node of this process. It does not wait for anything.
func (m *Members) Happened(h *cluster.Happening) {
	if h.Kind == cluster.Reachable && h.Cause == nil {
		return // A part of its start.
	}
	what := &licensedv1.Happening{Node: m.name, Incarnation: h.Incarnation.String()}
	// Shards change hands by the hundred: those of one moment are told together.
	if s, ok := shardHappenings[h.Kind]; ok {
		what.Kind, what.Shard, what.OtherNode = s.kind, proto.Uint32(h.Shard), m.NameOf(h.Other)
		m.events.Count(m.now(), what, func(w *licensedv1.Happening) string {
			shards, other := fmt.Sprintf("%d shards", w.Shards), w.OtherNode
			if w.Shard != nil {
				shards = fmt.Sprintf("shard %d", w.GetShard())
			}
			if other == "" {
				other = "nobody"
			}
			return fmt.Sprintf(s.text, m.name, shards, other)
		})
		return
	}
	switch h.Kind {
	case cluster.Began:
		what.Kind, what.Text = licensedv1.HappeningKind_HAPPENING_KIND_JOINED, m.name+" acquired a lease"
	case cluster.Ended:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_INCARNATION_ENDED
		what.Text = fmt.Sprintf("%s ended an incarnation: %v", m.name, h.Cause)
	case cluster.Died:
		what.Kind, what.OtherNode = licensedv1.HappeningKind_HAPPENING_KIND_DECLARED_DEAD, m.NameOf(h.Other)
		what.Text = fmt.Sprintf("the lease of %s was marked dead", what.OtherNode)
	case cluster.ClockWrong:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED
		what.Text = fmt.Sprintf("the clock of %s is %v ahead of the others': it takes no shards",
			m.name, h.Took.Round(time.Millisecond))
	case cluster.Unreachable:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED
		what.Text = fmt.Sprintf("%s hands its shards over: %v", m.name, h.Cause)
	case cluster.Reachable:
		what.Kind, what.Text = licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED, m.name+" is reachable again"
	case cluster.Lapsed:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED
		what.Text = fmt.Sprintf("the store did not renew the lease of %s: it serves nobody", m.name)
	case cluster.Resumed:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED
		what.Text = fmt.Sprintf("the lease of %s is renewed after %v", m.name, h.Took.Round(time.Millisecond))
	case cluster.ClockRight:
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED
		what.Text = "the clock of " + m.name + " is right again"
	}
	m.events.Add(m.now(), what)
}
