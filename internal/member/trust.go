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
	"licensed/cluster/reach"
	"licensed/cluster/roster"
	"licensed/internal/namecheck"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// What others say by gossip is a hint: see packages roster and routing. Here it is held against the store.

// startRoster makes what reads leases.
func (m *Self) startRoster() (err error) {
	c := roster.DefaultConfig()
	c.Read, c.Absence = m.config.Store.Lease, m.config.Cluster.LeaseTTL
	c.Listener.Changed = func(persistence.Incarnation, persistence.Lease, roster.State) { signal(m.doubt) }
	m.owners.Store(new([]persistence.Incarnation))
	m.roster, err = roster.Start(c)
	return err
}

// signal has the reader of a channel of capacity 1 look again. It does not wait.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// believed returns of the members that gossip shows what the store bears out: an incarnation counts when its lease is
// alive and names this member, and then its process is reached at the address in the lease. Of several that claim one
// incarnation, or have one name, one is left: a node before a gateway, the one that joined last before others. A
// process whose incarnation has no lease is no member. Requires m.hearing.
func (m *Self) believed(all []membership.Member) (believed []membership.Member) {
	byName := map[string]int{}
	defer func() {
		// Remembered for the next list: see bornOut.
		m.believedIDs = map[string]bool{}
		for _, o := range believed {
			m.believedIDs[o.ID] = true
		}
	}()
	for _, o := range all {
		// This process knows itself, whatever gossip says of it.
		if o.ID != m.Gossip.ID() {
			var ok bool
			if o, ok = m.bornOut(o); !ok || o.Name == m.config.Name {
				continue
			}
		}
		at, known := byName[o.Name]
		switch {
		case !known:
			byName[o.Name] = len(believed)
			believed = append(believed, o)
		// A node comes before a gateway of its name; the list is in the order of joining.
		case len(o.Meta.GetIncarnation()) > 0 || len(believed[at].Meta.GetIncarnation()) == 0:
			believed[at] = o
		}
	}
	return believed
}

// bornOut returns a member without what the store does not bear out; false if nothing is left.
func (m *Self) bornOut(o membership.Member) (membership.Member, bool) {
	i, err := cluster.IncarnationOf(o.Meta.GetIncarnation())
	if err != nil {
		return o, false
	}
	if i.IsZero() {
		return o, true
	}
	l, state := m.roster.Look(i)
	switch {
	// Unknown: the store has not answered yet. A member that was believed before stays
	// one.
	case state == roster.Unknown && !m.believedIDs[o.ID], state == roster.Absent,
		state != roster.Unknown && l.Node != o.Name:
		return o, false
	}
	o.Meta = proto.CloneOf(o.Meta)
	if state != roster.Alive {
		// It has no lease any more, and may get another.
		o.Meta.Incarnation = nil
	}
	// Requests go to the address in the lease: a forged message cannot redirect them.
	if l.Address != "" {
		o.Meta.NodeAddress = l.Address
	}
	return o, true
}

// leased returns the other nodes that have a live lease, each at the address in it: those that gossip shows, and
// those that own shards though it does not. The latter are also returned as members, for the transport: requests to
// them continue.
func (m *Self) leased(all []membership.Member) (nodes []reach.Node, hidden []membership.Member) {
	// addresses are those of nodes with a lease, for AwaitNodes.
	addresses, shown := map[string]bool{}, map[persistence.Incarnation]bool{m.incarnation(): true}
	for _, o := range all {
		i := status.IncarnationOf(o.Meta)
		if i.IsZero() {
			continue
		}
		addresses[o.Meta.GetNodeAddress()] = true
		if shown[i] = true; o.Name != m.config.Name {
			nodes = append(nodes, reach.Node{Name: o.Name, Incarnation: i, Address: o.Meta.GetNodeAddress()})
		}
	}
	for _, i := range *m.owners.Load() {
		if shown[i] {
			continue
		}
		o, ok := m.leaseholder(i)
		if !ok {
			continue
		}
		addresses[o.Meta.NodeAddress] = true
		nodes = append(nodes, reach.Node{Name: o.Name, Incarnation: i, Address: o.Meta.NodeAddress})
		hidden = append(hidden, o)
	}
	m.nodes.Store(&addresses)
	return nodes, hidden
}

// live implements reach.Config.Live.
func (m *Self) live(i persistence.Incarnation) bool {
	m.roster.Suspect(i)
	_, state := m.roster.Look(i)
	return state == roster.Alive
}

// ClockOffset returns how far the clock of this process is ahead of that of the nodes among some members, and how many
// of those were compared.
func (m *Self) ClockOffset(all []membership.Member) (ahead time.Duration, peers int) {
	return m.Gossip.ClockOffset(m.clocks(all, m.Gossip.ID()))
}

