package node_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/certs"
	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// company is a cluster whose processes are goroutines of the test.
type company struct {
	t      testing.TB
	output *testOutput
	store  persistence.Store
	join   []string
	with   func(*node.Config) // settings of all
}

func newCompany(t testing.TB) *company {
	return &company{t: t, output: outputOf(t), store: memory.New(), with: func(*node.Config) {}}
}

// start starts a member.
func (c *company) start(name string, roles node.Roles) *node.Node {
	c.t.Helper()
	n := start(c.t, c.config(name, roles))
	c.join = append(c.join, n.Gossip())
	return n
}

// config of a member.
func (c *company) config(name string, roles node.Roles) node.Config {
	config := node.DefaultConfig()
	config.Share(c.store)
	config.Name, config.Roles, config.Listen, config.Admin = name, roles, "127.0.0.1:0", "127.0.0.1:0"
	config.Cluster.Bind, config.Cluster.NodeListen, config.Cluster.Join = "127.0.0.1:0", "127.0.0.1:0", c.join
	config.Cluster.Shards, config.Cluster.LeaseTTL = 32, 10*time.Second // The machine may be busy.
	config.Logger = slog.New(slog.NewTextHandler(c.output, nil)).With("member", name)
	c.with(&config)
	return config
}

// status asks a member for the status of the cluster.
func status(t testing.TB, a licensedv1connect.AdminServiceClient) *licensedv1.ClusterStatus {
	t.Helper()
	res, err := a.GetCluster(t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.Cluster
}

// settle waits until these members serve all shards, each those that it should have.
func settle(t testing.TB, a licensedv1connect.AdminServiceClient, names ...string) {
	t.Helper()
	until(func() bool {
		owners, err := harness.SettledOwners(status(t, a), len(names))
		return err == nil &&
			!slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(owners, name) })
	})
}

func TestCluster(t *testing.T) {
	c := newCompany(t)
	n1 := c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode|node.RoleGateway)
	g := c.start("g", node.RoleGateway)
	a := admin(g)
	settle(t, a, "n1", "n2")

	s := status(t, a)
	if s.Name != "licensed" || s.Reporter != "g" || s.Shards != 32 || len(s.Nodes) != 3 || len(s.ShardMap) != 32 {
		t.Errorf("%v", s)
	}
	for i, name := range []string{"g", "n1", "n2"} {
		m := s.Nodes[i]
		if m.Name != name || (m.Lease == nil) != (name == "g") || (m.Incarnation == "") != (name == "g") ||
			(m.ApiAddress == "") != (name == "n1") || m.NodeAddress == "" {
			t.Errorf("member %d: %v, want %s", i, m, name)
		}
	}
	if n1.API() != nil || n1.APIURL() != "" {
		t.Errorf("a node has an API at %v", n1.API())
	}

	// Whatever is asked of a gateway is done by the owner, here or there.
	customers := []string{"Bayley", "Matt", "Ria", "Sam", "Tom", "Uma", "Vic", "Wim"}
	for _, id := range customers {
		res, err := client(g).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: id, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c",
		}))
		if err != nil || res.Msg.Sequence != 4 {
			t.Fatalf("%s: %v, %v", id, res, err)
		}
		downloads, err := client(g).ListDownloads(t.Context(),
			connect.NewRequest(&licensedv1.ListDownloadsRequest{CustomerId: id, TitleId: "GlowS01E01"}))
		if err != nil || len(downloads.Msg.Downloads) != 1 {
			t.Errorf("%s: downloads %v, %v", id, downloads, err)
		}
	}
	for _, id := range customers {
		p, err := a.PassivateCustomer(t.Context(),
			connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: id}))
		if err != nil || !p.Msg.Passivated {
			t.Errorf("%s: passivate: %v, %v", id, p, err)
		}
		v, err := a.VerifyCustomer(t.Context(), connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: id}))
		if err != nil {
			t.Fatal(err)
		}
		var report *licensedv1.CustomerReport
		for v.Receive() {
			report = v.Msg().Report
		}
		if err := v.Err(); err != nil || report.GetEvents() != 4 || len(report.GetFindings()) != 0 ||
			report.GetLiveStateCompared() {
			t.Errorf("%s: verify: %v, %v", id, report, err)
		}
	}
	wantImport(t, g)
	shows(t, g, []string{"licensed_cluster_shards 32"},
		[]string{"licensed_cluster_has_lease", "licensed_cluster_shards_held"})
	shows(t, n1, []string{
		"licensed_cluster_shards 32", "licensed_cluster_has_lease 1", "licensed_cluster_draining 0",
		`licensed_cluster_shard_changes_total{change="epoch_raised"} 0`,
	}, nil)
	wantDrain(t, a, n1)
}

