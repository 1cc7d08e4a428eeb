package actorstest

import (
	"context"

	"licensed/persistence"
)

// Discard is a journal that keeps nothing and is done at once: what is measured on it is the runtime.
type Discard struct{}

var _ persistence.Journal = Discard{}

// TopRoot finds none.
func (Discard) TopRoot(context.Context, string) (persistence.Root, error) {
	return persistence.Root{}, persistence.ErrNotFound
}

// ReadRoot finds none.
func (Discard) ReadRoot(context.Context, persistence.RootKey) (persistence.Root, error) {
	return persistence.Root{}, persistence.ErrNotFound
}

// ReadRoots finds none.
func (Discard) ReadRoots(context.Context, string, persistence.RootKey, int) ([]persistence.Root, error) {
	return nil, nil
}

// ReadRecords finds none.
func (Discard) ReadRecords(context.Context, persistence.Partition, uint64, int) ([]persistence.Record, error) {
	return nil, nil
}

// PutRoot is done.
func (Discard) PutRoot(_ context.Context, _ *persistence.Root, done func(error)) { done(nil) }

// Append is done.
func (Discard) Append(_ context.Context, _ *persistence.Mutation, done func(error)) { done(nil) }

// MaxMutation is none.
func (Discard) MaxMutation() int { return 0 }

// Aggregates finds none.
func (Discard) Aggregates(context.Context, string, int) ([]string, error) { return nil, nil }
