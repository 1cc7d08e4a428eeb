// Package membership says who seems to be there, by gossip.
//
// # The model
//
// Every process of the cluster, node or gateway, is a member of one memberlist (SWIM with suspicion) and
// carries a [clusterv1.Meta]: its incarnation, addresses and roles. Each member keeps the list of
// all and probes the others in turn; what it finds spreads by gossip, as do the [clusterv1.News] of shards
// that changed hands. A change of meta is sent by every member to several others and has precedence over news.
// So meta has nothing that changes often, as the load does: each member is asked for that.
//
// A process of another cluster, by the random id of its store, is not a member, whatever its name and label: its messages
// about members, its news and its state are passed over.
//
// Nothing here decides ownership. A member that is missing may be alive, one that is listed may be dead,
// and two members may see different lists for as long as a partition lasts. It is a hint for speed.
//
// memberlist forgets the dead after a while and so does not heal a long partition. Therefore the seeds are
// resolved again and joined again for ever, as are members that vanished without saying good-bye.
//
// Probes carry the wall clock back, so that each member knows how far its own is off the others'.
package membership

import (
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
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Config of a member. DefaultConfig gives all but name and addresses.
type Config struct {
	// Name of the member, unique in the cluster and the same after a restart. To memberlist, each run of a process has a
	// name of its own, so that one who comes back elsewhere is told apart from the one that was there before.
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
	// Label keeps clusters apart: members with another one are not heard. Key, if set, encrypts gossip:
	// 16, 24 or 32 bytes, the same for all.
	Label string
	Key   []byte
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
	config  Config
	id      string // of this run
	list    *memberlist.Memberlist
	address string // the own one: memberlist writes to what it returns
	port    string // for seeds without one
	rumours *rumours
	clocks  clocks

	mu      sync.Mutex
	meta    []byte
	members map[string]*peer // by id
	lost    map[string]lost  // members that vanished, by id
	joined  uint64           // members so far

	changed chan struct{} // something about members did
	renewed chan struct{} // the own meta was set
	context context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	closing sync.Once

	updating sync.Mutex // held through memberlist's UpdateNode
}

// peer is a member and how to reach it.
type peer struct {
	Member
	node   memberlist.Node
	joined uint64 // their order
}

// lost is a member that vanished: where it was, and when it did.
type lost struct {
	address string
	since   time.Time
}

// forgetLost is how long the address of a member that vanished is tried.
const forgetLost = 24 * time.Hour

// republish is the time after which members are published though nothing changed.
const republish = 2 * time.Second

// Start makes this process a member, and joins others as soon as they can be reached.
func Start(c Config) (*Membership, error) {
	if c.Name == "" {
		return nil, errors.New("membership: a member needs a name")
	}
	host, port, err := net.SplitHostPort(c.Bind)
	if err != nil {
		return nil, fmt.Errorf("membership: address to bind: %w", err)
	}
	m := &Membership{
		config: c, id: newID(c.Name), port: port, members: map[string]*peer{}, lost: map[string]lost{},
		changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1),
	}
	m.clocks.init()
	if m.meta, err = m.marshalMeta(c.Meta); err != nil {
		return nil, err
	}
	mc, err := m.listConfig(host, port)
	if err != nil {
		return nil, err
	}
	m.rumours = newRumours(m.count)
	m.context, m.cancel = context.WithCancel(context.Background())
	if m.list, err = memberlist.Create(mc); err != nil {
		return nil, errors.Join(fmt.Errorf("membership: %w", err), mc.Transport.Shutdown())
	}
	m.address = m.list.LocalNode().Address()
	_, m.port, _ = net.SplitHostPort(m.address)
	m.running.Go(m.publish)
	m.running.Go(m.update)
	m.running.Go(m.rejoin)
	return m, nil
}

// listConfig returns the configuration of memberlist.
func (m *Membership) listConfig(host, port string) (*memberlist.Config, error) {
	c := &m.config
	mc := memberlist.DefaultLANConfig()
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("membership: port to bind: %w", err)
	}
	mc.Name, mc.BindAddr, mc.BindPort, mc.AdvertisePort = m.id, host, int(number), int(number)
	if c.Advertise != "" {
		if mc.AdvertiseAddr, mc.AdvertisePort, err = advertised(c.Advertise); err != nil {
			return nil, err
		}
	}
	if len(c.Key) > 0 {
		mc.SecretKey = c.Key
	}
	mc.Label = c.Label
	mc.ProbeInterval, mc.ProbeTimeout, mc.SuspicionMult = c.ProbeEvery, c.ProbeTimeout, c.SuspicionMult
	mc.PushPullInterval = c.SyncEvery
	mc.TCPTimeout = 2 * time.Second
	mc.GossipInterval = 100 * time.Millisecond
	mc.DeadNodeReclaimTime = time.Second // a restarted member may come with another address
	mc.DelegateProtocolVersion, mc.DelegateProtocolMin, mc.DelegateProtocolMax = 1, 1, 1
	d := delegate{m}
	mc.Delegate, mc.Events, mc.Ping, mc.Conflict, mc.Alive, mc.Merge = d, d, d, d, d, d
	mc.EnableCompression = false // see guard
	mc.Logger = logger(c.Log)
	network := c.Transport
	if network == nil {
		if network, err = openNetwork(host, mc, c.Advertise == ""); err != nil {
			return nil, fmt.Errorf("membership: %w", err)
		}
	}
	mc.Transport = newGuard(network, len(c.Key) > 0, c.MaxState, c.Log)
	return mc, nil
}

