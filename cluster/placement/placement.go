// Package placement says which node should own which shard.
//
// # The model
//
// Rendezvous hashing: every node has a score for every shard, and the shard belongs to the node with the
// highest. A node that joins takes shards from all others in proportion, one that leaves gives its own to
// all others, and nothing else moves: that is the least that can move. Scores are weighted by capacity
// in the way that keeps this so (Schindelhauer and Schomaker, 2005): score = capacity / −ln(u), with u
// uniform in (0, 1) from a hash of node and shard.
//
// Placement is computed from gossip, so nodes may disagree for a while. It is a wish, never a claim:
// ownership is decided by compare-and-set.
package placement

import (
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"licensed/internal/planted"
)

// Node is a node that can own shards.
type Node struct {
	// Name is stable over restarts, so that a restarted node gets the same shards again.
	Name string
	// Capacity in relation to other nodes'; at most 0 means 1.
	Capacity float64
}

// Placement assigns shards to nodes. It does not change and is safe for concurrent use. The zero
// Placement has no nodes.
type Placement struct {
	names  []string
	hashes []uint64
	weight []float64 // nil if all are equal
}

// New returns the placement over nodes with different names, given in any order.
func New(nodes []Node) *Placement {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	p := &Placement{}
	for _, n := range nodes {
		p.names = append(p.names, n.Name)
		p.hashes = append(p.hashes, xxhash.Sum64String(n.Name))
		w := n.Capacity
		if !(w > 0) {
			w = 1
		}
		p.weight = append(p.weight, w)
	}
	if !slices.ContainsFunc(p.weight, func(w float64) bool { return w != p.weight[0] }) {
		p.weight = nil
	}
	return p
}

// Candidate is a node that may own shards, and whether other processes reach it.
type Candidate struct {
	Node
	Reached bool
}

// NewReached returns the placement over the candidates that others reach. If there are none it covers all of them, and
// fallback is true: somebody must serve nevertheless.
func NewReached(all []Candidate) (p *Placement, fallback bool) {
	over := func(unreached bool) (nodes []Node) {
		for _, c := range all {
			if c.Reached || unreached {
				nodes = append(nodes, c.Node)
			}
		}
		return nodes
	}
	if reached := over(false); len(reached) > 0 || len(all) == 0 || planted.Bug(planted.TakeNothingAlone) {
		return New(reached), false
	}
	return New(over(true)), true
}

// Owner returns the name of the node that should own the shard; false if there are no nodes.
func (p *Placement) Owner(shard uint32) (string, bool) {
	best, top := -1, math.Inf(-1)
	for i := range p.names {
		if s := p.score(i, uint64(shard)); s > top {
			best, top = i, s
		}
	}
	if best < 0 {
		return "", false
	}
	return p.names[best], true
}

// Among reports whether the node of that name is among the n that come first for a key: a way to choose
// few out of many without talking about it.
func (p *Placement) Among(name string, key uint64, n int) bool {
	if len(p.names) <= n {
		return slices.Contains(p.names, name)
	}
	own, ok := slices.BinarySearch(p.names, name)
	if !ok {
		return false
	}
	score, before := p.score(own, key), 0
	for i := range p.names {
		if i != own && p.score(i, key) > score {
			before++
		}
	}
	return before < n
}

// score of a node for a key. With equal weights u itself is in the same order, without the logarithm.
func (p *Placement) score(i int, key uint64) float64 {
	// 53 bits, shifted by half a step to lie inside (0, 1).
	u := (float64(mix(p.hashes[i]^mix(key))>>11) + 0.5) / (1 << 53)
	if p.weight == nil {
		return u
	}
	return p.weight[i] / -math.Log(u)
}

// mix is the finalizer of SplitMix64: every bit of the input changes each bit of the output with a
// probability near one half. Shard numbers are small and consecutive; without it neighbours would go to
// the same node.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
