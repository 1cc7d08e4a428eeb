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
	// requestMemory is for requests to the API, addressShare the share of it that one address may have.
	requestMemory, addressShare memorySize
	segment                     memorySize // of the archive
	archiveRate                 memorySize // a second
	logLevel                    string
	logFormat                   string
	readyFile                   string
	host                        string // of addresses that are not given
	demo                        bool
	demoConfig                  demo.Config
}

// newOptions returns the defaults.
func newOptions() *options {
	return &options{
		config:        node.DefaultConfig(),
		maxResident:   memorySize{text: "25%", percent: 25},
		requestMemory: memorySize{text: "256MiB", bytes: 256 << 20},
		addressShare:  memorySize{text: "25%", percent: 25},
		segment:       memorySize{text: "256KiB", bytes: 256 << 10},
		archiveRate:   memorySize{text: "8MiB", bytes: 8 << 20},
		logLevel:      "info",
		logFormat:     "auto",
		demoConfig:    demo.DefaultConfig(),
	}
}

// bind declares the flags.
func (o *options) bind(f *pflag.FlagSet) {
	f.SortFlags = false
	c := &o.config
	f.String(configFlag, "", "settings `file` (YAML: names of flags and values)")
	o.bindStore(f)
	f.StringVar(&o.host, "host", "", "`host` of all addresses to listen on that are not given")
	f.StringVar(&c.Listen, "listen", c.Listen, "`address` of the API (gRPC, gRPC-Web, JSON); port 0 chooses one")
	f.StringVar(&c.Admin, "admin", c.Admin, "`address` of the dashboard, metrics, profiles and health checks; empty for none")
	o.bindDashboard(f)
	f.StringVar(&c.Traces.Endpoint, "otlp-endpoint", c.Traces.Endpoint,
		"`URL` of a collector of traces (OTLP over gRPC), like http://127.0.0.1:4317; empty for no traces")
	f.Float64Var(&c.Traces.Ratio, "trace-ratio", c.Traces.Ratio, "`share` of the requests that are traced, 0 to 1")
	o.bindCluster(f)
	f.StringVar(&c.Policy, "policy", c.Policy, "policy `file`; without one the built-in policy holds")

	f.IntVar(&c.Runtime.SnapshotEvery, "snapshot-every", c.Runtime.SnapshotEvery,
		"`events` after which a customer's state is written")
	f.DurationVar(&c.Runtime.SnapshotInterval, "snapshot-interval", c.Runtime.SnapshotInterval,
		"also write it when the oldest event since the last is older than this; 0 for never")
	f.DurationVar(&c.Runtime.IdleAfter, "passivate-after", c.Runtime.IdleAfter,
		"idle time after which a customer is evicted from memory")
	f.Var(&o.maxResident, "max-resident",
		"memory for customers, as bytes (512MiB) or share of the memory; the least recently used are evicted first")

	o.bindArchive(f)

	f.DurationVar(&c.MaxDeadline, "max-deadline", c.MaxDeadline, "longest time a request may take")
	f.IntVar(&c.MaxPerNode, "max-in-flight-per-node", c.MaxPerNode,
		"`requests` to one other node in progress at once; more are refused (0, the default: three quarters of --max-in-flight)")
	f.IntVar(&c.MaxPerShard, "max-in-flight-per-shard", c.MaxPerShard,
		"`requests` for one shard in progress at once; more are refused (0, the default: an eighth of --max-in-flight, at least 16)")
	o.bindLimits(f)
	f.DurationVar(&c.DrainTimeout, "drain-timeout", c.DrainTimeout,
		"time for requests in progress when stopping; then they are cut off")
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
		"`URL` of a store on Cassandra, like cassandra://HOST,HOST/KEYSPACE?consistency=QUORUM (see docs/guide/cassandra.md); empty for the embedded one")
	f.StringVar(&c.StorePasswordFile, "store-password-file", c.StorePasswordFile, "`file` with the password for --store, in place of one in the URL")
	f.DurationVar(&c.StoreWait, "store-wait", c.StoreWait,
		"time to wait when starting while --store or --archive on Cassandra cannot be reached; 0 to give up at once")
	f.StringVar(&c.Data, "data", c.Data, "`directory` of the embedded store, made if missing")
	hasPassword(f, "store")
}

