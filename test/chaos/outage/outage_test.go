package outage

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/internal/signingkeys"
	"licensed/internal/storage"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// TestOutage takes the store of a small service away for some seconds, and stops a gateway meanwhile. Its machine may
// be busy: the time of answers is not judged here, but all else is.
func TestOutage(t *testing.T) {
	dir, log := t.TempDir(), new(harness.Log)
	keys, policy := filepath.Join(dir, "keys"), filepath.Join(dir, "policy.yaml")
	if _, err := signingkeys.New(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(Policy), 0o600); err != nil {
		t.Fatal(err)
	}
	store := faulty.New(memory.New(), nil)
	gossip := freeAddress(t)
	start := func(name string, roles node.Roles, listen string) (*node.Node, error) {
		c := node.DefaultConfig()
		c.Store, c.Shared, c.Archive = "cassandra://shared/test", store, storage.ArchiveOff
		c.Name, c.Roles, c.Listen, c.Admin, c.Policy = name, roles, listen, "127.0.0.1:0", policy
		c.Cluster.Bind, c.Cluster.NodeListen, c.Cluster.Join = "127.0.0.1:0", "127.0.0.1:0", []string{gossip}
		if roles == node.RoleNode {
			c.Cluster.Bind, c.Cluster.Join = gossip, nil
		}
		c.Cluster.Shards, c.Cluster.LeaseTTL, c.MaxDeadline = 32, 2*time.Second, 1500*time.Millisecond
		c.DrainDelay, c.DrainTimeout = 0, 5*time.Second
		c.Logger = slog.New(slog.NewTextHandler(log, nil)).With("member", name)
		if roles == node.RoleGateway {
			c.LicenseKeys, c.Fallback.Dir = keys, filepath.Join(dir, name)
		}
		return node.Start(t.Context(), c)
	}
	stop := func(n *node.Node) {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	n, err := start("n", node.RoleNode, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stop(n)
	site := Site{}
	var gateways []*node.Node
	for _, name := range []string{"g1", "g2"} {
		g, err := start(name, node.RoleGateway, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		gateways = append(gateways, g)
		site.Gateways = append(site.Gateways, Gateway{g.APIURL(), "http://" + g.Admin().String()})
	}
	defer func() {
		for _, g := range gateways {
			stop(g)
		}
	}()
	site.StoreAway = func(context.Context) error {
		store.SetScript(func(faulty.Call) faulty.Fault { return faulty.Fault{Kind: faulty.LoseRequest} })
		return nil
	}
	site.StoreBack = func(context.Context) error {
		store.SetScript(nil)
		return nil
	}
	site.Kill = func(_ context.Context, i int) error { stop(gateways[i]); return nil }
	site.Revive = func(_ context.Context, i int) (err error) {
		address := strings.TrimPrefix(site.Gateways[i].API, "http://")
		if gateways[i], err = start(fmt.Sprint("g", i+1), node.RoleGateway, address); err == nil {
			site.Gateways[i].Admin = "http://" + gateways[i].Admin().String()
		}
		return err
	}
	report, err := Run(t.Context(), Config{
		Customers: 400, Rate: 150, WarmUp: 500 * time.Millisecond, Length: 4 * time.Second, Settle: time.Minute,
		Within: 100 * time.Millisecond, KillEvery: 2 * time.Second, Seed: 1,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}, site)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	var out bytes.Buffer
	report.Print(&out)
	t.Log(out.String())
	provisional := 0
	for _, of := range report.Requests {
		provisional += of.Answers["provisional"]
	}
	if !report.Pass() || report.Checked < 300 || report.Deferred == 0 || provisional == 0 || report.Kills == 0 {
		t.Errorf("%d violations, %d commands checked, %d deferred, %d provisional answers, %d kills\n%s",
			len(report.Violations), report.Checked, report.Deferred, provisional, report.Kills, log)
	}
}

// freeAddress returns an address on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}
