// Package membership says who seems to be alive, by gossip.
//
// # The model
//
// Every process of the cluster, node or gateway, is a member of one memberlist (SWIM with suspicion) and
// carries a [clusterv1.Meta]: its incarnation, addresses and roles. Each member keeps the list of
// all and probes the others in turn; what it finds spreads by gossip, as do the [clusterv1.News] of shards
// that changed hands. A change of meta is sent by every member to several others and has precedence over news.
// So meta has nothing that changes often, as the load does: each member is asked for that.
//
// A process of another cluster, by the random id of its store, is not a member, whatever its name and label: its
// messages about members, its news and its state are passed over.
//
// Nothing here decides ownership. A member that is missing may be alive, one that is listed may be dead,
// and two members may see different lists for as long as a partition lasts. It is a hint for speed.
//
// memberlist forgets the dead after a while and so does not heal a long partition. Therefore the seeds are
// resolved again and joined again forever, and the addresses of members that vanished for a time.
//
// # Forged messages
//
// Without a key, anybody can send any message about any member. No such message has an effect that lasts:
//
//   - memberlist orders messages about a member by a counter. The member overrules a forged message with a
//     higher value. It cannot surpass the highest value, so that values above [maxIncarnation] are refused by all.
//     A member that hears of itself with more than half of that takes another id, under which its counter begins
//     anew: renew.
//   - A member that nobody probes exchanges its state with others, so that it hears what they believe of it.
//   - Few members are listed before they answered a probe: newcomers.
//
// Probes carry the wall clock back, so that each member knows how far its own is off the others'.
package membership

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"licensed/internal/networks"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Config of a member. DefaultConfig gives all but name and addresses.
type Config struct {
	// Name of the member, unique in the cluster and the same after a restart. To memberlist, each run of a process
	// has a name of its own, so that one who comes back elsewhere is told apart from the one that was present before.
	Name string
	// ClusterID of the cluster (zero, in tests: none), and the Strangers that refuse those of another.
	ClusterID persistence.ClusterID
	Strangers *Strangers
	// Bind is the address for gossip, host:port with UDP and TCP; port 0 takes any.
	Bind string
	// Advertise is the address that others reach it under, host:port; empty: that of Bind, or a private
	// address of the machine if Bind is all of them.
	Advertise string
	// Join are addresses of members, or DNS names of many, with or without a port (then that of Bind).
	Join []string
	// JoinEvery is the time between attempts to reach seeds and lost members that are not in the list
	// (default 5 s).
	JoinEvery time.Duration
	// Label keeps clusters apart: members with another one are not heard. Keys encrypt gossip; nil: it is not
	// encrypted.
	Label string
	Keys  *Keys
	// Networks from which packets and connections are accepted, and of which members may be. Empty: all.
	Networks networks.List
	// ProbeEvery and ProbeTimeout are how often one of the others is probed and how long an answer may
	// take (defaults 500 ms and 200 ms). SuspicionMult times ProbeEvery, more in large clusters, is how
	// long a suspect has to prove itself alive (default 3). Less finds failures faster and wrongly more
	// often; ownership does not depend on it.
	ProbeEvery, ProbeTimeout time.Duration
	SuspicionMult            int
	// SyncEvery is the time between full exchanges of state with one of the others (default 10 s).
	SyncEvery time.Duration
	// Meta is what the member is at first.
	Meta *clusterv1.Meta
	// Listener hears what happens.
	Listener Listener
	// Now is the wall clock (default time.Now).
	Now func() time.Time
	// Resolve returns the addresses of a host (default: the system's resolver).
	Resolve func(ctx context.Context, host string) ([]string, error)
	// MaxState is the size of the largest state that the listener of any member returns, in bytes (default 4 MiB:
	// 65,536 rows). Members that send more are not heard.
	MaxState int
	// Transport replaces the network, in tests.
	Transport memberlist.NodeAwareTransport
	Log       *slog.Logger
}

