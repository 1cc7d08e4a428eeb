// Package node is the composition root: it builds a running service from a [Config], and takes it
// down again.
//
// # The model
//
// A process is a stack of parts. Each is started on top of those it needs and stopped before them:
//
//	admin port     health checks and metrics, from the first moment to the last
//	store          the embedded store, which locks its directory, or the one that a cluster shares
//	archive        the archive tier: a directory, or a keyspace
//	policy         the numbers of the rules, read again when the file changes
//	hosts          for each incarnation a host: the aggregates in memory and the archiver (package host)
//	member         node port and gossip, for a process that is one of several (package member)
//	ownership      the shards that this process owns
//	API port       the gateway
//
// Which parts a process has follows from its role, and each role is one list of steps ([Start] runs it): embedded,
// alone, node, gateway, both. A field of Node that not every role has is an optional.Value.
//
// A stop first fails the readiness check, then hands the shards over to others while the process continues to serve,
// then takes no more requests and waits for those in progress, leaves the cluster, and closes the store last. A part is
// stopped once, also when the start of one above it failed.
//
// With an embedded store a process is alone: the lock on the directory proves that no other process has the shards, and
// there is one host for as long as it lives. On a store that several share, shards are held under a lease. When that is
// lost, the incarnation ends with its host, and the next one begins. That is no failure of the process.
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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy/policyfile"
	"licensed/cluster"
	"licensed/gateway"
	"licensed/gateway/auth"
	"licensed/gateway/dashboard"
	"licensed/gateway/server"
	"licensed/internal/expiry"
	"licensed/internal/failpoint"
	"licensed/internal/hideids"
	"licensed/internal/host"
	"licensed/internal/lifecycle"
	"licensed/internal/loglimit"
	"licensed/internal/member"
	"licensed/internal/openfiles"
	"licensed/internal/optional"
	"licensed/internal/status"
	"licensed/internal/storage"
	"licensed/internal/tracing"
	"licensed/messages/licensedv1"
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

	name    string // for people
	started time.Time
	files   openfiles.Plan
	tracer  *tracing.Tracer // a nil one traces nothing
	parts   *lifecycle.Parts
	failed  chan error

	storage    *storage.Storage
	policy     *policyfile.Source
	hosts      *host.Hosts
	shards     shards // that this process holds
	aggregates aggregates

	shared optional.Value[shared]       // a process whose store several share
	solo   optional.Value[cluster.Solo] // a process with a store of its own
	owner  optional.Value[cluster.Node] // a node of a cluster
	member optional.Value[member.Self]  // a process that is not alone

	admin     optional.Value[server.Server]
	access    *dashboard.Access // to the admin port
	expiries  expiry.Collector
	verifier  *auth.Verifier // nil where callers need no credentials
	accepted  []Exposed      // risks
	dashboard optional.Value[dashboard.Dashboard]
	api       optional.Value[server.Server]
	operators optional.Value[server.Server] // the API with AdminService, if it has a port of its own
	gateway   optional.Value[gateway.Gateway]

	events   status.Events
	members  *status.Members
	assessor *status.Assessor
}

