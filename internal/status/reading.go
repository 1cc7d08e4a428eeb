package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/routing"
	"licensed/internal/clusterstatus"
	"licensed/internal/payload"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Reading collects what the status of a cluster is computed from.
type Reading struct {
	clusterstatus.Input
	// Departures of members that gossip does not list any more, by name, as any member saw them.
	Departures map[string]Departure
	// Told is what others tell of themselves.
	Told []*licensedv1.Happening
}

// NewReading returns a reading before anybody was asked, with the departures that this process saw.
func NewReading(in clusterstatus.Input, departed []Departure) *Reading {
	r := &Reading{Input: in, Departures: make(map[string]Departure)}
	for _, d := range departed {
		r.Departures[d.Name] = d
	}
	return r
}

// Hear adds answers of members. One that gossip does not list counts only if it answers: otherwise the departure says
// what is known of it.
func (r *Reading) Hear(statuses []routing.Status, listed bool) {
	for k := range statuses {
		s := &statuses[k]
		// Another process may have the address by now, such as a node that was started in
		// place of it.
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
		addDepartures(r.Departures, s.Response.GetDeparted(), r.Now)
		if a.Self != nil {
			// Its own events are added by the reporter itself.
			if a.Self.Name != r.Reporter {
				r.Told = append(r.Told, a.Self.Happenings...)
			}
			a.Self.Happenings = nil
		}
		r.Answers = append(r.Answers, a)
	}
}

// Complete returns all that was read, with the departures. Those of members that answered are passed over by the
// assessment.
func (r *Reading) Complete() *clusterstatus.Input {
	for _, d := range r.Departures {
		r.Departed = append(r.Departed, clusterstatus.Departure{
			Last: fromGossip(&d.Member), Incarnation: IncarnationOf(d.Meta), At: d.At,
		})
	}
	return &r.Input
}

// addDepartures adds members that another member saw disappear. A member that heard that one of them left on purpose is
// right: others may have missed its last message.
func addDepartures(all map[string]Departure, told []*clusterv1.Departed, now time.Time) {
	for _, d := range told {
		known, ok := all[d.GetName()]
		switch {
		case !ok:
			// The time that has passed, and not the moment: clocks differ.
			at := now.Add(-time.Duration(d.GetAgoMicros()) * time.Microsecond)
			all[d.GetName()] = Departure{Member: membership.Member{Name: d.GetName(), Meta: d.GetMeta()}, At: at}
		case d.GetMeta().GetDraining() && !known.Meta.GetDraining() &&
			IncarnationOf(d.GetMeta()) == IncarnationOf(known.Meta):
			known.Meta = d.GetMeta()
			all[d.GetName()] = known
		}
	}
}

// IncarnationOf returns the incarnation that a member announces; zero if it has none.
func IncarnationOf(meta *clusterv1.Meta) persistence.Incarnation {
	i, err := cluster.IncarnationOf(meta.GetIncarnation())
	if err != nil {
		return persistence.Incarnation{}
	}
	return i
}

// answerOf returns what a member said of itself, or why it said nothing.
func answerOf(s *routing.Status) clusterstatus.Answer {
	a := clusterstatus.Answer{Listed: fromGossip(&s.Member), Incarnation: IncarnationOf(s.Member.Meta)}
	if s.Err != nil {
		if a.Cause = s.Err.Error(); errors.Is(s.Err, context.DeadlineExceeded) {
			a.Cause = "timeout"
		}
		return a
	}
	self, err := payload.Codec{}.Unmarshal(s.Response.GetSelf().GetType(), s.Response.GetSelf().GetData())
	status, ok := self.(*licensedv1.NodeStatus)
	if err != nil || !ok {
		// A member of a release with another status.
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
		// Both lists are of one length unless the message was forged.
		if k < len(held.GetEpochs()) {
			a.Holds = append(a.Holds, clusterstatus.Held{Shard: id, Epoch: held.GetEpochs()[k]})
		}
	}
	return a
}

// fromGossip returns what a member lets everybody know; its load is not part of that.
func fromGossip(m *membership.Member) *licensedv1.NodeStatus {
	s := &licensedv1.NodeStatus{
		Name: m.Name, Version: m.Meta.GetVersion(),
		NodeAddress: m.Meta.GetNodeAddress(), ApiAddress: m.Meta.GetApiAddress(),
		Incarnation: IncarnationText(IncarnationOf(m.Meta)), State: licensedv1.NodeState_NODE_STATE_READY,
	}
	if m.Meta.GetDraining() {
		s.State = licensedv1.NodeState_NODE_STATE_DRAINING
	}
	for _, r := range m.Meta.GetRoles() {
		s.Roles = append(s.Roles, licensedv1.NodeRole(r)) // The numbers are the same.
	}
	return s
}
