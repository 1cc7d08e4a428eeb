package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"github.com/prometheus/procfs"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster"
	"licensed/gateway"
	"licensed/internal/clusterstatus"
	"licensed/internal/version"
	"licensed/messages/licensedv1"
)

// Cluster implements gateway.Operations.
func (o *operations) Cluster(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	return o.n.clusterStatus(ctx)
}

// clusterStatus returns the cluster as this process sees it.
func (n *Node) clusterStatus(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	if m := n.member.Load(); m != nil {
		return m.clusterStatus(ctx), nil
	}
	st := n.ownerStatus()
	self, err := n.statusWith(ctx, st)
	if err != nil {
		return nil, err
	}
	name := soloCluster
	if n.config.Store != "" {
		name = n.config.Cluster.Name
	}
	a := clusterstatus.Answer{Listed: self, Self: self, Incarnation: n.shards.Incarnation()}
	if st != nil {
		a.Incarnation = st.Incarnation
	}
	for id := range n.shards.Shards() {
		if epoch, held := n.shards.Epoch(id); held {
			a.Holds = append(a.Holds, clusterstatus.Held{Shard: id, Epoch: epoch})
		}
	}
	return n.assess(&clusterstatus.Input{
		Name: name, Reporter: self.Name, Now: n.config.Now(), Shards: n.shards.Shards(), Alone: true, Answers: []clusterstatus.Answer{a},
	}, nil), nil
}

// nodeStates are the states of health checks in the words of the cluster.
var nodeStates = map[gateway.State]licensedv1.NodeState{
	gateway.Starting: licensedv1.NodeState_NODE_STATE_STARTING, gateway.Ready: licensedv1.NodeState_NODE_STATE_READY,
	gateway.Draining: licensedv1.NodeState_NODE_STATE_DRAINING, gateway.Failed: licensedv1.NodeState_NODE_STATE_FAILED,
}

// ownerStatus returns the status of the process as one that holds shards; nil for a gateway.
func (n *Node) ownerStatus() *cluster.NodeStatus {
	node := n.owner.Load()
	if node == nil {
		return nil
	}
	st := node.Status()
	return &st
}

// statusWith returns what the node says of itself, given its ownerStatus.
func (n *Node) statusWith(ctx context.Context, owner *cluster.NodeStatus) (*licensedv1.NodeStatus, error) {
	if n.shards == nil {
		return nil, errNotStarted
	}
	stats, now := n.hosts.Stats(), n.config.Now()
	held, lowest, highest := n.shards.Held()
	s := &licensedv1.NodeStatus{
		Name: n.name, Incarnation: incarnationText(n.shards.Incarnation()), Version: version.Version(),
		Roles:     rolesOf(n.config.Roles),
		StartedAt: timestamppb.New(n.started), SeenAt: timestamppb.New(now),
		ShardsOpen: uint32(held), LowestEpoch: lowest, HighestEpoch: highest,
		ResidentCustomers: uint64(stats.Resident), UnpackedCustomers: uint64(stats.Unpacked), ResidentBytes: uint64(stats.ResidentBytes),
		RequestsWaiting: uint64(stats.InFlight), PolicyVersion: n.policy.Version(), Activity: n.activity(),
		CommandsPerSecond: n.hosts.CommandsPerSecond(),
	}
	state, cause := n.health.State()
	if s.State = nodeStates[state]; cause != nil {
		s.Reason = cause.Error()
	}
	if n.api != nil {
		s.ApiAddress = n.api.Addr().String()
	}
	n.addMember(s, owner)
	if n.admin != nil {
		s.AdminAddress = n.admin.Addr().String()
	}
	if g := n.gateway.Load(); g != nil {
		s.RequestsInFlight = uint64(g.InFlight())
	}
	if st := n.storage.Status(ctx); st != nil {
		s.Store = &licensedv1.StoreFigures{Kind: st.Kind, DiskBytes: st.DiskBytes, Writes: st.Writes, Syncs: st.Syncs}
	}
	if a := n.hosts.ArchiveStatus(); a != nil {
		s.Archive = &licensedv1.ArchiveFigures{
			WaitingCustomers: a.WaitingCustomers, Lag: a.Lag, ArchivedEvents: a.ArchivedEvents, Failures: a.Failures,
		}
	}
	addProcess(s)
	s.Warnings = n.warnings(ctx, s, owner)
	return s, nil
}

