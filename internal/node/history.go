package node

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/tiered"
)

// history reads the events of customers from the store. It implements gateway.History.
type history struct {
	reader *tiered.Reader
	kind   actors.Kind
}

// errEnough ends a reading whose reader has enough.
var errEnough = errors.New("enough")

// Events implements gateway.History.
func (h *history) Events(ctx context.Context, head persistence.Head) iter.Seq2[actors.Event, error] {
	return func(yield func(actors.Event, error) bool) {
		err := h.reader.ReadAll(ctx, head, tiered.Range{}, func(r *persistence.Record) error {
			value, err := h.kind.DecodeEvent(r.Mapper, r.Header, r.Data)
			if err != nil {
				return fmt.Errorf("%s record %d: %w", head.Partition.Aggregate, r.Sequence, err)
			}
			if !yield(actors.Event{
				AggregateID: r.AggregateID, Order: r.Order, Time: r.Time,
				Mapper: r.Mapper, Header: r.Header, Data: r.Data, Value: value,
			}, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(actors.Event{}, err)
		}
	}
}
