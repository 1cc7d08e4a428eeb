package cassandra

import (
	"context"
	"fmt"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// All votes are one partition, since a node reads all of them at once, and there are few:
// one for each pair of a node and a process that cannot reach it. A vote that is not
// renewed expires after two minutes. Readers do not rely on it: see persistence.Vote.
const (
	insertVote  = `INSERT INTO votes (id, accused, voter, name, beat) VALUES ('votes', ?, ?, ?, ?) USING TTL 120`
	deleteVote  = `DELETE FROM votes WHERE id = 'votes' AND accused = ? AND voter = ?`
	selectVotes = `SELECT accused, voter, name, beat FROM votes WHERE id = 'votes'`
)

// PutVote implements persistence.Votes.
func (s *Store) PutVote(ctx context.Context, v persistence.Vote) error {
	err := v.Validate()
	if err == nil {
		err = s.housekeep(ctx,
			s.session.Query(insertVote, gocql.UUID(v.Accused), gocql.UUID(v.Voter), v.Name, int64(v.Beat)))
	}
	if err != nil {
		return fmt.Errorf("vote against %v: %w", v.Accused, err)
	}
	return nil
}

// WithdrawVote implements persistence.Votes.
func (s *Store) WithdrawVote(ctx context.Context, accused, voter persistence.Incarnation) error {
	if err := s.housekeep(ctx, s.session.Query(deleteVote, gocql.UUID(accused), gocql.UUID(voter))); err != nil {
		return fmt.Errorf("withdraw vote against %v: %w", accused, err)
	}
	return nil
}

// Votes implements persistence.Votes.
func (s *Store) Votes(ctx context.Context) ([]persistence.Vote, error) {
	var votes []persistence.Vote
	if err := s.plainRead(collect(&votes, voteRow.scan), s.session.read(ctx, selectVotes)); err != nil {
		return nil, fmt.Errorf("votes: %w", err)
	}
	return votes, nil
}
