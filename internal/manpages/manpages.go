// Package manpages writes the manual pages of a program from its commands, for packages of a release. The help of a
// command is the only source: there is no second text to keep true.
package manpages

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"licensed/internal/version"
)

// Command returns a command without an entry in the help that writes a page of section 1 for each command of its
// program into a directory. The date of the pages is that of the variable SOURCE_DATE_EPOCH, in seconds since 1970
// (https://reproducible-builds.org), or now without it. The program checks that there is one argument, in its own
// words.
func Command(program string, getenv func(string) string) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages of this program into a directory",
		Example: "  " + program + " man ./man",
		Hidden:  true,
		RunE: func(c *cobra.Command, args []string) error {
			date, err := dateOf(getenv("SOURCE_DATE_EPOCH"))
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // Manual pages are for all users.
				return fmt.Errorf("write manual pages: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true // The version is in the footer.
			root.InitDefaultCompletionCmd()
			header := &doc.GenManHeader{
				Section: "1", Date: &date, Source: root.Name() + " " + version.Version(), Manual: "Licence accounting",
			}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write manual pages to %s: %w", args[0], err)
			}
			return nil
		},
	}
}

func dateOf(epoch string) (time.Time, error) {
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	var seconds int64
	if _, err := fmt.Sscan(epoch, &seconds); err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
