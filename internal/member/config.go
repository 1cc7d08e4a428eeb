package member

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/cluster/shardmap"
	"licensed/gateway"
	"licensed/gateway/auth"
	"licensed/internal/networks"
	"licensed/internal/optional"
	"licensed/internal/status"
	"licensed/internal/tlsfiles"
	"licensed/internal/tracing"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Settings say how a process takes part in a cluster.
type Settings struct {
	// Name of the cluster, fixed when it is created.
	Name string
	// Shards of a cluster that is created now; an existing one keeps its own. More spread better over many
	// nodes, and cost a compare-and-set each when they move.
	Shards uint32
	// Alone says that no other process takes part: all shards are this one's, and nobody is asked.
	Alone bool

	// Join are members to begin with: addresses, or DNS names of many, with or without the port for gossip.
	Join []string
	// Bind is the address for gossip, HOST:PORT, TCP and UDP; Advertise is what others reach it under, if
	// that is another.
	Bind, Advertise string
	// Label keeps the gossip of clusters on one network apart; empty: Name does. KeyFile has the keys that
	// encrypt gossip, one a line in base64: 16, 24 or 32 bytes each. The first one encrypts; all members need it. The
	// file is read again when it changes. Empty for no encryption.
	Label, KeyFile string

	// Networks (CIDR) from which other processes may connect to Bind and NodeListen, and in which members listed by
	// gossip must be; empty for all.
	Networks []string

	// NodeListen is the address for requests between processes, HOST:PORT; NodeAdvertise is what others
	// reach it under, if that is another.
	NodeListen, NodeAdvertise string
	// MaxConnections of other processes are accepted at once on NodeListen; 0 for an eighth of the limit of open files,
	// at least 8 and at most 1,024. Each other process has one.
	MaxConnections int
	// NodeTLS encrypts requests between processes. With a CA both sides must have a certificate of it.
	NodeTLS tlsfiles.Files
	// NodeSANs and GatewaySANs are patterns of the names (URI or DNS) in the certificates of nodes and of gateways, as
	// auth.ParseNames has them. They take the place of the check of the address that a process is reached at. Both
	// empty: every certificate of the CA is that of a node, if it is valid for the address.
	NodeSANs, GatewaySANs []string

	// LeaseTTL is the time without a sign of life after which a node is declared dead. Less makes failover
	// faster, and a slow store or a starved process lose its shards more easily.
	LeaseTTL time.Duration
	// Confirm is how a node makes sure before each reply that it may still speak: "lease", by its clock,
	// or "read", by a read of its lease, for machines that can be frozen with their clocks.
	Confirm string
	// Capacity is this node's share of the shards in relation to others'.
	Capacity float64
	// MovesPerSecond bounds the shards that this node hands over in a planned move. More: a change of the
	// members has ended sooner, and more customers wait a moment at the same time.
	MovesPerSecond float64
}

// Config of a member.
type Config struct {
	Cluster Settings
	// Name of the process.
	Name string
	// Info is the row of the cluster, and Store has it, leases, votes and the rows of shards.
	Info  persistence.ClusterInfo
	Store persistence.Store
	// Map is what the process knows of the owners of shards.
	Map *shardmap.Map
	// Node is this process as one that holds shards. A gateway has none.
	Node *optional.Value[cluster.Node]
	// Holds says that this process is to hold shards.
	Holds bool
	// AcceptExpiredCRLs is as in tlsfiles.Options, for Cluster.NodeTLS.
	AcceptExpiredCRLs bool
	// API is the address of the API that this process serves, HOST:PORT; empty for none.
	API string
	// MaxPeers is the number of connections of other processes that are accepted.
	MaxPeers int
	// MaxPerNode and MaxPerShard bound requests in progress, as in routing.Config.
	MaxPerNode, MaxPerShard int
	// Status returns what this process says of itself, given the status of its node; nil for a gateway.
	Status func(context.Context, *cluster.NodeStatus) (*licensedv1.NodeStatus, error)
	// Stopping is closed when the process begins to stop.
	Stopping <-chan struct{}
	Health   *gateway.Health
	Events   *status.Events
	Members  *status.Members
	Metrics  *Metrics
	// Authorizer decides again about the callers of requests of other processes, and Authenticator verifies the tokens
	// of operators; nil: callers have no identity here.
	Authorizer    auth.Authorizer
	Authenticator auth.Authenticator
	// Tracer of requests; nil for none.
	Tracer *tracing.Tracer
	Now    func() time.Time
	Log    *slog.Logger
}

// DefaultSettings returns the settings of a process of a cluster on one machine.
func DefaultSettings() Settings {
	p := ownership.DefaultConfig()
	return Settings{
		Name: "licensed", Shards: cluster.DefaultShards, Bind: "127.0.0.1:7946", NodeListen: "127.0.0.1:7947",
		LeaseTTL: p.Timing.TTL, Confirm: cluster.ConfirmLease.String(), Capacity: 1, MovesPerSecond: p.MovesPerSecond,
	}
}

// Validate returns what is wrong, or nil. An error begins with the name of a setting.
func (s *Settings) Validate() error {
	if _, err := cluster.ParseConfirm(s.Confirm); err != nil {
		return err
	}
	if _, err := s.gossipKeys(); err != nil {
		return err
	}
	if _, err := networks.Parse(s.Networks); err != nil {
		return fmt.Errorf("member-networks: %w", err)
	}
	encryption, err := s.NodeTLS.OpenMutual("node-tls-", tlsfiles.Options{})
	if err != nil {
		return err
	}
	_, err = s.processes(encryption)
	return err
}
