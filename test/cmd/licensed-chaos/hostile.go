package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"licensed/test/hostile/siege"
)

// hostileOptions are the flags of hostile.
type hostileOptions struct {
	siege.Options
	table, before, report string
}

func hostileCommand() *cobra.Command {
	o := hostileOptions{}
	c := &cobra.Command{
		Use:   "hostile",
		Short: "Attack a protected cluster, and say which attack succeeded",
		Long: `hostile starts Cassandra, nodes and gateways with certificates, an auth file and a gossip key, and attacks
them: forged gossip, wrong certificates and tokens, foreign host names, hidden requests, bombs and floods. A good client
must be served meanwhile, and no secret may appear in any log, metric, profile, trace or answer.

It exits with 1 if an attack succeeded.`,
		Example: "  licensed-chaos hostile\n" +
			"  licensed-chaos hostile --binary ./licensed-1.0 --report before.json\n" +
			"  licensed-chaos hostile --before before.json --table docs/design/hostile-run.md",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.Dir, "dir", "", "`directory` for all that the run leaves (default hostile-TIME)")
	f.StringVar(&o.Tree, "tree", ".", "source `directory` that licensed is built from")
	f.StringVar(&o.Binary, "binary", "", "licensed `program` to attack, instead of building one; settings that it does "+
		"not know are left out")
	f.IntVar(&o.Nodes, "nodes", 3, "`number` of nodes")
	f.IntVar(&o.Gateways, "gateways", 2, "`number` of gateways")
	f.DurationVar(&o.Hold, "hold", 5*time.Second, "time that each flood lasts")
	f.StringSliceVar(&o.Only, "only", nil, "run the attacks whose `GROUP: NAME` has one of these in it (default all)")
	f.StringSliceVar(&o.Without, "without", nil, "`settings` to leave out, to see that the attacks find it")
	f.StringSliceVar(&o.Risks, "accept-risk", nil, "`risks` that the processes accept")
	f.StringVar(&o.report, "report", "", "`file` to write the results to, as JSON")
	f.StringVar(&o.before, "before", "", "`file` of --report of an earlier release, for the table")
	f.StringVar(&o.table, "table", "", "`file` to write the table to, as Markdown")
	return c
}

func (o *hostileOptions) run(c *cobra.Command) (err error) {
	if o.Nodes < 1 || o.Gateways < 1 || o.Hold <= 0 {
		return usageError{errors.New("nodes, gateways: at least 1; hold: more than 0")}
	}
	var before *siege.Report
	if o.before != "" {
		if before, err = siege.Read(o.before); err != nil {
			return err
		}
	}
	if o.Dir == "" {
		o.Dir = "hostile-" + time.Now().Format("0102-150405")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if o.Binary == "" {
		o.Binary = filepath.Join(o.Dir, "licensed")
		build := exec.CommandContext(c.Context(), "go", "build", "-C", o.Tree, "-o", o.Binary, "./cmd/licensed")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build licensed in %s: %w\n%s", o.Tree, err, out)
		}
	}
	o.Log = func(format string, arguments ...any) {
		fmt.Fprintf(c.ErrOrStderr(), time.Now().Format("15:04:05 ")+format+"\n", arguments...)
	}
	report, err := siege.Run(c.Context(), o.Options)
	if err != nil {
		return err
	}
	if o.report != "" {
		err = report.Write(o.report)
	}
	if o.table != "" {
		err = errors.Join(err, os.WriteFile(o.table, []byte(siege.Table(before, report)), 0o644))
	}
	if err != nil {
		return err
	}
	breaches := report.Breaches()
	fmt.Fprintf(c.OutOrStdout(), "%d attacks, %d succeeded\n", len(report.Results), len(breaches))
	for _, b := range breaches {
		fmt.Fprintf(c.OutOrStdout(), "%s: %s: %s\n", b.Group, b.Name, b.Seen)
	}
	if len(breaches) > 0 {
		return errFailed
	}
	return nil
}
