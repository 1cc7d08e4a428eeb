package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/roster"
	"licensed/cluster/routing"
	"licensed/internal/clusterstatus"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Read asks all members for their status. It returns what the status of the cluster is computed from, and what members
// tell of themselves.
func (m *Self) Read(ctx context.Context) (*clusterstatus.Input, []*licensedv1.Happening) {
	rows := m.config.Map
	in := clusterstatus.Input{
		Name: m.config.Cluster.Name, Reporter: m.config.Name, Now: m.config.Now(), Shards: rows.Len(),
		Rows: slices.Concat(rows.StoredRows(), rows.Released()),
	}
	r := reading{Input: &in, departed: make(map[string]status.Departure)}
	for _, d := range m.config.Members.Departed() {
		r.departed[d.Name] = d
	}
	listed := m.Router.Statuses(ctx)
	r.hear(listed, true)
	for _, s := range listed {
		if s.Err == nil {
			m.config.Members.Heard(s.Member.Name)
		}
	}
	if unlisted := m.unlisted(&r); len(unlisted) > 0 {
		r.hear(m.Router.StatusesOf(ctx, unlisted), false)
	}
	r.complete()
	return &in, r.told
}

// reading collects what a status is computed from.
type reading struct {
	*clusterstatus.Input
	departed map[string]status.Departure // members that gossip does not list any more, by name, as any member saw it
	told     []*licensedv1.Happening     // by others of themselves
}

// hear adds answers of members. One that gossip does not list counts only if it answers: otherwise the departure says
// what is known of it.
func (r *reading) hear(statuses []routing.Status, listed bool) {
	for k := range statuses {
		s := &statuses[k]
		if name := s.Response.GetName(); s.Err == nil && name != s.Member.Name {
			s.Err = fmt.Errorf("%q answers at its address", name)
		}
		if !listed && s.Err != nil {
			continue
		}
		a := answerOf(s)
		for _, row := range s.Response.GetShards() {
			if row, err := cluster.ShardRow(row); err == nil {
				r.Rows = append(r.Rows, row)
			}
		}
		addDepartures(r.departed, s.Response.GetDeparted(), r.Now)
		if a.Self != nil {
			if a.Self.Name != r.Reporter {
				r.told = append(r.told, a.Self.Happenings...)
			}
			a.Self.Happenings = nil
		}
		r.Answers = append(r.Answers, a)
	}
}

// complete adds the departures. Those of members that answered are passed over by the assessment.
func (r *reading) complete() {
	for _, d := range r.departed {
		r.Departed = append(r.Departed, clusterstatus.Departure{
			Last: fromGossip(&d.Member), Incarnation: incarnationOf(d.Meta), At: d.At,
		})
	}
}

// unlisted returns the processes that gossip does not list and that may run all the same: forged messages can hide a
// member. They are nodes whose lease is alive by the store, and gateways, which have no lease, that disappeared
// without a good-bye.
func (m *Self) unlisted(r *reading) []membership.Member {
	known := map[string]bool{}
	for i := range r.Answers {
		known[r.Answers[i].Listed.GetName()] = true
	}
	all := slices.DeleteFunc(m.hiddenOwners(), func(o membership.Member) bool { return known[o.Name] })
	for _, o := range all {
		known[o.Name] = true
	}
	for name, d := range r.departed {
		o := d.Member
		if i := incarnationOf(o.Meta); known[name] || i.IsZero() && o.Meta.GetDraining() {
			continue
		} else if !i.IsZero() {
			address, alive := m.reachedAt(i)
			if !alive {
				continue
			}
			o.Meta = proto.CloneOf(o.Meta)
			o.Meta.NodeAddress = address
		}
		all = append(all, o)
	}
	return all
}

// hiddenOwners returns the nodes that own shards by the store, have a live lease, and are not listed.
func (m *Self) hiddenOwners() (hidden []membership.Member) {
	for _, i := range *m.owners.Load() {
		if m.Router.Knows(i) {
			continue
		}
		if o, ok := m.leaseholder(i); ok {
			hidden = append(hidden, o)
		}
	}
	return hidden
}

// leaseholder returns another node as its lease in the store describes it; false if that lease is not known to be
// alive.
func (m *Self) leaseholder(i persistence.Incarnation) (membership.Member, bool) {
	l, state := m.roster.Look(i)
	return membership.Member{Name: l.Node, Meta: &clusterv1.Meta{
		NodeAddress: l.Address, Incarnation: i[:], Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE},
	}}, state == roster.Alive && l.Address != "" && l.Address != m.Transport.Address()
}

