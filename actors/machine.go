package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Environment is what the machines of one process share. It does not change.
type Environment struct {
	Kind        Kind
	Config      Config
	Incarnation persistence.Incarnation
	// MaxMutation is that of the journal. A group of commands is closed at half of it.
	MaxMutation int
	// MaxRoot is the size of the largest root that the journal takes; 0 for no limit. A customer with a larger one gets
	// answers to questions, and only commands executed that free something (Decision.Frees).
	MaxRoot int
	// ReadsPast says that Outputs.ReadPast can be answered, so that roots without snapshots may be written
	// (persistence.Root.IsBare).
	ReadsPast bool
}

// InputKind says which input a machine gets.
type InputKind uint8

// The inputs of a machine.
const (
	// InputRequest brings a command or query: Request.
	InputRequest InputKind = iota
	// InputTop answers Outputs.ReadTop: Root or Err.
	InputTop
	// InputRows answers Outputs.ReadRows: Records or Err.
	InputRows
	// InputRootWritten answers Outputs.PutRoot: Err.
	InputRootWritten
	// InputAppended answers Outputs.Append: Err.
	InputAppended
	// InputTick says that Outputs.Wake has come. A tick too many does no harm.
	InputTick
	// InputPast answers Outputs.ReadPast: Past or Err.
	InputPast
	// InputGivenUp says that requests were given up (Request.GiveUp). One too many does no harm.
	InputGivenUp
)

// Input is what happens to a machine.
type Input struct {
	Kind InputKind
	// Now is the wall clock. Events, issue times and the ages of both go by it.
	Now time.Time
	// Steady is a clock that nobody sets. Deadlines, pauses and patience go by it: the wall clock may jump by days.
	Steady time.Time
	// Held is the authority's answer, asked after what the input reports had happened ([R9]).
	Held bool

	Request *Request
	Root    *persistence.Root
	Records []persistence.Record
	Past    *persistence.Past
	Err     error
}

// landed reports whether a read or write ended well.
func (in *Input) landed() bool {
	switch in.Kind {
	case InputTop, InputPast, InputRows, InputRootWritten, InputAppended:
		return in.Err == nil
	default:
		return false
	}
}

// Outputs is what a step asks for. It belongs to the machine and is valid until the next step; what
// it points to is valid until the matching input came.
type Outputs struct {
	// Replies are requests that are answered now, in order.
	Replies []*Request
	// ReadTop asks for the top root of the aggregate.
	ReadTop bool
	// ReadRows asks for a page of records.
	ReadRows *RowsRead
	// ReadPast asks for what the state at the base of this root is built from, whose own snapshot cannot be read.
	ReadPast *persistence.Root
	// PutRoot and Append ask for a write. The same pointer again is a repeat of an unknown outcome.
	PutRoot *persistence.Root
	Append  *persistence.Mutation
	// Wake asks for a tick at that time of Input.Steady; zero for none.
	Wake time.Time
	// Ended says that the activation has ended, with Cause. The machine takes no more steps; requests
	// that still come are answered with Cause by its driver.
	Ended bool
	Cause error
	// Unresolved is the version of the root that was sent, or appended to, when the activation ended, and whose
	// outcome it does not know; 0 for none. Later activations in the process go above it ([R6]), and answer nothing
	// from a root that is not above it ([R5]).
	Unresolved uint64
	// StaleEpoch is the epoch of a root above the machine's own, or equal to it and of another incarnation; 0
	// for none: another process owns the aggregate, or ownership was restored from a backup.
	StaleEpoch uint64
	// Recovered is set when the aggregate was brought to memory: how many records were read for it.
	Recovered *Recovery
}

// RowsRead asks for up to Limit records of a partition above After.
type RowsRead struct {
	Partition persistence.Partition
	After     uint64
	Limit     int

	past *persistence.Root // the shell's: asks for what is below it instead
}

// Recovery says what an activation cost.
type Recovery struct {
	Records int
	Pages   int
	// Damaged, if not zero, is the root whose snapshot could not be read, for which Rebuilt events were replayed;
	// Damage is why.
	Damaged persistence.RootKey
	Damage  error
	Rebuilt int
}

// phase is how far an activation is, from nothing to serving its requests and to its end.
type phase uint8

