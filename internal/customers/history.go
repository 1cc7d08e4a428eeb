package customers

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/gateway"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/tiered"
)

// History reads histories for the gateway, from the store and the archive. It implements gateway.History and
// gateway.HistoryReader.
type History struct {
	*tiered.Reader
	Kind actors.Kind
}

var tiers = map[licensedv1.Tier]tiered.Tier{
	licensedv1.Tier_TIER_HOT: tiered.TierHot, licensedv1.Tier_TIER_ARCHIVE: tiered.TierArchive,
}

// Read implements gateway.HistoryReader.
func (h *History) Read(
	ctx context.Context, head persistence.Head, r gateway.HistoryRange, yield func(*gateway.HistoryItem) error,
) error {
	rng := tiered.Range{After: r.After, Through: r.Through, Newest: r.Newest, Tier: tiers[r.Tier]}
	var out gateway.HistoryItem // used for one item after the other: a history has many
	return h.Reader.Read(ctx, head, rng, func(i *tiered.Item) error {
		out = gateway.HistoryItem{Record: i.Record, Partition: i.Partition, Tier: licensedv1.Tier_TIER_HOT}
		switch {
		case i.Gap != nil:
			out.Gap = gapOf(i)
		case i.Tier == tiered.TierArchive:
			out.Tier = licensedv1.Tier_TIER_ARCHIVE
		}
		return yield(&out)
	})
}

// gapOf returns a gap in the API's words.
func gapOf(i *tiered.Item) *licensedv1.HistoryGap {
	g := &licensedv1.HistoryGap{
		FromSequence: i.Gap.After + 1,
		ToSequence:   i.Gap.Through,
		Message:      i.Gap.Error(),
		Reason:       licensedv1.GapReason_GAP_REASON_CORRUPT,
	}
	if !i.Partition.IsZero() {
		g.RowId = i.Partition.RowID()
	}
	switch {
	case !i.Gap.Expired.IsZero():
		g.Reason, g.ExpiredBefore = licensedv1.GapReason_GAP_REASON_EXPIRED, timestamppb.New(i.Gap.Expired)
	case errors.Is(i.Gap.Err, persistence.ErrUnavailable):
		g.Reason = licensedv1.GapReason_GAP_REASON_UNAVAILABLE
	}
	return g
}

// errEnough ends a reading whose reader has enough.
var errEnough = errors.New("enough")

// Events implements gateway.History.
func (h *History) Events(ctx context.Context, head persistence.Head) iter.Seq2[actors.Event, error] {
	return func(yield func(actors.Event, error) bool) {
		err := h.ReadAll(ctx, head, tiered.Range{}, func(r *persistence.Record) error {
			value, err := h.Kind.DecodeEvent(r.Mapper, r.Header, r.Data)
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
