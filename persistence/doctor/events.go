package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/tiered"
)

// events reads the history forward and compares it with its snapshots. Below a broken
// chain nothing is read; the replay then begins at the first snapshot above it.
func (x *examination) events(ctx context.Context) error {
	r := &reading{
		examination: x, ctx: ctx, orders: map[string]uint64{}, replay: x.NewReplay(x.head.Partition.Aggregate),
	}
	// x.broken is the sequence up to which the chain is broken; 0 if it reaches the first
	// root.
	if r.at = x.broken; x.broken > 0 {
		r.replay, r.gaps = nil, true
	}
	if err := r.passRoots(); err != nil {
		return err
	}
	reader := tiered.NewReader(x.Hot, x.Cold, x.Now)
	err := reader.Read(ctx, x.head, persistence.HistoryRange{After: x.broken}, func(i *persistence.HistoryItem) error {
		if i.Gap != nil {
			return r.gap(i)
		}
		return r.event(i)
	})
	if errors.Is(err, persistence.ErrCorrupt) {
		// The reader needs the page of roots that could not be read; that is a finding already.
		x.find(Finding{
			Severity: Error, Check: "records", From: r.at + 1, To: x.head.Sequence,
			Message: fmt.Sprintf("cannot be read: %v", err),
		})
		return nil
	}
	if err != nil {
		return err
	}
	return r.compareLive()
}

// reading is the way through the events.
type reading struct {
	*examination
	ctx  context.Context //nolint:containedctx // of one call of Examine, passed to its callbacks
	at   uint64          // the last event read, or in a gap
	next int             // links passed
	// The time of the event before; none is earlier.
	time   time.Time
	orders map[string]uint64 // the next order of each aggregate id
	// The command in progress: how many of its events came, of how many.
	command      string
	index, count uint32
	replay       Replay // nil after a gap, until there is a snapshot
	// Some events could not be read, so that nothing can be expected of what precedes a
	// record.
	gaps bool
}

// gap records that events cannot be read.
func (r *reading) gap(i *persistence.HistoryItem) error {
	g := i.Gap
	f := Finding{Severity: Error, Check: "records", From: g.After + 1, To: g.Through, Message: g.Error()}
	switch {
	case !g.Expired.IsZero():
		f.Severity = Note
	case errors.Is(g.Err, persistence.ErrUnavailable):
		f.Message += "; they may be whole: examine again when the archive is available"
	default:
		f.Message += "; restore them from a backup"
	}
	r.find(f)
	// Records that cannot be read must not be deleted in the hot tier: trimmed goes by
	// unread.
	for n := range r.links {
		if l := &r.links[n]; l.base < g.Through && l.through > g.After {
			l.unread = true
		}
	}
	// What follows a gap is judged anew: the command, the order numbers and the state are
	// unknown.
	r.replay, r.gaps, r.at = nil, true, g.Through
	r.command, r.index, r.count = "", 0, 0
	clear(r.orders)
	for r.next < len(r.links) && r.links[r.next].base < g.Through {
		r.next++
	}
	return r.passRoots()
}

// event processes the next event.
func (r *reading) event(i *persistence.HistoryItem) error {
	rec := &i.Record
	r.report.Events++
	if i.Tier == persistence.TierArchive {
		r.report.Archived++
	}
	r.at = rec.Sequence
	for _, problem := range r.problems(rec) {
		r.find(Finding{Severity: Error, Check: "records", From: rec.Sequence, To: rec.Sequence, Message: fmt.Sprintf(
			"event %d (%s, %s) %s", rec.Sequence, rec.Mapper, i.Partition.RootKey, problem)})
	}
	if r.replay != nil {
		if err := r.replay.Apply(rec); err != nil {
			r.find(Finding{Severity: Error, Check: "data", From: rec.Sequence, To: rec.Sequence, Message: fmt.Sprintf(
				"%v; written by a newer release, or damaged before it was stored", err)})
			r.replay, r.gaps = nil, true
		}
	}
	// A message of progress costs more than an event does.
	if r.progress != nil && r.report.Events%5000 == 0 {
		if err := r.progress(rec.Sequence); err != nil {
			return err
		}
	}
	return r.passRoots()
}

// problems returns what is wrong with a record in its place, and makes it the one that
// the next is compared with.
func (r *reading) problems(rec *persistence.Record) (out []string) {
	if r.index < r.count {
		if rec.Index != r.index || rec.Count != r.count || rec.CommandID != r.command {
			out = append(out, fmt.Sprintf("is event %d of %d of command %s, where event %d of %d of command %s belongs",
				rec.Index+1, rec.Count, rec.CommandID, r.index+1, r.count, r.command))
		}
	} else if rec.Index != 0 && (r.command != "" || !r.gaps) {
		out = append(out, fmt.Sprintf("is event %d of its command, whose first ones are missing", rec.Index+1))
	}
	// Taken as it is, also when it is wrong, so that one wrong record is one finding.
	r.command, r.index, r.count = rec.CommandID, rec.Index+1, rec.Count
	if rec.Time.Before(r.time) {
		out = append(out, fmt.Sprintf("is of %s, before the event before it", rec.Time.Format(time.RFC3339Nano)))
	}
	r.time = rec.Time
	// A domain that forgets an aggregate id counts its events anew.
	if next, ok := r.orders[rec.AggregateID]; rec.Order != next && rec.Order != 0 && (ok || !r.gaps) {
		out = append(out, fmt.Sprintf("has order number %d of %s, where %d belongs", rec.Order, rec.AggregateID, next))
	}
	r.orders[rec.AggregateID] = rec.Order + 1
	return out
}

