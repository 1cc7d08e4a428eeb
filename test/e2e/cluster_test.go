package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

// fleet is the processes of a cluster: nodes, each on an address of its own, and a gateway.
type fleet struct {
	t       *testing.T
	store   string
	options cassandra.Options
	network string // first three bytes of the nodes' addresses
	program string // that processes are started from
	nodes   []*daemon
	gateway *daemon
	admin   licensedv1connect.AdminServiceClient
	clients clients
}

// clients are those that requests go through. Who sends one holds it for reading, so that a gateway of which
// the clients are taken away has answered all that they sent.
type clients struct {
	sync.RWMutex
	all []licensedv1connect.LicenseServiceClient
}

// use has requests go through these gateways, and returns when no other has any.
func (c *clients) use(gateways ...*daemon) {
	var all []licensedv1connect.LicenseServiceClient
	for _, g := range gateways {
		all = append(all, g.clients()...)
	}
	c.Lock()
	defer c.Unlock()
	c.all = all
}

// send sends a command through one of them.
func (c *clients) send(i int, o *command) (proto.Message, error) {
	c.RLock()
	defer c.RUnlock()
	return o.send(context.Background(), c.all[i%len(c.all)])
}

const fleetNodes = 3

// startFleet starts a cluster on a Cassandra.
func startFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{
		t:       t,
		program: licensed(t),
		options: cassandratest.Keyspace(t, cassandratest.Shared(t), 1),
		network: fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250)),
	}
	f.store = cassandratest.URL(f.options, "accept_risk="+cassandra.RiskReplication1)
	f.nodes = make([]*daemon, fleetNodes)
	for i := range f.nodes {
		f.startNode(i)
	}
	f.gateway = f.startGateway(1)
	f.clients.use(f.gateway)
	f.settled()
	return f
}

func (f *fleet) arguments(role, name, host string, more ...string) []string {
	join := make([]string, fleetNodes)
	for i := range join {
		join[i] = fmt.Sprintf("%s.%d", f.network, i+1)
	}
	return append([]string{
		role, "--name", name, "--host", host, "--join", strings.Join(join, ","), "--store", f.store, "--archive", "off",
		"--cluster", "e2e", "--shards", "64", "--log-level", "info",
		"--lease-ttl", "10s", // Nothing here is about how soon a node is missed, and the machine may be busy.
	}, more...)
}

func (f *fleet) startNode(i int) {
	f.t.Helper()
	f.nodes[i] = startProgram(f.t, f.program, f.arguments("node", fmt.Sprint("n", i+1),
		fmt.Sprintf("%s.%d", f.network, i+1), "--policy", "testdata/policy.yaml")...)
}

// startGateway starts a gateway, of which the first is the one that is asked about the cluster.
func (f *fleet) startGateway(number int) *daemon {
	f.t.Helper()
	g := startProgram(f.t, f.program, f.arguments("gateway", fmt.Sprint("g", number),
		fmt.Sprintf("%s.%d", f.network, 99+number), "--policy", "testdata/policy.yaml")...)
	if number == 1 {
		f.admin = licensedv1connect.NewAdminServiceClient(http.DefaultClient, "http://"+g.API)
	}
	return g
}

// status returns the cluster as the first gateway sees it.
func (f *fleet) status() *licensedv1.ClusterStatus {
	res, err := f.admin.GetCluster(f.t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil {
		return nil // Asked again.
	}
	return res.Msg.Cluster
}

// await waits until the cluster is as wanted.
func (f *fleet) await(wanted func(*licensedv1.ClusterStatus) bool) {
	f.t.Helper()
	f.gateway.Until(func() bool {
		s := f.status()
		return s != nil && wanted(s)
	})
}

// held returns the number of shards each node says that it serves.
func held(s *licensedv1.ClusterStatus) map[string]uint32 {
	all := make(map[string]uint32)
	for _, n := range s.Nodes {
		if n.State == licensedv1.NodeState_NODE_STATE_READY && n.Lease != nil {
			all[n.Name] = n.ShardsOpen
		}
	}
	return all
}

// state returns that of a member.
func state(s *licensedv1.ClusterStatus, name string) licensedv1.NodeState {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n.State
		}
	}
	return licensedv1.NodeState_NODE_STATE_UNSPECIFIED
}

// wantLevel checks the level of the cluster.
func (f *fleet) wantLevel(level licensedv1.ClusterLevel, summary string) {
	f.t.Helper()
	if s := f.status(); s.GetLevel() != level || !strings.HasPrefix(s.GetSummary(), summary) {
		f.t.Errorf("the status is %v, %q: %v; want %v, %q",
			s.GetLevel(), s.GetSummary(), s.GetWarnings(), level, summary)
	}
}

// settled waits until every node has the shards that it should have.
func (f *fleet) settled() {
	f.t.Helper()
	f.await(func(s *licensedv1.ClusterStatus) bool {
		_, err := harness.SettledOwners(s, fleetNodes)
		return err == nil
	})
}

// traffic is the load of clients through the gateway.
type traffic struct {
	answered, failed atomic.Int64
	failure          atomic.Value // the last error
	stop             context.CancelFunc
	done             sync.WaitGroup
}

