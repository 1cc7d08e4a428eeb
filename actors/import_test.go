package actors_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/persistence/tiered"
)

// imported is an event of another cluster's ledger, an hour after the one before.
func imported(sequence, amount uint64) persistence.Record {
	at := machineEpoch.AddDate(-9, 0, 0).Add(time.Duration(sequence) * time.Hour)
	return persistence.Record{
		Sequence: sequence, Count: 1, CommandID: fmt.Sprintf("old%d", sequence), Fingerprint: amount, IssuedAt: at,
		AggregateID: "ledger",
		Order:       sequence - 1,
		Time:        at,
		Mapper:      "Added/1",
		Data:        binary.AppendUvarint(nil, amount),
	}
}

func stretch(after, n uint64) []persistence.Record {
	var records []persistence.Record
	for s := after + 1; s <= after+n; s++ {
		records = append(records, imported(s, s))
	}
	return records
}

// imports reads a line "import id=i1 after=0 n=3", with what is wrong with the records, if anything.
func (s *session) imports(t *testing.T, d *datadriven.TestData) *actors.Request {
	var id string
	var after, n uint64
	d.ScanArgs(t, "id", &id)
	d.ScanArgs(t, "after", &after)
	d.MaybeScanArgs(t, "n", &n)
	i := &actors.Import{After: after, Records: stretch(after, n), End: d.HasArg("end")}
	if d.HasArg("torn") {
		i.Records[n-1].Count = 2
	}
	if d.HasArg("undecodable") {
		i.Records[n-1].Mapper = "Added/99"
	}
	if d.HasArg("back") {
		i.Records[n-1].Time = i.Records[0].Time.Add(-time.Minute)
	}
	if d.HasArg("ahead") {
		i.Records[n-1].Time = s.now.Add(time.Hour)
	}
	if d.HasArg("nameless") {
		i.Records[n-1].CommandID = ""
	}
	if d.HasArg("poison") {
		i.Records[n-1].Data = binary.AppendUvarint(nil, 1<<62)
	}
	r := &actors.Request{Import: i}
	s.requests[r] = id
	return r
}

func importing(r *persistence.Root) string {
	if r.Snapshot[0] == 2 {
		return ", importing, as of " + r.Time.Format(time.DateTime)
	}
	return ""
}

// TestImport imports a history with interruptions of every kind and compares it with the original.
func TestImport(t *testing.T) {
	store := memory.New()
	ctx := t.Context()
	var s *setup
	restart := func(epoch uint64) {
		s = start(t, store, func(o *actors.Options) { o.Config.SnapshotEvery = 7 })
		s.authority.epoch.Store(epoch)
	}
	restart(1)
	all := stretch(0, 100)
	send := func(from, to uint64) (h actors.Head, err error) {
		for { // An activation that lost its shard may still be ending.
			h, err = s.Import(ctx, "Bayley", actors.Import{After: from, Records: all[from:to]})
			if !errors.Is(err, actors.ErrNotOwner) {
				return h, err
			}
		}
	}
	for at := uint64(0); at < 100; at += 10 {
		if h, err := send(at, at+10); err != nil || h.Sequence != at+10 {
			t.Fatalf("at %d: %v, %v", at, h.Sequence, err)
		}
		if h, err := send(at, at+10); !errors.Is(err, actors.ErrNotContinued) || h.Sequence != at+10 {
			t.Fatalf("again at %d: %v, %v", at, h.Sequence, err)
		}
		if _, err := s.Execute(ctx, "Bayley", add("early", 1)); !errors.Is(err, actors.ErrImporting) {
			t.Fatalf("a command at %d: %v", at, err)
		}
		if _, err := s.Query(ctx, "Bayley", actorstest.Total{}); !errors.Is(err, actors.ErrImporting) {
			t.Fatalf("a query at %d: %v", at, err)
		}
		switch at {
		case 20: // the actor goes
			if resident, left := s.Passivate(ctx, "Bayley"); !resident || !left {
				t.Fatalf("passivated: %t, %t", resident, left)
			}
		case 50: // the shard goes
			s.Drop(func(string) bool { return true })
			s.authority.epoch.Store(2)
		case 80: // the process goes
			restart(3)
		}
	}
	for range 2 { // the second one is a repeat
		if h, err := s.Import(ctx, "Bayley", actors.Import{After: 100, End: true}); err != nil || h.Sequence != 100 {
			t.Fatalf("end: %v, %v", h.Sequence, err)
		}
	}
	after := actors.Import{After: 100, Records: stretch(100, 1)}
	if _, err := s.Import(ctx, "Bayley", after); !errors.Is(err, actors.ErrNotContinued) {
		t.Errorf("after the end: %v", err)
	}
	if r, err := s.Execute(ctx, "Bayley", add("new", 1)); err != nil || r.Sequence != 101 {
		t.Errorf("a command after the end: %+v, %v", r, err)
	}
	if got := s.total(t, "Bayley"); got != 5051 {
		t.Errorf("total %d", got)
	}
	check(t, s, "Bayley", 100, func(r *persistence.Record) {
		want := imported(r.Sequence, r.Sequence)
		if string(persistence.AppendRecord(nil, r)) != string(persistence.AppendRecord(nil, &want)) {
			t.Errorf("record %+v\nwant   %+v", r, want)
		}
	})
}

