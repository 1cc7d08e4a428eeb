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

	"licensed/docs"
	"licensed/gateway/dashboard"
	"licensed/internal/clusterstatus"
	"licensed/internal/status"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// TestNode looks at a running node: figures and charts come by themselves.
func TestNode(t *testing.T) {
	s := start(t, nil)
	p := open(t, s.url(""), wall)
	p.says(".verdict", "All systems normal")
	p.says("#map", "512 shards")
	p.says(".happenings", "is ready")
	p.wait("document.documentElement.dataset.samples >= 1")
	for device := range 6 {
		s.acquire("Bayley", fmt.Sprint("device-", device), "GlowS01E01")
	}
	p.says("[data-chart=refusals] .legend", "device limit")
	p.says(".nodes tbody", "512")
	p.says("#connection", "Live")
	p.look("cluster-one-node")
}

// TestDeferredCommands looks at a gateway that cannot reach a node: the cluster is degraded, and a section says what is
// deferred, since when, and what became of commands. It follows what changes.
func TestDeferredCommands(t *testing.T) {
	c := threeNodes()
	g := c.nodes[0]
	g.Fallback = &licensedv1.FallbackFigures{
		DeferredCommands: 4711, DeferredCustomers: 1234, Bytes: 3 << 20, MaxBytes: 256 << 20,
		DeferredSince:     timestamppb.New(time.Now().Add(-2 * time.Minute)),
		UnavailableOwners: []string{c.nodes[1].Incarnation}, StaleFromStore: 17, StaleFormerAnswers: 5,
		Outcomes: []*licensedv1.DeferredOutcomes{
			{Command: "renew", Accepted: 4000, Executed: 12, Refused: 1},
			{Command: "release", Accepted: 711, Superseded: 2},
		},
	}
	g.Warnings = status.Warnings(g, nil, nil)
	p := open(t, serve(t, c), wall)
	p.says(".findings", "4711, of customers: 1234")
	p.says(".fallbacks", "degraded")
	p.says(".fallbacks", "4,711")
	p.says(".fallbacks", "node-b unavailable")
	p.says(".fallbacks", "renew: 4,000 accepted")
	p.says(".fallbacks", "17 from the store")
	p.look("deferred-commands")
	c.mu.Lock()
	g.Fallback = &licensedv1.FallbackFigures{
		MaxBytes: 256 << 20,
		Outcomes: []*licensedv1.DeferredOutcomes{{Command: "renew", Accepted: 4000, Executed: 4000}},
	}
	g.Warnings = nil
	c.mu.Unlock()
	p.says(".fallbacks", "normal")
	p.says(".fallbacks", "all answer")
	p.says(".fallbacks", "4,000 executed")
}

// cluster is one that the test makes up: its members, and what became of them. The status is made of that as in a
// real one. It implements dashboard.Cluster.
type cluster struct {
	mu         sync.Mutex
	nodes      []*licensedv1.NodeStatus
	fates      map[string]fate // of those that are not active
	shards     []persistence.Shard
	history    clusterstatus.History
	happenings []*licensedv1.Happening
	err        error
}

// fate is what became of a node: it gives no answer, it is no longer listed, or it was drained.
type fate struct {
	gone, drained bool
	at            time.Time
}

// Snapshot implements dashboard.Cluster.
func (c *cluster) Cluster(context.Context) (*licensedv1.ClusterStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	now := time.Now()
	c.work(now)
	in := clusterstatus.Input{
		Name: "production", Reporter: "gateway-1", Now: now, Shards: uint32(len(c.shards)), Rows: c.shards,
	}
	for _, n := range c.nodes {
		incarnation, _ := persistence.ParseIncarnation(n.Incarnation)
		listed := &licensedv1.NodeStatus{
			Name: n.Name, Incarnation: n.Incarnation, Roles: n.Roles, Version: n.Version, NodeAddress: n.NodeAddress,
		}
		a := clusterstatus.Answer{Listed: listed, Incarnation: incarnation}
		f, ended := c.fates[n.Name]
		switch {
		case ended && f.gone:
			in.Departed = append(in.Departed, clusterstatus.Departure{Last: listed, Incarnation: incarnation, At: f.at})
			continue
		case ended && !f.drained:
			a.Cause = "timeout"
		default:
			a.Self = proto.CloneOf(n)
		}
		for _, s := range c.shards {
			if s.Owner == incarnation && a.Self != nil {
				a.Holds = append(a.Holds, clusterstatus.Held{Shard: s.ID, Epoch: s.Epoch})
			}
		}
		in.Answers = append(in.Answers, a)
	}
	c.history.Recall(&in)
	in.Moving = nil // A slow machine makes nothing of this critical.
	for i := range in.Answers {
		in.Answers[i].SilentSince = now.Add(-time.Second)
	}
	s := clusterstatus.Assess(&in)
	c.history.Record(s)
	s.Happenings = c.happenings
	return s, nil
}

