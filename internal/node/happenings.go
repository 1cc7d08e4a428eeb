package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/internal/version"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// keptHappenings is the number that a node remembers: what an operator who looks may want to know.
const keptHappenings = 200

// oneMove is for how long shards that change hands alike are told of as one happening.
const oneMove = 5 * time.Second

// happenings remembers what happened lately. The zero value is empty. It is safe for concurrent use.
type happenings struct {
	mu   sync.Mutex
	list []*licensedv1.Happening // oldest first; none is ever changed
}

// add remembers something, and forgets the oldest if there are too many. The happening is then the
// list's, and is never changed.
func (h *happenings) add(at time.Time, what *licensedv1.Happening) {
	what.At = timestamppb.New(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.append(what)
}

func (h *happenings) append(what *licensedv1.Happening) {
	h.list = append(h.list, what)
	if excess := len(h.list) - keptHappenings; excess > 0 {
		h.list = slices.Delete(h.list, 0, excess)
	}
}

// count remembers something about one shard, together with what happened to others alike just before.
// text tells of this many.
func (h *happenings) count(at time.Time, what *licensedv1.Happening, text func(*licensedv1.Happening) string) {
	what.At = timestamppb.New(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.list) - 1; i >= 0 && at.Sub(h.list[i].At.AsTime()) < oneMove; i-- {
		last := h.list[i]
		if last.Kind != what.Kind || last.Incarnation != what.Incarnation || last.OtherNode != what.OtherNode {
			continue
		}
		more := proto.CloneOf(last)
		more.Shards, more.Shard = more.Shards+1, nil
		more.Text = text(more)
		h.list[i] = more
		return
	}
	what.Shards = 1
	what.Text = text(what)
	h.append(what)
}

// newestFirst returns all.
func (h *happenings) newestFirst() []*licensedv1.Happening {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.list)
	slices.Reverse(out)
	return out
}

// toldHappenings is the number that a member tells others of.
const toldHappenings = 50

// firstHand returns what happened to a node itself, newest first: what members notice of each other every
// one of them does.
func firstHand(name string, all []*licensedv1.Happening) []*licensedv1.Happening {
	var out []*licensedv1.Happening
	for _, h := range all {
		if h.Node == name && len(out) < toldHappenings {
			out = append(out, h)
		}
	}
	return out
}

// mergeHappenings adds what others tell to its own list, newest first.
func mergeHappenings(own, theirs []*licensedv1.Happening) []*licensedv1.Happening {
	all := append(own, theirs...)
	slices.SortStableFunc(all, func(a, b *licensedv1.Happening) int { return b.At.AsTime().Compare(a.At.AsTime()) })
	return all[:min(len(all), keptHappenings)]
}

