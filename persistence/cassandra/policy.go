package cassandra

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"
)

// hostPolicy sends requests to replicas (the driver's token-aware policy), avoids nodes that stopped
// answering, and tells which writes share a set of replicas.
//
// The driver itself notices a node that is gone at once, but one that stalls (a stopped process, a
// dead disk, a long collection) only after many seconds, in which every request sent to it waits out
// its timeout. So a node that let a request time out goes to the end of every choice, for one timeout
// and then, while the single request that tries it again times out too, longer and longer.
type hostPolicy struct {
	gocql.HostSelectionPolicy
	seed maphash.Seed

	keyspace string
	log      *logger
	now      func() time.Time          // the clock, for tests
	delay    func(n int) time.Duration // how long a host that stalled n times in a row is avoided

	avoid    atomic.Int32 // hosts with stalls; changed under mu
	mu       sync.RWMutex
	replicas int              // of each partition, among the nodes this process may ask
	hosts    map[string]*host // by host id
}

// host is what the policy knows of a Cassandra node; guarded by hostPolicy.mu.
type host struct {
	hash    uint64 // identifies the host within a set of replicas
	stalls  int    // in a row
	retryAt time.Time
	// For the log: whether the driver sees it as down, and where it is.
	down    bool
	address net.IP
}

// newHostPolicy returns a policy without hosts: the driver adds them. timeout is the
// first pause of a node that stalled; it doubles, up to 16 times that.
func newHostPolicy(keyspace string, timeout time.Duration, log *logger) *hostPolicy {
	return &hostPolicy{
		HostSelectionPolicy: gocql.TokenAwareHostPolicy(onlyReplicas{gocql.RoundRobinHostPolicy()}),
		seed:                maphash.MakeSeed(),
		keyspace:            keyspace,
		log:                 log,
		replicas:            1,
		hosts:               make(map[string]*host),
		now:                 time.Now,
		delay:               func(n int) time.Duration { return timeout << min(n-1, 4) },
	}
}

// AddHost implements gocql.HostStateNotifier.
func (p *hostPolicy) AddHost(h *gocql.HostInfo) {
	p.mu.Lock()
	if p.hosts[h.HostID()] == nil {
		p.hosts[h.HostID()] = &host{hash: maphash.String(p.seed, h.HostID())}
	}
	p.mu.Unlock()
	p.HostSelectionPolicy.AddHost(h)
}

// RemoveHost implements gocql.HostStateNotifier.
func (p *hostPolicy) RemoveHost(h *gocql.HostInfo) {
	p.mu.Lock()
	p.clear(p.hosts[h.HostID()])
	delete(p.hosts, h.HostID())
	p.mu.Unlock()
	p.HostSelectionPolicy.RemoveHost(h)
}

// begin has the policy log to a logger from now on, and logs the hosts that are down already.
func (p *hostPolicy) begin(log *slog.Logger) {
	p.log.start(log)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if h.down {
			p.log.write(slog.LevelWarn, "cassandra node is down", "address", h.address)
		}
	}
}

// HostUp implements gocql.HostStateNotifier.
func (p *hostPolicy) HostUp(h *gocql.HostInfo) {
	p.mu.Lock()
	if known := p.hosts[h.HostID()]; known != nil {
		p.clear(known)
		if known.down {
			p.log.write(slog.LevelInfo, "cassandra node is up", "address", h.ConnectAddress())
		}
		known.down = false
	}
	p.mu.Unlock()
	p.HostSelectionPolicy.HostUp(h)
}

// HostDown implements gocql.HostStateNotifier.
func (p *hostPolicy) HostDown(h *gocql.HostInfo) {
	p.mu.Lock()
	if known := p.hosts[h.HostID()]; known != nil && !known.down {
		p.log.write(slog.LevelWarn, "cassandra node is down", "address", h.ConnectAddress())
		known.down, known.address = true, h.ConnectAddress()
	}
	p.mu.Unlock()
	p.HostSelectionPolicy.HostDown(h)
}

// hostIDs returns the ids of the nodes that may be asked, in order.
func (p *hostPolicy) hostIDs() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Sorted(maps.Keys(p.hosts))
}

// setReplicas sets the number of copies of each partition, once it was read from the
// keyspace.
func (p *hostPolicy) setReplicas(n int) {
	p.mu.Lock()
	p.replicas = n
	p.mu.Unlock()
}

// clear forgets that a host stalled. The caller holds mu.
func (p *hostPolicy) clear(h *host) {
	if h != nil && h.stalls > 0 {
		h.stalls = 0
		p.avoid.Add(-1)
	}
}