// bindCluster declares the flags of a process that is one of several.
func (o *options) bindCluster(f *pflag.FlagSet) {
	c, m := &o.config, &o.config.Cluster
	f.StringVar(&c.Name, "name", c.Name, "`name` of this process, unique in the cluster and the same after a restart; empty for that of the machine")
	f.StringVar(&m.Name, "cluster", m.Name, "`name` of the cluster, fixed when it is created")
	f.StringSliceVar(&m.Join, "join", m.Join, "`members` to begin with: addresses, or DNS names of many, with or without the port of --bind")
	f.StringVar(&m.Bind, "bind", m.Bind, "`address` for gossip, TCP and UDP")
	f.StringVar(&m.Advertise, "advertise", m.Advertise, "`address` that others reach --bind under, if it is another")
	f.StringVar(&m.NodeListen, "node-listen", m.NodeListen, "`address` for requests between processes of the cluster")
	f.StringVar(&m.NodeAdvertise, "node-advertise", m.NodeAdvertise, "`address` that others reach --node-listen under, if it is another")
	f.IntVar(&m.MaxConnections, "max-node-connections", m.MaxConnections,
		"`connections` of other processes to --node-listen accepted at once, more are closed; 0 for an eighth of the limit of open files")
	f.StringVar(&m.Label, "label", m.Label, "`label` that keeps the gossip of clusters on one network apart; empty for the name of the cluster")
	f.StringVar(&m.KeyFile, "gossip-key-file", m.KeyFile, "`file` with the key that encrypts gossip: 16, 24 or 32 bytes in base64, the same for all members")
	f.StringVar(&m.NodeTLS.Cert, "node-tls-cert", m.NodeTLS.Cert, "`file` with the certificate for requests between processes")
	f.StringVar(&m.NodeTLS.Key, "node-tls-key", m.NodeTLS.Key, "`file` with its private key")
	f.StringVar(&m.NodeTLS.CA, "node-tls-ca", m.NodeTLS.CA, "`file` with the certificates that sign those of the others")
	f.StringVar(&c.APITLS.Cert, "tls-cert", c.APITLS.Cert, "`file` with the certificate of the API; empty for unencrypted")
	f.StringVar(&c.APITLS.Key, "tls-key", c.APITLS.Key, "`file` with its private key")
	f.StringVar(&c.APITLS.CA, "tls-ca", c.APITLS.CA, "`file` with the certificates that sign those of clients, which then need one")
	o.bindNode(f)
}

// bindNode declares the flags of a node of a cluster.
func (o *options) bindNode(f *pflag.FlagSet) {
	m := &o.config.Cluster
	f.Uint32Var(&m.Shards, "shards", m.Shards, "`number` of shards of a cluster that is created now; an existing one keeps its own")
	f.DurationVar(&m.LeaseTTL, "lease-ttl", m.LeaseTTL, "time without a sign of life after which a node is declared dead; the same for all nodes")
	f.StringVar(&m.Confirm, "confirm", m.Confirm,
		"`how` a node makes sure before each reply that it may still speak: lease, by its clock, or read, by a read of its lease, for machines that can be frozen with their clocks")
	f.Float64Var(&m.Capacity, "capacity", m.Capacity, "`share` of the shards in relation to other nodes'")
	f.Float64Var(&m.MovesPerSecond, "moves-per-second", m.MovesPerSecond, "`shards` that this node hands over in a second, at most")
}

