package clusterstatus

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/persistence"
)

var (
	now         = time.Date(2026, 3, 1, 10, 20, 50, 0, time.UTC)
	nodeRole    = []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}
	gatewayRole = []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_GATEWAY}
)

// i returns the incarnation of a node by its number.
func i(n int) persistence.Incarnation { return persistence.Incarnation{0: 0xaa, 15: byte(n)} }

// three is a cluster of three nodes and a gateway. The nodes share 12 shards at epoch 5.
func three() *Input {
	in := &Input{Name: "test", Reporter: "g1", Now: now, Shards: 12}
	for n := 1; n <= 3; n++ {
		in.Answers = append(in.Answers, nodeAnswer(n))
	}
	g := &licensedv1.NodeStatus{
		Name: "g1", Roles: gatewayRole, Version: "v1", State: licensedv1.NodeState_NODE_STATE_READY,
	}
	in.Answers = append(in.Answers, Answer{Listed: g, Self: g})
	for id := range in.Shards {
		n := int(id%3) + 1
		in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: 5, Owner: i(n)})
		in.Answers[n-1].Holds = append(in.Answers[n-1].Holds, Held{id, 5})
	}
	return in
}

func nodeAnswer(n int) Answer {
	s := func() *licensedv1.NodeStatus {
		return &licensedv1.NodeStatus{
			Name:        fmt.Sprint("n", n),
			Incarnation: i(n).String(),
			Roles:       nodeRole,
			Version:     "v1",
			State:       licensedv1.NodeState_NODE_STATE_READY,
		}
	}
	self := s()
	self.Lease = &licensedv1.LeaseStatus{Remaining: durationpb.New(2 * time.Second)}
	self.StartedAt = timestamppb.New(now.Add(-3 * time.Hour))
	return Answer{Listed: s(), Self: self, Incarnation: i(n)}
}

// silent makes a member give no answer since some time ago.
func (in *Input) silent(k int, ago time.Duration) {
	a := &in.Answers[k]
	a.Self, a.Holds, a.Cause, a.SilentSince = nil, nil, "timeout", in.Now.Add(-ago)
}

// gone makes a member disappear.
func (in *Input) gone(k int, ago time.Duration, draining bool) {
	a := in.Answers[k]
	if draining {
		a.Listed.State = licensedv1.NodeState_NODE_STATE_DRAINING
	}
	in.Departed = append(in.Departed, Departure{Last: a.Listed, Incarnation: a.Incarnation, At: in.Now.Add(-ago)})
	in.Answers = slices.Delete(in.Answers, k, k+1)
}

// take has a node hold the shards of another, one epoch later.
func (in *Input) take(to, from int) {
	for k := range in.Rows {
		if in.Rows[k].Owner == i(from) {
			in.Rows[k].Owner, in.Rows[k].Epoch = i(to), in.Rows[k].Epoch+1
			in.Answers[to-1].Holds = append(in.Answers[to-1].Holds, Held{in.Rows[k].ID, in.Rows[k].Epoch})
		}
	}
	in.Answers[from-1].Holds = nil
}

// leaveLast has a node hand all its shards over to another and leave. The last one, shard 0, it has just released.
func (in *Input) leaveLast(from, to int) {
	in.take(to, from)
	in.gone(from-1, 0, true)
	in.Rows[0].Owner, in.Rows[0].Epoch = i(from), 5
	in.Rows = append(in.Rows, persistence.Shard{ID: 0, Epoch: 5, Successor: i(to)})
	for k := range in.Answers {
		in.Answers[k].Holds = slices.DeleteFunc(in.Answers[k].Holds, func(h Held) bool { return h.Shard == 0 })
	}
}

// drainTwo drains n1 and n2 at once. n1 has released shard 0 to n2, which claims nothing any more.
func (in *Input) drainTwo() {
	in.take(3, 1)
	in.take(3, 2)
	for k := range 2 {
		in.Answers[k].Self.State, in.Answers[k].Self.Lease.Remaining = licensedv1.NodeState_NODE_STATE_DRAINED, nil
	}
	in.Rows[0] = persistence.Shard{ID: 0, Epoch: 5, Successor: i(2)}
	in.Answers[2].Holds = slices.DeleteFunc(in.Answers[2].Holds, func(h Held) bool { return h.Shard == 0 })
}

