package main

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"licensed/internal/node"
)

// role is a command that runs a process until it is stopped.
type role struct {
	use, short, long, example string
	// hidden flags have no meaning for it; they may stand in a settings file that processes share.
	hidden []string
	// set what the role fixes.
	set func(*node.Config)
}

// stops is how all roles end.
const stops = "Stop it with SIGTERM or Ctrl-C; a second one stops it at once. SIGHUP reads the policy file again."

// Flags that matter to some roles only.
var (
	demoFlags    = []string{"demo", "demo-rate", "demo-customers"}
	memberFlags  = []string{"name", "cluster", "join", "bind", "advertise", "node-listen", "node-advertise", "max-node-connections", "label", "gossip-key-file", "node-tls-cert", "node-tls-key", "node-tls-ca"}
	nodeFlags    = []string{"lease-ttl", "confirm", "capacity", "moves-per-second"}
	ownerFlags   = []string{"snapshot-every", "snapshot-interval", "passivate-after", "max-resident", "archive-after", "archive-segment-bytes", "archive-snapshot-after", "archive-retention", "archive-rate"}
	gatewayFlags = []string{
		"listen", "tls-cert", "tls-key", "tls-ca", "max-deadline", "max-in-flight", "max-in-flight-per-node", "max-in-flight-per-shard",
		"request-memory", "address-share", "max-operators", "max-streams", "max-imports", "max-connections", "max-connection-streams",
		"read-timeout", "reply-timeout",
	}
)

func (p *program) devCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "dev", short: "Run everything in one process, for development",
		long: "dev runs the whole service in one process: API, aggregates, and an embedded store in a directory.\n" +
			"What it acknowledged survives kill -9. " + stops + "\n\n" +
			"With --store it runs on Cassandra, and makes keyspace and tables if they are missing, with one copy of\n" +
			"everything: that is for development only.",
		example: "  licensed dev\n  licensed dev --demo\n  licensed dev --data /var/lib/licensed --policy policy.yaml\n" +
			"  licensed dev --store cassandra://127.0.0.1:9042/licensed",
		hidden: slices.Concat(memberFlags, []string{"capacity", "moves-per-second", "host"}),
		set:    func(c *node.Config) { c.Development, c.Cluster.Alone = true, true },
	})
}

func (p *program) serveCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "serve", short: "Run a member of a cluster that holds customers and serves the API",
		long: "serve is node and gateway in one process. Members share a store (--store), and find each other by\n" +
			"gossip (--join). Any of them takes any request: it goes to the member that holds the customer.\n\n" + stops + "\n" +
			"Before it leaves, it hands its customers over to the others.",
		example: "  licensed serve --store cassandra://127.0.0.1/licensed --name n1 --host 127.0.0.1 --join 127.0.0.1,127.0.0.2\n" +
			"  licensed serve --store cassandra://127.0.0.1/licensed --name n2 --host 127.0.0.2 --join 127.0.0.1,127.0.0.2",
		hidden: slices.Concat(demoFlags, []string{"data"}),
	})
}

func (p *program) nodeCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "node", short: "Run a member of a cluster that holds customers",
		long: "node holds its share of the customers in memory and answers the gateways (licensed gateway) and other\n" +
			"members. It has no API of its own.\n\n" + stops + "\n" +
			"Before it leaves, it hands its customers over to the others.",
		example: "  licensed node --store cassandra://127.0.0.1/licensed --name n1 --host 127.0.0.1 --join 127.0.0.1,127.0.0.2",
		hidden:  slices.Concat(demoFlags, gatewayFlags, []string{"data"}),
		set:     func(c *node.Config) { c.Roles = node.RoleNode },
	})
}

func (p *program) gatewayCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "gateway", short: "Run a member of a cluster that serves the API",
		long: "gateway serves the API and hands each request to the node that holds the customer. It has no state:\n" +
			"run as many as there is traffic for. From the store it only\n" +
			"reads histories, and repairs them for licensectl verify --repair.\n\n" + stops,
		example: "  licensed gateway --store cassandra://127.0.0.1/licensed --name g1 --join 127.0.0.1,127.0.0.2",
		hidden:  slices.Concat(demoFlags, nodeFlags, ownerFlags, []string{"data"}),
		set:     func(c *node.Config) { c.Roles = node.RoleGateway },
	})
}

func (p *program) roleCommand(r role) *cobra.Command {
	o := newOptions()
	c := &cobra.Command{Use: r.use, Short: r.short, Long: r.long, Example: r.example, Args: noArguments}
	o.bind(c.Flags())
	hide(c.Flags(), r.hidden)
	if r.set != nil {
		r.set(&o.config)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if _, err := loadSettings(c.Flags(), p.getenv); err != nil {
			return usageError{err}
		}
		log, err := newLogger(p.stderr, o.logLevel, o.logFormat)
		if err != nil {
			return usageError{err}
		}
		if _, err := o.spreadHost(c.Flags()); err != nil {
			return usageError{err}
		}
		config, err := o.nodeConfig(log)
		if err != nil {
			return usageError{err}
		}
		return p.serve(c.Context(), o, config)
	}
	return c
}

// hide leaves flags out of the help.
func hide(f *pflag.FlagSet, names []string) {
	set := make(map[string]bool)
	for _, name := range names {
		set[name] = true
	}
	f.VisitAll(func(flag *pflag.Flag) {
		flag.Hidden = flag.Hidden || set[flag.Name]
		delete(set, flag.Name)
	})
	for name := range maps.Keys(set) {
		panic("there is no flag " + name)
	}
}

// showOnly leaves all other flags out of the help; they may stand in a settings file that processes share.
func showOnly(f *pflag.FlagSet, names ...string) {
	f.VisitAll(func(flag *pflag.Flag) { flag.Hidden = !slices.Contains(names, flag.Name) })
}