// Listener is told what happens. Functions that are nil are not called.
type Listener struct {
	// Members is called with all members, this one among them, whenever something about them changes
	// and every few seconds. It is called from one goroutine; the slice belongs to the callee.
	Members func([]Member)
	// News is called with what others spread, from several goroutines. It must not block.
	News func(*clusterv1.News)
	// State returns all that a member may have missed, for one that exchanges its full state.
	State func() *clusterv1.News
}

// Member is a process in the cluster.
type Member struct {
	// Name as configured. For a while two members may have one name: a process that was restarted, and its former run.
	Name string
	// ID is this run of the process: the name that memberlist has for it.
	ID string
	// Gossip is its address for gossip.
	Gossip string
	// Meta must not be changed.
	Meta *clusterv1.Meta
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Bind: "0.0.0.0:7946", JoinEvery: 5 * time.Second, ProbeEvery: 500 * time.Millisecond,
		ProbeTimeout: 200 * time.Millisecond, SuspicionMult: 3, SyncEvery: 10 * time.Second, MaxState: 4 << 20,
		Meta: &clusterv1.Meta{}, Now: time.Now, Resolve: net.DefaultResolver.LookupHost, Log: slog.Default(),
	}
}

// Membership is this process as a member. It is safe for concurrent use.
type Membership struct {
	config    Config
	network   memberlist.NodeAwareTransport // of all runs
	bind      endpoint
	advertise endpoint // empty: that of bind
	port      string   // for seeds without one
	rumours   *rumours
	clocks    clocks
	newcomers *newcomers
	probed    atomic.Int64 // when another member last probed this one, Unix nanoseconds

	// mu guards the five fields below, and the members of every run. It is held briefly:
	// memberlist's callbacks take it with locks of memberlist held. The address is fixed
	// when Start has returned.
	mu      sync.Mutex
	current *run
	address string // its own one: memberlist writes to what it returns
	meta    []byte
	lost    map[string]lost // members that vanished, by address
	joined  uint64          // members so far

	// Signals of capacity 1: what is set while the reader works is seen in its next
	// round.
	changed chan struct{} // something about members did
	renewed chan struct{} // its own meta was set
	doubted chan struct{} // its own id is to be given up
	met     chan struct{} // closed once it has exchanged its full state with another member
	meeting sync.Once
	context context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	closing sync.Once

	updating sync.Mutex // held through memberlist's UpdateNode
	swapping sync.Mutex // held while the current run is replaced or ended
}

// run is this process under one id.
type run struct {
	m       *Membership
	id      string
	list    *memberlist.Memberlist
	guard   *guard
	members map[string]*peer // by id. Requires Membership.mu.
}

// peer is a member and how to reach it.
type peer struct {
	Member
	node   memberlist.Node
	meta   []byte // encoded
	joined uint64 // their order
}

// lost is a member that vanished, and when it did or was last reached since. Briefly: it had said good-bye, or never
// answered.
type lost struct {
	name    string
	since   time.Time
	briefly bool
}

const (
	// forgetLost is the time the address of a member that vanished is tried, and forgetSoon how long if the member said
	// good-bye, never answered a probe, or is listed elsewhere. All of this may be forged, so that the address of a
	// member that still runs must be tried for some time. An address that answers is not forgotten.
	forgetLost = 24 * time.Hour
	forgetSoon = time.Minute
	// maxLost is the number of addresses that are kept of members that did not answer a probe before they vanished.
	maxLost = 64
	// maxListed is the number of members that are listed: more do not fit into a full exchange.
	maxListed = 4000
)

// republish is the time after which members are published though nothing changed.
const republish = 2 * time.Second

