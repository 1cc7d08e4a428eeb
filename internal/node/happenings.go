package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster"
	"licensed/messages/licensedv1"
)

// keptHappenings is how many a node remembers: what an operator who comes to look may want to know.
const keptHappenings = 200

// happenings remembers what happened lately. The zero value is empty. It is safe for concurrent use.
type happenings struct {
	mu   sync.Mutex
	list []*licensedv1.Happening // oldest first
}

// add remembers something, and forgets the oldest if there are too many. The happening is then the
// list's, and is never changed.
func (h *happenings) add(at time.Time, what *licensedv1.Happening) {
	what.At = timestamppb.New(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, what)
	if excess := len(h.list) - keptHappenings; excess > 0 {
		h.list = slices.Delete(h.list, 0, excess)
	}
}

// newestFirst returns all.
func (h *happenings) newestFirst() []*licensedv1.Happening {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.list)
	slices.Reverse(out)
	return out
}

// tellReady remembers the start.
func (n *Node) tellReady() {
	incarnation, held := n.shards.Incarnation().String(), holding(n.shards)
	n.happenings.add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED, Node: n.name, Incarnation: incarnation, Shards: uint32(held.count),
		Text: fmt.Sprintf("%s took all %d shards, at epochs up to %d", n.name, held.count, held.highest),
	})
	n.happenings.add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_JOINED, Node: n.name, Incarnation: incarnation,
		Text: fmt.Sprintf("%s is ready, version %s, policy %s", n.name, Version(), n.policy.version()),
	})
}

// happened hears what happens to this node of a cluster.
func (n *Node) happened(h cluster.Happening) {}
