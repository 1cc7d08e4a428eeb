package actors

import (
	"time"

	"licensed/persistence"
)

// Command is one command to an aggregate.
type Command struct {
	// ID is the client's id of the command, 1 to 64 bytes, unique within the aggregate.
	ID string
	// Fingerprint is a hash of all client fields: an ID that comes again with another one is an error.
	Fingerprint uint64
	// IssuedAt is the client's issue time, or the arrival at the gateway.
	IssuedAt time.Time
	// ValidateOnly asks what the command would come to, and records nothing.
	ValidateOnly bool
	// Payload is the domain's command, passed to Aggregate.Decide.
	Payload any
}

// Reply is the answer to a command.
type Reply struct {
	// Outcome is what Kind.Outcome made of the command's events. It must not be changed.
	Outcome []byte
	// Sequence of the command's last event; 0 if it was only validated.
	Sequence uint64
	// Time of the command's events (of its execution, not of the repeat).
	Time time.Time
	// Duplicate says that the command was executed by an earlier request.
	Duplicate bool
}

// Answer is the answer to a query.
type Answer struct {
	Value any
	// Head is where the aggregate's history ended when the query was answered; zero if nothing ever happened to it.
	Head persistence.Head
}

// Head is persistence.Head.
type Head = persistence.Head