// Start makes this process a member, and joins others as soon as they can be reached.
func Start(c Config) (*Membership, error) {
	if c.Name == "" {
		return nil, errors.New("membership: a member needs a name")
	}
	m := &Membership{
		config: c, lost: map[string]lost{}, newcomers: newNewcomers(),
		changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1), doubted: make(chan struct{}, 1),
		met: make(chan struct{}),
	}
	m.clocks.init()
	m.probed.Store(time.Now().UnixNano())
	m.rumours = newRumours(m.count)
	m.context, m.cancel = context.WithCancel(context.Background())
	var err error
	if m.meta, err = m.marshalMeta(c.Meta); err != nil {
		return nil, err
	}
	if m.bind, err = bound(c.Bind); err != nil {
		return nil, err
	}
	if c.Advertise != "" {
		if m.advertise, err = advertised(c.Advertise); err != nil {
			return nil, err
		}
	}
	if m.network = c.Transport; m.network == nil {
		t, err := openNetwork(m.bind, logger(c.Log))
		if err != nil {
			return nil, fmt.Errorf("membership: %w", err)
		}
		// The transport chose the port if it was 0: a later run binds the same one.
		m.network, m.bind.port = t, t.GetAutoBindPort()
	}
	r := m.newRun()
	r.guard.start()
	if err := r.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("membership: %w", err), r.guard.Shutdown())
	}
	address := r.list.LocalNode().Address()
	_, m.port, _ = net.SplitHostPort(address)
	m.mu.Lock()
	m.current, m.address = r, address
	m.mu.Unlock()
	for _, f := range []func(){m.publish, m.update, m.rejoin, m.settle, m.verify, m.renewals} {
		m.running.Go(f)
	}
	return m, nil
}

// newRun returns a run under a new id, which is not started.
func (m *Membership) newRun() *run {
	// A new id for each run of a process: memberlist would otherwise believe what it
	// remembers of the former run, such as that it left.
	c := &m.config
	r := &run{m: m, id: newID(c.Name), members: map[string]*peer{}}
	r.guard = newGuard(m.network, c.Keys != nil, c.MaxState, c.Log)
	r.guard.networks = c.Networks
	r.guard.own, r.guard.doubt = r.id, func() { signal(m.doubted) }
	return r
}

// create starts memberlist.
func (r *run) create() (err error) {
	c := &r.m.config
	mc := memberlist.DefaultLANConfig()
	mc.Name, mc.BindAddr, mc.BindPort = r.id, r.m.bind.host, r.m.bind.port
	mc.AdvertiseAddr, mc.AdvertisePort = r.m.advertise.host, cmp.Or(r.m.advertise.port, r.m.bind.port)
	if c.Keys != nil {
		mc.Keyring = c.Keys.ring
	}
	mc.Label = c.Label
	mc.ProbeInterval, mc.ProbeTimeout, mc.SuspicionMult = c.ProbeEvery, c.ProbeTimeout, c.SuspicionMult
	mc.PushPullInterval = c.SyncEvery
	mc.TCPTimeout = 2 * time.Second
	mc.GossipInterval = 100 * time.Millisecond
	// Only a forged message gives an id another address; the true one is back at once.
	mc.DeadNodeReclaimTime = time.Nanosecond
	mc.ProtocolVersion = protocolVersion
	mc.DelegateProtocolVersion = delegateVersion
	mc.DelegateProtocolMin = delegateVersion
	mc.DelegateProtocolMax = delegateVersion
	d := delegate{r}
	mc.Delegate, mc.Events, mc.Ping, mc.Conflict, mc.Alive, mc.Merge = d, d, d, d, d, d
	mc.EnableCompression = false // see guard
	mc.Logger = logger(c.Log)
	mc.Transport = r.guard
	r.list, err = memberlist.Create(mc)
	return err
}

// Versions that all members speak.
const (
	protocolVersion = memberlist.ProtocolVersion2Compatible
	delegateVersion = 1
)

// endpoint is an address.
type endpoint struct {
	host string
	port int
}

// bound returns the address to bind.
func bound(address string) (e endpoint, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return e, fmt.Errorf("membership: address to bind: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return e, fmt.Errorf("membership: port to bind: %w", err)
	}
	return endpoint{host, int(number)}, nil
}

