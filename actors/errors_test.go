package actors_test

import (
	"errors"
	"testing"
	"time"

	"licensed/actors"
)

// TestRestamp: a command gets the stamps that its owner asks for, and is given up without an answer if they do not end.
func TestRestamp(t *testing.T) {
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, refused := range []int{0, 1, 3, 1000} {
		c, attempts := actors.Command{ID: "c1", IssuedAt: noon, Stamped: true}, 0
		reply, err := actors.Restamp(&c, func(c actors.Command) (actors.Reply, error) {
			if want := noon.Add(time.Duration(attempts) * time.Second); !c.IssuedAt.Equal(want) {
				t.Errorf("attempt %d has stamp %v, want %v", attempts, c.IssuedAt, want)
			}
			if attempts++; attempts > refused {
				return actors.Reply{Sequence: 7}, nil
			}
			return actors.Reply{}, &actors.StampError{At: noon.Add(time.Duration(attempts) * time.Second)}
		})
		switch {
		case refused == 1000:
			if !errors.Is(err, actors.ErrUnavailable) || errors.Is(err, actors.ErrTooOld) || attempts > 10 {
				t.Errorf("%v after %d attempts, want %v", err, attempts, actors.ErrUnavailable)
			}
		case err != nil || reply.Sequence != 7 || attempts != refused+1:
			t.Errorf("%d stamps are refused: %v, %v after %d attempts", refused, reply, err, attempts)
		}
	}
	c := actors.Command{ID: "c1", IssuedAt: noon}
	_, err := actors.Restamp(&c, func(actors.Command) (actors.Reply, error) { return actors.Reply{}, actors.ErrTooOld })
	if !errors.Is(err, actors.ErrTooOld) {
		t.Errorf("%v, want %v", err, actors.ErrTooOld)
	}
}
