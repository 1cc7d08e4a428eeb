package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/pebble"
	"licensed/persistence/tiered"
)

// rig is a runtime of licence aggregates on both tiers, each in a directory of its own.
type rig struct {
	*testing.B
	*actors.Runtime
	kind            *license.Kind
	hotDir, coldDir string
	hot             *pebble.Store
	cold            *pebble.Archive
	archiver        *archive.Archiver
	passivated      atomic.Pointer[func(actors.PassivatedInfo)]
	offset          atomic.Int64 // of the clock
	closed          sync.Once
}

func newRig(b *testing.B) *rig {
	r := &rig{B: b, hotDir: filepath.Join(b.TempDir(), "hot"), coldDir: filepath.Join(b.TempDir(), "cold")}
	var err error
	if r.hot, err = pebble.Open(r.hotDir, pebble.Options{Logger: quiet()}); err != nil {
		b.Fatal(err)
	}
	if r.cold, err = pebble.OpenArchive(r.coldDir, pebble.ArchiveOptions{Logger: quiet()}); err != nil {
		b.Fatal(err)
	}
	p, err := policy.Parse("generous", []byte(generous))
	if err != nil {
		b.Fatal(err)
	}
	r.kind = license.NewKind(p)
	c := actors.DefaultConfig()
	c.Window.MinAge = 0
	c.Window.MaxAhead = 1000 * time.Hour
	r.Runtime, err = actors.New(actors.Options{
		Kind:      r.kind,
		Journal:   tiered.NewJournal(r.hot, r.cold),
		Authority: newHeld(),
		Config:    c,
		System:    actors.NewActorSystem(quiet()),
		Now:       r.now,
		Listener: actors.Listener{Passivated: func(i actors.PassivatedInfo) {
			if f := r.passivated.Load(); f != nil {
				(*f)(i)
			}
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	r.archiver = archive.New(archive.Options{Hot: r.hot, Cold: r.cold, Config: archive.DefaultConfig()})
	b.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	r.closed.Do(func() {
		if err := r.Runtime.Close(context.Background()); err != nil {
			r.Error(err)
		}
		if err := r.hot.Close(); err != nil {
			r.Error(err)
		}
		if err := r.cold.Close(); err != nil {
			r.Error(err)
		}
	})
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }

func always(context.Context) bool { return true }

// do has a customer do one of the things that customers do.
func (r *rig) do(customer string, n int) {
	c := acquire(n)
	c.IssuedAt = r.now()
	if n >= 10 && n%3 == 2 {
		title, device := fmt.Sprintf("GlowS01E%02d", n%10+1), []string{"iphone-6s-1a2b3c4d", "galaxy-tab-5e6f7a8b"}[n%2]
		c.Payload = &licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{
			RecordPlayback: &licensedv1.RecordPlayback{DeviceId: device, TitleId: title},
		}}
	}
	c.ID, c.Fingerprint = uuid.NewString(), rand.Uint64()
	if _, err := r.Execute(r.Context(), customer, c); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) leave(customer string) {
	if _, left := r.Passivate(r.Context(), customer); !left {
		r.Fatal("it did not leave")
	}
}

func (r *rig) head(customer string) persistence.Head {
	a, err := r.Query(r.Context(), customer, actors.HeadQuery{})
	if err != nil {
		r.Fatal(err)
	}
	return a.Head
}

func (r *rig) archive(head persistence.Head, all bool) archive.Result {
	res, err := r.archiver.Archive(r.Context(), head, all, always)
	if err != nil {
		r.Fatal(err)
	}
	return res
}

// records reads the whole history.
func (r *rig) records(head persistence.Head) []persistence.Record {
	var all []persistence.Record
	err := tiered.NewReader(r.hot, r.cold, nil).ReadAll(r.Context(), head,
		persistence.HistoryRange{}, func(rec *persistence.Record) error {
			all = append(all, *rec)
			return nil
		})
	if err != nil {
		r.Fatal(err)
	}
	return all
}

// diskBytes returns what the rows of one kind take up in a store or archive that is closed, once the engine
// has tidied up.
func diskBytes(b *testing.B, dir string, kind byte) uint64 {
	o := &pebbledb.Options{FormatMajorVersion: pebbledb.FormatTableFormatV6, Logger: silent{}}
	if kind == 'd' {
		o.ApplyCompressionSettings(func() pebbledb.DBCompressionSettings { return pebbledb.DBCompressionNone })
		for i := range o.Levels {
			o.Levels[i].BlockSize = 64 << 10
		}
	} else {
		o.Levels[0].BlockSize = 16 << 10
	}
	db, err := pebbledb.Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if err := db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
		b.Fatal(err)
	}
	n, err := db.EstimateDiskUsage([]byte{kind}, []byte{kind + 1})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

// counting counts what a reader of history asks of the stores.
type counting struct {
	tiered.HotTier
	persistence.Archive
	reads int
}

func (c *counting) ReadRoot(ctx context.Context, k persistence.RootKey) (persistence.Root, error) {
	c.reads++
	return c.HotTier.ReadRoot(ctx, k)
}

func (c *counting) ReadRoots(
	ctx context.Context, aggregate string, below persistence.RootKey, limit int,
) ([]persistence.Root, error) {
	c.reads++
	return c.HotTier.ReadRoots(ctx, aggregate, below, limit)
}

func (c *counting) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	c.reads++
	return c.HotTier.ReadRecords(ctx, p, after, limit)
}

func (c *counting) ReadSegment(ctx context.Context, name string) ([]byte, error) {
	c.reads++
	return c.Archive.ReadSegment(ctx, name)
}

// BenchmarkWakings wakes a customer 5,000 times for a command or two each, a few hours apart, with the
// archiver running as in a node, and reads the whole history.
func BenchmarkWakings(b *testing.B) {
	const wakings = 5000
	for b.Loop() {
		r := newRig(b)
		var archived uint64
		heads := make(chan persistence.Head, 1)
		f := func(i actors.PassivatedInfo) { heads <- *i.Head }
		r.passivated.Store(&f)
		for i := range wakings {
			r.offset.Store(int64(i) * int64(4*time.Hour))
			for n := range 1 + i%2 {
				r.do("Bayley", i*2+n)
			}
			r.leave("Bayley")
			if head := <-heads; head.Base >= archived+2048 { // as archive.Worker does it
				archived = r.archive(head, false).Through
				r.NoteArchived("Bayley", archived)
			}
		}
		head := r.head("Bayley")
		r.archive(head, true) // as when it is old
		c := &counting{HotTier: r.hot, Archive: r.cold}
		began, events := time.Now(), 0
		err := tiered.NewReader(c, c, nil).ReadAll(b.Context(), head, persistence.HistoryRange{},
			func(*persistence.Record) error { events++; return nil })
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "read-ms")
		r.close()
		roots := diskBytes(b, r.hotDir, 'r')
		b.ReportMetric(float64(events), "events")
		b.ReportMetric(float64(c.reads), "reads")
		b.ReportMetric(float64(roots), "root-bytes")
	}
}

// BenchmarkBytesPerEvent compares the space that an event takes up in each tier with the same event as a line of
// JSON, as the tool prints it, and as bare protobuf.
func BenchmarkBytesPerEvent(b *testing.B) {
	for _, shape := range []struct{ customers, commands int }{{1, 20_000}, {200, 100}, {2000, 10}} {
		b.Run(fmt.Sprintf("customers=%d/commands=%d", shape.customers, shape.commands), func(b *testing.B) {
			for b.Loop() {
				bytesPerEvent(b, shape.customers, shape.commands)
			}
		})
	}
}

func bytesPerEvent(b *testing.B, customers, commands int) {
	r := newRig(b)
	each(b, customers, func(i int) {
		for n := range commands {
			r.do(fmt.Sprintf("customer-%06d", i), n)
		}
		r.leave(fmt.Sprintf("customer-%06d", i))
	})
	var events, bare, text, rows int
	for i := range customers {
		for _, rec := range r.records(r.head(fmt.Sprintf("customer-%06d", i))) {
			events++
			bare += len(rec.Data)
			rows += len(persistence.AppendRecord(nil, &rec))
			text += len(r.json(&rec))
		}
	}
	heads := make([]persistence.Head, customers)
	for i := range heads {
		heads[i] = r.head(fmt.Sprintf("customer-%06d", i))
	}
	// The hot tier is measured on a copy, before the archiver trims it.
	copied := filepath.Join(b.TempDir(), "copy")
	if err := r.hot.Checkpoint(b.Context(), copied); err != nil {
		b.Fatal(err)
	}
	began, size := time.Now(), 0
	for _, h := range heads {
		size += r.archive(h, true).Bytes
	}
	took := time.Since(began).Seconds()
	r.close()
	left := diskBytes(b, r.hotDir, 'r')
	hot := diskBytes(b, copied, 'e')
	disk := diskBytes(b, r.coldDir, 'd')
	per := func(n float64) float64 { return n / float64(events) }
	b.ReportMetric(per(float64(text)), "json-B")
	b.ReportMetric(per(float64(bare)), "protobuf-B")
	b.ReportMetric(per(float64(hot)), "hot-B")
	b.ReportMetric(per(float64(size)), "segment-B")
	b.ReportMetric(per(float64(disk)), "archive-B")
	b.ReportMetric(per(float64(left)), "roots-left-B")
	b.ReportMetric(float64(events)/took, "events/s")
	b.ReportMetric(float64(rows)/took/(1<<20), "MB/s")
}

// json returns an event as the operator's tool prints it.
func (r *rig) json(rec *persistence.Record) []byte {
	v, err := r.kind.DecodeEvent(rec.Mapper, rec.Header, rec.Data)
	if err != nil {
		r.Fatal(err)
	}
	data, err := protojson.Marshal(v.(proto.Message))
	if err != nil {
		r.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{
		"Event":            strings.Split(rec.Mapper, "/")[0],
		"Event Time":       rec.Time.Format(time.RFC3339Nano),
		"aggregateId":      rec.AggregateID,
		"committed":        true,
		"eventTimeStamp":   rec.Time.UnixMilli(),
		"eventOrderNumber": rec.Order,
		"sequence":         rec.Sequence,
		"commandId":        rec.CommandID, "data": json.RawMessage(data),
	})
	if err != nil {
		r.Fatal(err)
	}
	return b
}

// each runs f for 0 … n-1, many at a time.
func each(b *testing.B, n int, f func(i int)) {
	var g errgroup.Group
	g.SetLimit(64)
	for i := range n {
		g.Go(func() error { f(i); return nil })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWakeFromArchive compares waking customers of whom only stubs are left with waking others,
// one at a time.
func BenchmarkWakeFromArchive(b *testing.B) {
	const customers = 500
	for b.Loop() {
		r := newRig(b)
		each(b, customers, func(i int) {
			for n := range 20 {
				r.do(fmt.Sprintf("customer-%06d", i), n)
			}
			r.leave(fmt.Sprintf("customer-%06d", i))
		})
		wake := func() float64 {
			var took []time.Duration
			for i := range customers {
				began := time.Now()
				r.head(fmt.Sprintf("customer-%06d", i))
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			return float64(took[len(took)/2].Microseconds())
		}
		fromHot := wake()
		for i := range customers {
			head := r.head(fmt.Sprintf("customer-%06d", i))
			r.archive(head, true)
			if err := r.archiver.ArchiveSnapshot(b.Context(), head, always); err != nil {
				b.Fatal(err)
			}
			r.leave(fmt.Sprintf("customer-%06d", i))
		}
		fromArchive := wake()
		b.ReportMetric(fromHot, "hot-median-us")
		b.ReportMetric(fromArchive, "archive-median-us")
		b.ReportMetric(fromArchive/fromHot, "ratio")
		r.close()
	}
}