// clocks returns the ids of the members, but for self, whose wall clocks count: nodes with a live lease, each once. If
// several claim to be one node, nobody knows whose clock is that node's, and none counts.
func (m *Self) clocks(all []membership.Member, self string) map[string]bool {
	claimed := map[persistence.Incarnation][]string{}
	for _, o := range all {
		if i := status.IncarnationOf(o.Meta); !i.IsZero() && o.ID != self {
			if l, state := m.roster.Look(i); state == roster.Alive && l.Node == o.Name {
				claimed[i] = append(claimed[i], o.ID)
			}
		}
	}
	ids := map[string]bool{}
	for _, claim := range claimed {
		if len(claim) == 1 {
			ids[claim[0]] = true
		}
	}
	return ids
}

// awaitName returns an error if another live process has the name of this gateway. Gossip
// must have joined before its list says anything: nodes are found by their leases, too. A
// former run of the gateway may be listed for some seconds: it does not answer.
func (m *Self) awaitName(ctx context.Context) error {
	ttl := m.config.Cluster.LeaseTTL
	if len(m.config.Cluster.Join) > 0 {
		select {
		case <-m.Gossip.Met():
		case <-time.After(namecheck.TTLs * ttl):
			m.config.Log.Warn("no other member reached by gossip; a process of the same name would not be found",
				"join", m.config.Cluster.Join)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c := namecheck.Check{
		ID: m.Gossip.ID(), TTL: ttl, Log: m.config.Log, Refuses: namecheck.Refuses,
		Ask: func(ctx context.Context, address string) (name string, starting bool, err error) {
			s, err := m.Transport.Status(ctx, address)
			self, _ := payload.Codec{}.Unmarshal(s.GetSelf().GetType(), s.GetSelf().GetData())
			is, _ := self.(*licensedv1.NodeStatus)
			return s.GetName(), is.GetState() == licensedv1.NodeState_NODE_STATE_STARTING, err
		},
	}
	for _, o := range m.Gossip.Members() {
		if o.Name == m.config.Name && o.ID != m.Gossip.ID() {
			c.Others = append(c.Others, o)
		}
	}
	return c.Run(ctx)
}

// reachedAt returns where the store says that an incarnation is reached.
func (m *Self) reachedAt(i persistence.Incarnation) (address string, ok bool) {
	l, state := m.roster.Look(i)
	return l.Address, state == roster.Alive && l.Address != ""
}

// errImpostor is that a process answers where another one is expected.
var errImpostor = errors.New("the store has no lease of its incarnation at this address")

// admit implements transport.Config.Admit: who answers under the address of a node has had a lease there.
func (m *Self) admit(ctx context.Context, address string, i persistence.Incarnation) error {
	if i.IsZero() {
		if nodes := m.nodes.Load(); nodes != nil && (*nodes)[address] {
			return fmt.Errorf("%w: the answer names no incarnation", errImpostor)
		}
		return nil // a gateway
	}
	l, state, err := m.roster.Await(ctx, i)
	switch {
	case err != nil:
		return fmt.Errorf("read the lease of %s: %w", i, err)
	case state == roster.Absent || l.Address != "" && l.Address != address:
		return fmt.Errorf("%w: %s", errImpostor, i)
	}
	return nil
}

// Scanned hears what the store says of all shards, from the node's loop or verify.
func (m *Self) Scanned(rows []persistence.Shard) {
	var owners []persistence.Incarnation
	seen := map[persistence.Incarnation]bool{{}: true}
	for _, row := range rows {
		if !seen[row.Owner] {
			seen[row.Owner] = true
			owners = append(owners, row.Owner)
		}
	}
	// Only a change has the members judged anew.
	if former := m.owners.Swap(&owners); !slices.Equal(*former, owners) {
		signal(m.doubt)
	}
}

// verify acts on what was read of leases, and has a gateway read the rows of shards when others say what it does not
// know. A node does that by itself.
func (m *Self) verify() {
	pause := m.config.Cluster.LeaseTTL / 2
	var next time.Time
	timer := time.NewTimer(0) // The rows count from the beginning, whichever members gossip shows.
	for {
		select {
		case <-m.context.Done():
			timer.Stop()
			return
		case <-m.doubt:
			m.SetMembers(m.Gossip.Members())
			continue
		case <-m.config.Map.Doubted():
			timer.Reset(max(0, time.Until(next)))
			continue
		case <-timer.C:
		}
		if !m.gateway() {
			continue
		}
		next = time.Now().Add(pause)
		ctx, cancel := context.WithTimeout(m.context, m.config.Cluster.LeaseTTL)
		began := time.Now()
		rows, err := m.config.Store.Shards(ctx)
		cancel()
		if err != nil {
			timer.Reset(pause)
			continue
		}
		m.config.Map.ReadAll(rows, began)
		m.Scanned(rows)
	}
}
