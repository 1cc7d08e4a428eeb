package actors

import (
	"context"
	"time"

	"licensed/persistence"
)

// Authority tells for which aggregates this process may speak. Safe for concurrent use; Holds is on
// the path of every reply and must be cheap.
type Authority interface {
	// Epoch returns the epoch under which this process holds the shard of the aggregate, or false.
	Epoch(aggregate string) (epoch uint64, ok bool)
	// Holds says whether that is so at this very moment, by the clock itself ([R9]).
	Holds(aggregate string, epoch uint64) bool
	// Incarnation of this process.
	Incarnation() persistence.Incarnation
}

// Config of a runtime. DefaultConfig gives sensible values.
type Config struct {
	SnapshotEvery int           // placeholder
	IdleAfter     time.Duration // placeholder
}

// Runtime keeps the aggregates of one kind in memory, each an actor.
type Runtime struct{}

// Execute runs a command on the aggregate of that id ("Bayley", without the kind) and returns its first outcome. Errors are those of
// this package; when ctx ends first, its error: the outcome is then unknown.
func (r *Runtime) Execute(ctx context.Context, id string, c Command) (Reply, error) {
	panic("unwritten")
}

// Query asks the aggregate of that id. The answer is linearizable: it reflects every command acknowledged before the call.
func (r *Runtime) Query(ctx context.Context, id string, query any) (Answer, error) {
	panic("unwritten")
}
