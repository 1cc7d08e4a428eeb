// Package sources makes the results of tests that build programs depend on what those are built from. go test
// keeps the result of a test as long as what it was linked from and the files that it looked at are the same; the
// sources of a program that it builds and runs are neither, unless it looks at them.
package sources

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// directories of the module that have the sources of its programs, what they embed included.
var directories = []string{"actors", "cluster", "cmd", "docs", "gateway", "internal", "messages", "persistence"}

// Look looks at the sources of the module whose root directory this is.
func Look(root string) error {
	var errs []error
	for _, file := range []string{"go.mod", "go.sum", "go.work"} {
		_, err := os.Stat(filepath.Join(root, file))
		errs = append(errs, err)
	}
	for _, d := range directories {
		// To read a directory is to look at its files.
		errs = append(errs, filepath.WalkDir(filepath.Join(root, d), func(_ string, _ fs.DirEntry, err error) error { return err }))
	}
	return errors.Join(errs...)
}