const (
	phaseNew phase = iota
	phaseReadingTop
	phaseReadingPast
	phaseReadingRows
	phaseActive
	phaseEnded
)

// drain is why no further command is decided until all that was decided is durable.
type drain uint8

const (
	drainNone     drain = iota
	drainRollover       // a new root is due
	drainRestart        // the state in memory cannot be trusted: recover anew
)

// Machine is one activation of one aggregate, a pure state machine: no goroutine, clock or I/O. It is
// not safe for concurrent use.
type Machine struct {
	env       *Environment
	id        string
	aggregate string
	epoch     uint64
	floor     uint64

	phase    phase
	root     persistence.RootKey     // current root, perhaps not durable yet
	rootBy   persistence.Incarnation // its writer
	parent   persistence.RootKey
	parentBy persistence.Incarnation
	base     uint64
	rootTime int64  // Unix milliseconds
	lastTime int64  // time of the last event or root, Unix milliseconds
	oldest   int64  // time of the first event after base; 0 for none
	sequence uint64 // of the optimistic state
	durable  uint64 // of the durable history
	archived uint64 // the history up to there is in the archive, as far as is known here

	// importing says that the history is being imported: no commands until it is complete.
	importing bool
	// inherited says that the current root is the one that was read: this activation has none of its own yet, and
	// appends nothing before it has ([R5]).
	inherited bool
	// bare says that the current root has no snapshot (persistence.Root.IsBare).
	bare bool

	hot    *hot      // nil while packed
	packed *Snapshot // framed with the window, while packed
}

// hot is what only an active machine needs.
type hot struct {
	state  Aggregate
	window window

	waiting []waiting  // decided, in order
	backlog []*Request // not decided
	drain   drain

	rootFlight *persistence.Root // sent, not known to be durable
	flight     *persistence.Mutation
	flightEnd  uint64                // last sequence in flight
	group      *persistence.Mutation // decided, not sent
	groupBytes int                   // its size
	spare      *persistence.Mutation // empty, or nil: the next group
	rootTry    retry
	flightTry  retry
	readTry    retry
	progress   time.Time // when the last read or write ended well, or began with none before it in progress

	top  *persistence.Root // while recovering
	rows []persistence.Record
	read RowsRead
	seen Recovery

	// tooLarge is why a root was not written, nil if none was too large. Commands are refused until tooLargeUntil, a
	// time of Input.Steady; the next one then tries again: state is forgotten as time passes.
	tooLarge      error
	tooLargeUntil time.Time

	refusalSecond int64
	refusals      int

	out Outputs
}

// waiting is a decided request that waits for durability.
type waiting struct {
	request *Request
	needs   uint64 // sequence that must be durable
	// executed a command, or repeats one that is not durable: unknown, not unexecuted, if the activation
	// ends
	writes bool
}

// retry counts the attempts of one read or write.
type retry struct {
	attempts int
	at       time.Time // when to repeat; zero while in progress
}

// NewMachine returns the machine of an aggregate, to be driven under one epoch. Floor is the highest
// version of any root with unresolved outcome of this process.
func NewMachine(env *Environment, id string, epoch, floor uint64) *Machine {
	m := &Machine{}
	m.init(env, id, epoch, floor)
	return m
}

// init makes the machine of an activation, which has not read anything. floor is the
// highest version of a root that this process has sent for an aggregate whose activation
// ended with one unresolved ([R6]).
func (m *Machine) init(env *Environment, id string, epoch, floor uint64) {
	*m = Machine{env: env, id: id, aggregate: AggregateID(id, env.Kind), epoch: epoch, floor: floor}
}

// AggregateID returns the id of an aggregate with its kind, as stores know it.
func AggregateID(id string, k Kind) string { return id + ":" + k.Name() }

// Epoch returns the epoch the machine is driven under.
func (m *Machine) Epoch() uint64 { return m.epoch }

