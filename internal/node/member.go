package node

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/reach"
	"licensed/cluster/roster"
	"licensed/cluster/routing"
	"licensed/cluster/transport"
	"licensed/gateway"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/internal/version"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// member is this process among the others of its cluster: what they know of it, and how requests get from
// one to the other.
type member struct {
	n         *Node
	transport *transport.Transport
	router    *routing.Router
	gossip    *membership.Membership
	prober    *reach.Prober
	joined    chan struct{} // closed once the fields above are set

	witnesses atomic.Int64 // processes that are expected to ping this one
	roster    *roster.Roster
	owners    atomic.Pointer[[]persistence.Incarnation] // of shards, as the store last showed them
	nodes     atomic.Pointer[map[string]bool]           // addresses of nodes, by their leases
	doubt     chan struct{}                             // capacity 1: something was read of leases
	hearing   sync.Mutex                                // one list of members at a time
	// What the last list of members left, by incarnation and by id.
	believes    []persistence.Incarnation
	believedIDs map[string]bool

	strangers *membership.Strangers
	last      atomic.Pointer[persistence.Incarnation] // see incarnation

	draining   atomic.Bool
	told       chan struct{}     // capacity 1: what others know of this process changed
	news       chan cluster.News // to be spread
	introduced *clusterv1.Meta   // what others were told at first

	context context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	left    bool // nothing is started any more
	said    bool // that the node hands over its shards
	running sync.WaitGroup
}

const (
	// keptNews is the number of pieces of news that may wait to be spread. What finds no room comes with the next
	// exchange of full state.
	keptNews = 1024
	// tellEvery is the interval at which what others know of this process is brought up to date.
	tellEvery = time.Second
)

// startPort opens the port for requests of others, whose address is written to the lease.
func (n *Node) startPort(context.Context) error {
	if n.config.Store == "" || n.config.Cluster.Alone {
		return nil
	}
	m := &member{
		n: n, joined: make(chan struct{}), told: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		news: make(chan cluster.News, keptNews), strangers: membership.NewStrangers(n.cluster.ID, n.log),
	}
	m.context, m.cancel = context.WithCancel(context.Background())
	m.probe()
	n.push("probes", func(context.Context) error { m.prober.Close(); return nil })
	if err := m.startRoster(); err != nil {
		return err
	}
	n.push("roster", func(context.Context) error { m.roster.Close(); return nil })
	if err := m.listen(); err != nil {
		return err
	}
	n.push("node address", m.transport.Close) // closed as "node port", unless the start fails before that
	n.joining = m
	return nil
}

// startMember makes the process known to the others of its cluster.
func (n *Node) startMember(context.Context) error {
	m := n.joining
	if m == nil {
		return nil
	}
	n.push("node port", m.transport.Close)
	if err := m.route(); err != nil {
		return err
	}
	if err := m.join(); err != nil {
		return err
	}
	close(m.joined)
	n.push("gossip", m.leave)
	m.running.Go(m.spread)
	m.running.Go(m.tell)
	m.running.Go(m.verify)
	n.aggregates = m.router
	n.member.Store(m)
	return nil
}

// probe makes what finds out which nodes this process reaches, and which processes reach it.
func (m *member) probe() {
	c := reach.DefaultConfig()
	c.Process, c.Name, c.Votes, c.Patience, c.Log = persistence.NewIncarnation(), m.n.name, m.n.storage.Hot, m.n.config.Cluster.LeaseTTL, m.n.log
	c.Ping = func(ctx context.Context, address, member string) error {
		return m.transport.Ping(ctx, address, member, c.Process)
	}
	c.Changed, c.Live = m.n.retell, m.live
	m.prober = reach.Start(c)
}