// advertised returns the address that others reach the member under.
func advertised(address string) (e endpoint, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		e.port, err = strconv.Atoi(p)
	}
	if err != nil {
		return e, fmt.Errorf("membership: address to advertise: %w", err)
	}
	if e.host = host; net.ParseIP(host) != nil {
		return e, nil
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return e, fmt.Errorf("membership: address to advertise: %w", err)
	}
	e.host = ips[0].String()
	return e, nil
}

// Address returns the address for gossip that others reach this member under.
func (m *Membership) Address() string { return m.address }

// ID returns what tells this run of the process from others of its name. It changes if the member has to take another
// id: see the package comment.
func (m *Membership) ID() string { return m.run().id }

// Met is closed once this member has exchanged its full state with another one: Members then returns all that the other
// one listed.
func (m *Membership) Met() <-chan struct{} { return m.met }

// run returns the current one.
func (m *Membership) run() *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// Members returns all members, this one among them, in the order of their names; those of one name in the order in
// which they joined.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	peers := slices.SortedFunc(maps.Values(m.current.members), func(a, b *peer) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.joined, b.joined))
	})
	all := make([]Member, len(peers))
	for i, p := range peers {
		all[i] = p.Member
	}
	return all
}

// idLen is the length of what follows the last @ in the id of a member.
const idLen = 8

// newID returns the id of a run of a process.
func newID(name string) string {
	return fmt.Sprintf("%s@%0*x", name, idLen, rand.Uint32())
}

// nameOf returns the configured name of a member: its id without what tells its runs apart. An earlier release has
// none.
func nameOf(id string) string {
	at := strings.LastIndexByte(id, '@')
	if at <= 0 || len(id)-at-1 != idLen || strings.Trim(id[at+1:], "0123456789abcdef") != "" {
		return id
	}
	return id[:at]
}

// count returns the number of members that are listed, this one among them.
func (m *Membership) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		return 0
	}
	return len(m.current.members)
}

// SetMeta changes what the member is. It returns before others know. Errors: meta is too large.
func (m *Membership) SetMeta(meta *clusterv1.Meta) error {
	b, err := m.marshalMeta(meta)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.meta = b
	m.mu.Unlock()
	signal(m.renewed)
	return nil
}

// marshalMeta encodes what the member is, with the id of the cluster. It does not change
// its argument. Errors: it is larger than memberlist carries (512 bytes).
func (m *Membership) marshalMeta(meta *clusterv1.Meta) ([]byte, error) {
	meta = proto.CloneOf(meta)
	meta.ClusterId = m.clusterID()
	b, err := proto.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("membership: %d bytes of meta, at most %d are carried", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// clusterID returns the id of the cluster as it travels.
func (m *Membership) clusterID() []byte {
	if m.config.ClusterID.IsZero() {
		return nil
	}
	return m.config.ClusterID[:]
}

// ours returns news with the id of the cluster.
func (m *Membership) ours(news *clusterv1.News) *clusterv1.News {
	return &clusterv1.News{Shards: news.Shards, Dead: news.Dead, ClusterId: m.clusterID()}
}

// signal has the reader of the channel look again. It does not wait.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Spread has news gossiped to all members, each of which passes on what it did not hear before, and sends them at
// once to those for whom direct is true. That reaches everybody in about a second; whom it misses, as in a
// partition, gets them with the next full exchange of state. A member that is alone keeps nothing for later: a
// process that joins gets the full state.
func (m *Membership) Spread(news *clusterv1.News, direct func(Member) bool) {
	others, list := m.others(), m.run().list
	if len(others) == 0 {
		m.rumours.drop()
		return
	}
	for _, part := range split(m.ours(news)) {
		m.rumours.start(part)
		for _, p := range others {
			if direct(p.Member) {
				_ = list.SendBestEffort(&p.node, part) // If this message is lost, gossip delivers the same news later.
			}
		}
	}
}

// others returns copies of all members but this one, without their encoded metadata.
func (m *Membership) others() []*peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*peer, 0, len(m.current.members))
	for id, p := range m.current.members {
		if id != m.current.id {
			all = append(all, &peer{Member: p.Member, node: p.node, joined: p.joined})
		}
	}
	return all
}