// Step handles one input.
func (m *Machine) Step(in Input) *Outputs {
	in.Held = in.Held || planted.Bug(planted.SkipLeaseCheck)
	if m.packed != nil && !in.Held { // the state is not needed any more
		m.packed, m.hot = nil, &hot{}
	}
	m.unpack()
	h := m.hot
	out := &h.out
	*out = Outputs{Replies: out.Replies[:0]}
	// [R9]: whatever the input is, nothing is said or written for a shard that is not
	// held.
	if m.phase == phaseEnded || !in.Held {
		if in.Kind == InputRequest {
			h.backlog = append(h.backlog, in.Request)
		}
		m.end(ErrNotOwner)
		return out
	}
	idle := m.Waits().IsZero()
	m.apply(in)
	m.advance(in)
	// Progress is an outcome from the store, or the beginning of a wait for one: see Waits.
	if idle || in.landed() {
		h.progress = in.Steady
	}
	if m.phase != phaseEnded {
		out.Wake = m.wake(in)
	}
	return out
}

// apply processes what the input reports.
func (m *Machine) apply(in Input) {
	switch in.Kind {
	case InputTick:
	case InputRequest:
		m.receive(in)
	case InputTop:
		m.topRead(in)
	case InputPast:
		m.pastRead(in)
	case InputRows:
		m.rowsRead(in)
	case InputRootWritten:
		m.rootWritten(in)
	case InputAppended:
		m.appended(in)
	case InputGivenUp:
		m.dropWithdrawn()
	}
}

// receive decides a request, or queues it behind others.
func (m *Machine) receive(in Input) {
	h := m.hot
	if in.Request.withdrawn() { // while it was in flight
		m.drop(in.Request)
		return
	}
	// A request is decided at once only if none waits before it, and nothing has to be
	// written first.
	if m.phase == phaseActive && h.drain == drainNone && len(h.backlog) == 0 && in.Request.Import == nil && !m.full() &&
		!m.needsRoot(in.Request, in) {
		m.decide(in.Request, in)
		return
	}
	h.backlog = append(h.backlog, in.Request)
}

// advance does all that can be done now.
func (m *Machine) advance(in Input) {
	if m.phase == phaseNew {
		m.startRecovery()
	}
	if m.phase != phaseActive {
		m.repeatRead(in)
		return
	}
	h := m.hot
	for {
		m.decideBacklog(in)
		if m.inherited && len(h.group.Records) > 0 && !planted.Bug(planted.TwoClocks) { // a bug; nothing was sent
			m.failFlight(fmt.Errorf("%w: %s has no root of its own", ErrPanic, m.aggregate))
		}
		// [R7]: one mutation in flight. What is decided meanwhile is the next group.
		if h.flight == nil && len(h.group.Records) > 0 {
			h.launch(m.sequence)
			h.flight.Partition = m.partition()
			h.out.Append = h.flight
			m.decideBacklog(in) // the next group has room
		}
		m.release()
		if !m.rolloverDue(in) || h.flight != nil && !planted.Bug(planted.RollOverInFlight) || h.rootFlight != nil {
			break
		}
		// [R10]: nothing is in flight, the state in memory is the durable one.
		if h.drain == drainRestart {
			m.startRecovery()
			return
		}
		h.drain = drainNone
		m.writeRoot(in)
	}
	m.repeatWrites(in)
}

// needsRoot reports whether a request waits for the activation's own root ([R5]): it may add to the history, and the
// root that was read is not this activation's. One that may add to the state also waits for a root with a snapshot.
func (m *Machine) needsRoot(r *Request, in Input) bool {
	switch {
	case !m.inherited && !m.bare || r.late(in.Steady) || planted.Bug(planted.TwoClocks) && r.late(in.Now):
		return false
	case r.Query != nil:
		q, ok := r.Query.(HeadQuery)
		return ok && q.Closed && m.sequence > m.base && !m.refusing(in)
	case r.Import != nil: // its first stretch and its end make a root due anyway
		return m.importing && !r.Import.End && r.Import.After == m.sequence && !m.refusing(in)
	case m.importing || r.Command.ValidateOnly:
		return false
	case m.refusing(in):
		return m.inherited && m.frees(r, in)
	default:
		return m.inherited || !m.frees(r, in)
	}
}

