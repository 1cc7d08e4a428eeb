package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster/placement"
	"licensed/internal/hideids"
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
	return len(s.ShardMap) == int(s.Shards) &&
		!slices.ContainsFunc(s.ShardMap, func(shard *licensedv1.ShardStatus) bool {
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
		return said && n1.Gossiped("n3").GetClockWrong() &&
			placed(s, placement.Node{Name: "n1"}, placement.Node{Name: "n2"})
	})
}

// TestCapacity: shards are divided by what each node says that it can take.
func TestCapacity(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	c.with = func(config *node.Config) { config.Cluster.Capacity = 5 }
	c.start("n2", node.RoleNode)
	until(func() bool {
		return placed(status(t, admin(n1)), placement.Node{Name: "n1", Capacity: 1},
			placement.Node{Name: "n2", Capacity: 5})
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
		during := rehearse(t, scrapers{"n": scraped(t, n)}, "LicensedCustomersAhead")
		if _, err := client(n).ListLicenses(t.Context(),
			connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"})); err != nil {
			t.Fatal(err)
		}
		shows(t, n, []string{"licensed_customers_ahead_total " + test.alarm}, nil)
		during(scrapers{"n": scraped(t, n)}) // The last case is the one that stays.
		named := strings.Contains(log.String(), "customer_hash="+hideids.Hash("Bayley")+" ahead=")
		if named != (test.alarm == "1") {
			t.Errorf("%v: the log names the customer: %t", test.behind, named)
		}
	}
}

// TestLargeCustomersAreTold: a customer that reaches half of the policy's limit raises the alarm and is named in the
// log; at the limit it is refused.
func TestLargeCustomersAreTold(t *testing.T) {
	c, log := config(t)
	c.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(c.Policy, []byte("default_plan: p\nplans: {p: {devices: 9}}\nremembered_licences: 2\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, c)
	acquire := func(title string) error {
		_, err := client(n).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: title, CommandId: title,
		}))
		return err
	}
	shows(t, n, []string{"licensed_customers_large_total 0"}, nil)
	during := rehearse(t, scrapers{"n": scraped(t, n)}, "LicensedCustomersLarge")
	if err := acquire("one"); err != nil {
		t.Fatal(err)
	}
	shows(t, n, []string{"licensed_customers_large_total 1"}, nil)
	during(scrapers{"n": scraped(t, n)})
	if !strings.Contains(log.String(), "customer_hash="+hideids.Hash("Bayley")+" remembered_licences=1 limit=2") {
		t.Errorf("the log does not name the customer:\n%s", log.String())
	}
	if err := acquire("two"); err != nil {
		t.Fatal(err)
	}
	if err := acquire("three"); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		!strings.Contains(err.Error(), "2 licences are remembered") {
		t.Errorf("one more than the limit: %v", err)
	}
}