// aggregates are the customers of the whole cluster, or of the process if it is alone. It is safe for concurrent use.
type aggregates interface {
	gateway.Aggregates
	// Operate has the owner of a customer execute an operator's request, perhaps twice.
	Operate(ctx context.Context, customer string, request any) (actors.Answer, error)
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
	lines := c.Logger.Handler()
	if !c.LogCustomerIDs {
		lines = hideids.Handler(lines)
	}
	limited, unlimit := loglimit.New(lines, logLines, logInterval)
	n := &Node{
		config: c, log: slog.New(limited), health: new(gateway.Health), registry: newRegistry(),
		parts: lifecycle.New(), failed: make(chan error, 1),
	}
	n.config.Logger = n.log
	n.registry.MustRegister(&n.expiries)
	// Parts are stopped in the reverse order of their start: this one last.
	n.parts.Push("limits of log lines", func(context.Context) error { unlimit(); return nil })
	if n.config.Now == nil {
		n.config.Now = time.Now
	}
	n.config.Now = failpoint.Clock(n.config.Now)
	n.started, n.name = n.config.Now(), cmp.Or(n.config.Name, hostName())
	n.assessor, n.members = status.NewAssessor(&n.events), status.NewMembers(n.name, n.config.Now, &n.events)
	for _, step := range n.role() {
		// A signal during the start ends it before the next step.
		err := ctx.Err()
		if err == nil {
			err = step(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
		}
	}
	// Health turns ready last: an orchestrator sends requests from then on.
	n.health.Set(gateway.Ready)
	n.tellReady()
	return n, nil
}

// step starts a part, and notes how it is stopped.
type step func(context.Context) error

// role returns the steps that make the process what its settings say.
func (n *Node) role() []step {
	switch c := &n.config; {
	case c.Store == "":
		return n.embedded()
	case c.Cluster.Alone:
		return n.alone()
	case !c.Roles.Has(RoleGateway):
		return n.node()
	case !c.Roles.Has(RoleNode):
		return n.gatewayOnly()
	}
	return n.both()
}

// embedded is a process with a store of its own: the lock on its directory proves that it has all shards.
func (n *Node) embedded() []step {
	return []step{
		n.checkExposure, n.planFiles, n.startTraces, n.openAuth, n.startAdmin,
		n.bindAPI, n.openStorage, n.openPolicy, n.startHosts,
		n.startSolo,
		n.startAPI, n.startDashboard, n.failReadiness, n.startStatus,
	}
}

// alone is the only process of a cluster: it has a store that others could share, and takes all shards.
func (n *Node) alone() []step {
	return []step{
		n.checkExposure, n.planFiles, n.startTraces, n.openAuth, n.startAdmin,
		n.bindAPI, n.openStorage, n.openPolicy, n.startHosts,
		n.findCluster, n.startNode, n.takeAll,
		n.startAPI, n.startDashboard, n.handOver, n.failReadiness, n.startStatus,
	}
}

// node holds shards of a cluster. It serves no API.
func (n *Node) node() []step {
	return []step{
		n.checkExposure, n.planFiles, n.startTraces, n.openAuth, n.startAdmin,
		n.openStorage, n.openPolicy, n.startHosts,
		n.findCluster, n.listen, n.startNode, n.join,
		n.handOver, n.failReadiness, n.watchShards,
	}
}

// gatewayOnly serves the API of a cluster. It holds no shards, and is ready once it knows a node that does.
func (n *Node) gatewayOnly() []step {
	return []step{
		n.checkExposure, n.planFiles, n.startTraces, n.openAuth, n.startAdmin,
		n.bindAPI, n.openStorage, n.openPolicy, n.startHosts,
		n.findCluster, n.listen, n.join,
		n.startAPI, n.startDashboard, n.failReadiness, n.awaitNodes, n.startStatus, n.watchShards,
	}
}

// both holds shards of a cluster and serves its API.
func (n *Node) both() []step {
	return []step{
		n.checkExposure, n.planFiles, n.startTraces, n.openAuth, n.startAdmin,
		n.bindAPI, n.openStorage, n.openPolicy, n.startHosts,
		n.findCluster, n.listen, n.startNode, n.join,
		n.startAPI, n.startDashboard, n.handOver, n.failReadiness, n.startStatus, n.watchShards,
	}
}

// openStorage opens store and archive. A disk error stops the node.
func (n *Node) openStorage(ctx context.Context) (err error) {
	n.storage, err = storage.Open(ctx, n.config.Config, storage.Options{
		StoreFiles: n.files.Store, ArchiveFiles: n.files.Archive, Registry: n.registry,
		Listener: storage.Listener{Failed: n.fail},
		Now:      n.config.Now, Log: n.log,
	})
	if err != nil {
		return err
	}
	for tier, certificates := range n.storage.Certificates {
		n.expiries.Add(tier, certificates)
	}
	n.parts.Push("store", func(context.Context) error { return n.storage.Close() })
	return nil
}

// openPolicy reads the policy and, if it comes from a file, begins to watch it.
func (n *Node) openPolicy(context.Context) (err error) {
	n.policy, err = policyfile.OpenSource(policyfile.SourceConfig{
		File: n.config.Policy, Poll: n.config.PolicyPoll, Log: n.log,
		Listener: policyfile.Listener{
			// Large is called by actors, which exist only after startHosts.
			Listener: license.Listener{Large: func(l license.Large) { n.hosts.Large(l) }},
			Changed: func(version string) {
				n.events.Add(n.config.Now(), &licensedv1.Happening{
					Kind: licensedv1.HappeningKind_HAPPENING_KIND_POLICY_CHANGED,
					Node: n.name,
					Text: fmt.Sprintf("policy %s is in force on %s", version, n.name),
				})
			},
		},
	})
	if err != nil {
		return err
	}
	n.parts.Push("policy", func(context.Context) error { n.policy.Close(); return nil })
	return nil
}

// startHosts starts what the host of each incarnation runs in. A gateway has no host.
func (n *Node) startHosts(context.Context) error {
	c := host.Config{
		Node: n.name, Storage: n.storage, Policy: n.policy, Runtime: n.config.Runtime, Archiver: n.config.Archiver,
		Confirmed: n.confirmed,
		Tracer:    n.tracer, Events: &n.events, Registry: n.registry, Now: n.config.Now, Log: n.log,
		Listener: host.Listener{Appended: func(customer string) { // Streams follow customers, once there is a gateway.
			if g, ok := n.gateway.Get(); ok {
				g.Appended(customer)
			}
		}},
	}
	// A directory has room for the archiver's position; a store that is shared does not
	// need it.
	if n.config.Store == "" {
		c.Data = n.config.Data
	}
	n.hosts = host.New(c)
	n.parts.Push("actor system", func(context.Context) error { n.hosts.Close(); return nil })
	return nil
}

// Store returns where the data is, for people.
func (n *Node) Store(ctx context.Context) string {
	s := n.storage.Status(ctx)
	if s.Kind == "pebble" {
		return s.Location
	}
	return s.Kind + " " + s.Location
}

// PolicyVersion returns the version of the policy in force.
func (n *Node) PolicyVersion() string { return n.policy.Version() }

// ReloadPolicy reads the policy file again now, changed or not. What comes of it is logged; a file
// with mistakes changes nothing.
func (n *Node) ReloadPolicy() { n.policy.Reload() }