// mark notes how a request to a host went.
func (p *hostPolicy) mark(id string, err error) {
	stalled := errors.Is(err, gocql.ErrTimeoutNoResponse)
	if !stalled && (p.avoid.Load() == 0 || !isAnswer(err)) {
		return // nothing to clear, or the connection broke, which the driver sees to
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[id]
	if h == nil {
		return
	}
	if !stalled {
		p.clear(h)
		return
	}
	// Sent before the others timed out. Counted, it would double the pause for one stall.
	if h.stalls > 0 && p.now().Before(h.retryAt) {
		return
	}
	if h.stalls == 0 {
		p.avoid.Add(1)
	}
	h.stalls++
	p.log.write(slog.LevelWarn, "cassandra node does not answer, others are asked first", "host", id, "times", h.stalls)
	h.retryAt = p.now().Add(p.delay(h.stalls))
}

// avoided reports whether a host should be asked last. When its time has come it lets one
// request through, whose outcome decides: the next ones within a pause are kept away
// again.
func (p *hostPolicy) avoided(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[id]
	if h == nil || h.stalls == 0 {
		return false
	}
	if p.now().Before(h.retryAt) {
		return true
	}
	// Until the outcome is known, the others go elsewhere for as long as after the first
	// stall.
	h.retryAt = p.now().Add(p.delay(1))
	return false
}

// onlyHost in a context makes requests go to one host, by its id, or fail.
type onlyHost struct{}

// Pick implements gocql.HostSelectionPolicy: the replicas of the request's key first,
// nodes that stalled last. None is left out: with two of three stalled, they still are
// the only ones.
func (p *hostPolicy) Pick(q gocql.ExecutableQuery) gocql.NextHost {
	next := p.HostSelectionPolicy.Pick(q)
	if q == nil {
		return next
	}
	// Requests of inspect are for one node, whether it answers or not.
	ctx := q.Context()
	if id, ok := ctx.Value(onlyHost{}).(string); ok {
		return only(next, id)
	}
	// The usual case, without a lock.
	if p.avoid.Load() == 0 {
		return func() gocql.SelectedHost { return p.marking(ctx, next()) }
	}
	var last []gocql.SelectedHost
	// The driver calls this for one attempt after the other, and never concurrently.
	return func() gocql.SelectedHost {
		for h := next(); h != nil; h = next() {
			if !p.avoided(h.Info().HostID()) {
				return p.marking(ctx, h)
			}
			last = append(last, h)
		}
		if len(last) == 0 {
			return nil
		}
		h := last[0]
		last = last[1:]
		return p.marking(ctx, h)
	}
}

// only returns the one host from a choice, or none.
func only(next gocql.NextHost, id string) gocql.NextHost {
	return func() gocql.SelectedHost {
		for h := next(); h != nil; h = next() {
			if h.Info().HostID() == id {
				return h
			}
		}
		return nil
	}
}

// marking returns the host so that the outcome of its request is noted; nil for nil.
func (p *hostPolicy) marking(ctx context.Context, h gocql.SelectedHost) gocql.SelectedHost {
	if h == nil {
		return nil
	}
	return markedHost{h, p, ctx, p.now()}
}

// markedHost is a host that a request is sent to. It does what the driver's own does, and
// notes stalls.
type markedHost struct {
	gocql.SelectedHost
	policy *hostPolicy
	ctx    context.Context
	// When the host was chosen, for stalledAfter.
	asked time.Time
}

// stalledAfter is from when on a request whose deadline passed says that the node stalled, and not that
// the caller was in a hurry. It is below the time that one operation on a lease is given: the next must
// go to another node, or the lease is lost.
const stalledAfter = 400 * time.Millisecond

// Mark implements gocql.SelectedHost. The driver says nil also when the caller gave up waiting.
func (h markedHost) Mark(err error) {
	switch gaveUp := h.ctx.Err(); {
	case gaveUp == nil:
		h.policy.mark(h.Info().HostID(), err)
	case errors.Is(gaveUp, context.DeadlineExceeded) && h.policy.now().Sub(h.asked) >= stalledAfter:
		h.policy.mark(h.Info().HostID(), gocql.ErrTimeoutNoResponse)
	}
	h.SelectedHost.Mark(err)
}

// place is where a partition is. It is a hint: an error in it costs speed only. Both numbers are 0 if every node has
// every partition.
type place struct {
	coordinator uint64 // equal for partitions whose first live replica, which is asked, is the same host
	set         uint64 // equal for partitions with equal sets of live replicas
}

// place returns where a partition is. Sets are identified by the sum of their hosts' hashes, so that their order does
// not matter.
func (p *hostPolicy) place(partitionKey []byte) (at place) {
	// With as many copies as nodes there is one set.
	p.mu.RLock()
	all, n := len(p.hosts) <= p.replicas, p.replicas
	p.mu.RUnlock()
	if all {
		return place{}
	}
	next := p.HostSelectionPolicy.Pick(keyOnly{key: partitionKey, keyspace: p.keyspace})
	p.mu.RLock()
	defer p.mu.RUnlock()
	for range n {
		h := next()
		if h == nil {
			break
		}
		if known := p.hosts[h.Info().HostID()]; known != nil {
			at.set += known.hash // in any order
			if at.coordinator == 0 {
				at.coordinator = known.hash
			}
		}
	}
	return at
}

// replicaSet returns the set of place.
func (p *hostPolicy) replicaSet(partitionKey []byte) uint64 { return p.place(partitionKey).set }

// replicaSets returns the largest possible number of sets of replicas: the ways to choose
// that many of the nodes. With virtual nodes, nearly all of them occur.
func (p *hostPolicy) replicaSets() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	sets := 1
	for i := 1; i <= p.replicas && len(p.hosts) > p.replicas; i++ {
		if sets = sets * (len(p.hosts) - p.replicas + i) / i; sets > 1<<20 {
			break // as good as any other high number
		}
	}
	return sets
}

// onlyReplicas is a policy that chooses among all hosts, but none for a keyOnly: a host that was chosen in turn, in the
// place of a replica that is down, would make another set of it each time.
type onlyReplicas struct{ gocql.HostSelectionPolicy }

// Pick implements gocql.HostSelectionPolicy.
func (p onlyReplicas) Pick(q gocql.ExecutableQuery) gocql.NextHost {
	if _, ok := q.(keyOnly); ok {
		return func() gocql.SelectedHost { return nil }
	}
	return p.HostSelectionPolicy.Pick(q)
}

// keyOnly is a request that is never sent: it asks the driver's policy for the replicas of a key. The
// embedded interface is nil; the policy calls no other method.
type keyOnly struct {
	gocql.ExecutableQuery
	key      []byte
	keyspace string
}

func (k keyOnly) GetRoutingKey() ([]byte, error) { return k.key, nil }
func (k keyOnly) Keyspace() string               { return k.keyspace }
func (k keyOnly) Context() context.Context       { return context.Background() }
