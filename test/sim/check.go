package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/doctor"
	"licensed/persistence/tiered"
)

// readHead is a query that was answered; the history up to its head must be a prefix of the final one.
type readHead struct{ op *op }

// command is one command of the final history.
type command struct {
	id      string
	last    uint64
	outcome []byte
	events  []actors.Event
}

// history is the final history of an aggregate.
type history struct {
	commands map[string]*command
	totals   []uint64 // after each sequence
	records  []persistence.Record
	facts    map[[2]uint64]bool // devices and numbers that count
}

// fail notes the first violation.
func (w *world) fail(format string, args ...any) {
	if w.counts.Violation == "" {
		w.counts.Violation = fmt.Sprintf(format, args...)
		w.trace("VIOLATION %s", w.counts.Violation)
	}
}

// check reads every aggregate's history and compares it with what clients were told.
func (w *world) check() {
	histories := map[string]*history{}
	for i := range w.params.Aggregates {
		id := aggregateName(i)
		h, err := w.finalHistory(id)
		if w.isForgotten(id, err) {
			continue
		}
		if err != nil {
			w.fail("history of %s: %v", id, err)
			return
		}
		histories[id] = h
	}
	for _, o := range w.ops {
		if h := histories[o.aggregate]; h != nil {
			w.checkOp(o, h)
		}
	}
	w.checkForgotten()
	w.checkOrder()
	for _, h := range w.heads {
		if known := histories[h.op.aggregate]; known != nil {
			w.checkHead(h.op, known)
		}
	}
	for _, r := range w.readings {
		r.check(w, histories[r.aggregate])
	}
	for _, i := range w.importers {
		i.check(histories[i.aggregate])
	}
}

// finalHistory asks the owner for the head, as a reader does, and folds the history independently.
func (w *world) finalHistory(id string) (*history, error) {
	var answer *actors.Answer
	var forgotten error
	for attempt := 0; attempt < 200 && answer == nil && forgotten == nil; attempt++ {
		n := w.authority.guess(w.shardOf(id))
		if n != nil && n.up {
			n.request(id, &actors.Request{Query: actorstest.Total{}}, func(r *actors.Request) {
				if r.Err == nil {
					answer = &r.Answer
				} else if errors.Is(r.Err, actors.ErrForgotten) {
					forgotten = r.Err
				}
			})
		}
		w.run(w.now + 50*millisecond)
	}
	if forgotten != nil {
		return nil, forgotten
	}
	if answer == nil {
		return nil, fmt.Errorf("no answer after the world was healed")
	}
	h := &history{commands: map[string]*command{}, facts: map[[2]uint64]bool{}}
	err := w.reader().ReadAll(context.Background(), answer.Head, persistence.HistoryRange{},
		func(r *persistence.Record) error {
			return h.add(r, w.params.Limit)
		})
	if err != nil {
		return nil, err
	}
	if total := h.total(); answer.Value.(uint64) != total {
		return nil, fmt.Errorf("the owner says %d, its history adds up to %d", answer.Value, total)
	}
	return h, w.examine(id, answer.Head)
}

// examine has the product's doctor look at what all replicas have together: the chain of roots, and every
// snapshot that is left against a replay.
func (w *world) examine(id string, head persistence.Head) error {
	d := doctor.Doctor{
		Hot: final{w: w}, Cold: final{w: w},
		NewReplay: func(string) doctor.Replay { return actors.NewReplay(w.params.Kind, id) },
	}
	report, err := d.Examine(context.Background(), head, nil, nil)
	if err != nil {
		return err
	}
	for _, f := range report.Findings {
		if f.Severity == doctor.Error {
			return fmt.Errorf("doctor: %s: %s", f.Check, f.Message)
		}
	}
	w.counts.Snapshots += report.Snapshots
	return nil
}

func (h *history) total() uint64 {
	if len(h.totals) == 0 {
		return 0
	}
	return h.totals[len(h.totals)-1]
}

