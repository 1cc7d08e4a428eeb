package pebble

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"licensed/persistence"
)

// First bytes of keys; doc.go has the layout.
const (
	kindMarker  = '!'
	kindCluster = 'c'
	kindRecord  = 'e'
	kindLease   = 'l'
	kindRoot    = 'r'
	kindShard   = 's'

	kindClusterID = 'i'
	kindSnapshot  = 'n'
	kindTombstone = 't'
)

// Last bytes of the keys of rows that belong to a root: they sort right behind it, so
// that one scan finds a root with all its rows.
const (
	suffixMark  = "m"
	suffixStrip = "s"
	afterRoot   = 0xff // above every row that belongs to a root, below the next root
)

// aggregateEnd ends an aggregate's id in a key, afterAggregate is above every key of that aggregate
// and at or below every key of the next.
const (
	aggregateEnd   = 0
	afterAggregate = 1
)

// appendNumber appends v so that encodings sort as the numbers do and none is a prefix of
// another: the number of significant bytes, and these, big-endian. A number with more of
// them is larger.
func appendNumber(dst []byte, v uint64) []byte {
	n := (bits.Len64(v) + 7) / 8
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return append(append(dst, byte(n)), b[8-n:]...)
}

// takeNumber returns the number at the start of b and what follows it. It accepts only
// what appendNumber writes, so that each number has one encoding.
func takeNumber(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n := int(b[0])
	// A leading zero would be a second encoding of the number.
	if b = b[1:]; n > 8 || n > len(b) || n > 0 && b[0] == 0 {
		return 0, nil, false
	}
	for _, c := range b[:n] {
		v = v<<8 | uint64(c)
	}
	return v, b[n:], true
}

// appendDownNumber appends v so that encodings sort against the numbers: the highest root
// is the first that a seek finds.
func appendDownNumber(dst []byte, v uint64) []byte {
	start := len(dst)
	dst = appendNumber(dst, v)
	for i := start; i < len(dst); i++ {
		dst[i] = ^dst[i]
	}
	return dst
}

// appendAggregate appends what all keys of one kind of an aggregate start with.
func appendAggregate(dst []byte, kind byte, aggregate string) []byte {
	return append(append(append(dst, kind), aggregate...), aggregateEnd)
}

// appendRootKey appends the key of a root.
func appendRootKey(dst []byte, k persistence.RootKey) []byte {
	dst = appendAggregate(dst, kindRoot, k.Aggregate)
	return appendDownNumber(appendDownNumber(dst, k.Epoch), k.Version)
}

// appendSnapshotKey appends the key of a root's snapshot.
func appendSnapshotKey(dst []byte, k persistence.RootKey) []byte {
	start := len(dst)
	dst = appendRootKey(dst, k)
	dst[start] = kindSnapshot
	return dst
}

// rootAggregate returns the aggregate that the key of a root belongs to.
func rootAggregate(key []byte) (string, bool) {
	end := bytes.IndexByte(key, aggregateEnd)
	if end < 2 || key[0] != kindRoot {
		return "", false
	}
	return string(key[1:end]), true
}

// rootSuffix returns what follows the key of a root in the key of one of its rows: nothing for the
// root itself.
func rootSuffix(key []byte) (suffix []byte, ok bool) {
	end := bytes.IndexByte(key, aggregateEnd)
	if end < 0 {
		return nil, false
	}
	rest := key[end+1:]
	for range 2 { // epoch and version
		// The length byte is inverted, as all bytes of these numbers: higher numbers sort
		// first.
		if len(rest) == 0 || int(^rest[0]) >= len(rest) {
			return nil, false
		}
		rest = rest[1+int(^rest[0]):]
	}
	return rest, true
}

// appendPartition appends what the keys of a partition's records start with.
func appendPartition(dst []byte, p *persistence.Partition) []byte {
	dst = appendAggregate(dst, kindRecord, p.Aggregate)
	dst = appendNumber(appendNumber(dst, p.Epoch), p.Version)
	return append(dst, p.Incarnation[:]...)
}

// partitionEnd turns what a partition's keys start with into a key above them all.
func partitionEnd(prefix []byte) []byte {
	return append(prefix, 0xff) // above every length of a sequence
}

// leaseKey returns the key of a lease.
func leaseKey(i persistence.Incarnation) []byte { return append([]byte{kindLease}, i[:]...) }

// shardKey returns the key of a shard.
func shardKey(id uint32) []byte { return appendNumber([]byte{kindShard}, uint64(id)) }
