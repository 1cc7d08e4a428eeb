package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// clusterCommand returns the verb for AdminService.GetCluster, with the verbs that tell
// one node to do something below it.
func (p *program) clusterCommand() *cobra.Command {
	var shards, check bool
	c := &cobra.Command{
		Use: "cluster", Short: "Show the status of the cluster: its members, its shards, and what is wrong",
		Long: "cluster asks all members for their status and shows it: for each node its incarnation, the time\n" +
			"left of its lease, its shards and customers, and the commands per second that they get. Below\n" +
			"stand the shards by state, the findings with the next step for each, and recent events.\n\n" +
			"The level is OK, DEGRADED (all customers are served, and something needs attention) or CRITICAL\n" +
			"(some customers are not served).\n\n" + checkCodes,
		Example: "  licensectl cluster\n  licensectl cluster --check\n  licensectl cluster --shards\n" +
			"  licensectl cluster -o json\n  licensectl cluster drain n1",
		Args: exactArgs(),
	}
	c.Flags().BoolVar(&shards, "shards", false, "show all shards: owner, epoch, state")
	c.Flags().BoolVar(&check, "check", false, "print one line for a monitor, and exit with 0, 1, 2 or 3 by the level")
	c.MarkFlagsMutuallyExclusive("shards", "check")
	c.RunE = func(c *cobra.Command, _ []string) error {
		status, err := p.clusterStatus(c.Context())
		switch {
		case check:
			return p.check(status, err)
		case err != nil:
			return err
		case p.output == outputJSON:
			return p.printJSON(status)
		case shards:
			return p.printShards(status)
		}
		return p.printCluster(status)
	}
	c.AddCommand(p.drainCommand(), p.undrainCommand())
	return c
}

// checkCodes say how --check tells a monitor the level.
const checkCodes = `With --check the exit codes are those of monitoring plugins:
  0  OK
  1  DEGRADED
  2  CRITICAL
  3  UNKNOWN: no gateway answered, or it is of a release that reports no level`

// checked are the exit codes of --check by level. What is missing is unknown.
var checked = map[licensedv1.ClusterLevel]int{
	licensedv1.ClusterLevel_CLUSTER_LEVEL_OK:       0,
	licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED: 1,
	licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL: 2,
}

// checkUnknown is the exit code where there is no level.
const checkUnknown = 3

// levelWord returns a level for people.
func levelWord(s *licensedv1.ClusterStatus) string {
	if s.GetLevel() == licensedv1.ClusterLevel_CLUSTER_LEVEL_UNSPECIFIED {
		return "UNKNOWN"
	}
	return strings.TrimPrefix(s.Level.String(), "CLUSTER_LEVEL_")
}

// check prints one line for a monitor, or the status as JSON, and returns an error that carries the exit code.
func (p *program) check(s *licensedv1.ClusterStatus, err error) error {
	// The code is 0, 1, 2 or 3, as monitors of the Nagios kind read it (see checkCodes).
	code, known := checked[s.GetLevel()]
	line := levelWord(s) + ": "
	switch {
	case err != nil:
		code, line = checkUnknown, "UNKNOWN: "+p.explain(err).Error()
	case !known:
		code = checkUnknown
		line += fmt.Sprintf("%s is of a release that reports no level; read licensectl cluster", s.Reporter)
	default:
		line += fmt.Sprintf("%s (cluster %s, %d of %d nodes running, %d of %d shards served)",
			s.Summary, s.Name, s.NodesRunning, s.NodesExpected, s.ShardsServed, s.Shards)
	}
	if p.output == outputJSON && err == nil {
		if err := p.printJSON(s); err != nil {
			return &exitError{code: checkUnknown, err: err}
		}
	} else if p.output == outputJSON {
		// A monitor that reads JSON gets no text on stdout: report prints the error.
		return &exitError{code: checkUnknown, err: errors.New(line)}
	} else if _, err := fmt.Fprintln(p.stdout, terminal.Escape(line)); err != nil {
		return &exitError{code: checkUnknown, err: err}
	}
	if code == 0 {
		return nil
	}
	// Silent: the line was printed as the result.
	return &exitError{code: code, silent: true, err: errors.New(line)}
}

