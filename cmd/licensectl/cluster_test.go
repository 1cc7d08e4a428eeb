package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// aCluster is a service that says of its cluster what a test wants it to.
type aCluster struct {
	licensedv1connect.UnimplementedAdminServiceHandler

	mu      sync.Mutex
	reports []*licensedv1.ClusterStatus // one after the other; the last stays
	drained []string
	refuse  error
}

func (c *aCluster) GetCluster(
	context.Context, *connect.Request[licensedv1.GetClusterRequest],
) (*connect.Response[licensedv1.GetClusterResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reports) == 0 {
		return nil, c.refuse
	}
	now := c.reports[0]
	if len(c.reports) > 1 {
		c.reports = c.reports[1:]
	}
	return connect.NewResponse(&licensedv1.GetClusterResponse{Cluster: now}), nil
}

func (c *aCluster) DrainNode(
	_ context.Context, r *connect.Request[licensedv1.DrainNodeRequest],
) (*connect.Response[licensedv1.DrainNodeResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drained = append(c.drained, r.Msg.Name)
	return connect.NewResponse(&licensedv1.DrainNodeResponse{}), c.refuse
}

func (c *aCluster) UndrainNode(
	_ context.Context, r *connect.Request[licensedv1.UndrainNodeRequest],
) (*connect.Response[licensedv1.UndrainNodeResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drained = append(c.drained, r.Msg.Name)
	return connect.NewResponse(&licensedv1.UndrainNodeResponse{}), c.refuse
}

// run runs a command line against the service.
func (c *aCluster) run(t *testing.T, line string) (string, int) {
	_, handler := licensedv1connect.NewAdminServiceHandler(c)
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	var out bytes.Buffer
	p := &program{stdout: &out, stderr: &out, getenv: func(string) string { return "" }, now: time.Now,
		width: func() int { return 0 }}
	code := p.run(t.Context(), append(strings.Fields(line), "--server", server.Listener.Addr().String()))
	return out.String(), code
}

// troubled is a cluster in which something is wrong.
func troubled() *licensedv1.ClusterStatus {
	at := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	i1, i2 := "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
	node := []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}
	return &licensedv1.ClusterStatus{
		Name: "production", Reporter: "g1", Shards: 5, AsOf: timestamppb.New(at),
		Nodes: []*licensedv1.NodeStatus{
			{
				Name:    "g1",
				Roles:   []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_GATEWAY},
				State:   licensedv1.NodeState_NODE_STATE_READY,
				Version: "v1.2.0", ApiAddress: "10.0.0.9:8080", NodeAddress: "10.0.0.9:7947",
			},
			{
				Name:           "n1",
				Roles:          append(node, licensedv1.NodeRole_NODE_ROLE_GATEWAY),
				State:          licensedv1.NodeState_NODE_STATE_DRAINING,
				Version:        "v1.2.0",
				Incarnation:    i1,
				IncarnationAge: durationpb.New(3*time.Hour + 400*time.Millisecond),
				NodeAddress:    "10.0.0.1:7947",
				ApiAddress:     "10.0.0.1:8080",
				Lease:          &licensedv1.LeaseStatus{Remaining: durationpb.New(2140 * time.Millisecond)},
				ShardsOpen:     2, ShardsClosing: 1, ShardsMoving: 1, ResidentCustomers: 1234, CommandsPerSecond: 56,
			},
			{
				Name:        "n2",
				Roles:       node,
				State:       licensedv1.NodeState_NODE_STATE_DEAD,
				Version:     "v1.1.0",
				Incarnation: i2,
				NodeAddress: "10.0.0.2:7947", Reason: "no\x1b[31m status from n2: timeout",
			},
		},
		ShardMap: []*licensedv1.ShardStatus{
			{Id: 0, Epoch: 7, State: licensedv1.ShardState_SHARD_STATE_OPEN, Owner: i1},
			{Id: 1, Epoch: 12, State: licensedv1.ShardState_SHARD_STATE_MOVING, Successor: i1},
			{Id: 2, Epoch: 3, State: licensedv1.ShardState_SHARD_STATE_ORPHANED, Owner: i2},
			{
				Id:    3,
				Epoch: 4,
				State: licensedv1.ShardState_SHARD_STATE_ORPHANED,
				Owner: "33333333-0000-4000-8000-000000000000",
			},
		},
		Level:        licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL,
		Summary:      "3 of 5 shards are not served; last owner: n2 (1); 1 more finding",
		ShardsServed: 1, ShardsMoving: 1, ShardsUnserved: 3, NodesRunning: 1, NodesExpected: 2,
		Warnings: []*licensedv1.ClusterWarning{
			{
				Level:    licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL,
				Text:     "3 of 5 shards are not served; last owner: n2 (1)",
				Since:    timestamppb.New(at.Add(-50 * time.Second)),
				NextStep: "Start n2.",
				Runbook:  "licensedshardsnotserved",
			},
			{Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Text: "of another\x1b[31m release"},
		},
		Happenings: []*licensedv1.Happening{{At: timestamppb.New(at.Add(-time.Minute)), Text: "n2 not responding"}},
	}
}

