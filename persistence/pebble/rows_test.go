package pebble

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// recode decodes each kind of row and encodes it again.
var recode = map[string]func(b []byte) ([]byte, error){
	"marker":        func(b []byte) ([]byte, error) { v, err := decodeMarker(b); return encodeMarker(v), err },
	"marker-2":      func(b []byte) ([]byte, error) { v, err := decodeMarker(b); return encodeMarker(v), err },
	"cluster":       func(b []byte) ([]byte, error) { v, err := decodeCluster(b); return encodeCluster(v), err },
	"cluster-id":    func(b []byte) ([]byte, error) { v, err := decodeClusterID(b); return encodeClusterID(v), err },
	"lease-address": func(b []byte) ([]byte, error) { v, err := decodeLease(b); return encodeLease(v), err },
	"lease":         func(b []byte) ([]byte, error) { v, err := decodeLease(b); return encodeLease(v), err },
	"strip":         func(b []byte) ([]byte, error) { v, err := decodeStrip(b); return encodeStrip(v), err },
	"root":          recodeRoot,
	"root-1":        recodeRoot,
	"snapshot":      recodeSnapshot,
	"shard":         func(b []byte) ([]byte, error) { v, err := decodeShard(b); return encodeShard(v), err },
}

func recodeRoot(b []byte) ([]byte, error) {
	r, split, err := decodeRoot(b)
	if err == nil && !split {
		return persistence.AppendRoot(nil, &r), nil
	}
	return appendChain(nil, &r), err
}

func recodeSnapshot(b []byte) ([]byte, error) {
	r := wholeRoot()
	r.Mapper, r.Header, r.Snapshot = "", persistence.Header{}, nil
	err := decodeSnapshot(&r, b)
	return appendSnapshot(nil, &r), err
}

func wholeRoot() persistence.Root {
	key := persistence.RootKey{Aggregate: "Bayley:LicenseAggregate", Epoch: 7, Version: 312}
	return persistence.Root{
		Key: key, Incarnation: persistence.Incarnation{1, 2, 3}, Base: 1041,
		Parent:            persistence.RootKey{Aggregate: key.Aggregate, Epoch: 6, Version: 290},
		ParentIncarnation: persistence.Incarnation{15: 0xff}, Time: time.UnixMilli(1761555600123).UTC(),
		Mapper:          "LicenseSnapshot/1",
		Header:          persistence.Header{PolicyVersion: "2025-10-27.1"},
		Snapshot:        []byte("the state of a customer"),
		ArchivedThrough: 7,
	}
}

func encodedRows() map[string][]byte {
	a, b, root := persistence.Incarnation{1, 2, 3}, persistence.Incarnation{15: 0xff}, wholeRoot()
	return map[string][]byte{
		"marker":   encodeMarker(firstFormat),
		"marker-2": encodeMarker(format),
		"root":     appendChain(nil, &root),
		"root-1":   persistence.AppendRoot(nil, &root), // of the first format
		"snapshot": appendSnapshot(nil, &root),
		"cluster":  encodeCluster(persistence.ClusterInfo{Name: "licences", Shards: math.MaxUint32}),
		"lease": encodeLease(
			persistence.Lease{Incarnation: a, Node: "node one", Counter: math.MaxUint64, Dead: true},
		),
		"cluster-id": encodeClusterID(persistence.ClusterID{1, 2, 3, 15: 0xff}),
		"lease-address": encodeLease(
			persistence.Lease{Incarnation: a, Node: "node one", Address: "n1.example.com:7947", Counter: 7},
		),
		"strip": encodeStrip("archive/segment-7"),
		"shard": encodeShard(persistence.Shard{ID: math.MaxUint32, Epoch: math.MaxUint64, Owner: a, Successor: b}),
	}
}

func TestRows(t *testing.T) {
	for kind, b := range encodedRows() {
		got, err := recode[kind](b)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s %x becomes %x, %v", kind, b, got, err)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 0x40
			if _, err := recode[kind](bad); !errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s with byte %d flipped: %v, want ErrCorrupt", kind, i, err)
			}
			if _, err := recode[kind](b[:i]); !errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s cut to %d bytes: %v, want ErrCorrupt", kind, i, err)
			}
		}
		for other, decode := range recode {
			related := slices.ContainsFunc([]string{"lease", "marker", "root"}, func(decoder string) bool {
				return strings.HasPrefix(other, decoder) && strings.HasPrefix(kind, decoder)
			})
			if _, err := decode(b); other != kind && !related && !errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s taken for a %s: %v, want ErrCorrupt", kind, other, err)
			}
		}
	}
}

func FuzzDecodeRows(f *testing.F) {
	for _, b := range encodedRows() {
		f.Add(b[:len(b)-wire.ChecksumLen])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// the checksum of a root or snapshot is that of what follows the layout
		for start := range min(2, len(body)+1) {
			b := wire.Seal(bytes.Clone(body), start)
			for kind, decode := range recode {
				got, err := decode(b)
				marker := strings.HasPrefix(kind, "marker") // may be followed by what later formats add
				switch {
				case err != nil && !errors.Is(err, persistence.ErrCorrupt):
					t.Errorf("%s: %v, want ErrCorrupt", kind, err)
				case err == nil && !marker && !bytes.Equal(got, b):
					t.Errorf("%s %x is written as %x", kind, b, got)
				}
			}
		}
	})
}
