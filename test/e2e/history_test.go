package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"licensed/persistence"
	"licensed/persistence/tiered"
)

// executed is what the history has of one command.
type executed struct {
	times int    // how often it was executed
	last  uint64 // sequence of its last event
}

// compareWithHistory reads the store of daemons that were stopped and compares it with what clients were told.
func (l *load) compareWithHistory(t *testing.T, store persistence.Store) {
	t.Helper()
	found := make(map[string]map[string]*executed)
	err := eachAggregate(t.Context(), store, func(aggregate, customer string) error {
		commands, err := readCommands(t.Context(), store, aggregate)
		found[customer] = commands
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range l.commands {
		e := found[c.customer][c.id]
		switch {
		case e == nil:
			t.Errorf("%s of %s was answered %v and is not in the history", c.id, c.customer, c.first.message)
		case e.times != 1 || e.last != c.first.sequence:
			t.Errorf("%s of %s is in the history %d times, last at %d, and was answered %d",
				c.id, c.customer, e.times, e.last, c.first.sequence)
		}
		delete(found[c.customer], c.id)
	}
	for customer, commands := range found {
		for id := range commands {
			t.Errorf("%s of %s is in the history and was never sent", id, customer)
		}
	}
}

func eachAggregate(ctx context.Context, j persistence.Journal, f func(aggregate, customer string) error) error {
	const page = 100
	for after := ""; ; {
		ids, err := j.Aggregates(ctx, after, page)
		if err != nil {
			return err
		}
		for _, id := range ids {
			customer, _, _ := strings.Cut(id, ":")
			if err := f(id, customer); err != nil {
				return err
			}
			after = id
		}
		if len(ids) < page {
			return nil
		}
	}
}

// readCommands returns the commands in the history of an aggregate, which must be dense.
func readCommands(ctx context.Context, j persistence.Journal, aggregate string) (map[string]*executed, error) {
	root, err := j.TopRoot(ctx, aggregate)
	if err != nil {
		return nil, fmt.Errorf("top root of %s: %w", aggregate, err)
	}
	head := persistence.Head{
		Partition: root.Partition(), Base: root.Base,
		Parent: root.Parent, ParentIncarnation: root.ParentIncarnation, Sequence: root.Base,
	}
	tail, err := j.ReadRecords(ctx, root.Partition(), root.Base, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("records of %s: %w", aggregate, err)
	}
	if len(tail) > 0 {
		head.Sequence = tail[len(tail)-1].Sequence
	}
	commands := make(map[string]*executed)
	var sequence uint64
	err = tiered.NewReader(j, nil, nil).ReadAll(ctx, head, persistence.HistoryRange{},
		func(r *persistence.Record) error {
			if sequence++; r.Sequence != sequence {
				return errors.New("the history has a gap")
			}
			e := commands[r.CommandID]
			if e == nil {
				e = new(executed)
				commands[r.CommandID] = e
			}
			if r.Index == 0 {
				e.times++
			}
			e.last = r.Sequence
			return nil
		})
	if err == nil && sequence != head.Sequence {
		err = errors.New("the history ends early")
	}
	return commands, err
}