// send has clients send commands until the traffic is stopped.
func (f *fleet) send(l *load) *traffic {
	ctx, stop := context.WithCancel(context.Background())
	tr := &traffic{stop: stop}
	for w := range workers / 2 {
		tr.done.Go(func() {
			for i := w; ctx.Err() == nil; i++ {
				c := l.choose()
				message, err := f.clients.send(i, c)
				a := outcome(message, err)
				switch {
				case a != nil:
					tr.answered.Add(1)
					c.first = a
				case connect.CodeOf(err) != connect.CodeResourceExhausted: // A customer with many refusals.
					tr.failed.Add(1)
					tr.failure.Store(err)
				}
				time.Sleep(5 * time.Millisecond) // The machine has others to serve.
			}
		})
	}
	return tr
}

// more waits until this many more commands were answered.
func (tr *traffic) more(f *fleet, n int64) {
	f.t.Helper()
	enough := tr.answered.Load() + n
	f.gateway.Until(func() bool { return tr.answered.Load() >= enough })
}

func (tr *traffic) end() {
	tr.stop()
	tr.done.Wait()
}

// wantNoFailures checks that nothing failed.
func (tr *traffic) wantNoFailures(t *testing.T, what string) {
	t.Helper()
	if n := tr.failed.Load(); n > 0 {
		t.Errorf("%s: %d of %d requests failed, the last: %v", what, n, n+tr.answered.Load(), tr.failure.Load())
	}
}

// TestCluster restarts, drains and kills nodes while clients continue. What is planned nobody notices; what is
// not, nobody loses anything by.
func TestCluster(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	l := newLoad()
	t.Run("rolling restart", func(t *testing.T) {
		tr := f.send(l)
		for i := range f.nodes {
			tr.more(f, 100)
			if code := f.nodes[i].Stop(); code != 0 {
				t.Errorf("n%d: exit code %d", i+1, code)
			}
			tr.more(f, 50)
			f.startNode(i)
			f.settled()
		}
		tr.end()
		tr.wantNoFailures(t, "rolling restart")
	})
	t.Run("drain", func(t *testing.T) {
		tr := f.send(l)
		tr.more(f, 50)
		if _, err := f.admin.DrainNode(t.Context(),
			connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n2"})); err != nil {
			t.Fatal(err)
		}
		f.await(func(s *licensedv1.ClusterStatus) bool {
			h := held(s)
			return len(h) == 2 && h["n1"]+h["n3"] == s.Shards
		})
		f.await(func(s *licensedv1.ClusterStatus) bool {
			return state(s, "n2") == licensedv1.NodeState_NODE_STATE_DRAINED
		})
		f.wantLevel(licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal")
		tr.more(f, 50)
		tr.end()
		tr.wantNoFailures(t, "drain")
		if status, body := harness.Get(
			t, "http://"+f.nodes[1].Admin+"/readyz",
		); status != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
			t.Errorf("readyz of the drained node: %d %s", status, body)
		}
		tr = f.send(l)
		if _, err := f.admin.UndrainNode(t.Context(),
			connect.NewRequest(&licensedv1.UndrainNodeRequest{Name: "n2"})); err != nil {
			t.Fatal(err)
		}
		f.settled()
		tr.more(f, 50)
		tr.end()
		tr.wantNoFailures(t, "undrain")
		if status, body := harness.Get(t, "http://"+f.nodes[1].Admin+"/readyz"); status != http.StatusOK {
			t.Errorf("readyz of the undrained node: %d %s", status, body)
		}
		if code := f.nodes[1].Stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		f.await(func(s *licensedv1.ClusterStatus) bool {
			return state(s, "n2") == licensedv1.NodeState_NODE_STATE_LEFT
		})
		f.wantLevel(licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal")
		f.startNode(1)
		f.settled()
	})
	t.Run("kill", func(t *testing.T) {
		tr := f.send(l)
		tr.more(f, 100)
		f.wantLevel(licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal")
		f.nodes[2].Kill()
		f.await(func(s *licensedv1.ClusterStatus) bool { // Each reading begins after the end of n3.
			if s.Level == licensedv1.ClusterLevel_CLUSTER_LEVEL_OK ||
				state(s, "n3") == licensedv1.NodeState_NODE_STATE_READY {
				t.Errorf("the status is %v, n3 %v", s.Level, state(s, "n3"))
			}
			h := held(s)
			return len(h) == 2 && h["n1"]+h["n2"] == s.Shards
		})
		tr.more(f, 100)
		tr.end()
		f.await(func(s *licensedv1.ClusterStatus) bool {
			return state(s, "n3") == licensedv1.NodeState_NODE_STATE_DEAD
		})
		f.wantLevel(licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED, "2 of 3 nodes running; n3 not responding since ")
		f.gateway.Says("shards unserved")
		f.gateway.Says("n3 not responding (")
		f.gateway.Says("shards served")
		f.nodes[0].Says("shards served")
		f.startNode(2)
		f.settled()
		f.wantLevel(licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal")
	})
	l.resolve(t, f.gateway)
	for _, d := range append(f.nodes, f.gateway) {
		if code := d.Stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	store, err := cassandra.Open(t.Context(), f.options)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l.compareWithHistory(t, store)
	t.Logf("%d commands, %d had an unknown outcome, %d were refused", len(l.commands), l.unknown, l.refused())
}