// frees reports whether a request is a command that frees something, which is executed below a bare root too.
func (m *Machine) frees(r *Request, in Input) (frees bool) {
	if r.Query != nil || r.Import != nil || r.Command.ValidateOnly || m.importing || !m.env.ReadsPast {
		return false
	}
	if _, repeat := m.hot.window.find(r.Command.ID); repeat {
		return false
	}
	defer func() { _ = recover() }() // execute meets the panic again
	d, err := m.decision(&r.Command, m.now(in))
	return err == nil && d.Frees
}

// refusing reports whether nothing is added to the state because the next root would be too large.
func (m *Machine) refusing(in Input) bool {
	return m.hot.tooLarge != nil && in.Steady.Before(m.hot.tooLargeUntil)
}

// rolloverDue reports whether commands wait for a new root, or for a recovery.
func (m *Machine) rolloverDue(in Input) bool {
	h := m.hot
	if h.drain == drainNone && m.intervalOver(in) {
		h.drain = drainRollover
	}
	return h.drain != drainNone
}

// intervalOver reports whether the oldest event since the last root is older than the
// interval for snapshots.
func (m *Machine) intervalOver(in Input) bool {
	every := m.env.Config.SnapshotInterval
	return every > 0 && m.oldest != 0 && in.Now.UnixMilli()-m.oldest >= every.Milliseconds()
}

// full reports whether the group is closed: it must be sent before more is decided into it. At half of what the store
// takes, one command more never makes it too large.
func (m *Machine) full() bool {
	return m.env.MaxMutation > 0 && m.hot.groupBytes >= m.env.MaxMutation/2
}

// decideBacklog decides the requests that may be decided now. While a rollover drains, or the group is full, queries
// are answered (the state is sound) and commands wait; while a restart drains, all wait.
func (m *Machine) decideBacklog(in Input) {
	h := m.hot
	if len(h.backlog) == 0 || h.drain == drainRestart {
		return
	}
	kept := h.backlog[:0]
	for _, r := range h.backlog {
		if h.drain == drainNone && m.needsRoot(r, in) {
			h.drain = drainRollover
		}
		if r.Query == nil && m.full() || r.Import != nil && !m.refusing(in) && !m.mayImport(r, in) {
			kept = append(kept, r)
		} else if h.drain == drainNone || h.drain == drainRollover && r.Query != nil && !m.needsRoot(r, in) {
			m.decide(r, in)
		} else {
			kept = append(kept, r)
		}
	}
	// Not kept by the array: an answered request is used again.
	clear(h.backlog[len(kept):])
	h.backlog = kept
}

// dropWithdrawn answers the requests that were withdrawn before they were decided. Those that were decided continue:
// they are part of the group, or in flight.
func (m *Machine) dropWithdrawn() {
	h := m.hot
	kept := h.backlog[:0]
	for _, r := range h.backlog {
		if !r.withdrawn() {
			kept = append(kept, r)
			continue
		}
		m.drop(r)
	}
	clear(h.backlog[len(kept):])
	h.backlog = kept
}

// drop answers a withdrawn request. Nobody waits for the answer, so it waits for nothing either.
func (m *Machine) drop(r *Request) {
	r.Err = ErrExpired
	m.hot.out.Replies = append(m.hot.out.Replies, r)
}

// Waits returns since when the machine has waited for the store without any progress; zero if it does not wait.
func (m *Machine) Waits() time.Time {
	h := m.hot
	if h == nil || m.phase == phaseActive && h.flight == nil && h.rootFlight == nil {
		return time.Time{}
	}
	return h.progress
}

// wait queues an answered request until all that it was decided on is durable ([R8]).
func (m *Machine) wait(r *Request, writes bool) {
	if early(r) {
		m.hot.out.Replies = append(m.hot.out.Replies, r)
		return
	}
	m.hot.waiting = append(m.hot.waiting, waiting{request: r, needs: m.sequence, writes: writes})
}

// early reports whether a planted bug answers the request at once.
func early(r *Request) bool {
	switch {
	case r.Err != nil:
		return false
	case planted.Bug(planted.AnswerRepeatEarly):
		return r.Reply.Duplicate
	case planted.Bug(planted.AnswerQueryEarly):
		return r.Query != nil
	case planted.Bug(planted.AnswerHeadEarly):
		_, head := r.Query.(HeadQuery)
		return head
	case planted.Bug(planted.AnswerImportEarly):
		return r.Import != nil && !r.Import.End
	default:
		return false
	}
}

