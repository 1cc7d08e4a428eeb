package main

import (
	"time"

	"licensed/internal/node"
	"licensed/internal/settings"
)

// What rows of the table have in common.
const (
	all      = settings.All
	embedded = settings.Embedded
	member   = settings.Node | settings.Gateway     // of a cluster
	owner    = settings.Embedded | settings.Node    // holds customers
	server   = settings.Embedded | settings.Gateway // serves the API

	operator = settings.Operator
	tuning   = settings.Tuning
)

// table has every setting of the program, with its default as value. It is the only list
// of them: flags, variables, the settings file, the help and docs/reference/settings.md
// all come from it. A setting is a row of one of the functions below; its name never
// changes once it was released.
func (o *options) table() settings.Table {
	var t settings.Table
	for _, group := range []struct {
		name     string
		settings []settings.Setting
	}{
		{"Data", o.dataSettings()},
		{"Addresses", o.addressSettings()},
		{"Cluster", o.clusterSettings()},
		{"Certificates and keys", o.securitySettings()},
		{"Customers in memory", o.memorySettings()},
		{"Archive", o.archiveSettings()},
		{"Requests", o.requestSettings()},
		{"Fallbacks", o.fallbackSettings()},
		{"Shutdown", o.shutdownSettings()},
		{"Log, traces and dashboard", o.observeSettings()},
		{"Simulated customers", o.demoSettings()},
	} {
		for _, s := range group.settings {
			s.Group = group.name
			t = append(t, s)
		}
	}
	return t
}

// Ranges of durations.
var (
	zeroOrMore = settings.AtLeast(time.Duration(0))
	positive   = settings.AtLeast(time.Millisecond)
)

// dataSettings are about the store and the policy.
func (o *options) dataSettings() []settings.Setting {
	c := &o.config
	return []settings.Setting{
		{
			Name: "store", Value: &c.Store, Unit: "URL", Roles: all, Password: true,
			Help: "store on Cassandra, like cassandra://HOST,HOST/KEYSPACE?consistency=QUORUM " +
				"(docs/guide/cassandra.md)",
			Unset: "the embedded store in --data",
		},
		{
			Name: "store-password-file", Value: &c.StorePasswordFile, Unit: "file", For: operator, Roles: all,
			Help: "password for --store, in place of one in the URL",
		},
		{
			Name: "store-wait", Value: &c.StoreWait, Unit: "duration", For: operator, Roles: all, Allowed: zeroOrMore,
			Help: "time to wait at start while --store or --archive on Cassandra cannot be reached; 0 gives up " +
				"at once",
		},
		{
			Name: "data", Value: &c.Data, Unit: "directory", Roles: embedded,
			Help: "embedded store, created if missing",
		},
		{
			Name: "policy", Value: &c.Policy, Unit: "file", Roles: all,
			Help:  "licence policy, reloaded when the file changes",
			Unset: "the built-in policy",
		},
	}
}

