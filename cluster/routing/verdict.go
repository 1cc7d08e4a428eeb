package routing

import (
	"errors"
	"fmt"

	"licensed/actors"
	"licensed/cluster/transport"
)

// verdict says what an error of an attempt means for the request.
type verdict uint8

const (
	final   verdict = iota // it is the answer
	again                  // certainly not executed, and somebody else or a later time may do better
	unknown                // it may have been executed
)

// errNobody is that no member is known to ask.
var errNobody = fmt.Errorf("%w: no member of the cluster is known that could own it", actors.ErrNotOwner)

// judge says what is to be done about an error. What is unknown comes first: errors may match two.
func judge(err error) verdict {
	switch {
	case errors.Is(err, actors.ErrUnknownOutcome):
		return unknown
	case errors.Is(err, actors.ErrNotOwner), errors.Is(err, transport.ErrNotSent):
		return again
	}
	return final
}

// certain reports whether an error of a repeat tells what became of all attempts: the id belongs to
// another command, or the command is older than every remembered one.
func certain(err error) bool {
	return errors.Is(err, actors.ErrIDReused) || errors.Is(err, actors.ErrTooOld)
}
