// Package wire has the few encodings that stored rows are made of: minimal varints, length-prefixed
// bytes and a CRC-32C at the end.
//
// Every value has exactly one encoding, and Reader takes no other. So rows that decode to the same
// value are the same bytes, and copies can be compared without decoding them.
package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
)

// Errors of decoding.
var (
	// ErrChecksum says that the bytes are not what was written.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrMalformed says that the bytes, though whole, are not what this program writes.
	ErrMalformed = errors.New("malformed")
)

// ChecksumLen is the number of bytes that Seal appends.
const ChecksumLen = 4

// The polynomial for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendString appends the length of s and s.
func AppendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// AppendBytes appends the length of b and b.
func AppendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Checksum returns the CRC-32C of b.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Seal appends the checksum of dst[start:].
func Seal(dst []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(dst, Checksum(dst[start:]))
}

// Unseal verifies and removes the checksum that Seal appended.
func Unseal(b []byte) ([]byte, error) {
	n := len(b) - ChecksumLen
	if n < 0 || Checksum(b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, ErrChecksum
	}
	return b[:n:n], nil
}

// Reader takes values off the front of a byte slice. After the first malformed one it returns only
// zero values; Close tells. It never allocates more than it was given.
type Reader struct {
	rest []byte
	bad  bool
}

// NewReader returns a Reader of b, which must not change while the Reader and the slices it returned
// are in use.
func NewReader(b []byte) Reader { return Reader{rest: b} }

// Fail marks what was read so far as malformed.
func (r *Reader) Fail() {
	r.bad = true
	r.rest = nil
}

// Close returns ErrMalformed if anything was malformed or is left over.
func (r *Reader) Close() error {
	if r.bad || len(r.rest) > 0 {
		return ErrMalformed
	}
	return nil
}

// Len returns the number of bytes that are left.
func (r *Reader) Len() int { return len(r.rest) }

// Take returns the next n bytes, which share memory with the Reader's slice, or nil.
func (r *Reader) Take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.Fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Rest returns all bytes that are left, which share memory with the Reader's slice.
func (r *Reader) Rest() []byte { return r.Take(len(r.rest)) }

// Byte returns the next byte.
func (r *Reader) Byte() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint64 returns the next 8 bytes, little-endian.
func (r *Reader) Uint64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Uvarint returns the next varint.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n != uvarintLen(v) {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Uint32 returns the next varint, which must fit in 32 bits.
func (r *Reader) Uint32() uint32 {
	v := r.Uvarint()
	if v != uint64(uint32(v)) {
		r.Fail()
		return 0
	}
	return uint32(v)
}

// Varint returns the next zigzag varint.
func (r *Reader) Varint() int64 {
	v := r.Uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// Bytes returns the next length-prefixed bytes, which share memory with the Reader's slice.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if n > uint64(len(r.rest)) {
		r.Fail()
		return nil
	}
	return r.Take(int(n))
}

// String returns a copy of the next length-prefixed bytes.
func (r *Reader) String() string { return string(r.Bytes()) }

// uvarintLen returns the number of bytes of the shortest encoding of v.
func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