// addressSettings are where the ports are, and what others are told of them.
func (o *options) addressSettings() []settings.Setting {
	c, m := &o.config, &o.config.Cluster
	return []settings.Setting{
		{
			Name: "host", Value: &o.host, Unit: "host", Roles: member,
			Help: "host of all addresses below that are not set",
		},
		{
			Name: "listen", Value: &c.Listen, Unit: "address", Roles: server, Allowed: settings.Address(),
			Help: "API (gRPC, gRPC-Web, JSON); port 0 chooses a free one",
		},
		{
			Name: "operations-listen", Value: &c.OperationsListen, Unit: "address", For: operator, Roles: server,
			Allowed: settings.AddressOrNone(),
			Help: "API with AdminService (drain, passivate, archive, verify, import, policy), which --listen then " +
				"does not have",
			Unset: "--listen has all services",
		},
		{
			Name: "cors-origins", Value: &c.Origins, Unit: "origins", For: operator, Roles: server,
			Help: "origins of web pages whose scripts may call the API, like https://app.example.com or " +
				"https://*.example.com; * for all",
		},
		{
			Name: "devices-page", Value: &c.DevicesPage, Unit: "origins", For: operator, Roles: server,
			Help: "origins of web pages that may show the page /manage-devices/ in a frame, " +
				"like https://app.example.com; self for the page alone",
			Unset: "no such page",
		},
		{
			Name: "admin", Value: &c.Admin, Unit: "address", Roles: all, Allowed: settings.AddressOrNone(),
			Help: "dashboard, metrics, profiles and health checks; empty for none",
		},
		{
			Name: "bind", Value: &m.Bind, Unit: "address", Roles: member, Allowed: settings.Address(),
			Help: "gossip, TCP and UDP",
		},
		{
			Name: "advertise", Value: &m.Advertise, Unit: "address", For: operator, Roles: member,
			Allowed: settings.AddressOrNone(),
			Help:    "address under which others reach --bind",
			Unset:   "--bind",
		},
		{
			Name: "node-listen", Value: &m.NodeListen, Unit: "address", Roles: member, Allowed: settings.Address(),
			Help: "requests between processes of the cluster",
		},
		{
			Name: "node-advertise", Value: &m.NodeAdvertise, Unit: "address", For: operator, Roles: member,
			Allowed: settings.AddressOrNone(),
			Help:    "address under which others reach --node-listen",
			Unset:   "--node-listen",
		},
	}
}

// clusterSettings are about membership and ownership.
func (o *options) clusterSettings() []settings.Setting {
	c, m := &o.config, &o.config.Cluster
	return []settings.Setting{
		{
			Name: "name", Value: &c.Name, Unit: "name", Roles: member,
			Help:  "name of this process, unique in the cluster and the same after a restart",
			Unset: "the name of the machine",
		},
		{
			Name: "cluster", Value: &m.Name, Unit: "name", Roles: member, Allowed: settings.Required(),
			Help: "name of the cluster, fixed when it is created",
		},
		{
			Name: "join", Value: &m.Join, Unit: "members", Roles: member,
			Help: "members to contact first: addresses, or DNS names of several, with or without the port of " +
				"--bind",
		},
		{
			Name: "label", Value: &m.Label, Unit: "label", For: operator, Roles: member,
			Help:  "label that separates the gossip of clusters on one network",
			Unset: "the name of the cluster",
		},
		{
			Name: "shards", Value: &m.Shards, Unit: "shards", For: operator, Roles: all,
			Allowed: settings.Between[uint32](1, node.MaxShards),
			Help:    "number of shards of a cluster that is created now; an existing cluster keeps its number",
		},
		{
			Name: "capacity", Value: &m.Capacity, Unit: "weight", For: operator, Roles: settings.Node,
			Allowed: settings.Above(0.0),
			Help:    "share of the shards in relation to other nodes",
		},
		{
			Name: "lease-ttl", Value: &m.LeaseTTL, Unit: "duration", For: tuning, Roles: owner,
			Allowed: settings.Above(time.Duration(0)),
			Help: "time without a renewal of its lease after which a node is declared dead; the same for all " +
				"nodes",
		},
		{
			Name: "confirm", Value: &m.Confirm, Unit: "method", For: operator, Roles: owner,
			Allowed: settings.OneOf("lease", "read"),
			Help: "how a node checks before each reply that it still has its lease, by its clock or by a read " +
				"of the lease (for machines that can be frozen with their clocks)",
		},
		{
			Name: "moves-per-second", Value: &m.MovesPerSecond, Unit: "shards", For: tuning, Roles: settings.Node,
			Allowed: settings.Above(0.0),
			Help:    "shards that this node hands over in a second, at most",
		},
		{
			Name: "max-node-connections", Value: &m.MaxConnections, Unit: "connections", For: tuning, Roles: member,
			Allowed: settings.AtLeast(0),
			Help:    "connections of other processes to --node-listen accepted at once",
			Unset:   "an eighth of the limit of open files, 8 to 1,024",
		},
	}
}

