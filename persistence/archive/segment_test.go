package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden segments in testdata; only after adding a new layout")

const someone = "Bayley:LicenseAggregate"

func randomString(rng *rand.Rand, n int) string { return strings.Repeat("xé", rng.IntN(n)) }

// randomStretches returns stretches of all shapes: torn commands, foreign ids, empty strings, times
// that go backwards. The archiver never sees most of them.
func randomStretches(rng *rand.Rand) []Stretch {
	var all []Stretch
	sequence := rng.Uint64N(1 << 40)
	for range rng.IntN(5) {
		s := Stretch{Partition: persistence.Partition{
			RootKey:     persistence.RootKey{Aggregate: someone, Epoch: rng.Uint64(), Version: rng.Uint64N(300)},
			Incarnation: persistence.Incarnation{byte(rng.Uint32()), 7},
		}, Base: sequence}
		for range rng.IntN(20) {
			sequence++
			s.Records = append(s.Records, randomRecord(rng, sequence))
		}
		s.Through = sequence
		all = append(all, s)
		sequence += rng.Uint64N(2)
	}
	return all
}

func randomRecord(rng *rand.Rand, sequence uint64) persistence.Record {
	r := persistence.Record{
		Sequence: sequence, Count: 1 + rng.Uint32N(3),
		CommandID: []string{
			"", "c1", uuid.NewString(), strings.ToUpper(uuid.NewString()), strings.Repeat("c", 512),
		}[rng.IntN(5)],
		AggregateID: []string{"", "customer", "iphone/Glow", randomString(rng, 100)}[rng.IntN(4)],
		Order:       []uint64{0, 1, rng.Uint64()}[rng.IntN(3)],
		Time:        time.UnixMilli(rng.Int64N(1<<41) - 1<<40).UTC(),
		Mapper:      []string{"", "Acquired/1", randomString(rng, 4)}[rng.IntN(3)],
		Data:        bytes.Repeat([]byte{1, byte(rng.Uint32())}, rng.IntN(40)),
	}
	r.Index = rng.Uint32N(r.Count)
	if r.Index == 0 {
		r.Fingerprint, r.IssuedAt = rng.Uint64(), r.Time.Add(time.Duration(rng.IntN(2000)-1000)*time.Millisecond)
	}
	if rng.IntN(2) == 0 {
		r.Principal, r.Reason = randomString(rng, 20), []string{"", "lost phone"}[rng.IntN(2)]
	}
	if rng.IntN(2) == 0 {
		r.Header = persistence.Header{
			Codec: uint8(rng.Uint32N(2)), Compression: 3, KeyID: randomString(rng, 3), PolicyVersion: "p",
		}
	}
	return r
}

func TestSegmentRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		want := randomStretches(rng)
		aggregate, got, err := DecodeSegment(EncodeSegment(someone, want))
		if err != nil || aggregate != someone || !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %s %+v, %v\nwant %+v", aggregate, got, err, want)
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	want := persistence.Root{
		Key:               persistence.RootKey{Aggregate: someone, Epoch: 2, Version: 3},
		Incarnation:       persistence.Incarnation{1},
		Base:              77,
		Parent:            persistence.RootKey{Aggregate: someone, Epoch: 1, Version: 2},
		ParentIncarnation: persistence.Incarnation{2},
		Time:              time.UnixMilli(1761555600123).UTC(),
		Mapper:            "Snapshot/1",
		Snapshot:          bytes.Repeat([]byte("state"), 300),
		ArchivedThrough:   70,
	}
	got, err := DecodeSnapshot(EncodeSnapshot(&want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestAnyDamageIsFound flips each bit, cuts and extends.
func TestAnyDamageIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for what, c := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"segment": {EncodeSegment(someone, goldenStretches()), func(b []byte) error {
			_, _, err := DecodeSegment(b)
			return err
		}},
		"snapshot": {EncodeSnapshot(&persistence.Root{
			Key:      persistence.RootKey{Aggregate: someone, Epoch: 1, Version: 1},
			Snapshot: []byte("state"),
		}),
			func(b []byte) error { _, err := DecodeSnapshot(b); return err }},
	} {
		if err := c.decode(c.b); err != nil {
			t.Fatal(err)
		}
		for at := range c.b {
			bad := bytes.Clone(c.b)
			bad[at] ^= 1 << rng.IntN(8)
			if err := c.decode(bad); !errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s with byte %d damaged: %v, want ErrCorrupt", what, at, err)
			}
			if err := c.decode(c.b[:at]); !errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s cut at %d: %v, want ErrCorrupt", what, at, err)
			}
		}
		if err := c.decode(append(bytes.Clone(c.b), 0)); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%s with a byte more: %v, want ErrCorrupt", what, err)
		}
	}
}

// TestMalformedBodies: what was sealed, but by no program of ours, is refused.
func TestMalformedBodies(t *testing.T) {
	body, err := unseal(layoutSegment, EncodeSegment(someone, goldenStretches()))
	if err != nil {
		t.Fatal(err)
	}
	for at := range body {
		if _, _, err := DecodeSegment(seal(layoutSegment, body[:at])); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("body cut at %d: %v, want ErrCorrupt", at, err)
		}
	}
	if _, _, err := DecodeSegment(
		seal(layoutSegment, append(bytes.Clone(body), 0)),
	); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("body with a byte more: %v, want ErrCorrupt", err)
	}
	// A stretch that says it has far more records than there are.
	huge := binary.AppendUvarint(wire.AppendString(nil, someone), 1)
	huge = append(binary.AppendUvarint(binary.AppendUvarint(huge, 1), 1), make([]byte, 16)...)
	huge = binary.AppendUvarint(binary.AppendUvarint(huge, 0), 1<<60)
	huge = append(huge, make([]byte, columnCount)...)
	if _, _, err := DecodeSegment(seal(layoutSegment, huge)); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("2^60 records in no bytes: %v, want ErrCorrupt", err)
	}
}

