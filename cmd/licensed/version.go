package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"licensed/internal/version"
)

// versionCommand returns the command that prints version, Go release and platform.
func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of the program",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(p.stdout, versionLine())
			return err
		},
	}
}

// versionLine is what version and --version print.
func versionLine() string {
	return fmt.Sprintf("licensed %s %s %s/%s\n", version.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