var errNotStarted = errors.New("the node is not ready yet")

// activity returns what the node did since its start.
func (n *Node) activity() *licensedv1.NodeActivity {
	a := new(licensedv1.NodeActivity)
	if g := n.gateway.Load(); g != nil {
		a = g.Activity()
	}
	n.hosts.AddActivity(a)
	return a
}

// addProcess adds what the operating system knows. Where it cannot be asked there is nothing to add.
func addProcess(s *licensedv1.NodeStatus) {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		s.MemoryLimitBytes = uint64(limit)
	}
	self, err := procfs.Self()
	if err != nil {
		return
	}
	st, err := self.Stat()
	if err != nil {
		return
	}
	s.CpuTime = durationpb.New(time.Duration(st.CPUTime() * float64(time.Second)))
	s.MemoryBytes = uint64(st.ResidentMemory())
}

// From these on something is wrong.
const (
	archiveLagWarning = time.Hour
	memoryWarning     = 0.9 // of the limit
)

// warnings are what is wrong with the node itself. Whether its shards are served, and whether it can serve, is for
// the part that makes the status of the cluster.
func (n *Node) warnings(ctx context.Context, s *licensedv1.NodeStatus, owner *cluster.NodeStatus) []*licensedv1.ClusterWarning {
	var out []*licensedv1.ClusterWarning
	add := func(runbook, next, format string, args ...any) *licensedv1.ClusterWarning {
		w := &licensedv1.ClusterWarning{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: s.Name, Text: fmt.Sprintf(format, args...), NextStep: next, Runbook: runbook,
		}
		out = append(out, w)
		return w
	}
	if owner != nil && owner.ClockWrong {
		add("clock-wrong", "Repair the clock of that machine (NTP). The node takes shards again by itself.",
			"The wall clock of %s is %s the clocks of the other nodes; it takes no shards", s.Name, aheadOf(owner.ClockAhead),
		).Kind = licensedv1.FindingKind_FINDING_KIND_CLOCK_WRONG
	}
	if owner != nil && owner.Unreachable != nil && !owner.Draining {
		add("node-not-reachable", "Check --node-advertise, and whether a firewall lets the node port through. The node takes shards again by itself.",
			"%s takes no shards: %v", s.Name, owner.Unreachable)
	}
	if a := n.hosts.ArchiveStatus(); a != nil {
		switch {
		case a.LastError != "":
			add("licensedarchivefails", "History stays in the hot tier until the archive can be written. Check its disk, its permissions or its Cassandra.",
				"The archive of %s cannot be written: %s", s.Name, a.LastError)
		case a.Lag.AsDuration() > archiveLagWarning:
			add("licensedarchivebehind", "Raise --archive-rate, or find out what slows the archive down.",
				"The archiver of %s is %v behind with %d customers", s.Name, a.Lag.AsDuration().Round(time.Minute), a.WaitingCustomers)
		}
	}
	if limit := float64(s.MemoryLimitBytes); limit > 0 && float64(s.MemoryBytes) > memoryWarning*limit {
		add("licensedmemory", "Lower --max-resident, or give the process more memory.",
			"%s uses %.0f %% of its memory limit", s.Name, 100*float64(s.MemoryBytes)/limit)
	}
	return out
}

// aheadOf says how far a clock is off.
func aheadOf(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%v behind", d.Abs().Round(time.Millisecond))
	}
	return fmt.Sprintf("%v ahead of", d.Round(time.Millisecond))
}
