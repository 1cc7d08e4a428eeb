package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/settings"
	"licensed/internal/terminal"
)

// takeSettings gives a command the settings, and calls run when all have their values. Those that do not apply to it
// may stand in the file and the environment, which processes of different roles share.
func (p *program) takeSettings(
	c *cobra.Command, o *options, applies func(*settings.Setting) bool,
	run func(*cobra.Command, *settings.Loaded, []string) error,
) {
	table := o.table()
	table.Bind(c, applies)
	// The help shows the settings by group, and not as flags.
	c.SetUsageFunc(func(c *cobra.Command) error { p.usage(c, table, applies); return nil })
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed(helpAll) {
			return c.Help()
		}
		loaded, err := table.Load(c.Flags(), p.getenv)
		if err != nil {
			return usageError{err}
		}
		if err := o.spreadHost(loaded); err != nil {
			return usageError{loaded.At(err)}
		}
		return run(c, loaded, args)
	}
}

// helpAll is the flag of commands whose help lists at first only what everyone needs.
const helpAll = "help-all"

// named returns a condition for the settings of these names.
func named(names ...string) func(*settings.Setting) bool {
	return func(s *settings.Setting) bool { return slices.Contains(names, s.Name) }
}

// usage writes the usage of a command that takes settings. A role has some eighty; its
// help lists those that everyone needs, unless --help-all is given.
func (p *program) usage(c *cobra.Command, table settings.Table, applies func(*settings.Setting) bool) {
	w := c.OutOrStderr()
	fmt.Fprintf(w, "Usage:\n  %s\n", c.UseLine())
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	short := c.Flags().Lookup(helpAll) != nil && !c.Flags().Changed(helpAll)
	listed := func(s *settings.Setting) bool { return applies(s) && !(short && s.For != settings.Everyone) }
	table.Help(w, c.Flags(), terminal.Columns(p.stdout), listed)
	fmt.Fprintf(w, "\nFlags:\n%s", table.Others(c.LocalFlags()).FlagUsages())
	if short {
		fmt.Fprintf(w, "\n%s --%s lists also the settings for operators and for tuning.\n", c.CommandPath(), helpAll)
	}
	fmt.Fprintf(w,
		"\nA setting is also a variable (LICENSED_LOG_LEVEL) and a line of the settings file (log-level: debug).\n")
}

// settingsCommand returns the command that prints the settings in effect. It checks them
// like a start would.
func (p *program) settingsCommand() *cobra.Command {
	o := newOptions()
	o.config.Cluster.Alone = true // Whether they are enough for a member is checked when it starts.
	c := &cobra.Command{
		Use:   "settings",
		Short: "Print the settings in effect, and where each comes from",
		Long: "settings takes the flags, environment and settings file that dev, serve, node and gateway take, and\n" +
			"prints what they would run with, as a settings file. Passwords are masked.",
		Example: "  licensed settings --config licensed.yaml\n  LICENSED_LISTEN=:8080 licensed settings",
		Args:    noArguments,
	}
	p.takeSettings(c, o, func(*settings.Setting) bool {
		return true
	}, func(_ *cobra.Command, loaded *settings.Loaded, _ []string) error {
		if _, err := o.nodeConfig(nil); err != nil {
			return usageError{loaded.At(err)}
		}
		return loaded.Print(p.stdout)
	})
	return c
}

// settingsPage returns docs/reference/settings.md. A test compares it with the file.
func settingsPage() string {
	var b strings.Builder
	b.WriteString(`# Settings

<!-- Generated from the table in cmd/licensed/table.go: go test ./cmd/licensed -run SettingsPage -rewrite -->

Every setting of ` + "`licensed`" + ` is a flag, an environment variable and a key of the settings file.
The setting ` + "`lease-ttl`" + ` is the flag ` + "`--lease-ttl`" + `, the variable ` + "`LICENSED_LEASE_TTL`" +
		` and the key ` + "`lease-ttl`" + ` of the YAML file that ` + "`--config`" + ` (or ` +
		"`LICENSED_CONFIG`" + `) names.
A flag takes precedence over a variable, and a variable over the file.
` + "`licensed settings`" + ` prints the values in effect and where each comes from.

An unknown key in the file is an error.
A setting that does not apply to a role is accepted and ignored, so that all processes can share a file.
An error names the place of the wrong value and what is allowed.

- The column "for" names the readers of the setting: everyone, operators of a production system, or operators ` +
		`who tune it after a measurement.
- "Roles" are the processes it applies to: embedded (` + "`licensed dev`" + `), node (` +
		"`licensed node`, `licensed serve`" + `) and gateway (` + "`licensed gateway`, `licensed serve`" + `).
- A duration has a unit: ` + "`500ms`, `30s`, `1h30m`" + `; the settings of the archive also take days: ` + "`90d`" + `.
- A size is a number of bytes (` + "`512MiB`, `2GB`" +
		`) or a share of the memory that the process may use (` + "`25%`" + `).
`)
	o := newOptions()
	var c cobra.Command
	table := o.table()
	table.Bind(&c, func(*settings.Setting) bool { return true })
	table.Markdown(&b, c.Flags())
	return b.String()
}
