package persistence

import (
	"bytes"
	"encoding/hex"
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

	"licensed/persistence/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden encodings in testdata; only after adding a new layout")

var (
	incarnation = Incarnation{0xd9, 0x2f, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	issued      = time.UnixMilli(1761555600123).UTC()
)

// typical is the kind of record that the licence domain makes.
func typical() Record {
	return Record{
		Sequence: 1042, Index: 0, Count: 3,
		CommandID: "1f0c3c52-5b6e-4a55-a35a-3a1ac0f6e1a7", Fingerprint: 0x8f1bbcdc5f3a9e01, IssuedAt: issued,
		AggregateID: "iphone/GlowS01E01", Order: 12, Time: issued.Add(37 * time.Millisecond),
		Mapper: "LicenseAcquired/1", Header: Header{PolicyVersion: "2025-10-27.1"},
		Data: []byte("about forty bytes of compact protobuf..."),
	}
}

func typicalRoot() Root {
	return Root{
		Key:         RootKey{Aggregate: "Bayley:LicenseAggregate", Epoch: 7, Version: 312},
		Incarnation: incarnation, Base: 1041,
		Parent:            RootKey{Aggregate: "Bayley:LicenseAggregate", Epoch: 6, Version: 290},
		ParentIncarnation: Incarnation{1}, Time: issued, Mapper: "LicenseSnapshot/1",
		Header:   Header{Codec: 1, Compression: 2, KeyID: "k1", PolicyVersion: "2025-10-27.1"},
		Snapshot: bytes.Repeat([]byte("state"), 200),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		want := randomRecord(rng)
		b := AppendRecord([]byte("before"), &want)
		got, err := DecodeRecord(b[len("before"):])
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestRootRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		want := randomRoot(rng)
		b := AppendRoot([]byte("before"), &want)
		got, err := DecodeRoot(b[len("before"):])
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestPayloadRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		h, data := randomHeader(rng), randomBytes(rng, 300)
		gotHeader, gotData, err := DecodePayload(AppendPayload(nil, h, data))
		if err != nil {
			t.Fatal(err)
		}
		if gotHeader != h || !bytes.Equal(gotData, data) {
			t.Fatalf("got %+v %x, want %+v %x", gotHeader, gotData, h, data)
		}
	}
}

func TestTimesAreKeptInMilliseconds(t *testing.T) {
	r := typical()
	r.Time = time.Date(2025, 10, 27, 9, 0, 0, 123999999, time.FixedZone("somewhere", 3600))
	got, err := DecodeRecord(AppendRecord(nil, &r))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2025, 10, 27, 8, 0, 0, 123000000, time.UTC); got.Time != want {
		t.Errorf("Time = %v, want %v", got.Time, want)
	}
}

func TestCommandMetadataOnFirstRecordOnly(t *testing.T) {
	first := typical()
	later := first
	later.Index = 1
	a, b := AppendRecord(nil, &first), AppendRecord(nil, &later)
	if len(b) > len(a)-8 {
		t.Errorf("a later record takes %d bytes, the first %d", len(b), len(a))
	}
	got, err := DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Fingerprint != 0 || !got.IssuedAt.IsZero() || got.CommandID != first.CommandID {
		t.Errorf("later record: %+v", got)
	}
}

func TestRecordOverhead(t *testing.T) {
	r := typical()
	overhead := len(AppendRecord(nil, &r)) -
		len(r.CommandID) - len(r.AggregateID) - len(r.Mapper) - len(r.Data)
	t.Logf("%d bytes beside command id, aggregate id, mapper and data", overhead)
	if overhead > 45 {
		t.Errorf("overhead is %d bytes, want at most 45", overhead)
	}
}

// encodings are what damage is done to.
func encodings() map[string]struct {
	b      []byte
	decode func([]byte) error
} {
	rec, root := typical(), typicalRoot()
	type m = map[string]struct {
		b      []byte
		decode func([]byte) error
	}
	return m{
		"record": {AppendRecord(nil, &rec), func(b []byte) error { _, err := DecodeRecord(b); return err }},
		"root":   {AppendRoot(nil, &root), func(b []byte) error { _, err := DecodeRoot(b); return err }},
		"payload": {AppendPayload(nil, root.Header, rec.Data), func(b []byte) error {
			_, _, err := DecodePayload(b)
			return err
		}},
	}
}