// TestCluster: what an operator sees of each node, of the shards, and of what is wrong.
func TestCluster(t *testing.T) {
	for line, want := range map[string]string{
		"cluster": `
cluster production, 5 shards, as seen by g1 at 2026-03-01 20:00:00 UTC
CRITICAL: 3 of 5 shards are not served; last owner: n2 (1); 1 more finding

NAME  ROLES         STATE     INCARNATION     AGE  LEASE  SHARDS  MOVING  CUSTOMERS  COMMANDS/S  VERSION  ADDRESS
g1    gateway       ready     -                 -      -       -       -          -           -  v1.2.0   10.0.0.9:8080
n1    node+gateway  draining  11111111     3h0m0s   2.1s       3       1       1234          56  v1.2.0   10.0.0.1:8080
n2    node          dead      22222222          -      -       0       0          0           0  v1.1.0   10.0.0.2:7947

shards: 1 served, 1 moving, 3 not served
n2: no\u001b[31m status from n2: timeout

CRITICAL: 3 of 5 shards are not served; last owner: n2 (1)
  since: 2026-03-01 19:59:10 UTC
  next:  Start n2.
  see:   docs/guide/operations.md#licensedshardsnotserved

warning: of another\u001b[31m release

recent events:
  2026-03-01 19:59:00  n2 not responding
`,
		"cluster --shards": `
SHARD  EPOCH  STATE     OWNER                                 SUCCESSOR
    0      7  open      n1                                    -
    1     12  moving    -                                     n1
    2      3  orphaned  n2                                    -
    3      4  orphaned  33333333-0000-4000-8000-000000000000  -
`,
	} {
		c := &aCluster{reports: []*licensedv1.ClusterStatus{troubled()}}
		if out, code := c.run(t, line); "\n"+out != want || code != 0 {
			t.Errorf("%s: exit %d:\n%s", line, code, out)
		}
	}
}

// TestCheck: what a monitor gets, one line and an exit code.
func TestCheck(t *testing.T) {
	level := func(l licensedv1.ClusterLevel, summary string) *aCluster {
		s := troubled()
		s.Level, s.Summary = l, summary
		return &aCluster{reports: []*licensedv1.ClusterStatus{s}}
	}
	const about = "(cluster production, 1 of 2 nodes running, 1 of 5 shards served)\n"
	for name, test := range map[string]struct {
		c    *aCluster
		out  string
		code int
	}{
		"OK": {
			level(licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal"), "OK: All systems normal " + about, 0,
		},
		"degraded": {
			level(licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED, "n2\x1b is\nslow"),
			`DEGRADED: n2\u001b is\u000aslow ` + about,
			1,
		},
		"critical": {
			level(licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL, "n2 is dead"), "CRITICAL: n2 is dead " + about, 2,
		},
		"an older gateway": {
			level(licensedv1.ClusterLevel_CLUSTER_LEVEL_UNSPECIFIED, ""),
			"UNKNOWN: g1 is of a release that reports no level; read licensectl cluster\n", 3,
		},
		"refused": {&aCluster{refuse: connect.NewError(connect.CodeUnavailable, errors.New("starting"))},
			"UNKNOWN: no answer from ", 3},
	} {
		out, code := test.c.run(t, "cluster --check")
		if code != test.code || !strings.HasPrefix(out, test.out) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", name, code, out)
		}
		if name == "refused" {
			continue
		}
		if out, code := test.c.run(t, "cluster --check -o json"); code != test.code ||
			!strings.Contains(out, `"shardsServed"`) {
			t.Errorf("%s as JSON: exit %d: %s", name, code, out)
		}
	}
	var out bytes.Buffer
	p := &program{stdout: &out, stderr: &out, getenv: func(string) string { return "" }, now: time.Now,
		width: func() int { return 0 }}
	if code := p.run(t.Context(), []string{"cluster", "--check", "--server", "127.0.0.1:1"}); code != 3 ||
		!strings.HasPrefix(out.String(), "UNKNOWN: no answer from 127.0.0.1:1") {
		t.Errorf("no gateway: exit %d: %s", code, out.String())
	}
}

// TestNodesAreCompleted: a shell completes the names of nodes, not of gateways.
func TestNodesAreCompleted(t *testing.T) {
	for _, line := range []string{"drain", "undrain"} {
		c := &aCluster{reports: []*licensedv1.ClusterStatus{troubled()}}
		_, handler := licensedv1connect.NewAdminServiceHandler(c)
		server := httptest.NewUnstartedServer(handler)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		var out bytes.Buffer
		p := &program{
			stdout: &out, stderr: io.Discard, now: time.Now, width: func() int { return 0 }, completion: time.Minute,
			getenv: func(name string) string {
				return map[string]string{"LICENSED_SERVER": server.Listener.Addr().String()}[name]
			},
		}
		p.run(t.Context(), []string{"__complete", "cluster", line, ""})
		server.Close()
		if got := out.String(); !strings.HasPrefix(got, "n1\nn2\n:") {
			t.Errorf("%s: %q", line, got)
		}
	}
}

