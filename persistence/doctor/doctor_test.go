package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/doctor"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
)

const someone = "Bayley:LicenseAggregate"

// state is the replay of the histories of persistencetest, whose snapshots say where they were taken.
type state struct {
	at uint64
}

func (s *state) snapshot() string { return fmt.Sprintf("state at %d", s.at) }

func (s *state) Restore(r *persistence.Root) error {
	s.at = r.Base
	return s.Check(r)
}

func (s *state) Apply(r *persistence.Record) error {
	if strings.HasPrefix(r.Mapper, "Future") {
		return fmt.Errorf("event %d: %w", r.Sequence, persistence.ErrCorrupt)
	}
	s.at = r.Sequence
	return nil
}

func (s *state) Check(r *persistence.Root) error {
	if string(r.Snapshot) != s.snapshot() {
		return fmt.Errorf("snapshot %q, the events come to %q: %w", r.Snapshot, s.snapshot(), persistence.ErrCorrupt)
	}
	return nil
}

func (s *state) Pass(*persistence.Root) {}

// patient is a history on both tiers: 1 to 30 in one segment, 31 to 40 in another, the rest hot.
type patient struct {
	testing.TB
	*persistencetest.History
	hot  *memory.Store
	cold *memory.Archive
}

func newPatient(t testing.TB) *patient {
	p := &patient{TB: t, hot: memory.New(), cold: memory.NewArchive()}
	p.History = persistencetest.NewHistory(t, p.hot, someone)
	for i := range 3 {
		p.Roll(i == 1).Append(10).Stray(3)
	}
	p.Roll(false)
	p.archive()
	p.Append(10).Roll(true)
	p.archive()
	p.Append(10).Stray(2).Roll(false).Roll(false).Append(20)
	return p
}

func (p *patient) archive() {
	p.Helper()
	a := archive.New(archive.Options{Hot: p.hot, Cold: p.cold, Config: archive.DefaultConfig(), Now: p.Now})
	if _, err := a.Archive(p.Context(), p.Head(), true, func(context.Context) bool { return true }); err != nil {
		p.Fatal(err)
	}
}

func (p *patient) doctor() *doctor.Doctor {
	return &doctor.Doctor{
		Hot: p.hot, Cold: p.cold, Now: p.Now, Page: 2,
		NewReplay: func(string) doctor.Replay { return new(state) },
	}
}

// live compares with a state in memory as of the head.
func (p *patient) live(r doctor.Replay, root *persistence.Root) error {
	if root.Key != p.Head().Partition.RootKey {
		return fmt.Errorf("root %s", root.Key)
	}
	if s := r.(*state); s.at != p.Head().Sequence {
		return errors.New("the state differs from the replay of the events")
	}
	return nil
}