// add folds one record into the history, by rules of its own.
func (h *history) add(r *persistence.Record, limit uint64) error {
	n := len(h.records)
	if r.Sequence != uint64(n)+1 || r.Order != uint64(n) {
		return fmt.Errorf("record %d has sequence %d and order %d", n, r.Sequence, r.Order)
	}
	if n > 0 && r.Time.Before(h.records[n-1].Time) {
		return fmt.Errorf("record %d is before the one before it", r.Sequence)
	}
	v, err := actorstest.Ledger{}.DecodeEvent(r.Mapper, r.Header, r.Data)
	if err != nil {
		return err
	}
	c := h.commands[r.CommandID]
	switch {
	case r.Index == 0 && c != nil:
		return fmt.Errorf("command %s is in the history twice, at %d and %d", r.CommandID, c.last, r.Sequence)
	case r.Index == 0:
		c = &command{id: r.CommandID}
		h.commands[r.CommandID] = c
	case c == nil || c.last != r.Sequence-1:
		return fmt.Errorf("command %s is torn at %d", r.CommandID, r.Sequence)
	}
	total := h.total()
	switch v := v.(type) {
	case actorstest.Added:
		if total += v.Amount; total > limit && v.Amount > 0 { // a repeated fact adds 0
			return fmt.Errorf("command %s raises the total to %d, above the limit %d", r.CommandID, total, limit)
		}
	case actorstest.Reported:
		total += v.Amount
		if err := h.report(v); err != nil {
			return fmt.Errorf("command %s: %w", r.CommandID, err)
		}
	case actorstest.Refused:
		if v.Total != total || total+v.Amount <= limit {
			return fmt.Errorf("command %s was refused for a total of %d, which is %d", r.CommandID, v.Total, total)
		}
	}
	c.last = r.Sequence
	c.events = append(c.events, actors.Event{Value: v})
	if r.Index == r.Count-1 {
		c.outcome = actorstest.Ledger{}.Outcome(c.events)
	}
	h.totals = append(h.totals, total)
	h.records = append(h.records, *r)
	return nil
}

// checkOp compares what a client was told of one op.
func (w *world) checkOp(o *op, h *history) {
	c := h.commands[o.id]
	switch {
	case o.kind == opRead && o.acked:
		at := o.answer.Head.Sequence
		if at > uint64(len(h.totals)) {
			w.fail("read of %s was told of sequence %d, the history ends at %d", o.aggregate, at, len(h.totals))
		} else if at > 0 && h.totals[at-1] != o.answer.Value.(uint64) || at == 0 && o.answer.Value.(uint64) != 0 {
			w.fail("read of %s at %d was told %d, the history says otherwise", o.aggregate, at, o.answer.Value)
		}
	case o.kind != opAdd:
		if c != nil {
			w.fail("%s only asked, and is in the history", o.id)
		}
	case o.acked && c == nil:
		w.fail("%s was acknowledged at %d and is not in the history", o.id, o.reply.Sequence)
	case o.acked && o.add.Number > 0 && !h.facts[[2]uint64{uint64(o.add.Device), o.add.Number}]:
		w.fail("%s was acknowledged, and fact %d of device %d is not in the history", o.id, o.add.Number, o.add.Device)
	case o.acked && c.last != o.reply.Sequence:
		w.fail("%s was acknowledged at %d and is at %d", o.id, o.reply.Sequence, c.last)
	case o.acked && !bytes.Equal(c.outcome, o.reply.Outcome):
		w.fail("%s was told %x and is recorded as %x", o.id, o.reply.Outcome, c.outcome)
	case !o.acked && o.unsettled == 0 && c != nil && !w.repeated(o):
		w.fail("%s was told that it was not executed (%v), and is in the history at %d", o.id, o.refusal, c.last)
	}
}

// repeated reports whether another op has the same id.
func (w *world) repeated(o *op) bool {
	for _, other := range w.ops {
		if other != o && other.id == o.id && other.aggregate == o.aggregate {
			return true
		}
	}
	return false
}

// checkOrder checks that what ended before something else began comes before it.
func (w *world) checkOrder() {
	type point struct {
		o   *op
		seq uint64
	}
	byAggregate := map[string][]point{}
	for _, o := range w.ops {
		if !o.acked || o.kind == opValidate {
			continue
		}
		p := point{o, o.reply.Sequence}
		if o.kind == opRead {
			p.seq = o.answer.Head.Sequence
		}
		byAggregate[o.aggregate] = append(byAggregate[o.aggregate], p)
	}
	for i := range w.params.Aggregates {
		points := byAggregate[string(rune('a'+i))]
		for _, a := range points {
			for _, b := range points {
				if a.o.ended < b.o.began && b.seq < a.seq && !w.repeated(b.o) {
					w.fail("%s ended at %d before %s began, whose sequence is %d", a.o.id, a.seq, b.o.id, b.seq)
				}
			}
		}
	}
}

// reader reads what all replicas have together.
func (w *world) reader() *tiered.Reader { return tiered.NewReader(final{w: w}, final{w: w}, nil) }

// checkHead reads the history up to an answered head, whose roots may be long gone from the top.
func (w *world) checkHead(o *op, h *history) {
	n := 0
	err := w.reader().ReadAll(context.Background(), o.answer.Head, persistence.HistoryRange{},
		func(r *persistence.Record) error {
			if n >= len(h.records) || h.records[n].CommandID != r.CommandID || h.records[n].Sequence != r.Sequence {
				return fmt.Errorf("record %d is not that of the final history", r.Sequence)
			}
			n++
			return nil
		})
	if err != nil {
		w.fail("history of %s as it was at %d: %v", o.aggregate, o.answer.Head.Sequence, err)
	}
}
