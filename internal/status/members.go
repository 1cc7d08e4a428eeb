package status

import (
	"slices"
	"sync"
	"time"

	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Members are the members that were heard of, by incarnation and by name. They are a view
// for operators: nothing is decided by them. Safe for concurrent use.
type Members struct {
	name   string // of this process
	now    func() time.Time
	events *Events

	// mu guards what follows.
	mu    sync.Mutex
	names map[persistence.Incarnation]string
	order []persistence.Incarnation // of names, the first one learned first
	here  map[string]present        // members that seem to be alive
	left  map[string]Departure      // members that no longer do
}

// present is a member that seems to be alive. It is proven if it had a lease, or if this process exchanged
// messages with it through the node port. Others may be inventions of forged gossip.
type present struct {
	membership.Member
	proven bool
}

// NewMembers returns the members as the process of that name knows them: none yet. Events get who joins and leaves.
func NewMembers(name string, now func() time.Time, events *Events) *Members {
	return &Members{
		name: name, now: now, events: events,
		names: make(map[persistence.Incarnation]string), left: make(map[string]Departure),
	}
}

// keptNames is the number of incarnations that are remembered by name: members that are present, and enough former
// ones for what happened lately to speak of nodes.
const keptNames = 4096

// learn remembers whose an incarnation is; m.mu is held.
func (m *Members) learn(i persistence.Incarnation, name string) {
	if _, known := m.names[i]; !known {
		if m.order = append(m.order, i); len(m.order) > keptNames {
			delete(m.names, m.order[0])
			m.order = slices.Delete(m.order, 0, 1)
		}
	}
	m.names[i] = name
}

// Departure is that of a member.
type Departure struct {
	membership.Member
	At time.Time
}

// rememberLeft is the time a member that left is shown, and rememberDead is the time one that disappeared without
// being asked to is.
const (
	rememberLeft = time.Hour
	rememberDead = 24 * time.Hour
)

// NameOf returns the name of a node by its incarnation, or what is known.
func (m *Members) NameOf(i persistence.Incarnation) string {
	if i.IsZero() {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if name := m.names[i]; name != "" {
		return name
	}
	return i.String()
}

// IncarnationText returns an incarnation for people; nothing for none.
func IncarnationText(i persistence.Incarnation) string {
	if i.IsZero() {
		return ""
	}
	return i.String()
}

// Notice compares the members that seem to be alive with those before, and records the
// differences as events. An incarnation in the meta of a member is one with a lease.
// Departures of members that were never proven to exist are not remembered.
func (m *Members) Notice(all []membership.Member) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.here
	m.here = make(map[string]present, len(all))
	for _, o := range all {
		// Once proven, a member stays so for as long as it is listed.
		p := present{o, before[o.Name].proven}
		if i := IncarnationOf(o.Meta); !i.IsZero() {
			m.learn(i, o.Name)
			p.proven = true
		}
		// It is back: its departure is forgotten.
		if m.here[o.Name] = p; p.proven {
			delete(m.left, o.Name)
		}
		// This process knows that it runs.
		if _, known := before[o.Name]; !known && o.Name != m.name {
			m.events.Add(now, &licensedv1.Happening{
				Kind: licensedv1.HappeningKind_HAPPENING_KIND_JOINED,
				Node: o.Name,
				Text: o.Name + " joined, version " + o.Meta.GetVersion(),
			})
		}
	}
	for name, o := range before {
		if _, there := m.here[name]; there {
			continue
		}
		if o.proven {
			m.left[name] = Departure{o.Member, now}
		}
		kind, text := licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED, name+" is not listed by gossip any more"
		if o.Meta.GetDraining() {
			kind, text = licensedv1.HappeningKind_HAPPENING_KIND_LEFT, name+" left"
		}
		m.events.Add(now, &licensedv1.Happening{Kind: kind, Node: name, Text: text})
	}
	// The dead are remembered for long, so that their absence is reported; those that
	// left are not missed.
	for name, d := range m.left {
		if age := now.Sub(d.At); age > rememberDead || d.Meta.GetDraining() && age > rememberLeft {
			delete(m.left, name)
		}
	}
}

// Heard records that a member of that name, if there is one, sent a message through the node port.
func (m *Members) Heard(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.here[name]; ok && !p.proven {
		p.proven = true
		m.here[name] = p
		delete(m.left, name)
	}
}

// Departed returns the members that left lately.
func (m *Members) Departed() []Departure {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Departure
	for _, d := range m.left {
		all = append(all, d)
	}
	return all
}

// IsNode reports whether a member of that name holds shards.
func (m *Members) IsNode(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.here[name].Meta.GetRoles(), clusterv1.Role_ROLE_NODE)
}

// Has reports whether a member of that name seems to be alive.
func (m *Members) Has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.here[name]
	return there
}
