package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/gateway"
	"licensed/persistence/archive"
)

// ArchiveOff is in place of the archive's directory where there is no archive tier. History stays in the
// hot tier then; what was archived before cannot be read.
const ArchiveOff = "off"

// ClusterConfig says how a process takes part in a cluster.
type ClusterConfig struct {
	// Name of the cluster, fixed when it is created.
	Name string
	// Shards of a cluster that is created now; an existing one keeps its own. More spread better over many
	// nodes, and cost a compare-and-set each when they move.
	Shards uint32
	// Alone says that no other process takes part: all shards are this one's, and nobody is asked.
	Alone bool
	// LeaseTTL is how long after its last sign of life a node is declared dead. Less makes failover
	// faster, and a slow store or a starved process lose its shards more easily.
	LeaseTTL time.Duration
	// Confirm is how a node makes sure before each reply that it may still speak: "lease", by its clock,
	// or "read", by a read of its lease, for machines that can be frozen with their clocks.
	Confirm string
	// MovesPerSecond bounds the shards that this node hands over in a planned move.
	MovesPerSecond float64
}

// Config of a node. DefaultConfig gives sensible values.
type Config struct {
	// Store is the URL of a store on Cassandra (cassandra://HOST,HOST/KEYSPACE?PARAMETERS, see
	// docs/cassandra.md); empty for the embedded one in Data.
	Store string
	// StorePasswordFile has the password for Store, in place of one in the URL.
	StorePasswordFile string
	// Data is the directory of the embedded store, made if missing.
	Data string
	// Development makes a keyspace and tables that are missing, with one copy of everything, and
	// accepts that risk.
	Development bool
	// Listen is the address of the API, HOST:PORT; port 0 chooses one.
	Listen string
	// Admin is the address of metrics, profiles and health checks; empty for none.
	Admin string
	// Policy is the policy file, watched for changes; empty for the built-in policy.
	Policy string
	// PolicyPoll is how often the policy file is looked at.
	PolicyPoll time.Duration

	// Name of the process, unique in its cluster and the same after a restart; empty for the machine's.
	Name string
	// Cluster that it takes part in, if Store is one that several processes share.
	Cluster ClusterConfig

	// Runtime of the aggregates.
	Runtime actors.Config

	// Archive is the archive tier: a directory, made if missing, best on another disk; the URL of a
	// keyspace on Cassandra, best one with large disks; ArchiveOff for none; empty for archive/ in Data,
	// or the keyspace of Store.
	Archive string
	// ArchivePasswordFile is to Archive what StorePasswordFile is to Store.
	ArchivePasswordFile string
	// Archiver of closed history.
	Archiver archive.WorkerConfig

	// MaxDeadline and MaxInFlight are as in gateway.Config.
	MaxDeadline time.Duration
	MaxInFlight int

	// DrainDelay passes between failing the readiness check and refusing connections, so that load
	// balancers stop sending first. Longer: fewer refused connections behind slow balancers, slower
	// stops. 0 where there is no balancer.
	DrainDelay time.Duration
	// DrainTimeout is the time that requests under way get when stopping; then they are cut off.
	DrainTimeout time.Duration

	// Logger of the node.
	Logger *slog.Logger
	// Now is the wall clock, for tests; nil is time.Now.
	Now func() time.Time
}

// DefaultConfig returns the configuration that a node runs with unless told otherwise.
func DefaultConfig() Config {
	g := gateway.DefaultConfig()
	return Config{
		Data:         "./licensed-data",
		Listen:       "127.0.0.1:8080",
		Admin:        "127.0.0.1:8081",
		PolicyPoll:   time.Second,
		Cluster:      defaultCluster(),
		Runtime:      actors.DefaultConfig(),
		Archiver:     archive.DefaultWorkerConfig(),
		MaxDeadline:  g.MaxDeadline,
		MaxInFlight:  g.MaxInFlight,
		DrainTimeout: 30 * time.Second,
		Logger:       slog.Default(),
	}
}

func defaultCluster() ClusterConfig {
	p := ownership.DefaultConfig()
	return ClusterConfig{
		Name: "licensed", Shards: cluster.DefaultShards, LeaseTTL: p.Timing.TTL, Confirm: cluster.ConfirmLease.String(),
		MovesPerSecond: p.MovesPerSecond,
	}
}

// Validate returns what is wrong with the settings of store and archive, or nil.
func (c *Config) Validate() error {
	if c.Store == "" && c.Data == "" {
		return errors.New("data: is required")
	}
	if c.Store != "" && !isCassandra(c.Store) {
		return fmt.Errorf("store: %q is no URL of a store, like cassandra://127.0.0.1:9042/licensed", c.Store)
	}
	var err error
	if c.Store != "" {
		_, err = c.storeOptions()
	}
	if err == nil {
		_, _, err = c.archiveOptions()
	}
	return err
}

// ArchiveDir returns the directory of the archive, "" if it has none.
func (c *Config) ArchiveDir() string {
	switch {
	case c.Archive == ArchiveOff, isCassandra(c.Archive), c.Archive == "" && c.Store != "":
		return ""
	case c.Archive == "":
		return filepath.Join(c.Data, "archive")
	}
	return c.Archive
}