func TestAnyDamageIsCorrupt(t *testing.T) {
	for name, e := range encodings() {
		t.Run(name, func(t *testing.T) {
			check := func(what string, b []byte) {
				t.Helper()
				if err := e.decode(b); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%s: %v, want ErrCorrupt", what, err)
				}
			}
			for i := range e.b {
				for _, x := range []byte{0x01, 0x80, 0xff} {
					bad := bytes.Clone(e.b)
					bad[i] ^= x
					check(fmt.Sprintf("byte %d ^ %#x", i, x), bad)
				}
				check(fmt.Sprintf("cut to %d bytes", i), e.b[:i])
			}
			check("a byte more", append(bytes.Clone(e.b), 0))
		})
	}
}

// TestDamageBelowTheChecksum repairs the checksum, so that the decoders themselves must not take
// anything but what the encoders write.
func TestDamageBelowTheChecksum(t *testing.T) {
	for name, e := range encodings() {
		t.Run(name, func(t *testing.T) {
			body := e.b[:len(e.b)-wire.ChecksumLen]
			if err := e.decode(wire.Seal(bytes.Clone(body[:len(body)-1]), 0)); name != "payload" &&
				!errors.Is(err, ErrCorrupt) {
				t.Errorf("shortened: %v, want ErrCorrupt", err)
			}
			for _, i := range []int{0, 1} {
				bad := bytes.Clone(body)
				bad[i] ^= 0xc0
				if err := e.decode(wire.Seal(bad, 0)); !errors.Is(err, ErrCorrupt) {
					t.Errorf("byte %d: %v, want ErrCorrupt", i, err)
				}
			}
		})
	}
}

func TestKindsAreNotConfused(t *testing.T) {
	for from, a := range encodings() {
		for to, b := range encodings() {
			if err := b.decode(a.b); from != to && !errors.Is(err, ErrCorrupt) {
				t.Errorf("a %s decodes as a %s: %v", from, to, err)
			}
		}
	}
}