// clusterStatus asks for the status of the cluster.
func (p *program) clusterStatus(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	res, err := conn.admin.GetCluster(ctx, &licensedv1.GetClusterRequest{})
	if err != nil {
		return nil, err
	}
	return res.Cluster, nil
}

// shownHappenings is the number of recent events that are shown.
const shownHappenings = 10

// printCluster prints the status for people: the level, the members, the findings, and
// what happened.
func (p *program) printCluster(s *licensedv1.ClusterStatus) error {
	fmt.Fprintf(p.stdout, "cluster %s, %s, as seen by %s at %s UTC\n%s\n\n",
		s.Name, terminal.Count(s.Shards, "shard", "shards"), s.Reporter, clock(s.AsOf), headline(s))
	t := p.newTable("NAME", "ROLES", "STATE", "INCARNATION", ">AGE", ">LEASE", ">SHARDS", ">MOVING", ">CUSTOMERS",
		">COMMANDS/S", "VERSION", "ADDRESS")
	for _, n := range s.Nodes {
		t.Add(nodeRow(n)...)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "\nshards: %s\n", strings.Join(shardCounts(s), ", "))
	for _, n := range s.Nodes {
		if n.Reason != "" {
			fmt.Fprintf(p.stdout, "%s: %s\n", n.Name, n.Reason)
		}
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(p.stdout, "\n%s: %s\n", mark(w), w.Text)
		if w.Since != nil {
			fmt.Fprintf(p.stdout, "  since: %s UTC\n", clock(w.Since))
		}
		if w.NextStep != "" {
			fmt.Fprintf(p.stdout, "  next:  %s\n", w.NextStep)
		}
		if w.Runbook != "" {
			fmt.Fprintf(p.stdout, "  see:   docs/guide/operations.md#%s\n", w.Runbook)
		}
	}
	if len(s.Happenings) == 0 {
		return nil
	}
	fmt.Fprintln(p.stdout, "\nrecent events:")
	for _, h := range s.Happenings[:min(shownHappenings, len(s.Happenings))] {
		fmt.Fprintf(p.stdout, "  %s  %s\n", clock(h.At), h.Text)
	}
	return nil
}

// headline returns the level and its reason.
func headline(s *licensedv1.ClusterStatus) string {
	if s.Summary == "" {
		return levelWord(s)
	}
	return levelWord(s) + ": " + s.Summary
}

// mark returns the level of a finding.
func mark(w *licensedv1.ClusterWarning) string {
	if w.Level == licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL {
		return "CRITICAL"
	}
	return "warning"
}

// nodeRow returns the cells of a member; a dash stands for what does not apply to it or
// is not known.
func nodeRow(n *licensedv1.NodeStatus) []string {
	age, lease, customers, commands, shards, moving := "-", "-", "-", "-", "-", "-"
	// Other processes than nodes have no lease and no shards.
	if n.Lease != nil {
		lease = seconds(n.Lease.Remaining)
	}
	if n.IncarnationAge != nil {
		age = n.IncarnationAge.AsDuration().Round(time.Second).String()
	}
	if slices.Contains(n.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) {
		shards, moving = fmt.Sprint(n.ShardsOpen+n.ShardsClosing), fmt.Sprint(n.ShardsMoving)
		customers, commands = fmt.Sprint(n.ResidentCustomers), fmt.Sprint(n.CommandsPerSecond)
	}
	// The first group of an incarnation tells those of one cluster apart.
	incarnation, _, _ := strings.Cut(n.Incarnation, "-")
	var roles []string
	for _, r := range n.Roles {
		roles = append(roles, enumWord(r.String(), "NODE_ROLE_"))
	}
	return []string{
		n.Name, strings.Join(roles, "+"), enumWord(n.State.String(), "NODE_STATE_"), cmp.Or(incarnation, "-"), age,
		lease,
		shards, moving, customers, commands, n.Version, cmp.Or(n.ApiAddress, n.NodeAddress),
	}
}

