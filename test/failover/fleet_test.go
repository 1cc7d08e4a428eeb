package failover

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/test/chaos/process"
)

// Knobs of a run.
var (
	measured  = flag.Bool("failover", false, "run the measurements")
	kills     = flag.Int("kills", 100, "how many owners are killed")
	clients   = flag.Int("clients", 200, "customers with a client")
	residents = flag.Int("residents", 100_000, "customers in memory without one")
	replicas  = flag.Int("cassandra", 1, "nodes of Cassandra, and copies of everything")
	keep      = flag.String("logs", "", "directory that keeps the processes' logs, and the results")
	extra     = flag.String("node-flags", "", "further flags of the nodes, separated by spaces")
	rounds    = flag.Int("rounds", 40, "how often a node hands all it has to the others and gets it back")
	warm      = flag.Int("warm", 15, "rounds before those that count: the first of a JVM take many times as long")
	movers    = flag.Int("movers", 20, "customers with a client while shards are handed over")
	every     = flag.Duration("every", 20*time.Millisecond, "pause between the requests of these clients")
	saturate  = flag.Duration("saturate", 30*time.Minute, "how long all processors are kept busy")
	workers   = flag.Int("workers", 256, "requests under way then")
	busyOnes  = flag.Int("busy", 20_000, "customers that they are for; each may give 1,024 commands in ten minutes")
)

// fleet is the processes of a cluster.
type fleet struct {
	t         *testing.T
	dir       string
	binary    string
	store     string
	cassandra *cassandratest.Cluster // nil: not this run's
	nodes     []*member
	gateways  []*member
	admin     licensedv1connect.AdminServiceClient
	role      string   // of nodes
	flags     []string // of nodes
	network   string   // the first two bytes of all addresses
}

type member struct {
	*process.Process
	name, host string
}

// launch starts Cassandra, this many nodes, and two gateways.
func launch(t *testing.T, nodes int) *fleet {
	t.Helper()
	return launchAs(t, nodes, "node")
}

// launchAs is launch with nodes of a role, with further flags.
func launchAs(t *testing.T, nodes int, role string, flags ...string) *fleet {
	t.Helper()
	if !*measured {
		t.Skip("a measurement, for make bench-failover")
	}
	f := &fleet{t: t, dir: filepath.Join(*keep, t.Name()), role: role, flags: append(strings.Fields(*extra), flags...)}
	if *keep == "" {
		f.dir = t.TempDir()
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.binary = filepath.Join(harness.Programs(t), "licensed")
	f.openStore()
	f.network = freeNetwork()
	for k := range nodes {
		f.addNode(k + 1)
	}
	for k := range 2 {
		f.gateways = append(f.gateways, f.member("gateway", fmt.Sprint("g", k+1), fmt.Sprint(f.network, ".1.", k+1)))
	}
	f.admin = licensedv1connect.NewAdminServiceClient(http.DefaultClient, f.gateways[0].url(8080))
	return f
}

// freeNetwork returns loopback addresses that no other run has: a member that finds its address taken would
// seem to be ready, since the other one there answers.
func freeNetwork() string {
	for {
		network := fmt.Sprint("127.", 1+rand.IntN(254))
		conn, err := net.Dial("tcp", network+".1.1:8081")
		if err != nil {
			return network
		}
		_ = conn.Close()
	}
}

// openStore makes a keyspace.
func (f *fleet) openStore() {
	f.t.Helper()
	base, given, err := cassandratest.FromEnvironment()
	if err != nil {
		f.t.Fatal(err)
	}
	if !given {
		f.cassandra = cassandratest.Start(f.t, cassandratest.Config{Nodes: *replicas, Env: []string{"HEAP=768M"}})
		base = f.cassandra.Options()
	}
	o := cassandratest.Keyspace(f.t, base, *replicas)
	f.store = cassandratest.URL(o, "accept_risk="+cassandra.RiskReplication1)
}

func (m *member) url(port int) string { return fmt.Sprintf("http://%s:%d", m.host, port) }

// addNode starts one more node.
func (f *fleet) addNode(n int) *member {
	m := f.member(f.role, fmt.Sprint("n", n), fmt.Sprint(f.network, ".0.", n),
		append(slices.Clone(f.flags), "--passivate-after", "24h")...)
	f.nodes = append(f.nodes, m)
	return m
}

func (f *fleet) member(role, name, host string, args ...string) *member {
	f.t.Helper()
	m := &member{name: name, host: host}
	m.Process = process.New(process.Spec{
		Name: name, Path: f.binary, Log: filepath.Join(f.dir, name+".log"),
		Args: append([]string{
			role, "--store", f.store, "--name", name, "--host", host, "--join",
			f.network + ".0.1," + f.network + ".0.2", "--log-format", "json", "--archive", "off",
		}, args...),
		Ready: func(ctx context.Context) error { return get(ctx, m.url(8081)+"/readyz") },
	}, func(err error) { f.t.Errorf("%s: %v\n%s", name, err, m.Tail(2000)) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		f.t.Fatalf("%v\n%s", err, m.Tail(4000))
	}
	f.t.Cleanup(func() { f.stop(m) })
	return m
}

// stop ends a process in good order.
func (f *fleet) stop(m *member) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		f.t.Error(err)
	}
}

func get(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s: %s", url, res.Status, b)
	}
	return nil
}

// owners returns which node holds each shard, by name, if the cluster of that many nodes is settled.
func (f *fleet) owners(nodes int) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	res, err := f.admin.GetCluster(ctx, connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil {
		return nil, err
	}
	return harness.SettledOwners(res.Msg.Cluster, nodes)
}

// incarnations returns those of the nodes, by name, of which there are this many. It waits a while for nodes
// that do not say.
func (f *fleet) incarnations(nodes int) map[string]string {
	f.t.Helper()
	for give := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		all := map[string]string{}
		res, err := f.admin.GetCluster(f.t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
		for _, n := range res.Msg.GetCluster().GetNodes() {
			if n.State == licensedv1.NodeState_NODE_STATE_READY && n.Incarnation != "" {
				all[n.Name] = n.Incarnation
			}
		}
		if len(all) >= nodes {
			return all
		}
		if time.Now().After(give) {
			f.t.Fatalf("of %d nodes only these say that they hold a lease: %v; %v", nodes, all, err)
		}
	}
}

// lost returns the number of nodes that have another incarnation than before, but for one of them.
func lost(before, after map[string]string, but string) (n int) {
	for name, i := range before {
		if name != but && after[name] != i {
			n++
		}
	}
	return n
}

// settle waits until all shards are held by that many nodes, and returns by which.
func (f *fleet) settle(nodes int) []string {
	f.t.Helper()
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		owners, err := f.owners(nodes)
		if err == nil {
			return owners
		}
		last = err
	}
	f.t.Fatalf("the cluster does not settle: %v", last)
	return nil
}

// holds reports which of the customers were that node's.
func holds(owners []string, node string) func(customer string) bool {
	return func(customer string) bool {
		return owners[cluster.ShardOf(customer+":LicenseAggregate", uint32(len(owners)))] == node
	}
}

// start starts a member again.
func (f *fleet) start(m *member) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		f.t.Fatalf("%v\n%s", err, m.Tail(4000))
	}
}

// save keeps a text beside the logs.
func (f *fleet) save(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Error(errors.Join(err))
	}
}