func advertised(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil {
		return "", 0, fmt.Errorf("membership: address to advertise: %w", err)
	}
	if net.ParseIP(host) != nil {
		return host, port, nil
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return "", 0, fmt.Errorf("membership: address to advertise: %w", err)
	}
	return ips[0].String(), port, nil
}

// Address returns the address for gossip that others reach this member under.
func (m *Membership) Address() string { return m.address }

// ID returns what tells this run of the process from others of its name.
func (m *Membership) ID() string { return m.id }

// Members returns all members, this one among them, in the order of their names; those of one name in the order in
// which they joined.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	peers := slices.SortedFunc(maps.Values(m.members), func(a, b *peer) int {
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

// nameOf returns the configured name of a member: its id without what tells its runs apart. An earlier release has none.
func nameOf(id string) string {
	at := strings.LastIndexByte(id, '@')
	if at <= 0 || len(id)-at-1 != idLen || strings.Trim(id[at+1:], "0123456789abcdef") != "" {
		return id
	}
	return id[:at]
}

func (m *Membership) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.members)
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

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Spread has news gossiped to all members, each of which passes on what it did not hear before, and sends them at
// once to those for whom direct says so. That reaches everybody in about a second; whom it misses, as in a
// partition, gets them with the next full exchange of state. A member that is alone keeps nothing for later: a
// process that joins gets the full state.
func (m *Membership) Spread(news *clusterv1.News, direct func(Member) bool) {
	others := m.others()
	if len(others) == 0 {
		m.rumours.drop()
		return
	}
	for _, part := range split(m.ours(news)) {
		m.rumours.start(part)
		for _, p := range others {
			if direct(p.Member) {
				_ = m.list.SendBestEffort(&p.node, part) // If this message is lost, gossip delivers the same news later.
			}
		}
	}
}

func (m *Membership) others() []*peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*peer, 0, len(m.members))
	for id, p := range m.members {
		if id != m.id {
			all = append(all, &peer{p.Member, p.node, p.joined})
		}
	}
	return all
}

// ClockOffset returns how far this member's wall clock is ahead of the median of those others that have one of these ids,
// and how many of them were asked lately. With one other nobody can say whose clock is wrong.
func (m *Membership) ClockOffset(of map[string]bool) (ahead time.Duration, peers int) {
	return m.clocks.ahead(m.config.Now(), of)
}

// Leave tells the others that this member goes, for at most a second, and stops. If they could not all be told in
// that time they find out as if it had crashed, which costs them seconds and nobody anything else: that is
// logged and is not an error. Further calls do nothing.
func (m *Membership) Leave(ctx context.Context) error {
	var err error
	m.closing.Do(func() {
		timeout := time.Second
		if d, ok := ctx.Deadline(); ok {
			timeout = min(timeout, max(time.Until(d), time.Millisecond))
		}
		if untold := errors.Join(m.goodbye(timeout/2), m.list.Leave(timeout/2)); untold != nil {
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

// spreadMeta has memberlist take in m.meta and gossip it. memberlist does not allow for two at a time.
func (m *Membership) spreadMeta(timeout time.Duration) error {
	m.updating.Lock()
	defer m.updating.Unlock()
	return m.list.UpdateNode(timeout)
}

// Abandon stops without a word, as a crash does.
func (m *Membership) Abandon() error {
	var err error
	m.closing.Do(func() { err = m.stop() })
	return err
}

func (m *Membership) stop() error {
	m.cancel()
	err := m.list.Shutdown()
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

// update tells the others of the own meta.
func (m *Membership) update() {
	for {
		select {
		case <-m.context.Done():
			return
		case <-m.renewed:
			if err := m.spreadMeta(time.Second); err != nil {
				m.config.Log.Debug("membership: news about this member are slow to leave", "error", err)
			}
		}
	}
}

// rejoin reaches for seeds and lost members that are not in the list, for ever.
func (m *Membership) rejoin() {
	t := time.NewTicker(m.config.JoinEvery)
	defer t.Stop()
	for {
		m.tryAll(m.missing())
		select {
		case <-m.context.Done():
			return
		case <-t.C:
		}
	}
}

// triedTogether is how many addresses are tried side by side: one that does not answer takes seconds.
const triedTogether = 16

// tryAll tries to join the members at all of these addresses.
func (m *Membership) tryAll(addresses []string) {
	var tries errgroup.Group
	tries.SetLimit(triedTogether)
	for _, address := range addresses {
		tries.Go(func() error {
			if m.context.Err() != nil {
				return nil
			}
			if _, err := m.list.Join([]string{address}); err != nil {
				m.config.Log.Debug("membership: join", "address", address, "error", err)
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
	for id, l := range m.lost {
		if m.config.Now().Sub(l.since) > forgetLost {
			delete(m.lost, id)
			continue
		}
		wanted[l.address] = true
	}
	for _, p := range m.members {
		delete(wanted, p.Gossip)
	}
	return slices.Sorted(maps.Keys(wanted))
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
		m.config.Log.Debug("membership: resolve", "name", host, "error", err)
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
