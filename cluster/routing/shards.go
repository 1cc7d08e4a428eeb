package routing

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/placement"
	"licensed/cluster/roster"
	"licensed/cluster/transport"
	"licensed/persistence"
)

// load counts the requests for one shard.
type load struct {
	shard    uint32
	inFlight atomic.Int64
}

// target is whom to ask: the node in this process, or the one at an address (host:port).
type target struct {
	local   bool
	address string
}

// view is what was known before an attempt.
type view struct {
	row     persistence.Shard
	owner   bool // the node to ask is the owner by the row
	unowned bool // the row names no incarnation whose lease may be alive
	detour  bool // another node than the row names is asked, since that one was just not reached
	to      target
	none    error           // there is nobody to ask
	changed <-chan struct{} // closed when the row changes
	members *members
}

// look says whom to ask now.
func (r *Router) look(id uint32) view {
	// The members first, and the row with its channel after them: a change between the
	// two makes the view older than necessary, and its channel is closed already.
	v := view{members: r.members.Load()}
	v.row, v.changed = r.config.Map.Watch(id)
	if node := r.config.Node; node != nil {
		// A shard that is held here needs no row: the node knows best.
		if _, held := node.Epoch(id); held {
			v.to.local = true
			return v
		}
	}
	// By the row, its owner; after a release, the successor, which may not have claimed
	// it yet.
	for _, i := range []persistence.Incarnation{v.row.Owner, v.row.Successor} {
		if v.to, v.none = r.find(i); v.none == nil {
			v.owner = i == v.row.Owner
			return v
		}
	}
	v.unowned = r.ended(v.row.Owner) && r.ended(v.row.Successor)
	v.to, v.none = r.guess(id)
	return v
}

// ended reports whether the store shows that an incarnation has no lease any more, or there is no incarnation.
func (r *Router) ended(i persistence.Incarnation) bool {
	if i.IsZero() {
		return true
	}
	_, state := r.config.Leases.Look(i)
	return state == roster.Dead || state == roster.Absent
}

// elsewhere returns the view with another node to ask than the one that was just not reached, if one is known: its
// shards may be another's by now, and the news of that lost. Who is not the owner says who is.
func (r *Router) elsewhere(v view, id uint32, avoid string) view {
	if avoid == "" || v.none != nil || v.to.address != avoid {
		return v
	}
	if to, err := r.guess(id); err == nil && to.address != avoid {
		v.to, v.owner, v.detour = to, false, true
		return v
	}
	for _, address := range r.members.Load().byName { // in no order: another one each time
		if address != avoid {
			v.to, v.owner, v.detour = target{address: address}, false, true
			break
		}
	}
	return v
}

// unreached returns the address of the node that an attempt did not reach; empty if it answered.
func unreached(v view, err error) string {
	if errors.Is(err, transport.ErrNotSent) || errors.Is(err, actors.ErrUnknownOutcome) {
		return v.to.address
	}
	return ""
}

// find returns an incarnation that seems to be alive: gossip lists it, or the store has its lease.
func (r *Router) find(i persistence.Incarnation) (target, error) {
	if i.IsZero() {
		return target{}, errNobody
	}
	if r.config.Node != nil && r.config.Node.Incarnation() == i {
		return target{local: true}, nil
	}
	l, state := r.config.Leases.Look(i)
	address, listed := r.members.Load().byIncarnation[i]
	switch {
	// The store's word counts more than gossip, which may list the dead for a while.
	case state == roster.Dead:
	case listed:
		return target{address: address}, nil
	case state == roster.Alive && l.Address != "":
		return target{address: l.Address}, nil
	}
	return target{}, errNobody
}

// guess returns the member that placement wants the shard to have.
func (r *Router) guess(id uint32) (target, error) {
	c := r.members.Load()
	name, ok := c.placement.Owner(id)
	switch {
	case !ok:
		return target{}, errNobody
	case name == r.config.Name && r.config.Node != nil:
		return target{local: true}, nil
	}
	return target{address: c.byName[name]}, nil
}

// learn processes what an error tells about the shard. It reports whether there is a later row than that of
// the view: somebody else to ask at once.
func (r *Router) learn(v view, err error) (redirected bool) {
	var other *cluster.NotOwnerError
	if errors.As(err, &other) && other.Row.ID == v.row.ID {
		// The owner by the row knows best: its answer counts even if it is the earlier
		// row.
		r.config.Map.Correct(v.row, other.Row, v.owner)
	} else if v.owner && (errors.Is(err, transport.ErrNotSent) || errors.Is(err, actors.ErrUnknownOutcome)) {
		r.suspect(v.row.Owner)
	}
	row, _ := r.config.Map.Row(v.row.ID)
	return ownership.Later(v.row, row)
}

// suspect has the lease of an incarnation read again.
func (r *Router) suspect(i persistence.Incarnation) {
	if !i.IsZero() {
		r.config.Leases.Suspect(i)
	}
}

// errDead is why requests to a node fail whose incarnation was marked dead.
var errDead = errors.New("the node was found to be dead")

