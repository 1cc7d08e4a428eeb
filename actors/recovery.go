package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
)

// startRecovery starts reading the aggregate from the store.
func (m *Machine) startRecovery() {
	h := m.hot
	m.phase = phaseReadingTop
	h.drain = drainNone
	h.state, h.window = nil, window{}
	h.group, h.groupBytes, h.flight = &persistence.Mutation{}, 0, nil
	h.top, h.rows, h.seen = nil, nil, Recovery{}
	h.readTry = retry{}
	h.out.ReadTop = true
}

// topRead processes the top root.
func (m *Machine) topRead(in Input) {
	if m.phase != phaseReadingTop || m.abandoned(in) {
		return
	}
	h := m.hot
	// [R13]: a tombstone is not the same as no root.
	if errors.Is(in.Err, persistence.ErrNotFound) ||
		planted.Bug(planted.ForgottenIsNew) && errors.Is(in.Err, ErrForgotten) {
		h.state = m.env.Kind.New(m.id)
		m.sequence, m.durable, m.lastTime, m.importing = 0, 0, 0, false
		m.activate(in, &persistence.Root{})
		return
	}
	if in.Err != nil {
		m.readFailed(in)
		return
	}
	top := in.Root
	// A root of a later owner, or of another one at this epoch: the row of the shard is
	// older than the history.
	if top.Key.Epoch > m.epoch || top.Key.Epoch == m.epoch && top.Incarnation != m.env.Incarnation {
		m.hot.out.StaleEpoch = top.Key.Epoch
		m.end(ErrNotOwner)
		return
	}
	h.top = top
	h.readTry = retry{}
	err := m.restore(top)
	if err != nil { // The events may be whole.
		// What the snapshot says is also in the events, unless they are missing: see
		// rebuild.
		h.seen.Damaged, h.seen.Damage = top.Key, err
	}
	if err != nil || top.IsBare() {
		m.phase = phaseReadingPast
		h.out.ReadPast = top
		return
	}
	m.readAbove(top)
}

// readAbove continues with the records below the top root; the state is that at its base.
func (m *Machine) readAbove(top *persistence.Root) {
	h := m.hot
	m.sequence, m.lastTime = top.Base, top.Time.UnixMilli()
	m.NoteArchived(top.ArchivedThrough)
	m.phase = phaseReadingRows
	h.readTry = retry{}
	m.readPage(top.Base)
}

// restore makes state and window of a root's snapshot. Of a bare root it reads only whether the history is being
// imported.
func (m *Machine) restore(r *persistence.Root) error {
	if r.Damage != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, r.Damage)
	}
	return m.guardCorrupt(r.Key.String, func() error {
		if r.IsBare() {
			switch m.importing = r.Snapshot[0] == frameImporting; r.Snapshot[0] {
			case frameComplete, frameImporting:
				return nil
			}
			return fmt.Errorf("root of unknown version: %w", persistence.ErrCorrupt)
		}
		f, err := openFrame(r.Snapshot)
		if err != nil {
			return err
		}
		m.hot.window, m.importing = f.window, f.importing
		m.hot.state, err = m.env.Kind.Restore(m.id, Snapshot{Mapper: r.Mapper, Header: r.Header, Data: f.state})
		return err
	})
}

// readPage asks for the next page of records.
func (m *Machine) readPage(after uint64) {
	h := m.hot
	h.read = RowsRead{Partition: h.top.Partition(), After: after, Limit: m.env.Config.ReadPage}
	h.out.ReadRows = &h.read
}

// rowsRead processes a page of records.
func (m *Machine) rowsRead(in Input) {
	if m.phase != phaseReadingRows || m.abandoned(in) {
		return
	}
	h := m.hot
	if in.Err != nil {
		m.readFailed(in)
		return
	}
	if len(h.rows) == 0 {
		h.rows = in.Records // mostly, they are all
	} else {
		h.rows = append(h.rows, in.Records...)
	}
	h.seen.Pages++
	h.readTry = retry{}
	// A full page may not be the last.
	if len(in.Records) >= h.read.Limit {
		m.readPage(in.Records[len(in.Records)-1].Sequence)
		return
	}
	whole, err := wholeCommands(h.rows, h.top.Base)
	// Without its snapshot, the root does not tell whether the history is being imported.
	if err == nil && h.top.Base == 0 && h.seen.Damage != nil && len(whole) > 0 {
		err = m.notImporting(h.top, &whole[0])
	}
	if err == nil {
		err = m.replay(whole)
	}
	if err != nil {
		m.end(err)
		return
	}
	h.seen.Records = len(whole)
	top := h.top
	h.top, h.rows = nil, nil
	m.durable = m.sequence
	m.activate(in, top)
}

