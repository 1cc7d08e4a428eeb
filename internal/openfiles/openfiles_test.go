package openfiles

import "testing"

// TestDivide: every port and store has a part of the limit of open files, and together they fit.
func TestDivide(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		needs Needs
		node  int
	}{
		"alone":              {256, Needs{Store: true, Archive: true}, 0},
		"member":             {256, Needs{Members: true, Cassandra: true}, 32},
		"member, many":       {1 << 20, Needs{Members: true, Cassandra: true}, 1024},
		"member, few":        {128, Needs{Members: true, Cassandra: true}, 16},
		"member, configured": {4096, Needs{Members: true, Cassandra: true, Node: 2000}, 2000},
	} {
		p := Divide(c.limit, c.needs)
		if p.Node != c.node {
			t.Errorf("%s: %d connections of the node port, want %d", name, p.Node, c.node)
		}
		if used := p.Reserved() + p.API; used > c.limit {
			t.Errorf("%s: %d files planned of %d: %+v", name, used, c.limit, p)
		}
	}
}