func (p *patient) examine(d *doctor.Doctor) doctor.Report {
	p.Helper()
	r, err := d.Examine(p.Context(), p.Head(), p.live, nil)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

func (p *patient) roots() []persistence.Root {
	p.Helper()
	roots, err := p.hot.ReadRoots(p.Context(), someone, persistence.RootKey{}, 1000)
	if err != nil {
		p.Fatal(err)
	}
	return roots
}

func (p *patient) put(r *persistence.Root) {
	p.Helper()
	p.hot.PutRoot(p.Context(), r, func(err error) {
		if err != nil {
			p.Fatal(err)
		}
	})
}

// rewrite changes a record of the open partition.
func (p *patient) rewrite(sequence uint64, change func(*persistence.Record)) {
	p.Helper()
	r := p.Records[sequence-1]
	change(&r)
	p.hot.Append(p.Context(),
		&persistence.Mutation{Partition: p.Head().Partition, Records: []persistence.Record{r}}, func(err error) {
			if err != nil {
				p.Fatal(err)
			}
		})
}

// lose deletes records of the open partition.
func (p *patient) lose(from, to uint64) {
	p.Helper()
	part := p.Head().Partition
	if err := p.hot.DeleteRecords(p.Context(), part); err != nil {
		p.Fatal(err)
	}
	for seq := p.Head().Base + 1; seq <= p.Head().Sequence; seq++ {
		if seq < from || seq > to {
			p.rewrite(seq, func(*persistence.Record) {})
		}
	}
}

// segment returns the name of the segment that has an event.
func (p *patient) segment(sequence uint64) string {
	p.Helper()
	for _, r := range p.roots() {
		if r.Archive != nil && r.Base < sequence && sequence <= r.Archive.Through {
			return r.Archive.Segment
		}
	}
	p.Fatalf("event %d is not archived", sequence)
	return ""
}

func TestHealthy(t *testing.T) {
	p := newPatient(t)
	r := p.examine(p.doctor())
	if r.Head != 70 || r.Events != 70 || r.Archived != 40 || r.Roots != 7 || r.Segments != 2 || !r.Live ||
		r.ReplayedFrom != 0 {
		t.Errorf("%+v", r)
	}
	if r.Snapshots != 3 { // at 40, 50 and 50; those before are stripped
		t.Errorf("%d snapshots were compared", r.Snapshots)
	}
	if len(r.Findings) > 0 {
		t.Errorf("findings %+v", r.Findings)
	}
}

// TestFindings damages one thing each.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(*patient)
		want   []string // severity, check, from-to, and what the message says
		live   bool     // the live state can be compared all the same
	}{
		{"a stray root", func(p *patient) {
			r := p.roots()[6]
			r.Incarnation, r.Key.Epoch, r.Key.Version = persistence.Incarnation{99}, 1, 99
			p.put(&r)
		}, nil, true},
		{"a root above the head", func(p *patient) {
			r := p.roots()[0]
			r.Key.Epoch++
			p.put(&r)
		}, []string{"note roots 0-0 is above the head"}, true},
		{"a missing record", func(p *patient) {
			p.lose(60, 61)
		}, []string{"error records 60-61 has no record 60"}, false},
		{"a corrupt record", func(p *patient) {
			p.hot.CorruptRecord(p.Head().Partition, 66)
		}, []string{"error records 66-66 corrupt"}, false},
		{"a corrupt root", func(p *patient) {
			p.hot.CorruptRoot(p.roots()[2].Key)
		}, []string{"error roots 1-50 the events before 51 cannot be found"}, true},
		{"a corrupt stray root", func(p *patient) {
			r := p.roots()[6]
			r.Incarnation, r.Key.Epoch, r.Key.Version = persistence.Incarnation{99}, 1, 99
			p.put(&r)
			p.hot.CorruptRoot(r.Key)
		}, []string{"warning roots 0-0 no part of the history"}, true},
		{"a snapshot that differs", func(p *patient) {
			r := p.roots()[1]
			r.Snapshot = []byte("state at 49")
			p.put(&r)
		}, []string{"error snapshots 50-50 state at 50"}, true},
		{"another incarnation", func(p *patient) {
			r := p.roots()[1]
			r.Incarnation = persistence.Incarnation{77}
			p.put(&r)
		}, []string{"error roots 51-50 its child names"}, true},
		{"a base above its child's", func(p *patient) {
			r := p.roots()[2]
			r.Base = 52
			p.put(&r)
		}, []string{
			"error roots 53-50 has base 52", "error records 1-50 above that of its child",
			"error snapshots 0-0 state at 40",
		}, false},
		{"a torn command", func(p *patient) {
			p.rewrite(70, func(r *persistence.Record) { r.Index, r.Count = 1, 3 })
		}, []string{"error records 70-70 first ones are missing", "error records 70-70 ends after 2 of 3"}, true},
		{"time going back", func(p *patient) {
			p.rewrite(65, func(r *persistence.Record) { r.Time = r.Time.Add(-time.Hour) })
		}, []string{"error records 65-65 before the event before it"}, true},
		{"an order number too high", func(p *patient) {
			p.rewrite(70, func(r *persistence.Record) { r.Order += 5 })
		}, []string{"error records 70-70 has order number"}, true},
		{"an id counted anew", func(p *patient) {
			p.rewrite(70, func(r *persistence.Record) { r.Order = 0 })
		}, nil, true},
		{"an event of the future", func(p *patient) {
			p.rewrite(69, func(r *persistence.Record) { r.Mapper = "Future/1" })
		}, []string{"error data 69-69 newer release"}, false},
		{"a corrupt segment", func(p *patient) { p.cold.Corrupt(p.segment(1)) },
			[]string{"error records 1-10 backup", "error records 11-20 backup", "error records 21-30 backup"}, true},
		{"a missing segment", func(p *patient) {
			if err := p.cold.DeleteSegment(p.Context(), p.segment(31)); err != nil {
				p.Fatal(err)
			}
		}, []string{"error records 31-40 backup"}, true},
		{"a segment that nobody names", func(p *patient) {
			p.keep("123")
		}, []string{"warning archive 0-0 named by no root, of unknown age"}, true},
		{"an old segment that nobody names", func(p *patient) {
			p.keep(version7(p.Now().Add(-48 * time.Hour)))
		}, []string{"warning archive 0-0 48h0m"}, true},
		{"a young segment that nobody names", func(p *patient) {
			p.keep(version7(p.Now().Add(-time.Minute)))
		}, []string{"note archive 0-0 about to name it"}, true},
		{"no archive", func(p *patient) { p.cold = nil },
			[]string{
				"error records 1-10 examine again",
				"error records 11-20 examine again",
				"error records 21-30 examine again",
				"error records 31-40 examine again",
			}, true},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			p := newPatient(t)
			c.damage(p)
			d := p.doctor()
			if p.cold == nil {
				d.Cold = nil
			}
			r := p.examine(d)
			wantFindings(t, &r, c.want)
			if r.Live != c.live {
				t.Errorf("live state compared: %t", r.Live)
			}
		})
	}
}

