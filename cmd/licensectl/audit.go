package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"licensed/internal/auditlog"
)

// auditCommand returns the command about audit logs, which needs no server.
func (p *program) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Check the audit logs of gateways",
		Example: "  licensectl audit verify audit.log",
		Args:    exactArgs(),

		Annotations: map[string]string{textOnly: "; use audit verify"},
		RunE:        func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	hash := ""
	verify := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Check that no record of an audit log was changed, removed or added",
		Long: "verify checks the files of one gateway's audit log, in their order: NAME.NUMBER first, NAME last.\n" +
			"Each record has the hash of the one before it, so that a change shows. Records that were cut off at\n" +
			"the end show if you give the last hash that the gateway logged (audit log opened, rotated, closed).",
		Example: "  licensectl audit verify audit.log.000000000001 audit.log\n" +
			"  licensectl audit verify audit.log --hash 9f86d081884c7d65",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("FILE is missing (see %s --help)", c.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.verifyAudit(args, hash) },
	}
	verify.Flags().StringVar(&hash, "hash", "", "`HASH` that a line of the log must have")
	c.AddCommand(verify)
	return c
}

// verifyAudit checks the files of an audit log, and whether a line has a hash, unless that is empty.
func (p *program) verifyAudit(files []string, hash string) error {
	v := auditlog.Verifier{Hash: hash}
	broken := 0
	for _, name := range files {
		findings, err := v.File(name)
		if err != nil {
			return fmt.Errorf("verify the audit log: %w", err)
		}
		for _, f := range findings {
			if f.Kind == auditlog.Broken {
				broken++
			}
			fmt.Fprintln(p.stderr, f)
		}
	}
	first, last, head := v.Range()
	if p.output == outputJSON {
		line, err := json.Marshal(struct {
			Records uint64 `json:"records"`
			First   uint64 `json:"first"`
			Last    uint64 `json:"last"`
			Hash    string `json:"hash"`
			Broken  int    `json:"broken"`
		}{v.Records(), first, last, head, broken})
		if err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, string(line))
	} else {
		fmt.Fprintf(p.stdout, "checked %d records, %d to %d, last hash %s: %d changes\n",
			v.Records(), first, last, head, broken)
		if first > 1 {
			fmt.Fprintf(p.stdout, "records 1 to %d are in earlier files, or were removed\n", first-1)
		}
	}
	damaged := func(reason, format string, args ...any) error {
		return &exitError{code: exitDamaged, reason: reason, err: fmt.Errorf(format, args...)}
	}
	switch {
	case broken > 0:
		return damaged("CHANGED", "the audit log was changed in %d places", broken)
	case hash != "" && !v.Seen:
		return damaged("CUT", "no line has the hash %s: the log was cut, or it is that of another gateway", hash)
	}
	return nil
}
