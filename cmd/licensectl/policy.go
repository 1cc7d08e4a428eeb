package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// policyCommand returns the verb that shows the policy of the node that answers, and
// below it the one for AdminService.ReloadPolicy.
func (p *program) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Show which policy is in force, or have its file read again",
		Example: "  licensectl policy\n  licensectl policy reload",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			conn, err := p.dial()
			if err != nil {
				return err
			}
			ctx, cancel := p.call(c.Context())
			defer cancel()
			res, err := conn.admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(
					map[string]string{"policyVersion": res.PolicyVersion, "policySource": res.PolicySource},
				)
			}
			_, err = fmt.Fprintf(p.stdout, "policy %s (%s)\n", res.PolicyVersion, res.PolicySource)
			return err
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "reload", Short: "Read the policy file again now",
		Long:    "reload reads the policy file again. A file with mistakes changes nothing; they are named.",
		Example: "  licensectl policy reload",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			conn, err := p.dial()
			if err != nil {
				return err
			}
			ctx, cancel := p.call(c.Context())
			defer cancel()
			res, err := conn.admin.ReloadPolicy(ctx, &licensedv1.ReloadPolicyRequest{})
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(res)
			}
			what := "the file is unchanged"
			if res.Changed {
				what = "in force from now on"
			}
			_, err = fmt.Fprintf(p.stdout, "policy %s, %s\n", res.PolicyVersion, what)
			return err
		},
	})
	return c
}
