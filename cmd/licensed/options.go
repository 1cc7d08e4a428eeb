package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"licensed/internal/demo"
	"licensed/internal/node"
)

// options are what the flags of dev set.
type options struct {
	config      node.Config
	maxResident memorySize
	segment     memorySize // of the archive
	archiveRate memorySize // a second
	logLevel    string
	logFormat   string
	readyFile   string
	demo        bool
	demoConfig  demo.Config
}

// newOptions returns the defaults.
func newOptions() *options {
	return &options{
		config:      node.DefaultConfig(),
		maxResident: memorySize{text: "25%", percent: 25},
		segment:     memorySize{text: "256KiB", bytes: 256 << 10},
		archiveRate: memorySize{text: "8MiB", bytes: 8 << 20},
		logLevel:    "info",
		logFormat:   "auto",
		demoConfig:  demo.DefaultConfig(),
	}
}

// bind declares the flags.
func (o *options) bind(f *pflag.FlagSet) {
	f.SortFlags = false
	c := &o.config
	f.String(configFlag, "", "settings `file` (YAML: names of flags and values)")
	o.bindStore(f)
	f.StringVar(&c.Listen, "listen", c.Listen, "`address` of the API (gRPC, gRPC-Web, JSON); port 0 chooses one")
	f.StringVar(&c.Admin, "admin", c.Admin, "`address` of metrics, profiles and health checks; empty for none")
	f.StringVar(&c.Policy, "policy", c.Policy, "policy `file`; without one the built-in policy holds")

	f.IntVar(&c.Runtime.SnapshotEvery, "snapshot-every", c.Runtime.SnapshotEvery,
		"`events` after which a customer's state is written")
	f.DurationVar(&c.Runtime.SnapshotInterval, "snapshot-interval", c.Runtime.SnapshotInterval,
		"also write it when the oldest event since the last is older than this; 0 for never")
	f.DurationVar(&c.Runtime.IdleAfter, "passivate-after", c.Runtime.IdleAfter,
		"idle time after which a customer leaves memory")
	f.Var(&o.maxResident, "max-resident",
		"memory for customers, as bytes (512MiB) or share of the memory; the least recently used leave first")

	o.bindArchive(f)

	f.DurationVar(&c.MaxDeadline, "max-deadline", c.MaxDeadline, "longest time a request may take")
	f.IntVar(&c.MaxInFlight, "max-in-flight", c.MaxInFlight, "`requests` handled at once; more are turned away")
	f.DurationVar(&c.DrainTimeout, "drain-timeout", c.DrainTimeout,
		"time for requests under way when stopping; then they are cut off")
	f.DurationVar(&c.DrainDelay, "drain-delay", c.DrainDelay,
		"time between failing the readiness check and refusing connections, for load balancers to notice")

	f.StringVar(&o.logLevel, "log-level", o.logLevel, "lowest `level` that is logged: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", o.logFormat, "`format` of the log: text, json, or auto, which is text on a terminal")
	f.StringVar(&o.readyFile, "ready-file", o.readyFile,
		"`file` to write addresses and process id to, as JSON, when the service is ready")

	f.BoolVar(&o.demo, "demo", o.demo, "simulate customers")
	f.Float64Var(&o.demoConfig.Rate, "demo-rate", o.demoConfig.Rate, "`commands` per second of the simulated customers")
	f.IntVar(&o.demoConfig.Customers, "demo-customers", o.demoConfig.Customers, "`number` of simulated customers")
}

// bindStore declares the flags that say where the data is.
func (o *options) bindStore(f *pflag.FlagSet) {
	c := &o.config
	f.StringVar(&c.Store, "store", c.Store,
		"`URL` of a store on Cassandra, like cassandra://HOST,HOST/KEYSPACE?consistency=QUORUM (see docs/cassandra.md); empty for the embedded one")
	f.StringVar(&c.StorePasswordFile, "store-password-file", c.StorePasswordFile, "`file` with the password for --store, in place of one in the URL")
	f.StringVar(&c.Data, "data", c.Data, "`directory` of the embedded store, made if missing")
	hasPassword(f, "store")
}

