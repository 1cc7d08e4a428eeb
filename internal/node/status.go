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
	self, err := n.status(ctx)
	if err != nil {
		return nil, err
	}
	name := soloCluster
	if n.config.Store != "" {
		name = n.config.Cluster.Name
	}
	out := &licensedv1.ClusterStatus{
		Name: name, Reporter: self.Name, AsOf: timestamppb.New(n.config.Now()), Shards: n.shards.Shards(),
		Nodes: []*licensedv1.NodeStatus{self}, Happenings: n.happenings.newestFirst(), Warnings: self.Warnings,
	}
	for id := range n.shards.Shards() {
		s := &licensedv1.ShardStatus{Id: id, State: licensedv1.ShardState_SHARD_STATE_ORPHANED}
		if epoch, held := n.shards.Epoch(id); held {
			s.Epoch, s.Owner, s.State = epoch, self.Incarnation, licensedv1.ShardState_SHARD_STATE_OPEN
		}
		out.ShardMap = append(out.ShardMap, s)
	}
	return out, nil
}

// nodeStates are the states of health checks in the words of the cluster.
var nodeStates = map[gateway.State]licensedv1.NodeState{
	gateway.Starting: licensedv1.NodeState_NODE_STATE_STARTING, gateway.Ready: licensedv1.NodeState_NODE_STATE_READY,
	gateway.Draining: licensedv1.NodeState_NODE_STATE_DRAINING, gateway.Failed: licensedv1.NodeState_NODE_STATE_FAILED,
}

// status returns what the node says of itself.
func (n *Node) status(ctx context.Context) (*licensedv1.NodeStatus, error) {
	return n.statusWith(ctx, n.ownerStatus(ctx))
}

// ownerStatus returns how the process does as one that holds shards; nil for a gateway. It waits for the loop
// that renews the lease.
func (n *Node) ownerStatus(ctx context.Context) *cluster.NodeStatus {
	node := n.owner.Load()
	if node == nil {
		return nil
	}
	st := node.Status(ctx)
	return &st
}

// statusWith returns what the node says of itself, given its ownerStatus.
func (n *Node) statusWith(ctx context.Context, owner *cluster.NodeStatus) (*licensedv1.NodeStatus, error) {
	if n.shards == nil {
		return nil, errNotStarted
	}
	stats, now := n.runtimeStats(), n.config.Now()
	held, lowest, highest := n.shards.Held()
	s := &licensedv1.NodeStatus{
		Name: n.name, Incarnation: incarnationText(n.shards.Incarnation()), Version: Version(),
		Roles:     rolesOf(n.config.Roles),
		StartedAt: timestamppb.New(n.started), SeenAt: timestamppb.New(now),
		ShardsOpen: uint32(held), LowestEpoch: lowest, HighestEpoch: highest,
		ResidentCustomers: uint64(stats.Resident), UnpackedCustomers: uint64(stats.Unpacked), ResidentBytes: uint64(stats.ResidentBytes),
		RequestsWaiting: uint64(stats.InFlight), PolicyVersion: n.policy.version(), Activity: n.activity(),
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
	if st := n.storeStatus(ctx); st != nil {
		s.Store = &licensedv1.StoreFigures{Kind: st.Kind, DiskBytes: st.DiskBytes, Writes: st.Writes, Syncs: st.Syncs}
	}
	if a := n.archiveStatus(ctx); a != nil {
		s.Archive = &licensedv1.ArchiveFigures{
			WaitingCustomers: a.WaitingCustomers, Lag: a.Lag, ArchivedEvents: a.ArchivedEvents, Failures: a.Failures,
		}
	}
	addProcess(s)
	s.Warnings = n.warnings(ctx, s)
	return s, nil
}

var errNotStarted = errors.New("the node is not ready yet")

// activity returns what the node did since its start.
func (n *Node) activity() *licensedv1.NodeActivity {
	a := new(licensedv1.NodeActivity)
	if g := n.gateway.Load(); g != nil {
		a = g.Activity()
	}
	c := &n.counts
	a.Activations, a.ReplayedEvents = c.activations.Load(), c.replayed.Load()
	a.Passivations, a.FailedActivations = c.passivations.Load(), c.failed.Load()
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

// warnings says what is wrong with the node, the worst first.
func (n *Node) warnings(ctx context.Context, s *licensedv1.NodeStatus) []*licensedv1.ClusterWarning {
	var out []*licensedv1.ClusterWarning
	add := func(level licensedv1.WarningLevel, format string, args ...any) {
		out = append(out, &licensedv1.ClusterWarning{Level: level, Node: s.Name, Text: fmt.Sprintf(format, args...)})
	}
	if s.State == licensedv1.NodeState_NODE_STATE_FAILED {
		add(licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, "%s cannot serve: %s. Nothing that was acknowledged is lost; mend the cause and restart it.", s.Name, s.Reason)
	}
	if missing := n.shards.Shards() - s.ShardsOpen; missing > 0 && n.member.Load() == nil {
		add(licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, "%d of %d shards are out of service on %s; their customers are not served. A restart takes them again.", missing, n.shards.Shards(), s.Name)
	}
	if a := n.archiveStatus(ctx); a != nil {
		switch {
		case a.LastError != "":
			add(licensedv1.WarningLevel_WARNING_LEVEL_WARNING, "The archive of %s cannot be written: %s. History stays in the hot tier meanwhile.", s.Name, a.LastError)
		case a.Lag.AsDuration() > archiveLagWarning:
			add(licensedv1.WarningLevel_WARNING_LEVEL_WARNING, "The archiver of %s is %v behind with %d customers; raise archive-rate.", s.Name, a.Lag.AsDuration().Round(time.Minute), a.WaitingCustomers)
		}
	}
	if limit := float64(s.MemoryLimitBytes); limit > 0 && float64(s.MemoryBytes) > memoryWarning*limit {
		add(licensedv1.WarningLevel_WARNING_LEVEL_WARNING, "%s uses %.0f %% of its memory limit; lower max-resident or give it more.", s.Name, 100*float64(s.MemoryBytes)/limit)
	}
	return out
}
