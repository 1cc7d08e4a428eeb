package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/tiered"
)

// importer brings a history from elsewhere to an aggregate, in stretches of whole commands. What it is
// not sure of it sends again, and now and then what it is sure of, too. Clients may be present before it.
type importer struct {
	w         *world
	aggregate string
	records   []persistence.Record
	commands  []int // where each command ends
	at        int   // records that the aggregate has, as far as is known
	acked     int   // records that it said it has
	lost      bool  // the aggregate has a history of its own
	done      bool
}

func (w *world) startImport(aggregate string) {
	i := &importer{w: w, aggregate: aggregate}
	at, total := epochStart.AddDate(-1, 0, 0), uint64(0)
	for n := 3 + w.IntN(15); n > 0; n-- {
		at = at.Add(time.Duration(w.IntN(1000)) * time.Second)
		count := 1 + w.IntN(3)
		for j := range count {
			amount := min(w.Uint64N(3), w.params.Limit-total)
			total += amount
			r := persistence.Record{
				Sequence: uint64(len(i.records)) + 1, Index: uint32(j), Count: uint32(count),
				CommandID:   fmt.Sprintf("old-%s%d", aggregate, n),
				AggregateID: "ledger",
				Order:       uint64(len(i.records)),
				Time:        at,
				Mapper:      "Added/1", Data: binary.AppendUvarint(nil, amount),
			}
			if j == 0 {
				r.Fingerprint, r.IssuedAt = w.Uint64(), at
			}
			i.records = append(i.records, r)
		}
		i.commands = append(i.commands, len(i.records))
	}
	w.importers = append(w.importers, i)
	w.counts.Imports++
	w.after(0, "import "+aggregate, i.attempt)
}

// awaitsImport says that clients had better not change an aggregate yet; most of them heed it.
func (w *world) awaitsImport(aggregate string) bool {
	for _, i := range w.importers {
		if i.aggregate == aggregate && i.acked == 0 && !i.done {
			return w.now < 3*second && w.Float64() < 0.9
		}
	}
	return false
}

// attempt sends a stretch: the next one, or one that was sent before.
func (i *importer) attempt() {
	w := i.w
	from := i.at
	if w.chance(0.1) { // again
		from = i.boundary(w.IntN(i.at + 1))
	}
	s := &actors.Import{After: uint64(from)}
	if from < len(i.records) {
		s.Records = i.records[from:i.boundary(from+1+w.IntN(8))]
	} else {
		s.End = true
	}
	settled := false
	request := func(*node) *actors.Request { c := *s; return &actors.Request{Import: &c} }
	what := fmt.Sprintf("import %s after %d", i.aggregate, from)
	w.deliver(w.owner(i.aggregate), i.aggregate, what, request, func(r *actors.Request) {
		if !settled {
			settled = true
			i.told(s, r)
			i.again()
		}
	})
	if w.chance(w.params.DuplicateMessage) {
		w.deliver(w.owner(i.aggregate), i.aggregate, what, request, func(*actors.Request) {})
	}
	w.after(w.params.ClientTimeout, "timeout of "+what, func() {
		if !settled {
			settled = true
			i.again()
		}
	})
}

// boundary returns the first end of a command that is not before n.
func (i *importer) boundary(n int) int {
	if n == 0 {
		return 0
	}
	for _, end := range i.commands {
		if end >= n {
			return end
		}
	}
	return len(i.records)
}

func (i *importer) again() {
	if !i.done {
		i.w.after(i.w.between(millisecond, 40*millisecond), "import continues", i.attempt)
	}
}

// told processes the answer to a stretch.
func (i *importer) told(s *actors.Import, r *actors.Request) {
	w, head := i.w, int(r.Answer.Head.Sequence)
	switch {
	case r.Err == nil:
		w.counts.Stretches++
		if want := int(s.After) + len(s.Records); head != want {
			w.fail("import of %s up to %d was acknowledged at %d", i.aggregate, want, head)
		}
		i.acked = max(i.acked, head)
		i.at, i.done = i.acked, s.End
	case errors.Is(r.Err, actors.ErrForgotten):
		w.noteForgotten(i.aggregate)
		i.done = true
	case errors.Is(r.Err, actors.ErrNotContinued) && head < i.acked:
		w.fail("import of %s was acknowledged up to %d and ends at %d", i.aggregate, i.acked, head)
	case errors.Is(r.Err, actors.ErrNotContinued):
		i.compare(r.Answer.Head, head == int(s.After))
	case errors.Is(r.Err, actors.ErrNoHistory):
		w.fail("import of %s after %d: %v", i.aggregate, s.After, r.Err)
	}
}

// compare finds out whose history there is: the import's, as far as it is present, or another. Complete says
// that it takes no more.
func (i *importer) compare(head persistence.Head, complete bool) {
	w, there := i.w, int(min(head.Sequence, uint64(len(i.records))))
	w.spawn(nil, "compare import of "+i.aggregate, func(t *task) {
		n, same := 0, true
		err := tiered.NewReader(hotTier{t: t}, coldTier{t: t}, nil).ReadAll(context.Background(), head,
			persistence.HistoryRange{Through: uint64(there)}, func(r *persistence.Record) error {
				same = same && sameRecord(r, &i.records[n])
				n++
				return nil
			})
		switch {
		case err != nil, i.done: // it will be asked again
		case !same && i.acked > 0:
			w.fail("import of %s was acknowledged up to %d, and the history is another", i.aggregate, i.acked)
		case !same:
			i.done, i.lost = true, true
		case complete && there < len(i.records):
			w.fail("import of %s was completed at %d of %d", i.aggregate, there, len(i.records))
		case complete, int(head.Sequence) > len(i.records):
			i.done = true
		default:
			i.at = max(i.at, there) // what was unknown did happen
		}
	})
}

func sameRecord(a, b *persistence.Record) bool {
	return bytes.Equal(persistence.AppendRecord(nil, a), persistence.AppendRecord(nil, b))
}

// check demands that the aggregate's history begins with the import, or has nothing of it.
func (i *importer) check(h *history) {
	w := i.w
	switch {
	case h == nil: // it was forgotten
		return
	case i.lost:
		for j := range i.records {
			if c := h.commands[i.records[j].CommandID]; c != nil {
				w.fail("%s of an import that was refused is in the history at %d", c.id, c.last)
			}
		}
		return
	case !i.done:
		w.fail("the import of %s did not end", i.aggregate)
		return
	case len(h.records) < len(i.records):
		w.fail("%d events of %s were imported, there are %d", len(i.records), i.aggregate, len(h.records))
		return
	}
	for j := range i.records {
		if !sameRecord(&i.records[j], &h.records[j]) {
			w.fail("event %d of %s is not the one that was imported", j+1, i.aggregate)
			return
		}
	}
}