func (p *patient) keep(name string) {
	p.Helper()
	if err := p.cold.PutSegment(p.Context(), someone+"/"+name, []byte{1}, time.Time{}); err != nil {
		p.Fatal(err)
	}
}

func version7(at time.Time) string {
	u := uuid.UUID{6: 0x70, 8: 0x80}
	ms := at.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (8 * (5 - i)))
	}
	return u.String()
}

func wantFindings(t *testing.T, r *doctor.Report, want []string) {
	t.Helper()
	severities := [...]string{"note", "warning", "error"}
	for i, f := range r.Findings {
		got := fmt.Sprintf("%s %s %d-%d ", severities[f.Severity], f.Check, f.From, f.To)
		if i >= len(want) || !strings.HasPrefix(want[i], got) ||
			!strings.Contains(f.Message, strings.TrimPrefix(want[i], got)) {
			t.Errorf("finding %s%s", got, f.Message)
		}
	}
	if len(r.Findings) < len(want) {
		t.Errorf("missing: %q", want[len(r.Findings):])
	}
}

// TestReplayGoesOnAfterGap compares what can be compared.
func TestReplayGoesOnAfterGap(t *testing.T) {
	p := newPatient(t)
	p.cold.Corrupt(p.segment(1))
	r := p.examine(p.doctor())
	if r.Events != 40 || r.ReplayedFrom != 40 || r.Snapshots != 2 || !r.Live {
		t.Errorf("%+v", r)
	}
}