var errGateway = errors.New("g1 is a gateway")

// TestDrain: it waits until the node has no shards, and does not take for success that the node ended.
func TestDrain(t *testing.T) {
	n1 := func(state licensedv1.NodeState, open, closing, moving uint32) *licensedv1.ClusterStatus {
		return &licensedv1.ClusterStatus{Nodes: []*licensedv1.NodeStatus{
			{Name: "n0", State: licensedv1.NodeState_NODE_STATE_READY, ShardsOpen: 100},
			{Name: "n1", State: state, ShardsOpen: open, ShardsClosing: closing, ShardsMoving: moving,
				Reason: "it does not answer"},
		}}
	}
	const (
		ready, draining = licensedv1.NodeState_NODE_STATE_READY, licensedv1.NodeState_NODE_STATE_DRAINING
		left, dead      = licensedv1.NodeState_NODE_STATE_LEFT, licensedv1.NodeState_NODE_STATE_DEAD
		suspect         = licensedv1.NodeState_NODE_STATE_SUSPECT
		drained         = licensedv1.NodeState_NODE_STATE_DRAINED
	)
	for name, test := range map[string]struct {
		line    string
		reports []*licensedv1.ClusterStatus
		refuse  error
		says    string
		fails   bool
	}{
		"waits": {
			"cluster drain n1",
			[]*licensedv1.ClusterStatus{n1(ready, 0, 0, 0), n1(draining, 3, 1, 2), n1(draining, 0, 0, 0)},
			nil,
			"n1 holds no customers any more\n",
			false,
		},
		"it left": {
			"cluster drain n1", []*licensedv1.ClusterStatus{n1(draining, 3, 0, 0), n1(left, 0, 0, 0)}, nil,
			"n1 holds no customers any more\n", false,
		},
		"it died": {
			"cluster drain n1",
			[]*licensedv1.ClusterStatus{n1(draining, 3, 0, 0), n1(suspect, 0, 0, 0), n1(dead, 0, 0, 0)},
			nil,
			"n1 ended before it had handed over all its shards: it does not answer",
			true,
		},
		"too long": {"cluster drain n1 --wait 1ms", []*licensedv1.ClusterStatus{n1(draining, 2, 1, 3)},
			nil, "n1 still holds", true},
		"nobody waits": {"cluster drain n1 --wait 0", []*licensedv1.ClusterStatus{n1(ready, 9, 0, 0)},
			nil, "n1 began to hand its customers over\n", false},
		"JSON": {
			"cluster drain n1 -o json", []*licensedv1.ClusterStatus{n1(draining, 0, 0, 0)}, nil,
			"{\n  \"done\": true,\n  \"node\": \"n1\"\n}\n", false,
		},
		"undrain waits": {"cluster undrain n1", []*licensedv1.ClusterStatus{
			n1(draining, 3, 1, 2), n1(drained, 0, 0, 0), n1(suspect, 0, 0, 0), n1(ready, 0, 0, 0),
		}, nil, "n1 takes customers again\n", false},
		"undrain takes too long": {
			"cluster undrain n1 --wait 1ms", []*licensedv1.ClusterStatus{n1(drained, 0, 0, 0)}, nil,
			"n1 is still drained after 1ms", true,
		},
		"undrain, and nobody waits": {"cluster undrain n1 --wait 0", []*licensedv1.ClusterStatus{n1(drained, 0, 0, 0)},
			nil, "n1 was told to take customers again\n", false},
		"undrain of a gateway": {"cluster undrain n1", []*licensedv1.ClusterStatus{n1(ready, 0, 0, 0)},
			connect.NewError(connect.CodeFailedPrecondition, errGateway), errGateway.Error(), true},
		"it is drained": {
			"cluster drain n1", []*licensedv1.ClusterStatus{n1(draining, 3, 0, 0), n1(drained, 0, 0, 0)}, nil,
			"n1 holds no customers any more\n", false,
		},
		"it is a gateway": {
			"cluster drain n1", []*licensedv1.ClusterStatus{n1(ready, 0, 0, 0)},
			connect.NewError(connect.CodeFailedPrecondition, errGateway), errGateway.Error(), true,
		},
	} {
		c := &aCluster{reports: test.reports, refuse: test.refuse}
		out, code := c.run(t, test.line)
		if !strings.Contains(out, test.says) || (code != 0) != test.fails {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
		if len(c.drained) != 1 || c.drained[0] != "n1" {
			t.Errorf("%s: %q were drained", name, c.drained)
		}
	}
}
