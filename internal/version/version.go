// Package version holds the version of the program that is running.
package version

import (
	"runtime/debug"
	"sync"
)

// Version returns the version of the program: the one it was built as, that of the module, or the commit it was
// built from.
func Version() string { return version() }

// release is set by the linker where the tree that is built has no history, as in an
// image; "" otherwise.
var release string

var version = sync.OnceValue(func() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
})