// listen opens the port for requests between processes.
func (m *member) listen() (err error) {
	c := &m.n.config.Cluster
	t := transport.DefaultConfig()
	t.Cluster, t.Bind, t.Advertise = c.Name, c.NodeListen, c.NodeAdvertise
	t.ClusterID, t.Strangers, t.Incarnation, t.Admit = m.n.cluster.ID, m.strangers, m.incarnation, m.admit
	encryption, err := c.NodeTLS.OpenMutual("node-tls-", m.n.log)
	if err != nil {
		return err
	}
	if encryption != nil {
		t.ServerTLS, t.ClientTLS = encryption.Server(), encryption.Client
	}
	t.Pinged, t.Member = m.pinged, m.n.name
	t.Handler, t.Codec = m, payload.Codec{}
	t.MaxPeers = m.n.files.node
	if m.n.tracer != nil {
		t.Tracing = m.n.tracer
	}
	t.Observer, t.Log = m.n.clusterMetrics.transport(), m.n.log
	if m.transport, err = transport.Start(t); err != nil {
		return fmt.Errorf("node port: %w", err)
	}
	return nil
}

// pinged hears a ping of another process.
func (m *member) pinged(process persistence.Incarnation, name string) {
	m.prober.Heard(process, name)
	m.n.members.Heard(name)
}

// route makes what finds the owners of customers.
func (m *member) route() (err error) {
	c := routing.DefaultConfig()
	c.Name, c.Kind, c.Map, c.Leases, c.Transport, c.Self = m.n.name, license.Name, m.n.shardMap, m.roster, m.transport, m
	if node := m.n.owner.Load(); node != nil {
		c.Node = node
	}
	c.MaxPerNode, c.MaxPerShard = m.n.config.perNode(), m.n.config.perShard()
	c.Patience = m.n.config.Cluster.LeaseTTL
	c.Done = m.n.clusterMetrics.hear
	m.router, err = routing.New(c)
	return err
}

// maxRow is an upper bound of the size of a row in the state that members exchange, in bytes.
const maxRow = 64

