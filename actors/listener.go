package actors

import (
	"time"

	"licensed/persistence"
)

// Listener hears what happens in a runtime, for logs, metrics and tests. The functions are called
// from the actors: they must be quick and safe for concurrent use. Those that are nil are not called.
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
	// Ahead is how far the time of its last event lies ahead of the clock, at least 0: a former owner's
	// clock was fast, or this one's is slow.
	Ahead time.Duration
}

// PassivatedInfo says that an idle aggregate left memory.
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

func (l Listener) withDefaults() Listener {
	if l.Activated == nil {
		l.Activated = func(ActivatedInfo) {}
	}
	if l.Passivated == nil {
		l.Passivated = func(PassivatedInfo) {}
	}
	if l.Ended == nil {
		l.Ended = func(EndedInfo) {}
	}
	if l.Appended == nil {
		l.Appended = func(AppendedInfo) {}
	}
	return l
}
