package node

import (
	"log/slog"
	"time"

	"licensed/actors"
	"licensed/gateway"
	"licensed/persistence/archive"
)

// ArchiveOff is in place of the archive's directory where there is no archive tier. History stays in the
// hot tier then; what was archived before cannot be read.
const ArchiveOff = "off"

// Config of a node. DefaultConfig gives sensible values.
type Config struct {
	// Data is the directory of the embedded store, made if missing.
	Data string
	// Listen is the address of the API, HOST:PORT; port 0 chooses one.
	Listen string
	// Admin is the address of metrics, profiles and health checks; empty for none.
	Admin string
	// Policy is the policy file, watched for changes; empty for the built-in policy.
	Policy string
	// PolicyPoll is how often the policy file is looked at.
	PolicyPoll time.Duration

	// Runtime of the aggregates.
	Runtime actors.Config

	// Archive is the directory of the archive tier, made if missing, best on another disk; empty for
	// archive/ in Data, ArchiveOff for none.
	Archive string
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
		Runtime:      actors.DefaultConfig(),
		Archiver:     archive.DefaultWorkerConfig(),
		MaxDeadline:  g.MaxDeadline,
		MaxInFlight:  g.MaxInFlight,
		DrainTimeout: 30 * time.Second,
		Logger:       slog.Default(),
	}
}
