// Package node is the composition root: it builds a running service from a [Config], and takes it
// down again.
//
// # The model
//
// A process is a stack of parts. Each is started on top of those it needs and stopped before them:
//
//	admin port     health checks and metrics, there from the first moment to the last
//	store          the embedded store, which locks its directory, or the one that a cluster shares
//	archive        the archive tier: a directory, or a keyspace
//	policy         the numbers of the rules, read again when the file changes
//	ownership      the shards that this process owns; for each incarnation a host, which is the
//	               aggregates in memory and the archiver
//	node port      requests of other processes, and to them
//	gossip         who else is present
//	API port       the gateway
//
// The way of a request goes up to down in the reverse order: gateway, (another process,) ownership, host,
// store. So a stop first fails the readiness check, then hands the shards over to others while it continues
// to serve, then takes no more requests and waits for those in progress, says good-bye, and closes the
// store last. A part is stopped once, also when the start of one above it failed.
//
// What a process has of this follows from its settings. With an embedded store it is alone: the lock on
// the directory proves that no other process has the shards, and there is one host for as long as it
// lives. With a store that several share it is a node, a gateway, or both ([Roles]): shards are held
// under a lease, and when that is lost the incarnation ends with its host, and the next one begins. That
// is no failure of the process.
//
// A part that fails while running (the disk, a listener) fails the process: it turns unhealthy, reports
// the reason on Failed, and is to be stopped; it never repairs itself by guessing.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy/policyfile"
	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/cluster/shardmap"
	"licensed/gateway"
	"licensed/gateway/dashboard"
	"licensed/internal/clusterstatus"
	"licensed/internal/customers"
	"licensed/internal/failpoint"
	"licensed/internal/host"
	"licensed/internal/loglimit"
	"licensed/internal/status"
	"licensed/internal/storage"
	"licensed/internal/tlsfiles"
	"licensed/internal/tracing"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Errors of Start, besides those of package storage.
var (
	// ErrOtherCluster says that the store is that of a cluster of another name.
	ErrOtherCluster = cluster.ErrOtherCluster
	// ErrNameTaken says that another live process of the cluster has the name of this one.
	ErrNameTaken = cluster.ErrNameTaken
)

// Node is a running service.
type Node struct {
	config   Config
	log      *slog.Logger
	health   *gateway.Health
	registry *prometheus.Registry

	files      files
	api, admin *gateway.Server
	storage    *storage.Storage
	policy     *policyfile.Source
	hosts      *host.Hosts
	aggregates aggregates
	gateway    atomic.Pointer[gateway.Gateway]
	dashboard  atomic.Pointer[dashboard.Dashboard]
	tracer     *tracing.Tracer // nil: none

	started  time.Time
	name     string // for people
	events   status.Events
	readings clusterstatus.History

	unlimit  func() // ends the limits of log lines
	parts    []part
	failed   chan error
	done     chan struct{} // closed by Stop
	stopping sync.Once
	stopped  error

	adminToken     string                       // "" for none
	shards         shards                       // that this process holds, once there are any
	owner          atomic.Pointer[cluster.Node] // nil for a gateway, and a node with a store of its own
	member         atomic.Pointer[member]       // nil for a process that is alone
	cluster        persistence.ClusterInfo      // of a store that several share
	shardMap       *shardmap.Map                // of that cluster
	joining        *member                      // what will be member
	clusterMetrics *clusterMetrics
	statusMetrics  *status.Metrics
	members        *status.Members

	mu      sync.Mutex
	broken  bool
	silence []func() // what ends the authority to answer
}

// aggregates are the customers of the whole cluster, or of the process if it is alone. It is safe for concurrent use.
type aggregates interface {
	gateway.Aggregates
	// Operate has the owner of a customer execute an operator's request, perhaps twice.
	Operate(ctx context.Context, customer string, request any) (actors.Answer, error)
}

// part is something to be stopped.
type part struct {
	name string
	stop func(context.Context) error
}

// logLines are the lines of one kind that are logged in an interval. Any process that reaches a port may cause any
// number.
const (
	logLines    = 50
	logInterval = 10 * time.Second
)

