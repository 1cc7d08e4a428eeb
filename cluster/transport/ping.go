package transport

import (
	"context"
	"errors"
	"fmt"

	"licensed/actors"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// ErrAnother says that the process at an address is not the member that was to be reached there.
var ErrAnother = errors.New("another process answers at this address")

// Ping returns nil if the process at an address answers and is the member of that name, or is of a release that
// answers no pings. The process is told who this one is. Errors: ErrAnother, and those of requests.
func (t *Transport) Ping(ctx context.Context, address, member string, process persistence.Incarnation) error {
	res, err := t.request(ctx, address, &clusterv1.Request{Body: &clusterv1.Request_Ping{Ping: &clusterv1.PingRequest{
		Process: process[:], Name: t.config.Member, Member: member,
	}}})
	switch {
	case errors.Is(err, actors.ErrNotSupported):
		return nil
	case err != nil:
		return err
	case res.GetPing() == nil:
		return noBody(address)
	case res.GetPing().GetMember() != member:
		return fmt.Errorf("%w: %s answers at %s, want %s", ErrAnother, res.GetPing().GetMember(), address, member)
	}
	return nil
}

// pinged answers a ping. One that is meant for another member says nothing about this one's address.
func (t *Transport) pinged(m *clusterv1.PingRequest) *clusterv1.PingResponse {
	process := m.GetProcess()
	if m.GetMember() == t.config.Member && len(process) == len(persistence.Incarnation{}) {
		t.config.Listener.Pinged(persistence.Incarnation(process), m.GetName())
	}
	return &clusterv1.PingResponse{Member: t.config.Member}
}
