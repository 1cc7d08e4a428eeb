// Package actorstest has a tiny aggregate kind, a ledger of amounts under a limit, that tests and
// benchmarks of the runtime, the simulator and the stores use. It has all that a kind can have, and
// nothing of licences: what passes with it shows that the runtime knows no domain.
package actorstest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/actors"
	"licensed/internal/planted"
	"licensed/persistence"
)

// Add asks to add an amount to the ledger; it is refused if the total would exceed the limit.
type Add struct {
	Amount uint64
	// Split records the amount as that many events of the command (at least 1).
	Split int
	// Pad adds this many bytes to each event, which do not compress.
	Pad int
	// Number makes the amount a fact that a device, 0 to 7, reports: it is never refused, and adds nothing unless the
	// number is higher than all of the device before it.
	Number uint64
	Device uint8
	// Frees is Decision.Frees, where the amount is added.
	Frees bool
	// Panic makes Decide panic; PanicEvolve makes Evolve do so.
	Panic, PanicEvolve bool
}

// Added is the event of an accepted Add.
type Added struct{ Amount uint64 }

// Reported is the event of a fact that was not reported before.
type Reported struct{ Amount, Number, Device uint64 }

// Refused is the event of a refused Add.
type Refused struct{ Amount, Total uint64 }

// Total asks for the total.
type Total struct{}

// Ledger is the kind. Limit bounds the total of each aggregate; 0 means none.
type Ledger struct{ Limit uint64 }

type ledger struct {
	id    string
	limit uint64
	total uint64
	order uint64
	// highest has the highest number of each device.
	highest [8]uint64
}

const (
	mapperAdded    = "Added/1"
	mapperReported = "Reported/1"
	mapperRefused  = "Refused/1"
	mapperSnapshot = "LedgerSnapshot/1"
	mapperNumbered = "LedgerSnapshot/2" // with the highest numbers
	poison         = 1 << 62            // an amount that makes Evolve panic
)

var _ actors.Kind = Ledger{}

// Name implements actors.Kind.
func (Ledger) Name() string { return "Ledger" }

// New implements actors.Kind.
func (k Ledger) New(id string) actors.Aggregate { return &ledger{id: id, limit: k.Limit} }

// Restore implements actors.Kind.
func (k Ledger) Restore(id string, s actors.Snapshot) (actors.Aggregate, error) {
	want := 2
	if s.Mapper == mapperNumbered {
		want = 10
	}
	n, err := numbers(s.Data, want)
	if err != nil || s.Mapper != mapperSnapshot && s.Mapper != mapperNumbered {
		return nil, fmt.Errorf("ledger snapshot %s: %w", s.Mapper, persistence.ErrCorrupt)
	}
	l := &ledger{id: id, limit: k.Limit, total: n[0], order: n[1]}
	copy(l.highest[:], n[2:])
	return l, nil
}

// DecodeEvent implements actors.Kind.
func (Ledger) DecodeEvent(mapper string, _ persistence.Header, data []byte) (any, error) {
	switch mapper {
	case mapperAdded:
		n, err := numbers(data, 1)
		if err != nil {
			return nil, err
		}
		return Added{n[0]}, nil
	case mapperReported:
		n, err := numbers(data, 3)
		if err != nil {
			return nil, err
		}
		return Reported{n[0], n[1], n[2]}, nil
	case mapperRefused:
		n, err := numbers(data, 2)
		if err != nil {
			return nil, err
		}
		return Refused{n[0], n[1]}, nil
	default:
		return nil, fmt.Errorf("ledger event %s: %w", mapper, persistence.ErrCorrupt)
	}
}

// CheckForeign implements actors.Kind.
func (l Ledger) CheckForeign(r *persistence.Record) error {
	_, err := l.DecodeEvent(r.Mapper, r.Header, r.Data)
	return err
}

// Outcome implements actors.Kind: the amount added by the command, or "refused".
func (Ledger) Outcome(events []actors.Event) []byte {
	var sum uint64
	for _, e := range events {
		switch v := e.Value.(type) {
		case Added:
			sum += v.Amount
		case Reported:
			sum += v.Amount
		case Refused:
			return []byte("refused")
		}
	}
	return binary.AppendUvarint(nil, sum)
}

func (l *ledger) Decide(_ time.Time, command any) actors.Decision {
	c := command.(Add)
	if c.Panic {
		panic("asked to")
	}
	if c.Number > 0 {
		return l.report(c)
	}
	if l.limit > 0 && l.total+c.Amount > l.limit {
		return actors.Decision{Refused: true, Events: []actors.Event{{
			AggregateID: "ledger", Order: l.order, Mapper: mapperRefused,
			Data: encode(c.Amount, l.total), Value: Refused{c.Amount, l.total},
		}}}
	}
	split := max(c.Split, 1)
	events := make([]actors.Event, split)
	for i := range events {
		amount := c.Amount / uint64(split)
		if i == 0 {
			amount += c.Amount % uint64(split)
		}
		if c.PanicEvolve {
			amount = poison
		}
		events[i] = actors.Event{
			AggregateID: "ledger", Order: l.order + uint64(i), Mapper: mapperAdded,
			Data: pad(encode(amount), c.Pad, l.id, l.order+uint64(i)), Value: Added{amount},
		}
	}
	return actors.Decision{Events: events, Frees: c.Frees}
}

// report decides a fact. One that was reported before adds 0.
func (l *ledger) report(c Add) actors.Decision {
	e := actors.Event{AggregateID: "ledger", Order: l.order, Mapper: mapperAdded, Data: encode(0), Value: Added{}}
	if c.Number > l.highest[c.Device] || planted.Bug(planted.CountRepeatedFact) {
		v := Reported{c.Amount, c.Number, uint64(c.Device)}
		e.Mapper, e.Data, e.Value = mapperReported, encode(v.Amount, v.Number, v.Device), v
	}
	return actors.Decision{Events: []actors.Event{e}}
}

func (l *ledger) Evolve(e actors.Event) {
	l.order++
	if r, ok := e.Value.(Reported); ok {
		l.total += r.Amount
		l.highest[r.Device%8] = max(l.highest[r.Device%8], r.Number)
	}
	if a, ok := e.Value.(Added); ok {
		l.total += a.Amount
		if a.Amount == poison {
			panic("poisoned")
		}
	}
}

func (l *ledger) Query(_ time.Time, query any) (any, error) {
	if _, ok := query.(Total); !ok {
		return nil, fmt.Errorf("ledger: unknown query %T", query)
	}
	return l.total, nil
}

func (l *ledger) Snapshot(time.Time) actors.Snapshot {
	if l.highest != [8]uint64{} {
		return actors.Snapshot{
			Mapper: mapperNumbered, Data: encode(append([]uint64{l.total, l.order}, l.highest[:]...)...),
		}
	}
	return actors.Snapshot{Mapper: mapperSnapshot, Data: encode(l.total, l.order)}
}

func encode(n ...uint64) []byte {
	b := make([]byte, 0, 10*len(n))
	for _, v := range n {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// pad appends n bytes that look random, others for each event of each ledger.
func pad(b []byte, n int, id string, order uint64) []byte {
	end := len(b) + n
	b = slices.Grow(b, n+8)
	for r := rand.NewPCG(xxhash.Sum64String(id), order); len(b) < end; {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:end]
}

func numbers(b []byte, count int) ([10]uint64, error) {
	var n [10]uint64
	for i := range count {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return n, fmt.Errorf("ledger: number %d: %w", i, persistence.ErrCorrupt)
		}
		n[i], b = v, b[size:]
	}
	return n, nil
}
