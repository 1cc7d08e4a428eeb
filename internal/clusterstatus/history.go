package clusterstatus

import (
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// History remembers, over several readings of one reporter, when each finding began. The
// zero value has seen nothing. It is safe for concurrent use. A reading calls Recall
// before Assess and Record after it.
type History struct {
	mu sync.Mutex
	// When each finding, each move and each silence of the last reading began.
	findings map[finding]time.Time
	moving   map[uint32]Moving
	silent   map[string]time.Time
}

// finding is what makes two findings of two readings the same: not the text, in which
// numbers change.
type finding struct {
	kind licensedv1.FindingKind
	node string
	text string // of findings without a kind
}

// Recall completes the input of a reading with what former ones showed: since when members do not answer, and
// since when shards are in flight.
func (h *History) Recall(in *Input) {
	h.mu.Lock()
	defer h.mu.Unlock()
	silent := make(map[string]time.Time)
	for i := range in.Answers {
		o := &in.Answers[i]
		if o.Self != nil {
			continue
		}
		since, known := h.silent[o.Listed.GetName()]
		if !known {
			since = in.Now
		}
		silent[o.Listed.GetName()], o.SilentSince = since, since
	}
	for i := range in.Departed { // It was silent before it was no longer listed.
		d := &in.Departed[i]
		if since, known := h.silent[d.Last.GetName()]; known && since.Before(d.At) {
			silent[d.Last.GetName()], d.At = since, since
		}
	}
	h.silent, in.Moving = silent, maps.Clone(h.moving)
}

// Record remembers what a reading shows, and dates its findings: those that were present before have the time at
// which they were first seen.
func (h *History) Record(s *licensedv1.ClusterStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := s.AsOf.AsTime()
	moving := make(map[uint32]Moving)
	for _, shard := range s.ShardMap {
		if shard.State == licensedv1.ShardState_SHARD_STATE_OPEN {
			continue
		}
		was, known := h.moving[shard.Id]
		if !known || was.Epoch != shard.Epoch {
			was = Moving{shard.Epoch, now}
		}
		moving[shard.Id] = was
	}
	findings := make(map[finding]time.Time)
	for _, w := range s.Warnings {
		f := finding{kind: w.Kind, node: w.Node}
		if w.Kind == licensedv1.FindingKind_FINDING_KIND_UNSPECIFIED {
			f.text = w.Text
		}
		since, known := h.findings[f]
		if !known {
			since = now
		}
		if findings[f] = since; w.Since == nil {
			w.Since = timestamppb.New(since)
		}
	}
	h.moving, h.findings = moving, findings
}
