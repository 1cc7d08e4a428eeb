package main

import (
	"io"

	"github.com/spf13/cobra"
)

func (p *program) configCommand() *cobra.Command {
	o := newOptions()
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the settings in effect, and where each comes from",
		Long: "config takes the flags, environment and settings file that dev, serve, node and gateway take, and\n" +
			"prints what they would run with, as a settings file. Secrets are masked.",
		Example: "  licensed config --config licensed.yaml\n  LICENSED_LISTEN=:8080 licensed config",
		Args:    noArguments,
	}
	o.bind(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := loadSettings(c.Flags(), p.getenv)
		if err != nil {
			return usageError{err}
		}
		log, err := newLogger(io.Discard, o.logLevel, o.logFormat)
		if err != nil {
			return usageError{err}
		}
		spread, err := o.spreadHost(c.Flags())
		if err != nil {
			return usageError{err}
		}
		for _, name := range spread {
			s.source[name] = "host"
		}
		if _, err := o.aloneConfig(log); err != nil {
			return usageError{err}
		}
		return s.print(p.stdout)
	}
	return c
}