const (
	ok       = licensedv1.ClusterLevel_CLUSTER_LEVEL_OK
	degraded = licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED
	critical = licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL
)

// TestStatus: what is said of the situations that operators meet.
func TestStatus(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Input)
		level  licensedv1.ClusterLevel
		counts string // served, moving, unserved, unconfirmed; running of expected nodes
		says   []string
	}{
		"all is normal": {func(*Input) {}, ok, "12 0 0 0, 3 of 3", nil},
		"a node does not answer, for the first time": {func(in *Input) { in.silent(0, 0) }, degraded, "8 0 0 4, 2 of 3",
			[]string{
				"4 of 12 shards are not confirmed as served; last owner: n1 (4)",
				"2 of 3 nodes running; n1 not responding since 10:20:50 UTC (no status from n1: timeout)",
			}},
		"a node is silent for longer than shards may be": {func(in *Input) { in.silent(0, 11*time.Second) }, critical,
			"8 0 4 0, 2 of 3", []string{
				"4 of 12 shards are not served; last owner: n1 (4)",
				"2 of 3 nodes running; n1 not responding since 10:20:39 UTC",
			}},
		"a node disappeared": {func(in *Input) { in.gone(0, 5*time.Second, false) }, critical, "8 0 4 0, 2 of 3",
			[]string{
				"4 of 12 shards are not served; last owner: n1 (4)",
				"2 of 3 nodes running; n1 not responding since 10:20:45 UTC",
			}},
		"others took over": {func(in *Input) { in.take(2, 1); in.gone(0, 5*time.Second, false) }, degraded,
			"12 0 0 0, 2 of 3", []string{
				"2 of 3 nodes running; n1 not responding since 10:20:45 UTC",
			}},
		"yesterday": {func(in *Input) { in.take(2, 1); in.gone(0, 12*time.Hour, false) }, degraded, "12 0 0 0, 2 of 3",
			[]string{
				"n1 not responding since 2026-02-28 22:20:50 UTC",
			}},
		"it is restarted": {func(in *Input) {
			in.take(2, 1)
			in.gone(0, time.Minute, false)
			back := nodeAnswer(1)
			back.Incarnation = i(9)
			in.Answers = append(in.Answers, back)
		}, ok, "12 0 0 0, 3 of 3", nil},
		"a node left as requested": {
			func(in *Input) { in.take(2, 1); in.gone(0, time.Minute, true) }, ok, "12 0 0 0, 2 of 2", nil,
		},
		"a node leaves, and does not answer any more": {func(in *Input) {
			in.take(2, 1)
			in.silent(0, 0)
			in.Answers[0].Listed.State = licensedv1.NodeState_NODE_STATE_DRAINING
		}, ok, "12 0 0 0, 2 of 2", nil},
		"a node was killed while it drained": {func(in *Input) { in.gone(0, time.Second, true) }, critical,
			"8 0 4 0, 2 of 3", []string{
				"4 of 12 shards are not served", "n1 not responding since 10:20:49 UTC",
			}},
		"a node drains": {func(in *Input) {
			in.Answers[0].Self.State = licensedv1.NodeState_NODE_STATE_DRAINING
			in.Answers[0].Holds = in.Answers[0].Holds[1:]
			in.Rows[0].Owner, in.Rows[0].Successor = persistence.Incarnation{}, i(2)
		}, ok, "11 1 0 0, 2 of 2", nil},
		"a node was drained and is up": {func(in *Input) {
			in.take(2, 1)
			a := &in.Answers[0]
			a.Self.State, a.Self.Lease.Remaining = licensedv1.NodeState_NODE_STATE_DRAINED, nil
		}, ok, "12 0 0 0, 2 of 2", nil},
		"all but one are drained": {func(in *Input) {
			in.take(3, 1)
			in.take(3, 2)
			in.gone(0, time.Minute, true)
			in.gone(0, time.Minute, true)
		}, degraded, "12 0 0 0, 1 of 1", []string{"One node is running"}},
		"a member knows only rows of an earlier time": {func(in *Input) {
			for id := range in.Shards {
				in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: 4})
			}
		}, ok, "12 0 0 0, 3 of 3", nil},
		"a member knows a later owner, whose answer is older": {func(in *Input) {
			in.Rows = append(in.Rows, persistence.Shard{ID: 0, Epoch: 6, Owner: i(2)})
		}, ok, "11 1 0 0, 3 of 3", nil},
		"that owner still does not hold it": {func(in *Input) {
			in.Rows = append(in.Rows, persistence.Shard{ID: 0, Epoch: 6, Owner: i(2)})
			in.Moving = map[uint32]Moving{0: {6, now.Add(-Stuck)}}
		}, critical, "11 0 1 0, 3 of 3", []string{"1 of 12 shards is not served; last owner: n2 (1)"}},
		"a shard moved twice": {func(in *Input) {
			in.Rows = append(in.Rows, persistence.Shard{ID: 0, Epoch: 6, Owner: i(2)})
			in.Moving = map[uint32]Moving{0: {5, now.Add(-time.Hour)}}
		}, ok, "11 1 0 0, 3 of 3", nil},
		"forged rows release shards that are held": {func(in *Input) {
			for id := range in.Shards {
				in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: 5, Successor: i(9)})
			}
		}, ok, "12 0 0 0, 3 of 3", nil},
		"forged rows release shards of a dead node to a stranger": {func(in *Input) {
			in.gone(0, 5*time.Second, false)
			for id := range in.Shards {
				in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: 5, Successor: i(9)})
			}
		}, degraded, "8 4 0 0, 2 of 3", []string{"2 of 3 nodes running; n1 not responding since 10:20:45 UTC"}},
		"forged rows still release them": {func(in *Input) {
			in.gone(0, 5*time.Second, false)
			in.Moving = map[uint32]Moving{}
			for id := range in.Shards {
				in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: 5, Successor: i(9)})
				in.Moving[id] = Moving{5, now.Add(-Stuck)}
			}
		}, critical, "8 0 4 0, 2 of 3", []string{
			"4 of 12 shards are not served", "2 of 3 nodes running; n1 not responding since 10:20:45 UTC",
		}},
		"two nodes drain, and one released shards to the other": {func(in *Input) {
			in.drainTwo()
		}, degraded, "11 1 0 0, 1 of 1", []string{"One node is running"}},
		"the other has left": {func(in *Input) {
			in.drainTwo()
			in.gone(1, 0, true)
		}, degraded, "11 1 0 0, 1 of 1", []string{"One node is running"}},
		"the other has another incarnation": {func(in *Input) {
			in.drainTwo()
			in.Answers[1] = nodeAnswer(2)
			in.Answers[1].Incarnation = i(9)
		}, ok, "11 1 0 0, 2 of 2", nil},
		"the third still does not take them": {func(in *Input) {
			in.drainTwo()
			in.Moving = map[uint32]Moving{0: {5, now.Add(-Stuck)}}
		}, critical, "11 0 1 0, 1 of 1", []string{
			"1 of 12 shards is not served; last owner: n2 (1)", "One node is running",
		}},
		"the third does not answer": {func(in *Input) {
			in.drainTwo()
			in.silent(2, 0)
		}, critical, "0 0 1 11, 0 of 1", []string{
			"1 of 12 shards is not served; last owner: n2 (1)", "11 of 12 shards are not confirmed as served", "0 of 1",
		}},
		"a node released its last shard and left": {func(in *Input) {
			in.leaveLast(1, 2)
		}, ok, "11 1 0 0, 2 of 2", nil},
		"its successor still does not hold it": {func(in *Input) {
			in.leaveLast(1, 2)
			in.Moving = map[uint32]Moving{0: {5, now.Add(-Stuck)}}
		}, critical, "11 0 1 0, 2 of 2", []string{"1 of 12 shards is not served; last owner: n2 (1)"}},
		"the owner is of a former run": {func(in *Input) {
			in.Rows = append(in.Rows, persistence.Shard{ID: 0, Epoch: 6, Owner: i(9)})
		}, critical, "11 0 1 0, 3 of 3", []string{"1 of 12 shards is not served"}},
		"no node is left": {func(in *Input) {
			for range 3 {
				in.gone(0, 5*time.Second, false)
			}
		}, critical, "0 0 12 0, 0 of 3", []string{
			"12 of 12 shards are not served; last owner: n1 (4), n2 (4), n3 (4)",
			"0 of 3 nodes running; not responding: n1 since 10:20:45 UTC, n2 since 10:20:45 UTC, n3 since 10:20:45 UTC",
		}},
		"there was never a node": {func(in *Input) {
			in.Answers = in.Answers[3:]
			in.Rows = nil
		}, critical, "0 0 12 0, 0 of 0", []string{
			"12 of 12 shards are not served", "No node is running",
		}},
		"a node has no lease": {func(in *Input) {
			in.Answers[0].Self.Lease.Remaining, in.Answers[0].Self.State = nil, licensedv1.NodeState_NODE_STATE_SUSPECT
		}, critical, "8 0 4 0, 2 of 3",
			[]string{"4 of 12 shards are not served", "n1 has no lease and serves no customers"}},
		"a node says that it failed, and others serve": {func(in *Input) {
			in.take(2, 1)
			a := &in.Answers[0]
			a.Self.State, a.Self.Reason = licensedv1.NodeState_NODE_STATE_FAILED, "disk"
			a.Self.Warnings = []*licensedv1.ClusterWarning{
				{Level: licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, Text: "n1 is lost"},
			}
		}, degraded, "12 0 0 0, 2 of 3", []string{"n1 cannot serve: disk", "n1 is lost"}},
		"a gateway disappeared": {func(in *Input) {
			in.Departed = append(in.Departed, Departure{At: now.Add(-time.Minute), Last: &licensedv1.NodeStatus{
				Name: "g2", Roles: gatewayRole, State: licensedv1.NodeState_NODE_STATE_READY,
			}})
		}, degraded, "12 0 0 0, 3 of 3", []string{"Gateway g2 not responding since 10:19:50 UTC"}},
		"a gateway stopped": {func(in *Input) {
			in.Departed = append(in.Departed, Departure{At: now.Add(-time.Minute), Last: &licensedv1.NodeStatus{
				Name: "g2", Roles: gatewayRole, State: licensedv1.NodeState_NODE_STATE_DRAINING,
			}})
		}, ok, "12 0 0 0, 3 of 3", nil},
		"an upgrade is under way": {func(in *Input) {
			in.Answers[0].Self.Version, in.Answers[0].Self.StartedAt = "v2", timestamppb.New(now.Add(-50*time.Minute))
		}, ok, "12 0 0 0, 3 of 3", nil},
		"an upgrade was not finished": {func(in *Input) {
			in.Answers[0].Self.Version, in.Answers[0].Self.StartedAt = "v2", timestamppb.New(now.Add(-2*time.Hour))
		}, degraded, "12 0 0 0, 3 of 3", []string{"Members have run 2 versions for more than an hour"}},
		"a process with its own store": {func(in *Input) {
			self := &licensedv1.NodeStatus{Name: "vm", Roles: nodeRole, State: licensedv1.NodeState_NODE_STATE_READY}
			in.Alone, in.Rows, in.Answers = true, nil, []Answer{{Listed: self, Self: self, Incarnation: i(1)}}
			for id := range in.Shards {
				in.Answers[0].Holds = append(in.Answers[0].Holds, Held{id, 1})
			}
		}, ok, "12 0 0 0, 1 of 1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := three()
			test.change(in)
			s := Assess(in)
			wantConsistent(t, s)
			counts := fmt.Sprintf("%d %d %d %d, %d of %d",
				s.ShardsServed, s.ShardsMoving, s.ShardsUnserved, s.ShardsUnconfirmed, s.NodesRunning, s.NodesExpected)
			if s.Level != test.level || counts != test.counts {
				t.Errorf("%v %s, want %v %s", s.Level, counts, test.level, test.counts)
			}
			var got []string
			for _, w := range s.Warnings {
				got = append(got, w.Text)
			}
			if len(got) != len(test.says) {
				t.Fatalf("%q, want %q", got, test.says)
			}
			for k, want := range test.says {
				if !strings.Contains(got[k], want) {
					t.Errorf("finding %d is %q, want %q", k, got[k], want)
				}
			}
		})
	}
}