// securitySettings are files with certificates and secrets; a secret itself is never a
// flag, which other users of the machine can read.
func (o *options) securitySettings() []settings.Setting {
	c, m := &o.config, &o.config.Cluster
	return []settings.Setting{
		{
			Name: "tls-cert", Value: &c.APITLS.Cert, Unit: "file", For: operator, Roles: server,
			Help:  "certificate of the API, with its chain",
			Unset: "the API is not encrypted",
		},
		{
			Name: "tls-key", Value: &c.APITLS.Key, Unit: "file", For: operator, Roles: server,
			Help: "private key of --tls-cert",
		},
		{
			Name: "tls-ca", Value: &c.APITLS.CA, Unit: "file", For: operator, Roles: server,
			Help: "certificates that sign those of clients, which then need one; with --auth-file, a certificate or " +
				"a token",
		},
		{
			Name: "tls-crl", Value: &c.APITLS.CRL, Unit: "file", For: operator, Roles: server,
			Help: "certificate revocation lists of --tls-ca, one for each CA: certificates in them are refused, and " +
				"all of a CA without a list, or whose list expired (--accept-risk expired-crl)",
			Unset: "no certificate is looked up",
		},
		{
			Name: "admin-tls-cert", Value: &c.AdminTLS.Cert, Unit: "file", For: operator, Roles: all,
			Help:  "certificate of the admin port",
			Unset: "the admin port is not encrypted",
		},
		{
			Name: "admin-tls-key", Value: &c.AdminTLS.Key, Unit: "file", For: operator, Roles: all,
			Help: "private key of --admin-tls-cert",
		},
		{
			Name: "admin-tls-ca", Value: &c.AdminTLS.CA, Unit: "file", For: operator, Roles: all,
			Help: "certificates that sign those of the admin port's clients, as --tls-ca",
		},
		{
			Name: "admin-tls-crl", Value: &c.AdminTLS.CRL, Unit: "file", For: operator, Roles: all,
			Help: "certificate revocation lists of --admin-tls-ca, as --tls-crl",
		},
		{
			Name: "auth-file", Value: &c.AuthFile, Unit: "file", For: operator, Roles: all,
			Help: "who may call the API and use the admin port: tokens, certificates, issuers of JSON Web Tokens and " +
				"their roles (docs/guide/security.md); a node decides again by it what callers of gateways may do; " +
				"read again when it changes",
			Unset: "everybody who reaches them",
		},
		{
			Name: "audit-file", Value: &c.AuditFile, Unit: "file", For: operator, Roles: server,
			Help: "log of operators' calls, of looks of support and auditors at customers, and of calls that were " +
				"denied; checked by licensectl audit verify",
			Unset: "no such log",
		},
		{
			Name: "accept-risk", Value: &c.AcceptRisks, Unit: "risks", For: operator, Roles: all,
			Help: "risks to start with, by name: open-api, open-operations, open-admin, open-node, open-callers, " +
				"open-gossip, for a port that others reach and that is not encrypted or does not ask for " +
				"credentials; expired-crl, for revocation lists that expired",
			Unset: "a process with such a port does not start",
		},
		{
			Name: "allowed-hosts", Value: &c.AllowedHosts, Unit: "names", For: operator, Roles: all,
			Help: "host names under which API and admin port are served, beside addresses, localhost, --name, the " +
				"name of the machine and those in other settings; *.example.com for all below a domain",
		},
		{
			Name: "license-keys", Value: &c.LicenseKeys, Unit: "path", For: operator, Roles: server,
			Help: "keys that sign licences for devices without a connection: a directory of PEM files " +
				"(licensed keys new), or one file; reloaded when they change",
			Unset: "licences are not signed",
		},
		{
			Name: "license-key-grace", Value: settings.Period{Value: &c.LicenseKeyGrace}, Unit: "duration",
			For: operator, Roles: server,
			Help: "time for which licences of a key are accepted after the next key began to sign; at least that of " +
				"the longest licence",
		},
		{
			Name: "license-issuer", Value: &c.LicenseIssuer, Unit: "name", For: operator, Roles: server,
			Allowed: settings.Required(),
			Help:    "name of the service in signed licences; the same for all gateways",
		},
		{
			Name: "node-tls-cert", Value: &m.NodeTLS.Cert, Unit: "file", For: operator, Roles: member,
			Help:  "certificate for requests between processes",
			Unset: "requests between processes are not encrypted",
		},
		{
			Name: "node-tls-key", Value: &m.NodeTLS.Key, Unit: "file", For: operator, Roles: member,
			Help: "private key of --node-tls-cert",
		},
		{
			Name: "node-tls-ca", Value: &m.NodeTLS.CA, Unit: "file", For: operator, Roles: member,
			Help: "certificates that sign those of the other processes",
		},
		{
			Name: "node-tls-crl", Value: &m.NodeTLS.CRL, Unit: "file", For: operator, Roles: member,
			Help: "certificate revocation lists of --node-tls-ca, as --tls-crl, for connections in both directions",
		},
		{
			Name: "node-sans", Value: &m.NodeSANs, Unit: "patterns", For: operator, Roles: member,
			Help: "names in the certificates of nodes: URIs (spiffe://example.org/node/*) or DNS names " +
				"(*.nodes.example.org); a process without such a name is sent no requests for customers",
			Unset: "every certificate of --node-tls-ca is a node's, if it is valid for the address of the process",
		},
		{
			Name: "gateway-sans", Value: &m.GatewaySANs, Unit: "patterns", For: operator, Roles: member,
			Help: "names in the certificates of gateways, as --node-sans; a process with such a name may send " +
				"requests of callers, and nothing else",
			Unset: "with --node-sans, a gateway needs a certificate of a node",
		},
		{
			Name: "gossip-key-file", Value: &m.KeyFile, Unit: "file", For: operator, Roles: member,
			Help: "keys that encrypt gossip, one a line: 16, 24 or 32 bytes in base64; the first one encrypts, all " +
				"of them decrypt; read again when it changes",
			Unset: "gossip is not encrypted",
		},
		{
			Name: "member-networks", Value: &m.Networks, Unit: "networks", For: operator, Roles: member,
			Help: "networks of the processes of the cluster (10.0.0.0/8,fd00::/8): gossip and node port refuse " +
				"others, before they read from them",
			Unset: "processes connect from everywhere",
		},
		{
			Name: "admin-token-file", Value: &c.Dashboard.TokenFile, Unit: "file", For: operator, Roles: all,
			Help:  "token that opens dashboard, metrics and profiles, beside those of --auth-file",
			Unset: "without --auth-file they are open; then --admin must be a loopback address",
		},
	}
}

