package persistence

import (
	"fmt"
	"time"
)

// Tier is where an event is kept.
type Tier uint8

// The tiers. TierBoth is for selecting.
const (
	TierBoth Tier = iota
	TierHot
	TierArchive
)

// String returns "hot", "archive" or "both".
func (t Tier) String() string { return [...]string{"both", "hot", "archive"}[t] }

// HistoryRange selects a part of a history.
type HistoryRange struct {
	// After < sequence ≤ Through; Through 0 means up to the head.
	After, Through uint64
	// Newest first, instead of oldest.
	Newest bool
	// Tier leaves out the events of the other tier.
	Tier Tier
}

// HistoryItem is an event of a history, or a gap in it.
type HistoryItem struct {
	Record Record
	// Partition that the record is in; of a gap, that it should be in, zero if that is not known.
	Partition Partition
	// Tier that the record was read from.
	Tier Tier
	// Gap, if not nil, says that there are events that cannot be read; Record and Tier are then not set.
	Gap *HistoryGap
}

// HistoryGap is a part of a history that cannot be read: After < sequence ≤ Through.
type HistoryGap struct {
	After, Through uint64
	// Expired is when the archive dropped the events by its retention; zero if that is not why.
	Expired time.Time
	// Err is why, otherwise. It wraps ErrCorrupt or ErrUnavailable.
	Err error
}

// Error makes a gap an error, for callers that need the whole history.
func (g *HistoryGap) Error() string {
	if !g.Expired.IsZero() {
		return fmt.Sprintf("events %d to %d expired before %s", g.After+1, g.Through, g.Expired.Format(time.DateOnly))
	}
	return fmt.Sprintf("events %d to %d cannot be read: %v", g.After+1, g.Through, g.Err)
}

// Unwrap returns Err.
func (g *HistoryGap) Unwrap() error { return g.Err }
