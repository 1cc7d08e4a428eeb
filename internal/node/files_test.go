package node

import "testing"

// TestPlanFiles: every port and store has a part of the limit of open files, and together they fit.
func TestPlanFiles(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		set   func(*Config)
		node  int
	}{
		"alone":        {256, func(c *Config) { c.Cluster.Alone = true }, 0},
		"member":       {256, func(c *Config) { c.Store = "cassandra://h/k" }, 32},
		"member, many": {1 << 20, func(c *Config) { c.Store = "cassandra://h/k" }, 1024},
		"member, few":  {128, func(c *Config) { c.Store = "cassandra://h/k" }, 16},
		"member, configured": {4096, func(c *Config) {
			c.Store = "cassandra://h/k"
			c.Cluster.MaxConnections = 2000
		}, 2000},
	} {
		config := DefaultConfig()
		c.set(&config)
		f := planFiles(c.limit, &config)
		if f.node != c.node {
			t.Errorf("%s: %d connections of the node port, want %d", name, f.node, c.node)
		}
		if used := f.reserved() + f.api; used > c.limit {
			t.Errorf("%s: %d files planned of %d: %+v", name, used, c.limit, f)
		}
	}
}