// members are the processes of the cluster at one moment. They do not change once they
// are stored: requests read them without a lock.
type members struct {
	listed        []membership.Member // as gossip lists them, the dead among them
	all           map[string]string   // addresses of all of these, by name
	byName        map[string]string   // addresses of those that can be given shards
	byIncarnation map[persistence.Incarnation]string
	placement     *placement.Placement
	changed       chan struct{} // closed when requests go other ways
}

// newMembers returns the picture of a list from gossip, without the incarnations that the
// store shows to be dead.
func newMembers(listed []membership.Member, leases Leases) *members {
	c := &members{
		listed: listed, changed: make(chan struct{}), all: map[string]string{}, byName: map[string]string{},
		byIncarnation: map[persistence.Incarnation]string{},
	}
	var candidates []placement.Candidate
	for _, m := range listed {
		address := m.Meta.GetNodeAddress()
		if address == "" {
			continue
		}
		c.all[m.Name] = address
		// A member that has not said its incarnation is a gateway, or a node without a
		// lease.
		i, err := cluster.IncarnationOf(m.Meta.GetIncarnation())
		if err != nil || i.IsZero() || isDead(leases, i) {
			continue
		}
		c.byIncarnation[i] = address
		// As every node computes the placement, by the same rule: a guess is right where
		// gossip has settled.
		if !m.Meta.GetDraining() && !m.Meta.GetClockWrong() {
			c.byName[m.Name] = address
			candidates = append(candidates, placement.Candidate{
				Node: placement.Node{Name: m.Name, Capacity: m.Meta.GetCapacity()}, Reached: !m.Meta.GetUnreachable(),
			})
		}
	}
	c.placement, _ = placement.NewReached(candidates)
	return c
}

// absent tells people why nobody can be asked, if nobody can.
func (c *members) absent() string {
	switch names := c.nodes(func(m membership.Member) string { return m.Name }); len(names) {
	case 0:
		return "no node has a lease"
	case 1:
		return names[0] + " does not respond"
	default:
		return some(names) + " do not respond"
	}
}

// idle tells people which nodes could take a shard without an owner, and what is known of why they do not.
func (c *members) idle() string {
	return "its shard has no owner, and no node has taken it: " + some(c.nodes(func(m membership.Member) string {
		switch {
		case m.Meta.GetDraining():
			return m.Name + " (draining)"
		case m.Meta.GetClockWrong():
			return m.Name + " (wrong clock)"
		case m.Meta.GetUnreachable():
			return m.Name + " (node port not reached)"
		}
		return m.Name
	}))
}

// who returns the name of the listed node of an incarnation.
func (c *members) who(i persistence.Incarnation) string {
	for _, m := range c.listed {
		if bytes.Equal(m.Meta.GetIncarnation(), i[:]) {
			return m.Name
		}
	}
	return ""
}

// nodes returns what a function says of each node with a lease.
func (c *members) nodes(say func(membership.Member) string) (all []string) {
	for _, m := range c.listed {
		if i, err := cluster.IncarnationOf(m.Meta.GetIncarnation()); err == nil && !i.IsZero() {
			all = append(all, say(m))
		}
	}
	return all
}

// some joins the first few of many: an error message must stay readable with hundreds of
// nodes.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more nodes", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// same reports whether requests go the same ways.
func (c *members) same(o *members) bool {
	if len(c.byIncarnation) != len(o.byIncarnation) || len(c.byName) != len(o.byName) {
		return false
	}
	for i, a := range c.byIncarnation {
		if o.byIncarnation[i] != a {
			return false
		}
	}
	for n, a := range c.byName {
		if o.byName[n] != a {
			return false
		}
	}
	return true
}

// isDead reports whether the store reports it dead.
func isDead(leases Leases, i persistence.Incarnation) bool {
	_, state := leases.Look(i)
	return state == roster.Dead
}

// SetMembers says who seems to be alive. The slice belongs to the router from now on. Call it also after the store
// showed that one of them is dead: the requests in progress to that one fail, after others are sent elsewhere, since
// each of them looks for another node at once.
func (r *Router) SetMembers(listed []membership.Member) {
	for _, address := range r.replaceMembers(listed) {
		r.config.Transport.Fail(address, errDead)
	}
}

// replaceMembers returns the addresses of nodes that are not members any more since they are dead.
func (r *Router) replaceMembers(listed []membership.Member) (dead []string) {
	r.setting.Lock()
	defer r.setting.Unlock()
	former, now := r.members.Load(), newMembers(listed, r.config.Leases)
	// The same channel: requests that wait need not look again.
	if former.same(now) {
		now.changed = former.changed
		r.members.Store(now)
		return nil
	}
	r.members.Store(now)
	// After the store: a request that is woken must see the new members.
	close(former.changed)
	for i, address := range former.byIncarnation {
		if _, ok := now.byIncarnation[i]; !ok && isDead(r.config.Leases, i) {
			dead = append(dead, address)
		}
	}
	return dead
}