// passRoots compares the roots whose base is the last event read, in the order of the
// chain. Those with a base within a gap are passed over.
func (r *reading) passRoots() error {
	for r.next < len(r.links) && r.links[r.next].base <= r.at {
		l := &r.links[r.next]
		r.next++
		if l.base < r.at {
			continue
		}
		if err := r.compare(l); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a root with the replay, or starts the replay there if events before it are missing.
func (r *reading) compare(l *link) error {
	root, err := r.snapshot(l)
	if err != nil || root == nil {
		return err
	}
	if root.Damage != nil {
		effect := "the state is rebuilt from the events when the customer is loaded next, if they are whole"
		if slices.ContainsFunc(r.links[r.next:], func(later link) bool { return !later.damaged && !later.bare }) {
			effect = "nothing is recovered from it any more, a later root is whole"
		}
		r.find(Finding{Severity: Warning, Check: "snapshots", Message: fmt.Sprintf("%v; %s", root.Damage, effect)})
	}
	if root.IsBare() && l.key == r.head.Partition.RootKey {
		r.find(Finding{Severity: Note, Check: "snapshots", Message: fmt.Sprintf(
			"root %s has no snapshot: the customer's state is too large for the store; "+
				"it is built from an older root and the events", l.key)})
	}
	switch {
	// There is nothing to compare; the replay notes the root that it passed.
	case root.Stripped, root.Damage != nil, root.IsBare():
		if r.replay != nil {
			r.replay.Pass(root)
		}
	case r.replay == nil:
		replay := r.NewReplay(r.head.Partition.Aggregate)
		if err := replay.Restore(root); err != nil {
			r.find(Finding{Severity: Error, Check: "snapshots", Message: fmt.Sprintf("root %s: %v", l.key, err)})
			return nil
		}
		r.replay, r.report.ReplayedFrom = replay, l.base
	default:
		if err := r.replay.Check(root); err != nil {
			// The replay continues with the snapshot, as the owner did: what follows is
			// judged by the state that decisions were made on.
			r.find(Finding{Severity: Error, Check: "snapshots", From: l.base, To: l.base, Message: fmt.Sprintf(
				"root %s: %v; decisions since may have been made on a wrong state", l.key, err)})
			return r.follow(root)
		}
		r.report.Snapshots++
	}
	return nil
}

// follow continues from a snapshot that differs: what is live came from it, and differences are named once.
func (r *reading) follow(root *persistence.Root) error {
	if err := r.replay.Restore(root); err != nil {
		r.replay = nil
	}
	return nil
}

// snapshot reads a root again, with its snapshot; nil if it cannot be read, which is a
// finding then, and ends the replay. Errors: those of a tier that does not answer.
func (r *reading) snapshot(l *link) (*persistence.Root, error) {
	root, err := r.Hot.ReadRoot(r.ctx, l.key)
	if err == nil && root.Stripped && root.SnapshotAt != "" && r.Cold != nil {
		var data []byte
		data, err = r.Cold.ReadSegment(r.ctx, root.SnapshotAt)
		// Only the head's root is needed to recover: of the others a snapshot may be
		// deleted at any moment.
		if errors.Is(err, persistence.ErrNotFound) && l.key != r.head.Partition.RootKey {
			return &root, nil // The archiver deletes it now or was interrupted: the customer was woken.
		}
		if err == nil {
			root, err = archive.DecodeSnapshot(data)
		}
		if err == nil && (root.Key != l.key || root.Incarnation != l.incarnation || root.Base != l.base) {
			err = fmt.Errorf("segment %s is that of %s: %w", root.SnapshotAt, root.Key, persistence.ErrCorrupt)
		}
	}
	if errors.Is(err, persistence.ErrNotFound) || errors.Is(err, persistence.ErrCorrupt) {
		r.find(
			Finding{Severity: Error, Check: "snapshots", Message: fmt.Sprintf("snapshot of root %s: %v", l.key, err)},
		)
		r.replay, r.gaps = nil, true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot of root %s: %w", l.key, err)
	}
	return &root, nil
}

// compareLive compares what is in memory with the replay.
func (r *reading) compareLive() error {
	if r.index < r.count {
		r.find(Finding{Severity: Error, Check: "records", From: r.at, To: r.at, Message: fmt.Sprintf(
			"command %s ends after %d of %d events", r.command, r.index, r.count)})
	}
	// Without a live state, or after a gap, there is nothing to compare with.
	if r.live == nil || len(r.links) == 0 || r.replay == nil || r.at != r.head.Sequence {
		return nil
	}
	root, err := r.Hot.ReadRoot(r.ctx, r.links[len(r.links)-1].key)
	if err != nil {
		return fmt.Errorf("the head's root: %w", err)
	}
	r.report.Live = true
	if err := r.live(r.replay, &root); err != nil {
		r.find(Finding{Severity: Error, Check: "live state", Message: fmt.Sprintf(
			"%v; passivate the customer, so that the state is built from its history again", err)})
	}
	return nil
}
