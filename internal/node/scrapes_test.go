package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// TestScrapes writes what Prometheus gets from a running cluster, and from a node of its own, to a
// directory: from each process a scrape before and one after. tools/alerts shows dashboards of them;
// `make test-alerts` runs both.
func TestScrapes(t *testing.T) {
	directory := os.Getenv("LICENSED_SCRAPES")
	if directory == "" {
		t.Skip("LICENSED_SCRAPES names no directory")
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCompany(t)
	processes := map[string]*node.Node{
		"n1": c.start("n1", node.RoleNode|node.RoleGateway),
		"n2": c.start("n2", node.RoleNode|node.RoleGateway),
		"g":  c.start("g", node.RoleGateway),
	}
	settle(t, admin(processes["g"]), "n1", "n2")
	alone, _ := config(t)
	processes["alone"] = start(t, alone)
	scrape := func(when string) {
		t.Helper()
		for name, n := range processes {
			_, text := get(t, n.Admin().String(), "/metrics")
			if err := os.WriteFile(filepath.Join(directory, name+"."+when+".prom"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	work := func(round string) {
		t.Helper()
		for name, n := range processes {
			for i := range 20 {
				everyOutcome(t, n, fmt.Sprintf("%s-%d", name, i), round)
			}
		}
	}
	work("1")
	scrape("before")
	work("2")
	if _, err := admin(processes["g"]).DrainNode(t.Context(),
		connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); err != nil {
		t.Fatal(err)
	}
	settle(t, admin(processes["g"]), "n2")
	work("3")
	scrape("after")
}

// everyOutcome sends commands that are done, repeated, refused by a rule, and wrong, and has the customer
// are evicted and, where there is an archive, go there.
func everyOutcome(t *testing.T, n *node.Node, customer, round string) {
	t.Helper()
	for _, device := range []string{"iphone", "iphone", "ipad", "tv", ""} {
		_, err := client(n).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: customer, DeviceId: device, TitleId: "GlowS01E01", CommandId: "acquire-" + device + round,
		}))
		if refused := device == "tv" || device == ""; (err != nil) != refused {
			t.Fatalf("%s on %q: %v", customer, device, err)
		}
	}
	if _, err := admin(n).PassivateCustomer(t.Context(),
		connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: customer})); err != nil {
		t.Fatal(err)
	}
	_, err := admin(n).ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: customer, All: true}))
	if err != nil && connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Fatal(err)
	}
}
