package persistencetest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
)

// History writes the history of one aggregate into a store as its owner would, for the tests of what
// is laid over stores.
type History struct {
	// Records of the whole history, as they were written.
	Records []persistence.Record

	t     testing.TB
	store persistence.Journal
	// Everything random comes from here, so that a failure repeats.
	rng *rand.Rand
	// The owner's view of the end; Sequence is that of the last event written.
	head  persistence.Head
	now   time.Time
	order map[string]uint64
}

// NewHistory returns the history of an aggregate that has none yet. Roll makes its first root.
func NewHistory(t testing.TB, store persistence.Journal, aggregate string) *History {
	h := &History{t: t, store: store, rng: rand.New(rand.NewPCG(1, 1)), now: someTime, order: map[string]uint64{}}
	h.head.Partition = persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: aggregate},
		Incarnation: incarnationA,
	}
	return h
}

// Wait lets time pass.
func (h *History) Wait(d time.Duration) *History {
	h.now = h.now.Add(d)
	return h
}

// Roll closes the partition with a new root, under the next epoch if takeover is set.
func (h *History) Roll(takeover bool) *History { return h.roll(takeover, false) }

// RollBare closes the partition with a new root that has no snapshot (persistence.Root.IsBare).
func (h *History) RollBare() *History { return h.roll(false, true) }

func (h *History) roll(takeover, bare bool) *History {
	h.t.Helper()
	former := h.head.Partition
	key := former.RootKey
	key.Version++
	if takeover || key.Epoch == 0 {
		key.Epoch++
	}
	next := persistence.Head{
		Partition: persistence.Partition{RootKey: key, Incarnation: persistence.Incarnation{byte(key.Epoch)}},
	}
	next.Bare, next.Base, next.Sequence = bare, h.head.Sequence, h.head.Sequence
	if former.Version > 0 {
		next.Parent, next.ParentIncarnation = former.RootKey, former.Incarnation
	}
	h.head = next
	root := persistence.Root{
		Key: key, Incarnation: next.Partition.Incarnation, Base: next.Base, Parent: next.Parent,
		ParentIncarnation: next.ParentIncarnation, Time: h.now, Mapper: "TestSnapshot/1",
		Snapshot: fmt.Appendf(nil, "state at %d", next.Base),
	}
	if bare {
		root.Mapper, root.Snapshot = "", []byte{1}
	}
	h.write(func(ctx context.Context, done func(error)) { h.store.PutRoot(ctx, &root, done) })
	return h
}

// Append appends this many events, in commands of one to three events.
func (h *History) Append(events int) *History {
	h.t.Helper()
	for events > 0 {
		n := min(events, 1+h.rng.IntN(3))
		h.command(n)
		events -= n
	}
	return h
}

// Stray appends events past the end that no root will ever continue, as a fenced writer does. Only
// before Roll.
func (h *History) Stray(events int) *History {
	h.t.Helper()
	head, records, order := h.head, len(h.Records), maps.Clone(h.order)
	h.Append(events)
	h.head, h.Records, h.order = head, h.Records[:records], order
	return h
}

// command appends one command of n events at a later time.
func (h *History) command(n int) {
	h.t.Helper()
	h.now = h.now.Add(time.Duration(1+h.rng.IntN(100_000)) * time.Millisecond)
	id := uuid.UUID{}
	for i := range id {
		id[i] = byte(h.rng.Uint32())
	}
	var records []persistence.Record
	for i := range n {
		h.head.Sequence++
		title := fmt.Sprintf("iphone/GlowS01E%02d", h.rng.IntN(10))
		r := persistence.Record{
			Sequence: h.head.Sequence, Index: uint32(i), Count: uint32(n), CommandID: id.String(), AggregateID: title,
			Order: h.order[title], Time: h.now, Mapper: []string{"Acquired/1", "Renewed/1"}[h.rng.IntN(2)],
			Header: persistence.Header{PolicyVersion: "p1"}, Data: fmt.Appendf(nil, "%s until %d", title, h.now.Unix()),
		}
		if i == 0 {
			r.Fingerprint, r.IssuedAt = h.rng.Uint64(), h.now.Add(-time.Duration(h.rng.IntN(50))*time.Millisecond)
		}
		h.order[title]++
		records = append(records, r)
	}
	h.Records = append(h.Records, records...)
	h.write(func(ctx context.Context, done func(error)) {
		h.store.Append(ctx, &persistence.Mutation{Partition: h.head.Partition, Records: records}, done)
	})
}

// write waits for a write that the end of the test does not cut off: owners in the background write, too, until
// the cleanups of the test have stopped them.
func (h *History) write(start func(context.Context, func(error))) {
	h.t.Helper()
	outcome := make(chan error, 1)
	start(context.WithoutCancel(h.t.Context()), func(err error) { outcome <- err })
	if err := <-outcome; err != nil {
		h.t.Fatal(err)
	}
}

// Head returns the end of the history.
func (h *History) Head() persistence.Head { return h.head }

// Now returns the time that the history has reached.
func (h *History) Now() time.Time { return h.now }
