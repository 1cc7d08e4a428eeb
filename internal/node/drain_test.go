package node_test

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// TestDrainOfGateway: a gateway has nothing to hand over, and says so at once, whoever is asked to drain it.
func TestDrainOfGateway(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	until(func() bool {
		return slices.ContainsFunc(status(t, admin(n1)).Nodes, func(s *licensedv1.NodeStatus) bool { return s.Name == "g" })
	})
	for _, asked := range []*node.Node{n1, g} {
		_, err := admin(asked).DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "g"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "g is a gateway") {
			t.Errorf("drain a gateway: %v", err)
		}
	}
}