// memorySettings are about customers in memory, and how much of their history a load has
// to read.
func (o *options) memorySettings() []settings.Setting {
	r := &o.config.Runtime
	return []settings.Setting{
		{
			Name: "max-resident", Value: &o.maxResident, Unit: "size", For: operator, Roles: owner,
			Help: "memory for customers, as bytes or share of the memory; the least recently used are evicted " +
				"first",
		},
		{
			Name: "passivate-after", Value: &r.IdleAfter, Unit: "duration", For: tuning, Roles: owner,
			Allowed: positive,
			Help:    "idle time after which a customer is evicted from memory",
		},
		{
			Name: "snapshot-every", Value: &r.SnapshotEvery, Unit: "events", For: tuning, Roles: owner,
			Allowed: settings.AtLeast(1),
			Help:    "number of events after which a customer's state is written",
		},
		{
			Name: "snapshot-interval", Value: &r.SnapshotInterval, Unit: "duration", For: tuning, Roles: owner,
			Allowed: zeroOrMore,
			Help:    "write the state also when the oldest event since the last snapshot is older; 0 for never",
		},
	}
}

// archiveSettings are about the archive tier.
func (o *options) archiveSettings() []settings.Setting {
	c, a := &o.config, &o.config.Archiver
	return []settings.Setting{
		{
			Name: "archive", Value: &c.Archive, Unit: "place", For: operator, Roles: all, Password: true,
			Help:  "archive tier: a directory, best on another disk; the URL of a keyspace on Cassandra; or off",
			Unset: "archive/ in --data, or the keyspace of --store",
		},
		{
			Name: "archive-password-file", Value: &c.ArchivePasswordFile, Unit: "file", For: operator, Roles: all,
			Help: "password for --archive, in place of one in the URL",
		},
		{
			Name: "archive-retention", Value: settings.Period{Value: &a.Retention}, Unit: "duration", For: operator,
			Roles: owner,
			Help: "time for which the archive keeps events where the policy does not say (history_days); 0 keeps " +
				"them forever",
		},
		{
			Name: "archive-after", Value: settings.Period{Value: &a.After}, Unit: "duration", For: tuning, Roles: owner,
			Help: "age at which closed history is archived though it is less than a segment",
		},
		{
			Name: "archive-segment-bytes", Value: &o.segment, Unit: "size", For: tuning, Roles: owner,
			Allowed: settings.Bytes(settings.ParseSize("1KiB"), settings.ParseSize("16MiB")),
			Help:    "size of a segment before compression",
		},
		{
			Name:  "archive-snapshot-after",
			Value: settings.Period{Value: &a.SnapshotAfter},
			Unit:  "duration",
			For:   tuning,
			Roles: owner,
			Help:  "idle time after which also a customer's snapshot is archived; 0 for never",
		},
		{
			Name: "archive-rate", Value: &o.archiveRate, Unit: "size", For: tuning, Roles: owner,
			Allowed: settings.Bytes(settings.ParseSize("0"), settings.Size{}),
			Help:    "bytes archived in a second, at most; 0 for no limit",
		},
	}
}