// ClockOffset returns how far this member's wall clock is ahead of the median of those others that have one of these
// ids, and how many of them were asked lately. With one other nobody can say whose clock is wrong.
func (m *Membership) ClockOffset(of map[string]bool) (ahead time.Duration, peers int) {
	return m.clocks.ahead(m.config.Now(), of)
}

// Leave tells the others that this member goes, for at most a second, and stops. If they could not all be told in
// that time they find out as if it had crashed, which costs them seconds and nobody anything else: that is
// logged and is not an error. Further calls do nothing.
func (m *Membership) Leave(ctx context.Context) error {
	var err error
	m.closing.Do(func() {
		m.swapping.Lock()
		defer m.swapping.Unlock()
		timeout := time.Second
		if d, ok := ctx.Deadline(); ok {
			timeout = min(timeout, max(time.Until(d), time.Millisecond))
		}
		if untold := errors.Join(m.goodbye(timeout/2), m.run().list.Leave(timeout/2)); untold != nil {
			m.config.Log.Warn("membership: left before all others were told", "error", untold)
		}
		err = m.stop()
	})
	return err
}

// goodbye marks the member as one that goes, so that others do not take it for lost: memberlist does not
// tell its users the difference.
func (m *Membership) goodbye(timeout time.Duration) error {
	meta := &clusterv1.Meta{}
	m.mu.Lock()
	err := proto.Unmarshal(m.meta, meta)
	meta.Draining = true
	if b, merr := m.marshalMeta(meta); merr == nil {
		m.meta = b
	}
	m.mu.Unlock()
	return errors.Join(err, m.spreadMeta(timeout))
}

// spreadMeta has memberlist process m.meta and gossip it. memberlist does not allow for two at a time.
func (m *Membership) spreadMeta(timeout time.Duration) error {
	m.updating.Lock()
	defer m.updating.Unlock()
	return m.run().list.UpdateNode(timeout)
}

// Abandon stops without a word, as a crash does.
func (m *Membership) Abandon() error {
	var err error
	m.closing.Do(func() {
		m.swapping.Lock()
		defer m.swapping.Unlock()
		err = m.stop()
	})
	return err
}

// stop requires m.swapping.
func (m *Membership) stop() error {
	m.cancel()
	err := m.run().list.Shutdown()
	m.running.Wait()
	return err
}

// publish calls the listener with all members.
func (m *Membership) publish() {
	t := time.NewTicker(republish)
	defer t.Stop()
	for {
		if f := m.config.Listener.Members; f != nil {
			f(m.Members())
		}
		select {
		case <-m.context.Done():
			return
		case <-m.changed:
		case <-t.C:
		}
	}
}

// update tells the others of its own meta. memberlist drops an update beside which it overrules a message of others,
// and so it is looked whether the last one was made.
func (m *Membership) update() {
	t := time.NewTicker(republish)
	defer t.Stop()
	for {
		select {
		case <-m.context.Done():
			return
		case <-m.renewed:
		case <-t.C:
			if m.told() {
				continue
			}
		}
		if err := m.spreadMeta(time.Second); err != nil {
			m.config.Log.Debug("membership: update of this member delayed", "error", err)
		}
	}
}

// told reports whether memberlist has its own meta.
func (m *Membership) told() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	self := m.current.members[m.current.id]
	return self == nil || bytes.Equal(self.meta, m.meta)
}

// rejoin reaches for seeds and lost members that are not in the list, forever. If no other member probes this one it
// asks some what they believe of it, and so has a say in it.
func (m *Membership) rejoin() {
	t := time.NewTicker(m.config.JoinEvery)
	defer t.Stop()
	for {
		r := m.run()
		m.tryAll(r, m.missing())
		if since := time.Since(
			time.Unix(0, m.probed.Load()),
		); since > max(m.config.JoinEvery, unprobed*m.config.ProbeEvery) {
			m.tryAll(r, m.some(triedUnprobed))
		}
		select {
		case <-m.context.Done():
			return
		case <-t.C:
		}
	}
}

