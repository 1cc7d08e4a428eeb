package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"licensed/test/chaos/deploy"
	"licensed/test/chaos/outage"
)

// outageOptions are the flags of outage.
type outageOptions struct {
	outage.Config
	dir, tree, binary string
	ttl, after        time.Duration
	kill              bool
	size              deploy.Size
}

func outageCommand() *cobra.Command {
	o := outageOptions{}
	c := &cobra.Command{
		Use:   "outage",
		Short: "Take all of Cassandra away under load, and judge what devices noticed",
		Example: "  licensed-chaos outage --customers 100000 --length 5m --rate 500\n" +
			"  licensed-chaos outage --customers 100000 --length 5m --rate 500 --gateways 3 --kill-gateways",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&o.Customers, "customers", 100_000, "`number` of customers, with a signed licence each")
	f.Float64Var(&o.Rate, "rate", 500, "`requests` per second")
	f.DurationVar(&o.WarmUp, "warm-up", 10*time.Second, "time with load before Cassandra is killed")
	f.DurationVar(&o.Length, "length", 5*time.Minute, "time without Cassandra")
	f.DurationVar(&o.Settle, "settle", time.Minute, "time in which all must be settled afterwards")
	f.DurationVar(&o.Within, "within", 100*time.Millisecond, "time in which renewals and releases are to be answered")
	f.Float64Var(&o.Share, "share", 0.999, "`share` of them that must be")
	f.BoolVar(&o.kill, "kill-gateways", false, "kill -9 gateways meanwhile, all but one")
	f.DurationVar(&o.KillEvery, "kill-every", 30*time.Second, "time between two kills, with --kill-gateways")
	f.Uint64Var(&o.Seed, "seed", 1, "random `seed` of all choices")
	f.StringVar(&o.dir, "dir", "", "`directory` for all that the run leaves (default outage-TIME)")
	f.StringVar(&o.tree, "tree", ".", "source `directory` that licensed is built from")
	f.StringVar(&o.binary, "binary", "", "licensed `program`, built with the tag failpoints, instead of building one")
	f.DurationVar(&o.ttl, "ttl", 10*time.Second, "lease TTL")
	f.DurationVar(&o.after, "fallback-after", 50*time.Millisecond, "--fallback-after of the gateways")
	f.IntVar(&o.size.Nodes, "nodes", 2, "`number` of nodes")
	f.IntVar(&o.size.Gateways, "gateways", 2, "`number` of gateways")
	f.IntVar(&o.size.Cassandra, "cassandra", 1, "`number` of Cassandra nodes: 1 or 3")
	return c
}

func (o *outageOptions) run(c *cobra.Command) error {
	switch {
	case o.Customers < 4 || o.Rate <= 0 || o.Length <= 0:
		return usageError{errors.New("customers: at least 4; rate, length: more than 0")}
	case o.size.Nodes < 1 || o.size.Gateways < 1 || o.size.Cassandra != 1 && o.size.Cassandra != 3:
		return usageError{errors.New("nodes, gateways: at least 1; cassandra: 1 or 3")}
	case o.kill && o.size.Gateways < 2:
		return usageError{errors.New("kill-gateways: needs at least two gateways")}
	}
	if !o.kill {
		o.KillEvery = 0
	}
	if o.dir == "" {
		o.dir = "outage-" + time.Now().Format("0102-150405")
	}
	dir, err := filepath.Abs(o.dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	if o.binary == "" {
		if o.binary, err = deploy.Build(c.Context(), o.tree, dir); err != nil {
			return err
		}
	}
	keys := filepath.Join(dir, "keys")
	if out, err := exec.CommandContext(c.Context(), o.binary, "keys", "new", keys).CombinedOutput(); err != nil {
		return fmt.Errorf("licensed keys new: %w\n%s", err, out)
	}
	cluster, err := deploy.NewCluster(deploy.Options{
		Dir: dir, Binary: o.binary, Policy: outage.Policy, TTL: o.ttl, Ordinary: true,
		GatewayFlags: func(name string) []string {
			return []string{
				"--license-keys", keys, "--fallback-dir", filepath.Join(dir, name+"-fallback"),
				"--fallback-after", o.after.String(),
			}
		},
		Accident: func(err error) { o.Log.Error("accident", "error", err) },
	}, o.tree, o.size)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), time.Minute)
		defer cancel()
		if err := cluster.Stop(stop); err != nil {
			o.Log.Error("stop the cluster", "error", err)
		}
	}()
	o.Log.Info("starting the cluster")
	if err := cluster.Start(c.Context()); err != nil {
		return err
	}
	site := outage.Site{
		StoreAway: cluster.KillStore, StoreBack: cluster.ReviveStore,
		Kill: cluster.KillGateway, Revive: cluster.ReviveGateway,
	}
	for _, m := range cluster.Members() {
		if m.Role == deploy.Gateway {
			site.Gateways = append(site.Gateways, outage.Gateway{API: m.API, Admin: m.Admin})
		}
	}
	report, err := outage.Run(c.Context(), o.Config, site)
	if err != nil {
		return fmt.Errorf("no verdict: %w", err)
	}
	file, err := os.Create(filepath.Join(dir, "report.md"))
	if err != nil {
		return err
	}
	report.Print(file)
	report.Print(c.OutOrStdout())
	if err := file.Close(); err != nil {
		return err
	}
	if !report.Pass() {
		return errFailed
	}
	return nil
}