// requestSettings are the limits of the gateway; gateway.Limits has their meaning.
func (o *options) requestSettings() []settings.Setting {
	c, l := &o.config, &o.config.Limits
	return []settings.Setting{
		{
			Name: "max-deadline", Value: &c.MaxDeadline, Unit: "duration", For: operator, Roles: server,
			Allowed: positive,
			Help:    "longest time that a request may take",
		},
		{
			Name: "request-memory", Value: &o.requestMemory, Unit: "size", For: operator, Roles: server,
			Help: "memory for API requests, as bytes or share of the memory: bodies being received, requests in " +
				"progress, unread replies, streams, imports, operators",
		},
		{
			Name: "address-share", Value: &o.addressShare, Unit: "percentage", For: operator, Roles: server,
			Allowed: settings.Share(),
			Help: "share of each limit that the clients of one address may use; 100% behind a proxy that all " +
				"clients come through",
		},
		{
			Name: "service-share", Value: &o.serviceShare, Unit: "percentage", For: operator, Roles: server,
			Allowed: settings.Share(),
			Help:    "share of each limit that one principal may use, at all its addresses, unless it is a customer",
		},
		{
			Name: "customer-share", Value: &o.customerShare, Unit: "percentage", For: operator, Roles: server,
			Allowed: settings.Share(),
			Help:    "share of each limit that one customer with credentials of its own may use",
		},
		{
			Name: "address-rate", Value: &l.Rates.Address, Unit: "requests a second", For: operator, Roles: server,
			Allowed: settings.AtLeast(0.0),
			Help:    "requests of one address, on average; those of 10 s at once; 0 for no limit",
		},
		{
			Name: "service-rate", Value: &l.Rates.Service, Unit: "requests a second", For: operator, Roles: server,
			Allowed: settings.AtLeast(0.0),
			Help:    "requests of one principal that is no customer, as --address-rate; 0 for no limit",
		},
		{
			Name: "customer-rate", Value: &l.Rates.Customer, Unit: "requests a second", For: operator, Roles: server,
			Allowed: settings.AtLeast(0.0),
			Help:    "requests of one customer with credentials of its own, as --address-rate; 0 for no limit",
		},
		{
			Name: "new-customers", Value: &l.NewCustomers, Unit: "customers a minute", For: operator, Roles: server,
			Allowed: settings.AtLeast(0),
			Help:    "customers that one address, and one principal, may send the first command of; 0 for no limit",
		},
		{
			Name: "max-in-flight", Value: &l.MaxInFlight, Unit: "requests", For: tuning, Roles: server,
			Allowed: settings.AtLeast(1),
			Help:    "requests handled at once; more are refused",
		},
		{
			Name: "max-in-flight-per-node", Value: &c.MaxPerNode, Unit: "requests", For: tuning, Roles: server,
			Allowed: settings.AtLeast(0),
			Help:    "requests to one other node in progress at once; more are refused",
			Unset:   "three quarters of --max-in-flight",
		},
		{
			Name: "max-in-flight-per-shard", Value: &c.MaxPerShard, Unit: "requests", For: tuning, Roles: server,
			Allowed: settings.AtLeast(0),
			Help:    "requests for one shard in progress at once; more are refused",
			Unset:   "an eighth of --max-in-flight, at least 16",
		},
		{
			Name: "max-operators", Value: &l.MaxOperators, Unit: "requests", For: tuning, Roles: server,
			Allowed: settings.AtLeast(1),
			Help:    "requests and streams of operators and the dashboard handled at once; more are refused",
		},
		{
			Name: "max-streams", Value: &l.MaxStreams, Unit: "streams", For: tuning, Roles: server,
			Allowed: settings.AtLeast(1),
			Help:    "streams of events open at once; more are refused",
		},
		{
			Name: "max-imports", Value: &l.MaxImports, Unit: "calls", For: tuning, Roles: server,
			Allowed: settings.AtLeast(1),
			Help:    "calls that import customers handled at once; more are refused",
		},
		{
			Name: "max-connections", Value: &c.MaxConnections, Unit: "connections", For: tuning, Roles: server,
			Allowed: settings.AtLeast(0),
			Help:    "connections to the API accepted at once; more are closed",
			Unset:   "what the limit of open files leaves",
		},
		{
			Name: "max-connection-streams", Value: &c.MaxStreams, Unit: "requests", For: tuning, Roles: server,
			Allowed: settings.AtLeast(1),
			Help:    "requests in progress on one HTTP/2 connection",
		},
		{
			Name: "read-timeout", Value: &c.ReadTimeout, Unit: "duration", For: tuning, Roles: server,
			Allowed: positive,
			Help:    "time that a request may take to arrive",
		},
		{
			Name: "reply-timeout", Value: &c.ReplyTimeout, Unit: "duration", For: tuning, Roles: server,
			Allowed: positive,
			Help:    "time that a client may take to read a reply, or a message of a stream",
		},
	}
}

