package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/routing"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

func rolesOf(r Roles) []licensedv1.NodeRole {
	var out []licensedv1.NodeRole
	if r.Has(RoleNode) {
		out = append(out, licensedv1.NodeRole_NODE_ROLE_NODE)
	}
	if r.Has(RoleGateway) {
		out = append(out, licensedv1.NodeRole_NODE_ROLE_GATEWAY)
	}
	return out
}

// incarnationText returns an incarnation for people; nothing for none.
func incarnationText(i persistence.Incarnation) string {
	if i.IsZero() {
		return ""
	}
	return i.String()
}

// addMember adds what there is to tell of a process that is one of several, or has a lease; st is nil if it has none.
func (n *Node) addMember(s *licensedv1.NodeStatus, st *cluster.NodeStatus) {
	if m := n.member.Load(); m != nil {
		s.NodeAddress = m.transport.Address()
		if n.api != nil {
			s.ApiAddress = m.reachable(n.api.Addr())
		}
	}
	if st == nil {
		return
	}
	s.Incarnation = incarnationText(st.Incarnation)
	s.Lease = &licensedv1.LeaseStatus{Remaining: durationpb.New(st.Lease), Ttl: durationpb.New(n.config.Cluster.LeaseTTL)}
	s.IncarnationAge = durationpb.New(st.Age)
	s.ShardsOpen, s.ShardsExpected, s.ShardsClosing = uint32(st.Open), uint32(st.Expected), uint32(st.Closing)
	s.ShardsMoving, s.ClockOffset = uint32(st.Moving), durationpb.New(st.ClockAhead)
	s.CommandsPerSecond = n.counts.rate(n.config.Now())
	if st.Lease == 0 && !st.Draining {
		s.State = licensedv1.NodeState_NODE_STATE_SUSPECT
		s.Reason = "it has no lease: the store does not answer, or not in time"
	}
}

// clusterStatus asks all members how they do, and puts it together.
func (m *member) clusterStatus(ctx context.Context) *licensedv1.ClusterStatus {
	n := m.n
	rows := m.router.Rows()
	if node := n.owner.Load(); node != nil {
		for id := range rows { // It knows more than what it tells, which is what the router hears.
			rows[id] = node.Row(uint32(id))
		}
	}
	out := &licensedv1.ClusterStatus{
		Name: n.config.Cluster.Name, Reporter: n.name, AsOf: timestamppb.New(n.config.Now()), Shards: n.shards.Shards(),
		Happenings: n.happenings.newestFirst(),
	}
	var told []*licensedv1.Happening
	present := make(map[string]bool) // incarnations with a lease
	for _, s := range m.router.Statuses(ctx) {
		status := n.statusOf(&s)
		if mergeRows(rows, s.Response.GetShards()); status.Name != n.name {
			told = append(told, status.Happenings...)
		}
		status.Happenings = nil
		out.Nodes = append(out.Nodes, status)
		out.Warnings = append(out.Warnings, status.Warnings...)
		for _, text := range s.Response.GetWarnings() {
			out.Warnings = append(out.Warnings, &licensedv1.ClusterWarning{
				Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: status.Name, Text: status.Name + ": " + text,
			})
		}
		if status.Incarnation != "" {
			present[status.Incarnation] = true
		}
	}
	out.Happenings = mergeHappenings(out.Happenings, told)
	for _, d := range n.departed() {
		out.Nodes = append(out.Nodes, leftStatus(d))
	}
	slices.SortFunc(out.Nodes, func(a, b *licensedv1.NodeStatus) int { return strings.Compare(a.Name, b.Name) })
	out.ShardMap = shardMap(rows, present)
	out.Warnings = append(out.Warnings, clusterWarnings(out)...)
	slices.SortStableFunc(out.Warnings, func(a, b *licensedv1.ClusterWarning) int { return cmp.Compare(b.Level, a.Level) })
	return out
}

// mergeRows takes in what a member knows of shards, where it is later.
func mergeRows(rows []persistence.Shard, theirs []*clusterv1.Shard) {
	for _, m := range theirs {
		row, err := cluster.ShardRow(m)
		if err == nil && int(row.ID) < len(rows) && ownership.Later(rows[row.ID], row) {
			rows[row.ID] = row
		}
	}
}

// statusOf returns what a member said of itself, or what gossip tells of one that does not answer.
func (n *Node) statusOf(s *routing.Status) *licensedv1.NodeStatus {
	if p := s.Response.GetSelf(); p != nil {
		if v, err := (codec{}).Unmarshal(p.GetType(), p.GetData()); err == nil {
			if status, ok := v.(*licensedv1.NodeStatus); ok {
				status.SeenAt = timestamppb.New(n.config.Now())
				return status
			}
		}
	}
	status := fromGossip(&s.Member)
	switch {
	case s.Err != nil:
		status.State, status.Reason = licensedv1.NodeState_NODE_STATE_SUSPECT, "it does not say how it does: "+s.Err.Error()
		status.Warnings = []*licensedv1.ClusterWarning{{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: status.Name,
			Text: fmt.Sprintf("%s does not say how it does (%v). If it stays so, look at its log.", status.Name, s.Err),
		}}
	default: // Of another release.
		addAnswer(status, s.Response)
		status.SeenAt = timestamppb.New(n.config.Now())
	}
	return status
}