var number = regexp.MustCompile(`\d+`)

// wantConsistent checks that nothing in a status contradicts the map in it.
func wantConsistent(t *testing.T, s *licensedv1.ClusterStatus) {
	t.Helper()
	states := make(map[licensedv1.ShardState]uint32)
	served := make(map[string]uint32)
	for k, shard := range s.ShardMap {
		if k > 0 && shard.Id <= s.ShardMap[k-1].Id {
			t.Errorf("shard %d after shard %d", shard.Id, s.ShardMap[k-1].Id)
		}
		states[shard.State]++
		if shard.State == licensedv1.ShardState_SHARD_STATE_OPEN {
			served[shard.Owner]++
		}
	}
	states[licensedv1.ShardState_SHARD_STATE_ORPHANED] += s.Shards - uint32(len(s.ShardMap))
	if states[licensedv1.ShardState_SHARD_STATE_OPEN] != s.ShardsServed ||
		states[licensedv1.ShardState_SHARD_STATE_MOVING] != s.ShardsMoving ||
		states[licensedv1.ShardState_SHARD_STATE_ORPHANED] != s.ShardsUnserved ||
		states[licensedv1.ShardState_SHARD_STATE_UNCONFIRMED] != s.ShardsUnconfirmed ||
		s.ShardsServed+s.ShardsMoving+s.ShardsUnserved+s.ShardsUnconfirmed != s.Shards {
		t.Errorf("%v in the map; %d served, %d moving, %d unserved, %d unconfirmed of %d", states,
			s.ShardsServed, s.ShardsMoving, s.ShardsUnserved, s.ShardsUnconfirmed, s.Shards)
	}
	wantConsistentNodes(t, s, served)
	wantConsistentFindings(t, s)
}

