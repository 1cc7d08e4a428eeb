package persistence

import (
	"context"
	"fmt"
)

// Vote says that a process of the cluster cannot reach a node that may own shards.
type Vote struct {
	// Accused is the incarnation of the node.
	Accused Incarnation
	// Voter identifies the run of the process that votes; a gateway has one, too.
	Voter Incarnation
	// Name of the voter as a member, for people.
	Name string
	// Beat rises with every renewal. Readers go by its changes and their own clocks: a vote whose beat stands still
	// has expired.
	Beat uint64
}

// Validate returns an error wrapping ErrRejected if no store takes the vote.
func (v *Vote) Validate() error {
	switch {
	case v.Accused.IsZero() || v.Voter.IsZero():
		return fmt.Errorf("%w: a vote needs an accused and a voter", ErrRejected)
	case v.Beat > 1<<62 || !validNames(v.Name):
		return fmt.Errorf("%w: a vote whose beat is above 2^62, or whose name is too long or not UTF-8", ErrRejected)
	}
	return nil
}

// Votes keeps who cannot reach whom: one row for each accused and voter. It is safe for concurrent use.
//
// Nothing that is safe depends on it: a vote that is lost, late or comes back costs a detour. Writes are plain. A read
// that begins after a write was acknowledged sees it. A store may lose a vote that was not renewed for a minute, or
// all votes when it is closed.
type Votes interface {
	// PutVote writes or renews a vote. Errors: ErrRejected, ErrUnknownOutcome.
	PutVote(ctx context.Context, v Vote) error
	// WithdrawVote deletes a vote if there is one. Errors: ErrUnknownOutcome.
	WithdrawVote(ctx context.Context, accused, voter Incarnation) error
	// Votes returns all votes, in no order. Errors: ErrUnavailable.
	Votes(ctx context.Context) ([]Vote, error)
}
