package actors

import (
	"fmt"
	"runtime/debug"
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
)

// decide answers a request on the optimistic state.
func (m *Machine) decide(r *Request, in Input) {
	switch {
	case r.late(in.Steady):
		m.refuse(r, ErrExpired)
	case !r.take():
		m.drop(r)
	case r.Query != nil:
		m.query(r, in)
	case r.Import != nil && m.refusing(in):
		m.refuse(r, m.hot.tooLarge)
	case r.Import != nil:
		m.imports(r, in)
	case m.importing && !planted.Bug(planted.CommandsInImport):
		m.refuse(r, ErrImporting)
	case r.Command.ValidateOnly:
		m.validate(r, in)
	default:
		m.execute(r, in)
	}
}

// now is the time of the next event: never before the last one's.
func (m *Machine) now(in Input) time.Time {
	return time.UnixMilli(max(in.Now.UnixMilli(), m.lastTime)).UTC()
}

// HeadQuery asks where the history ends, and nothing of the domain.
type HeadQuery struct {
	// Closed asks for a root above the events that an earlier activation left, so that their partition is closed:
	// for the archiver. It is not carried between processes.
	Closed bool
}

// SnapshotQuery asks for all that is in memory, to compare it with a replay. The answer's value is a
// Snapshot as a root has it, without what was not needed any more at the time of the head's root.
type SnapshotQuery struct {
	// InMemory asks so only of an aggregate that is in memory; that of another is not loaded, and the answer has no
	// value. It is for who stands between the caller and the runtime: the runtime itself loads.
	InMemory bool
}

// query answers from the optimistic state: the answer waits until all that it saw is
// durable ([R8]).
func (m *Machine) query(r *Request, in Input) {
	err := m.guard(func() (err error) {
		r.Answer = Answer{Head: m.head()}
		switch r.Query.(type) {
		case HeadQuery:
		case SnapshotQuery:
			r.Answer.Value = m.snapshot()
		default:
			if m.importing {
				return ErrImporting
			}
			r.Answer.Value, err = m.hot.state.Query(m.now(in), r.Query)
		}
		return err
	})
	if err != nil {
		m.refuse(r, err)
		return
	}
	m.wait(r, false)
}

// validate decides a command and records nothing. Like a query, the result waits for what
// it was decided on.
func (m *Machine) validate(r *Request, in Input) {
	now := m.now(in)
	err := m.guard(func() error {
		d, err := m.decision(&r.Command, now)
		if err == nil {
			r.Reply = Reply{Outcome: m.env.Kind.Outcome(d.Events), Time: now}
		}
		return err
	})
	if err != nil {
		m.refuse(r, err)
		return
	}
	m.wait(r, false)
}

// execute decides a command, records its events and evolves the optimistic state.
func (m *Machine) execute(r *Request, in Input) {
	// A repeated command is looked up before it is admitted: it has its first outcome,
	// however old it is by now.
	h, c, now := m.hot, &r.Command, m.now(in)
	if first, ok := h.window.find(c.ID); ok {
		m.repeat(r, first)
		return
	}
	if err := m.admit(c, in); err != nil {
		m.refuse(r, err)
		return
	}
	err := m.guard(func() error {
		// Below a root that was read nothing can be appended ([R5]), and no root can be
		// written while the state is too large.
		if m.refusing(in) && m.inherited {
			return h.tooLarge
		}
		d, err := m.decision(c, now)
		if err != nil {
			return err
		}
		if m.refusing(in) && !d.Frees {
			return h.tooLarge
		}
		// Refusals are recorded; a client that asks in vain again and again must not fill
		// the history.
		if d.Refused && !m.countRefusal(in.Now) {
			return &RateLimitedError{Reason: "too many refusals in a second", RetryAfter: time.Second}
		}
		if d.Refused && planted.Bug(planted.RefuseWithoutRecord) {
			r.Reply = Reply{Outcome: m.env.Kind.Outcome(d.Events), Sequence: m.sequence, Time: now}
			return nil
		}
		return m.record(r, d.Events, now)
	})
	if err != nil {
		m.refuse(r, err)
		return
	}
	m.wait(r, true)
	// A root is due. Commands wait until nothing is in flight ([R10]).
	if m.sequence-m.base >= uint64(m.env.Config.SnapshotEvery) && !m.bare {
		h.drain = drainRollover
	}
}

// repeat answers a command that was executed before.
func (m *Machine) repeat(r *Request, first remembered) {
	if (first.fingerprint^uint32(r.Command.Fingerprint))&^1 != 0 {
		m.refuse(r, ErrIDReused)
		return
	}
	r.Reply = Reply{
		Outcome: first.outcome, Sequence: first.sequence,
		Time: time.UnixMilli(first.executedAt).UTC(), Duplicate: true,
	}
	m.wait(r, first.sequence > m.durable) // what becomes of the first is not known before that
}

