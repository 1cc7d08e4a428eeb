package pebble

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// recode decodes each kind of row and encodes it again.
var recode = map[string]func(b []byte) ([]byte, error){
	"marker":        func(b []byte) ([]byte, error) { v, err := decodeMarker(b); return encodeMarker(v), err },
	"cluster":       func(b []byte) ([]byte, error) { v, err := decodeCluster(b); return encodeCluster(v), err },
	"cluster-id":    func(b []byte) ([]byte, error) { v, err := decodeClusterID(b); return encodeClusterID(v), err },
	"lease-address": func(b []byte) ([]byte, error) { v, err := decodeLease(b); return encodeLease(v), err },
	"lease":         func(b []byte) ([]byte, error) { v, err := decodeLease(b); return encodeLease(v), err },
	"strip":         func(b []byte) ([]byte, error) { v, err := decodeStrip(b); return encodeStrip(v), err },
	"shard":         func(b []byte) ([]byte, error) { v, err := decodeShard(b); return encodeShard(v), err },
}

func encodedRows() map[string][]byte {
	a, b := persistence.Incarnation{1, 2, 3}, persistence.Incarnation{15: 0xff}
	return map[string][]byte{
		"marker":        encodeMarker(format),
		"cluster":       encodeCluster(persistence.ClusterInfo{Name: "licences", Shards: math.MaxUint32}),
		"lease":         encodeLease(persistence.Lease{Incarnation: a, Node: "node one", Counter: math.MaxUint64, Dead: true}),
		"cluster-id":    encodeClusterID(persistence.ClusterID{1, 2, 3, 15: 0xff}),
		"lease-address": encodeLease(persistence.Lease{Incarnation: a, Node: "node one", Address: "n1.example.com:7947", Counter: 7}),
		"strip":         encodeStrip("archive/segment-7"),
		"shard":         encodeShard(persistence.Shard{ID: math.MaxUint32, Epoch: math.MaxUint64, Owner: a, Successor: b}),
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
			related := strings.HasPrefix(other, "lease") && strings.HasPrefix(kind, "lease") // one decoder
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
		b := wire.Seal(bytes.Clone(body), 0)
		for kind, decode := range recode {
			got, err := decode(b)
			switch {
			case err != nil && !errors.Is(err, persistence.ErrCorrupt):
				t.Errorf("%s: %v, want ErrCorrupt", kind, err)
			case err == nil && kind != "marker" && !bytes.Equal(got, b): // a marker may be followed by what later formats add
				t.Errorf("%s %x is written as %x", kind, b, got)
			}
		}
	})
}
