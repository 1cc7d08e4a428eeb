package member

import (
	"context"
	"errors"
	"time"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// later says to all members, by each way there is, what the release before does not know.
func (m *Self) later() {
	m.Gossip.Spread(&clusterv1.News{LaterText: "later", Dead: [][]byte{[]byte("an id of another form")}}, func(membership.Member) bool { return true })
	ctx, cancel := context.WithTimeout(m.context, time.Second)
	defer cancel()
	for _, o := range m.Gossip.Members() {
		if o.Name == m.config.Name {
			continue
		}
		switch err := m.Transport.Later(ctx, o.Meta.GetNodeAddress()); {
		case errors.Is(err, actors.ErrNotSupported):
			m.config.Log.Info("a member does not know what it was asked", "member", o.Name)
		case err != nil:
			m.config.Log.Info("a member does not answer", "member", o.Name, "error", err)
		}
	}
}
