package node_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster/placement"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// placed reports whether each shard is served where placement wants it among these nodes, by what a member says of
// the cluster, and no other node has any.
func placed(s *licensedv1.ClusterStatus, among ...placement.Node) bool {
	names, should := make(map[string]string), placement.New(among)
	for _, n := range s.Nodes {
		names[n.Incarnation] = n.Name
		if n.ShardsMoving+n.ShardsExpected > 0 {
			return false
		}
	}
	return len(s.ShardMap) == int(s.Shards) && !slices.ContainsFunc(s.ShardMap, func(shard *licensedv1.ShardStatus) bool {
		owner, _ := should.Owner(shard.Id)
		return names[shard.Owner] != owner || shard.State != licensedv1.ShardState_SHARD_STATE_OPEN
	})
}

// TestWrongClock: of three nodes the one whose clock is off finds out, tells the others and the operator, and has
// no shards.
func TestWrongClock(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	c.start("n2", node.RoleNode)
	settle(t, admin(n1), "n1", "n2")
	c.with = func(config *node.Config) { config.Now = func() time.Time { return time.Now().Add(time.Minute) } }
	c.start("n3", node.RoleNode)
	until(func() bool {
		s := status(t, admin(n1))
		said := slices.ContainsFunc(s.Warnings, func(w *licensedv1.ClusterWarning) bool {
			return w.Node == "n3" && strings.Contains(w.Text, "wall clock")
		})
		return said && n1.Gossiped("n3").GetClockWrong() && placed(s, placement.Node{Name: "n1"}, placement.Node{Name: "n2"})
	})
}

// TestCapacity: shards are divided by what each node says that it can take.
func TestCapacity(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	c.with = func(config *node.Config) { config.Cluster.Capacity = 5 }
	c.start("n2", node.RoleNode)
	until(func() bool {
		return placed(status(t, admin(n1)), placement.Node{Name: "n1", Capacity: 1}, placement.Node{Name: "n2", Capacity: 5})
	})
}

// TestEventsAhead: that a customer's last event lies more than five minutes ahead of the clock is an alarm, and
// less is not.
func TestEventsAhead(t *testing.T) {
	began := time.Now()
	for _, test := range []struct {
		behind time.Duration
		alarm  string
	}{{5*time.Minute - time.Second, "0"}, {5*time.Minute + time.Second, "1"}} {
		c, log := config(t)
		clock := began
		c.Now = func() time.Time { return clock }
		n := start(t, c)
		if _, err := client(n).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c",
		})); err != nil {
			t.Fatal(err)
		}
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(-test.behind)
		n = start(t, c)
		if _, err := client(n).ListLicenses(t.Context(), connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"})); err != nil {
			t.Fatal(err)
		}
		shows(t, n, []string{"licensed_customers_ahead_total " + test.alarm}, nil)
		if named := strings.Contains(log.String(), "customer=Bayley ahead="); named != (test.alarm == "1") {
			t.Errorf("%v: the log names the customer: %t", test.behind, named)
		}
	}
}