// TestRepair trims and strips what is archived, and nothing else.
func TestRepair(t *testing.T) {
	p := newPatient(t)
	root := p.roots()[2] // 41 to 50, not archived
	closed := p.roots()[5]
	rows := p.Records[10:20]
	p.hot.Append(t.Context(), &persistence.Mutation{Partition: closed.Partition(), Records: rows}, func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	})
	d := p.doctor()
	r := p.examine(d)
	wantFindings(t, &r, []string{"warning archive 11-20 not trimmed"})
	if r.Findings[0].Repaired {
		t.Error("repaired without being asked to")
	}
	d.Housekeeping = p.hot
	if r = p.examine(d); len(r.Findings) != 1 || !r.Findings[0].Repaired {
		t.Errorf("%+v", r.Findings)
	}
	if r = p.examine(d); len(r.Findings) != 0 {
		t.Errorf("after the repair: %+v", r.Findings)
	}
	if left, err := p.hot.ReadRecords(t.Context(), root.Partition(), 0, 100); err != nil || len(left) < 10 {
		t.Errorf("%d records are left of a partition that is not archived, %v", len(left), err)
	}
	// The only copy is not touched.
	p.hot.Append(t.Context(), &persistence.Mutation{Partition: closed.Partition(), Records: rows}, func(error) {})
	p.cold.Corrupt(p.segment(1))
	r = p.examine(d)
	if last := r.Findings[len(r.Findings)-1]; last.Repaired || last.Severity != doctor.Error ||
		!strings.Contains(last.Message, "only copy") {
		t.Errorf("%+v", last)
	}
	if left, err := p.hot.ReadRecords(t.Context(), closed.Partition(), 0, 100); err != nil || len(left) != 10 {
		t.Errorf("%d records are left of the only copy, %v", len(left), err)
	}
}

