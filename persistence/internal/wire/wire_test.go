package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func TestReaderTakesBackWhatWasAppended(t *testing.T) {
	b := append([]byte(nil), 7)
	b = binary.LittleEndian.AppendUint64(b, math.MaxUint64-1)
	for _, v := range []uint64{0, 127, 128, math.MaxUint32, math.MaxUint64} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []int64{0, -1, 1, math.MinInt64, math.MaxInt64} {
		b = binary.AppendVarint(b, v)
	}
	b = AppendString(b, "häuser")
	b = AppendBytes(b, []byte{1, 2})
	b = append(b, "rest"...)

	r := NewReader(b)
	if got := r.Byte(); got != 7 {
		t.Errorf("Byte = %d", got)
	}
	if got := r.Uint64(); got != math.MaxUint64-1 {
		t.Errorf("Uint64 = %d", got)
	}
	for _, want := range []uint64{0, 127, 128, math.MaxUint32, math.MaxUint64} {
		if got := r.Uvarint(); got != want {
			t.Errorf("Uvarint = %d, want %d", got, want)
		}
	}
	for _, want := range []int64{0, -1, 1, math.MinInt64, math.MaxInt64} {
		if got := r.Varint(); got != want {
			t.Errorf("Varint = %d, want %d", got, want)
		}
	}
	if got := r.String(); got != "häuser" {
		t.Errorf("String = %q", got)
	}
	if got := r.Bytes(); !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("Bytes = %v", got)
	}
	if got := r.Rest(); string(got) != "rest" {
		t.Errorf("Rest = %q", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestReaderRefuses(t *testing.T) {
	tests := map[string]struct {
		in   []byte
		read func(*Reader)
	}{
		"short byte":          {nil, func(r *Reader) { r.Byte() }},
		"short uint64":        {make([]byte, 7), func(r *Reader) { r.Uint64() }},
		"no varint":           {nil, func(r *Reader) { r.Uvarint() }},
		"endless varint":      {bytes.Repeat([]byte{0x80}, 11), func(r *Reader) { r.Uvarint() }},
		"varint too long":     {[]byte{0x80, 0x00}, func(r *Reader) { r.Uvarint() }},
		"varint of 33 bits":   {binary.AppendUvarint(nil, 1<<32), func(r *Reader) { r.Uint32() }},
		"length past the end": {[]byte{2, 1}, func(r *Reader) { r.Bytes() }},
		"absurd length":       {binary.AppendUvarint(nil, math.MaxUint64), func(r *Reader) { r.Bytes() }},
		"negative length":     {nil, func(r *Reader) { r.Take(-1) }},
		"left over":           {[]byte{1, 2}, func(r *Reader) { r.Byte() }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := NewReader(tt.in)
			tt.read(&r)
			if err := r.Close(); !errors.Is(err, ErrMalformed) {
				t.Errorf("Close = %v, want ErrMalformed", err)
			}
		})
	}
}

func TestSealDetectsEveryFlippedBitAndCut(t *testing.T) {
	prefix := []byte("before")
	sealed := Seal(append(prefix, "a row of some bytes"...), len(prefix))[len(prefix):]
	if got, err := Unseal(sealed); err != nil || string(got) != "a row of some bytes" {
		t.Fatalf("Unseal = %q, %v", got, err)
	}
	for bit := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := Unseal(bad); !errors.Is(err, ErrChecksum) {
			t.Errorf("bit %d flipped: %v, want ErrChecksum", bit, err)
		}
	}
	for n := range sealed {
		if _, err := Unseal(sealed[:n]); !errors.Is(err, ErrChecksum) {
			t.Errorf("cut to %d bytes: %v, want ErrChecksum", n, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0x03, 'a', 'b', 'c', 0x80, 0x01})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(in)
		var out []byte
		out = AppendString(out, r.String())
		out = binary.AppendUvarint(out, r.Uvarint())
		out = binary.AppendVarint(out, r.Varint())
		out = append(out, r.Rest()...)
		if r.Close() == nil && !bytes.Equal(in, out) {
			t.Errorf("%x reads as what is written %x", in, out)
		}
	})
}