// admit says whether a command that is not in the window may be executed. That it was not executed before follows
// from the horizon alone. The clock only keeps out of the window what clients issue in the future.
func (m *Machine) admit(c *Command, in Input) error {
	w, config := &m.hot.window, &m.env.Config.Window
	issued, now := c.IssuedAt.UnixMilli(), in.Now.UnixMilli()
	switch {
	case c.Stamped && issued <= w.horizon.gateways && !planted.Bug(planted.IgnoreStamp):
		next := w.horizon.gateways + 1
		if planted.Bug(planted.ForgottenStamp) {
			next--
		}
		return &StampError{At: time.UnixMilli(next).UTC()}
	case c.Stamped && planted.Bug(planted.StampByClock) && issued < now-config.MaxAge.Milliseconds():
		return ErrTooOld
	case c.Stamped && planted.Bug(planted.StampAhead) && c.IssuedAt.After(in.Now.Add(config.MaxAhead)):
		return ErrIssuedAhead
	case c.Stamped: // No clock is asked: which one is wrong, the gateway's or this one, is not known.
	case c.IssuedAt.After(in.Now.Add(config.MaxAhead)):
		return fmt.Errorf("%w: issued at %s, the server's time is %s", ErrIssuedAhead,
			c.IssuedAt.UTC().Format(time.RFC3339Nano), in.Now.UTC().Format(time.RFC3339Nano))
	case issued <= w.horizon.clients && (w.count >= config.MaxCommands || !planted.Bug(planted.TrustRoom)):
		return ErrTooOld
	}
	if wait := w.full(now, config); wait > 0 {
		return &RateLimitedError{
			Reason:     fmt.Sprintf("%d commands are remembered, and too young to be forgotten", w.count),
			RetryAfter: wait,
		}
	}
	return nil
}

// decision asks the domain and checks what it says.
func (m *Machine) decision(c *Command, now time.Time) (Decision, error) {
	// Decide may panic: callers run it under guard.
	d := m.hot.state.Decide(now, c.Payload)
	if len(d.Events) == 0 {
		return d, fmt.Errorf("%w: %T produced no event", ErrPanic, c.Payload)
	}
	for i := range d.Events {
		e := &d.Events[i]
		e.Time = now
		if len(e.Data) > m.env.Config.MaxEventBytes {
			return d, fmt.Errorf("%w: %s has %d bytes, the limit is %d",
				ErrRejected, e.Mapper, len(e.Data), m.env.Config.MaxEventBytes)
		}
	}
	return d, nil
}

// countRefusal reports whether another refusal may be recorded in this second of the wall clock. The
// time of events would not do: once the clock was ahead, it stands still until the clock has caught up.
func (m *Machine) countRefusal(now time.Time) bool {
	h := m.hot
	if s := now.Unix(); s != h.refusalSecond {
		h.refusalSecond, h.refusals = s, 0
	}
	h.refusals++
	return h.refusals <= m.env.Config.RefusalsPerSecond
}

// record evolves the state and adds the command to the window and to the next mutation.
func (m *Machine) record(r *Request, events []Event, now time.Time) error {
	h, c := m.hot, &r.Command
	// The outcome is made before the events change the state, by the same function that a
	// replay uses.
	outcome := m.env.Kind.Outcome(events)
	for i := range events {
		h.state.Evolve(events[i])
	}
	for i := range events {
		e := &events[i]
		// Numbered here and nowhere else: the sequence has no gap, and the records of a
		// command know how many they are ([R4]).
		m.sequence++
		rec := persistence.Record{
			Sequence: m.sequence, Index: uint32(i), Count: uint32(len(events)),
			CommandID: c.ID, Principal: c.Principal, Reason: c.Reason,
			AggregateID: e.AggregateID, Order: e.Order, Time: now,
			Mapper: e.Mapper, Header: e.Header, Data: e.Data,
		}
		if i == 0 {
			rec.Fingerprint, rec.IssuedAt = c.stored(), time.UnixMilli(c.IssuedAt.UnixMilli()).UTC()
		}
		h.group.Records = append(h.group.Records, rec)
		h.groupBytes += rec.Size(m.aggregate)
	}
	m.lastTime = now.UnixMilli()
	if m.oldest == 0 && !m.bare { // below a bare root, commands that add to the state bring the next one
		m.oldest = m.lastTime
	}
	h.remember(c.ID, uint32(c.stored()), c.IssuedAt.UnixMilli(), m.lastTime, m.sequence, outcome, &m.env.Config.Window)
	r.Reply = Reply{Outcome: outcome, Sequence: m.sequence, Time: now}
	return nil
}

// remember adds a command to the window. Recovery does so as well, so that both make the
// same window.
func (h *hot) remember(
	id string, fingerprint uint32, issued, executed int64, sequence uint64, outcome []byte, c *WindowConfig,
) {
	var space [1 + maxIDLength]byte
	h.window.add(remembered{
		id: packID(space[:0], id), fingerprint: fingerprint, issuedAt: issued,
		executedAt: executed, sequence: sequence, outcome: outcome,
	}, c)
}

// guard runs the domain's code. A panic fails the request alone; since the state may be half changed,
// what was decided before is finished and then the aggregate recovers from the store.
func (m *Machine) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.hot.drain = drainRestart
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return f()
}