// fallbackSettings are about commands whose owner cannot be reached.
func (o *options) fallbackSettings() []settings.Setting {
	c := &o.config.Fallback
	return []settings.Setting{
		{
			Name: "fallback-dir", Value: &c.Dir, Unit: "directory", For: operator, Roles: server,
			Help: "directory of this gateway alone, for commands of devices that it accepts while nobody can decide " +
				"on them, as the policy says; questions then get stale answers, marked as such",
			Unset: "such commands and questions fail",
		},
		{
			Name: "fallback-after", Value: &c.After, Unit: "duration", For: tuning, Roles: server, Allowed: positive,
			Help: "time in which the node of a customer answers nobody, before such a command is accepted; " +
				"longer: fewer provisional and stale answers where the store is slow at times; " +
				"shorter: the first requests of an outage wait less",
		},
		{
			Name: "fallback-max-bytes", Value: &o.fallback, Unit: "size", For: tuning, Roles: server,
			Allowed: settings.Bytes(settings.ParseSize("1MiB"), settings.Size{}),
			Help:    "size of the commands in --fallback-dir; one takes about 250 bytes, further ones fail",
		},
		{
			Name: "fallback-answers-bytes", Value: &o.answers, Unit: "size", For: tuning, Roles: server,
			Allowed: settings.Bytes(settings.ParseSize("0"), settings.Size{}),
			Help: "memory for the last answers to questions, with --fallback-dir, which are given again while " +
				"neither the node of a customer nor the store can be reached; 0 keeps none",
		},
	}
}

