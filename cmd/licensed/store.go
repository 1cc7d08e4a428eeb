package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"licensed/internal/node"
	"licensed/internal/offline"
	"licensed/internal/settings"
	"licensed/internal/storage"
	"licensed/internal/terminal"
	"licensed/internal/verify"
	"licensed/messages/licensedv1"
)

// storeCommand returns the commands for the directory of a stopped node.
func (p *program) storeCommand() *cobra.Command {
	return group("store", "Check the embedded store of a stopped node",
		"store works on the directory of a node that is stopped, without any service.", p.storeVerifyCommand())
}

// storeVerifyCommand returns the command that examines all histories of a directory. The
// lock of the directory keeps a node from starting meanwhile.
func (p *program) storeVerifyCommand() *cobra.Command {
	o, v := newOptions(), verify.Options{Program: "licensed store verify"}
	c := &cobra.Command{
		Use:   "verify [CUSTOMER]",
		Short: "Check all that is stored of a customer, or of all",
		Long: "verify checks what licensectl verify checks, in the directory of a node (--data) that is stopped\n" +
			"or does not start. There is no live state to compare. While it runs, no node can start there.\n\n" +
			verifyExitCodes,
		Example: "  licensed store verify --data /var/lib/licensed\n" +
			"  licensed store verify --data /var/lib/licensed Bayley",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return noArguments(c, args[1:])
			}
			return nil
		},
	}
	v.BindFlags(c.Flags())
	output := ""
	c.Flags().StringVarP(&output, "output", "o", "table", "`format` of the findings: table or json")
	p.takeSettings(c, o, named("data", "archive"), func(c *cobra.Command, _ *settings.Loaded, args []string) error {
		if len(args) == 1 {
			v.Customer = args[0]
		}
		if err := v.Check(); err != nil {
			return usageError{err}
		}
		if output != "table" && output != "json" {
			return usageError{fmt.Errorf("--output %q is not table or json", output)}
		}
		v.JSON = output == "json"
		return p.interruptible(c.Context(), func(ctx context.Context) error { return p.verifyStore(ctx, o.config, v) })
	})
	return c
}

// Exit codes of store verify, those of licensectl verify.
const (
	exitNotFound = 4
	exitLocked   = 5
	exitDamaged  = 6
)

// verifyExitCodes is the part of the help that lists them. They are those of licensectl
// as far as both have them.
const verifyExitCodes = `Exit codes:
  0  nothing is damaged
  1  failed for another reason
  2  called wrongly
  4  not found: no store there, or no such customer
  5  the directory is in use by a running node
  6  the history is damaged; the findings were printed`

// exitError is an error with its exit code.
type exitError struct {
	error
	code int
}

// Unwrap returns the error that the code was found for.
func (e exitError) Unwrap() error { return e.error }

// verifyStore opens the directory and runs the examination that licensectl verify asks a
// service for.
func (p *program) verifyStore(ctx context.Context, c node.Config, v verify.Options) error {
	// Findings are the output: log lines of the store would come between them.
	c.Logger = slog.New(slog.DiscardHandler)
	store, err := offline.Open(&c.Config)
	switch {
	case errors.Is(err, storage.ErrLocked):
		return exitError{fmt.Errorf("%w; stop the node first, or ask it: licensectl verify", err), exitLocked}
	case errors.Is(err, offline.ErrNoStore):
		return exitError{fmt.Errorf("%w; name the directory of a node with --data", err), exitNotFound}
	case err != nil:
		return err
	}
	v.Out, v.Err, v.Progress = terminal.Writer(p.stdout), p.stderr, terminal.NewProgress(nil)
	v.Width = terminal.Columns(p.stdout)
	if terminal.Columns(p.stderr) > 0 {
		v.Progress = terminal.NewProgress(p.stderr)
	}
	// Closed also after damage: the lock of the directory is released.
	err = errors.Join(verify.Run(ctx, storedCustomers{store}, v), store.Close())
	var damaged verify.DamagedError
	switch {
	case errors.As(err, &damaged):
		return exitError{err, exitDamaged}
	case errors.Is(err, offline.ErrNoHistory):
		return exitError{err, exitNotFound}
	}
	return err
}

// storedCustomers are those of a directory.
type storedCustomers struct{ *offline.Store }

// pageOfCustomers is the number of ids that are read at a time.
const pageOfCustomers = 1000

// Customers implements verify.Store.
func (s storedCustomers) Customers(ctx context.Context, after string) ([]string, error) {
	return s.Store.Customers(ctx, after, pageOfCustomers)
}

// NoHistory implements verify.Store.
func (s storedCustomers) NoHistory(err error) bool { return errors.Is(err, offline.ErrNoHistory) }

// Verify implements verify.Store.
func (s storedCustomers) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64),
) (*licensedv1.CustomerReport, error) {
	return s.Store.Verify(ctx, customer, repair,
		func(checked, total uint64) error { progress(checked, total); return ctx.Err() })
}