// pastRead applies what the state at the base of the top root is built from.
func (m *Machine) pastRead(in Input) {
	if m.phase != phaseReadingPast || m.abandoned(in) {
		return
	}
	if in.Err != nil {
		m.readFailed(in)
		return
	}
	h := m.hot
	h.readTry = retry{}
	if err := m.rebuild(in.Past); err != nil {
		if h.seen.Damage != nil {
			err = fmt.Errorf("%w; the snapshot cannot be read either: %w", err, h.seen.Damage)
		}
		m.end(err)
		return
	}
	h.seen.Rebuilt = len(in.Past.Records)
	m.readAbove(h.top)
}

// rebuild replays what led to the top root, whose own snapshot is missing or damaged, as it was executed: what
// the roots between dropped from the state is dropped again. It needs every event: without one, all that follows would
// be decided on a wrong state.
func (m *Machine) rebuild(p *persistence.Past) error {
	h, base, importing, bare := m.hot, uint64(0), m.importing, m.hot.seen.Damage == nil
	h.state, h.window, m.importing = m.env.Kind.New(m.id), window{}, false
	if p.Start != nil {
		if err := m.restore(p.Start); err != nil {
			return err
		}
		if base = p.Start.Base; m.importing && !bare {
			return fmt.Errorf("%w: root %s says that the history is being imported; "+
				"whether that has ended is not known", ErrCorrupt, p.Start.Key)
		}
	}
	rows, err := wholeCommands(p.Records, base)
	if err != nil {
		return err
	}
	if n := h.top.Base - base; uint64(len(rows)) != n && !planted.Bug(planted.RebuildWithoutCount) {
		return fmt.Errorf("%w: only %d of the %d events up to %d can be read", ErrCorrupt, len(rows), n, h.top.Base)
	}
	// Each root dropped something from the state at its time, and so it is done again at
	// its base.
	roots := append(slices.Clone(p.Above), *h.top)
	if base == 0 && len(rows) > 0 && !bare {
		last := -1 // of the roots before the first event
		for last+1 < len(roots) && roots[last+1].Base == 0 {
			last++
		}
		if last >= 0 {
			if err := m.notImporting(&roots[last], &rows[0]); err != nil {
				return err
			}
		}
	}
	m.sequence, m.lastTime = base, 0
	for i := range roots {
		n := roots[i].Base - m.sequence
		if planted.Bug(planted.RebuildWithoutCount) {
			n = min(n, uint64(len(rows)))
		}
		if roots[i].Base < m.sequence || n > uint64(len(rows)) {
			return fmt.Errorf("%w: root %s has base %d, after event %d",
				ErrCorrupt, roots[i].Key, roots[i].Base, m.sequence)
		}
		if err := m.replay(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
		if err := m.guardCorrupt(roots[i].Key.String,
			func() error { h.state.Snapshot(roots[i].Time); return nil }); err != nil {
			return err
		}
	}
	m.importing = importing && bare
	return nil
}

// notImporting says whether a root before the first event may have said "importing", which only its snapshot tells. The
// time of such a root is that of the first event; all others are earlier.
func (m *Machine) notImporting(r *persistence.Root, first *persistence.Record) error {
	if r.Time.Before(first.Time) {
		return nil
	}
	return fmt.Errorf("%w: root %s may have begun an import; whether that has ended is not known", ErrCorrupt, r.Key)
}

// wholeCommands returns the records base+1, base+2, … up to the first gap, without the records of an
// incomplete command at the end ([R4]): a page boundary can tear a mutation that was never
// acknowledged.
func wholeCommands(rows []persistence.Record, base uint64) ([]persistence.Record, error) {
	whole := 0
	for i := range rows {
		r := &rows[i]
		if r.Sequence != base+uint64(i)+1 {
			break
		}
		first := i == whole
		if first != (r.Index == 0) || r.Count == 0 ||
			!first && (r.Index != rows[i-1].Index+1 || r.Count != rows[i-1].Count) {
			return nil, fmt.Errorf("%w: record %d is number %d of %d of its command",
				ErrCorrupt, r.Sequence, r.Index, r.Count)
		}
		// [R4]: only what is whole counts.
		if r.Index == r.Count-1 || planted.Bug(planted.TornCommand) {
			whole = i + 1
		}
	}
	return rows[:whole], nil
}

// replay applies recorded commands to state and window, as executing them did.
func (m *Machine) replay(rows []persistence.Record) error {
	h := m.hot
	var events []Event
	var first *persistence.Record
	for i := range rows {
		r := &rows[i]
		if r.Index == 0 {
			first, events = r, events[:0]
		}
		what := func() string { return fmt.Sprintf("%s record %d", m.aggregate, r.Sequence) }
		err := m.guardCorrupt(what, func() error {
			v, err := m.env.Kind.DecodeEvent(r.Mapper, r.Header, r.Data)
			if err != nil {
				return err
			}
			e := eventOf(r, v)
			h.state.Evolve(e)
			events = append(events, e)
			if r.Index == r.Count-1 {
				h.remember(first.CommandID, uint32(first.Fingerprint), first.IssuedAt.UnixMilli(), r.Time.UnixMilli(),
					r.Sequence, m.env.Kind.Outcome(events), &m.env.Config.Window)
			}
			return nil
		})
		if err != nil {
			return err
		}
		m.sequence, m.lastTime = r.Sequence, max(m.lastTime, r.Time.UnixMilli())
	}
	return nil
}

// eventOf returns a record as the event that the domain knows.
func eventOf(r *persistence.Record, value any) Event {
	return Event{
		AggregateID: r.AggregateID, Order: r.Order, Time: r.Time,
		Mapper: r.Mapper, Header: r.Header, Data: r.Data, Value: value,
	}
}

// activate begins to answer from what was read, under a root of the activation's own unless that can wait ([R5]).
func (m *Machine) activate(in Input, top *persistence.Root) {
	h := m.hot
	h.group, h.groupBytes = &persistence.Mutation{}, 0
	m.phase = phaseActive
	seen := h.seen
	h.out.Recovered = &seen
	m.inherit(top)
	if !m.decided() || seen.Damage != nil {
		m.writeRoot(in)
	}
}

// inherit makes the root that was read the current one.
func (m *Machine) inherit(top *persistence.Root) {
	m.root, m.rootBy, m.base = top.Key, top.Incarnation, top.Base
	m.root.Aggregate = m.aggregate
	m.parent, m.parentBy = top.Parent, top.ParentIncarnation
	m.inherited = !planted.Bug(planted.NoRootOfItsOwn) || top.Key.IsZero()
	m.bare = top.IsBare()
	m.oldest, m.rootTime = 0, 0
	if !top.Key.IsZero() {
		m.rootTime = top.Time.UnixMilli()
	}
}

// decided reports whether what was read is ([R5]).
func (m *Machine) decided() bool { return decided(m.sequence, m.root, m.epoch, m.floor) }

// writeRoot continues the history under a new root. The state in memory is the durable one. If it is too large for the
// store, the root is bare, or none is written.
func (m *Machine) writeRoot(in Input) {
	h := m.hot
	now := m.now(in)
	// An imported history has times of its own: the root must not be later than its
	// events.
	if m.importing {
		now = time.UnixMilli(m.lastTime).UTC()
	}
	var s Snapshot
	if err := m.guard(func() error { s = h.state.Snapshot(now); return nil }); err != nil {
		m.end(err)
		return
	}
	snapshot := frame(&h.window, s.Data, m.importing && !planted.Bug(planted.ForgetImport))
	if planted.Bug(planted.ForgetWindow) {
		snapshot = frame(&window{}, s.Data, m.importing)
	}
	m.bare, h.tooLarge = false, nil
	if most := m.env.MaxRoot; most > 0 {
		r := persistence.Root{Key: m.root, Mapper: s.Mapper, Snapshot: snapshot}
		if size := r.Size(); size > most {
			if !m.rootTooLarge(in, size) {
				return
			}
			s, snapshot, m.bare = Snapshot{}, snapshot[:1], true
		}
	}
	// The first root has no parent, although the key of the machine names the aggregate.
	if m.parent, m.parentBy = m.root, m.rootBy; m.root.Version == 0 {
		m.parent = persistence.RootKey{}
	}
	version := max(m.root.Version, m.floor) + 1 // [R6]
	if planted.Bug(planted.ReuseVersion) {
		version = m.root.Version + 1
	}
	m.root = persistence.RootKey{Aggregate: m.aggregate, Epoch: m.epoch, Version: version}
	m.rootBy, m.inherited = m.env.Incarnation, false
	m.base, m.oldest = m.sequence, 0
	m.rootTime, m.lastTime = now.UnixMilli(), now.UnixMilli()
	h.rootTry = retry{}
	if m.sequence == 0 && !m.importing {
		now = now.Add(-time.Millisecond) // before the first event: see notImporting
		m.rootTime = now.UnixMilli()
	}
	h.rootFlight = &persistence.Root{
		Key: m.root, Incarnation: m.env.Incarnation, Base: m.base, Parent: m.parent, ParentIncarnation: m.parentBy,
		Time: now, Mapper: s.Mapper, Header: s.Header, Snapshot: snapshot,
		ArchivedThrough: m.archived,
	}
	h.out.PutRoot = h.rootFlight
}

// rootTooLarge notes that the next root is larger than the store accepts, and reports whether to write a bare one:
// where a root is needed in spite of that, to settle what was read ([R5]) or to execute a command that frees
// something. Other commands are refused for a while. If no root is written, the state is read anew, since the
// snapshot dropped what a replay keeps.
func (m *Machine) rootTooLarge(in Input, size int) (bare bool) {
	h := m.hot
	h.tooLarge = fmt.Errorf("%w: the customer's state needs a root of %d bytes, the store accepts at most %d",
		ErrRejected, size, m.env.MaxRoot)
	h.tooLargeUntil = in.Steady.Add(m.env.Config.RetryMax)
	settles := m.inherited && (!m.decided() || h.seen.Damage != nil)
	frees := func(r *Request) bool { return m.frees(r, in) }
	if m.inherited && slices.ContainsFunc(h.backlog, frees) && planted.Bug(planted.AppendBelowInherited) {
		m.inherited = false
		return false
	}
	imports := func(r *Request) bool { return r.Import != nil } // an end that was not recorded is refused
	switch {
	case m.inherited && m.env.ReadsPast &&
		(settles || slices.ContainsFunc(h.backlog, frees) && !slices.ContainsFunc(h.backlog, imports)):
		return true
	case settles:
		m.end(h.tooLarge)
	default:
		h.drain = drainRestart
	}
	return false
}

// readFailed plans another attempt, or gives up.
func (m *Machine) readFailed(in Input) {
	h := m.hot
	if errors.Is(in.Err, ErrForgotten) {
		m.end(in.Err)
		return
	}
	if errors.Is(in.Err, persistence.ErrCorrupt) {
		m.end(fmt.Errorf("%w: %w", ErrCorrupt, in.Err))
		return
	}
	h.readTry.failed(in.Steady, m)
	if h.readTry.attempts >= m.env.Config.ReadAttempts {
		m.end(fmt.Errorf("%w: %w", ErrUnavailable, in.Err))
	}
}

// abandoned ends a recovery that nobody waits for any more: reads take as long as the store lets them, and a
// store that is slow should not do what is for nobody. It reports whether it did.
func (m *Machine) abandoned(in Input) bool {
	h := m.hot
	if len(h.backlog) == 0 || slices.ContainsFunc(h.backlog, func(r *Request) bool { return !r.late(in.Steady) }) {
		return false
	}
	for _, r := range h.backlog {
		r.Err = ErrExpired
		h.out.Replies = append(h.out.Replies, r)
	}
	h.backlog = nil
	// Not as expired as well: a request that arrives meanwhile is not late.
	m.end(fmt.Errorf("%w: reading it took longer than any request waits", ErrUnavailable))
	return true
}

// repeatRead sends a read again whose pause has passed.
func (m *Machine) repeatRead(in Input) {
	h := m.hot
	if m.phase == phaseEnded || !h.readTry.due(in.Steady) || m.abandoned(in) {
		return
	}
	switch m.phase {
	case phaseReadingTop:
		h.out.ReadTop = true
	case phaseReadingPast:
		h.out.ReadPast = h.top
	default:
		h.out.ReadRows = &h.read
	}
}

// guardCorrupt runs the domain's decoding; a panic there is a corrupt record. What names it in errors.
func (m *Machine) guardCorrupt(what func() string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrCorrupt, what(), p)
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, what(), err)
	}
	return nil
}

