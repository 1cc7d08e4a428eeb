package member

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/roster"
	"licensed/internal/clusterstatus"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Read asks all members for their status.
func (m *Self) Read(ctx context.Context) *status.Reading {
	rows := m.config.Map
	r := status.NewReading(clusterstatus.Input{
		Name: m.config.Cluster.Name, Reporter: m.config.Name, Now: m.config.Now(), Shards: rows.Len(),
		// A released shard's row has no owner; the map remembers who was told to take it.
		Rows: slices.Concat(rows.StoredRows(), rows.Released()),
	}, m.config.Members.Departed())
	listed := m.Router.Statuses(ctx)
	r.Hear(listed, true)
	for _, s := range listed {
		if s.Err == nil {
			m.config.Members.Heard(s.Member.Name)
		}
	}
	// A second round, for those that gossip hides.
	if unlisted := m.unlisted(r); len(unlisted) > 0 {
		r.Hear(m.Router.StatusesOf(ctx, unlisted), false)
	}
	return r
}

// unlisted returns the processes that gossip does not list and that may run all the same: forged messages can hide a
// member. They are nodes whose lease is alive by the store, and gateways, which have no lease, that disappeared
// without a good-bye.
func (m *Self) unlisted(r *status.Reading) []membership.Member {
	known := map[string]bool{}
	for i := range r.Answers {
		known[r.Answers[i].Listed.GetName()] = true
	}
	all := slices.DeleteFunc(m.hiddenOwners(), func(o membership.Member) bool { return known[o.Name] })
	for _, o := range all {
		known[o.Name] = true
	}
	for name, d := range r.Departures {
		o := d.Member
		// It said good-bye, or was answered by somebody already.
		if i := status.IncarnationOf(o.Meta); known[name] || i.IsZero() && o.Meta.GetDraining() {
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

// errNotJoined is the answer of a process that is starting.
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
		// As a time ago: the clocks of two processes differ.
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
