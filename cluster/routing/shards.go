package routing

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/placement"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// shard is what is known of one.
type shard struct {
	id       uint32
	inFlight atomic.Int64 // requests

	mu      sync.Mutex
	row     persistence.Shard
	heard   time.Time     // when row was heard of, if that was not from the store
	changed chan struct{} // closed when something is heard; nil if nobody waits
}

// wake ends the waiting for news; the shard is locked.
func (s *shard) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// target is whom to ask.
type target struct {
	local   bool
	address string
}

// view is what was known before an attempt.
type view struct {
	row     persistence.Shard
	owner   bool // who is asked is the owner by the row
	detour  bool // who is asked is not whom the row names, since that one was just not reached
	to      target
	none    error // there is nobody to ask
	changed <-chan struct{}
}

// look says whom to ask now.
func (r *Router) look(id uint32) view {
	s := &r.shards[id]
	s.mu.Lock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	v := view{row: s.row, changed: s.changed}
	s.mu.Unlock()
	node := r.config.Node
	if node != nil {
		if _, held := node.Epoch(id); held {
			v.to.local = true
			return v
		}
		if row := node.Row(id); ownership.Later(v.row, row) {
			v.row = row
		}
	}
	for _, i := range []persistence.Incarnation{v.row.Owner, v.row.Successor} {
		if v.to, v.none = r.find(i); v.none == nil {
			v.owner = i == v.row.Owner
			return v
		}
	}
	v.to, v.none = r.guess(id)
	return v
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
	for _, address := range r.cast.Load().byName { // in no order: another one each time
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

// find returns an incarnation that seems to be there.
func (r *Router) find(i persistence.Incarnation) (target, error) {
	switch {
	case i.IsZero() || r.dead.has(i):
		return target{}, errNobody
	case r.config.Node != nil && r.config.Node.Incarnation() == i:
		return target{local: true}, nil
	}
	address, ok := r.cast.Load().byIncarnation[i]
	if !ok && r.config.Find != nil {
		address, ok = r.config.Find(i)
	}
	if ok {
		return target{address: address}, nil
	}
	return target{}, errNobody
}

// guess returns the member that placement wants the shard to have.
func (r *Router) guess(id uint32) (target, error) {
	c := r.cast.Load()
	name, ok := c.placement.Owner(id)
	switch {
	case !ok:
		return target{}, errNobody
	case name == r.config.Name && r.config.Node != nil:
		return target{local: true}, nil
	}
	return target{address: c.byName[name]}, nil
}

// Locate returns the address of the process that seems to own an aggregate, also of this one's if known;
// false if nobody seems to.
func (r *Router) Locate(kind, id string) (address string, ok bool) {
	if kind != r.config.Kind {
		return "", false
	}
	v := r.look(cluster.ShardOf(id+":"+kind, r.config.Shards))
	if v.to.local {
		address, ok = r.cast.Load().all[r.config.Name]
		return address, ok
	}
	return v.to.address, v.none == nil
}

// learn takes in what an error tells about the shard. It reports whether there is a later row than that of
// the view: somebody else to ask at once.
func (r *Router) learn(v view, err error) (redirected bool) {
	var other *cluster.NotOwnerError
	if errors.As(err, &other) && other.Row.ID == v.row.ID {
		r.correct(v, other.Row)
	} else if v.owner && (errors.Is(err, transport.ErrNotSent) || errors.Is(err, actors.ErrUnknownOutcome)) {
		r.suspect(v.row.Owner)
	}
	s := &r.shards[v.row.ID]
	s.mu.Lock()
	defer s.mu.Unlock()
	return ownership.Later(v.row, s.row)
}

// correct takes in a row from one that is not the owner. A later one counts; and if the one that was asked
// because of the known row denies it, then its row counts though it is earlier: rows are heard from many,
// and one that is wrong must not stay forever.
func (r *Router) correct(v view, row persistence.Shard) {
	s := &r.shards[row.ID]
	s.mu.Lock()
	defer s.mu.Unlock()
	if ownership.Later(s.row, row) || v.owner && s.row == v.row && row != s.row {
		r.hear(s, row)
	}
}

// hear goes by a row until the store is asked. The shard is locked.
func (r *Router) hear(s *shard, row persistence.Shard) {
	s.row, s.heard = row, time.Now()
	s.wake()
	select {
	case r.doubted <- struct{}{}:
	default:
	}
}

// Hear records news, which are hints: a death is suspected, and a row counts until [Router.Verify]. It may be called by
// several goroutines, and does not block.
func (r *Router) Hear(news *clusterv1.News) {
	for _, b := range news.GetDead() {
		if i, err := cluster.IncarnationOf(b); err == nil {
			r.suspect(i)
		}
	}
	for _, m := range news.GetShards() {
		row, err := cluster.ShardRow(m)
		if err != nil || row.ID >= r.config.Shards {
			continue
		}
		s := &r.shards[row.ID]
		s.mu.Lock()
		if ownership.Later(s.row, row) {
			r.hear(s, row)
		}
		s.mu.Unlock()
	}
}

// Doubted receives a value after rows were heard of that the store did not show. Verify is to be called then, within a TTL of
// leases.
func (r *Router) Doubted() <-chan struct{} { return r.doubted }

// Verify goes by the rows of all shards as the store showed them to a read that began at that time: what was heard before,
// from whomever, gives way to it.
func (r *Router) Verify(rows []persistence.Shard, began time.Time) {
	shown := make([]persistence.Shard, len(r.shards))
	for _, row := range rows {
		if uint64(row.ID) < uint64(len(shown)) {
			shown[row.ID] = row
		}
	}
	for id, row := range shown {
		row.ID = uint32(id)
		s := &r.shards[id]
		s.mu.Lock()
		if s.row != row && (s.heard.Before(began) || ownership.Later(s.row, row)) {
			s.row, s.heard = row, began
			s.wake()
		}
		s.mu.Unlock()
	}
}

// suspect has the lease of an incarnation looked at.
func (r *Router) suspect(i persistence.Incarnation) {
	if r.config.Suspect != nil && !i.IsZero() {
		r.config.Suspect(i)
	}
}

// Bury notes that an incarnation is dead: its lease row says so. Gossip may continue to list it for seconds: nobody is sent
// there any more before the requests that are on their way to it fail, for they look for another at once.
func (r *Router) Bury(i persistence.Incarnation) {
	r.casting.Lock()
	news := r.dead.bury(i)
	address, listed := r.cast.Load().byIncarnation[i]
	if news && listed {
		r.recast(r.cast.Load().members)
	}
	r.casting.Unlock()
	if news && listed {
		r.config.Transport.Fail(address, errDead)
	}
}

// errDead is why requests to a node fail whose incarnation was marked dead.
var errDead = errors.New("the node was found to be dead")

// Rows returns the rows of all shards as last heard: hints.
func (r *Router) Rows() []persistence.Shard {
	rows := make([]persistence.Shard, len(r.shards))
	for id := range r.shards {
		s := &r.shards[id]
		s.mu.Lock()
		rows[id] = s.row
		s.mu.Unlock()
	}
	return rows
}

// News returns all rows that were heard, for one that may have missed some.
func (r *Router) News() *clusterv1.News {
	news := &clusterv1.News{}
	for _, row := range r.Rows() {
		if row.Epoch > 0 {
			news.Shards = append(news.Shards, cluster.ShardMessage(row))
		}
	}
	return news
}

// cast is who is there. It does not change.
type cast struct {
	members       []membership.Member // as gossip lists them, the dead among them
	all           map[string]string   // addresses of all of these, by name
	byName        map[string]string   // addresses of those that can be given shards
	byIncarnation map[persistence.Incarnation]string
	placement     *placement.Placement
}

func newCast(members []membership.Member, dead *burials) *cast {
	c := &cast{
		members: members, all: map[string]string{}, byName: map[string]string{},
		byIncarnation: map[persistence.Incarnation]string{},
	}
	var nodes, all []placement.Node
	for _, m := range members {
		address := m.Meta.GetNodeAddress()
		if address == "" {
			continue
		}
		c.all[m.Name] = address
		i, err := cluster.IncarnationOf(m.Meta.GetIncarnation())
		if err != nil || i.IsZero() || dead.has(i) {
			continue
		}
		c.byIncarnation[i] = address
		if !m.Meta.GetDraining() && !m.Meta.GetClockWrong() {
			c.byName[m.Name] = address
			node := placement.Node{Name: m.Name, Capacity: m.Meta.GetCapacity()}
			if all = append(all, node); !m.Meta.GetUnreachable() {
				nodes = append(nodes, node)
			}
		}
	}
	if len(nodes) == 0 { // nobody is known to be reached: see package ownership
		nodes = all
	}
	c.placement = placement.New(nodes)
	return c
}

// absent tells people why nobody can be asked, if nobody can.
func (c *cast) absent() string {
	const most = 5
	var names []string
	for _, m := range c.members {
		if i, err := cluster.IncarnationOf(m.Meta.GetIncarnation()); err == nil && !i.IsZero() {
			names = append(names, m.Name)
		}
	}
	switch n := len(names); {
	case n == 0:
		return "no node has a lease"
	case n == 1:
		return names[0] + " does not respond"
	case n > most:
		return fmt.Sprintf("%s and %d more nodes do not respond", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ") + " do not respond"
}

// same reports whether requests go the same ways.
func (c *cast) same(o *cast) bool {
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

// SetMembers says who seems to be there. It belongs to the router from now on.
func (r *Router) SetMembers(members []membership.Member) {
	r.casting.Lock()
	defer r.casting.Unlock()
	r.recast(members)
}

// recast goes by other members, or by more dead among the same. Requires r.casting.
func (r *Router) recast(members []membership.Member) {
	now := newCast(members, &r.dead)
	if before := r.cast.Swap(now); before.same(now) {
		return
	}
	for id := range r.shards {
		s := &r.shards[id]
		s.mu.Lock()
		s.wake()
		s.mu.Unlock()
	}
}

// burials are incarnations that were marked dead; the latest of them.
type burials struct {
	mu    sync.RWMutex
	of    map[persistence.Incarnation]struct{}
	order []persistence.Incarnation
}

// maxBurials is how many are kept in mind.
const maxBurials = 1024

// bury notes a death, and reports whether it is news.
func (b *burials) bury(i persistence.Incarnation) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.of[i]; known || i.IsZero() {
		return false
	}
	if b.of == nil {
		b.of = map[persistence.Incarnation]struct{}{}
	}
	if len(b.order) >= maxBurials {
		delete(b.of, b.order[0])
		b.order = b.order[1:]
	}
	b.of[i] = struct{}{}
	b.order = append(b.order, i)
	return true
}

func (b *burials) has(i persistence.Incarnation) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, ok := b.of[i]
	return ok
}