// enumWord returns NODE_STATE_READY as "ready".
func enumWord(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

// seconds writes what is left of a lease.
func seconds(d *durationpb.Duration) string { return fmt.Sprintf("%.1fs", d.AsDuration().Seconds()) }

// shardCounts returns the number of shards in each state, in words.
func shardCounts(s *licensedv1.ClusterStatus) []string {
	if s.Level == licensedv1.ClusterLevel_CLUSTER_LEVEL_UNSPECIFIED { // Of an older release.
		return []string{"not counted by " + s.Reporter}
	}
	parts := []string{
		fmt.Sprintf("%d served", s.ShardsServed), fmt.Sprintf("%d moving", s.ShardsMoving),
		fmt.Sprintf("%d not served", s.ShardsUnserved),
	}
	if s.ShardsUnconfirmed > 0 {
		parts = append(parts, fmt.Sprintf("%d not confirmed", s.ShardsUnconfirmed))
	}
	return parts
}

// printShards prints a line for each shard. Owners are named if they are members of the
// status.
func (p *program) printShards(s *licensedv1.ClusterStatus) error {
	names := make(map[string]string)
	for _, n := range s.Nodes {
		names[n.Incarnation] = n.Name
	}
	name := func(incarnation string) string {
		if incarnation == "" {
			return "-"
		}
		return cmp.Or(names[incarnation], incarnation)
	}
	t := p.newTable(">SHARD", ">EPOCH", "STATE", "OWNER", "SUCCESSOR")
	for _, shard := range s.ShardMap {
		if err := t.Row(fmt.Sprint(shard.Id), fmt.Sprint(shard.Epoch), enumWord(shard.State.String(), "SHARD_STATE_"),
			name(shard.Owner), name(shard.Successor)); err != nil {
			return err
		}
	}
	return t.Flush()
}

// nodePoll is the interval between looks at the progress of a node.
const nodePoll = 250 * time.Millisecond

// nodeErrand is what a command tells one node to do, with the words about it. drain and
// undrain are two of them: both begin at once and take a while.
type nodeErrand struct {
	cobra.Command
	until string // what the command waits for
	// tell has the node begin, and begun says that it did.
	tell  func(context.Context, licensedv1.AdminServiceClient, string) error
	begun string
	// done returns whether the node has finished, and finished describes that. late reports how far it got within wait.
	done     func(*licensedv1.NodeStatus) (bool, error)
	finished string
	late     func(last *licensedv1.NodeStatus, wait time.Duration) string
}

// drainCommand returns the verb for AdminService.DrainNode.
func (p *program) drainCommand() *cobra.Command {
	return p.errandCommand(&nodeErrand{
		Command: cobra.Command{
			Use: "drain NODE", Short: "Hand over all customers of a node to the other nodes",
			Long: `drain hands over the shards of a node to the others, a few at a time, while all customers are
served, and waits until the node has none left. The node then holds none until it is undrained or
restarted. Stopping a node (SIGTERM) drains it by itself; use drain to keep the process running
meanwhile.`,
			Example: "  licensectl cluster drain n1",
		},
		until: "the node has no shards",
		tell: func(ctx context.Context, admin licensedv1.AdminServiceClient, name string) error {
			_, err := admin.DrainNode(ctx, &licensedv1.DrainNodeRequest{Name: name})
			return err
		},
		begun: "began to hand its customers over", done: isDrained, finished: "holds no customers any more",
		late: func(last *licensedv1.NodeStatus, wait time.Duration) string {
			return fmt.Sprintf("still holds %s after %v; it continues to hand them over",
				terminal.Count(last.ShardsOpen+last.ShardsMoving, "shard", "shards"), wait)
		},
	})
}

// undrainCommand returns the verb for AdminService.UndrainNode.
func (p *program) undrainCommand() *cobra.Command {
	return p.errandCommand(&nodeErrand{
		Command: cobra.Command{
			Use: "undrain NODE", Short: "Have a drained node take customers again",
			Long: "undrain ends a drain: the node begins a new incarnation and takes its share of the " +
				"shards. A drain\n" +
				"in progress is completed first. undrain waits until the node is ready.",
			Example: "  licensectl cluster undrain n1",
		},
		until: "the node is ready",
		tell: func(ctx context.Context, admin licensedv1.AdminServiceClient, name string) error {
			_, err := admin.UndrainNode(ctx, &licensedv1.UndrainNodeRequest{Name: name})
			return err
		},
		begun: "was told to take customers again", finished: "takes customers again",
		done: func(n *licensedv1.NodeStatus) (bool, error) {
			return n.State == licensedv1.NodeState_NODE_STATE_READY, nil
		},
		late: func(last *licensedv1.NodeStatus, wait time.Duration) string {
			return fmt.Sprintf("is still %s after %v", enumWord(last.State.String(), "NODE_STATE_"), wait)
		},
	})
}

// isDrained reports whether a node that drains holds nothing any more. Errors: if the
// node ended instead.
func isDrained(n *licensedv1.NodeStatus) (bool, error) {
	switch n.State {
	case licensedv1.NodeState_NODE_STATE_DEAD:
		return false, fmt.Errorf("%s ended before it had handed over all its shards: %s; others take over the rest",
			n.Name, n.Reason)
	case licensedv1.NodeState_NODE_STATE_DRAINING, licensedv1.NodeState_NODE_STATE_DRAINED,
		licensedv1.NodeState_NODE_STATE_LEFT:
		return n.ShardsOpen+n.ShardsMoving == 0, nil // Those that are closing count as moving.
	}
	return false, nil
}

// errandCommand returns the command that tells a node to do something and waits until it
// is done. The node continues if the wait ends before.
func (p *program) errandCommand(e *nodeErrand) *cobra.Command {
	var wait time.Duration
	c := &e.Command
	c.Args, c.ValidArgsFunction = exactArgs("NODE"), p.completeArgument
	c.Flags().DurationVar(&wait, "wait", time.Minute, "longest time to wait until "+e.until+"; 0 does not wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		if err := e.tell(ctx, conn.admin, args[0]); err != nil {
			return err
		}
		if wait == 0 {
			return p.printErrand(args[0], false, e.begun)
		}
		return p.awaitErrand(c.Context(), e, args[0], wait)
	}
	return c
}