// bindArchive declares the flags of the archive tier.
func (o *options) bindArchive(f *pflag.FlagSet) {
	c := &o.config
	f.StringVar(&c.Archive, "archive", c.Archive,
		"`place` of the archive tier: a directory, best on another disk; the URL of a keyspace on Cassandra; off; empty for archive/ in the data directory, or the keyspace of --store")
	f.StringVar(&c.ArchivePasswordFile, "archive-password-file", c.ArchivePasswordFile, "`file` with the password for --archive, in place of one in the URL")
	hasPassword(f, "archive")
	f.Var(period{&c.Archiver.After}, "archive-after",
		"age at which closed history is archived though it is less than a segment")
	f.Var(&o.segment, "archive-segment-bytes", "history that makes a segment, before compression")
	f.Var(period{&c.Archiver.SnapshotAfter}, "archive-snapshot-after",
		"idle time after which also a customer's snapshot is archived; 0 for never")
	f.Var(period{&c.Archiver.Retention}, "archive-retention", "time for which the archive keeps events; 0 for ever")
	f.Var(&o.archiveRate, "archive-rate", "bytes a second that are archived at most; 0 for no bound")
}

// archiveConfig checks the options of the archive tier.
func (o *options) archiveConfig(c *node.Config) error {
	for _, s := range []struct {
		flag string
		size memorySize
		low  int64
		to   *int
	}{
		{"archive-segment-bytes", o.segment, 1 << 10, &c.Archiver.SegmentBytes},
		{"archive-rate", o.archiveRate, 0, &c.Archiver.BytesPerSecond},
	} {
		const high = 16 << 20
		switch {
		case s.size.percent > 0:
			return fmt.Errorf("%s: is a number of bytes, not a share of the memory", s.flag)
		case s.size.bytes < s.low:
			return fmt.Errorf("%s: is %v, must be at least %d", s.flag, &s.size, s.low)
		case s.size.bytes > high && s.flag == "archive-segment-bytes":
			return fmt.Errorf("%s: is %v, must be at most %d", s.flag, &s.size, high)
		}
		*s.to = int(s.size.bytes)
	}
	return nil
}

// nodeConfig checks the options and returns the node's part of them.
func (o *options) nodeConfig(log *slog.Logger) (node.Config, error) {
	c := o.config
	c.Logger = log
	memory, err := availableMemory()
	if err != nil && o.maxResident.percent > 0 {
		return c, fmt.Errorf("max-resident: cannot tell the memory of this machine, give bytes: %w", err)
	}
	c.Runtime.MaxResidentBytes = o.maxResident.of(memory)
	for _, a := range []struct{ flag, value string }{{"listen", c.Listen}, {"admin", c.Admin}} {
		if a.value == "" && a.flag == "admin" {
			continue
		}
		if err := checkAddress(a.value); err != nil {
			return c, fmt.Errorf("%s: %w", a.flag, err)
		}
	}
	if err := c.Validate(); err != nil {
		return c, err
	}
	if err := o.archiveConfig(&c); err != nil {
		return c, err
	}
	return c, errors.Join(
		atLeast("snapshot-every", c.Runtime.SnapshotEvery, 1),
		atLeast("snapshot-interval", c.Runtime.SnapshotInterval, 0),
		atLeast("passivate-after", c.Runtime.IdleAfter, time.Millisecond),
		atLeast("max-deadline", c.MaxDeadline, time.Millisecond),
		atLeast("max-in-flight", c.MaxInFlight, 1),
		atLeast("drain-timeout", c.DrainTimeout, 0),
		atLeast("drain-delay", c.DrainDelay, 0),
		atLeast("demo-rate", o.demoConfig.Rate, 0.01),
		atLeast("demo-customers", o.demoConfig.Customers, 1),
	)
}

func atLeast[T int | float64 | time.Duration](flag string, value, low T) error {
	if value < low {
		return fmt.Errorf("%s: is %v, must be at least %v", flag, value, low)
	}
	return nil
}

// checkAddress says what is wrong with a HOST:PORT.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT, like 127.0.0.1:8080", address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	if strings.ContainsAny(host, " /") {
		return fmt.Errorf("%q has no valid host", address)
	}
	return nil
}

// availableMemory returns what the process may use, in bytes: that of its cgroup, or the machine's.
func availableMemory() (uint64, error) {
	return memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
}
