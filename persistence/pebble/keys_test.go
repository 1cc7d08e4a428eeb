package pebble

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

func TestNumbersSortAsTheyCount(t *testing.T) {
	numbers := []uint64{0, 1, 2, 254, 255, 256, 257, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64,
		math.MaxUint64 - 1, math.MaxUint64}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		numbers = append(numbers, rng.Uint64()>>rng.IntN(64))
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i, v := range numbers {
		b := appendNumber([]byte("x"), v)
		got, rest, ok := takeNumber(append(b[1:], "rest"...))
		if got != v || string(rest) != "rest" || !ok {
			t.Errorf("%d is read back as %d %q %v", v, got, rest, ok)
		}
		for _, w := range numbers[:i] {
			if bytes.Compare(appendNumber(nil, w), appendNumber(nil, v)) >= 0 {
				t.Errorf("%d does not sort before %d", w, v)
			}
			if bytes.Compare(appendDownNumber(nil, w), appendDownNumber(nil, v)) <= 0 {
				t.Errorf("downwards, %d does not sort after %d", w, v)
			}
			if bytes.HasPrefix(appendNumber(nil, v), appendNumber(nil, w)) {
				t.Errorf("%d is a prefix of %d", w, v)
			}
		}
	}
}

func TestKeysKeepAggregatesAndPartitionsTogether(t *testing.T) {
	var keys [][]byte
	for _, id := range []string{"a", "a\x01", "a ", "a:", "a:b", "aa", "b"} {
		for _, k := range []persistence.RootKey{
			{Epoch: 300, Version: 1}, {Epoch: 2, Version: 256}, {Epoch: 2, Version: 255}, {Epoch: 1, Version: 1},
		} {
			k.Aggregate = id
			key := appendRootKey(nil, k)
			if got, ok := rootAggregate(key); got != id || !ok {
				t.Errorf("key %x is of %q, not %q", key, got, id)
			}
			keys = append(keys, key)
		}
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Error("root keys are not in the order: aggregate up, epoch and version down")
	}
	p := persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: "a", Epoch: 1, Version: 1},
		Incarnation: persistence.Incarnation{15: 0xff},
	}
	prefix := appendPartition(nil, &p)
	for _, sequence := range []uint64{1, math.MaxUint64} {
		key := appendNumber(slices.Clone(prefix), sequence)
		if !bytes.HasPrefix(key, prefix) || bytes.Compare(key, partitionEnd(slices.Clone(prefix))) >= 0 {
			t.Errorf("record %d lies outside of its partition", sequence)
		}
	}
}

func FuzzTakeNumber(f *testing.F) {
	f.Add(appendNumber(nil, 1234567))
	f.Add([]byte{2, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, ok := takeNumber(b)
		if ok && !bytes.Equal(append(appendNumber(nil, v), rest...), b) {
			t.Errorf("%x reads as %d, which is written otherwise", b, v)
		}
	})
}

func FuzzRootAggregate(f *testing.F) {
	f.Add(appendRootKey(nil, persistence.RootKey{Aggregate: "a", Epoch: 1, Version: 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = rootSuffix(b)
		id, ok := rootAggregate(b)
		if ok && !bytes.HasPrefix(b, appendAggregate(nil, kindRoot, id)) {
			t.Errorf("%x is not a key of %q", b, id)
		}
	})
}

// FuzzScanPosition lists aggregates after any position, which comes from a file: all that is listed exists, is in
// order, and is not listed again on the next page; without a position all are.
func FuzzScanPosition(f *testing.F) {
	s := openTest(f, vfs.NewMem())
	var all []string
	for _, id := range []string{"a:X", "ab:X", "b:X", "\u00fc:X", "z:X"} {
		done := make(chan error, 1)
		s.PutRoot(f.Context(), &persistence.Root{
			Key: persistence.RootKey{Aggregate: id, Epoch: 1, Version: 1}, Incarnation: persistence.Incarnation{1},
		}, func(err error) { done <- err })
		if err := <-done; err != nil {
			f.Fatal(err)
		}
		all = append(all, id)
	}
	for _, position := range append(all, "", "a", "a:X\x00", "\x00", "\xff", "b:X\xff") {
		f.Add(position, 2)
	}
	f.Fuzz(func(t *testing.T, position string, limit int) {
		limit = 1 + max(limit, -limit-1)%8
		var listed []string
		for after := position; ; {
			page, err := s.Aggregates(t.Context(), after, limit)
			if err != nil {
				t.Fatalf("after %q: %v", after, err)
			}
			listed = append(listed, page...)
			if len(page) < limit {
				break
			}
			if after = page[len(page)-1]; len(listed) > len(all) {
				t.Fatalf("after %q: %q again and again", position, listed)
			}
		}
		for i, id := range listed {
			if !slices.Contains(all, id) || i > 0 && bytes.Compare([]byte(listed[i-1]), []byte(id)) >= 0 {
				t.Errorf("after %q: %q", position, listed)
			}
		}
		if position == "" && len(listed) != len(all) {
			t.Errorf("all: %q", listed)
		}
	})
}
