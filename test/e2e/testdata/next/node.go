package node

import (
	"context"
	"errors"
	"time"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// later says to all members, by each way there is, what the release before does not know.
func (m *member) later() {
	m.gossip.Spread(&clusterv1.News{LaterText: "later", Dead: [][]byte{[]byte("an id of another form")}}, func(membership.Member) bool { return true })
	ctx, cancel := context.WithTimeout(m.context, time.Second)
	defer cancel()
	for _, o := range m.gossip.Members() {
		if o.Name == m.n.name {
			continue
		}
		switch err := m.transport.Later(ctx, o.Meta.GetNodeAddress()); {
		case errors.Is(err, actors.ErrNotSupported):
			m.n.log.Info("a member does not know what it was asked", "member", o.Name)
		case err != nil:
			m.n.log.Info("a member does not answer", "member", o.Name, "error", err)
		}
	}
}
