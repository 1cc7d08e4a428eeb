// Command licensed-bench measures the request path of licensed with real processes.
//
//	licensed-bench path    commands/s, latency, CPU, allocations and calls of nodes, gateway and clients
//	licensed-bench idle    CPU of processes and Cassandra without any request
//
// docs/design/benchmarks.md says how to read the tables. It exits with 0 after a complete run, 1 if the run failed, 2
// if it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"licensed/test/bench/path"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error of the caller of the program.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "licensed-bench",
		Short:         "Measure the request path of licensed with real processes",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.AddCommand(pathCommand(), idleCommand())
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "licensed-bench: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "licensed-bench: %v\n", err)
	return exitFailed
}

// options are the flags of both commands.
type options struct {
	path.Config
	store   string
	base    []string
	binary  string
	timeout time.Duration
}

func pathCommand() *cobra.Command {
	o := options{}
	c := &cobra.Command{
		Use:   "path",
		Short: "Measure commands/s, latency, CPU, allocations and calls of read and write",
		Long: `path starts Cassandra, three nodes and a gateway, and renews licences of customers in memory with
package client in this process: by unary requests and over a session, with several numbers of
requests in flight, in turns. With --base, further clusters take turns in the same run.`,
		Example: "  licensed-bench path --base 98a20e2\n" +
			"  licensed-bench path --base '?batches_in_flight=2' --in-flight 64,256\n" +
			"  licensed-bench path --store pebble --warm-up 5s --turn 2s",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c, path.Run) },
	}
	f := c.Flags()
	f.SortFlags = false
	o.common(c)
	f.IntSliceVar(&o.InFlight, "in-flight", []int{1, 64, 256}, "`numbers` of requests in flight to measure")
	f.DurationVar(&o.WarmUp, "warm-up", time.Minute, "time of load before what is measured")
	f.DurationVar(&o.Turn, "turn", 4*time.Second, "time of one turn of a contender")
	f.IntVar(&o.Rounds, "rounds", 5, "`number` of turns of each contender")
	return c
}

func idleCommand() *cobra.Command {
	o := options{Config: path.Config{Rounds: 1, InFlight: []int{1}}}
	c := &cobra.Command{
		Use:   "idle",
		Short: "Measure the CPU of each process and of Cassandra without any request",
		Long: `idle measures Cassandra alone, then each variant with it: its processes and Cassandra, as shares of a
processor. Cassandra uses more in its first minutes: wait for --settle before believing it.`,
		Example: "  licensed-bench idle --base 98a20e2",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c, path.Idle) },
	}
	f := c.Flags()
	f.SortFlags = false
	o.common(c)
	f.DurationVar(&o.WarmUp, "settle", time.Minute, "time to wait before each measurement")
	f.DurationVar(&o.Turn, "for", time.Minute, "time of each measurement")
	return c
}

// common are flags of both commands.
func (o *options) common(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.store, "store", "cassandra", "`store` to run on: cassandra, or pebble for the embedded one in one process")
	f.IntVar(&o.Cassandra, "cassandra", 1, "`number` of Cassandra nodes")
	f.StringSliceVar(&o.CassandraEnv, "cassandra-env", []string{"TIMEOUT=20s", "HEAP=1G"},
		"`settings` of scripts/cassandra.sh")
	f.IntVar(&o.Nodes, "nodes", 3, "`number` of nodes of a cluster")
	f.StringVar(&o.Tree, "tree", ".", "source `directory` that licensed is built from")
	f.StringVar(&o.binary, "binary", "", "licensed `program` to measure instead of building one")
	f.StringArrayVar(&o.base, "base", nil, "`COMMIT[?PARAMETERS]` to compare with: a commit or a source directory, "+
		"empty for the same sources, and parameters of the store's URL; may be repeated")
	f.IntVar(&o.Customers, "customers", 10_000, "`number` of customers of a cluster")
	f.StringVar(&o.Dir, "dir", "", "`directory` that keeps logs and programs (default: a temporary one, removed)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "time after which the run is ended")
}

// run checks the flags and does what the command is for.
func (o *options) run(c *cobra.Command, do func(context.Context, path.Config, io.Writer) error) (err error) {
	for _, bad := range []struct {
		wrong bool
		says  string
	}{
		{o.store != "cassandra" && o.store != "pebble",
			fmt.Sprintf("--store: %q is neither cassandra nor pebble", o.store)},
		{o.Cassandra < 1 || o.Nodes < 1 || o.Customers < 1 || o.Rounds < 1,
			"--cassandra, --nodes, --customers and --rounds must be at least 1"},
		{o.WarmUp < 0 || o.Turn <= 0 || o.timeout <= 0, "durations must be positive"},
		{len(o.InFlight) == 0, "--in-flight: at least one number is required"},
		{o.store == "pebble" && strings.Contains(strings.Join(o.base, ""), "?"),
			"--base: parameters of the store's URL are for --store cassandra"},
	} {
		if bad.wrong {
			return usageError{errors.New(bad.says)}
		}
	}
	for _, n := range o.InFlight {
		if n < 1 || n > o.Customers {
			return usageError{fmt.Errorf("--in-flight: %d is not from 1 to the number of customers", n)}
		}
	}
	if o.store == "pebble" {
		o.Cassandra = 0
	}
	if o.Tree, err = filepath.Abs(o.Tree); err != nil {
		return err
	}
	kept := o.Dir != ""
	if kept {
		if o.Dir, err = filepath.Abs(o.Dir); err == nil {
			err = os.MkdirAll(o.Dir, 0o755)
		}
	} else {
		o.Dir, err = os.MkdirTemp("", "licensed-bench-")
	}
	if err != nil {
		return err
	}
	o.Variants, o.Log = o.variants(), c.ErrOrStderr()
	ctx, cancel := context.WithTimeoutCause(c.Context(), o.timeout,
		fmt.Errorf("the run took longer than --timeout %v", o.timeout))
	defer cancel()
	if err := do(ctx, o.Config, c.OutOrStdout()); err != nil {
		return fmt.Errorf("%w\nlogs are in %s", err, o.Dir)
	}
	if !kept {
		return os.RemoveAll(o.Dir)
	}
	return nil
}

// variants returns what takes turns.
func (o *options) variants() []path.Variant {
	head := path.Variant{Name: "today", Tree: o.Tree}
	if o.binary != "" {
		head.Tree, head.Program = "", o.binary
	}
	all := []path.Variant{head}
	for _, base := range o.base {
		tree, parameters, _ := strings.Cut(base, "?")
		v := path.Variant{Name: base, Tree: tree, Parameters: parameters}
		if tree == "" {
			v.Tree, v.Program = head.Tree, head.Program
		}
		all = append(all, v)
	}
	return all
}
