package actors

import "weak"

// Track returns functions that say whether the activation of an aggregate in memory, and what its machine works
// with, are still reachable. The machine must be unpacked, and nothing under way.
func (r *Runtime) Track(id string) (activated, hotKept func() bool) {
	a := r.registry.find(id).act
	shell, hot := weak.Make(a), weak.Make(a.space.hot)
	return func() bool { return shell.Value() != nil }, func() bool { return hot.Value() != nil }
}
