package pebble

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/persistence"
)

// The benchmarks write what a busy node writes: one record of about 200 bytes with its key, each to
// another of 100,000 aggregates. Raw is the engine without the store around it: one batch a record,
// its bytes made beforehand, committed with a sync by each of the goroutines. Both sides have the
// same engine options and a real disk.

var inFlight = []int{8, 64, 256, 512}

const benchAggregates = 100_000

func BenchmarkAppend(b *testing.B) {
	for _, n := range inFlight {
		b.Run(fmt.Sprintf("inflight=%d", n), func(b *testing.B) { benchAppend(b, n) })
	}
}

func BenchmarkRawSyncedBatch(b *testing.B) {
	for _, n := range inFlight {
		b.Run(fmt.Sprintf("inflight=%d", n), func(b *testing.B) { benchRaw(b, n) })
	}
}

// BenchmarkAppendOverRaw reports the store's best of the sweep over the engine's best. The two take
// turns in short slices, so that what else the machine does meets both.
func BenchmarkAppendOverRaw(b *testing.B) {
	const slices = 10
	s, db := openBench(b), openRaw(b)
	var best [2]float64
	var offset int
	b.ResetTimer()
	for _, n := range inFlight {
		var took [2]time.Duration
		for range slices {
			count := max(1, b.N/slices)
			took[0] += inParallel(n, offset, count, rawWorker(b, db))
			took[1] += inParallel(n, offset, count, appendWorker(b, s))
			offset += count
		}
		for i := range best {
			best[i] = max(best[i], float64(b.N)/took[i].Seconds())
		}
		b.Logf("inflight=%d: raw %.0f/s, append %.0f/s",
			n, float64(b.N)/took[0].Seconds(), float64(b.N)/took[1].Seconds())
	}
	b.ReportMetric(best[0], "raw/s")
	b.ReportMetric(best[1], "append/s")
	b.ReportMetric(best[1]/best[0], "ratio")
}

// BenchmarkAppendLatency has one write in progress at a time.
func BenchmarkAppendLatency(b *testing.B) {
	b.Run("append", func(b *testing.B) { benchAppend(b, 1) })
	b.Run("raw", func(b *testing.B) { benchRaw(b, 1) })
}

func BenchmarkTopRoot(b *testing.B) {
	s := openBench(b)
	done := make(chan error, benchAggregates)
	for i := range benchAggregates {
		r := persistence.Root{
			Key:         benchPartition(i).RootKey,
			Incarnation: benchPartition(i).Incarnation,
			Time:        time.UnixMilli(1),
			Mapper:      "TestSnapshot/1",
			Snapshot:    make([]byte, 500),
		}
		s.PutRoot(b.Context(), &r, func(err error) { done <- err })
	}
	for range benchAggregates {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.TopRoot(b.Context(), benchPartition(rng.IntN(benchAggregates)).Aggregate); err != nil {
			b.Fatal(err)
		}
	}
}

func openBench(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.TempDir(), Options{Listener: Listener{Failed: func(err error) { b.Error(err) }}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func openRaw(b *testing.B) *pebbledb.DB {
	b.Helper()
	o, err := Options{}.withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	eo := o.engineOptions()
	eo.CacheSize = o.CacheSize + memTables*o.MemTableSize
	eo.Logger = quietLogger{}
	db, err := pebbledb.Open(b.TempDir(), eo)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)      {}
func (quietLogger) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (quietLogger) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func benchAppend(b *testing.B, n int) {
	s := openBench(b)
	b.ResetTimer()
	took := inParallel(n, 0, b.N, appendWorker(b, s))
	b.StopTimer()
	b.ReportMetric(float64(b.N)/took.Seconds(), "writes/s")
	b.ReportMetric(float64(s.stats.Writes)/float64(s.stats.Groups), "writes/sync")
}

func benchRaw(b *testing.B, n int) {
	db := openRaw(b)
	b.ResetTimer()
	took := inParallel(n, 0, b.N, rawWorker(b, db))
	b.StopTimer()
	b.ReportMetric(float64(b.N)/took.Seconds(), "writes/s")
}

// appendWorker makes functions that append the i-th record and wait.
func appendWorker(b testing.TB, s *Store) func() func(i int) {
	return func() func(i int) {
		m := &persistence.Mutation{Records: []persistence.Record{benchRecord()}}
		done := make(chan error, 1)
		tell := func(err error) { done <- err }
		return func(i int) {
			m.Partition = benchPartition(i)
			m.Records[0].Sequence = uint64(i/benchAggregates + 1)
			s.Append(b.Context(), m, tell)
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
	}
}

// rawWorker makes functions that write the same as appendWorker's without a store.
func rawWorker(b testing.TB, db *pebbledb.DB) func() func(i int) {
	rec := benchRecord()
	value := persistence.AppendRecord(nil, &rec)
	return func() func(i int) {
		var key []byte
		return func(i int) {
			p := benchPartition(i)
			key = appendNumber(appendPartition(key[:0], &p), uint64(i/benchAggregates+1))
			batch := db.NewBatch()
			err := batch.Set(key, value, nil)
			if err := errors.Join(err, batch.Commit(pebbledb.Sync), batch.Close()); err != nil {
				b.Error(err)
			}
		}
	}
}

// inParallel has n workers make count calls, numbered from first, and returns the time they took.
func inParallel(n, first, count int, worker func() func(i int)) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		do := worker()
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				do(first + i)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

var benchIDs = sync.OnceValue(func() []persistence.Partition {
	rng := rand.New(rand.NewPCG(3, 3))
	ids := make([]persistence.Partition, benchAggregates)
	for i := range ids {
		ids[i].RootKey = persistence.RootKey{
			Aggregate: fmt.Sprintf("customer-%08x:LicenseAggregate", rng.Uint32()),
			Epoch:     3,
			Version:   uint64(1 + rng.IntN(50_000)),
		}
		ids[i].Incarnation = persistence.Incarnation{1, 2, 3, 4, 5, 6, 7, 8}
	}
	return ids
})

func benchPartition(i int) persistence.Partition { return benchIDs()[i%benchAggregates] }

func benchRecord() persistence.Record {
	now := time.UnixMilli(1761555600123)
	return persistence.Record{
		Sequence: 1, Count: 1, CommandID: "1f0c3c52-5b6e-4a55-a35a-3a1ac0f6e1a7", Fingerprint: 0x8f1bbcdc5f3a9e01,
		IssuedAt:    now,
		AggregateID: "iphone/GlowS01E01",
		Time:        now.Add(3 * time.Millisecond),
		Mapper:      "LicenseRenewed/1",
		Header:      persistence.Header{PolicyVersion: "2025-10-27.1"}, Data: make([]byte, 40),
	}
}
