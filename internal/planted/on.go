//go:build plantedbugs

package planted

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

// none is the choice of a process without a bug.
const none ID = -1

// The bug of this process, chosen when it starts; it never changes, so that reading it
// needs no lock.
var (
	chosen = choose(os.Getenv(Variable))
	met    sync.Once
	former sync.Map
)

// choose returns the bug of a name, and ends the process if there is none of that name.
func choose(name string) ID {
	if name == "" {
		return none
	}
	i := slices.IndexFunc(Bugs[:], func(b Info) bool { return b.Name == name })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "cannot plant a bug: %s is %q, which is not in the table of internal/planted\n",
			Variable, name)
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "planted bug %q: this program is for tests\n", name)
	return ID(i)
}

// Bug reports whether this process has the bug.
func Bug(b ID) bool {
	if b != chosen {
		return false
	}
	met.Do(func() { fmt.Fprintln(os.Stderr, Met+Bugs[b].Name) })
	return true
}

// Former returns the value of the call before with that key, or this one if it is the first. Only a bug calls it.
func Former[T any](key string, value T) T {
	if old, ok := former.Swap(key, value); ok {
		return old.(T)
	}
	return value
}
