package license

import "encoding/binary"

// zigzag is the code of protobuf's sint64: small numbers of either sign are small.
func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// unzigzag is the reverse of zigzag.
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// packDuration codes milliseconds so that whole days take a byte or two.
func packDuration(ms int64) uint64 {
	if ms%day == 0 {
		return zigzag(ms/day)<<1 | 1
	}
	return zigzag(ms) << 1
}

// unpackDuration is the reverse of packDuration.
func unpackDuration(u uint64) int64 {
	if u&1 != 0 {
		return unzigzag(u>>1) * day
	}
	return unzigzag(u >> 1)
}

// reader takes varints off bytes. After the first that is malformed it is at the end, yields zeros and
// remembers.
type reader struct {
	data []byte
	at   int // moving a number is cheaper than moving the slice
	bad  bool
}

// uvarint reads a number; one of a single byte, as most are, without a call.
func (r *reader) uvarint() uint64 {
	if r.at < len(r.data) {
		if b := r.data[r.at]; b < 0x80 {
			r.at++
			return uint64(b)
		}
	}
	return r.long()
}

// long reads a number of any length.
func (r *reader) long() uint64 {
	v, n := binary.Uvarint(r.data[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

// fail has all further reads return nothing. The caller looks at bad once, at the end.
func (r *reader) fail() { r.at, r.bad = len(r.data), true }

// left returns the number of bytes that are left.
func (r *reader) left() int { return len(r.data) - r.at }

// index returns a number below n.
func (r *reader) index(n int) uint32 {
	v := r.uvarint()
	if v >= uint64(n) {
		r.fail()
		return 0
	}
	return uint32(v)
}

// small returns a number that fits in 32 bits.
func (r *reader) small() uint32 { return r.index(1 << 32) }

// take returns the next n bytes.
func (r *reader) take(n uint64) []byte {
	if n > uint64(r.left()) {
		r.fail()
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}
