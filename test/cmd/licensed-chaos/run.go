package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"licensed/test/chaos"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/model"
)

// options are the flags of run.
type options struct {
	deployment string
	attach     string
	policy     string
	kinds      []string
	dir        string
	tree       string
	binary     string
	length     time.Duration
	seed       uint64
	ttl        time.Duration
	gap, calm  time.Duration
	rate       float64
	clients    int
	customers  int
	size       deploy.Size
}

func runCommand() *cobra.Command {
	o := options{}
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a service under load and faults, and judge it",
		Example: "  licensed-chaos run --deployment embedded --length 2m\n" +
			"  licensed-chaos run --deployment cluster --length 60m --seed 7\n" +
			"  licensed-chaos run --attach staging.yaml --policy policy.yaml --length 10m",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.deployment, "deployment", "cluster", "`what` to break: embedded or cluster")
	f.StringVar(&o.attach, "attach", "", "`file` that describes a running cluster, to use instead of a deployment")
	f.StringVar(&o.policy, "policy", "", "`file` with the policy of that cluster, as licensed-chaos policy printed it")
	f.StringSliceVar(&o.kinds, "kinds", nil, "`names` of the kinds of faults that are wanted; all if none is named")
	f.StringVar(&o.dir, "dir", "", "`directory` for all that a run leaves (default chaos-SEED-TIME)")
	f.DurationVar(&o.length, "length", 10*time.Minute, "time with faults")
	f.Uint64Var(&o.seed, "seed", 0, "random `seed` of all choices; 0 picks one from the clock (default 0)")
	f.StringVar(&o.tree, "tree", ".", "source `directory` that licensed is built from")
	f.StringVar(&o.binary, "binary", "", "licensed `program`, built with the tag failpoints, instead of building one")
	f.DurationVar(&o.ttl, "ttl", 2500*time.Millisecond, "lease TTL; faults last for multiples of it")
	f.DurationVar(&o.gap, "gap", 3*time.Second, "mean time between two faults")
	f.DurationVar(&o.calm, "calm", 5*time.Second, "mean time without any fault, after every few")
	f.Float64Var(&o.rate, "rate", 0, "`requests` per second at most; 0 for as many as are answered")
	f.IntVar(&o.clients, "clients", 32, "`number` of requests at the same time")
	f.IntVar(&o.customers, "customers", 200, "`number` of customers at the same time")
	f.IntVar(&o.size.Nodes, "nodes", 3, "`number` of nodes")
	f.IntVar(&o.size.Spares, "spares", 1, "`number` of further nodes that join and leave")
	f.IntVar(&o.size.Gateways, "gateways", 2, "`number` of gateways")
	f.IntVar(&o.size.Cassandra, "cassandra", 3, "`number` of Cassandra nodes: 1 or 3")
	return c
}