// shutdownSettings are about the end of a process.
func (o *options) shutdownSettings() []settings.Setting {
	c := &o.config
	return []settings.Setting{
		{
			Name: "drain-timeout", Value: &c.DrainTimeout, Unit: "duration", For: operator, Roles: all,
			Allowed: zeroOrMore,
			Help:    "time for a shutdown; then requests in progress are ended",
		},
		{
			Name: "drain-delay", Value: &c.DrainDelay, Unit: "duration", For: operator, Roles: all,
			Allowed: zeroOrMore,
			Help: "time between failing the readiness check and refusing connections, for load balancers to " +
				"notice",
		},
	}
}

// observeSettings are about what operators see.
func (o *options) observeSettings() []settings.Setting {
	c := &o.config
	return []settings.Setting{
		{
			Name: "log-level", Value: &o.logLevel, Unit: "level", Roles: all,
			Allowed: settings.OneOf("debug", "info", "warn", "error"),
			Help:    "lowest level that is logged",
		},
		{
			Name: "log-format", Value: &o.logFormat, Unit: "format", For: operator, Roles: all,
			Allowed: settings.OneOf("text", "json", "auto"),
			Help:    "format of the log; auto is text on a terminal and json elsewhere",
		},
		{
			Name: "log-customer-ids", Value: &c.LogCustomerIDs, For: operator, Roles: all,
			Help:  "ids of customers in log lines, for finding a fault",
			Unset: "log lines have customer_hash, a hash of the id, in place of it",
		},
		{
			Name: "otlp-endpoint", Value: &c.Traces.Endpoint, Unit: "URL", For: operator, Roles: all, Password: true,
			Help: "collector of traces, and of the records of --audit-file (OTLP over gRPC), like " +
				"http://127.0.0.1:4317",
			Unset: "no traces",
		},
		{
			Name: "trace-ratio", Value: &c.Traces.Ratio, Unit: "share", For: operator, Roles: all,
			Allowed: settings.Between(0.0, 1.0),
			Help:    "share of the requests that are traced",
		},
		{
			Name: "no-dashboard", Value: &c.Dashboard.Off, For: operator, Roles: all,
			Help: "no dashboard on the admin port",
		},
		{
			Name: "ready-file", Value: &o.readyFile, Unit: "file", For: operator, Roles: all,
			Help: "file to write addresses and process id to, as JSON, when the process is ready",
		},
	}
}

// demoSettings are about simulated customers.
func (o *options) demoSettings() []settings.Setting {
	return []settings.Setting{
		{
			Name: "demo", Value: &o.demo, Roles: embedded,
			Help: "simulate customers",
		},
		{
			Name: "demo-rate", Value: &o.demoConfig.Rate, Unit: "commands", For: operator, Roles: embedded,
			Allowed: settings.AtLeast(0.01),
			Help:    "commands per second of the simulated customers",
		},
		{
			Name: "demo-customers", Value: &o.demoConfig.Customers, Unit: "customers", For: operator, Roles: embedded,
			Allowed: settings.AtLeast(1),
			Help:    "number of simulated customers",
		},
	}
}
