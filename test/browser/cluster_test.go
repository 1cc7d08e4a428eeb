package browser_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/gateway/dashboard"
	"licensed/messages/licensedv1"
)

// TestNode looks at a node at work: figures and charts come by themselves.
func TestNode(t *testing.T) {
	s := start(t, nil)
	p := open(t, s.url(""), wall)
	p.says(".verdict", "All is well.")
	p.says("#map", "512 shards")
	p.says(".happenings", "is ready")
	p.wait("document.documentElement.dataset.samples >= 2")
	for device := range 6 {
		s.acquire("Bayley", fmt.Sprint("device-", device), "GlowS01E01")
	}
	p.says("[data-chart=refusals] .legend", "device limit")
	p.says(".nodes tbody", "512")
	p.says("#connection", "Live")
	p.look("cluster-one-node")
}

// cluster is one that the test makes up. It implements dashboard.Cluster.
type cluster struct {
	mu     sync.Mutex
	status *licensedv1.ClusterStatus
	err    error
}

func (c *cluster) Snapshot(context.Context) (*licensedv1.ClusterStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	c.work()
	return proto.CloneOf(c.status), nil
}

// work adds what a busy cluster did since it was asked last.
func (c *cluster) work() {
	now := time.Now()
	c.status.AsOf = timestamppb.New(now)
	for i, n := range c.status.Nodes {
		if n.State != licensedv1.NodeState_NODE_STATE_READY {
			continue
		}
		a := n.Activity
		a.Commands += uint64(900 + 50*i)
		a.Queries += 200
		a.Activations += 12
		a.Passivations += 9
		a.LatencyCounts[0] += 300
		a.LatencyCounts[1] += 580
		a.LatencyCounts[2] += 19
		a.LatencyCounts[3]++
		a.Refusals[0].Count += 7
		a.Refusals[1].Count += 3
		n.SeenAt = timestamppb.New(now)
		n.CpuTime = durationpb.New(n.CpuTime.AsDuration() + 400*time.Millisecond)
	}
}

// threeNodes returns a cluster of three.
func threeNodes() *cluster {
	started := timestamppb.New(time.Now().Add(-50 * time.Hour))
	s := &licensedv1.ClusterStatus{Name: "production", Reporter: "node-a", Shards: 512}
	for i, name := range []string{"node-a", "node-b", "node-c"} {
		s.Nodes = append(s.Nodes, &licensedv1.NodeStatus{
			Name: name, Incarnation: "incarnation-" + name, Version: "v1.2.0", State: licensedv1.NodeState_NODE_STATE_READY,
			Roles:     []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE, licensedv1.NodeRole_NODE_ROLE_GATEWAY},
			StartedAt: started, SeenAt: timestamppb.Now(), LowestEpoch: 3, HighestEpoch: uint64(5 + i), ShardsOpen: 171,
			Lease:             &licensedv1.LeaseStatus{Remaining: durationpb.New(9 * time.Second), Ttl: durationpb.New(10 * time.Second)},
			ResidentCustomers: 41_200, UnpackedCustomers: 1_240, ResidentBytes: 61 << 20, RequestsWaiting: 14, RequestsInFlight: 22,
			MemoryBytes: 412 << 20, MemoryLimitBytes: 2 << 30, CpuTime: durationpb.New(time.Hour), ClockOffset: durationpb.New(3 * time.Millisecond),
			Activity: &licensedv1.NodeActivity{
				LatencyBoundsSeconds: []float64{.0005, .001, .005, .05}, LatencyCounts: make([]uint64, 5),
				Refusals: []*licensedv1.RuleCount{{Rule: licensedv1.Rule_RULE_DEVICE_LIMIT}, {Rule: licensedv1.Rule_RULE_STUDIO_LIMIT}},
			},
		})
	}
	for id := range s.Shards {
		s.ShardMap = append(s.ShardMap, &licensedv1.ShardStatus{
			Id: id, Epoch: uint64(3 + id%3), Owner: s.Nodes[(id+id/7)%3].Incarnation, State: licensedv1.ShardState_SHARD_STATE_OPEN,
		})
	}
	return &cluster{status: s}
}