// refuse answers with an error, in the order of the replies ([R8]).
func (m *Machine) refuse(r *Request, err error) {
	r.Err = err
	m.wait(r, false)
}

// release answers what is durable. The caller checked that the shard is held ([R9]).
func (m *Machine) release() {
	h := m.hot
	if h.rootFlight != nil && !planted.Bug(planted.ServeBeforeRoot) { // [R5]
		return
	}
	n := 0
	// In order: a reply leaves only when all before it have ([R8]).
	for n < len(h.waiting) && (h.waiting[n].needs <= m.durable || planted.Bug(planted.AcknowledgeEarly)) {
		h.out.Replies = append(h.out.Replies, h.waiting[n].request)
		n++
	}
	if n > 0 {
		left := copy(h.waiting, h.waiting[n:])
		clear(h.waiting[left:])
		h.waiting = h.waiting[:left]
	}
}

// Halt gives up the activation from outside: the outputs are those of a step that ended.
func (m *Machine) Halt(cause error) *Outputs {
	if m.packed != nil {
		m.packed, m.hot = nil, &hot{}
	}
	m.unpack()
	out := &m.hot.out
	*out = Outputs{Replies: out.Replies[:0]}
	if m.phase != phaseEnded {
		m.end(cause)
	}
	return out
}

// end gives up the activation. Commands that were decided may or may not become part of the history;
// all others certainly do not.
func (m *Machine) end(cause error) {
	h := m.hot
	for _, w := range h.waiting {
		if w.writes {
			// Not the cause as well: most causes say that nothing was executed.
			w.request.Err = fmt.Errorf("%w: the activation of %s ended: %v", ErrUnknownOutcome, m.aggregate,
				cause) //nolint:errorlint // the cause may say "not executed", which must not be found in this error
		} else {
			w.request.Err = cause
		}
		h.out.Replies = append(h.out.Replies, w.request)
	}
	for _, r := range h.backlog {
		r.Err = cause
		h.out.Replies = append(h.out.Replies, r)
	}
	// Its outcome may be found durable later: the next activation writes a root above
	// this version ([R6]).
	if h.rootFlight != nil || h.flight != nil {
		h.out.Unresolved = m.root.Version
	}
	h.waiting, h.backlog = nil, nil
	h.out.Ended, h.out.Cause = true, cause
	// None of it was sent.
	h.out.PutRoot, h.out.Append, h.out.ReadTop, h.out.ReadRows, h.out.ReadPast = nil, nil, false, nil, nil
	m.phase = phaseEnded
}

// appended processes the outcome of an append.
func (m *Machine) appended(in Input) {
	h := m.hot
	if h.flight == nil {
		return
	}
	switch {
	case in.Err == nil || planted.Bug(planted.UnknownIsSuccess) && !errors.Is(in.Err, persistence.ErrRejected):
		m.durable = h.flightEnd
		h.landed()
	case errors.Is(in.Err, persistence.ErrRejected) &&
		// A repetition that is rejected says nothing of the attempts before it.
		(h.flightTry.attempts == 0 || planted.Bug(planted.RejectionIsCertain)):
		m.failFlight(in.Err)
	case errors.Is(in.Err, persistence.ErrRejected):
		m.end(fmt.Errorf("append: %w", in.Err))
	default:
		h.flightTry.failed(in.Steady, m)
	}
}

// launch makes the group, which ends with that sequence, the mutation in flight.
func (h *hot) launch(end uint64) {
	h.flight, h.flightEnd, h.flightTry, h.groupBytes = h.group, end, retry{}, 0
	if h.group, h.spare = h.spare, nil; h.group == nil {
		h.group = &persistence.Mutation{}
	}
}

// keptRecords is the number of records of a durable mutation that are left as they are, to be overwritten.
const keptRecords = 4

// landed takes the durable mutation out of flight, and keeps its space.
func (h *hot) landed() {
	f := h.flight
	if h.flight = nil; len(f.Records) > keptRecords {
		clear(f.Records)
	}
	f.Records = f.Records[:0]
	if h.spare = f; len(h.group.Records) == 0 {
		h.group, h.spare = f, h.group
	}
}

