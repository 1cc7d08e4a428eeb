package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/signingkeys"
)

// keysCommand returns the commands for the keys that sign licences.
func (p *program) keysCommand() *cobra.Command {
	return group("keys", "Make and list the keys that sign licences",
		"keys works on a directory of keys (--license-keys), without any service. Gateways read changed files\n"+
			"within seconds. To rotate, make a key: every gateway must have it before it begins to sign. Remove the\n"+
			"file of a key to have no licence of it accepted any more.",
		p.keysNewCommand(), p.keysListCommand())
}

// keysNewCommand returns the command that makes a key.
func (p *program) keysNewCommand() *cobra.Command {
	delay := time.Hour
	c := &cobra.Command{
		Use:   "new DIR",
		Short: "Make a key that begins to sign after a delay",
		Long: "new makes a key of Ed25519 in a file that only its owner can read. The name of the file is the time\n" +
			"at which the key begins to sign. The first key of a directory signs at once.",
		Example: "  licensed keys new /etc/licensed/license-keys",
		Args:    directory,
		RunE: func(_ *cobra.Command, args []string) error {
			if delay < 0 {
				return usageError{fmt.Errorf("--delay is %v, must be at least 0s", delay)}
			}
			k, err := signingkeys.New(args[0], time.Now().Add(delay))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "%s\nkey %s begins to sign at %s\n",
				k.Path, k.ID, k.Begins.Format(time.RFC3339))
			return err
		},
	}
	c.Flags().DurationVar(&delay, "delay", delay,
		"`time` until the key begins to sign: for all gateways to get it, and for caches of the public keys to expire")
	return c
}

// keysListCommand returns the command that lists keys.
func (p *program) keysListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list DIR",
		Short: "List the keys, and which one signs now",
		Args:  directory,
		RunE: func(_ *cobra.Command, args []string) error {
			ring, err := signingkeys.Read(args[0])
			if err != nil {
				return err
			}
			now := time.Now()
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "BEGINS\tSTATE\tKEY\tFILE")
			for _, k := range ring {
				state := "signs no more"
				switch {
				case k.ID == ring.Signing(now).ID:
					state = "signs"
				case k.Begins.After(now):
					state = "signs later"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Begins.Format(time.RFC3339), state, k.ID, k.Path)
			}
			return w.Flush()
		},
	}
}