// wantConsistentNodes checks the nodes of a status against the shards that each serves by the map.
func wantConsistentNodes(t *testing.T, s *licensedv1.ClusterStatus, served map[string]uint32) {
	t.Helper()
	for _, n := range s.Nodes {
		answers := true
		switch n.State {
		case licensedv1.NodeState_NODE_STATE_DEAD, licensedv1.NodeState_NODE_STATE_LEFT:
			answers = false
		case licensedv1.NodeState_NODE_STATE_SUSPECT:
			answers = n.Lease != nil
		}
		if held := n.ShardsOpen + n.ShardsClosing; answers && n.Incarnation != "" && held != served[n.Incarnation] ||
			!answers && held > 0 {
			t.Errorf("%s (%v) has %d shards, the map says %d", n.Name, n.State, held, served[n.Incarnation])
		}
		if !answers && served[n.Incarnation] > 0 {
			t.Errorf("%s did not answer and serves %d shards", n.Name, served[n.Incarnation])
		}
		missing := n.State == licensedv1.NodeState_NODE_STATE_DEAD || n.State == licensedv1.NodeState_NODE_STATE_SUSPECT
		if missing && s.Level == ok {
			t.Errorf("%s is %v and the status is OK", n.Name, n.State)
		}
	}
	if s.NodesRunning > s.NodesExpected || s.NodesRunning < s.NodesExpected && s.Level == ok {
		t.Errorf("%d of %d nodes run, and the status is %v", s.NodesRunning, s.NodesExpected, s.Level)
	}
}