// failFlight fails a mutation that certainly did not happen, and all that was decided on it.
func (m *Machine) failFlight(err error) {
	h := m.hot
	kept := h.waiting[:0]
	for _, w := range h.waiting {
		if w.needs <= m.durable {
			kept = append(kept, w)
			continue
		}
		// They were decided on a state with the failed mutation in it.
		w.request.Reply, w.request.Answer = Reply{}, Answer{}
		w.request.Err = fmt.Errorf("%w: %w", ErrRejected, err)
		h.out.Replies = append(h.out.Replies, w.request)
	}
	clear(h.waiting[len(kept):])
	h.waiting = kept
	h.flight, h.group, h.groupBytes = nil, &persistence.Mutation{}, 0
	// The state in memory has events that never happened: it is read anew.
	m.sequence = m.durable
	h.drain = drainRestart
}

// rootWritten processes the outcome of a root.
func (m *Machine) rootWritten(in Input) {
	h := m.hot
	if h.rootFlight == nil {
		return
	}
	switch {
	case in.Err == nil:
		h.rootFlight = nil
	case errors.Is(in.Err, persistence.ErrRejected):
		// It never will be, and so nothing below it is in the history.
		if h.rootTry.attempts == 0 || planted.Bug(planted.RejectedRootIsCertain) {
			for i := range h.waiting {
				h.waiting[i].writes = false
			}
		}
		m.end(fmt.Errorf("%w: root: %w", ErrRejected, in.Err))
	default:
		h.rootTry.failed(in.Steady, m)
	}
}

// repeatWrites sends writes of unknown outcome again, identical.
func (m *Machine) repeatWrites(in Input) {
	h := m.hot
	if h.rootFlight != nil && h.rootTry.due(in.Steady) {
		h.out.PutRoot = h.rootFlight
	}
	if h.flight != nil && h.flightTry.due(in.Steady) {
		h.out.Append = h.flight
	}
}

// failed plans the next attempt: after a pause that doubles, less up to the half of it, which differs from aggregate
// to aggregate, so that not all of them come at once when a store is back.
func (t *retry) failed(now time.Time, m *Machine) {
	c := &m.env.Config
	pause := c.RetryMin << min(t.attempts, 20)
	if pause <= 0 || pause > c.RetryMax {
		pause = c.RetryMax
	}
	pause -= time.Duration(m.hashOf(t.attempts) % uint64(pause/2+1))
	t.attempts++
	t.at = now.Add(max(pause, c.RetryMin))
}

// hashOf returns a number that looks random, and is always the same for an aggregate and n: nothing but inputs
// decides what a machine does.
func (m *Machine) hashOf(n int) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], xxhash.Sum64String(m.aggregate)+uint64(n))
	return xxhash.Sum64(b[:])
}

// due reports whether the next attempt is to be made now, and marks it as in progress.
func (t *retry) due(now time.Time) bool {
	if t.at.IsZero() || now.Before(t.at) {
		return false
	}
	t.at = time.Time{}
	return true
}

// wake returns when the machine has something to do by itself: it has no timers, and the
// actor gives it a tick then.
func (m *Machine) wake(in Input) time.Time {
	h := m.hot
	var first time.Time
	for _, t := range [...]time.Time{h.rootTry.at, h.flightTry.at, h.readTry.at} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if every := m.env.Config.SnapshotInterval; every > 0 && m.oldest != 0 && h.drain == drainNone {
		if t := in.Steady.Add(time.UnixMilli(m.oldest).Add(every).Sub(in.Now)); first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// NoteArchived records that the history up to that sequence is in the archive. It is a hint, which goes
// into the roots to come.
func (m *Machine) NoteArchived(through uint64) { m.archived = max(m.archived, through) }

// partition returns the partition below the root in use.
func (m *Machine) partition() persistence.Partition {
	return persistence.PartitionOf(m.root, m.rootBy)
}

// head returns where the history ends, the zero head if there is no root.
func (m *Machine) head() persistence.Head {
	if m.root.Version == 0 {
		return persistence.Head{}
	}
	return persistence.Head{
		Partition: m.partition(), Bare: m.bare, Base: m.base, Parent: m.parent, ParentIncarnation: m.parentBy,
		Sequence: m.sequence,
	}
}
