// Command licensed is the daemon of the licence accounting service.
//
//	licensed dev      everything in one process, for development
//	licensed serve    a member of a cluster that holds customers and serves the API
//	licensed node     a member that holds customers
//	licensed gateway  a member that serves the API
//	licensed health   whether a process is ready, for containers
//	licensed schema   the tables on Cassandra
//	licensed keys     the keys that sign licences
//	licensed store    the embedded store of a stopped node
//	licensed settings the settings in effect, and where each comes from
//	licensed version  what was built
//
// Every setting is a flag, an environment variable (LICENSED_ and the name of the flag) and a line of
// a YAML file (--config); the former wins. The program exits with 0 after an orderly stop, 2 if it was
// called wrongly or set wrongly, 1 if anything else went wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"licensed/internal/manpages"
	"licensed/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// All that the process writes is its own: histories, keys, the audit log, checkpoints. Libraries create files that
	// others may read.
	unix.Umask(0o077)
	// Room for some: a signal must not be lost while the program is busy.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	p := &program{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, signals: signals}
	os.Exit(p.run(context.Background(), os.Args[1:]))
}

// program is the command line with all that it touches, so that tests run the real one.
// signals are those that stop a process, and SIGHUP.
type program struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	signals        <-chan os.Signal
}

// usageError is an error of the user who called or configured the program: the exit code
// is 2, and nothing was started.
type usageError struct{ error }

// Unwrap returns the error about the command line.
func (e usageError) Unwrap() error { return e.error }

// noArguments is cobra.NoArgs as a usage error.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q (see %s --help)",
			c.CommandPath(), args[0], c.CommandPath())}
	}
	return nil
}

// directory demands one argument.
func directory(c *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usageError{errors.New("DIR is missing (see " + c.CommandPath() + " --help)")}
	case 1:
		return nil
	}
	return noArguments(c, args[1:])
}

// group returns a command that only has verbs.
func group(use, short, long string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

// run executes a command line and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use:   "licensed",
		Short: "Licence accounting with event-sourced aggregates in memory",
		Long: "licensed accounts for download licences: who holds which title on which device, until when,\n" +
			"and whether the rules of plan, studio and title allow another. Every acknowledged command survives.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Version = version.Version()
	root.SetVersionTemplate(versionLine())
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", newOptions().table().FlagError(err), c.CommandPath())}
	})
	pages := manpages.Command("licensed", p.getenv)
	pages.Args = directory
	root.AddCommand(p.devCommand(), p.demoCommand(), p.serveCommand(), p.nodeCommand(), p.gatewayCommand(),
		p.schemaCommand(), p.storeCommand(), p.keysCommand(), p.tokensCommand(), p.certsCommand(), p.healthCommand(),
		p.settingsCommand(), p.versionCommand(), pages)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(p.stderr, "licensed: %v\n", err)
	var usage usageError
	var other exitError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &other):
		return other.code
	}
	return exitFailed
}
