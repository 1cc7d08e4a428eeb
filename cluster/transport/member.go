package transport

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"licensed/cluster/membership"
)

// provider is protoactor's source of members: it has none until the transport is told of them.
type provider struct{}

var _ protocluster.ClusterProvider = provider{}

// StartMember implements cluster.ClusterProvider.
func (provider) StartMember(*protocluster.Cluster) error { return nil }

// StartClient implements cluster.ClusterProvider. Every process is a member: protoactor's clients panic
// when they stop.
func (provider) StartClient(*protocluster.Cluster) error { return nil }

// Shutdown implements cluster.ClusterProvider.
func (provider) Shutdown(bool) error { return nil }

// lookup finds the front of who seems to own an aggregate, for requests that go by protoactor's
// identities. Nothing is activated and nothing remembered: whether it is the owner, the owner says. protoactor does not
// start without a lookup, and asks it for Cluster.Request and the like only, which nobody here uses (internal/archtest).
type lookup struct{ transport *Transport }

var _ protocluster.IdentityLookup = (*lookup)(nil)

// Get implements cluster.IdentityLookup.
func (l *lookup) Get(i *protocluster.ClusterIdentity) *actor.PID {
	locate := l.transport.config.Locate
	if locate == nil {
		return nil
	}
	address, ok := locate(i.GetKind(), i.GetIdentity())
	if !ok {
		return nil
	}
	return actor.NewPID(address, frontName)
}

// RemovePid implements cluster.IdentityLookup.
func (*lookup) RemovePid(*protocluster.ClusterIdentity, *actor.PID) {}

// Setup implements cluster.IdentityLookup.
func (*lookup) Setup(*protocluster.Cluster, []string, bool) {}

// Shutdown implements cluster.IdentityLookup.
func (*lookup) Shutdown() {}

// members gives those whom gossip shows ids for protoactor, which blocks for ever the ids of those who
// left: who returns has a new one.
type members struct {
	mu      sync.Mutex
	id      map[string]string // by name and address
	returns int
}

func (m *members) init() { m.id = map[string]string{} }

// SetMembers tells who seems to be there, this process among them or not. Who was there before and is
// not any more cannot be reached: requests to it fail. To be called when something changed and every few
// seconds; it may be called concurrently.
func (t *Transport) SetMembers(all []membership.Member) {
	m := &t.members
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.closed.Load() {
		return
	}
	there, ids := map[string]bool{}, map[string]string{}
	list := protocluster.Members{t.protoMember(t.system.ID, t.address)}
	for _, o := range all {
		address := o.Meta.GetNodeAddress()
		if address == "" || address == t.address || there[address] {
			continue
		}
		there[address] = true
		key := o.Name + " " + address
		if ids[key] = m.id[key]; ids[key] == "" {
			m.returns++
			ids[key] = o.Name + "/" + strconv.Itoa(m.returns)
		}
		list = append(list, t.protoMember(ids[key], address))
	}
	m.id = ids
	t.cluster.MemberList.UpdateClusterTopology(list)
	t.forget(there)
}

// protoMember returns a member as protoactor knows it.
func (t *Transport) protoMember(id, address string) *protocluster.Member {
	host, port, _ := net.SplitHostPort(address)
	number, _ := strconv.ParseInt(port, 10, 32)
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	return &protocluster.Member{Id: id, Host: host, Port: int32(number)}
}

// forgetAfter is how long nothing must have been asked of an address that is no member's before it is
// forgotten. Requests that were on their way to one who left may still come.
const forgetAfter = time.Minute

// forget ends the requests to those who left, and later drops what is kept of them.
func (t *Transport) forget(there map[string]bool) {
	t.mu.Lock()
	var gone, idle []*peer
	now := time.Now()
	for address, p := range t.peers {
		p.lost(now, t.config.DialTimeout)
		switch left := p.member && !there[address]; {
		case left:
			gone = append(gone, p)
		case there[address] || !p.idle(now, t.forgetAfter):
		case p.drop():
			delete(t.peers, address)
		default:
			idle = append(idle, p)
		}
		p.member = there[address]
	}
	t.mu.Unlock()
	for _, p := range gone {
		p.leave()
	}
	for _, p := range idle { // One whom a late request found after it had left: see drop.
		t.system.EventStream.Publish(&remote.EndpointTerminatedEvent{Address: p.address})
	}
}

// errLeft is why requests to a former member fail.
var errLeft = errors.New("the member left")

// remoteOptions returns how protoactor's remote is set up.
func (t *Transport) remoteOptions() []remote.ConfigOption {
	largest := t.config.MaxMessageBytes + maxBatchBytes + 64<<10
	server := []grpc.ServerOption{
		grpc.StreamInterceptor(t.accept), grpc.UnaryInterceptor(refuseUnary), grpc.MaxRecvMsgSize(largest),
		grpc.WaitForHandlers(true), grpc.MaxConcurrentStreams(16), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveEvery, Timeout: keepaliveTimeout, MaxConnectionIdle: t.config.MaxIdle,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveEvery / 2, PermitWithoutStream: true}),
	}
	client, take := insecure.NewCredentials(), guard{
		insecure.NewCredentials(), new(atomic.Int64), int64(t.config.MaxPeers), func() { t.config.Observer.Rejected(errTooMany.Error()) },
	}
	if c := t.config.ClientTLS; c != nil {
		client = dialing{c}
	}
	if c := t.config.ServerTLS; c != nil {
		take.TransportCredentials = credentials.NewTLS(c)
	}
	server = append(server, grpc.Creds(take))
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(client), grpc.WithStreamInterceptor(t.openLink), grpc.WithContextDialer(t.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest), grpc.MaxCallSendMsgSize(largest)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: t.config.DialTimeout,
		}),
	}
	return []remote.ConfigOption{
		remote.WithServerOptions(server...), remote.WithDialOptions(dial...), remote.WithEndpointWriterBatchSize(64),
		remote.WithEndpointWriterQueueSize(64), // the first size of a queue that grows
	}
}

// Keepalive of connections on which nothing is going on. It also bounds how long data may be on its way
// without a receipt.
const (
	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// closePeers ends what is under way to others, and the actors that protoactor has for them.
func (t *Transport) closePeers() {
	t.members.mu.Lock() // no more topologies
	defer t.members.mu.Unlock()
	t.mu.Lock()
	peers := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		peers = append(peers, p)
	}
	t.mu.Unlock()
	for _, p := range peers {
		p.reset(errLeaving)
		t.system.EventStream.Publish(&remote.EndpointTerminatedEvent{Address: p.address})
	}
	for _, p := range peers {
		p.awaitClosed(5 * time.Second)
	}
}

// awaitClosed waits until protoactor is done with the link.
func (p *peer) awaitClosed(atMost time.Duration) {
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	if l == nil {
		return
	}
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-l.ctx.Done():
	case <-t.C:
		l.close(errLeaving)
	}
}

func (t *Transport) closeSessions() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		s.cancel(context.Canceled)
	}
}

// stopActors stops the actors that protoactor and this package started.
func (t *Transport) stopActors() {
	t.cluster.Gossip.Shutdown()
	for _, name := range []string{frontName, protocluster.PubSubDeliveryName, "activator", "EndpointSupervisor"} {
		_ = t.system.Root.StopFuture(t.system.NewLocalPID(name)).Wait()
	}
}
