package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/pebble"
	"licensed/test/bench/meter"
)

const aggregates = 10_000

// pace is the time that benchmarks measure: LICENSED_BENCH_TURN for each turn of a contender, and this many
// LICENSED_BENCH_ROUNDS.
func pace(b *testing.B) (rounds int, turn time.Duration) {
	rounds, turn = 9, 400*time.Millisecond
	if v := os.Getenv("LICENSED_BENCH_ROUNDS"); v != "" {
		if _, err := fmt.Sscan(v, &rounds); err != nil || rounds < 1 {
			b.Fatalf("LICENSED_BENCH_ROUNDS is %q, want a number", v)
		}
	}
	if v := os.Getenv("LICENSED_BENCH_TURN"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			b.Fatalf("LICENSED_BENCH_TURN is %q, want a duration", v)
		}
		turn = d
	}
	return rounds, turn
}

// sweep measures pairs of contenders at several concurrencies and reports the best of each, and their ratio
// in rate and in CPU time of an operation.
func sweep(b *testing.B, inFlight []int, raw, ours func(inFlight int) meter.Contender) {
	rounds, turn := pace(b)
	var contenders []meter.Contender
	for _, n := range inFlight {
		contenders = append(contenders, raw(n), ours(n))
	}
	results, err := new(meter.Meter).Rounds(b.Context(), rounds, turn, contenders...)
	if err != nil {
		b.Fatal(err)
	}
	var sides [2][]meter.Result
	for i, r := range results {
		sides[i%2] = append(sides[i%2], r)
	}
	bestRaw, best := meter.Best(sides[0]...), meter.Best(sides[1]...)
	ratio := meter.Over(best, bestRaw, meter.Rate)
	meter.Print(os.Stdout, results)
	fmt.Printf("best to best: %v in rate, %v in CPU time\n", ratio, meter.Over(best, bestRaw, meter.CPU))
	b.ReportMetric(bestRaw.Median().PerSecond, "raw/s")
	b.ReportMetric(best.Median().PerSecond, "ours/s")
	b.ReportMetric(ratio.Median, "ratio")
	b.ReportMetric(0, "ns/op")
}

// counted makes a contender of a function that is given the number of the call in its worker.
func counted(name string, inFlight int, do func(worker, i int) error) meter.Contender {
	calls := make([]struct {
		n int
		_ [7]uint64 // a cache line each
	}, inFlight)
	return meter.Contender{
		Name: fmt.Sprintf("%s, %d in flight", name, inFlight), InFlight: inFlight,
		Do: func(_ context.Context, worker int) error {
			calls[worker].n++
			return do(worker, calls[worker].n)
		},
	}
}

// contenders makes ids of different contenders different.
var contenders atomic.Int64

// commands returns a contender that adds to ledgers, each time to another.
func commands(r *actors.Runtime, name string, inFlight int) meter.Contender {
	suffix := "-" + strconv.FormatInt(contenders.Add(1), 36)
	return counted(name, inFlight, func(worker, i int) error {
		_, err := r.Execute(context.Background(), ledger(worker*7919+i), add(worker, i, suffix))
		return err
	})
}

func add(worker, i int, suffix string) actors.Command {
	var id [32]byte
	b := strconv.AppendInt(id[:0], int64(worker), 36)
	b = strconv.AppendInt(append(b, '-'), int64(i), 36)
	return actors.Command{ID: string(append(b, suffix...)), IssuedAt: time.Now(), Payload: padded}
}

// padded makes an event of 120 bytes, about what a licence's is.
var padded any = actorstest.Add{Amount: 1, Pad: 119}

