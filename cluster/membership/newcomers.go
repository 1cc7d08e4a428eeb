package membership

import (
	"maps"
	"net"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// newcomers are members that did not answer a probe yet. Few of them are listed at a time, so that a process that
// invents members fills neither the memory nor the list, and does not keep memberlist from probing the others. While
// there are too many, a member is listed after it answered a ping of its own: [Membership.verify].
type newcomers struct {
	since  map[string]time.Time         // when they were listed first, by id. Requires Membership.mu.
	proven *lru.Cache[string, struct{}] // ids that answered
	asked  chan *memberlist.Node        // the members to ping
}

const (
	// maxNewcomers is the number of newcomers that are listed. memberlist probes one member at a time: with its
	// default settings it takes from 32 s to 4 minutes to find out that none of this many exists. 50 members that all
	// start at once find each other in one second; with 32 it took 10 s.
	maxNewcomers = 64
	// newcomerFor is for how long a newcomer counts at least, listed or not: memberlist remembers the dead for 30 s
	// and more.
	newcomerFor = time.Minute
	// askedTogether is the number pinged at a time. An answer is awaited for Config.ProbeTimeout.
	askedTogether = 64
)

// newNewcomers returns an empty set. It remembers more ids that answered than can be
// listed at a time.
func newNewcomers() *newcomers {
	proven, err := lru.New[string, struct{}](2 * maxListed)
	if err != nil {
		panic(err) // The size is not positive.
	}
	return &newcomers{since: map[string]time.Time{}, proven: proven, asked: make(chan *memberlist.Node, askedTogether)}
}

// admit reports whether a member that is not listed may be. Requires m.mu.
func (r *run) admit(id string) bool {
	n := r.m.newcomers
	if n.proven.Contains(id) {
		return true
	}
	if _, known := n.since[id]; !known && len(n.since) >= maxNewcomers {
		maps.DeleteFunc(n.since, func(id string, since time.Time) bool {
			return r.members[id] == nil && time.Since(since) > newcomerFor
		})
		if len(n.since) >= maxNewcomers {
			return false
		}
	}
	n.since[id] = time.Now()
	return true
}

// answered notes that a member did. The current run may list it.
func (m *Membership) answered(id string) {
	m.newcomers.proven.Add(id, struct{}{})
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.newcomers.since, id)
}

// ask has a member pinged soon, if not too many others are. It does not wait.
func (n *newcomers) ask(o *memberlist.Node) {
	select {
	case n.asked <- o:
	default: // The member is heard of again.
	}
}

// verify pings the members that are to be, and joins those that answer and are not listed.
func (m *Membership) verify() {
	var pings errgroup.Group
	pings.SetLimit(askedTogether)
	joining := make(chan struct{}, 1) // One exchange has all that answered until then listed.
	for {
		select {
		case <-m.context.Done():
			_ = pings.Wait()
			return
		case n := <-m.newcomers.asked:
			pings.Go(func() error {
				r := m.run()
				if _, err := r.list.Ping(n.Name, &net.UDPAddr{IP: n.Addr, Port: int(n.Port)}); err != nil {
					return nil //nolint:nilerr // Nothing listens there.
				}
				m.answered(n.Name)
				joining <- struct{}{}
				defer func() { <-joining }()
				if !m.lists(n.Name) {
					m.tryAll(r, []string{n.Address()})
				}
				return nil
			})
		}
	}
}

// lists reports whether a member of that id is listed.
func (m *Membership) lists(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current.members[id] != nil
}
