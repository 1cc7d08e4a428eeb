package actors

import (
	"context"
	"errors"
	"fmt"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Errors of an import.
var (
	// ErrImporting: the aggregate's history is being imported and not complete. Not executed.
	ErrImporting = errors.New("history is being imported")
	// ErrNotContinued: the history does not end where the import continues, or it is complete already.
	// Nothing was recorded.
	ErrNotContinued = errors.New("import does not continue the history")
	// ErrNoHistory: the records cannot be a part of any history. Nothing was recorded.
	ErrNoHistory = errors.New("records are no history")
)

// Import is a stretch of history from elsewhere, to be recorded as it is.
//
// From its first stretch to its end an aggregate is importing: its roots record this, and it takes no
// commands. A history in the making is not to be decided on, and the snapshots of its roots are taken as
// of the time of its last event: taken now, they would forget what later events of the past build on.
type Import struct {
	// After is the last event before the stretch: where the history must end now.
	After uint64
	// Records are whole commands, in sequence. Of each record all but the data's meaning is checked.
	Records []persistence.Record
	// End ends the import, without records: the aggregate takes commands from now on. It is no error
	// if the import has ended, with this history.
	End bool
}

// Import records a stretch of history for an aggregate that has none, or whose history so far was
// imported and is not at its end. It returns where the history ends then. Errors: ErrNotContinued with
// that, ErrNoHistory, and those of Execute.
// A stretch with an unknown outcome may be sent again.
func (r *Runtime) Import(ctx context.Context, id string, i Import) (Head, error) {
	q := r.requests.Get().(*Request)
	q.Import = &i
	if err := r.ask(ctx, id, q); err != nil {
		return Head{}, err
	}
	head, err := q.Answer.Head, q.Err
	r.recycle(q)
	return head, err
}

// mayImport says whether a stretch is to be recorded now, or has to wait for a root that says that the
// aggregate is importing, or is not any more. That root is then due.
func (m *Machine) mayImport(r *Request, in Input) bool {
	h, i := m.hot, r.Import
	switch {
	case h.drain != drainNone:
		return false
	case m.sequence != i.After:
		return true // to be refused
	case i.End && m.importing:
		m.importing = false
		if planted.Bug(planted.EndImportEarly) {
			return true
		}
	// The first stretch: the root before it says that the aggregate is importing, so that
	// no command comes between its events.
	case !i.End && !m.importing && m.sequence == 0 && m.checkImport(i, in) == nil:
		m.importing = true
		m.lastTime = i.Records[0].Time.UnixMilli()
	default:
		return true
	}
	h.drain = drainRollover
	return false
}

// imports records a stretch of history, or the end of it.
func (m *Machine) imports(r *Request, in Input) {
	h, i := m.hot, r.Import
	switch {
	case m.sequence < i.After, m.sequence > i.After && !planted.Bug(planted.ImportAnywhere):
		r.Answer = Answer{Head: m.head()}
		m.refuse(r, fmt.Errorf("%w: it ends at %d, not %d", ErrNotContinued, m.sequence, i.After))
		return
	case i.End: // mayImport saw to it.
		r.Answer = Answer{Head: m.head()}
		m.wait(r, false)
		return
	case !m.importing && m.sequence > 0:
		r.Answer = Answer{Head: m.head()}
		m.refuse(r, fmt.Errorf("%w: it is complete", ErrNotContinued))
		return
	}
	if err := m.checkImport(i, in); err != nil {
		m.refuse(r, err)
		return
	}
	// A replay that fails leaves a part of the stretch in the state, which is then read
	// anew.
	sequence, last := m.sequence, m.lastTime
	if err := m.replay(i.Records); err != nil {
		// A part of it is in the state, and nothing in the store.
		m.sequence, m.lastTime = sequence, last
		h.drain = drainRestart
		m.refuse(r, fmt.Errorf("%w: %w", ErrNoHistory, err))
		return
	}
	h.group.Records = append(h.group.Records, i.Records...)
	for j := range i.Records {
		h.groupBytes += i.Records[j].Size(m.aggregate)
	}
	r.Answer = Answer{Head: m.head()}
	m.wait(r, true)
	if m.sequence-m.base >= uint64(m.env.Config.SnapshotEvery) {
		h.drain = drainRollover
	}
}

// checkImport says what keeps records from being the next stretch of the history.
func (m *Machine) checkImport(i *Import, in Input) error {
	if err := CheckForeign(m.env.Kind, i.After, i.Records); err != nil {
		return err
	}
	if first := &i.Records[0]; m.importing && first.Time.UnixMilli() < m.lastTime {
		return fmt.Errorf("%w: event %d is earlier than the one before it", ErrNoHistory, first.Sequence)
	}
	for j := range i.Records {
		if n, limit := len(i.Records[j].Data), m.env.Config.MaxEventBytes; n > limit {
			return fmt.Errorf("%w: event %d: its data has %d bytes, the limit is %d",
				ErrNoHistory, i.Records[j].Sequence, n, limit)
		}
	}
	// A history from the future would give all later events its time.
	if ahead := i.Records[len(i.Records)-1].Time.Sub(in.Now); ahead > m.env.Config.Window.MaxAhead {
		return fmt.Errorf("%w: the last event lies %v in the future", ErrNoHistory, ahead)
	}
	return nil
}

// CheckForeign says what keeps records from being a stretch of any history after an event, as far as they tell by
// themselves: they are whole commands in sequence, their times do not go back, and each is one that the kind
// accepts. Errors: ErrNoHistory.
func CheckForeign(k Kind, after uint64, records []persistence.Record) error {
	if len(records) == 0 {
		return fmt.Errorf("%w: there are none", ErrNoHistory)
	}
	whole, err := wholeCommands(records, after)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoHistory, err)
	}
	if len(whole) < len(records) {
		return fmt.Errorf("%w: records after %d are missing, or a command is not whole",
			ErrNoHistory, after+uint64(len(whole)))
	}
	for i := range records {
		r := &records[i]
		if i > 0 && r.Time.Before(records[i-1].Time) {
			return fmt.Errorf("%w: event %d is earlier than the one before it", ErrNoHistory, r.Sequence)
		}
		if n := len(r.CommandID); n == 0 || n > maxIDLength {
			return fmt.Errorf("%w: event %d: its command id has %d bytes, want 1 to %d",
				ErrNoHistory, r.Sequence, n, maxIDLength)
		}
		if err := guardReplay("check", func() error { return k.CheckForeign(r) }); err != nil {
			return fmt.Errorf("%w: event %d: %w", ErrNoHistory, r.Sequence, err)
		}
	}
	return nil
}