// bindDashboard declares the flags of the dashboard.
func (o *options) bindDashboard(f *pflag.FlagSet) {
	d := &o.config.Dashboard
	f.BoolVar(&d.Off, "no-dashboard", d.Off, "no dashboard on the admin port")
	f.StringVar(&d.TokenFile, "admin-token-file", d.TokenFile,
		"`file` with the token that opens dashboard and profiles; without one the dashboard is closed unless --admin is a loopback address")
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
	f.Var(period{&c.Archiver.Retention}, "archive-retention", "time for which the archive keeps events where the policy does not say (history_days); 0 keeps them forever")
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

// spreadHost gives the host to the addresses that nobody gave, and returns the names of their flags.
func (o *options) spreadHost(f *pflag.FlagSet) (spread []string, err error) {
	if o.host == "" {
		return nil, nil
	}
	if strings.ContainsAny(o.host, "[]/ ") {
		return nil, fmt.Errorf("host: %q is no host", o.host)
	}
	c := &o.config
	for flag, address := range map[string]*string{
		"listen": &c.Listen, "admin": &c.Admin, "bind": &c.Cluster.Bind, "node-listen": &c.Cluster.NodeListen,
	} {
		if f.Changed(flag) {
			continue
		}
		_, port, err := net.SplitHostPort(*address)
		if err != nil {
			return nil, err
		}
		*address = net.JoinHostPort(o.host, port)
		spread = append(spread, flag)
	}
	return spread, nil
}

// nodeConfig checks the options and returns the node's part of them.
func (o *options) nodeConfig(log *slog.Logger) (node.Config, error) {
	c := o.config
	c.Logger = log
	memory, err := availableMemory()
	if err != nil && (o.maxResident.percent > 0 || o.requestMemory.percent > 0) {
		return c, fmt.Errorf("max-resident, request-memory: cannot read the memory size of this machine; set both in bytes: %w", err)
	}
	c.Runtime.MaxResidentBytes = o.maxResident.of(memory)
	if err := o.limitsConfig(&c, memory); err != nil {
		return c, err
	}
	if err := checkAddresses(&c); err != nil {
		return c, err
	}
	if err := c.Validate(); err != nil {
		return c, err
	}
	if err := o.archiveConfig(&c); err != nil {
		return c, err
	}
	return c, errors.Join(
		c.Traces.Check(),
		atLeast("snapshot-every", c.Runtime.SnapshotEvery, 1),
		atLeast("snapshot-interval", c.Runtime.SnapshotInterval, 0),
		atLeast("passivate-after", c.Runtime.IdleAfter, time.Millisecond),
		atLeast("max-deadline", c.MaxDeadline, time.Millisecond),
		atLeast("max-in-flight-per-node", c.MaxPerNode, 0),
		atLeast("max-in-flight-per-shard", c.MaxPerShard, 0),
		atLeast("drain-timeout", c.DrainTimeout, 0),
		atLeast("drain-delay", c.DrainDelay, 0),
		atLeast("demo-rate", o.demoConfig.Rate, 0.01),
		atLeast("demo-customers", o.demoConfig.Customers, 1),
	)
}

// aloneConfig is nodeConfig for commands that become no member of a cluster.
func (o *options) aloneConfig(log *slog.Logger) (node.Config, error) {
	o.config.Cluster.Alone = true
	return o.nodeConfig(log)
}

func atLeast[T int | float64 | time.Duration](flag string, value, low T) error {
	if value < low {
		return fmt.Errorf("%s: is %v, must be at least %v", flag, value, low)
	}
	return nil
}

// checkAddresses says what is wrong with the addresses that the settings have.
func checkAddresses(c *node.Config) error {
	m := &c.Cluster
	for _, a := range []struct {
		flag, value string
		optional    bool
	}{
		{"listen", c.Listen, false}, {"admin", c.Admin, true}, {"bind", m.Bind, false}, {"advertise", m.Advertise, true},
		{"node-listen", m.NodeListen, false}, {"node-advertise", m.NodeAdvertise, true},
	} {
		if a.value == "" && a.optional {
			continue
		}
		if err := checkAddress(a.value); err != nil {
			return fmt.Errorf("%s: %w", a.flag, err)
		}
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

// limitMemory has the garbage collector work harder before the process meets the limit of its container, unless
// GOMEMLIMIT says otherwise. A tenth of it is left to what is not on the heap.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(0.9))
	if err != nil {
		log.Debug("memory limit not read", "error", err)
		return
	}
	log.Debug("memory limit set", "bytes", limit)
}