// Start starts a node. When it returns without an error the node is ready; with one, all that was
// started has been stopped.
func Start(ctx context.Context, c Config) (*Node, error) {
	limited, unlimit := loglimit.New(c.Logger.Handler(), logLines, logInterval)
	n := &Node{
		config: c, log: slog.New(limited), unlimit: unlimit, health: new(gateway.Health), registry: newRegistry(),
		failed: make(chan error, 1), done: make(chan struct{}),
	}
	if n.config.Now == nil {
		n.config.Now = time.Now
	}
	n.config.Now = failpoint.Clock(n.config.Now)
	n.started, n.name = n.config.Now(), cmp.Or(n.config.Name, hostName())
	n.statusMetrics, n.members = status.NewMetrics(), status.NewMembers(n.name, n.config.Now, &n.events)
	for _, step := range []func(context.Context) error{
		n.planFiles, n.startTraces, n.bind, n.startAdmin, n.openStorage, n.openPolicy, n.startHosts, n.startCluster, n.startPort, n.startOwner, n.startMember, n.startAPI,
		n.startDashboard, n.startDrain, n.awaitNodes, n.startStatus,
	} {
		err := ctx.Err()
		if err == nil {
			err = step(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
		}
	}
	n.health.Set(gateway.Ready)
	n.tellReady()
	return n, nil
}

// openStorage opens store and archive. A disk error stops the node.
func (n *Node) openStorage(ctx context.Context) (err error) {
	n.storage, err = storage.Open(ctx, n.config.Config, storage.Options{
		StoreFiles: n.files.store, ArchiveFiles: n.files.archive, Failed: n.fail, Registry: n.registry, Now: n.config.Now, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.push("store", func(context.Context) error { return n.storage.Close() })
	return nil
}

// openPolicy reads the policy and, if it comes from a file, begins to watch it.
func (n *Node) openPolicy(context.Context) (err error) {
	n.policy, err = policyfile.OpenSource(policyfile.SourceConfig{
		File: n.config.Policy, Poll: n.config.PolicyPoll, Log: n.log, Large: func(l license.Large) { n.hosts.Large(l) },
		Changed: func(version string) {
			n.events.Add(n.config.Now(), &licensedv1.Happening{
				Kind: licensedv1.HappeningKind_HAPPENING_KIND_POLICY_CHANGED, Node: n.name, Text: fmt.Sprintf("policy %s is in force on %s", version, n.name),
			})
		},
	})
	if err != nil {
		return err
	}
	n.push("policy", func(context.Context) error { n.policy.Close(); return nil })
	return nil
}

// startHosts starts what the host of each incarnation runs in. A gateway has no host.
func (n *Node) startHosts(context.Context) error {
	c := host.Config{
		Node: n.name, Storage: n.storage, Policy: n.policy, Runtime: n.config.Runtime, Archiver: n.config.Archiver, Confirmed: n.confirmed,
		Tracer: n.tracer, Events: &n.events, Registry: n.registry, Now: n.config.Now, Log: n.log,
		Appended: func(customer string) { // Streams follow customers, once there is a gateway.
			if g := n.gateway.Load(); g != nil {
				g.Appended(customer)
			}
		},
	}
	if n.config.Store == "" {
		c.Data = n.config.Data
	}
	n.hosts = host.New(c)
	n.push("actor system", func(context.Context) error { n.hosts.Close(); return nil })
	return nil
}

// push notes how to stop a part that was started.
func (n *Node) push(name string, stop func(context.Context) error) {
	n.parts = append(n.parts, part{name, stop})
}

// bind takes the addresses, before anything slow or exclusive.
func (n *Node) bind(context.Context) (err error) {
	if n.config.Admin != "" {
		if n.admin, err = gateway.Listen(n.config.Admin, n.adminServer()); err != nil {
			return fmt.Errorf("admin port: %w", err)
		}
		n.push("admin port", n.admin.Shutdown)
	}
	if !n.config.Roles.Has(RoleGateway) {
		return nil
	}
	encryption, err := n.config.APITLS.OpenServer("tls-", n.log)
	if err != nil {
		return err
	}
	if n.api, err = gateway.Listen(n.config.Listen, n.apiServer(encryption.Server())); err != nil {
		return fmt.Errorf("API port: %w", err)
	}
	n.push("API address", func(context.Context) error { n.api.Close(); return nil })
	return nil
}

func (n *Node) startAdmin(context.Context) (err error) {
	if n.admin == nil {
		return nil
	}
	if n.adminToken, err = readToken(n.config.Dashboard.TokenFile); err != nil {
		return err
	}
	go n.watch(n.admin.Start(n.adminHandler()))
	return nil
}

func (n *Node) startAPI(context.Context) error {
	if n.api == nil {
		return nil
	}
	c := gateway.DefaultConfig()
	c.MaxDeadline, c.Limits = n.config.MaxDeadline, n.config.Limits
	c.Budgets = n.connectionBudgets()
	history := &customers.History{Reader: n.storage.Reader(), Kind: n.policy.Kind()}
	c.History, c.HistoryReader, c.Operations = history, history, &operations{n}
	c.Logger, c.Registry, c.Health, c.Now = n.log, n.registry, n.health, n.config.Now
	c.Kind, c.PolicyVersion = n.policy.Kind(), n.policy.Version
	var err error
	if c.Interceptors, err = n.tracer.Interceptors(); err != nil {
		return err
	}
	g := gateway.New(c, n.aggregates)
	n.gateway.Store(g)
	go n.watch(n.api.Start(g.Handler()))
	n.push("API port", most(n.api.Shutdown))
	n.push("streams", func(context.Context) error { g.EndStreams(); return nil })
	return nil
}

// startDrain starts nothing. It is what a stop begins with: the readiness check fails, then other nodes
// get the shards, while this process still serves.
func (n *Node) startDrain(context.Context) error {
	switch m, node := n.member.Load(), n.owner.Load(); {
	case m != nil:
		n.push("shards", most(m.handOver))
	case node != nil:
		n.push("shards", most(func(ctx context.Context) error { return n.handOver(ctx, node) }))
	}
	n.push("readiness", n.drain)
	return nil
}

// handOver gives all shards to other nodes, if there are any. Without a lease, which ends when the store does not
// answer, there is nothing to give: that is no error of a stop.
func (n *Node) handOver(ctx context.Context, node *cluster.Node) error {
	began := time.Now()
	switch err := node.Drain(ctx); {
	case errors.Is(err, cluster.ErrLapsed):
		n.log.Warn("shards not handed over: the lease had ended; other nodes take them over as after a crash", "error", err)
	case err != nil && !errors.Is(err, ownership.ErrRetired):
		return err
	default:
		n.log.Info("shards handed over", "duration", time.Since(began).Round(time.Millisecond).String())
	}
	return nil
}

// most has a part take no more than three quarters of the time that is left to stop, so that those after it have
// the rest: they answer what is in progress, and say good-bye. Half of the drain timeout is what a hand-over plans
// with.
func most(stop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
			defer cancel()
		}
		return stop(ctx)
	}
}

// drain fails the readiness check and gives load balancers time to notice.
func (n *Node) drain(ctx context.Context) error {
	n.health.Set(gateway.Draining)
	select {
	case <-time.After(n.config.DrainDelay):
	case <-ctx.Done():
	}
	return nil
}

// watch fails the node if a server does.
func (n *Node) watch(failed <-chan error) {
	select {
	case err := <-failed:
		n.fail(err)
	case <-n.done:
	}
}

// fail turns the node unhealthy and ends its authority to answer; the first reason is reported.
func (n *Node) fail(err error) {
	n.health.Fail(err)
	n.events.Add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_FAILED, Node: n.name, Text: fmt.Sprintf("%s cannot serve any more: %v", n.name, err),
	})
	n.mu.Lock()
	n.broken = true
	for _, end := range n.silence {
		end()
	}
	n.mu.Unlock()
	select {
	case n.failed <- err:
	default:
	}
}