// work adds what a busy cluster did since it was asked last.
func (c *cluster) work(now time.Time) {
	for i, n := range c.nodes {
		if _, ended := c.fates[n.Name]; ended {
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
	c := &cluster{fates: make(map[string]fate), shards: make([]persistence.Shard, 512)}
	for i, name := range []string{"node-a", "node-b", "node-c"} {
		c.nodes = append(c.nodes, &licensedv1.NodeStatus{
			Name: name, Incarnation: persistence.NewIncarnation().String(), Version: "v1.2.0",
			State:     licensedv1.NodeState_NODE_STATE_READY,
			Roles:     []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE, licensedv1.NodeRole_NODE_ROLE_GATEWAY},
			StartedAt: started, SeenAt: timestamppb.Now(), LowestEpoch: 3, HighestEpoch: uint64(5 + i),
			CommandsPerSecond: uint64(900 + 50*i),
			Lease: &licensedv1.LeaseStatus{
				Remaining: durationpb.New(9 * time.Second),
				Ttl:       durationpb.New(10 * time.Second),
			},
			ResidentCustomers: 41_200, UnpackedCustomers: 1_240, ResidentBytes: 61 << 20,
			RequestsWaiting: 14, RequestsInFlight: 22,
			MemoryBytes:      412 << 20,
			MemoryLimitBytes: 2 << 30,
			CpuTime:          durationpb.New(time.Hour),
			ClockOffset:      durationpb.New(3 * time.Millisecond),
			Activity: &licensedv1.NodeActivity{
				LatencyBoundsSeconds: []float64{.0005, .001, .005, .05}, LatencyCounts: make([]uint64, 5),
				Refusals: []*licensedv1.RuleCount{
					{Rule: licensedv1.Rule_RULE_DEVICE_LIMIT}, {Rule: licensedv1.Rule_RULE_STUDIO_LIMIT},
				},
			},
		})
	}
	for id := range c.shards {
		owner, _ := persistence.ParseIncarnation(c.nodes[(id+id/7)%3].Incarnation)
		c.shards[id] = persistence.Shard{ID: uint32(id), Epoch: uint64(3 + id%3), Owner: owner}
	}
	return c
}

// set changes what became of a node.
func (c *cluster) set(name string, f fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fates[name] = f
}

// incarnation returns that of a node.
func (c *cluster) incarnation(name string) persistence.Incarnation {
	for _, n := range c.nodes {
		if n.Name == name {
			i, _ := persistence.ParseIncarnation(n.Incarnation)
			return i
		}
	}
	return persistence.Incarnation{}
}

// move gives every shard of a node, or all but a few, to node-a: it holds some, and others are in transit to it.
func (c *cluster) move(name string, left int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to, from, all := c.incarnation("node-a"), c.incarnation(name), left == 0
	for i := range c.shards {
		s := &c.shards[i]
		switch {
		case s.Owner != from:
		case left > 0 && i%3 == 0:
			left--
		case left > 0 && i%3 == 1:
			s.Owner, s.Successor = persistence.Incarnation{}, to
			left--
		default:
			s.Owner, s.Epoch = to, s.Epoch+1
		}
	}
	for i := range c.shards {
		if s := &c.shards[i]; all && s.Successor == to && s.Owner.IsZero() {
			s.Owner, s.Successor, s.Epoch = to, persistence.Incarnation{}, s.Epoch+1
		}
	}
}

// tell adds what happened.
func (c *cluster) tell(kind licensedv1.HappeningKind, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happenings = append([]*licensedv1.Happening{{At: timestamppb.Now(), Kind: kind, Text: text}}, c.happenings...)
}

// serve starts a dashboard that shows a cluster.
func serve(t *testing.T, c dashboard.Cluster) string {
	t.Helper()
	d, err := dashboard.New(dashboard.Config{
		Cluster: c, Runbook: docs.Operations,
		Access: dashboard.NewAccess(dashboard.AccessConfig{Loopback: true, Now: time.Now}), Now: time.Now,
		NewID: func() string { return "id" }, Logger: slog.New(slog.DiscardHandler),
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
	p.says(".verdict", "All systems normal")
	p.wait("document.documentElement.dataset.samples >= 3")
	p.says("#map", "node-a has 17")
	p.says("[data-chart=latency] .legend", "median 0.6")
	p.look("cluster-three-nodes")
	p.eval(`(document.querySelector(".nodes tbody tr").dataset.mine = "kept", 1)`)

	// It does not answer: at once that is no longer normal.
	c.set("node-c", fate{at: time.Now()})
	p.says(".verdict", "Degraded: a node does not answer")
	p.says(".findings", "2 of 3 nodes running; node-c not responding since")
	p.says(".nodes tr.critical", "no status from node-c: timeout")
	p.says("#map", "171 are not confirmed")
	p.look("cluster-silent-node")

	c.set("node-c", fate{gone: true, at: time.Now().Add(-3 * time.Second)})
	c.tell(licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED, "node-c is not responding")
	c.move("node-c", 70)
	c.tell(licensedv1.HappeningKind_HAPPENING_KIND_TAKEN_OVER, "node-a took over 100 shards from node-c")
	p.says(".verdict", "Critical: some customers are not served")
	p.says(".findings", "of 512 shards are not served; last owner: node-c")
	p.says(".findings", "Runbook")
	p.says(".nodes tr.critical", "dead")
	p.says(".nodes tr.critical", "not responding since")
	p.says("#map", "not served")
	p.says(".happenings", "node-a took over 100 shards from node-c")
	p.wait(
		"document.querySelectorAll('rect.orphaned').length > 0 && document.querySelectorAll('rect.moving').length > 0",
	)
	if p.eval(`document.querySelector(".nodes tbody tr").dataset.mine`) == "kept" {
		t.Error("what the page added to a row stayed, so rows were not laid over one another")
	}
	p.look("cluster-killed-node")

	// All shards are served again, and the node is still missing.
	c.move("node-c", 0)
	p.says(".verdict", "Degraded: all customers are served")
	p.says("#map", "node-a has 342")
	p.look("cluster-taken-over")

	// Now nobody answers: the page reports it, and shows what it knew.
	c.mu.Lock()
	c.err = context.DeadlineExceeded
	c.mu.Unlock()
	p.says(".verdict.unknown", "Unknown: the last status is")
	p.says(".nodes", "node-b")
	p.look("cluster-silent")
}

// TestDrainedNode: what was planned leaves the page green.
func TestDrainedNode(t *testing.T) {
	c := threeNodes()
	c.move("node-c", 0)
	n := c.nodes[2]
	n.State, n.Lease.Remaining = licensedv1.NodeState_NODE_STATE_DRAINED, nil
	n.ResidentCustomers, n.ResidentBytes, n.CommandsPerSecond = 0, 0, 0
	n.UnpackedCustomers, n.LowestEpoch, n.HighestEpoch = 0, 0, 0
	c.set("node-c", fate{drained: true})
	c.tell(licensedv1.HappeningKind_HAPPENING_KIND_LEFT, "node-c handed over all shards")
	p := open(t, serve(t, c), wall)
	p.says(".verdict.good", "All systems normal")
	p.says(".nodes tr.idle", "drained")
	p.says("#map", "node-a has 342")
	p.look("cluster-drained-node")
}

// TestNoNodeLeft: no node is left at all, and the page leads to what to do about it.
func TestNoNodeLeft(t *testing.T) {
	c := threeNodes()
	for _, n := range c.nodes {
		c.set(n.Name, fate{gone: true, at: time.Now().Add(-90 * time.Second)})
		c.tell(licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED, n.Name+" is not responding")
	}
	for _, s := range []screen{wall, phone} {
		p := open(t, serve(t, c), s)
		p.says(".verdict.critical", "Critical: some customers are not served")
		p.says(".findings", "512 of 512 shards are not served")
		p.says(".findings", "0 of 3 nodes running")
		p.look("cluster-no-node-" + s.name)
		if s == phone {
			p.eval(`document.querySelector(".findings a").click()`)
			p.says(".runbook h3:target", "LicensedShardsNotServed")
			p.look("runbook")
		}
	}
}

// TestGatewayDies: the page of a gateway that ended does not stay green.
func TestGatewayDies(t *testing.T) {
	c := threeNodes()
	d, err := dashboard.New(dashboard.Config{
		Cluster: c,
		Access:  dashboard.NewAccess(dashboard.AccessConfig{Loopback: true, Now: time.Now}),
		Now:     time.Now,
		NewID:   func() string { return "id" },
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d.Handler())
	p := open(t, server.URL+"/dashboard/", wall)
	p.allow("ERR_CONNECTION_REFUSED")
	p.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")
	p.says(".verdict", "All systems normal")
	p.says("#connection", "Live")
	d.Close()
	server.CloseClientConnections()
	server.Close()
	p.says(".verdict.unknown", "Unknown: the last status is")
}

// TestOutOfSight: a page that nobody sees ends its stream, and continues when it is looked at again.
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
	p.says(".verdict", "Unknown: no status since this gateway started")
	p.says(".placeholder", "Waiting for the first status")
	p.look("cluster-nothing-yet")
	c.mu.Lock()
	c.err = nil
	c.mu.Unlock()
	p.says(".verdict", "All systems normal")
}