// goldenStretches are what testdata has the segment of.
func goldenStretches() []Stretch {
	at := time.UnixMilli(1761555600123).UTC()
	key := persistence.RootKey{Aggregate: someone, Epoch: 7, Version: 312}
	record := func(seq uint64, index, count uint32, id, title, mapper string) persistence.Record {
		r := persistence.Record{
			Sequence: seq, Index: index, Count: count, CommandID: id, AggregateID: title, Order: seq - 1001,
			Time:   at.Add(time.Duration(seq) * time.Second),
			Mapper: mapper,
			Header: persistence.Header{PolicyVersion: "2025-10-27.1"},
			Data:   []byte("about forty bytes of compact protobuf..."),
		}
		if index == 0 {
			r.Fingerprint, r.IssuedAt = 0x8f1bbcdc5f3a9e01, r.Time.Add(-37*time.Millisecond)
		}
		return r
	}
	const id = "1f0c3c52-5b6e-4a55-a35a-3a1ac0f6e1a7"
	next := key
	next.Version++
	return []Stretch{
		{persistence.Partition{RootKey: key, Incarnation: persistence.Incarnation{1, 2, 3}}, 1000, 1003,
			[]persistence.Record{
				record(1001, 0, 2, id, "iphone/GlowS01E01", "LicenseCreated/1"),
				record(1002, 1, 2, id, "iphone/GlowS01E01", "LicenseAcquired/1"),
				record(1003, 0, 1, "mine", "iphone/GlowS01E01", "LicenseReleased/1"),
			}},
		{persistence.Partition{RootKey: next, Incarnation: persistence.Incarnation{4}}, 1003, 1004,
			[]persistence.Record{
				record(1004, 0, 1, id, "customer", "CommandAccepted/1"),
			}},
	}
}

// TestGoldenSegments: what was ever written is readable forever.
func TestGoldenSegments(t *testing.T) {
	path := filepath.Join("testdata", "segment-61.bin")
	if *rewrite {
		if err := os.WriteFile(path, EncodeSegment(someone, goldenStretches()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := DecodeSegment(b)
	if err != nil || !reflect.DeepEqual(got, goldenStretches()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestSegmentsAreSmall compares with the encodings that the records have in the hot tier.
func TestSegmentsAreSmall(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	s := Stretch{Partition: goldenStretches()[0].Partition, Through: 2000}
	hot := 0
	for i := range uint64(2000) {
		r := goldenStretches()[0].Records[0]
		id := uuid.UUID{}
		for j := range id {
			id[j] = byte(rng.Uint32())
		}
		r.Sequence, r.Count, r.CommandID, r.Fingerprint = i+1, 1, id.String(), rng.Uint64()
		r.Time = r.Time.Add(time.Duration(i) * time.Minute)
		s.Records = append(s.Records, r)
		hot += len(persistence.AppendRecord(nil, &r))
	}
	size := len(EncodeSegment(someone, []Stretch{s}))
	t.Logf("%d bytes an event, %d in the hot tier", size/2000, hot/2000)
	if size > 2000*30 { // 24 bytes are random
		t.Errorf("%d bytes an event, want at most 30", size/2000)
	}
}

func FuzzDecodeSegment(f *testing.F) {
	f.Add(EncodeSegment(someone, goldenStretches()))
	f.Add(EncodeSegment("", nil))
	rng := rand.New(rand.NewPCG(7, 8))
	for range 10 {
		f.Add(EncodeSegment(someone, randomStretches(rng)))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkSegment(t, b) })
}

// FuzzSegmentBody gets past checksum and compression.
func FuzzSegmentBody(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, s := range append([][]Stretch{goldenStretches(), nil}, randomStretches(rng), randomStretches(rng),
		randomStretches(rng)) {
		body, err := unseal(layoutSegment, EncodeSegment(someone, s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkSegment(t, seal(layoutSegment, body)) })
}

// checkSegment demands that what decodes encodes to what decodes alike.
func checkSegment(t *testing.T, b []byte) {
	aggregate, stretches, err := DecodeSegment(b)
	if err != nil {
		if !errors.Is(err, persistence.ErrCorrupt) {
			t.Fatalf("%v does not wrap ErrCorrupt", err)
		}
		return
	}
	for i := range stretches {
		s := &stretches[i]
		if uint64(len(s.Records)) != s.Through-s.Base {
			t.Fatalf("stretch of %d to %d has %d records", s.Base, s.Through, len(s.Records))
		}
	}
	again, got, err := DecodeSegment(EncodeSegment(aggregate, stretches))
	if err != nil || again != aggregate || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", stretches) {
		t.Fatalf("got  %+v, %v\nwant %+v", got, err, stretches)
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	r := persistence.Root{Key: persistence.RootKey{Aggregate: someone, Epoch: 1, Version: 1}, Snapshot: []byte("state")}
	f.Add(EncodeSnapshot(&r))
	f.Add(seal(layoutSnapshot, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := DecodeSnapshot(b); err != nil && !errors.Is(err, persistence.ErrCorrupt) {
			t.Fatalf("%v does not wrap ErrCorrupt", err)
		}
		if _, err := DecodeSnapshot(seal(layoutSnapshot, b)); err != nil && !errors.Is(err, persistence.ErrCorrupt) {
			t.Fatalf("%v does not wrap ErrCorrupt", err)
		}
	})
}
