package transport

import (
	"sync"

	"github.com/asynkron/protoactor-go/remote"

	"licensed/messages/clusterv1"
)

// outgoing is an answer to a request, or a message as it is.
type outgoing struct {
	id       uint32
	response *clusterv1.Response
	message  *remote.RemoteMessage
}

// outbox is what waits to be written to one peer. It is only as large as it has to be, since there is one
// for each peer and most are idle.
type outbox struct {
	ready chan struct{} // has an element if there may be something
	most  int

	mu   sync.Mutex
	list []outgoing
}

// put adds something, or returns false if there is no room.
func (b *outbox) put(o outgoing) bool {
	b.mu.Lock()
	if len(b.list) >= b.most {
		b.mu.Unlock()
		return false
	}
	b.list = append(b.list, o)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// take returns all that waits.
func (b *outbox) take() []outgoing {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}
