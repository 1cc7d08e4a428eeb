package node_test

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// TestRoles: each role has the ports that it needs, serves the API or not, and holds shards or not.
func TestRoles(t *testing.T) {
	embedded, _ := config(t)
	only := newCompany(t)
	alone := only.config("alone", node.RoleNode|node.RoleGateway)
	alone.Cluster.Alone = true
	several := newCompany(t)
	all := node.DefaultConfig().Cluster.Shards
	for _, test := range []struct {
		role  string
		start func() *node.Node
		ports string
		held  func(held, of uint32) bool
	}{
		{"embedded", func() *node.Node { return start(t, embedded) }, "API, Admin",
			func(held, of uint32) bool { return held == of && of == all }},
		{"alone", func() *node.Node { return start(t, alone) }, "API, Admin",
			func(held, of uint32) bool { return held == of && of == 32 }},
		{"node", func() *node.Node { return several.start("n1", node.RoleNode) }, "Admin, Node, Gossip", nil},
		{"gateway", func() *node.Node { return several.start("g1", node.RoleGateway) }, "API, Admin, Node, Gossip",
			func(held, of uint32) bool { return held == 0 && of == 32 }},
		{"both", func() *node.Node { return several.start("n2", node.RoleNode|node.RoleGateway) },
			"API, Admin, Node, Gossip", func(held, of uint32) bool { return of == 32 }},
	} {
		n := test.start()
		var ports []string
		for _, p := range n.Ports() {
			ports = append(ports, p[0])
		}
		if got := strings.Join(ports, ", "); got != test.ports {
			t.Errorf("%s has the ports %s, want %s", test.role, got, test.ports)
		}
		if api := n.API() != nil; api != slices.Contains(ports, "API") || api != (test.held != nil) {
			t.Errorf("%s: API %v", test.role, n.API())
		}
		if test.held == nil {
			continue
		}
		if _, err := acquire(t, n, "c1"); err != nil {
			t.Errorf("%s: %v", test.role, err)
		}
		s, err := admin(n).GetNode(t.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if !test.held(s.Msg.ShardsHeld, s.Msg.Shards) {
			t.Errorf("%s holds %d of %d shards", test.role, s.Msg.ShardsHeld, s.Msg.Shards)
		}
	}
}
