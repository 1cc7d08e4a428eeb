package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/cluster/membership"
	"licensed/cluster/routing"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

func TestShardMap(t *testing.T) {
	here, gone := persistence.NewIncarnation(), persistence.NewIncarnation()
	present := map[string]bool{here.String(): true}
	rows := []persistence.Shard{
		{ID: 0, Epoch: 3, Owner: here}, {ID: 1, Epoch: 3, Owner: gone}, {ID: 2, Epoch: 4, Successor: here},
		{ID: 3, Epoch: 4, Successor: gone}, {ID: 4, Epoch: 5}, {ID: 5},
	}
	// A member knows better about shard 1, worse about shard 0, and speaks of one that there is not.
	mergeRows(rows, []*clusterv1.Shard{
		{Id: 1, Epoch: 4, Owner: here[:]}, {Id: 0, Epoch: 2, Owner: gone[:]}, {Id: 99, Epoch: 9, Owner: here[:]}, {Id: 4, Epoch: 9, Owner: []byte("short")},
	})
	var got []string
	for _, s := range shardMap(rows, present) {
		got = append(got, fmt.Sprintf("%d@%d %v", s.Id, s.Epoch, s.State))
	}
	want := []string{
		"0@3 SHARD_STATE_OPEN", "1@4 SHARD_STATE_OPEN", "2@4 SHARD_STATE_MOVING", "3@4 SHARD_STATE_ORPHANED", "4@5 SHARD_STATE_ORPHANED",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestClusterWarnings(t *testing.T) {
	nodes := func(versions ...string) (out []*licensedv1.NodeStatus) {
		for _, v := range versions {
			out = append(out, &licensedv1.NodeStatus{Version: v, Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}, State: licensedv1.NodeState_NODE_STATE_READY})
		}
		return out
	}
	served := []*licensedv1.ShardStatus{{State: licensedv1.ShardState_SHARD_STATE_OPEN}}
	left := &licensedv1.NodeStatus{Version: "old", State: licensedv1.NodeState_NODE_STATE_LEFT, Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}}
	for name, test := range map[string]struct {
		status *licensedv1.ClusterStatus
		says   []string
	}{
		"well":     {&licensedv1.ClusterStatus{Shards: 1, ShardMap: served, Nodes: append(nodes("v1", "v1"), left)}, nil},
		"orphans":  {&licensedv1.ClusterStatus{Shards: 3, ShardMap: served, Nodes: nodes("v1", "v1")}, []string{"2 of 3 shards"}},
		"one node": {&licensedv1.ClusterStatus{Shards: 1, ShardMap: served, Nodes: append(nodes("v1"), left)}, []string{"one node only"}},
		"no node":  {&licensedv1.ClusterStatus{Shards: 1, ShardMap: served}, []string{"no node"}},
		"upgrade":  {&licensedv1.ClusterStatus{Shards: 1, ShardMap: served, Nodes: nodes("v1", "v2")}, []string{"2 versions"}},
	} {
		got := clusterWarnings(test.status)
		if len(got) != len(test.says) {
			t.Errorf("%s: %v, want %q", name, got, test.says)
			continue
		}
		for i, w := range got {
			if !strings.Contains(w.Text, test.says[i]) {
				t.Errorf("%s: %q does not say %q", name, w.Text, test.says[i])
			}
		}
	}
}

// TestStatusOfOthers: a member that does not answer, and one of a release that says it in other words.
func TestStatusOfOthers(t *testing.T) {
	i := persistence.NewIncarnation()
	n := &Node{config: Config{Now: time.Now}}
	m := membership.Member{Name: "n1", Meta: &clusterv1.Meta{
		Incarnation: i[:], NodeAddress: "10.0.0.1:7947", Version: "v9", Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE},
	}}
	silent := n.statusOf(&routing.Status{Member: m, Err: fmt.Errorf("no answer")})
	if silent.State != licensedv1.NodeState_NODE_STATE_SUSPECT || !strings.Contains(silent.Reason, "no answer") || len(silent.Warnings) != 1 ||
		silent.Incarnation != i.String() || silent.Roles[0] != licensedv1.NodeRole_NODE_ROLE_NODE {
		t.Errorf("%v", silent)
	}
	for _, self := range []*clusterv1.Payload{nil, {Type: "licensed.v2.NodeStatus"}, {Type: "licensed.v1.NodeStatus", Data: []byte{0xff}}} {
		strange := n.statusOf(&routing.Status{Member: m, Response: &clusterv1.StatusResponse{ShardsOpen: 5, LeaseMicros: 2e6, Resident: 3, Self: self}})
		if strange.State != licensedv1.NodeState_NODE_STATE_READY || strange.ShardsOpen != 5 || strange.Lease.Remaining.AsDuration() != 2*time.Second || strange.ResidentCustomers != 3 {
			t.Errorf("%v: %v", self, strange)
		}
	}
}