// check replays a history and compares it with its roots and with the live state.
func check(t *testing.T, s *setup, id string, through uint64, each func(*persistence.Record)) {
	t.Helper()
	ctx := t.Context()
	a, err := s.Query(ctx, id, actors.SnapshotQuery{})
	if err != nil {
		t.Fatal(err)
	}
	roots := map[uint64][]persistence.Root{}
	var live persistence.Root
	all, err := s.store.ReadRoots(ctx, a.Head.Partition.Aggregate, persistence.RootKey{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		roots[r.Base] = append(roots[r.Base], r)
		if r.Key == a.Head.Partition.RootKey {
			live = r
		}
	}
	replay := actors.NewReplay(actorstest.Ledger{}, id)
	seen := 0
	compare := func() {
		for _, r := range roots[replay.Sequence()] {
			seen++
			if err := replay.Check(&r); err != nil {
				t.Errorf("root %s: %v", r.Key, err)
			}
		}
	}
	compare()
	err = tiered.NewReader(s.store, nil, nil).ReadAll(ctx, a.Head, persistence.HistoryRange{},
		func(r *persistence.Record) error {
			if r.Sequence <= through {
				each(r)
			}
			if err := replay.Apply(r); err != nil {
				return err
			}
			compare()
			return nil
		})
	if err != nil {
		t.Error(err)
	}
	if seen < len(all) {
		t.Errorf("%d of %d roots were compared", seen, len(all))
	}
	if err := replay.CheckSnapshot(a.Value.(actors.Snapshot), live.Time); err != nil {
		t.Errorf("live state: %v", err)
	}
}

// TestReplayNotices changes one thing each, and the comparison must fail.
func TestReplayNotices(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Config.SnapshotEvery = 5
		o.Config.Window.MaxCommands = 3
	})
	for i := range uint64(20) {
		c := add(fmt.Sprint(i), i)
		c.IssuedAt = c.IssuedAt.Add(time.Duration(i) * time.Second)
		if _, err := s.Execute(t.Context(), "a", c); err != nil {
			t.Fatal(err)
		}
	}
	check(t, s, "a", 0, nil)
	a, err := s.Query(t.Context(), "a", actors.HeadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.store.ReadRoot(t.Context(), a.Head.Partition.RootKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*persistence.Record)
		says   string
	}{
		{"nothing", func(*persistence.Record) {}, ""},
		{"amount", func(r *persistence.Record) { r.Data = []byte{99} }, "state"},
		{"command id", func(r *persistence.Record) { r.CommandID = "other" }, "remembered"},
		{"fingerprint", func(r *persistence.Record) { r.Fingerprint++ }, "remembered"},
		{"sequence", func(r *persistence.Record) { r.Sequence++ }, "follows"},
		{"mapper", func(r *persistence.Record) { r.Mapper = "Unheard/1" }, "Unheard"},
		{"issued", func(r *persistence.Record) { r.IssuedAt = r.IssuedAt.Add(time.Hour) }, "remembered"},
	} {
		replay := actors.NewReplay(actorstest.Ledger{}, "a")
		err := tiered.NewReader(s.store, nil, nil).ReadAll(t.Context(), a.Head,
			persistence.HistoryRange{Through: root.Base},
			func(r *persistence.Record) error {
				if r.Sequence == root.Base-1 {
					test.change(r)
				}
				return replay.Apply(r)
			})
		if err == nil {
			err = replay.Check(&root)
		}
		switch {
		case test.says == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.says != "" && (!errors.Is(err, persistence.ErrCorrupt) || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// A forgotten command's issue time is the horizon.
	replay := actors.NewReplay(actorstest.Ledger{}, "a")
	err = tiered.NewReader(s.store, nil, nil).ReadAll(t.Context(), a.Head,
		persistence.HistoryRange{Through: root.Base}, func(r *persistence.Record) error {
			if r.Sequence == 1 {
				r.IssuedAt = r.IssuedAt.Add(24 * time.Hour)
			}
			return replay.Apply(r)
		})
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Check(&root); !errors.Is(err, persistence.ErrCorrupt) ||
		!strings.Contains(err.Error(), "horizon") {
		t.Errorf("horizon: %v", err)
	}
}

// TestReplayFromSnapshot starts in the middle of a history.
func TestReplayFromSnapshot(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) { o.Config.SnapshotEvery = 5 })
	for i := range uint64(12) {
		if _, err := s.Execute(t.Context(), "a", add(fmt.Sprint(i), i)); err != nil {
			t.Fatal(err)
		}
	}
	a, err := s.Query(t.Context(), "a", actors.HeadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.store.ReadRoot(t.Context(), a.Head.Parent)
	if err != nil || root.Base == 0 {
		t.Fatal(root, err)
	}
	replay := actors.NewReplay(actorstest.Ledger{}, "a")
	if err := replay.Restore(&root); err != nil || replay.Sequence() != root.Base {
		t.Fatalf("at %d: %v", replay.Sequence(), err)
	}
	err = tiered.NewReader(s.store, nil, nil).ReadAll(t.Context(), a.Head,
		persistence.HistoryRange{After: root.Base}, replay.Apply)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := replay.Aggregate().Query(time.Now(), actorstest.Total{}); err != nil || got != uint64(66) {
		t.Errorf("total %v, %v", got, err)
	}
	root.Snapshot = []byte{9}
	if err := replay.Restore(&root); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("a broken snapshot: %v", err)
	}
}

func TestPassivate(t *testing.T) {
	s := start(t, memory.New(), nil)
	if resident, left := s.Passivate(t.Context(), "a"); resident || !left {
		t.Errorf("never seen: %t, %t", resident, left)
	}
	s.total(t, "a")
	if resident, left := s.Passivate(t.Context(), "a"); !resident || !left {
		t.Errorf("idle: %t, %t", resident, left)
	}
	if n := s.Stats().Resident; n != 0 {
		t.Errorf("%d are resident", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.total(t, "b")
	if resident, _ := s.Passivate(ctx, "b"); !resident {
		t.Error("not resident")
	}
}

// TestAppended hears of every append once it is durable.
func TestAppended(t *testing.T) {
	heard := make(chan string, 10)
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Listener.Appended = func(i actors.AppendedInfo) { heard <- i.ID }
	})
	s.total(t, "a")
	if _, err := s.Execute(t.Context(), "b", add("1", 1)); err != nil {
		t.Fatal(err)
	}
	if id := <-heard; id != "b" {
		t.Errorf("heard of %s", id)
	}
}