// Quiescent reports whether the machine has nothing in progress: it may be packed, or dropped without a
// write (passivation).
func (m *Machine) Quiescent() bool {
	if m.phase == phaseNew || m.packed != nil {
		return true
	}
	h := m.hot
	return m.phase == phaseActive && h.rootFlight == nil && h.flight == nil && len(h.group.Records) == 0 &&
		len(h.waiting) == 0 && len(h.backlog) == 0 && h.drain == drainNone
}

// Pack replaces the state of a quiescent machine by its snapshot bytes; the next step unpacks them.
// It reports whether it did.
func (m *Machine) Pack() bool {
	if m.phase != phaseActive || m.packed != nil || !m.Quiescent() {
		return false
	}
	var s Snapshot
	if m.guard(func() error { s = m.snapshot(); return nil }) != nil {
		return false
	}
	m.packed, m.hot = &s, nil
	return true
}

// snapshot returns state and window. What a snapshot at the root's time drops was dropped then: the
// state stays as a replay makes it.
func (m *Machine) snapshot() Snapshot {
	s := m.hot.state.Snapshot(time.UnixMilli(m.rootTime).UTC())
	s.Data = frame(&m.hot.window, s.Data, m.importing)
	return s
}

// unpack makes the state of the bytes that Pack kept. It does nothing if the state is
// there.
func (m *Machine) unpack() {
	if m.hot != nil {
		return
	}
	m.hot = &hot{group: &persistence.Mutation{}}
	if m.packed == nil {
		return
	}
	f, err := openFrame(m.packed.Data)
	if err == nil {
		m.hot.window = f.window
		m.hot.state, err = m.env.Kind.Restore(m.id,
			Snapshot{Mapper: m.packed.Mapper, Header: m.packed.Header, Data: f.state})
	}
	m.packed = nil
	if err != nil {
		// What Snapshot gave cannot be restored, a bug of the kind; the store has the same history.
		m.hot.drain = drainRestart
	}
}