// wantConsistentFindings checks the level, and that what findings say of shards is what the map says.
func wantConsistentFindings(t *testing.T, s *licensedv1.ClusterStatus) {
	t.Helper()
	worst := ok
	for _, w := range s.Warnings {
		if worst = max(worst, degraded); w.Level == licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL {
			worst = critical
		}
		var n uint32
		switch w.Kind {
		case licensedv1.FindingKind_FINDING_KIND_SHARDS_UNSERVED:
			n = s.ShardsUnserved
		case licensedv1.FindingKind_FINDING_KIND_SHARDS_UNCONFIRMED:
			n = s.ShardsUnconfirmed
		default:
			if strings.Contains(w.Text, "shards") {
				t.Errorf("%q speaks of shards", w.Text)
			}
			continue
		}
		if got := number.FindAllString(w.Text, 2); !slices.Equal(got, []string{fmt.Sprint(n), fmt.Sprint(s.Shards)}) ||
			n == 0 {
			t.Errorf("%q, and the map has %d of %d", w.Text, n, s.Shards)
		}
	}
	if worst != s.Level || (s.Level == critical) != (s.ShardsUnserved > 0) || s.Level == ok && s.ShardsUnconfirmed > 0 {
		t.Errorf("level %v, findings %v, %d shards unserved, %d unconfirmed",
			s.Level, worst, s.ShardsUnserved, s.ShardsUnconfirmed)
	}
	if (s.Summary == AllNormal) != (s.Level == ok) || s.Summary == "" {
		t.Errorf("%q at %v", s.Summary, s.Level)
	}
}

