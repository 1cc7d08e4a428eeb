package status

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"licensed/persistence"
)

// Times of a ShardWatch.
const (
	// WatchEvery is the interval between looks. Shards are unserved for two looks before it is reported: news of a
	// shard may come before those of its owner.
	WatchEvery = time.Second
	// sayEvery is the shortest time between two lines about unserved shards.
	sayEvery = 10 * time.Second
	// firstShards is the time that a process has to learn the owners of the shards, or that a new cluster has to
	// claim them.
	firstShards = 5 * time.Second
)

// ShardWatch logs when shards become unserved and when they are served again, by what this process knows of ownership
// and members: also a gateway whose nodes are all dead. It logs how many, not each of them.
type ShardWatch struct {
	log    *slog.Logger
	began  time.Time
	served bool      // all shards were, once
	since  time.Time // of the first look with unserved shards; zero: there are none
	said   time.Time // when a line was last written about unserved shards
	told   int       // unserved shards in it; 0: those of now were not told of
}

// Look compares the number of unserved shards with the one before, and logs a change for
// the worse at most every sayEvery, and the return to none. It is called every WatchEvery
// by one goroutine. reason names the owners.
func (w *ShardWatch) Look(now time.Time, total, unserved int, reason string) {
	switch {
	case unserved == 0:
		// Told only if the loss was: a short one is no line in the log.
		if w.told > 0 {
			w.log.Info("shards served", "shards", total,
				"unserved_for", now.Sub(w.since).Round(time.Millisecond).String())
		}
		w.served, w.since, w.told = true, time.Time{}, 0
		return
	// A cluster that starts has no shards held yet.
	case !w.served && now.Sub(w.began) < firstShards:
		return
	case w.since.IsZero():
		w.since = now
		return
	case w.told >= unserved || now.Sub(w.said) < sayEvery && !w.said.IsZero():
		return
	}
	w.said, w.told = now, unserved
	w.log.Warn("shards unserved", "count", unserved, "shards", total, "since", w.since.UTC().Format(time.RFC3339),
		"reason", reason)
}

// NewShardWatch returns a watch of a process that starts now.
func NewShardWatch(log *slog.Logger) *ShardWatch { return &ShardWatch{log: log, began: time.Now()} }

// LostReason names the last owners of unserved shards.
func (m *Members) LostReason(lost map[persistence.Incarnation]int) string {
	byName := make(map[string]int)
	for owner, shards := range lost {
		byName[m.NameOf(owner)] += shards
	}
	names := slices.Sorted(maps.Keys(byName))
	var parts []string
	for _, name := range names[:min(len(names), 5)] {
		if name == "" {
			parts = append(parts, fmt.Sprintf("no owner (%d)", byName[name]))
			continue
		}
		parts = append(parts, fmt.Sprintf("%s not responding (%d)", name, byName[name]))
	}
	if more := len(names) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more owners", more))
	}
	return strings.Join(parts, ", ")
}
