package node

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/gateway"
	"licensed/internal/storage"
	"licensed/internal/tlsfiles"
	"licensed/internal/tracing"
	"licensed/persistence/archive"
)

// Roles are what a process does for its cluster.
type Roles uint8

// The roles. A process has one or both.
const (
	// RoleNode holds shards and their customers.
	RoleNode Roles = 1 << iota
	// RoleGateway serves the API. It has no customers, and hands each request to the owner.
	RoleGateway
)

// Has reports whether all of the given roles are among them.
func (r Roles) Has(other Roles) bool { return r&other == other }

// ClusterConfig says how a process takes part in a cluster.
type ClusterConfig struct {
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
	// Label keeps the gossip of clusters on one network apart; empty: Name does. KeyFile has the key that
	// encrypts gossip, in base64: 16, 24 or 32 bytes, the same for all members; empty for no encryption.
	Label, KeyFile string

	// NodeListen is the address for requests between processes, HOST:PORT; NodeAdvertise is what others
	// reach it under, if that is another.
	NodeListen, NodeAdvertise string
	// MaxConnections of other processes are accepted at once on NodeListen; 0 for an eighth of the limit of open files,
	// at least 8 and at most 1,024. Each other process has one.
	MaxConnections int
	// NodeTLS encrypts requests between processes. With a CA both sides must have a certificate of it.
	NodeTLS tlsfiles.Files

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

// Config of a node. DefaultConfig gives sensible values.
type Config struct {
	// Config of store and archive. Its Logger is the logger of the process.
	storage.Config
	// Listen is the address of the API, HOST:PORT; port 0 chooses one.
	Listen string
	// Admin is the address of metrics, profiles and health checks; empty for none.
	Admin string
	// Traces of requests; none unless it has an endpoint.
	Traces tracing.Config
	// Dashboard on the admin port.
	Dashboard DashboardConfig
	// Policy is the policy file, watched for changes; empty for the built-in policy.
	Policy string
	// PolicyPoll is the interval between looks at the policy file.
	PolicyPoll time.Duration

	// APITLS encrypts the API. With a CA, clients must have a certificate of it.
	APITLS tlsfiles.Files

	// Roles of the process in its cluster; both where there is no cluster.
	Roles Roles
	// Name of the process, unique in its cluster and the same after a restart; empty for the machine's.
	Name string
	// Cluster that it takes part in, if Store is one that several processes share.
	Cluster ClusterConfig

	// Runtime of the aggregates.
	Runtime actors.Config

	// Archiver of closed history.
	Archiver archive.WorkerConfig

	// MaxDeadline is as in gateway.Config.
	MaxDeadline time.Duration
	// Limits of what API requests use at a time.
	Limits gateway.Limits
	// ReadTimeout, ReplyTimeout and MaxStreams are as in gateway.ServerConfig.
	ReadTimeout, ReplyTimeout time.Duration
	MaxStreams                int
	// MaxConnections of the API are accepted at once; 0 for what the limit of open files leaves beside the store, other
	// processes and the admin port.
	MaxConnections int
	// MaxPerNode bounds the requests to one other node that are in progress, and MaxPerShard those for one shard: the
	// excess is refused at once, so that one unreachable node or one stuck shard leaves room for all others. 0 for
	// three quarters of MaxInFlight, and for an eighth.
	MaxPerNode, MaxPerShard int

	// DrainDelay passes between failing the readiness check and refusing connections, so that load
	// balancers stop sending first. Longer: fewer refused connections behind slow balancers, slower
	// stops. 0 where there is no balancer.
	DrainDelay time.Duration
	// DrainTimeout is the time that stopping takes at most; then what is in progress is cut off. All shards are
	// to be handed over in half of it, faster than MovesPerSecond if need be, and have three quarters.
	DrainTimeout time.Duration

	// Now is the wall clock, for tests; nil is time.Now.
	Now func() time.Time
}

// DefaultConfig returns the configuration that a node runs with unless told otherwise.
func DefaultConfig() Config {
	g, s := gateway.DefaultConfig(), gateway.DefaultServerConfig()
	return Config{
		Config:       storage.Config{StoreWait: time.Minute, Data: "./licensed-data", Logger: slog.Default()},
		Listen:       "127.0.0.1:8080",
		Admin:        "127.0.0.1:8081",
		PolicyPoll:   time.Second,
		Roles:        RoleNode | RoleGateway,
		Cluster:      defaultCluster(),
		Runtime:      actors.DefaultConfig(),
		Archiver:     archive.DefaultWorkerConfig(),
		MaxDeadline:  g.MaxDeadline,
		Limits:       g.Limits,
		ReadTimeout:  s.ReadTimeout,
		ReplyTimeout: s.ReplyTimeout,
		MaxStreams:   s.MaxStreams,
		DrainTimeout: 30 * time.Second,
		Traces:       tracing.Config{Ratio: 0.01},
	}
}

func defaultCluster() ClusterConfig {
	p := ownership.DefaultConfig()
	return ClusterConfig{
		Name: "licensed", Shards: cluster.DefaultShards, Bind: "127.0.0.1:7946", NodeListen: "127.0.0.1:7947",
		LeaseTTL: p.Timing.TTL, Confirm: cluster.ConfirmLease.String(), Capacity: 1, MovesPerSecond: p.MovesPerSecond,
	}
}

// Validate returns what is wrong with the settings of store, archive and cluster together, or nil. An error begins
// with the name of a setting.
func (c *Config) Validate() error {
	err := c.Config.Validate()
	if err == nil {
		_, err = c.APITLS.OpenServer("tls-", slog.Default())
	}
	if err != nil || c.Cluster.Alone {
		return err
	}
	return c.validateMember()
}

// validateMember returns what is wrong with the settings of a process that is one of several.
func (c *Config) validateMember() error {
	m := &c.Cluster
	if _, err := cluster.ParseConfirm(m.Confirm); err != nil {
		return err
	}
	if _, err := m.key(); err != nil {
		return fmt.Errorf("gossip-key-file: %w", err)
	}
	if _, err := m.NodeTLS.OpenMutual("node-tls-", slog.Default()); err != nil {
		return err
	}
	switch {
	case c.Store == "":
		return errors.New("store: is required: all processes of a cluster share a store, like cassandra://10.0.0.1,10.0.0.2/licensed")
	case c.ArchiveDir() != "":
		return errors.New("archive: is a directory of this machine, which other processes cannot read: name a keyspace on Cassandra, or off")
	}
	return nil
}

// MaxShards is more than any cluster needs; each costs every member some memory.
const MaxShards = 65536

// key returns the key that encrypts gossip; nil for none.
func (c *ClusterConfig) key() ([]byte, error) {
	if c.KeyFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: its content is not base64: %w", c.KeyFile, err)
	}
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("%s: a key of %d bytes, want 16, 24 or 32", c.KeyFile, n)
	}
	return key, nil
}

// perNode and perShard return MaxPerNode and MaxPerShard, or what they are by default. Even a process with a few
// slots has some for each shard, whose customers may ask at the same moment.
func (c *Config) perNode() int  { return cmp.Or(c.MaxPerNode, max(1, c.Limits.MaxInFlight/4*3)) }
func (c *Config) perShard() int { return cmp.Or(c.MaxPerShard, max(16, c.Limits.MaxInFlight/8)) }