// TestNoFindingContradictsTheMap: whatever members answer, believe, and hear, in whatever order. Releases that were
// only heard stop no shard from being served.
func TestNoFindingContradictsTheMap(t *testing.T) {
	levels := make(map[licensedv1.ClusterLevel]int)
	for seed := range uint64(20_000) {
		in, forged := anyInput(rand.New(rand.NewPCG(seed, 1))), anyInput(rand.New(rand.NewPCG(seed, 1)))
		forged.release(rand.New(rand.NewPCG(seed, 2)))
		s, f := Assess(in), Assess(forged)
		wantConsistent(t, s)
		wantConsistent(t, f)
		wantUnmoved(t, f, s)
		levels[s.Level]++
		if t.Failed() {
			t.Fatalf("seed %d: %v", seed, s)
		}
	}
	if len(levels) != 3 {
		t.Errorf("only %v were met", levels)
	}
}

// release adds rows that say that the latest owners released their shards, to anybody.
func (in *Input) release(r *rand.Rand) {
	for id := range in.Shards {
		var latest uint64
		for _, row := range in.Rows {
			if row.ID == id {
				latest = max(latest, row.Epoch)
			}
		}
		if latest > 0 {
			in.Rows = append(in.Rows, persistence.Shard{ID: id, Epoch: latest, Successor: i(r.IntN(5))})
		}
	}
}

// wantUnmoved checks the shard map of a status against that of the same input without releases that were only heard.
// Those stop no shard from being served and have none served.
func wantUnmoved(t *testing.T, s, quiet *licensedv1.ClusterStatus) {
	t.Helper()
	if len(s.ShardMap) != len(quiet.ShardMap) || s.ShardsServed != quiet.ShardsServed {
		t.Fatalf("%d shards known and %d served, without releases %d and %d",
			len(s.ShardMap), s.ShardsServed, len(quiet.ShardMap), quiet.ShardsServed)
	}
	for k, was := range quiet.ShardMap {
		if shard := s.ShardMap[k]; was.State == licensedv1.ShardState_SHARD_STATE_OPEN && !proto.Equal(shard, was) {
			t.Errorf("shard %v, without releases %v", shard, was)
		}
	}
}

// anyInput returns an input of a small cluster in which much may be wrong.
func anyInput(r *rand.Rand) *Input {
	in := &Input{Name: "any", Now: now, Shards: 1 + r.Uint32N(6), Moving: make(map[uint32]Moving)}
	row := func() persistence.Shard {
		row := persistence.Shard{ID: r.Uint32N(in.Shards + 1), Epoch: r.Uint64N(4)}
		if row.Epoch > 0 && r.IntN(3) > 0 {
			row.Owner = i(r.IntN(5))
		} else if row.Epoch > 0 {
			row.Successor = i(r.IntN(5))
		}
		return row
	}
	healthy := r.IntN(3) == 0
	for n := 1; n <= 1+r.IntN(4); n++ {
		a := nodeAnswer(n)
		if healthy {
			in.Answers = append(in.Answers, a)
			continue
		}
		anyMember(r, &a, in.Shards)
		if r.IntN(5) == 0 {
			in.Departed = append(in.Departed, Departure{a.Listed, a.Incarnation, now.Add(-time.Duration(r.IntN(1e11)))})
			continue
		}
		in.Answers = append(in.Answers, a)
	}
	if healthy && len(in.Answers) > 0 {
		for id := range in.Shards {
			a := &in.Answers[r.IntN(len(in.Answers))]
			a.Holds = append(a.Holds, Held{id, 9})
		}
	}
	for range r.IntN(12) {
		in.Rows = append(in.Rows, row())
		in.Moving[r.Uint32N(in.Shards)] = Moving{r.Uint64N(4), now.Add(-time.Duration(r.IntN(2e10)))}
	}
	return in
}