// fromGossip returns what a member lets everybody know; its load is not part of that.
func fromGossip(m *membership.Member) *licensedv1.NodeStatus {
	status := &licensedv1.NodeStatus{
		Name: m.Name, Version: m.Meta.GetVersion(), NodeAddress: m.Meta.GetNodeAddress(), ApiAddress: m.Meta.GetApiAddress(),
		State: licensedv1.NodeState_NODE_STATE_READY,
	}
	if m.Meta.GetDraining() {
		status.State = licensedv1.NodeState_NODE_STATE_DRAINING
	}
	for _, r := range m.Meta.GetRoles() {
		status.Roles = append(status.Roles, licensedv1.NodeRole(r)) // The numbers are the same.
	}
	if i, err := cluster.IncarnationOf(m.Meta.GetIncarnation()); err == nil && !i.IsZero() {
		status.Incarnation = i.String()
	}
	return status
}

// addAnswer adds what an answer has that says nothing in our words.
func addAnswer(status *licensedv1.NodeStatus, r *clusterv1.StatusResponse) {
	status.Lease = &licensedv1.LeaseStatus{Remaining: durationpb.New(time.Duration(r.GetLeaseMicros()) * time.Microsecond)}
	status.IncarnationAge = durationpb.New(time.Duration(r.GetAgeMicros()) * time.Microsecond)
	status.ShardsOpen, status.ShardsExpected, status.ShardsClosing = r.GetShardsOpen(), r.GetShardsExpected(), r.GetShardsClosing()
	status.ShardsMoving, status.ResidentCustomers, status.ResidentBytes = r.GetMoving(), r.GetResident(), r.GetResidentBytes()
	status.ClockOffset = durationpb.New(time.Duration(r.GetClockOffsetMicros()) * time.Microsecond)
}

// leftStatus returns what is left to tell of a member that is not there any more.
func leftStatus(d departure) *licensedv1.NodeStatus {
	status := fromGossip(&d.Member)
	status.State, status.Reason = licensedv1.NodeState_NODE_STATE_DEAD, "it does not answer since "+d.at.UTC().Format(time.DateTime)+" UTC"
	if d.Meta.GetDraining() {
		status.State, status.Reason = licensedv1.NodeState_NODE_STATE_LEFT, "it left at "+d.at.UTC().Format(time.DateTime)+" UTC"
	}
	status.SeenAt = timestamppb.New(d.at)
	return status
}

// shardMap returns the shards by what can be had of them, given the incarnations that seem to be there.
func shardMap(rows []persistence.Shard, present map[string]bool) []*licensedv1.ShardStatus {
	out := make([]*licensedv1.ShardStatus, 0, len(rows))
	for _, row := range rows {
		if row.Epoch == 0 {
			continue
		}
		s := &licensedv1.ShardStatus{Id: row.ID, Epoch: row.Epoch, State: licensedv1.ShardState_SHARD_STATE_ORPHANED}
		if !row.Successor.IsZero() {
			s.Successor = row.Successor.String()
		}
		switch {
		case !row.Owner.IsZero():
			if s.Owner = row.Owner.String(); present[s.Owner] {
				s.State = licensedv1.ShardState_SHARD_STATE_OPEN
			}
		case present[s.Successor]:
			s.State = licensedv1.ShardState_SHARD_STATE_MOVING
		}
		out = append(out, s)
	}
	return out
}

// clusterWarnings says what is wrong that no member says of itself.
func clusterWarnings(c *licensedv1.ClusterStatus) []*licensedv1.ClusterWarning {
	var out []*licensedv1.ClusterWarning
	add := func(level licensedv1.WarningLevel, format string, args ...any) {
		out = append(out, &licensedv1.ClusterWarning{Level: level, Text: fmt.Sprintf(format, args...)})
	}
	orphaned := int(c.Shards) - len(c.ShardMap)
	for _, s := range c.ShardMap {
		if s.State == licensedv1.ShardState_SHARD_STATE_ORPHANED {
			orphaned++
		}
	}
	nodes, versions := 0, make(map[string]bool)
	for _, n := range c.Nodes {
		if n.State == licensedv1.NodeState_NODE_STATE_LEFT || n.State == licensedv1.NodeState_NODE_STATE_DEAD ||
			n.State == licensedv1.NodeState_NODE_STATE_DRAINING {
			continue
		}
		versions[n.Version] = true
		if slices.Contains(n.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) {
			nodes++
		}
	}
	if orphaned > 0 {
		add(licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, "%d of %d shards have no owner that is there; their customers wait. If it stays so, look at the nodes' logs.", orphaned, c.Shards)
	}
	switch nodes {
	case 0:
		add(licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, "There is no node that holds customers; start one, or see why gossip does not reach them.")
	case 1:
		add(licensedv1.WarningLevel_WARNING_LEVEL_WARNING, "There is one node only; nobody takes its customers if it fails.")
	}
	if len(versions) > 1 {
		add(licensedv1.WarningLevel_WARNING_LEVEL_WARNING, "The members have %d versions; finish the upgrade.", len(versions))
	}
	return out
}
