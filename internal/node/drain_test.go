package node_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// TestDrainOfGateway: a gateway has nothing to hand over, and reports this at once, whichever process is asked to
// drain it.
func TestDrainOfGateway(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	until(func() bool {
		return slices.ContainsFunc(status(t, admin(n1)).Nodes,
			func(s *licensedv1.NodeStatus) bool { return s.Name == "g" })
	})
	for _, asked := range []*node.Node{n1, g} {
		_, err := admin(asked).DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "g"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "g is a gateway") {
			t.Errorf("drain a gateway: %v", err)
		}
	}
}

// TestUndrain: a node that was drained is shown as such, the cluster is OK without it, and it takes shards again when
// it is told to.
func TestUndrain(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	c.start("n3", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	a := admin(g)
	settle(t, a, "n1", "n2", "n3")
	wantOK := func(name string, state licensedv1.NodeState) {
		t.Helper()
		s := status(t, a)
		i := slices.IndexFunc(s.Nodes, func(n *licensedv1.NodeStatus) bool { return n.Name == name })
		if s.Level != licensedv1.ClusterLevel_CLUSTER_LEVEL_OK || s.Summary != "All systems normal" ||
			s.Nodes[i].State != state || s.ShardsServed != s.Shards {
			t.Errorf("%v %q, %s is %v: %v", s.Level, s.Summary, name, s.Nodes[i].State, s.Warnings)
		}
	}
	wantOK("n1", licensedv1.NodeState_NODE_STATE_READY)
	for range 2 {
		if _, err := a.DrainNode(t.Context(),
			connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); err != nil {
			t.Fatal(err)
		}
		settle(t, a, "n2", "n3")
		until(func() bool {
			return slices.ContainsFunc(status(t, a).Nodes,
				func(n *licensedv1.NodeStatus) bool { return n.State == licensedv1.NodeState_NODE_STATE_DRAINED })
		})
		wantOK("n1", licensedv1.NodeState_NODE_STATE_DRAINED)
		if _, err := a.UndrainNode(t.Context(),
			connect.NewRequest(&licensedv1.UndrainNodeRequest{Name: "n1"})); err != nil {
			t.Fatal(err)
		}
		settle(t, a, "n1", "n2", "n3")
		wantOK("n1", licensedv1.NodeState_NODE_STATE_READY)
		if status, body := get(t, n1.Admin().String(), "/readyz"); status != http.StatusOK {
			t.Errorf("an undrained node: %d %s", status, body)
		}
		shows(t, n1, []string{"licensed_cluster_has_lease 1", "licensed_cluster_draining 0"}, nil)
	}
	shows(t, g, []string{
		"licensed_cluster_status 0",
		`licensed_cluster_status_shards{state="served"} 32`,
		`licensed_cluster_status_findings{kind="no_lease"} 0`,
	}, []string{"licensed_cluster_has_lease"})
	if err := n1.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	until(func() bool {
		return slices.ContainsFunc(status(t, a).Nodes,
			func(n *licensedv1.NodeStatus) bool { return n.State == licensedv1.NodeState_NODE_STATE_LEFT })
	})
	wantOK("n1", licensedv1.NodeState_NODE_STATE_LEFT)
}
