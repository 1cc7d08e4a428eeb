package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/pebble"
)

const aggregates = 10_000

// rate runs f from so many goroutines for a while and returns calls per second.
func rate(b *testing.B, goroutines int, f func(goroutine, i int) error) float64 {
	b.Helper()
	run.Add(1)
	var calls atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	begin := time.Now()
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			i := 0
			for ; !stop.Load(); i++ {
				if err := f(g, i); err != nil {
					b.Error(err)
					return
				}
			}
			calls.Add(int64(i))
		}()
	}
	time.Sleep(2 * time.Second)
	stop.Store(true)
	wg.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds()
}

// run makes ids of different measurements different.
var run atomic.Int64

func add(goroutine, i int) actors.Command {
	var id [24]byte
	b := strconv.AppendInt(id[:0], int64(goroutine), 36)
	b = strconv.AppendInt(append(b, '-'), int64(i), 36)
	b = strconv.AppendInt(append(b, '-'), run.Load(), 36)
	return actors.Command{ID: string(b), IssuedAt: time.Now(), Payload: padded}
}

// padded makes an event of 120 bytes, about what a licence's is.
var padded any = actorstest.Add{Amount: 1, Pad: 119}

// BenchmarkPebble holds acknowledged commands through the runtime on the Pebble store, snapshots and
// roots included, against Pebble itself: one synced batch per command with a row of the same size.
// Both are swept over concurrency, in turn; the ratio is best to best.
func BenchmarkPebble(b *testing.B) {
	store, err := pebble.Open(filepath.Join(b.TempDir(), "store"), pebble.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	r := openRuntime(b, store, nil)
	raw, err := pebbledb.Open(filepath.Join(b.TempDir(), "raw"), &pebbledb.Options{MemTableSize: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	row := rowSize()
	for b.Loop() {
		var bestRaw, best float64
		for _, n := range []int{64, 256, 512} {
			rawRate := rate(b, n, func(g, i int) error { return putRaw(raw, g, i, row) })
			runtimeRate := rate(b, n, func(g, i int) error {
				_, err := r.Execute(b.Context(), name(g*7919+i), add(g, i))
				return err
			})
			b.Logf("%d in flight: raw %.0f/s, runtime %.0f/s", n, rawRate, runtimeRate)
			bestRaw, best = max(bestRaw, rawRate), max(best, runtimeRate)
		}
		b.ReportMetric(bestRaw, "raw/s")
		b.ReportMetric(best, "commands/s")
		b.ReportMetric(best/bestRaw, "ratio")
	}
}

// BenchmarkPebbleHotCustomer has 512 clients send to one aggregate, on the Pebble store. The defaults
// would hold it to 1,024 commands in ten minutes, to keep the window of remembered commands small;
// here the window covers half a second.
func BenchmarkPebbleHotCustomer(b *testing.B) {
	store, err := pebble.Open(filepath.Join(b.TempDir(), "store"), pebble.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	r := openRuntime(b, store, func(c *actors.Config) {
		c.SnapshotEvery = 5000
		c.Window.MaxCommands = 32768
	})
	for b.Loop() {
		b.ReportMetric(rate(b, 512, func(g, i int) error {
			_, err := r.Execute(b.Context(), "hot", add(g, i))
			return err
		}), "commands/s")
	}
}

func name(i int) string { return "customer-" + strconv.Itoa(i%aggregates) }

// openRuntime returns a runtime of ledgers whose aggregates are in memory.
func openRuntime(b *testing.B, j persistence.Journal, change func(*actors.Config)) *actors.Runtime {
	c := actors.DefaultConfig()
	c.Window.MinAge = 0
	if change != nil {
		change(&c)
	}
	r, err := actors.New(actors.Options{Kind: actorstest.Ledger{}, Journal: j, Authority: newHeld(), Config: c,
		System: actors.NewActorSystem(quiet()),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close(context.Background()) })
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := g; i < aggregates; i += 64 {
				if _, err := r.Query(b.Context(), name(i), actorstest.Total{}); err != nil {
					b.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	return r
}

// rowSize is the size of the row that the runtime writes for a command.
func rowSize() int {
	rec := persistence.Record{
		Sequence: 100, Count: 1, CommandID: "1a-2b3c-1", AggregateID: "ledger", Order: 100,
		IssuedAt: time.Now(), Time: time.Now(), Mapper: "Added/1", Data: make([]byte, 120),
	}
	return len(persistence.AppendRecord(nil, &rec))
}

func putRaw(db *pebbledb.DB, g, i, size int) error {
	key := binary.BigEndian.AppendUint64([]byte(fmt.Sprintf("e%-40s", name(g*7919+i))), uint64(i))
	batch := db.NewBatch()
	if err := batch.Set(key, make([]byte, size), nil); err != nil {
		return err
	}
	return batch.Commit(pebbledb.Sync)
}
