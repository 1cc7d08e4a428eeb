package archive

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// Stretch is a closed partition as a segment holds it: the records after Base up to
// Through, all of them.
type Stretch struct {
	Partition     persistence.Partition
	Base, Through uint64
	Records       []persistence.Record
}

// The first byte of a segment names what it is and its layout; a layout never changes.
const (
	layoutSegment  = 0x61
	layoutSnapshot = 0x71
)

// maxSegment bounds what decoding may allocate: far above what the archiver writes.
const maxSegment = 64 << 20

// Encoder and decoder are made when the first segment is written or read: they hold
// megabytes. Both are safe for concurrent use.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		// The window is no larger than segments are, or each encoder would take megabytes.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
			zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxSegment))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// EncodeSegment returns the segment of stretches of one aggregate, in order. Layout:
//
//	0x61, zstd(aggregate, stretches, columns), CRC-32C (4 bytes)
//
//	stretches: number, then for each: epoch, version, incarnation (16 bytes), base, through
//	columns:   those of all records one after the other, see columns.go
func EncodeSegment(aggregate string, stretches []Stretch) []byte {
	body := wire.AppendString(nil, aggregate)
	body = binary.AppendUvarint(body, uint64(len(stretches)))
	c := newColumns()
	for i := range stretches {
		s := &stretches[i]
		body = binary.AppendUvarint(body, s.Partition.Epoch)
		body = binary.AppendUvarint(body, s.Partition.Version)
		body = append(body, s.Partition.Incarnation[:]...)
		body = binary.AppendUvarint(body, s.Base)
		body = binary.AppendUvarint(body, s.Through)
		for j := range s.Records {
			c.add(&s.Records[j])
		}
	}
	return seal(layoutSegment, c.appendTo(body))
}

// DecodeSegment returns what EncodeSegment was given. Errors: persistence.ErrCorrupt.
func DecodeSegment(b []byte) (aggregate string, stretches []Stretch, err error) {
	body, err := unseal(layoutSegment, b)
	if err != nil {
		return "", nil, err
	}
	rd := wire.NewReader(body)
	aggregate = rd.String()
	// The number is not trusted: each stretch takes some bytes, so the loop ends with
	// them.
	for n := rd.Uvarint(); n > 0 && rd.Len() > 0; n-- {
		s := Stretch{Partition: persistence.Partition{
			RootKey: persistence.RootKey{Aggregate: aggregate, Epoch: rd.Uvarint(), Version: rd.Uvarint()},
		}}
		copy(s.Partition.Incarnation[:], rd.Take(len(s.Partition.Incarnation)))
		s.Base, s.Through = rd.Uvarint(), rd.Uvarint()
		stretches = append(stretches, s)
	}
	c := readColumns(&rd)
	if err := rd.Close(); err != nil {
		return "", nil, fmt.Errorf("segment: %w: %w", persistence.ErrCorrupt, err)
	}
	for i := range stretches {
		s := &stretches[i]
		// The same holds for the sequences of a stretch.
		for seq := s.Base; seq < s.Through && !c.failed(); seq++ {
			s.Records = append(s.Records, c.next(seq+1))
		}
		c.check(s.Base <= s.Through && uint64(len(s.Records)) == s.Through-s.Base)
	}
	if err := c.close(); err != nil {
		return "", nil, fmt.Errorf("segment: %w: %w", persistence.ErrCorrupt, err)
	}
	return aggregate, stretches, nil
}

// EncodeSnapshot returns a root, whole, as the archive keeps it: 0x71, zstd(AppendRoot), CRC-32C.
func EncodeSnapshot(r *persistence.Root) []byte {
	return seal(layoutSnapshot, persistence.AppendRoot(nil, r))
}

// DecodeSnapshot returns what EncodeSnapshot was given. Errors: persistence.ErrCorrupt.
func DecodeSnapshot(b []byte) (persistence.Root, error) {
	body, err := unseal(layoutSnapshot, b)
	if err != nil {
		return persistence.Root{}, err
	}
	return persistence.DecodeRoot(body)
}

// seal compresses a body, behind its layout, and adds the checksum.
func seal(layout byte, body []byte) []byte {
	return wire.Seal(encoder().EncodeAll(body, []byte{layout}), 0)
}

// unseal returns the body that seal was given. Errors: persistence.ErrCorrupt.
func unseal(layout byte, b []byte) ([]byte, error) {
	b, err := wire.Unseal(b)
	if err != nil {
		return nil, fmt.Errorf("segment: %w: %w", persistence.ErrCorrupt, err)
	}
	if len(b) == 0 || b[0] != layout {
		return nil, fmt.Errorf("segment: unknown layout: %w", persistence.ErrCorrupt)
	}
	body, err := decoder().DecodeAll(b[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("segment: %w: %w", persistence.ErrCorrupt, err)
	}
	return body, nil
}