// TestHappeningsOfAll: what members tell of themselves is in one list, and nothing twice.
func TestHappeningsOfAll(t *testing.T) {
	var n1, n2 happenings
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	n1.add(at(1), &licensedv1.Happening{Node: "n1", Text: "n1 is ready"})
	n1.add(at(4), &licensedv1.Happening{Node: "n3", Text: "n3 does not answer"})
	n2.add(at(2), &licensedv1.Happening{Node: "n2", Text: "n2 is ready"})
	n2.add(at(5), &licensedv1.Happening{Node: "n3", Text: "n3 does not answer"})
	n2.add(at(6), &licensedv1.Happening{Node: "n2", Text: "n2 took 7 shards over from n3"})
	var got []string
	for _, h := range mergeHappenings(n1.newestFirst(), firstHand("n2", n2.newestFirst())) {
		got = append(got, h.Text)
	}
	if want := []string{"n2 took 7 shards over from n3", "n3 does not answer", "n2 is ready", "n1 is ready"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range int64(2 * keptHappenings) {
		n2.add(at(10+i), &licensedv1.Happening{Node: "n2"})
	}
	if told := firstHand("n2", n2.newestFirst()); len(told) != toldHappenings || told[0].At.AsTime().Before(told[1].At.AsTime()) {
		t.Errorf("%d are told, the newest at %v", len(told), told[0].At.AsTime())
	}
	if all := mergeHappenings(n1.newestFirst(), n2.newestFirst()); len(all) != keptHappenings {
		t.Errorf("%d in all", len(all))
	}
}

// TestHappeningsAreCounted: shards that move alike are one happening.
func TestHappeningsAreCounted(t *testing.T) {
	var h happenings
	now := time.Unix(1000, 0)
	released := func(at time.Time, shard uint32, to string) {
		h.count(at, &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_RELEASED, OtherNode: to, Shard: proto.Uint32(shard),
		}, func(w *licensedv1.Happening) string { return fmt.Sprintf("%d to %s", w.Shards, w.OtherNode) })
	}
	released(now, 1, "n2")
	released(now.Add(time.Second), 2, "n3")
	released(now.Add(2*time.Second), 3, "n2")
	released(now.Add(time.Minute), 4, "n2")
	var got []string
	for _, w := range h.newestFirst() {
		got = append(got, w.Text)
		if (w.Shard == nil) != (w.Shards > 1) {
			t.Errorf("%v names one shard of several", w)
		}
	}
	if want := []string{"1 to n2", "1 to n3", "2 to n2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 3 * keptHappenings {
		h.add(now, &licensedv1.Happening{Text: fmt.Sprint(i)})
	}
	if all := h.newestFirst(); len(all) != keptHappenings || all[0].Text != fmt.Sprint(3*keptHappenings-1) {
		t.Errorf("%d are kept, the newest is %v", len(all), all[0])
	}
}

// TestEarlyQuestions: others can reach a process before it has joined them. How it does it cannot say yet.
func TestEarlyQuestions(t *testing.T) {
	m := &member{n: &Node{config: Config{Now: time.Now}, shards: unowned(1)}, joined: make(chan struct{})}
	if s, err := m.Status(t.Context()); !errors.Is(err, errNotStarted) {
		t.Errorf("%v, %v", s, err)
	}
	if err := m.Drain(t.Context()); !errors.Is(err, errNoNode) {
		t.Errorf("a gateway drains: %v", err)
	}
}

// TestMost: parts that do not end, be they several, leave those who are stopped after them some of the drain timeout.
func TestMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		for _, left := range []time.Duration{10 * time.Second, 2500 * time.Millisecond} {
			err := most(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("%v, and then there is no time left: %v", err, ctx.Err())
			}
			if end, _ := ctx.Deadline(); time.Until(end) != left {
				t.Errorf("%v left, want %v", time.Until(end), left)
			}
		}
	})
}

// TestNamesAreBounded: a member that gets an incarnation after the other is not remembered by all of them, and still by its last.
func TestNamesAreBounded(t *testing.T) {
	n := &Node{config: Config{Now: time.Now}}
	var last persistence.Incarnation
	for range 3 * keptNames {
		last = persistence.NewIncarnation()
		n.notice([]membership.Member{{Name: "n1", Meta: &clusterv1.Meta{Incarnation: last[:]}}})
	}
	if got := n.nameOf(last); got != "n1" {
		t.Errorf("the last one is %q", got)
	}
	if kept := len(n.acquaintances.names); kept != keptNames || len(n.acquaintances.order) != kept {
		t.Errorf("%d are kept", kept)
	}
}

// TestNodesOf: who may be given shards, and how many.
func TestNodesOf(t *testing.T) {
	i := persistence.NewIncarnation()
	meta := func(change func(*clusterv1.Meta)) *clusterv1.Meta {
		m := &clusterv1.Meta{Incarnation: i[:], Capacity: 3}
		change(m)
		return m
	}
	all := []membership.Member{
		{Name: "n1", Meta: meta(func(*clusterv1.Meta) {})},
		{Name: "draining", Meta: meta(func(m *clusterv1.Meta) { m.Draining = true })},
		{Name: "clock", Meta: meta(func(m *clusterv1.Meta) { m.ClockWrong = true })},
		{Name: "gateway", Meta: &clusterv1.Meta{}},
		{Name: "self", Meta: &clusterv1.Meta{Capacity: 2}},
		{Name: "strange", Meta: &clusterv1.Meta{Incarnation: []byte("short")}},
	}
	for draining, want := range map[bool]string{
		false: "n1 3 true, draining 3 false, clock 3 false, self 2 true, ",
		true:  "n1 3 true, draining 3 false, clock 3 false, self 2 false, ",
	} {
		var got strings.Builder
		for _, m := range nodesOf(all, "self", draining) {
			fmt.Fprintf(&got, "%s %v %t, ", m.Name, m.Capacity, m.Eligible)
		}
		if got.String() != want {
			t.Errorf("draining %t: %q, want %q", draining, got.String(), want)
		}
	}
}