// TestNobodyServes: a gateway whose nodes are gone reports it within a lease, not after the deadline.
func TestNobodyServes(t *testing.T) {
	c := newCompany(t)
	c.with = func(config *node.Config) { config.Cluster.LeaseTTL = 2 * time.Second }
	n := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	during := rehearse(t, scrapers{"n1": scraped(t, n), "g": scraped(t, g)}, "LicensedErrors", "LicensedDown",
		"LicensedShardsNotServed", "LicensedClusterCritical")
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := acquire(t, g, "c")
	if connect.CodeOf(err) != connect.CodeUnavailable ||
		!strings.Contains(err.Error(), "no node serves this customer: no node has a lease; not executed") {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	until(func() bool { return status(t, admin(g)).Level == licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL })
	during(scrapers{"g": scraped(t, g)})
}

// wantImport imports a history through a gateway for customers of all nodes.
func wantImport(t *testing.T, g *node.Node) {
	t.Helper()
	h := licensedv1connect.NewHistoryServiceClient(http.DefaultClient, "http://"+g.API().String())
	stream, err := h.ListEvents(t.Context(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley", IncludeRecord: true}))
	if err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			records = append(records, i.GetEvent().GetRecord())
		}
	}
	if err := stream.Err(); err != nil || len(records) != 4 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, id := range []string{"copy-1", "copy-2", "copy-3", "copy-4"} {
		res, err := admin(g).ImportCustomer(t.Context(),
			connect.NewRequest(&licensedv1.ImportCustomerRequest{CustomerId: id, Records: records, Last: true}))
		if err != nil || res.Msg.Imported != 4 {
			t.Errorf("import %s: %v, %v", id, res, err)
		}
	}
	// Onto a history that did not come from an import.
	_, err = admin(g).ImportCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ImportCustomerRequest{CustomerId: "Matt", Records: records, Last: true}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("import over Matt's history: %v", err)
	}
}

// wantDrain drains n1: n2 has all shards then.
func wantDrain(t *testing.T, a licensedv1connect.AdminServiceClient, n1 *node.Node) {
	t.Helper()
	_, err := a.DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n9"}))
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("drain a stranger: %v", err)
	}
	if _, err := a.DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); err != nil {
		t.Fatal(err)
	}
	settle(t, a, "n2")
	if status, body := get(t, n1.Admin().String(), "/readyz"); status != http.StatusServiceUnavailable ||
		!strings.Contains(body, "draining") {
		t.Errorf("a drained node: %d %s", status, body)
	}
	until(func() bool { // It gives up its lease after its last shard.
		_, body := get(t, n1.Admin().String(), "/metrics")
		return strings.Contains(body, "\nlicensed_cluster_has_lease 0\n")
	})
	shows(t, n1,
		[]string{"licensed_cluster_has_lease 0", "licensed_cluster_draining 1", "licensed_cluster_shards_held 0"}, nil)
	if err := n1.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	until(func() bool {
		for _, n := range status(t, a).Nodes {
			if n.Name == "n1" && n.State == licensedv1.NodeState_NODE_STATE_LEFT {
				return true
			}
		}
		return false
	})
}

// TestEncrypted: with keys and certificates members understand each other, and nobody else.
func TestEncrypted(t *testing.T) {
	dir, ca := t.TempDir(), certs.New(t)
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, private := ca.SignPEM(2)
	files := tlsfiles.Files{
		Cert: write("cert.pem", cert), Key: write("key.pem", private), CA: write("ca.pem", ca.PEM()),
	}
	key := write("gossip.key", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"))
	c := newCompany(t)
	c.with = func(config *node.Config) {
		config.Cluster.KeyFile = key
		config.Cluster.NodeTLS, config.APITLS = files, files
		if err := config.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	if !strings.HasPrefix(g.APIURL(), "https://") {
		t.Errorf("the API is at %s", g.APIURL())
	}
	for _, h2 := range []bool{false, true} {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Sign(3)}},
			ForceAttemptHTTP2: h2,
		}
		defer transport.CloseIdleConnections()
		a := licensedv1connect.NewAdminServiceClient(&http.Client{Transport: transport}, g.APIURL())
		settle(t, a, "n1", "n2")
		api := licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: transport}, g.APIURL())
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			if _, err := api.ListLicenses(t.Context(),
				connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: id})); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	// Without a certificate nobody gets in.
	stranger := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	defer stranger.CloseIdleConnections()
	if res, err := (&http.Client{Transport: stranger}).Get(g.APIURL() + "/readyz"); err == nil {
		res.Body.Close()
		t.Errorf("a client without a certificate gets %s", res.Status)
	}
}

// TestOtherCluster: a member of a cluster of another name does not start.
func TestOtherCluster(t *testing.T) {
	c := newCompany(t)
	c.start("n1", node.RoleNode)
	for _, roles := range []node.Roles{node.RoleNode, node.RoleGateway} {
		config := node.DefaultConfig()
		config.Share(c.store)
		config.Roles, config.Cluster.Name, config.Admin, config.Listen = roles, "another", "", "127.0.0.1:0"
		_, err := node.Start(context.Background(), config)
		if err == nil || !strings.Contains(err.Error(), `"licensed"`) || !strings.Contains(err.Error(), `"another"`) {
			t.Errorf("roles %d: %v", roles, err)
		}
	}
}

// TestClustersStayApart: clusters of different names stay apart, though one is told to join the other, as
// happens when an address is given to another machine.
func TestClustersStayApart(t *testing.T) {
	c, other := newCompany(t), newCompany(t)
	n1 := c.start("n1", node.RoleNode|node.RoleGateway)
	var log harness.Log
	other.join = []string{n1.Gossip()}
	other.with = func(config *node.Config) {
		config.Cluster.Name = "other"
		config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n2 := other.start("n2", node.RoleNode|node.RoleGateway)
	until(func() bool {
		return strings.Contains(log.String(), "membership: join") || len(status(t, admin(n2)).Nodes) > 1
	})
	for _, n := range []*node.Node{n1, n2} {
		if s := status(t, admin(n)); len(s.Nodes) != 1 {
			t.Errorf("cluster %s has members %v", s.Name, s.Nodes)
		}
	}
}
