package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/node"
	"licensed/internal/settings"
	"licensed/internal/storage"
)

// schemaCommand returns the commands for the tables of store and archive.
func (p *program) schemaCommand() *cobra.Command {
	copies := 0
	apply := p.schemaVerb("apply", "Bring the tables to the version that this program needs",
		"apply makes what is missing and changes nothing else. Any number of them may run at once: one works, the\n"+
			"others wait. All Cassandra nodes must be up. What failed half-way is finished by the next call.",
		func(ctx context.Context, c node.Config) error { return p.applySchema(ctx, c, copies) })
	apply.Flags().IntVar(&copies, "create-keyspace", 0,
		"create missing keyspaces with this number of `copies` in each data centre; 0 creates none (default 0)")
	return group("schema", "Show or apply the tables on Cassandra",
		"schema takes care of the tables of the store (--store) and of the archive (--archive; by default\n"+
			"it shares the store's keyspace). An operator makes the keyspaces, since only they know where\n"+
			"copies belong:\n\n"+
			"  CREATE KEYSPACE licensed WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3};\n\n"+
			"Settings come from flags, environment and settings file, as those of all other commands.",
		apply, p.schemaVerb("status", "Show the versions of the tables", "status changes nothing.", p.schemaStatus))
}

// schemaVerb returns a command that takes the settings of the stores and none of a
// process.
func (p *program) schemaVerb(use, short, long string, run func(context.Context, node.Config) error) *cobra.Command {
	o := newOptions()
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noArguments,
		Example: "  licensed schema " + use + " --store cassandra://10.0.0.1,10.0.0.2/licensed\n" +
			"  licensed schema " + use + " --config licensed.yaml",
	}
	// The schema is the same for every role: what only a member needs is not asked for.
	o.config.Cluster.Alone = true
	listed := named("store", "store-password-file", "archive", "archive-password-file", "log-level", "log-format")
	p.takeSettings(c, o, listed, func(c *cobra.Command, loaded *settings.Loaded, _ []string) error {
		config, err := o.nodeConfig(newLogger(p.stderr, o.logLevel, o.logFormat))
		if err != nil {
			return usageError{loaded.At(err)}
		}
		return p.interruptible(c.Context(), func(ctx context.Context) error { return run(ctx, config) })
	})
	return c
}

// interruptible runs something that a signal ends.
func (p *program) interruptible(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-p.signals:
			cancel()
		}
	}
}

// applySchema brings the tables up to date, with progress on stderr. copies is the
// replication of keyspaces that it creates; 0 creates none.
func (p *program) applySchema(ctx context.Context, c node.Config, copies int) error {
	if copies < 0 {
		return usageError{fmt.Errorf("create-keyspace: is %d, must be at least 0", copies)}
	}
	versions, err := storage.ApplySchema(ctx, &c.Config, copies, func(v storage.SchemaVersion) {
		fmt.Fprintf(p.stderr, "applying version %d (%s) of the %s tier to %s\n", v.Version, v.Name, v.Tier, v.Location)
	})
	if err != nil {
		return err
	}
	return p.printSchema(versions)
}

// schemaStatus prints the versions and changes nothing.
func (p *program) schemaStatus(ctx context.Context, c node.Config) error {
	versions, err := storage.SchemaStatus(ctx, &c.Config)
	if err != nil {
		return err
	}
	return p.printSchema(versions)
}

// printSchema prints the versions of all tiers as a table.
func (p *program) printSchema(versions []storage.SchemaVersion) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIER\tWHERE\tVERSION\tNAME\tSTATE")
	for _, v := range versions {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", v.Tier, v.Location, v.Version, v.Name, schemaState(v))
	}
	return w.Flush()
}

// schemaState returns the state of a version, with the next step.
func schemaState(v storage.SchemaVersion) string {
	switch {
	case v.AppliedAt.IsZero():
		return "missing: licensed schema apply"
	case !v.Known:
		return "newer than this program"
	case v.Changed:
		return "applied with other statements than this program has"
	}
	return fmt.Sprintf("applied %s UTC by %s", v.AppliedAt.UTC().Format(time.DateTime), v.AppliedBy)
}