// onFail has a function called when the node fails, at once if it has.
func (n *Node) onFail(silence func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silence = append(n.silence, silence)
	if n.broken {
		silence()
	}
}

// API returns the address of the API, nil if there is none.
func (n *Node) API() net.Addr {
	if n.api == nil {
		return nil
	}
	return n.api.Addr()
}

// APIURL returns how clients on this machine reach the API; empty if there is none.
func (n *Node) APIURL() string {
	if n.api == nil {
		return ""
	}
	scheme := "http://"
	if n.config.APITLS != (tlsfiles.Files{}) {
		scheme = "https://"
	}
	return scheme + dialable(n.api.Addr())
}

// Admin returns the address of the admin port, nil if there is none.
func (n *Node) Admin() net.Addr {
	if n.admin == nil {
		return nil
	}
	return n.admin.Addr()
}

// Ports returns what there is at which address, for people.
func (n *Node) Ports() [][2]string {
	var all [][2]string
	if n.api != nil {
		all = append(all, [2]string{"API", n.APIURL() + "  (gRPC, gRPC-Web, JSON)"})
	}
	if n.admin != nil {
		all = append(all, [2]string{"Admin", "http://" + dialable(n.admin.Addr()) + "  (" + n.adminPages() + ")"})
	}
	if m := n.member.Load(); m != nil {
		all = append(all, [2]string{"Node", m.transport.Address()}, [2]string{"Gossip", m.gossip.Address()})
	}
	return all
}

// dialable returns an address that reaches a listener, also one on all interfaces.
func dialable(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", fmt.Sprint(t.Port))
	}
	return a.String()
}

// Store returns where the data is, for people.
func (n *Node) Store(ctx context.Context) string {
	s := n.storage.Status(ctx)
	if s.Kind == "pebble" {
		return s.Location
	}
	return s.Kind + " " + s.Location
}

// Notes are what people should be told at the start: what was made for development, and what endangers
// the promise. All of it was logged.
func (n *Node) Notes() []string { return n.storage.Notes() }

// PolicyVersion returns the version of the policy in force.
func (n *Node) PolicyVersion() string { return n.policy.Version() }

// ReloadPolicy reads the policy file again now, changed or not. What comes of it is logged; a file
// with mistakes changes nothing.
func (n *Node) ReloadPolicy() { n.policy.Reload() }

// Failed receives the reason when the node can no longer serve. It must then be stopped.
func (n *Node) Failed() <-chan error { return n.failed }

// Stop stops the node in order: no more requests, those in progress are answered, everything is written.
// What takes longer than the drain timeout, or than ctx, is cut off; that is an error, and loses
// nothing that was acknowledged. Further calls wait for the first and return its result.
func (n *Node) Stop(ctx context.Context) error {
	n.stopping.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, n.config.DrainDelay+n.config.DrainTimeout)
		defer cancel()
		defer n.unlimit()
		close(n.done)
		var errs []error
		for i := len(n.parts) - 1; i >= 0; i-- {
			p := n.parts[i]
			n.log.Debug("stopping", "part", p.name)
			if err := p.stop(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
			}
		}
		n.stopped = errors.Join(errs...)
	})
	return n.stopped
}