// printErrand prints how far a node is with what it was told.
func (p *program) printErrand(name string, done bool, words string) error {
	if p.output == outputJSON {
		return p.printJSON(map[string]any{"node": name, "done": done})
	}
	_, err := fmt.Fprintf(p.stdout, "%s %s\n", name, words)
	return err
}

// awaitErrand looks at a node until it has done what it was told, or wait has passed. A
// gateway that does not answer ends it: the status of another one may be older.
func (p *program) awaitErrand(ctx context.Context, e *nodeErrand, name string, wait time.Duration) error {
	// The wait begins after the node was told, so that a slow answer takes nothing of it.
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last *licensedv1.NodeStatus
	for asked := ctx; ; asked = waiting { // The first status may take as long as any other call.
		status, err := p.clusterStatus(asked)
		// A status that came too late to be of use is not the error: the node's last
		// known state is.
		if err != nil && (asked == ctx || waiting.Err() == nil) {
			return err
		}
		if i := slices.IndexFunc(status.GetNodes(),
			func(n *licensedv1.NodeStatus) bool { return n.Name == name }); i >= 0 {
			last = status.Nodes[i]
			done, err := e.done(last)
			if err != nil {
				return err
			}
			if done {
				return p.printErrand(name, true, e.finished)
			}
		}
		select {
		case <-waiting.Done():
			if last == nil {
				return fmt.Errorf("no member named %s after %v; see licensectl cluster", name, wait)
			}
			return fmt.Errorf("%s %s", name, e.late(last, wait))
		case <-time.After(nodePoll):
		}
	}
}