// TestUnstripped finds an archiver that was interrupted.
func TestUnstripped(t *testing.T) {
	p := newPatient(t)
	root := p.roots()[2]
	segment := someone + "/x"
	stretch := archive.Stretch{Partition: root.Partition(), Base: 40, Through: 50, Records: p.Records[40:50]}
	if err := p.cold.PutSegment(t.Context(), segment,
		archive.EncodeSegment(someone, []archive.Stretch{stretch}), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := p.hot.MarkArchived(t.Context(), root.Key,
		persistence.ArchiveMark{Segment: segment, Through: 50, Time: p.Now()}); err != nil {
		t.Fatal(err)
	}
	r := p.examine(p.doctor())
	wantFindings(t, &r, []string{"warning archive 41-50 not trimmed", "warning archive 0-0 not stripped"})
	d := p.doctor()
	d.Housekeeping = p.hot
	p.examine(d)
	if r := p.examine(d); len(r.Findings) != 0 || r.Archived != 50 {
		t.Errorf("%+v", r)
	}
}

// TestWokenStub: the snapshot of a stub that was woken is the archiver's to delete, before it forgets its
// name; interrupted in between, it is no damage.
func TestWokenStub(t *testing.T) {
	p := newPatient(t)
	p.Roll(false)
	p.archive()
	a := archive.New(archive.Options{Hot: p.hot, Cold: p.cold, Config: archive.DefaultConfig(), Now: p.Now})
	if err := a.ArchiveSnapshot(t.Context(), p.Head(), func(context.Context) bool { return true }); err != nil {
		t.Fatal(err)
	}
	stub := p.roots()[0]
	p.Roll(true).Append(10)
	if r := p.examine(p.doctor()); len(r.Findings) != 0 {
		t.Errorf("woken: %+v", r.Findings)
	}
	if err := p.hot.MarkArchived(t.Context(), stub.Key,
		persistence.ArchiveMark{Through: stub.Base, Time: p.Now()}); err != nil {
		t.Fatal(err)
	}
	r := p.examine(p.doctor())
	wantFindings(t, &r, []string{"warning archive 0-0 nothing is recovered from any more"})
	if err := p.cold.DeleteSegment(t.Context(), stub.SnapshotAt); err != nil {
		t.Fatal(err)
	}
	r = p.examine(p.doctor())
	wantFindings(t, &r, []string{"warning archive 0-0 nothing is recovered from any more"})
	d := p.doctor()
	d.Housekeeping = p.hot
	p.examine(d)
	if r := p.examine(d); len(r.Findings) != 0 {
		t.Errorf("after the repair: %+v", r.Findings)
	}
	// Of the stub that is the top root it is damage.
	if err := a.ArchiveSnapshot(t.Context(), p.Head(), func(context.Context) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := p.cold.DeleteSegment(t.Context(), p.roots()[0].SnapshotAt); err != nil {
		t.Fatal(err)
	}
	r = p.examine(p.doctor())
	wantFindings(t, &r, []string{"error snapshots 0-0 not found"})
}

func TestExpired(t *testing.T) {
	p := newPatient(t)
	d := p.doctor()
	d.Now = func() time.Time { return p.Now().AddDate(1, 0, 0) }
	root := p.roots()[2]
	mark := persistence.ArchiveMark{
		Segment: someone + "/gone", Through: 50, Time: p.Now(), Expires: p.Now().AddDate(0, 6, 0),
	}
	if err := p.hot.MarkArchived(t.Context(), root.Key, mark); err != nil {
		t.Fatal(err)
	}
	if err := p.hot.DeleteRecords(t.Context(), root.Partition()); err != nil {
		t.Fatal(err)
	}
	r := p.examine(d)
	wantFindings(t, &r, []string{"note records 41-50 expired before 2026-04-27", "warning archive 0-0 not stripped"})
}

// TestLiveStateDiffers: what is in memory is not the replay of the events.
func TestLiveStateDiffers(t *testing.T) {
	p := newPatient(t)
	r, err := p.doctor().Examine(t.Context(), p.Head(), func(doctor.Replay, *persistence.Root) error {
		return errors.New("it differs")
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, &r, []string{"error live state 0-0 passivate"})
}

// TestManyFindings are counted, not all listed.
func TestManyFindings(t *testing.T) {
	p := newPatient(t)
	p.Append(100)
	for seq := uint64(60); seq <= 140; seq++ {
		p.rewrite(seq, func(r *persistence.Record) { r.Order += 1000 * seq })
	}
	r := p.examine(p.doctor())
	if n := len(r.Findings); n != 21 || !strings.Contains(r.Findings[20].Message, "more findings") {
		t.Errorf("%d findings, the last %+v", n, r.Findings[n-1])
	}
}

func TestProgressAndErrors(t *testing.T) {
	p := newPatient(t)
	p.Append(10_000)
	var seen []uint64
	_, err := p.doctor().Examine(t.Context(), p.Head(), nil,
		func(n uint64) error { seen = append(seen, n); return nil })
	if err != nil || len(seen) != 2 || seen[0] != 5000 {
		t.Errorf("progress %v, %v", seen, err)
	}
	stop := errors.New("stop")
	if _, err := p.doctor().Examine(t.Context(), p.Head(), nil,
		func(uint64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.doctor().Examine(ctx, p.Head(), nil, nil); !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("a store that cannot be read: %v", err)
	}
}

// TestRecover finds the end of a history that nobody owns.
func TestRecover(t *testing.T) {
	p := newPatient(t)
	head, err := doctor.Recover(t.Context(), p.hot, someone)
	if err != nil || head != p.Head() {
		t.Errorf("got %+v, %v\nwant %+v", head, err, p.Head())
	}
	p.Append(600)
	if head, err := doctor.Recover(t.Context(), p.hot, someone); err != nil || head != p.Head() {
		t.Errorf("over a page: got %+v, %v", head, err)
	}
	p.rewrite(670, func(r *persistence.Record) { r.Index, r.Count = 0, 2 })
	if head, err := doctor.Recover(t.Context(), p.hot, someone); err != nil || head.Sequence >= 670 {
		t.Errorf("a command that is not whole: got %+v, %v", head, err)
	}
	p.lose(600, 600)
	if head, err := doctor.Recover(t.Context(), p.hot, someone); err != nil || head.Sequence > 599 {
		t.Errorf("a gap: got %+v, %v", head, err)
	}
	if _, err := doctor.Recover(t.Context(), p.hot,
		"Nobody:LicenseAggregate"); !errors.Is(err, persistence.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}