// anyMember makes a member do one thing or another.
func anyMember(r *rand.Rand, a *Answer, shards uint32) {
	if r.IntN(4) == 0 {
		a.Listed.State = licensedv1.NodeState_NODE_STATE_DRAINING
	}
	if r.IntN(4) == 0 {
		a.Self, a.Cause, a.SilentSince = nil, "refused", now.Add(-time.Duration(r.IntN(2e10)))
		return
	}
	a.Self.State = licensedv1.NodeState(r.IntN(9))
	if a.Self.State == licensedv1.NodeState_NODE_STATE_DEAD || a.Self.State == licensedv1.NodeState_NODE_STATE_LEFT {
		a.Self.State = licensedv1.NodeState_NODE_STATE_READY // No node reports this itself.
	}
	if a.Self.State == licensedv1.NodeState_NODE_STATE_SUSPECT || r.IntN(5) == 0 {
		a.Self.State, a.Self.Lease.Remaining = licensedv1.NodeState_NODE_STATE_SUSPECT, nil
	}
	a.Self.ShardsOpen, a.Self.ShardsClosing = r.Uint32N(9), r.Uint32N(3)
	for range r.IntN(5) {
		a.Holds = append(a.Holds, Held{r.Uint32N(shards + 1), r.Uint64N(4)})
	}
	if r.IntN(6) == 0 {
		a.Self.Warnings = []*licensedv1.ClusterWarning{
			{Level: licensedv1.WarningLevel(1 + r.IntN(2)), Text: "its disk is full"},
		}
	}
}

// TestHistory: findings keep the time at which they were first seen, for as long as they last.
func TestHistory(t *testing.T) {
	var h History
	at := func(ago time.Duration, change func(*Input)) *licensedv1.ClusterStatus {
		in := three()
		in.Now = now.Add(-ago)
		change(in)
		h.Recall(in)
		s := Assess(in)
		h.Record(s)
		return s
	}
	since := func(s *licensedv1.ClusterStatus) (all []string) {
		for _, w := range s.Warnings {
			all = append(all,
				fmt.Sprintf("%v %v", strings.TrimPrefix(w.Kind.String(), "FINDING_KIND_"), now.Sub(w.Since.AsTime())))
		}
		return all
	}
	silent := func(in *Input) { in.silent(0, 0) }
	gone := func(in *Input) { in.gone(0, 0, false) }
	at(time.Minute, func(*Input) {})
	for _, step := range []struct {
		ago    time.Duration
		change func(*Input)
		want   []string
	}{
		{50 * time.Second, silent, []string{"SHARDS_UNCONFIRMED 50s", "NODE_NOT_RESPONDING 50s"}},
		{49 * time.Second, silent, []string{"SHARDS_UNCONFIRMED 50s", "NODE_NOT_RESPONDING 50s"}},
		{46 * time.Second, gone, []string{"SHARDS_UNSERVED 46s", "NODE_NOT_RESPONDING 50s"}},
		{40 * time.Second, func(in *Input) { in.take(2, 1); gone(in) }, []string{"NODE_NOT_RESPONDING 50s"}},
		{30 * time.Second, func(*Input) {}, nil},
		{20 * time.Second, silent, []string{"SHARDS_UNCONFIRMED 20s", "NODE_NOT_RESPONDING 20s"}},
		{5 * time.Second, silent, []string{"SHARDS_UNSERVED 5s", "NODE_NOT_RESPONDING 20s"}},
	} {
		if got := since(at(step.ago, step.change)); !slices.Equal(got, step.want) {
			t.Errorf("%v ago: %q, want %q", step.ago, got, step.want)
		}
	}
	released := func(in *Input) {
		in.Rows[0].Owner = persistence.Incarnation{}
		in.Rows[0].Successor = i(2)
		in.Answers[0].Holds = in.Answers[0].Holds[1:]
	}
	at(5*time.Second, func(*Input) {})
	if s := at(4*time.Second, released); s.Level != ok {
		t.Errorf("%v", s.Warnings)
	}
	if s := at(-6*time.Second, released); s.Level != critical {
		t.Error("a shard that nobody claims for ten seconds is not unserved")
	}
}

// TestRunbook: each finding links to an entry that there is.
func TestRunbook(t *testing.T) {
	b, err := os.ReadFile("../../docs/guide/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			anchors[strings.ReplaceAll(strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#"))), " ",
				"-")] = true
		}
	}
	for _, file := range []string{"clusterstatus.go", "../status/warnings.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?:Runbook(?::|.*=)\s+(?:.*, )?|add\()"([a-z-]+)"`).
			FindAllStringSubmatch(string(source), -1)
		if len(found) == 0 {
			t.Errorf("%s: no anchors", file)
		}
		for _, m := range found {
			if !anchors[m[1]] {
				t.Errorf("%s: docs/guide/operations.md has no entry %q", file, m[1])
			}
		}
	}
}
