package actors

import (
	"log/slog"
	"runtime/debug"
	"time"

	"licensed/persistence"
)

// Listener hears what happens in a runtime, for logs, metrics and tests. The functions are called
// from the actors: they must be quick and safe for concurrent use. Those that are nil are not called.
// A function that panics is logged; the activation that called it continues.
type Listener struct {
	Activated  func(ActivatedInfo)
	Passivated func(PassivatedInfo)
	Ended      func(EndedInfo)
	// Appended is called for every durable append: it costs time on the path of each.
	Appended func(AppendedInfo)
}

// ActivatedInfo says that an aggregate was read from the store.
type ActivatedInfo struct {
	ID string
	// Records that were replayed after the snapshot.
	Records int
	// Duration of the reads and the replay.
	Duration time.Duration
	// Damaged, if not zero, is the root whose snapshot could not be read, and Damage why. The state was built from
	// Rebuilt events before it, and a new root is being written.
	Damaged persistence.RootKey
	Damage  error
	Rebuilt int
	// Ahead is how far the time of its last event lies ahead of the clock, at least 0: a former owner's
	// clock was fast, or this one's is slow.
	Ahead time.Duration
}

// PassivatedInfo says that an idle aggregate was evicted.
type PassivatedInfo struct {
	ID string
	// Head is where its history ends, nil if it had none yet or the shard was not held any more.
	Head *persistence.Head
	// ArchivedThrough is the sequence up to which the history is known to be in the archive.
	ArchivedThrough uint64
}

// EndedInfo says that an activation gave up, and why.
type EndedInfo struct {
	ID    string
	Cause error
}

// AppendedInfo says that an aggregate's history became longer. Where it ends now, its owner tells
// (HeadQuery).
type AppendedInfo struct{ ID string }

// guarded returns the listener with every function set, and every panic logged.
func (l Listener) guarded(log *slog.Logger) Listener {
	return Listener{
		Activated:  guarded(log, "activated", l.Activated),
		Passivated: guarded(log, "passivated", l.Passivated),
		Ended:      guarded(log, "ended", l.Ended),
		Appended:   guarded(log, "appended", l.Appended),
	}
}

// guarded returns f, and a function that does nothing for nil. A listener only reports: its panic says nothing about
// the state of the activation that called it, and must not get in the way of one that is ending.
func guarded[I any](log *slog.Logger, name string, f func(I)) func(I) {
	if f == nil {
		return func(I) {}
	}
	return func(info I) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("listener panicked", "listener", name, "panic", p, "stack", string(debug.Stack()))
			}
		}()
		f(info)
	}
}
