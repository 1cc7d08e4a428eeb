package routing

import (
	"fmt"
	"sync"

	"licensed/actors"
)

// peers counts the requests in progress by the address of the node that they wait for. The zero value is ready.
type peers struct {
	mu sync.Mutex
	of map[string]int
}

// enter counts a request in. It returns false, and counts nothing, if most are in progress already.
func (p *peers) enter(address string, most int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[address] >= most {
		return false
	}
	if p.of == nil {
		p.of = map[string]int{}
	}
	p.of[address]++
	return true
}

// leave counts a request out.
func (p *peers) leave(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[address]--; p.of[address] == 0 {
		delete(p.of, address)
	}
}

// admit counts the request in for the node that the attempt goes to, in place of the one
// that it waited for before. It stays counted between attempts: a request that waits to
// try an unreachable node again still holds a slot of its caller. So it does while
// another node is asked where the owner is. Error: actors.ErrOverloaded, and nothing is
// counted then.
func (t *trial) admit(v view) error {
	to := v.to
	if t.counted == to.address || v.detour {
		return nil
	}
	t.depart()
	if to.address == "" { // the node in this process, which has limits of its own
		return nil
	}
	most := t.router.config.MaxPerNode
	if !t.router.peers.enter(to.address, most) {
		return fmt.Errorf("%w: %d requests to the node at %s are in progress", actors.ErrOverloaded, most, to.address)
	}
	t.counted = to.address
	return nil
}

// depart counts the request out.
func (t *trial) depart() {
	if t.counted != "" {
		t.router.peers.leave(t.counted)
		t.counted = ""
	}
}

// enter counts a request for the shard in. Leave it in any case.
func (s *load) enter(most int) error {
	if s.inFlight.Add(1) > int64(most) {
		return fmt.Errorf("%w: %d requests for shard %d are in progress", actors.ErrOverloaded, most, s.shard)
	}
	return nil
}

// leave counts a request for the shard out.
func (s *load) leave() { s.inFlight.Add(-1) }