// kill makes one of the nodes die: it is seen, declared dead, and the others take over.
func (c *cluster) kill(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.status.Nodes {
		if n.Name != name {
			continue
		}
		n.State, n.Lease = licensedv1.NodeState_NODE_STATE_DEAD, &licensedv1.LeaseStatus{Ttl: durationpb.New(10 * time.Second)}
		n.SeenAt = timestamppb.New(time.Now().Add(-14 * time.Second))
		n.ShardsOpen, n.ResidentCustomers, n.ResidentBytes = 0, 0, 0
		for i, s := range c.status.ShardMap {
			if s.Owner != n.Incarnation {
				continue
			}
			switch i % 4 {
			case 0:
				s.State = licensedv1.ShardState_SHARD_STATE_ORPHANED
			case 1:
				s.State, s.Successor = licensedv1.ShardState_SHARD_STATE_MOVING, c.status.Nodes[0].Incarnation
			default:
				s.Epoch, s.Owner = s.Epoch+1, c.status.Nodes[i%2].Incarnation
			}
		}
	}
	c.status.Warnings = []*licensedv1.ClusterWarning{
		{Level: licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, Node: name, Text: name + " is dead; 43 of its shards are not served yet."},
		{Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: "node-a", Text: "The archiver of node-a is 2 h behind with 14,200 customers; raise archive-rate."},
	}
	for _, h := range []struct {
		kind licensedv1.HappeningKind
		text string
	}{
		{licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED, name + " does not answer"},
		{licensedv1.HappeningKind_HAPPENING_KIND_DECLARED_DEAD, name + " was declared dead by node-a, after 12.4 s without a sign of life"},
		{licensedv1.HappeningKind_HAPPENING_KIND_TAKEN_OVER, "node-a took over 86 shards from " + name},
	} {
		c.status.Happenings = append([]*licensedv1.Happening{{At: timestamppb.Now(), Kind: h.kind, Node: name, Text: h.text}}, c.status.Happenings...)
	}
}

// serve starts a dashboard that shows a cluster.
func serve(t *testing.T, c dashboard.Cluster) string {
	t.Helper()
	d, err := dashboard.New(dashboard.Config{
		Cluster: c, Loopback: true, Now: time.Now, NewID: func() string { return "id" }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(d.Close)
	return server.URL + "/dashboard/"
}

// TestKilledNode sees a node die.
func TestKilledNode(t *testing.T) {
	c := threeNodes()
	p := open(t, serve(t, c), wall)
	p.says(".verdict", "All is well.")
	p.wait("document.documentElement.dataset.samples >= 3")
	p.says("#map", "node-a has 17")
	p.says("[data-chart=latency] .legend", "median 0.6")
	p.look("cluster-three-nodes")
	p.eval(`(document.querySelector(".nodes tbody tr").dataset.mine = "kept", 1)`)

	c.kill("node-c")
	p.says(".verdict", "2 things are wrong.")
	p.says(".warnings", "node-c is dead")
	p.says(".nodes tr.critical", "dead")
	p.says(".nodes tr.critical", "silent for 1")
	p.says("#map", "not served")
	p.says(".happenings", "node-a took over 86 shards from node-c")
	p.wait("document.querySelectorAll('rect.orphaned').length > 0 && document.querySelectorAll('rect.moving').length > 0")
	if p.eval(`document.querySelector(".nodes tbody tr").dataset.mine`) == "kept" {
		t.Error("what the page added to a row stayed, so rows were not laid over one another")
	}
	p.look("cluster-killed-node")

	// Now nobody answers: the page says so, and shows what it knew.
	c.mu.Lock()
	c.err = context.DeadlineExceeded
	c.mu.Unlock()
	p.says(".verdict", "The cluster does not say how it is, since")
	p.says(".nodes", "node-b")
	p.look("cluster-silent")
}

// TestOutOfSight: a page that nobody sees ends its stream, and goes on when it is looked at again.
func TestOutOfSight(t *testing.T) {
	p := open(t, serve(t, threeNodes()), wall)
	p.says("#connection", "Live")
	p.wait("document.documentElement.dataset.samples >= 2")
	p.eval(`(() => {
		window.seen = document.documentElement.dataset.samples;
		const wait = window.setTimeout;
		window.setTimeout = (f, ms) => wait(f, Math.min(ms, 50)); // Nobody has half a minute.
		Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
		document.dispatchEvent(new Event("visibilitychange"));
	})()`)
	p.says("#connection", "Paused")
	p.eval(`(() => { delete document.hidden; document.dispatchEvent(new Event("visibilitychange")); })()`)
	p.says("#connection", "Live")
	p.wait("Number(document.documentElement.dataset.samples) > Number(window.seen)")

	// Being sent again what it has, a page has it once.
	p.eval(`void import("/dashboard/static/charts.js").then(({ keep }) => {
		window.kept = keep([{ at: 1 }, { at: 2 }], [{ at: 1 }, { at: 2 }, { at: 3 }]).map((s) => s.at).join();
	})`)
	p.wait(`window.kept === "1,2,3"`)
}

// TestNothingYet looks at a cluster that never answered.
func TestNothingYet(t *testing.T) {
	c := threeNodes()
	c.err = context.DeadlineExceeded
	p := open(t, serve(t, c), phone)
	p.says(".verdict", "and never did since this gateway started")
	p.says(".placeholder", "Waiting for the cluster")
	p.look("cluster-nothing-yet")
	c.mu.Lock()
	c.err = nil
	c.mu.Unlock()
	p.says(".verdict", "All is well.")
}
