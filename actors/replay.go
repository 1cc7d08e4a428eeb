package actors

import (
	"bytes"
	"fmt"
	"time"

	"licensed/persistence"
)

// Replay follows the history of one aggregate outside of any runtime: for questions about the past, and
// to check that what roots and memory hold is the replay of the events. It starts before the first event,
// or at a snapshot. It is not safe for concurrent use.
type Replay struct {
	kind     Kind
	id       string
	state    Aggregate
	commands []replayed // since the first event, or in the window of the snapshot
	horizon  horizon    // before the first of commands
	sequence uint64
	time     time.Time

	first  persistence.Record // of the command in progress
	events []Event
}

// replayed is a command, and the horizon of a window that has forgotten it and those before it.
type replayed struct {
	remembered
	horizon horizon
}

// NewReplay returns a replay of an aggregate (its id without the kind) before its first event.
func NewReplay(k Kind, id string) *Replay { return &Replay{kind: k, id: id, state: k.New(id)} }

// Sequence returns that of the last event applied.
func (r *Replay) Sequence() uint64 { return r.sequence }

// Time returns that of the last event applied; zero if there was none since the start or the snapshot.
func (r *Replay) Time() time.Time { return r.time }

// Aggregate returns the state after the last event applied. It belongs to the replay.
func (r *Replay) Aggregate() Aggregate { return r.state }

// Restore starts again at the root's snapshot. Errors: persistence.ErrCorrupt.
func (r *Replay) Restore(root *persistence.Root) error {
	return guardReplay(root.Key.String(), func() error {
		f, err := openFrame(root.Snapshot)
		if err != nil {
			return err
		}
		state, err := r.kind.Restore(r.id, Snapshot{Mapper: root.Mapper, Header: root.Header, Data: f.state})
		if err != nil {
			return err
		}
		// Everything else starts anew: the replay is as of the root's base.
		*r = Replay{kind: r.kind, id: r.id, state: state, horizon: f.window.horizon, sequence: root.Base}
		f.window.each(r.add)
		return nil
	})
}

// Apply applies the next event. Errors: persistence.ErrCorrupt; the replay is useless then.
func (r *Replay) Apply(rec *persistence.Record) error {
	return guardReplay(fmt.Sprintf("event %d", rec.Sequence), func() error {
		if rec.Sequence != r.sequence+1 {
			return fmt.Errorf("follows event %d: %w", r.sequence, persistence.ErrCorrupt)
		}
		v, err := r.kind.DecodeEvent(rec.Mapper, rec.Header, rec.Data)
		if err != nil {
			return err
		}
		if rec.Index == 0 {
			r.first, r.events = *rec, r.events[:0]
		}
		e := eventOf(rec, v)
		r.state.Evolve(e)
		r.events = append(r.events, e)
		r.sequence, r.time = rec.Sequence, rec.Time
		if rec.Index == rec.Count-1 && len(r.events) == int(rec.Count) {
			r.remember()
		}
		return nil
	})
}

// remember notes the command whose last event was applied.
func (r *Replay) remember() {
	last := &r.events[len(r.events)-1]
	r.add(remembered{
		id: packID(nil, r.first.CommandID), fingerprint: uint32(r.first.Fingerprint),
		issuedAt: r.first.IssuedAt.UnixMilli(), executedAt: last.Time.UnixMilli(),
		sequence: r.sequence, outcome: r.kind.Outcome(r.events),
	})
}

// add remembers a command with the horizon that the window had before it.
func (r *Replay) add(e remembered) {
	h := r.horizonOf(len(r.commands))
	h.pass(&e)
	r.commands = append(r.commands, replayed{e, h})
}

// horizonOf returns the horizon of a window that has forgotten the first n commands.
func (r *Replay) horizonOf(n int) horizon {
	if n == 0 {
		return r.horizon
	}
	return r.commands[n-1].horizon
}

// Pass does to the state what writing a root did, where its snapshot is not at hand to be compared: it
// drops what no decision after the root's time needs.
func (r *Replay) Pass(root *persistence.Root) { r.state.Snapshot(root.Time) }

// Check compares a root whose base is the last event applied with the replay. Like the writer of the
// root, it drops from the state what no decision after the root's time needs. Errors:
// persistence.ErrCorrupt, if they differ or the root cannot be read.
func (r *Replay) Check(root *persistence.Root) error {
	return r.CheckSnapshot(Snapshot{Mapper: root.Mapper, Header: root.Header, Data: root.Snapshot}, root.Time)
}

// CheckSnapshot compares the answer to a SnapshotQuery with the replay: the state after the last event
// applied, without what was not needed any more at a time, that of the root in use. Errors: as Check.
func (r *Replay) CheckSnapshot(s Snapshot, at time.Time) error {
	return guardReplay(fmt.Sprintf("snapshot after event %d", r.sequence), func() error {
		f, err := openFrame(s.Data)
		// Snapshots of packed and of unpacked aggregates have the same form.
		if err != nil {
			return err
		}
		stored, err := r.kind.Restore(r.id, Snapshot{Mapper: s.Mapper, Header: s.Header, Data: f.state})
		if err != nil {
			return err
		}
		// Both as today's code writes them: the stored one may be of an earlier version.
		if want, got := r.state.Snapshot(at),
			stored.Snapshot(at); want.Mapper != got.Mapper || !bytes.Equal(want.Data, got.Data) {
			return fmt.Errorf("the state differs from the replay of the events: %w", persistence.ErrCorrupt)
		}
		return r.checkWindow(&f.window)
	})
}

// checkWindow says whether a window remembers the last commands and has forgotten the others. How many it
// keeps depends on the configuration of its time.
func (r *Replay) checkWindow(w *window) error {
	forgotten := len(r.commands) - w.count
	if forgotten < 0 {
		return fmt.Errorf("%d commands are remembered, the events are of %d: %w",
			w.count, len(r.commands), persistence.ErrCorrupt)
	}
	i, same := forgotten, true
	w.each(func(e remembered) {
		want := &r.commands[i].remembered
		same = same && bytes.Equal(e.id, want.id) && bytes.Equal(e.outcome, want.outcome) &&
			e.fingerprint == want.fingerprint &&
			e.issuedAt == want.issuedAt && e.executedAt == want.executedAt && e.sequence == want.sequence
		i++
	})
	if !same {
		return fmt.Errorf("the remembered commands are not the last ones of the events: %w", persistence.ErrCorrupt)
	}
	// Windows of the first version had one horizon for both, which those that continue them keep.
	h, got := r.horizonOf(forgotten), w.horizon
	if got.clients < h.clients || got.gateways < h.gateways ||
		max(got.clients, got.gateways) != max(h.clients, h.gateways) {
		return fmt.Errorf("the horizon of forgotten commands is %+v, the replay gives %+v: %w",
			got, h, persistence.ErrCorrupt)
	}
	return nil
}

// each calls f with all entries, oldest first.
func (w *window) each(f func(remembered)) {
	rest, t, seq := w.buf[w.head:], w.firstTime, w.firstSeq
	for range w.count {
		e, n := unpackEntry(rest, t, seq)
		f(e)
		rest, t, seq = rest[n:], e.executedAt, e.sequence
	}
}

// guardReplay runs decoding and the domain's code; an error or panic there is a corrupt history.
func guardReplay(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v: %w", what, p, persistence.ErrCorrupt)
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
