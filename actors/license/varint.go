package license

import (
	"encoding/binary"
	"errors"
)

var errMalformed = errors.New("malformed")

// zigzag is the code of protobuf's sint64: small numbers of either sign are small.
func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// packDuration codes milliseconds so that whole days take a byte or two.
func packDuration(ms int64) uint64 {
	if ms%day == 0 {
		return zigzag(ms/day)<<1 | 1
	}
	return zigzag(ms) << 1
}

func unpackDuration(u uint64) int64 {
	if u&1 != 0 {
		return unzigzag(u>>1) * day
	}
	return unzigzag(u >> 1)
}

// reader takes varints off bytes. After the first that is malformed it yields zeros and remembers.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	if len(r.data) > 0 && r.data[0] < 0x80 {
		v := r.data[0]
		r.data = r.data[1:]
		return uint64(v)
	}
	return r.long()
}

func (r *reader) long() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.data, r.bad = nil, true
		return 0
	}
	r.data = r.data[n:]
	return v
}

// index returns a number below n.
func (r *reader) index(n int) uint32 {
	v := r.uvarint()
	if v >= uint64(n) {
		r.bad = true
		return 0
	}
	return uint32(v)
}

// small returns a number that fits in 32 bits.
func (r *reader) small() uint32 { return r.index(1 << 32) }

// take returns the next n bytes.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.data, r.bad = nil, true
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

// varints counts the varints in bytes.
func varints(data []byte) int {
	n := 0
	for _, b := range data {
		if b < 0x80 {
			n++
		}
	}
	return n
}
