package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"licensed/actors"
	"licensed/gateway"
	"licensed/gateway/devicespage"
	"licensed/gateway/server"
	"licensed/internal/member"
	"licensed/internal/storage"
	"licensed/internal/tlsfiles"
	"licensed/internal/tracing"
	"licensed/messages/licensedv1"
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

// messages returns the roles in the API's words.
func (r Roles) messages() (out []licensedv1.NodeRole) {
	if r.Has(RoleNode) {
		out = append(out, licensedv1.NodeRole_NODE_ROLE_NODE)
	}
	if r.Has(RoleGateway) {
		out = append(out, licensedv1.NodeRole_NODE_ROLE_GATEWAY)
	}
	return out
}

// Config of a node. DefaultConfig gives sensible values.
type Config struct {
	// Config of store and archive. Its Logger is the logger of the process.
	storage.Config
	// Listen is the address of the API, HOST:PORT; port 0 chooses one.
	Listen string
	// OperationsListen is the address of an API with AdminService, which the one at Listen then lacks; empty for one
	// API with all services.
	OperationsListen string
	// Origins of pages whose scripts may call the API, see gateway.CrossOrigin; none by default.
	Origins []string
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

	// DevicesPage lists the origins whose pages may show the customers' devices page, see gateway.Config; none by
	// default.
	DevicesPage []string
	// APITLS encrypts the API. With a CA, clients must have a certificate of it, unless AuthFile is set.
	APITLS tlsfiles.Files
	// AdminTLS encrypts the admin port. With a CA, clients must have a certificate of it, unless AuthFile is set.
	AdminTLS tlsfiles.Files
	// AuthFile says who may call the API and use the admin port, see auth.File; empty: everybody who reaches them.
	AuthFile string
	// AuditFile records calls of operators and others, see package auditlog; empty for no record.
	AuditFile string
	// LogCustomerIDs has log lines name customers, and not just their hashes.
	LogCustomerIDs bool
	// AcceptRisks are names of risks that were accepted, see Risks.
	AcceptRisks []string
	// AllowedHosts are names under which the HTTP ports are served, beside those in the addresses, see
	// gateway.AllowHosts.
	AllowedHosts []string

	// LicenseKeys is the directory, or the file, of the keys that sign licences; empty: none are signed.
	LicenseKeys string
	// LicenseKeyGrace is as in signingkeys.SourceConfig, and LicenseIssuer as in gateway.Config.
	LicenseKeyGrace time.Duration
	LicenseIssuer   string
	// Fallback accepts commands while their owners cannot be reached.
	Fallback FallbackConfig

	// Roles of the process in its cluster; both where there is no cluster.
	Roles Roles
	// Name of the process, unique in its cluster and the same after a restart; empty for the machine's.
	Name string
	// Cluster that it takes part in, if Store is one that several processes share.
	Cluster member.Settings

	// Runtime of the aggregates.
	Runtime actors.Config

	// Archiver of closed history.
	Archiver archive.WorkerConfig

	// MaxDeadline is as in gateway.Config.
	MaxDeadline time.Duration
	// Limits of what API requests use at a time.
	Limits gateway.Limits
	// ReadTimeout, ReplyTimeout and MaxStreams are as in server.Config.
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
	g, s := gateway.DefaultConfig(), server.DefaultConfig()
	return Config{
		Config:     storage.Config{StoreWait: time.Minute, Data: "./licensed-data", Logger: slog.Default()},
		Listen:     "127.0.0.1:8080",
		Admin:      "127.0.0.1:8081",
		PolicyPoll: time.Second,

		LicenseKeyGrace: 90 * 24 * time.Hour,
		LicenseIssuer:   "licensed",
		Fallback: FallbackConfig{
			After: 50 * time.Millisecond, MaxBytes: 256 << 20, AnswersBytes: 64 << 20,
		},

		Roles:        RoleNode | RoleGateway,
		Cluster:      member.DefaultSettings(),
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

// Validate returns what is wrong with the settings of store, archive and cluster together, or nil. An error begins
// with the name of a setting.
func (c *Config) Validate() error {
	err := c.Config.Validate()
	for _, origin := range c.Origins {
		if wrong := gateway.CheckOrigin(origin); err == nil && wrong != nil {
			err = fmt.Errorf("cors-origins: %w", wrong)
		}
	}
	for _, origin := range c.DevicesPage {
		if wrong := devicespage.CheckOrigin(origin); err == nil && wrong != nil {
			err = fmt.Errorf("devices-page: %w", wrong)
		}
	}
	if err == nil {
		_, err = c.APITLS.OpenServer("tls-", tlsfiles.Options{})
	}
	if err == nil {
		err = c.Fallback.validate(c.LicenseKeys != "")
	}
	if err == nil {
		_, err = c.AdminTLS.OpenServer("admin-tls-", tlsfiles.Options{})
	}
	for _, risk := range c.AcceptRisks {
		if err == nil && risk != tlsfiles.RiskExpiredCRL &&
			!slices.ContainsFunc(Risks, func(r Risk) bool { return r.Name == risk }) {
			err = fmt.Errorf("accept-risk: %q is no risk of a process; there are %s", risk, riskNames())
		}
	}
	if err != nil || c.Cluster.Alone {
		return err
	}
	if err := c.Cluster.Validate(); err != nil {
		return err
	}
	switch {
	case c.Store == "":
		return errors.New("store: is required: all processes of a cluster share a store, " +
			"like cassandra://10.0.0.1,10.0.0.2/licensed")
	// A directory cannot be shared by processes on several machines.
	case c.ArchiveDir() != "":
		return errors.New("archive: is a directory of this machine, which other processes cannot read: " +
			"name a keyspace on Cassandra, or off")
	}
	return nil
}

// MaxShards is more than any cluster needs; each costs every member some memory.
const MaxShards = 65536

// perNode and perShard return MaxPerNode and MaxPerShard, or what they are by default. Even a process with a few
// slots has some for each shard, whose customers may ask at the same moment.
func (c *Config) perNode() int  { return cmp.Or(c.MaxPerNode, max(1, c.Limits.MaxInFlight/4*3)) }
func (c *Config) perShard() int { return cmp.Or(c.MaxPerShard, max(16, c.Limits.MaxInFlight/8)) }