// Size estimates the memory of the machine in bytes.
func (m *Machine) Size() int {
	const fixed, atWork = 300, 2500
	if m.packed != nil {
		return fixed + len(m.id) + len(m.packed.Data)
	}
	if m.hot == nil {
		return fixed
	}
	return fixed + atWork + len(m.hot.window.buf)*2
}

// framed is what the bytes of a snapshot hold.
type framed struct {
	window window
	state  []byte
	// importing says that the history was not complete.
	importing bool
}

// The first byte of a frame.
const (
	frameComplete  = 1
	frameImporting = 2
)

// frame joins the window and an encoded state: version | length of the window | window | state.
func frame(w *window, state []byte, importing bool) []byte {
	var space [maxWindowHeader]byte
	header, entries := w.encode(space[:0])
	version := byte(frameComplete)
	if importing {
		version = frameImporting
	}
	size := binary.AppendUvarint([]byte{version}, uint64(len(header)+len(entries)))
	return slices.Concat(size, header, entries, state)
}

// openFrame splits what frame joined; both parts share b.
func openFrame(b []byte) (framed, error) {
	if len(b) == 0 || b[0] != frameComplete && b[0] != frameImporting {
		return framed{}, fmt.Errorf("snapshot of unknown version: %w", persistence.ErrCorrupt)
	}
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > uint64(len(b)-1-n) {
		return framed{}, fmt.Errorf("snapshot cut short: %w", persistence.ErrCorrupt)
	}
	rest := b[1+n:]
	w, err := decodeWindow(rest[:size:size])
	return framed{window: w, state: rest[size:], importing: b[0] == frameImporting}, err
}
