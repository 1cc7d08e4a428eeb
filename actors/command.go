package actors

import (
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Command is one command to an aggregate.
type Command struct {
	// ID is the client's id of the command, 1 to 64 bytes, unique within the aggregate.
	ID string
	// Fingerprint is a hash of all client fields: an ID that comes again with another one is an error. Its lowest bit
	// is not compared; records have Stamped there.
	Fingerprint uint64
	// IssuedAt is the client's issue time, or the arrival at the gateway.
	IssuedAt time.Time
	// Stamped says that the gateway set IssuedAt, because the client did not. No clock decides whether such a command
	// is too old, and if it is, the gateway sends it again with a later time: see StampError.
	Stamped bool
	// ValidateOnly asks what the result of the command would be, and records nothing.
	ValidateOnly bool
	// Principal gives the command, and Reason is what it states; they are recorded with each event. Empty: callers have
	// no identity here, or state no reason. At most persistence.MaxNameLen bytes each.
	Principal, Reason string
	// Payload is the domain's command, passed to Aggregate.Decide.
	Payload any
}

// stored returns the fingerprint as records have it.
func (c *Command) stored() uint64 {
	if c.Stamped && !planted.Bug(planted.ForgetStamp) {
		return c.Fingerprint | 1
	}
	return c.Fingerprint &^ 1
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
