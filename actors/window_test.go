package actors

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
)

// model is the window written plainly.
type model struct {
	entries []modelEntry
	horizon horizon
}

type modelEntry struct {
	id               string
	fingerprint      uint32
	issued, executed int64
	sequence         uint64
	outcome          string
}

func (m *model) add(e modelEntry, c *WindowConfig) {
	for len(m.entries) > 0 &&
		(len(m.entries) >= c.MaxCommands || m.entries[0].executed < e.executed-c.MaxAge.Milliseconds() &&
			m.entries[0].issued < e.issued-c.MaxAge.Milliseconds()) {
		if old := m.entries[0]; old.fingerprint%2 == 1 {
			m.horizon.gateways = max(m.horizon.gateways, old.issued)
		} else {
			m.horizon.clients = max(m.horizon.clients, old.issued)
		}
		m.entries = m.entries[1:]
	}
	m.entries = append(m.entries, e)
}

func (m *model) find(id string) *modelEntry {
	for i := range m.entries {
		if m.entries[i].id == id {
			return &m.entries[i]
		}
	}
	return nil
}

// TestWindowAgainstModel runs random commands through window and model, with recoveries on the way.
func TestWindowAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := WindowConfig{MaxAge: time.Minute, MaxCommands: 1 + r.IntN(100)}
		var w window
		var m model
		now, seq := int64(1_700_000_000_000), uint64(0)
		var ids []string
		for i := range 2000 {
			now += r.Int64N(1500)
			seq += 1 + r.Uint64N(5)
			id := fmt.Sprint("id", i)
			switch r.IntN(3) {
			case 0:
				id = uuid.NewString()
			case 1:
				id = fmt.Sprintf("%064d", i)
			}
			ids = append(ids, id)
			e := modelEntry{id, r.Uint32(), now - r.Int64N(10_000) + 2_000, now, seq, string(make([]byte, r.IntN(20)))}
			var space [1 + maxIDLength]byte
			w.add(remembered{
				id: packID(space[:0], id), fingerprint: e.fingerprint, issuedAt: e.issued,
				executedAt: e.executed, sequence: e.sequence, outcome: []byte(e.outcome),
			}, &c)
			m.add(e, &c)
			if r.IntN(50) == 0 {
				var err error
				if w, err = decodeWindow(slices.Concat(w.encode(nil))); err != nil {
					t.Fatal(err)
				}
			}
			compareWindow(t, &w, &m, ids[r.IntN(len(ids))])
			compareWindow(t, &w, &m, id)
		}
	}
}

func compareWindow(t *testing.T, w *window, m *model, id string) {
	t.Helper()
	got, ok := w.find(id)
	want := m.find(id)
	if w.count != len(m.entries) || w.horizon != m.horizon || ok != (want != nil) {
		t.Fatalf("%s: %d entries, horizon %+v, found %t; want %d, %+v, %t",
			id, w.count, w.horizon, ok, len(m.entries), m.horizon, want != nil)
	}
	if ok && (got.fingerprint != want.fingerprint || got.issuedAt != want.issued || got.executedAt != want.executed ||
		got.sequence != want.sequence || string(got.outcome) != want.outcome) {
		t.Fatalf("%s: got %+v, want %+v", id, got, want)
	}
}

func TestPackID(t *testing.T) {
	for _, id := range []string{
		"a", uuid.NewString(), "123E4567-E89B-12D3-A456-426614174000", "123e4567-e89b-12d3-a456-42661417400g",
		"123e4567ae89b-12d3-a456-426614174000", "------------------------------------",
	} {
		p := packID(nil, id)
		if _, parsed := uuid.Parse(id); len(id) == 36 && parsed == nil && id == bytesToLower(id) != (len(p) == 17) {
			t.Errorf("%s is packed to %d bytes", id, len(p))
		}
		for _, other := range []string{"b", uuid.NewString()} {
			if bytes.Equal(p, packID(nil, other)) {
				t.Errorf("%s and %s pack alike", id, other)
			}
		}
	}
}

func bytesToLower(s string) string { return string(bytes.ToLower([]byte(s))) }

func FuzzOpenFrame(f *testing.F) {
	var w window
	f.Add(frame(&w, nil, false))
	c := WindowConfig{MaxAge: time.Hour, MaxCommands: 10}
	for i := range 3 {
		w.add(remembered{
			id: packID(nil, fmt.Sprint(i)), issuedAt: 5, executedAt: int64(10 + i), sequence: uint64(i),
			outcome: []byte{1},
		}, &c)
	}
	w.add(remembered{id: packID(nil, uuid.NewString()), issuedAt: 20, executedAt: 20, sequence: 9}, &c)
	f.Add(frame(&w, []byte("state"), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		opened, err := openFrame(b)
		if err != nil {
			if !errors.Is(err, persistence.ErrCorrupt) {
				t.Fatalf("error %v is not ErrCorrupt", err)
			}
			return
		}
		w := opened.window
		again, err := openFrame(frame(&w, opened.state, opened.importing))
		if err != nil || again.window.count != w.count || again.window.horizon != w.horizon ||
			!bytes.Equal(opened.state, again.state) || opened.importing != again.importing {
			t.Fatalf("reads back as %+v, %v", again, err)
		}
		w.find("x")
		w.add(remembered{id: packID(nil, "x"), executedAt: w.lastTime, sequence: w.lastSeq},
			&WindowConfig{MaxAge: time.Hour, MaxCommands: 3})
	})
}
