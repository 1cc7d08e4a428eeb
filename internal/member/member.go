// Package member is a process as one of several of a cluster: what the others know of it, what it knows of them by
// gossip and by the store, and how requests get from one process to another.
//
// A process listens first ([Listen]), since the address of its node port is written to its lease. Then it becomes a
// node, if it is to hold shards. At last it joins ([Self.Join]): from then on others know it. It leaves in the reverse
// order.
package member

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors/license"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/reach"
	"licensed/cluster/roster"
	"licensed/cluster/routing"
	"licensed/cluster/transport"
	"licensed/gateway"
	"licensed/internal/networks"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/internal/tlsfiles"
	"licensed/internal/version"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Self is this process as a member of its cluster. It is safe for concurrent use.
type Self struct {
	config Config
	// The parts of a member are set by Listen, and Router and Gossip by Join.
	Transport *transport.Transport
	Prober    *reach.Prober
	Router    *routing.Router
	Gossip    *membership.Membership
	// Certificates of the node port; nil for none.
	Certificates *tlsfiles.Certificates

	joined chan struct{} // closed once the fields above are set

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

// Listen opens the port for requests of others, whose address is written to the lease. The process is no member yet.
func Listen(c Config) (*Self, error) {
	m := &Self{
		config: c, joined: make(chan struct{}), told: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		news: make(chan cluster.News, keptNews), strangers: membership.NewStrangers(c.Info.ID, c.Log),
	}
	m.context, m.cancel = context.WithCancel(context.Background())
	// From here on an error ends what was started before it, in the reverse order.
	m.probe()
	if err := m.startRoster(); err != nil {
		m.Prober.Close()
		return nil, err
	}
	if err := m.listen(); err != nil {
		m.roster.Close()
		m.Prober.Close()
		return nil, err
	}
	return m, nil
}

// Close closes what Listen opened.
func (m *Self) Close(ctx context.Context) error {
	m.cancel()
	err := m.Transport.Close(ctx)
	m.roster.Close()
	m.Prober.Close()
	return err
}

// Join makes the process known to the others of its cluster.
func (m *Self) Join() error {
	if err := m.route(); err != nil {
		return err
	}
	if err := m.join(); err != nil {
		return err
	}
	// What was heard before is dropped: it comes again with the full state.
	close(m.joined)
	m.running.Go(m.spread)
	m.running.Go(m.tell)
	m.running.Go(m.verify)
	return nil
}

// gateway reports whether the process serves the API.
func (m *Self) gateway() bool { return m.config.API != "" }

// probe makes what finds out which nodes this process reaches, and which processes reach it.
func (m *Self) probe() {
	c := reach.DefaultConfig()
	c.Process, c.Name, c.Votes = persistence.NewIncarnation(), m.config.Name, m.config.Store
	c.Patience, c.Log = m.config.Cluster.LeaseTTL, m.config.Log
	c.Ping = func(ctx context.Context, address, member string) error {
		return m.Transport.Ping(ctx, address, member, c.Process)
	}
	c.Listener.Changed, c.Live = m.Retell, m.live
	m.Prober = reach.Start(c)
}

// listen opens the port for requests between processes.
func (m *Self) listen() (err error) {
	c := &m.config.Cluster
	t := transport.DefaultConfig()
	t.Cluster, t.Bind, t.Advertise = c.Name, c.NodeListen, c.NodeAdvertise
	t.ClusterID, t.Strangers, t.Incarnation, t.Admit = m.config.Info.ID, m.strangers, m.incarnation, m.admit
	if t.Networks, err = networks.Parse(c.Networks); err != nil {
		return fmt.Errorf("member-networks: %w", err)
	}
	encryption, err := c.NodeTLS.OpenMutual("node-tls-", tlsfiles.Options{
		Log: m.config.Log, AcceptExpiredCRLs: m.config.AcceptExpiredCRLs,
	})
	if err != nil {
		return err
	}
	m.Certificates = encryption
	if encryption != nil {
		t.ServerTLS, t.ClientTLS = encryption.Server(), encryption.Client
	}
	known, err := c.processes(encryption)
	if err == nil && known != nil {
		err = known.own(c.NodeTLS, m.config.Holds)
		t.Identify, t.ClientTLS = known.identify, func() *tls.Config { return known.client(encryption) }
	}
	if err != nil {
		return err
	}
	t.Member = m.config.Name
	t.Handler, t.Codec = handler{m}, payload.Codec{}
	t.MaxPeers = m.config.MaxPeers
	// A nil pointer in the interface would not be nil.
	if m.config.Tracer != nil {
		t.Tracing = m.config.Tracer
	}
	t.Listener, t.Log = m.config.Metrics.listener(), m.config.Log
	t.Listener.Pinged = m.pinged
	if m.Transport, err = transport.Start(t); err != nil {
		return fmt.Errorf("node port: %w", err)
	}
	return nil
}

// pinged hears a ping of another process.
func (m *Self) pinged(process persistence.Incarnation, name string) {
	m.Prober.Heard(process, name)
	m.config.Members.Heard(name)
}

// route makes what finds the owners of customers.
func (m *Self) route() (err error) {
	c := routing.DefaultConfig()
	c.Name, c.Kind, c.Map = m.config.Name, license.Name, m.config.Map
	c.Leases, c.Transport, c.Self = m.roster, m.Transport, m
	if node, ok := m.config.Node.Get(); ok {
		c.Node = node
	}
	c.MaxPerNode, c.MaxPerShard = m.config.MaxPerNode, m.config.MaxPerShard
	// The shards of a node without a lease are taken over within a TTL.
	c.Patience = m.config.Cluster.LeaseTTL
	c.Listener.Done = m.config.Metrics.hear
	m.Router, err = routing.New(c)
	return err
}

// maxRow is an upper bound of the size of a row in the state that members exchange, in bytes.
const maxRow = 64

// join makes the process a member.
func (m *Self) join() error {
	c, g := &m.config.Cluster, membership.DefaultConfig()
	keys, err := c.gossipKeys()
	if err != nil {
		return err
	}
	if keys != nil {
		g.Keys = keys.ring
	}
	g.Name, g.Bind, g.Advertise, g.Join = m.config.Name, c.Bind, c.Advertise, c.Join
	// Clusters on one network are kept apart by their names, unless a label does.
	g.Label = cmp.Or(c.Label, c.Name)
	if g.Networks, err = networks.Parse(c.Networks); err != nil {
		return fmt.Errorf("member-networks: %w", err)
	}
	g.ClusterID, g.Strangers = m.config.Info.ID, m.strangers
	m.introduced = m.meta()
	g.Meta, g.Now, g.Log = m.introduced, m.config.Now, m.config.Log
	g.MaxState = maxRow * int(m.config.Map.Len())
	g.Listener = membership.Listener{Members: m.SetMembers, News: m.hear, State: m.state}
	if m.Gossip, err = membership.Start(g); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if keys != nil {
		m.running.Go(func() { keys.watch(m.context, m.config.Log) })
	}
	return nil
}

// Watch logs shards that nobody serves, until the process leaves.
func (m *Self) Watch() { m.running.Go(m.watchShards) }

// AwaitNodes waits until a node is known that can hold customers. Without one a gateway can serve no request.
//
// Errors: cluster.ErrNameTaken, and ctx's.
func (m *Self) AwaitNodes(ctx context.Context) error {
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
			m.config.Log.Warn("no node of the cluster found yet; check that nodes run and that gossip reaches them",
				"join", m.config.Cluster.Join)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noNodesYet is the interval at which a gateway logs that it knows no node.
const noNodesYet = 5 * time.Second

// Leave tells the others good-bye, and ends what Join began.
func (m *Self) Leave(ctx context.Context) error {
	m.mu.Lock()
	m.left = true
	m.mu.Unlock()
	m.cancel()
	m.running.Wait()
	m.Prober.Close() // Before the node port is closed: nothing is to be blamed on others.
	return m.Gossip.Leave(ctx)
}

// SetMembers hears who seems to be alive.
func (m *Self) SetMembers(all []membership.Member) {
	select {
	case <-m.joined:
	case <-m.context.Done():
		return
	}
	// One list at a time: what is believed depends on the list before.
	m.hearing.Lock()
	defer m.hearing.Unlock()
	ahead, peers := m.ClockOffset(all)
	all = m.believed(all)
	// Those that are missing are looked up in the store, and not taken for dead.
	m.suspectLost(all)
	nodes, hidden := m.leased(all)
	// Nodes that gossip does not show keep their connections, since they may own shards.
	m.Transport.SetMembers(slices.Concat(all, hidden))
	m.config.Metrics.members.Set(float64(len(all)))
	m.config.Members.Notice(all)
	m.setProbed(nodes, all)
	if node, ok := m.config.Node.Get(); ok {
		node.SetMembers(nodesOf(all, m.config.Name, m.draining.Load()))
		node.SetClockOffset(ahead, peers)
	}
	// Last: the router looks up what was set above.
	m.Router.SetMembers(all)
}

// setProbed says which nodes are to be pinged.
func (m *Self) setProbed(nodes []reach.Node, all []membership.Member) {
	var members []string
	for _, o := range all {
		if o.Meta.GetProbes() || o.Name == m.config.Name {
			members = append(members, o.Name)
		}
	}
	members = slices.Compact(members) // One process may be listed twice: see membership.Member.
	m.Prober.SetNodes(nodes, members)
	m.witnesses.Store(int64(m.Prober.Expected(len(members) - 1)))
	m.setReached()
}

// setReached tells the node which processes reach it.
func (m *Self) setReached() {
	node, ok := m.config.Node.Get()
	if !ok {
		return
	}
	node.SetReached(m.Prober.Reached(), int(m.witnesses.Load()))
	m.config.Health.Hold(node.Unreachable())
}

// nodesOf returns the members that hold shards, or will.
func nodesOf(all []membership.Member, self string, draining bool) []ownership.Member {
	var nodes []ownership.Member
	for _, o := range all {
		i, err := cluster.IncarnationOf(o.Meta.GetIncarnation())
		// This node takes part before its lease is known to others.
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
func (m *Self) suspectLost(all []membership.Member) {
	var now []persistence.Incarnation
	for _, o := range all {
		if i := status.IncarnationOf(o.Meta); !i.IsZero() {
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
func (m *Self) incarnation() persistence.Incarnation {
	if node, ok := m.config.Node.Get(); ok {
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
func (m *Self) hear(news *clusterv1.News) {
	select {
	case <-m.joined:
	default:
		return // It comes again with the full state.
	}
	heard := cluster.NewsOf(news)
	for _, row := range heard.Shards {
		m.config.Map.Hear(row)
	}
	node, ok := m.config.Node.Get()
	for _, i := range heard.Dead {
		m.roster.Suspect(i)
		if ok {
			node.Suspect(i)
		}
	}
}

// state returns all that a member may have missed.
func (m *Self) state() *clusterv1.News { return cluster.News{Shards: m.config.Map.Rows()}.Message() }

// Changed hears what others should, from the loop that renews the lease: nothing here waits.
func (m *Self) Changed(news cluster.News) {
	select {
	case <-m.joined:
	default:
		return // Nobody knows this process yet.
	}
	for _, i := range news.Dead {
		m.roster.Suspect(i)
	}
	// The loop does not wait: what finds no room comes with the next full state.
	select {
	case m.news <- news:
	default:
	}
}

// spread passes news on: to gateways and to nodes that get a shard at once, to all others by gossip.
func (m *Self) spread() {
	for {
		select {
		case <-m.context.Done():
			return
		case news := <-m.news:
			successors := make(map[persistence.Incarnation]bool)
			for _, row := range news.Shards {
				successors[row.Successor] = true
			}
			m.Gossip.Spread(news.Message(), func(o membership.Member) bool {
				i, err := cluster.IncarnationOf(o.Meta.GetIncarnation())
				// Gateways send requests, and a successor has to claim: both need the
				// news at once. Gossip takes about a second.
				return err == nil && (i.IsZero() || successors[i])
			})
		}
	}
}

// Retell has what others know of this process brought up to date soon. It does not wait.
func (m *Self) Retell() { signal(m.told) }

// tell keeps what others know of this process up to date.
func (m *Self) tell() {
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
		// Who reaches this process is part of what it tells.
		m.setReached()
		now := m.meta()
		// A change of the metadata is gossiped to all: the same is not told again.
		if proto.Equal(last, now) {
			continue
		}
		if err := m.Gossip.SetMeta(now); err != nil {
			m.config.Log.Error("gossip metadata of this process not updated", "error", err)
		}
		last = now
	}
}

// meta returns what others know of this process. It must change rarely, see package membership.
func (m *Self) meta() *clusterv1.Meta {
	meta := &clusterv1.Meta{
		NodeAddress: m.Transport.Address(), Version: version.Version(), Capacity: m.config.Cluster.Capacity,
		Draining: m.draining.Load(), Probes: true,
	}
	if m.gateway() {
		meta.Roles = append(meta.Roles, clusterv1.Role_ROLE_GATEWAY)
		meta.ApiAddress = m.API()
	}
	if node, ok := m.config.Node.Get(); ok {
		meta.Roles = append(meta.Roles, clusterv1.Role_ROLE_NODE)
		if i := node.Incarnation(); !i.IsZero() {
			meta.Incarnation = i[:]
		}
		// Others place no shards on a node that reports one of these.
		meta.ClockWrong, meta.Unreachable = node.ClockWrong(), node.Reach() != ownership.Reached
	}
	return meta
}

// API returns the address of this process's API as others reach it: one on all interfaces has the host of the node
// port. Empty: the process serves none.
func (m *Self) API() string {
	host, port, err := net.SplitHostPort(m.config.API)
	if err != nil || !net.ParseIP(host).IsUnspecified() {
		return m.config.API
	}
	if host, _, err = net.SplitHostPort(m.Transport.Address()); err != nil {
		return m.config.API
	}
	return net.JoinHostPort(host, port)
}

// Drain implements routing.Self: the process hands over its shards and holds none
// until it is started again. What it serves beside that it still serves.
func (m *Self) Drain(context.Context) error {
	node, ok := m.config.Node.Get()
	if !ok { // The caller has seen it under another role.
		return errNoNode
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return nil // That is what it is doing.
	}
	m.config.Log.Info("drain requested", "audit", true)
	m.running.Go(func() {
		if err := m.handOver(m.context, node); err != nil && m.context.Err() == nil {
			m.config.Log.Error("drain failed", "error", err)
		}
	})
	return nil
}

// HandOver gives all shards of this process to other nodes, if it has any.
func (m *Self) HandOver(ctx context.Context) error {
	if node, ok := m.config.Node.Get(); ok {
		return m.handOver(ctx, node)
	}
	return nil
}

// handOver gives all shards of a node to others, and tells everybody.
func (m *Self) handOver(ctx context.Context, node *cluster.Node) error {
	m.draining.Store(true)
	m.Retell()
	m.config.Health.Set(gateway.Draining)
	// One event for each drain, however often it is asked for.
	m.mu.Lock()
	said := m.said
	m.said = true
	m.mu.Unlock()
	if !said {
		m.config.Events.Add(m.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_LEFT, Node: m.config.Name,
			Incarnation: node.Incarnation().String(), Text: fmt.Sprintf("%s hands over its shards", m.config.Name),
		})
	}
	return HandOver(ctx, node, m.config.Log)
}

// HandOver gives all shards to other nodes, if there are any. Without a lease, which ends when the store does not
// answer, there is nothing to give: that is no error of a stop.
func HandOver(ctx context.Context, node *cluster.Node, log *slog.Logger) error {
	began := time.Now()
	switch err := node.Drain(ctx); {
	case errors.Is(err, cluster.ErrLapsed):
		log.Warn("shards not handed over: the lease had ended; other nodes take them over as after a crash",
			"error", err)
	case err != nil && !errors.Is(err, ownership.ErrRetired):
		return err
	default:
		log.Info("shards handed over", "duration", time.Since(began).Round(time.Millisecond).String())
	}
	return nil
}

// Undrain implements routing.Self: the process takes shards again. A drain that is not complete
// is completed first.
func (m *Self) Undrain(context.Context) error {
	node, ok := m.config.Node.Get()
	if !ok {
		return errNoNode
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left || !node.Draining() {
		return nil
	}
	m.config.Log.Info("undrain requested", "audit", true)
	m.running.Go(func() {
		if err := m.resume(m.context, node); err != nil && m.context.Err() == nil {
			m.config.Log.Error("undrain failed", "error", err)
		}
	})
	return nil
}

// resume has the node begin a new incarnation, and tells the others that it takes shards.
func (m *Self) resume(ctx context.Context, node *cluster.Node) error {
	// A drain that is in progress ends first: see cluster.Node.Undrain.
	if err := node.Undrain(ctx); err != nil {
		return err
	}
	m.draining.Store(false)
	m.config.Health.Set(gateway.Ready)
	select {
	case <-m.config.Stopping: // It is stopping: that began before, or sets both after this.
		m.draining.Store(true)
		m.config.Health.Set(gateway.Draining)
		return nil
	default:
	}
	m.mu.Lock()
	m.said = false
	m.mu.Unlock()
	m.config.Events.Add(m.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED, Node: m.config.Name,
		Text: m.config.Name + " takes shards again",
	})
	m.Retell()
	// The node sees itself as eligible again, without waiting for a change in gossip.
	m.SetMembers(m.Gossip.Members())
	m.config.Log.Info("node undrained")
	return nil
}
