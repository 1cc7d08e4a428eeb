package actors

import (
	"time"

	"licensed/persistence"
)

// Kind describes one kind of event-sourced aggregate to the runtime, which knows no domain. It is
// safe for concurrent use.
type Kind interface {
	// Name is part of the ids of the kind's aggregates, "LicenseAggregate". It never changes.
	Name() string

	// New returns the aggregate of that id (without the kind, "Bayley") before its first event.
	New(id string) Aggregate

	// Restore returns the aggregate that Aggregate.Snapshot wrote, of any version ever released.
	// Errors: persistence.ErrCorrupt.
	Restore(id string, s Snapshot) (Aggregate, error)

	// DecodeEvent returns the value of a stored event as today's type, of any version ever released
	// (the event mapper of the talk). Errors: persistence.ErrCorrupt.
	DecodeEvent(mapper string, h persistence.Header, data []byte) (any, error)

	// CheckForeign says what keeps a record that was made elsewhere, in another cluster's history, from being one of
	// this kind: it cannot be decoded, or no command that is let through could have recorded it. What it
	// accepts, Evolve and Snapshot and every answer can handle.
	CheckForeign(r *persistence.Record) error

	// Outcome returns the result of a command, from the events it recorded and nothing else, so that a
	// repeated command is answered alike before and after a recovery. The bytes are kept in the
	// window of remembered commands: a few dozen at most.
	Outcome(events []Event) []byte
}

// Aggregate is the state of one aggregate in memory. The runtime calls it from one goroutine at a time.
type Aggregate interface {
	// Decide answers a command at a time, without changing the aggregate, without clock or I/O.
	Decide(now time.Time, command any) Decision

	// Evolve applies an event that Decide returned or DecodeEvent read; it must not fail. It ignores
	// values of types it does not know.
	Evolve(e Event)

	// Query answers a question, without changing the aggregate. The answer must not share memory
	// with it: it is read by other goroutines.
	Query(now time.Time, query any) (any, error)

	// Snapshot drops what no decision after now can need and returns the rest. The aggregate that
	// Restore makes of it decides exactly as this one continues to.
	Snapshot(now time.Time) Snapshot
}

// Snapshot is an encoded aggregate.
type Snapshot struct {
	// Mapper names type and version, "LicenseSnapshot/2".
	Mapper string
	Header persistence.Header
	Data   []byte
}

// Event is one event, decoded and encoded.
type Event struct {
	// AggregateID, Order, Time, Mapper, Header and Data are as in persistence.Record. Decide leaves
	// Time alone: it is the now that it was given.
	AggregateID string
	Order       uint64
	Time        time.Time
	Mapper      string
	Header      persistence.Header
	Data        []byte
	// Value is what Data decodes to.
	Value any
}

// Decision is the result of a command.
type Decision struct {
	// Events has at least one event: also a refusal and a command that changes nothing record one.
	Events []Event
	// Refused says that the command was refused; too many of these in a second are turned away.
	Refused bool
	// Frees says that the command lets the state forget something earlier. Such commands are executed also where the
	// state is too large for the store; no aggregate may accept an unbounded number of them in a row.
	Frees bool
}
