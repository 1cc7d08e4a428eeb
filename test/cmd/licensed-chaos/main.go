// Command licensed-chaos runs a licence service under load and faults and judges what is left.
//
//	licensed-chaos run       start a deployment, or attach to one, and break it
//	licensed-chaos outage    take all of Cassandra away under load, and judge what devices noticed
//	licensed-chaos hostile   attack a protected cluster, and say which attack succeeded
//	licensed-chaos check     judge the directory of a run again
//	licensed-chaos report    draw the page of a run again
//	licensed-chaos sum       add up several runs
//	licensed-chaos policy    print the policy that an attached cluster must have
//
// It is a program of its own, and no verb of licensectl: it carries a model of the rules and a
// linearizability checker, starts and kills processes, and may need root for network namespaces. None of
// that belongs into a tool that operators have at hand on production machines.
//
// It exits with 0 if every check passed, 1 if one failed, 2 if it was called wrongly, 3 if there is no
// verdict.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitPass      = 0
	exitFail      = 1
	exitUsage     = 2
	exitNoVerdict = 3
)

// errFailed says that there is a verdict and that it is bad. It has been printed.
var errFailed = errors.New("a check failed")

// usageError is an error of the caller of the program.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	// Everything that clients saw is kept until it is judged, and little else: less room to grow is no loss.
	debug.SetGCPercent(50)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "licensed-chaos",
		Short: "Break a licence service, and judge whether it kept its promises",
		Long: `licensed-chaos drives a mixed load through the gateways of a licence service, kills, pauses and cuts
off its parts by a plan drawn from a seed, heals, and checks that every acknowledged command is in
the history exactly once.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.AddCommand(
		runCommand(), outageCommand(), hostileCommand(), checkCommand(), reportCommand(), sumCommand(), policyCommand())
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitPass
	case errors.Is(err, errFailed):
		return exitFail
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "licensed-chaos: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "licensed-chaos: %v\n", err)
	return exitNoVerdict
}
