package member

import (
	"context"
	"maps"
	"slices"
	"testing"

	"licensed/cluster/membership"
	"licensed/cluster/roster"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// newBeliever returns a process that has read the leases of these incarnations from a store with these rows.
func newBeliever(
	t *testing.T, rows map[persistence.Incarnation]persistence.Lease, read ...persistence.Incarnation,
) *Self {
	t.Helper()
	c := roster.DefaultConfig()
	c.Read = func(_ context.Context, i persistence.Incarnation) (l persistence.Lease, err error) {
		l, ok := rows[i]
		if !ok {
			err = persistence.ErrNotFound
		}
		return l, err
	}
	r, err := roster.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	for _, i := range read {
		if _, _, err := r.Await(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	return &Self{roster: r}
}

// TestBornOut: what is left of a member that gossip shows, by its lease row.
func TestBornOut(t *testing.T) {
	const stored, gossiped = "10.0.0.1:7947", "127.0.2.1:9"
	alive, old, dead, absent := persistence.Incarnation{1}, persistence.Incarnation{2}, persistence.Incarnation{3},
		persistence.Incarnation{4}
	m := newBeliever(t, map[persistence.Incarnation]persistence.Lease{
		alive: {Node: "n1", Address: stored},
		old:   {Node: "n1"}, // of a release that wrote no address
		dead:  {Node: "n1", Address: stored, Dead: true},
	}, alive, old, dead, absent)
	for name, c := range map[string]struct {
		member      string
		incarnation persistence.Incarnation
		ok, leased  bool
		address     string
	}{
		"alive":       {"n1", alive, true, true, stored},
		"no address":  {"n1", old, true, true, gossiped},
		"dead":        {"n1", dead, true, false, stored},
		"other name":  {"n2", alive, false, false, ""},
		"no lease":    {"n1", absent, false, false, ""},
		"a gateway":   {"n1", persistence.Incarnation{}, true, false, gossiped},
		"a gateway 2": {"n2", persistence.Incarnation{}, true, false, gossiped},
	} {
		meta := &clusterv1.Meta{NodeAddress: gossiped}
		if !c.incarnation.IsZero() {
			meta.Incarnation = c.incarnation[:]
		}
		got, ok := m.bornOut(membership.Member{Name: c.member, Meta: meta})
		if ok != c.ok || ok && (got.Meta.NodeAddress != c.address || (len(got.Meta.Incarnation) > 0) != c.leased) {
			t.Errorf("%s: %v, %t, want %+v", name, got.Meta, ok, c)
		}
		if meta.NodeAddress != gossiped {
			t.Errorf("%s: the list of gossip was changed", name)
		}
	}
}

// TestClocksThatCount: of the nodes with a live lease that exactly one member claims to be.
func TestClocksThatCount(t *testing.T) {
	one, two, three, dead, absent := persistence.Incarnation{1}, persistence.Incarnation{2}, persistence.Incarnation{3},
		persistence.Incarnation{4}, persistence.Incarnation{5}
	m := newBeliever(t, map[persistence.Incarnation]persistence.Lease{
		one: {Node: "n1"}, two: {Node: "n2"}, three: {Node: "self"}, dead: {Node: "n4", Dead: true},
	}, one, two, three, dead, absent)
	claim := func(name, id string, i persistence.Incarnation) membership.Member {
		return membership.Member{Name: name, ID: id, Meta: &clusterv1.Meta{Incarnation: i[:]}}
	}
	all := []membership.Member{
		claim("n1", "n1@a", one), claim("n1", "n1@b", one), // two claims: neither counts
		claim("n2", "n2@a", two), claim("n1", "n1@c", two), // the other is another's name
		claim("self", "self@a", three), claim("n4", "n4@a", dead), claim("n5", "n5@a", absent),
		{Name: "g1", ID: "g1@a", Meta: &clusterv1.Meta{}},
	}
	for range 2 { // in either order of joining
		if got := slices.Collect(maps.Keys(m.clocks(all, "self@a"))); !slices.Equal(got, []string{"n2@a"}) {
			t.Errorf("the clocks of %q count, want that of n2 alone", got)
		}
		slices.Reverse(all)
	}
}
