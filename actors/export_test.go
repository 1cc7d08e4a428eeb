package actors

import "weak"

// Pending returns the number of requests an aggregate in memory was handed and has not answered.
func (r *Runtime) Pending(id string) int {
	if e := r.registry.find(id); e != nil {
		return int(e.pending.Load())
	}
	return 0
}

// PendingIn returns the number of requests the aggregates of a shard were handed and have not answered.
func (r *Runtime) PendingIn(shard uint32) int { return int(r.registry.pendingIn(shard).Load()) }

// Track returns functions that say whether the activation of an aggregate in memory, and what its machine works
// with, are still reachable. The machine must be unpacked, and nothing in progress.
func (r *Runtime) Track(id string) (activated, hotKept func() bool) {
	a := r.registry.find(id).act
	shell, hot := weak.Make(a), weak.Make(a.space.hot)
	return func() bool { return shell.Value() != nil }, func() bool { return hot.Value() != nil }
}

// PanicTwice makes the actor of an aggregate in memory, which waits for the store, panic when it replies, and its crash
// path too: it is handed two requests that cannot be answered.
func (r *Runtime) PanicTwice(id string) {
	done := make(chan struct{})
	close(done)
	a := r.registry.find(id).act
	for range 2 {
		a.entry.pending.Add(1)
		a.entry.inShard.Add(1)
		r.inFlight.Add(1)
		a.post(&Request{done: done, Query: HeadQuery{}})
	}
}