// join makes the process a member.
func (m *member) join() error {
	c, g := &m.n.config.Cluster, membership.DefaultConfig()
	key, err := c.key()
	if err != nil {
		return err
	}
	g.Name, g.Bind, g.Advertise, g.Join, g.Label, g.Key = m.n.name, c.Bind, c.Advertise, c.Join, cmp.Or(c.Label, c.Name), key
	g.ClusterID, g.Strangers = m.n.cluster.ID, m.strangers
	m.introduced = m.meta()
	g.Meta, g.Now, g.Log = m.introduced, m.n.config.Now, m.n.log
	g.MaxState = maxRow * int(m.n.shards.Shards())
	g.Listener = membership.Listener{Members: m.members, News: m.hear, State: m.state}
	if m.gossip, err = membership.Start(g); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// awaitNodes waits until a node is known that can hold customers. Without one a gateway can serve no request.
func (n *Node) awaitNodes(ctx context.Context) error {
	m := n.member.Load()
	if m == nil || n.config.Roles.Has(RoleNode) {
		return nil
	}
	patience := time.NewTicker(noNodesYet)
	defer patience.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if nodes := m.nodes.Load(); nodes != nil && len(*nodes) > 0 {
			return m.awaitName(ctx)
		}
		select {
		case <-poll.C:
		case <-patience.C:
			n.log.Warn("no node of the cluster found yet; check that nodes run and that gossip reaches them", "join", n.config.Cluster.Join)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noNodesYet is the interval at which a gateway logs that it knows no node.
const noNodesYet = 5 * time.Second

// leave tells the others good-bye.
func (m *member) leave(ctx context.Context) error {
	m.mu.Lock()
	m.left = true
	m.mu.Unlock()
	m.cancel()
	m.running.Wait()
	m.prober.Close() // Before the node port is closed: nothing is to be blamed on others.
	return m.gossip.Leave(ctx)
}

// members hears who seems to be alive.
func (m *member) members(all []membership.Member) {
	select {
	case <-m.joined:
	case <-m.context.Done():
		return
	}
	m.hearing.Lock()
	defer m.hearing.Unlock()
	clocks := m.clocks(all)
	all = m.believed(all)
	m.suspectLost(all)
	nodes, hidden := m.leased(all)
	m.transport.SetMembers(slices.Concat(all, hidden))
	m.n.clusterMetrics.members.Set(float64(len(all)))
	m.n.members.Notice(all)
	m.setProbed(nodes, all)
	if node := m.n.owner.Load(); node != nil {
		node.SetMembers(nodesOf(all, m.n.name, m.draining.Load()))
		node.SetClockOffset(m.gossip.ClockOffset(clocks))
	}
	m.router.SetMembers(all)
}

// setProbed says which nodes are to be pinged.
func (m *member) setProbed(nodes []reach.Node, all []membership.Member) {
	var members []string
	for _, o := range all {
		if o.Meta.GetProbes() || o.Name == m.n.name {
			members = append(members, o.Name)
		}
	}
	members = slices.Compact(members) // One process may be listed twice: see membership.Member.
	m.prober.SetNodes(nodes, members)
	m.witnesses.Store(int64(m.prober.Expected(len(members) - 1)))
	m.setReached()
}

// setReached tells the node which processes reach it.
func (m *member) setReached() {
	node := m.n.owner.Load()
	if node == nil {
		return
	}
	node.SetReached(m.prober.Reached(), int(m.witnesses.Load()))
	m.n.health.Hold(node.Unreachable())
}

// nodesOf returns the members that hold shards, or will.
func nodesOf(all []membership.Member, self string, draining bool) []ownership.Member {
	var nodes []ownership.Member
	for _, o := range all {
		i, err := cluster.IncarnationOf(o.Meta.GetIncarnation())
		if err != nil || i.IsZero() && o.Name != self {
			continue
		}
		leaving := o.Meta.GetDraining() || o.Name == self && draining
		nodes = append(nodes, ownership.Member{
			Name: o.Name, Incarnation: i, Capacity: o.Meta.GetCapacity(), Eligible: !leaving && !o.Meta.GetClockWrong(),
			Unreachable: o.Meta.GetUnreachable(),
		})
	}
	return nodes
}

// suspectLost has the leases read of nodes that are not members any more.
func (m *member) suspectLost(all []membership.Member) {
	var now []persistence.Incarnation
	for _, o := range all {
		if i, err := cluster.IncarnationOf(o.Meta.GetIncarnation()); err == nil && !i.IsZero() {
			now = append(now, i)
		}
	}
	for _, i := range m.believes {
		if !slices.Contains(now, i) {
			m.roster.Suspect(i)
		}
	}
	m.believes = now
}

// incarnation is what this process says of itself when others connect: its last one with a lease.
func (m *member) incarnation() persistence.Incarnation {
	if node := m.n.owner.Load(); node != nil {
		if i := node.Incarnation(); !i.IsZero() {
			m.last.Store(&i)
		}
	}
	if i := m.last.Load(); i != nil {
		return *i
	}
	return persistence.Incarnation{}
}

// hear processes what others spread.
func (m *member) hear(news *clusterv1.News) {
	select {
	case <-m.joined:
	default:
		return // It comes again with the full state.
	}
	heard := cluster.NewsOf(news)
	for _, row := range heard.Shards {
		m.n.shardMap.Hear(row)
	}
	node := m.n.owner.Load()
	for _, i := range heard.Dead {
		m.roster.Suspect(i)
		if node != nil {
			node.Suspect(i)
		}
	}
}

// state returns all that a member may have missed.
func (m *member) state() *clusterv1.News { return cluster.News{Shards: m.n.shardMap.Rows()}.Message() }

// changed hears what others should, from the loop that renews the lease: nothing here waits.
func (n *Node) changed(news cluster.News) {
	m := n.member.Load()
	if m == nil {
		return // Nobody knows this process yet.
	}
	for _, i := range news.Dead {
		m.roster.Suspect(i)
	}
	select {
	case m.news <- news:
	default:
	}
}

// spread passes news on: to gateways and to nodes that get a shard at once, to all others by gossip.
func (m *member) spread() {
	for {
		select {
		case <-m.context.Done():
			return
		case news := <-m.news:
			successors := make(map[persistence.Incarnation]bool)
			for _, row := range news.Shards {
				successors[row.Successor] = true
			}
			m.gossip.Spread(news.Message(), func(o membership.Member) bool {
				i, err := cluster.IncarnationOf(o.Meta.GetIncarnation())
				return err == nil && (i.IsZero() || successors[i])
			})
		}
	}
}

// retell has what others know of this process brought up to date soon. It does not wait.
func (n *Node) retell() {
	if m := n.member.Load(); m != nil {
		select {
		case m.told <- struct{}{}:
		default:
		}
	}
}

// tell keeps what others know of this process up to date.
func (m *member) tell() {
	t := time.NewTicker(tellEvery)
	defer t.Stop()
	last := m.introduced
	for {
		select {
		case <-m.context.Done():
			return
		case <-m.told:
		case <-t.C:
		}
		m.setReached()
		now := m.meta()
		if proto.Equal(last, now) {
			continue
		}
		if err := m.gossip.SetMeta(now); err != nil {
			m.n.log.Error("gossip metadata of this process not updated", "error", err)
		}
		last = now
	}
}

// meta returns what others know of this process. It must change rarely, see package membership.
func (m *member) meta() *clusterv1.Meta {
	n := m.n
	meta := &clusterv1.Meta{
		NodeAddress: m.transport.Address(), Version: version.Version(), Capacity: n.config.Cluster.Capacity, Draining: m.draining.Load(),
		Probes: true,
	}
	if n.config.Roles.Has(RoleGateway) {
		meta.Roles = append(meta.Roles, clusterv1.Role_ROLE_GATEWAY)
		meta.ApiAddress = m.reachable(n.api.Addr())
	}
	if node := n.owner.Load(); node != nil {
		meta.Roles = append(meta.Roles, clusterv1.Role_ROLE_NODE)
		if i := node.Incarnation(); !i.IsZero() {
			meta.Incarnation = i[:]
		}
		meta.ClockWrong, meta.Unreachable = node.ClockWrong(), node.Reach() != ownership.Reached
	}
	return meta
}

// reachable returns an address as others reach it: one on all interfaces has the host of the node port.
func (m *member) reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	host, _, err := net.SplitHostPort(m.transport.Address())
	if err != nil {
		return a.String()
	}
	return net.JoinHostPort(host, fmt.Sprint(t.Port))
}

var errNoNode = fmt.Errorf("%w: this process is a gateway", actors.ErrNotOwner)

// Execute implements transport.Handler.
func (m *member) Execute(ctx context.Context, kind, id string, c actors.Command) (actors.Reply, error) {
	node, err := m.of(kind)
	if err != nil {
		return actors.Reply{}, err
	}
	return node.Execute(ctx, id, c)
}

// Query implements transport.Handler.
func (m *member) Query(ctx context.Context, kind, id string, query any) (actors.Answer, error) {
	node, err := m.of(kind)
	if err != nil {
		return actors.Answer{}, err
	}
	return node.Query(ctx, id, query)
}

// Operate implements transport.Handler.
func (m *member) Operate(ctx context.Context, kind, id string, request any) (actors.Answer, error) {
	node, err := m.of(kind)
	if err != nil {
		return actors.Answer{}, err
	}
	return node.Operate(ctx, id, request)
}

// of returns the node that holds aggregates of a kind.
func (m *member) of(kind string) (*cluster.Node, error) {
	if kind != license.Name {
		return nil, fmt.Errorf("%w: aggregates of kind %q", actors.ErrNotSupported, kind)
	}
	if node := m.n.owner.Load(); node != nil {
		return node, nil
	}
	return nil, errNoNode
}

// Status implements transport.Handler and routing.Self.
func (m *member) Status(ctx context.Context) (*clusterv1.StatusResponse, error) {
	n := m.n
	select {
	case <-m.joined:
	default:
		return nil, errNotStarted // Others can ask before this process is one of them.
	}
	st := n.ownerStatus()
	self, err := n.statusWith(ctx, st)
	if err != nil {
		return nil, err
	}
	s := &clusterv1.StatusResponse{
		Name: n.name, Meta: m.meta(),
	}
	if st != nil {
		for _, row := range st.Rows {
			s.Shards = append(s.Shards, cluster.ShardMessage(row))
		}
		s.Held = &clusterv1.HeldShards{Incarnation: st.Incarnation[:]}
		for _, row := range st.Held {
			s.Held.Ids, s.Held.Epochs = append(s.Held.Ids, row.ID), append(s.Held.Epochs, row.Epoch)
		}
	}
	for _, d := range n.members.Departed() {
		s.Departed = append(s.Departed, &clusterv1.Departed{Name: d.Name, Meta: d.Meta, AgoMicros: n.config.Now().Sub(d.At).Microseconds()})
	}
	self.Happenings = status.FirstHand(n.name, n.events.NewestFirst())
	name, data, err := payload.Codec{}.Marshal(self)
	s.Self = &clusterv1.Payload{Type: name, Data: data}
	return s, err
}

// Drain implements transport.Handler and routing.Self: the process hands over its shards and holds none
// until it is started again. What it serves beside that it still serves.
func (m *member) Drain(context.Context) error {
	if m.n.owner.Load() == nil { // The caller has seen it under another role.
		return errNoNode
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return nil // That is what it is doing.
	}
	m.n.log.Info("drain requested", "audit", true)
	m.running.Go(func() {
		if err := m.handOver(m.context); err != nil && m.context.Err() == nil {
			m.n.log.Error("drain failed", "error", err)
		}
	})
	return nil
}

// handOver gives all shards to other nodes, one by one.
func (m *member) handOver(ctx context.Context) error {
	node := m.n.owner.Load()
	if node == nil {
		return nil
	}
	m.draining.Store(true)
	m.n.retell()
	m.n.health.Set(gateway.Draining)
	m.mu.Lock()
	said := m.said
	m.said = true
	m.mu.Unlock()
	if !said {
		m.n.events.Add(m.n.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_LEFT, Node: m.n.name, Incarnation: node.Incarnation().String(),
			Text: fmt.Sprintf("%s hands over its shards", m.n.name),
		})
	}
	return m.n.handOver(ctx, node)
}

// Undrain implements transport.Handler and routing.Self: the process takes shards again. A drain that is not complete
// is completed first.
func (m *member) Undrain(context.Context) error {
	node := m.n.owner.Load()
	if node == nil {
		return errNoNode
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left || !node.Draining() {
		return nil
	}
	m.n.log.Info("undrain requested", "audit", true)
	m.running.Go(func() {
		if err := m.resume(m.context, node); err != nil && m.context.Err() == nil {
			m.n.log.Error("undrain failed", "error", err)
		}
	})
	return nil
}

// resume has the node begin a new incarnation, and tells the others that it takes shards.
func (m *member) resume(ctx context.Context, node *cluster.Node) error {
	if err := node.Undrain(ctx); err != nil {
		return err
	}
	m.draining.Store(false)
	m.n.health.Set(gateway.Ready)
	select {
	case <-m.n.done: // It is stopping: that began before, or sets both after this.
		m.draining.Store(true)
		m.n.health.Set(gateway.Draining)
		return nil
	default:
	}
	m.mu.Lock()
	m.said = false
	m.mu.Unlock()
	m.n.events.Add(m.n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED, Node: m.n.name, Text: m.n.name + " takes shards again",
	})
	m.n.retell()
	m.members(m.gossip.Members())
	m.n.log.Info("node undrained")
	return nil
}