// settleAfter is when a member that started exchanges its state with another one, in addition to Config.SyncEvery.
var settleAfter = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// settle completes the list of a member that started. memberlist sends a message about a member to fewer others while
// it lists few: when many members start together, each misses some two per cent of the others after gossip has ended.
// The next full exchanges complete its list, and without this they come with Config.SyncEvery only.
func (m *Membership) settle() {
	began := time.Now()
	for _, after := range settleAfter {
		select {
		case <-m.context.Done():
			return
		case <-time.After(after - time.Since(began)):
			m.tryAll(m.run(), m.some(1))
		}
	}
}

const (
	// triedTogether is the number of addresses that are tried side by side: one that does not answer takes seconds.
	triedTogether = 16
	// unprobed is after how many times Config.ProbeEvery without a probe a member asks others, and triedUnprobed how
	// many it asks. Others probe each member once in that time on average, in a cluster of any size.
	unprobed, triedUnprobed = 10, 3
)

// some returns the addresses of up to n other members.
func (m *Membership) some(n int) []string {
	var all []string
	for _, p := range m.others() { // in the order of a map
		if all = append(all, p.Gossip); len(all) == n {
			break
		}
	}
	return all
}

// tryAll tries to join the members at all of these addresses.
func (m *Membership) tryAll(r *run, addresses []string) {
	var tries errgroup.Group
	tries.SetLimit(triedTogether)
	for _, address := range addresses {
		tries.Go(func() error {
			if m.context.Err() != nil {
				return nil
			}
			if _, err := r.list.Join([]string{address}); err != nil {
				m.config.Log.Debug("membership: join failed", "address", address, "error", err)
				return nil
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if l, ok := m.lost[address]; ok {
				l.since = m.config.Now()
				m.lost[address] = l
			}
			return nil
		})
	}
	_ = tries.Wait()
}

// missing returns the addresses of seeds and lost members that no member has.
func (m *Membership) missing() []string {
	wanted := map[string]bool{}
	for _, seed := range m.config.Join {
		for _, address := range m.resolve(seed) {
			wanted[address] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	listed := map[string]bool{}
	for _, p := range m.current.members {
		listed[p.Name] = true
	}
	for address, l := range m.lost {
		patience := forgetLost
		if l.briefly || listed[l.name] {
			patience = forgetSoon
		}
		if m.config.Now().Sub(l.since) > patience {
			delete(m.lost, address)
			continue
		}
		wanted[address] = true
	}
	for _, p := range m.current.members {
		delete(wanted, p.Gossip)
	}
	return slices.Sorted(maps.Keys(wanted))
}

// lose notes where a member was that vanished. Requires m.mu.
func (m *Membership) lose(p *peer) {
	proven := m.newcomers.proven.Contains(p.ID)
	if kept := len(m.lost); kept < maxLost || proven && kept < maxListed {
		m.lost[p.Gossip] = lost{p.Name, m.config.Now(), !proven || p.Meta.GetDraining()}
	}
}

// resolve returns the addresses of a seed now; none if its name is not known.
func (m *Membership) resolve(seed string) []string {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		host, port = strings.Trim(seed, "[]"), m.port
	}
	if net.ParseIP(host) != nil {
		return []string{net.JoinHostPort(host, port)}
	}
	ctx, cancel := context.WithTimeout(m.context, m.config.JoinEvery)
	defer cancel()
	hosts, err := m.config.Resolve(ctx, host)
	if err != nil {
		m.config.Log.Debug("membership: name not resolved", "name", host, "error", err)
	}
	all := make([]string, len(hosts))
	for i, h := range hosts {
		all[i] = net.JoinHostPort(h, port)
	}
	return all
}

// clockPayload is what an answer to a probe carries: the wall clock, Unix microseconds.
func clockPayload(now time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(now.UnixMicro()))
}
