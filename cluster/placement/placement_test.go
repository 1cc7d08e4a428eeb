package placement_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"licensed/cluster/placement"
)

func nodes(n int) []placement.Node {
	all := make([]placement.Node, n)
	for i := range all {
		all[i] = placement.Node{Name: fmt.Sprintf("node-%d", i+1)}
	}
	return all
}

func owners(p *placement.Placement, shards uint32) []string {
	all := make([]string, shards)
	for s := range shards {
		all[s], _ = p.Owner(s)
	}
	return all
}

func counts(owners []string) map[string]int {
	c := map[string]int{}
	for _, o := range owners {
		c[o]++
	}
	return c
}

func TestNoNodes(t *testing.T) {
	if name, ok := placement.New(nil).Owner(3); ok {
		t.Errorf("owner %q", name)
	}
}

// TestBalance holds the spread against that of throwing shards at random: no worse than chance.
func TestBalance(t *testing.T) {
	for _, n := range []int{2, 3, 5, 12} {
		const shards = 512
		mean := shards / float64(n)
		sigma := math.Sqrt(mean * (1 - 1/float64(n)))
		for name, c := range counts(owners(placement.New(nodes(n)), shards)) {
			if math.Abs(float64(c)-mean) > 4*sigma {
				t.Errorf("%d nodes: %s has %d shards, the mean is %.0f", n, name, c, mean)
			}
		}
	}
}

func TestOnlyTheLeaversShardsMove(t *testing.T) {
	const shards = 4096
	all := nodes(7)
	before := owners(placement.New(all), shards)
	after := owners(placement.New(all[:6]), shards)
	moved := 0
	for s := range before {
		if before[s] == after[s] {
			continue
		}
		if moved++; before[s] != "node-7" {
			t.Fatalf("shard %d moved from %s to %s though node-7 left", s, before[s], after[s])
		}
	}
	if moved != counts(before)["node-7"] {
		t.Errorf("%d shards moved, node-7 had %d", moved, counts(before)["node-7"])
	}
}

func TestCapacity(t *testing.T) {
	all := nodes(3)
	all[0].Capacity, all[1].Capacity, all[2].Capacity = 2, 1, 1
	const shards = 40_000
	c := counts(owners(placement.New(all), shards))
	for name, share := range map[string]float64{"node-1": 0.5, "node-2": 0.25, "node-3": 0.25} {
		if got := float64(c[name]) / shards; math.Abs(got-share) > 0.01 {
			t.Errorf("%s has %.3f of the shards, want %.2f", name, got, share)
		}
	}
	// More capacity takes shards from others, and gives none away.
	before := owners(placement.New(all), shards)
	all[0].Capacity = 3
	for s, name := range owners(placement.New(all), shards) {
		if name != before[s] && name != "node-1" {
			t.Fatalf("shard %d moved from %s to %s", s, before[s], name)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	all := nodes(5)
	a := owners(placement.New(all), 512)
	all[0], all[4] = all[4], all[0]
	for s, name := range owners(placement.New(all), 512) {
		if a[s] != name {
			t.Fatalf("shard %d: %s or %s", s, a[s], name)
		}
	}
}

// TestEqualCapacities shows that the short cut for equal capacities changes no owner.
func TestEqualCapacities(t *testing.T) {
	all := nodes(4)
	plain := owners(placement.New(all), 512)
	all[3].Capacity = 1 + 1e-15
	for s, name := range owners(placement.New(all), 512) {
		if plain[s] != name {
			t.Fatalf("shard %d: %s or %s", s, plain[s], name)
		}
	}
}

func TestAmong(t *testing.T) {
	p := placement.New(nodes(20))
	for key := range uint64(200) {
		chosen := 0
		for _, n := range nodes(20) {
			if p.Among(n.Name, key, 3) {
				chosen++
			}
		}
		if chosen != 3 {
			t.Fatalf("key %d: %d nodes chosen", key, chosen)
		}
	}
	if p.Among("stranger", 1, 3) {
		t.Error("a stranger is chosen")
	}
	if small := placement.New(nodes(2)); !small.Among("node-1", 1, 3) || small.Among("stranger", 1, 3) {
		t.Error("few nodes: want all of them and no other")
	}
}

// TestThousandNodes gives the figures of docs/design/cluster.md: balance of 1,000 nodes at 50 shards each, and
// what moves on a failure.
func TestThousandNodes(t *testing.T) {
	const n, shards = 1000, 50_000
	all := nodes(n)
	before := owners(placement.New(all), shards)
	most := 0
	for _, c := range counts(before) {
		most = max(most, c)
	}
	without, moved := placement.New(all[1:]), 0
	for s, former := range before {
		if former != "node-1" && s%20 != 0 { // a sample of the others is enough
			continue
		}
		if now, _ := without.Owner(uint32(s)); now != former {
			if moved++; former != "node-1" {
				t.Fatalf("shard %d of %s moved", s, former)
			}
		}
	}
	ratio := float64(most) / (shards / n)
	t.Logf("max/mean %.2f; %d shards of 50,000 moved on a failure", ratio, moved)
	if ratio > 1.6 {
		t.Errorf("max/mean %.2f", ratio)
	}
}

// TestBoundedLoads gives the figures of docs/design/cluster.md for what is not built: consistent hashing with bounded
// loads (Mirrokni, Thorup and Zadimoghaddam, 2017), in which a node takes no more than 1.10 × the mean, and what it
// cannot take goes to the next in the shard's order.
func TestBoundedLoads(t *testing.T) {
	const n, shards = 1000, 50_000
	all := nodes(n)
	limit := bound(n, shards)
	before := boundedOwners(all, shards, limit)
	first, most, pushed := placement.New(all), 0, 0
	for _, c := range counts(before) {
		most = max(most, c)
	}
	for s, owner := range before {
		if wanted, _ := first.Owner(uint32(s)); owner != wanted {
			pushed++
		}
	}
	t.Logf("max/mean %.2f; %d shards (%.1f %%) away from their first choice",
		float64(most)*n/shards, pushed, 100*float64(pushed)/shards)
	if limit != 55 || most != limit {
		t.Errorf("the fullest node has %d shards, the bound is %d, want both to be 55", most, limit)
	}
	for _, after := range []int{bound(n-1, shards), limit} {
		own, others := 0, 0
		for s, owner := range boundedOwners(all[1:], shards, after) {
			switch {
			case before[s] == all[0].Name:
				own++
			case before[s] != owner:
				others++
			}
		}
		t.Logf("on a failure, with a bound of %d after it, %d shards of the failed node move, and %d of others",
			after, own, others)
		if own != counts(before)[all[0].Name] || others == 0 {
			t.Errorf("%d shards of the failed node moved, %d of others", own, others)
		}
	}
}

// bound is the number of shards a node may have: 1.10 × the mean, rounded up.
func bound(nodes, shards int) int { return (11*shards + 10*nodes - 1) / (10 * nodes) }

// boundedOwners places one shard after the other at the first node in its order that has room.
func boundedOwners(all []placement.Node, shards uint32, limit int) []string {
	room := slices.Clone(all)
	p, load, owners := placement.New(room), map[string]int{}, make([]string, shards)
	for s := range shards {
		owners[s], _ = p.Owner(s)
		if load[owners[s]]++; load[owners[s]] == limit {
			room = slices.DeleteFunc(room, func(n placement.Node) bool { return n.Name == owners[s] })
			p = placement.New(room)
		}
	}
	return owners
}