// TestGoldenEncodings keeps every layout ever written readable.
func TestGoldenEncodings(t *testing.T) {
	for name, e := range encodings() {
		path := filepath.Join("testdata", name+".hex")
		if *rewrite {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(e.b)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		golden, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.decode(golden); err != nil {
			t.Errorf("%s no longer decodes: %v", path, err)
		}
		if !bytes.Equal(golden, e.b) {
			t.Errorf("%s: the encoding changed under its layout number", path)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		r := randomRecord(rng)
		f.Add(body(AppendRecord(nil, &r)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeRecord(in)
		b := wire.Seal(bytes.Clone(in), 0)
		r, err := DecodeRecord(b)
		if err == nil && !bytes.Equal(AppendRecord(nil, &r), b) {
			t.Errorf("%x decodes to %+v, which is written otherwise", b, r)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func FuzzDecodeRoot(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		r := randomRoot(rng)
		f.Add(body(AppendRoot(nil, &r)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeRoot(in)
		b := wire.Seal(bytes.Clone(in), 0)
		r, err := DecodeRoot(b)
		if err == nil && !bytes.Equal(AppendRoot(nil, &r), b) {
			t.Errorf("%x decodes to %+v, which is written otherwise", b, r)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func FuzzDecodeArchiveMark(f *testing.F) {
	f.Add(body(AppendArchiveMark(nil, &ArchiveMark{Segment: "a/b", Through: 1000, Time: issued})))
	f.Add(body(AppendArchiveMark(nil, &ArchiveMark{Time: issued, Expires: issued.Add(time.Hour)})))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeArchiveMark(in)
		b := wire.Seal(bytes.Clone(in), 0)
		m, err := DecodeArchiveMark(b)
		if err == nil && !bytes.Equal(AppendArchiveMark(nil, &m), b) {
			t.Errorf("%x decodes to %+v, which is written otherwise", b, m)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func FuzzDecodePayload(f *testing.F) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 20 {
		f.Add(body(AppendPayload(nil, randomHeader(rng), randomBytes(rng, 50))))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _, _ = DecodePayload(in)
		b := wire.Seal(bytes.Clone(in), 0)
		h, data, err := DecodePayload(b)
		if err == nil && !bytes.Equal(AppendPayload(nil, h, data), b) {
			t.Errorf("%x decodes to %+v %x, which is written otherwise", b, h, data)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	r := typical()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRecord(dst[:0], &r)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkDecodeRecord(b *testing.B) {
	r := typical()
	src := AppendRecord(nil, &r)
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRoot(b *testing.B) {
	r := typicalRoot()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRoot(dst[:0], &r)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkValidate(b *testing.B) {
	m := Mutation{
		Partition: Partition{RootKey: typicalRoot().Key, Incarnation: incarnation},
		Records:   []Record{typical()},
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}

func body(b []byte) []byte { return b[:len(b)-wire.ChecksumLen] }

func randomRecord(rng *rand.Rand) Record {
	r := Record{
		Sequence: randomUint(rng), Count: 1, CommandID: randomString(rng, 64), AggregateID: randomString(rng, 128),
		Order: randomUint(rng), Time: randomTime(rng), Mapper: randomString(rng, 20),
		Header: randomHeader(rng), Data: randomBytes(rng, 200),
	}
	if rng.IntN(2) == 0 {
		r.Count = 1 + uint32(rng.IntN(1<<rng.IntN(31)))
		r.Index = uint32(rng.Int64N(int64(r.Count)))
	}
	if r.Index == 0 {
		r.Fingerprint, r.IssuedAt = rng.Uint64(), randomTime(rng)
	}
	if rng.IntN(2) == 0 {
		r.Principal, r.Reason = randomString(rng, 40), randomString(rng, 40)
	}
	return r
}

func randomRoot(rng *rand.Rand) Root {
	key := RootKey{
		Aggregate: "a" + randomString(rng, 128), Epoch: 1 + randomUint(rng)>>1, Version: 1 + randomUint(rng)>>1,
	}
	r := Root{
		Key: key, Incarnation: NewIncarnation(), Base: randomUint(rng), Time: randomTime(rng),
		Mapper: randomString(rng, 20), Header: randomHeader(rng), Snapshot: randomBytes(rng, 1000),
	}
	if rng.IntN(2) == 0 {
		r.Parent = RootKey{Aggregate: key.Aggregate, Epoch: randomUint(rng), Version: randomUint(rng)}
		r.ParentIncarnation = NewIncarnation()
	}
	if rng.IntN(2) == 0 {
		r.ArchivedThrough = randomUint(rng)
	}
	return r
}

func randomHeader(rng *rand.Rand) Header {
	var h Header
	if rng.IntN(2) == 0 {
		h.Codec, h.Compression = uint8(rng.Uint32()), uint8(rng.IntN(2))
	}
	if rng.IntN(2) == 0 {
		h.KeyID = randomString(rng, 10)
	}
	if rng.IntN(2) == 0 {
		h.PolicyVersion = randomString(rng, 10)
	}
	return h
}

// randomUint returns numbers of all lengths alike often.
func randomUint(rng *rand.Rand) uint64 { return rng.Uint64() >> rng.IntN(64) }

func randomTime(rng *rand.Rand) time.Time {
	if rng.IntN(10) == 0 {
		return time.Time{}
	}
	return issued.Add(time.Duration(rng.Int64N(int64(100 * time.Hour)))).Truncate(time.Millisecond)
}

func randomString(rng *rand.Rand, limit int) string {
	var b strings.Builder
	for range rng.IntN(limit / 4) {
		b.WriteRune([]rune("ab:/ é世😀")[rng.IntN(8)])
	}
	return b.String()
}

func randomBytes(rng *rand.Rand, limit int) []byte {
	b := make([]byte, rng.IntN(limit))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
