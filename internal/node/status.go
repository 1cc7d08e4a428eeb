package node

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster"
	"licensed/gateway"
	"licensed/internal/clusterstatus"
	"licensed/internal/status"
	"licensed/internal/version"
	"licensed/messages/licensedv1"
)

// Cluster implements gateway.Operations and dashboard.Cluster.
func (o *operations) Cluster(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	return o.n.clusterStatus(ctx)
}

// clusterStatus returns the cluster as this process sees it.
func (n *Node) clusterStatus(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	if m, ok := n.member.Get(); ok {
		r := m.Read(ctx)
		return n.assessor.Assess(r.Complete(), r.Told), nil
	}
	var st *cluster.NodeStatus
	if node, ok := n.owner.Get(); ok {
		st = new(node.Status())
	}
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
	return n.assessor.Assess(&clusterstatus.Input{
		Name: name, Reporter: self.Name, Now: n.config.Now(), Shards: n.shards.Shards(), Alone: true,
		Answers: []clusterstatus.Answer{a},
	}, nil), nil
}

// nodeStates are the states of health checks in the words of the cluster.
var nodeStates = map[gateway.State]licensedv1.NodeState{
	gateway.Starting: licensedv1.NodeState_NODE_STATE_STARTING, gateway.Ready: licensedv1.NodeState_NODE_STATE_READY,
	gateway.Draining: licensedv1.NodeState_NODE_STATE_DRAINING, gateway.Failed: licensedv1.NodeState_NODE_STATE_FAILED,
}

// statusWith returns what the process says of itself, given what its node of a cluster does; nil: it is none.
func (n *Node) statusWith(ctx context.Context, owner *cluster.NodeStatus) (*licensedv1.NodeStatus, error) {
	stats, now := n.hosts.Stats(), n.config.Now()
	held, lowest, highest := n.shards.Held()
	s := &licensedv1.NodeStatus{
		Name: n.name, Incarnation: status.IncarnationText(n.shards.Incarnation()), Version: version.Version(),
		Roles:     n.config.Roles.messages(),
		StartedAt: timestamppb.New(n.started), SeenAt: timestamppb.New(now),
		ShardsOpen: uint32(held), LowestEpoch: lowest, HighestEpoch: highest,
		ResidentCustomers: uint64(stats.Resident),
		UnpackedCustomers: uint64(stats.Unpacked),
		ResidentBytes:     uint64(stats.ResidentBytes),
		RequestsWaiting:   uint64(stats.InFlight), PolicyVersion: n.policy.Version(), Activity: n.activity(),
		CommandsPerSecond: n.hosts.CommandsPerSecond(),
	}
	state, cause := n.health.State()
	if s.State = nodeStates[state]; cause != nil {
		s.Reason = cause.Error()
	}
	if api, ok := n.api.Get(); ok {
		s.ApiAddress = api.Addr().String()
	}
	n.addMember(s, owner)
	if admin, ok := n.admin.Get(); ok {
		s.AdminAddress = admin.Addr().String()
	}
	if g, ok := n.gateway.Get(); ok {
		s.RequestsInFlight, s.Fallback = uint64(g.InFlight()), g.FallbackStatus()
	}
	if st := n.storage.Status(ctx); st != nil {
		s.Store = &licensedv1.StoreFigures{Kind: st.Kind, DiskBytes: st.DiskBytes, Writes: st.Writes, Syncs: st.Syncs}
	}
	archived := n.hosts.ArchiveStatus()
	if a := archived; a != nil {
		s.Archive = &licensedv1.ArchiveFigures{
			WaitingCustomers: a.WaitingCustomers, Lag: a.Lag, ArchivedEvents: a.ArchivedEvents, Failures: a.Failures,
		}
	}
	status.AddProcess(s)
	s.Warnings = append(status.Warnings(s, owner, archived), n.exposureWarnings()...)
	return s, nil
}

// addMember adds the figures of a process that is one of several, or has a lease; st is nil if it has none.
func (n *Node) addMember(s *licensedv1.NodeStatus, st *cluster.NodeStatus) {
	if m, ok := n.member.Get(); ok {
		s.NodeAddress, s.ApiAddress = m.Transport.Address(), m.API()
	}
	if st == nil {
		return
	}
	s.Incarnation = status.IncarnationText(st.Incarnation)
	s.Lease = &licensedv1.LeaseStatus{
		Remaining: durationpb.New(st.Lease),
		Ttl:       durationpb.New(n.config.Cluster.LeaseTTL),
	}
	s.IncarnationAge = durationpb.New(st.Age)
	s.ShardsOpen, s.ShardsExpected, s.ShardsClosing = uint32(st.Open), uint32(st.Expected), uint32(st.Closing)
	s.ShardsMoving, s.ClockOffset = uint32(st.Moving), durationpb.New(st.ClockAhead)
	// The states of a lease are told apart from those of the process.
	switch {
	case st.Drained && s.State != licensedv1.NodeState_NODE_STATE_FAILED:
		s.State = licensedv1.NodeState_NODE_STATE_DRAINED
	case st.Draining && s.State == licensedv1.NodeState_NODE_STATE_READY:
		s.State = licensedv1.NodeState_NODE_STATE_DRAINING
	case st.Lease == 0 && !st.Draining:
		s.State, s.Reason = licensedv1.NodeState_NODE_STATE_SUSPECT, "no lease: the store does not answer, "+
			"or not in time"
	}
}

// startStatus has a gateway compute the status for its metrics.
func (n *Node) startStatus(context.Context) error {
	n.parts.Go("status", func(ctx context.Context) {
		n.assessor.Repeat(ctx, n.registry, func(ctx context.Context) error {
			_, err := n.clusterStatus(ctx)
			return err
		})
	})
	return nil
}

// activity returns what the node did since its start.
func (n *Node) activity() *licensedv1.NodeActivity {
	a := new(licensedv1.NodeActivity)
	if g, ok := n.gateway.Get(); ok {
		a = g.Activity()
	}
	n.hosts.AddActivity(a)
	return a
}
