package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"licensed/internal/throwaway"
)

// tokensCommand returns the command that makes tokens.
func (p *program) tokensCommand() *cobra.Command {
	keep := false
	c := &cobra.Command{
		Use: "dev DIR", Short: "Write an auth file with a token for each role",
		Long: "dev writes DIR/" + throwaway.AuthFile + ", for --auth-file, and for each role a token in " +
			"DIR/ROLE.token.\n" +
			"The token of the role customer is about the customer " + throwaway.Customer + ", and all.token has " +
			"all other\n" +
			"roles. Nothing of it is for production.",
		Example: "  licensed tokens dev ./dev\n  licensed dev --auth-file ./dev/auth.yaml\n" +
			"  licensectl --token-file ./dev/service.token acquire Bayley iphone GlowS01E01",
		Args: directory,
		RunE: func(_ *cobra.Command, args []string) error {
			err := throwaway.Tokens(args[0])
			if keep && errors.Is(err, fs.ErrExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("write tokens: %w", err)
			}
			_, err = fmt.Fprintf(p.stdout, "wrote %s and a token for each role\n",
				filepath.Join(args[0], throwaway.AuthFile))
			return err
		},
	}
	c.Flags().BoolVar(&keep, "if-missing", keep, ifMissing)
	return group("tokens", "Make tokens for trying things out", "", c)
}

// certsCommand returns the command that makes certificates.
func (p *program) certsCommand() *cobra.Command {
	var hosts []string
	keep := false
	c := &cobra.Command{
		Use: "dev DIR", Short: "Write an authority, and certificates of it for servers and for each role",
		Long: "dev writes an authority to DIR/" + throwaway.CA + " whose key nobody keeps, a certificate of it " +
			"for servers\n" +
			"(" + throwaway.ServerCert + ", " + throwaway.ServerKey + "), one for a client of each role (ROLE.pem, " +
			"ROLE-key.pem) and a key for gossip (" + throwaway.GossipKeyFile + ").\nAll are valid for a year. " +
			"Nothing of it is for production.",
		Example: "  licensed certs dev ./dev --hosts gateway-1,10.0.0.7",
		Args:    directory,
		RunE: func(_ *cobra.Command, args []string) error {
			err := throwaway.Certs(args[0], hosts)
			if keep && errors.Is(err, fs.ErrExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("write certificates: %w", err)
			}
			_, err = fmt.Fprintf(p.stdout, "wrote %s and what it signed\n", filepath.Join(args[0], throwaway.CA))
			return err
		},
	}
	c.Flags().BoolVar(&keep, "if-missing", keep, ifMissing)
	c.Flags().StringSliceVar(&hosts, "hosts", nil, "`NAMES` and addresses of servers, beside this machine")
	return group("certs", "Make certificates for trying things out", "", c)
}

// ifMissing is the help of the flag.
const ifMissing = "do nothing if DIR has such files"