// addDepartures adds members that another member saw disappear. A member that heard that one of them left on purpose is
// right: others may have missed its last message.
func addDepartures(all map[string]status.Departure, told []*clusterv1.Departed, now time.Time) {
	for _, d := range told {
		known, ok := all[d.GetName()]
		switch {
		case !ok:
			at := now.Add(-time.Duration(d.GetAgoMicros()) * time.Microsecond)
			all[d.GetName()] = status.Departure{Member: membership.Member{Name: d.GetName(), Meta: d.GetMeta()}, At: at}
		case d.GetMeta().GetDraining() && !known.Meta.GetDraining() && incarnationOf(d.GetMeta()) == incarnationOf(known.Meta):
			known.Meta = d.GetMeta()
			all[d.GetName()] = known
		}
	}
}

// incarnationOf returns the incarnation that a member announces; zero if it has none.
func incarnationOf(meta *clusterv1.Meta) persistence.Incarnation {
	i, err := cluster.IncarnationOf(meta.GetIncarnation())
	if err != nil {
		return persistence.Incarnation{}
	}
	return i
}

// answerOf returns what a member said of itself, or why it said nothing.
func answerOf(s *routing.Status) clusterstatus.Answer {
	a := clusterstatus.Answer{Listed: fromGossip(&s.Member), Incarnation: incarnationOf(s.Member.Meta)}
	if s.Err != nil {
		if a.Cause = s.Err.Error(); errors.Is(s.Err, context.DeadlineExceeded) {
			a.Cause = "timeout"
		}
		return a
	}
	self, err := payload.Codec{}.Unmarshal(s.Response.GetSelf().GetType(), s.Response.GetSelf().GetData())
	status, ok := self.(*licensedv1.NodeStatus)
	if err != nil || !ok {
		a.Cause = fmt.Sprintf("unreadable: %T, %v", self, err)
		return a
	}
	a.Self = status
	held := s.Response.GetHeld()
	if held == nil {
		return a // a gateway
	}
	if i, err := cluster.IncarnationOf(held.GetIncarnation()); err == nil {
		a.Incarnation = i
	}
	for k, id := range held.GetIds() {
		if k < len(held.GetEpochs()) {
			a.Holds = append(a.Holds, clusterstatus.Held{Shard: id, Epoch: held.GetEpochs()[k]})
		}
	}
	return a
}

// fromGossip returns what a member lets everybody know; its load is not part of that.
func fromGossip(m *membership.Member) *licensedv1.NodeStatus {
	s := &licensedv1.NodeStatus{
		Name: m.Name, Version: m.Meta.GetVersion(), NodeAddress: m.Meta.GetNodeAddress(), ApiAddress: m.Meta.GetApiAddress(),
		Incarnation: status.IncarnationText(incarnationOf(m.Meta)), State: licensedv1.NodeState_NODE_STATE_READY,
	}
	if m.Meta.GetDraining() {
		s.State = licensedv1.NodeState_NODE_STATE_DRAINING
	}
	for _, r := range m.Meta.GetRoles() {
		s.Roles = append(s.Roles, licensedv1.NodeRole(r)) // The numbers are the same.
	}
	return s
}

var errNotJoined = errors.New("the process is not ready yet")

// Status implements transport.Handler and routing.Self.
func (m *Self) Status(ctx context.Context) (*clusterv1.StatusResponse, error) {
	select {
	case <-m.joined:
	default:
		return nil, errNotJoined // Others can ask before this process is one of them.
	}
	s := &clusterv1.StatusResponse{
		Name: m.config.Name, Meta: m.meta(),
	}
	var st *cluster.NodeStatus // nil for a gateway
	if node, ok := m.config.Node.Get(); ok {
		st = new(node.Status())
		for _, row := range st.Rows {
			s.Shards = append(s.Shards, cluster.ShardMessage(row))
		}
		s.Held = &clusterv1.HeldShards{Incarnation: st.Incarnation[:]}
		for _, row := range st.Held {
			s.Held.Ids, s.Held.Epochs = append(s.Held.Ids, row.ID), append(s.Held.Epochs, row.Epoch)
		}
	}
	for _, d := range m.config.Members.Departed() {
		ago := m.config.Now().Sub(d.At).Microseconds()
		s.Departed = append(s.Departed, &clusterv1.Departed{Name: d.Name, Meta: d.Meta, AgoMicros: ago})
	}
	self, err := m.config.Status(ctx, st)
	if err != nil {
		return nil, err
	}
	self.Happenings = status.FirstHand(m.config.Name, m.config.Events.NewestFirst())
	name, data, err := payload.Codec{}.Marshal(self)
	s.Self = &clusterv1.Payload{Type: name, Data: data}
	return s, err
}