// BenchmarkPebble holds acknowledged commands through the runtime on the Pebble store, snapshots and
// roots included, against Pebble itself: one synced batch per command with a row of the same size.
func BenchmarkPebble(b *testing.B) {
	store := openStore(b)
	r := openRuntime(b, store, nil)
	raw, err := pebbledb.Open(filepath.Join(b.TempDir(), "raw"),
		&pebbledb.Options{MemTableSize: 64 << 20, Logger: silent{}})
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	for b.Loop() {
		sweep(b, []int{64, 256, 512, 1024},
			func(n int) meter.Contender { return batches(raw, n) },
			func(n int) meter.Contender { return commands(r, "runtime on the store", n) })
	}
}

func openStore(b *testing.B) *pebble.Store {
	store, err := pebble.Open(filepath.Join(b.TempDir(), "store"), pebble.Options{Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return store
}

// batches returns a contender that commits a batch of one row each time, with a sync.
func batches(db *pebbledb.DB, inFlight int) meter.Contender {
	size := rowSize()
	suffix := contenders.Add(1)
	return counted("raw synced batches", inFlight, func(worker, i int) error {
		var row [256]byte
		noise := rand.NewPCG(uint64(worker), uint64(i))
		for at := 0; at < 120; at += 8 { // as the events, it does not compress
			binary.LittleEndian.PutUint64(row[at:], noise.Uint64())
		}
		var space [64]byte
		key := append(append(space[:0], 'e'), ledger(worker*7919+i)...)
		key = append(key, "\x00\x01\x01\x01\x03"...)
		key = binary.BigEndian.AppendUint64(key, uint64(suffix)) // in place of an incarnation
		key = binary.BigEndian.AppendUint64(key, uint64(worker))
		key = binary.BigEndian.AppendUint32(key, uint32(i))
		batch := db.NewBatch()
		if err := batch.Set(key, row[:size], nil); err != nil {
			return err
		}
		return errors.Join(batch.Commit(pebbledb.Sync), batch.Close())
	})
}

// rowSize is the size of the row that the runtime writes for a command.
func rowSize() int {
	rec := persistence.Record{
		Sequence: 100, Count: 1, CommandID: "1a-2b3c-1", AggregateID: "ledger", Order: 100,
		IssuedAt: time.Now(), Time: time.Now(), Mapper: "Added/1", Data: make([]byte, 120),
	}
	return len(persistence.AppendRecord(nil, &rec))
}

// BenchmarkPebbleHotCustomer has 512 clients send to one aggregate, on the Pebble store. The defaults
// would hold it to 1,024 commands in ten minutes, to keep the window of remembered commands small;
// here the window covers half a second.
func BenchmarkPebbleHotCustomer(b *testing.B) {
	r := openRuntime(b, openStore(b), func(c *actors.Config) {
		c.SnapshotEvery = 5000
		c.Window.MaxCommands = 32768
	})
	rounds, turn := pace(b)
	for b.Loop() {
		suffix := "-hot" + strconv.FormatInt(contenders.Add(1), 36)
		results, err := new(meter.Meter).Rounds(b.Context(), rounds, turn,
			counted("one customer", 512, func(worker, i int) error {
				_, err := r.Execute(context.Background(), "hot", add(worker, i, suffix))
				return err
			}))
		if err != nil {
			b.Fatal(err)
		}
		meter.Print(os.Stdout, results)
		b.ReportMetric(results[0].Median().PerSecond, "commands/s")
	}
}

func ledger(i int) string { return "customer-" + strconv.Itoa(i%aggregates) }

// openRuntime returns a runtime of ledgers whose aggregates are in memory.
func openRuntime(b *testing.B, j persistence.Journal, change func(*actors.Config)) *actors.Runtime {
	c := actors.DefaultConfig()
	c.Window.MinAge = 0
	if change != nil {
		change(&c)
	}
	r, err := actors.New(actors.Options{
		Kind: actorstest.Ledger{}, Journal: j, Authority: newHeld(), Config: c, System: actors.NewActorSystem(quiet()),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close(context.Background()) })
	each(b, aggregates, func(i int) {
		if _, err := r.Query(b.Context(), ledger(i), actorstest.Total{}); err != nil {
			b.Error(err)
		}
	})
	return r
}
