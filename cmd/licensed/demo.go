package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"licensed/client"
	"licensed/internal/demo"
	"licensed/internal/node"
	"licensed/internal/terminal"
)

// demoCommand returns the command that makes a directory with customers and their past.
func (p *program) demoCommand() *cobra.Command {
	customers, days, seed := 40, 365, uint64(1)
	c := &cobra.Command{
		Use: "demo DIR", Short: "Make an embedded store with customers and a year of their history",
		Long: "demo makes DIR/data, a store for licensed dev, and DIR/policy.yaml, the policy of its customers. It\n" +
			"runs a service of its own by a clock that goes through the year, and simulates what customers and\n" +
			"support do: downloads, refusals, removals of devices, late facts of devices that were offline, changes\n" +
			"of plan, exceptions. Each command is decided by that service, so every history is one that a real year\n" +
			"could have left.",
		Example: "  licensed demo ./demo\n  licensed dev --data ./demo/data --policy ./demo/policy.yaml",
		Args:    directory,
	}
	c.Flags().IntVar(&customers, "customers", customers, "number of customers")
	c.Flags().IntVar(&days, "days", days, "days of history, up to now")
	c.Flags().Uint64Var(&seed, "seed", seed, "random seed")
	c.RunE = func(c *cobra.Command, args []string) error {
		if customers < 1 || days < 1 {
			return usageError{errors.New("--customers and --days must be at least 1")}
		}
		if _, err := os.Lstat(args[0]); !errors.Is(err, fs.ErrNotExist) {
			return usageError{fmt.Errorf("%s exists already; choose another directory, or remove it", args[0])}
		}
		to := time.Now().Truncate(time.Second)
		past := demo.PastConfig{Customers: customers, From: to.AddDate(0, 0, -days), To: to, Seed: seed}
		return p.interruptible(c.Context(), func(ctx context.Context) error { return p.makePast(ctx, args[0], past) })
	}
	return c
}

// makePast makes the directory under another name, so that it is never there in part.
func (p *program) makePast(ctx context.Context, dir string, c demo.PastConfig) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".demo-*")
	if err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	policy := filepath.Join(work, "policy.yaml")
	if err := os.WriteFile(policy, []byte(demo.Policy(c.To)), 0o600); err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	began, line := time.Now(), terminal.NewProgress(nil)
	if terminal.Columns(p.stderr) > 0 {
		line = terminal.NewProgress(p.stderr)
	}
	c.Progress = func(at time.Time, t demo.Told) {
		line.Show("%s: %v", at.UTC().Format(time.DateOnly), t)
	}
	told, err := livePast(ctx, filepath.Join(work, "data"), policy, c)
	if err := errors.Join(err, line.Clear()); err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	_, err = fmt.Fprintf(p.stdout, "%s, %d days, in %s: %v\n\nlicensed dev --data %s --policy %s\n",
		terminal.Count(c.Customers, "customer", "customers"), int(c.To.Sub(c.From)/(24*time.Hour)),
		time.Since(began).Round(100*time.Millisecond), told,
		filepath.Join(dir, "data"), filepath.Join(dir, "policy.yaml"))
	return err
}

// livePast runs a service by the clock of the past, and its customers.
func livePast(ctx context.Context, data, policy string, c demo.PastConfig) (told demo.Told, err error) {
	clock := demo.NewClock(c.From)
	o := node.DefaultConfig()
	o.Development, o.Cluster.Alone = true, true
	o.Data, o.Policy, o.Now = data, policy, clock.Now
	o.Listen, o.Admin = "127.0.0.1:0", ""
	o.Logger = slog.New(slog.DiscardHandler)
	n, err := node.Start(ctx, o)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, n.Stop(context.WithoutCancel(ctx))) }()
	service, err := client.Dial([]string{n.API().String()}, client.Options{})
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	return demo.Past(ctx, c, clock, service)
}
