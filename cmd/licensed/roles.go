package main

import (
	"github.com/spf13/cobra"

	"licensed/internal/node"
	"licensed/internal/settings"
)

// role is a command that runs a process until it is stopped. Roles differ in the settings
// that they have, and in what set fixes.
type role struct {
	use, short, long, example string
	// roles of the settings that have a meaning for it.
	roles settings.Role
	// set what the role fixes.
	set func(*node.Config)
}

// stops is how all roles end.
const stops = "Stop it with SIGTERM or Ctrl-C; a second one stops it at once. SIGHUP reads the policy file again."

// devCommand returns the command for a process of its own: no lease is contended, no
// other member exists.
func (p *program) devCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "dev", short: "Run everything in one process, for development",
		long: "dev runs the whole service in one process: API, aggregates, and an embedded store in a directory.\n" +
			"What it acknowledged survives kill -9. " + stops + "\n\n" +
			"With --store it runs on Cassandra, and makes keyspace and tables if they are missing, with one copy of\n" +
			"everything: that is for development only.",
		example: "  licensed dev\n  licensed dev --demo\n" +
			"  licensed dev --data /var/lib/licensed --policy policy.yaml\n" +
			"  licensed dev --store cassandra://127.0.0.1:9042/licensed",
		roles: settings.Embedded,
		set:   func(c *node.Config) { c.Development, c.Cluster.Alone = true, true },
	})
}

// serveCommand returns the command for a member with both roles.
func (p *program) serveCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "serve", short: "Run a member of a cluster that holds customers and serves the API",
		long: "serve is node and gateway in one process. Members share a store (--store), and find each other by\n" +
			"gossip (--join). Any of them takes any request: it goes to the member that holds the customer.\n\n" +
			stops + "\n" +
			"Before it leaves, it hands its customers over to the others.",
		example: "  licensed serve --store cassandra://127.0.0.1/licensed --name n1 --host 127.0.0.1 --join " +
			"127.0.0.1,127.0.0.2\n" +
			"  licensed serve --store cassandra://127.0.0.1/licensed --name n2 --host 127.0.0.2 --join " +
			"127.0.0.1,127.0.0.2",
		roles: settings.Node | settings.Gateway,
	})
}

// nodeCommand returns the command for a member without an API.
func (p *program) nodeCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "node", short: "Run a member of a cluster that holds customers",
		long: "node holds its share of the customers in memory and answers the gateways (licensed gateway) and\n" +
			"other members. It has no API of its own.\n\n" + stops + "\n" +
			"Before it leaves, it hands its customers over to the others.",
		example: "  licensed node --store cassandra://127.0.0.1/licensed --name n1 --host 127.0.0.1 --join " +
			"127.0.0.1,127.0.0.2",
		roles: settings.Node,
		set:   func(c *node.Config) { c.Roles = node.RoleNode },
	})
}

// gatewayCommand returns the command for a member without customers.
func (p *program) gatewayCommand() *cobra.Command {
	return p.roleCommand(role{
		use: "gateway", short: "Run a member of a cluster that serves the API",
		long: "gateway serves the API and hands each request to the node that holds the customer. It has no state:\n" +
			"run as many as there is traffic for. From the store it only\n" +
			"reads histories, and repairs them for licensectl verify --repair.\n\n" + stops,
		example: "  licensed gateway --store cassandra://127.0.0.1/licensed --name g1 --join 127.0.0.1,127.0.0.2",
		roles:   settings.Gateway,
		set:     func(c *node.Config) { c.Roles = node.RoleGateway },
	})
}

// roleCommand returns the command of a role. The settings are checked as a whole before
// anything starts, so that the errors of a wrong setting name its place.
func (p *program) roleCommand(r role) *cobra.Command {
	// The defaults of a role, before flags and file are read.
	o := newOptions()
	if r.set != nil {
		r.set(&o.config)
	}
	c := &cobra.Command{Use: r.use, Short: r.short, Long: r.long, Example: r.example, Args: noArguments}
	c.Flags().Bool(helpAll, false, "list all settings, also those for operators and for tuning")
	applies := func(s *settings.Setting) bool { return s.Roles&r.roles != 0 }
	p.takeSettings(c, o, applies, func(c *cobra.Command, loaded *settings.Loaded, _ []string) error {
		config, err := o.nodeConfig(newLogger(p.stderr, o.logLevel, o.logFormat))
		if err != nil {
			return usageError{loaded.At(err)}
		}
		return p.serve(c.Context(), o, config)
	})
	return c
}