// tellReady remembers the start.
func (n *Node) tellReady() {
	incarnation := incarnationText(n.shards.Incarnation())
	if held, _, highest := n.shards.Held(); n.owner.Load() == nil && held > 0 {
		n.happenings.add(n.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED, Node: n.name, Incarnation: incarnation, Shards: uint32(held),
			Text: fmt.Sprintf("%s took all %d shards, at epochs up to %d", n.name, held, highest),
		})
	}
	n.happenings.add(n.config.Now(), &licensedv1.Happening{
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
	n.clusterMetrics.happened(&h)
	if h.Kind == cluster.Began || h.Kind == cluster.Ended || h.Kind >= cluster.ClockWrong {
		n.retell()
	}
	if h.Kind == cluster.Reachable && h.Cause == nil {
		return // A part of its start.
	}
	what := &licensedv1.Happening{Node: n.name, Incarnation: h.Incarnation.String()}
	if s, ok := shardHappenings[h.Kind]; ok {
		what.Kind, what.Shard, what.OtherNode = s.kind, proto.Uint32(h.Shard), n.nameOf(h.Other)
		n.happenings.count(n.config.Now(), what, func(w *licensedv1.Happening) string {
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
		what.Kind = licensedv1.HappeningKind_HAPPENING_KIND_INCARNATION_ENDED
		what.Text = fmt.Sprintf("%s ended an incarnation: %v", n.name, h.Cause)
	case cluster.Died:
		what.Kind, what.OtherNode = licensedv1.HappeningKind_HAPPENING_KIND_DECLARED_DEAD, n.nameOf(h.Other)
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
	n.happenings.add(n.config.Now(), what)
}

// knownMembers are the members that were heard of, by incarnation and by name.
type knownMembers struct {
	mu    sync.Mutex
	names map[persistence.Incarnation]string
	order []persistence.Incarnation    // of names, the first one learned first
	here  map[string]membership.Member // members that seem to be alive
	left  map[string]departure         // members that no longer do
}

// keptNames is the number of incarnations that are remembered by name: members that are present, and enough former
// ones for what happened lately to speak of nodes.
const keptNames = 4096

// learn remembers whose an incarnation is; a is locked.
func (a *knownMembers) learn(i persistence.Incarnation, name string) {
	if _, known := a.names[i]; !known {
		if a.order = append(a.order, i); len(a.order) > keptNames {
			delete(a.names, a.order[0])
			a.order = slices.Delete(a.order, 0, 1)
		}
	}
	a.names[i] = name
}

// departure is that of a member.
type departure struct {
	membership.Member
	at time.Time
}

// rememberLeft is the time a member that left is shown, and rememberDead is the time one that disappeared without
// being asked to is.
const (
	rememberLeft = time.Hour
	rememberDead = 24 * time.Hour
)

// nameOf returns the name of a node by its incarnation, or what is known.
func (n *Node) nameOf(i persistence.Incarnation) string {
	if i.IsZero() {
		return ""
	}
	a := &n.knownMembers
	a.mu.Lock()
	defer a.mu.Unlock()
	if name := a.names[i]; name != "" {
		return name
	}
	return i.String()
}

// notice compares who seems to be alive with who did before.
func (n *Node) notice(all []membership.Member) {
	now := n.config.Now()
	a := &n.knownMembers
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.here
	a.here = make(map[string]membership.Member, len(all))
	if a.names == nil {
		a.names, a.left = make(map[persistence.Incarnation]string), make(map[string]departure)
	}
	for _, m := range all {
		a.here[m.Name] = m
		delete(a.left, m.Name)
		if i, err := cluster.IncarnationOf(m.Meta.GetIncarnation()); err == nil && !i.IsZero() {
			a.learn(i, m.Name)
		}
		if _, known := before[m.Name]; !known && m.Name != n.name {
			n.happenings.add(now, &licensedv1.Happening{
				Kind: licensedv1.HappeningKind_HAPPENING_KIND_JOINED, Node: m.Name, Text: m.Name + " joined, version " + m.Meta.GetVersion(),
			})
		}
	}
	for name, m := range before {
		if _, there := a.here[name]; there {
			continue
		}
		a.left[name] = departure{m, now}
		kind, text := licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED, name+" is not listed by gossip any more"
		if m.Meta.GetDraining() {
			kind, text = licensedv1.HappeningKind_HAPPENING_KIND_LEFT, name+" left"
		}
		n.happenings.add(now, &licensedv1.Happening{Kind: kind, Node: name, Text: text})
	}
	for name, d := range a.left {
		if age := now.Sub(d.at); age > rememberDead || d.Meta.GetDraining() && age > rememberLeft {
			delete(a.left, name)
		}
	}
}

// departed returns the members that left lately.
func (n *Node) departed() []departure {
	a := &n.knownMembers
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []departure
	for _, d := range a.left {
		all = append(all, d)
	}
	return all
}

// holds reports whether this process, or a member of that name, is one that holds shards.
func (n *Node) holds(name string) bool {
	if name == n.name {
		return n.owner.Load() != nil
	}
	a := &n.knownMembers
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.here[name].Meta.GetRoles(), clusterv1.Role_ROLE_NODE)
}

// knows reports whether a member of that name seems to be alive.
func (n *Node) knows(name string) bool {
	a := &n.knownMembers
	a.mu.Lock()
	defer a.mu.Unlock()
	_, there := a.here[name]
	return there
}