func (o *options) run(c *cobra.Command) error {
	if o.seed == 0 {
		o.seed = uint64(time.Now().Unix())
	}
	for _, bad := range []struct {
		wrong bool
		says  string
	}{
		{o.length < time.Second, "length: must be at least 1s"},
		{o.ttl < 100*time.Millisecond, "ttl: must be at least 100ms"},
		{o.gap <= 0, "gap: must be more than 0"},
		{o.calm < 0, "calm: must not be negative"},
		{o.clients < 1, "clients: must be at least 1"},
		{o.customers < 10, "customers: must be at least 10"},
		{
			o.size.Nodes < 1 || o.size.Gateways < 1 || o.size.Spares < 0,
			"nodes, gateways: must be at least 1, spares at least 0",
		},
		{o.size.Cassandra != 1 && o.size.Cassandra != 3, "cassandra: must be 1 or 3"},
		{o.rate < 0, "rate: must not be negative"},
	} {
		if bad.wrong {
			return usageError{errors.New(bad.says)}
		}
	}
	if o.dir == "" {
		o.dir = fmt.Sprintf("chaos-%d-%s", o.seed, time.Now().Format("150405"))
	}
	dir, err := filepath.Abs(o.dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	config := chaos.DefaultConfig(dir, o.seed, o.length)
	config.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	config.Schedule.Gap, config.Schedule.Calm, config.Kinds = o.gap, o.calm, o.kinds
	config.Workload.Rate, config.Workload.Clients, config.Workload.Customers = o.rate, o.clients, o.customers
	config.Workload.Prefix = o.prefix(time.Now())
	config.Deployment = o.words()
	var accidents chaos.Accidents
	d, err := o.deploy(c.Context(), &config, &accidents)
	if err != nil {
		return err
	}
	v, err := chaos.Run(c.Context(), config, d, &accidents)
	if err != nil {
		return fmt.Errorf("no verdict: %w", err)
	}
	return o.tell(c, dir, v)
}

func (o *options) tell(c *cobra.Command, dir string, v *chaos.Verdict) error {
	v.Print(c.OutOrStdout())
	fmt.Fprintf(c.OutOrStdout(), "  see %s\n", filepath.Join(dir, "report.html"))
	if !v.Pass {
		return errFailed
	}
	return nil
}

// prefix of the customers' ids. A service that was present before may remember a run of the same seed: its
// customers must be others.
func (o *options) prefix(now time.Time) string {
	if o.attach != "" {
		return fmt.Sprintf("s%d-%s", o.seed, now.UTC().Format("20060102-150405"))
	}
	return fmt.Sprintf("s%d", o.seed)
}

// words say what is broken.
func (o *options) words() string {
	switch {
	case o.attach != "":
		return "attached"
	case o.deployment == "cluster":
		return fmt.Sprintf("cluster: %d nodes, %d spare, %d gateways, %d Cassandra",
			o.size.Nodes, o.size.Spares, o.size.Gateways, o.size.Cassandra)
	}
	return o.deployment
}

// attached prepares to break what is present.
func (o *options) attached(config *chaos.Config) (deploy.Deployment, error) {
	if o.policy == "" {
		return nil, usageError{errors.New("attach: needs --policy, the file that the cluster has")}
	}
	policy, err := os.ReadFile(o.policy)
	if err != nil {
		return nil, err
	}
	if config.Rules, err = model.Parse(policy); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", o.policy, err)}
	}
	if err := config.Rules.Check(time.Now(), o.length); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", o.policy, err)}
	}
	description, err := os.ReadFile(o.attach)
	if err != nil {
		return nil, err
	}
	d, err := deploy.NewAttached(description)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", o.attach, err)}
	}
	return d, nil
}

// deploy prepares what is to be broken.
func (o *options) deploy(
	ctx context.Context, config *chaos.Config, accidents *chaos.Accidents,
) (deploy.Deployment, error) {
	if o.attach != "" {
		return o.attached(config)
	}
	binary := o.binary
	if binary == "" {
		var err error
		if binary, err = deploy.Build(ctx, o.tree, config.Dir); err != nil {
			return nil, err
		}
	}
	d := deploy.Options{
		Dir: config.Dir, Binary: binary, Policy: config.Rules.YAML(), TTL: o.ttl,
		Accident: func(err error) {
			config.Log.Error("accident", "error", err)
			accidents.Add(err)
		},
	}
	switch o.deployment {
	case "embedded":
		return deploy.NewEmbedded(d)
	case "cluster":
		return deploy.NewCluster(d, o.tree, o.size)
	default:
		return nil, usageError{fmt.Errorf("deployment: %q is none of embedded and cluster", o.deployment)}
	}
}

// oneDirectory is cobra.ExactArgs(1) as a usage error.
func oneDirectory(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes the directory of a run (see %s --help)",
			c.CommandPath(), c.CommandPath())}
	}
	return nil
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check DIRECTORY",
		Short: "Judge the directory of a run again",
		Args:  oneDirectory,
		RunE: func(c *cobra.Command, args []string) error {
			v, err := chaos.Recheck(args[0])
			if err != nil {
				return err
			}
			return new(options).tell(c, args[0], v)
		},
	}
}

func reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report DIRECTORY",
		Short: "Draw the page of a run again",
		Args:  oneDirectory,
		RunE:  func(_ *cobra.Command, args []string) error { return chaos.WriteReport(args[0]) },
	}
}

func sumCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sum DIRECTORY...",
		Short:   "Add up several runs: commands, faults by kind and failpoints, as tables of Markdown",
		Example: "  licensed-chaos sum bin/chaos-*",
		RunE: func(c *cobra.Command, dirs []string) error {
			if len(dirs) == 0 {
				return usageError{fmt.Errorf("%s takes the directories of runs (see %s --help)",
					c.CommandPath(), c.CommandPath())}
			}
			t, err := chaos.Sum(dirs)
			if err != nil {
				return err
			}
			t.Print(c.OutOrStdout())
			if !t.Pass() {
				return errFailed
			}
			return nil
		},
	}
}

func policyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "policy",
		Short: "Print the policy that an attached cluster must have",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rules := chaos.DefaultConfig("", 0, 0).Rules
			_, err := fmt.Fprint(c.OutOrStdout(), rules.YAML())
			return err
		},
	}
}
