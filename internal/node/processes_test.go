package node_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/internal/throwaway"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
)

// TestProcessRoles: nodes and gateways know each other by the names in their certificates. A gateway may ask, and not
// drain; a process that says it is a node, with the certificate of a gateway, gets no requests for customers.
func TestProcessRoles(t *testing.T) {
	dir := t.TempDir()
	if err := throwaway.Certs(dir, nil); err != nil {
		t.Fatal(err)
	}
	certificate := func(of string) tlsfiles.Files {
		return tlsfiles.Files{
			Cert: filepath.Join(dir, of+".pem"), Key: filepath.Join(dir, of+"-key.pem"),
			CA: filepath.Join(dir, "ca.pem"),
		}
	}
	c := newCompany(t)
	with := func(of string, sans bool) {
		c.with = func(config *node.Config) {
			config.Cluster.NodeTLS = certificate(of)
			if sans {
				config.Cluster.NodeSANs = []string{throwaway.NodeSAN}
				config.Cluster.GatewaySANs = []string{throwaway.GatewaySAN}
			}
		}
	}
	with("node", true)
	c.start("n1", node.RoleNode)
	with("gateway", true)
	g := c.start("g1", node.RoleGateway)
	a := admin(g)
	settle(t, a, "n1")
	if _, err := acquire(t, g, "c1"); err != nil {
		t.Error(err)
	}
	if _, err := a.DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); connect.CodeOf(
		err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "a gateway may not do this by itself") {
		t.Errorf("a gateway drains a node: %v", err)
	}
	// A process that was misconfigured reports it.
	if _, err := node.Start(t.Context(), c.config("n2", node.RoleNode)); err == nil ||
		!strings.Contains(err.Error(), "node-tls-cert: is a gateway's") {
		t.Errorf("a node with the certificate of a gateway: %v", err)
	}
	// One that does not look at names itself: others do. Its lease, gossip and address are correct.
	with("gateway", false)
	c.start("n2", node.RoleNode)
	until(func() bool {
		return slices.ContainsFunc(status(t, a).Warnings, func(w *licensedv1.ClusterWarning) bool {
			return w.Node == "n2" && strings.Contains(w.Text, "the names in its certificate are not those of the role")
		})
	})
	for _, id := range []string{"c2", "c3", "c4"} {
		if _, err := acquire(t, g, id); err != nil {
			t.Error(err)
		}
	}
	for _, s := range status(t, a).ShardMap {
		if s.Owner == "n2" {
			t.Errorf("n2 owns %v", s)
		}
	}
}
