package archive

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// Stretch is a closed partition as a segment holds it: the records after Base up to Through.
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
const maxSegment = 1 << 30

var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSegment))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// EncodeSegment returns the segment of stretches of one aggregate, in order. Layout:
//
//	0x61, zstd(aggregate, number of stretches, stretches…), CRC-32C (4 bytes)
//	stretch: epoch, version, incarnation (16 bytes), base, through, records (length, AppendRecord)…
func EncodeSegment(aggregate string, stretches []Stretch) []byte {
	body := wire.AppendString(nil, aggregate)
	body = binary.AppendUvarint(body, uint64(len(stretches)))
	var record []byte
	for i := range stretches {
		s := &stretches[i]
		body = binary.AppendUvarint(body, s.Partition.Epoch)
		body = binary.AppendUvarint(body, s.Partition.Version)
		body = append(body, s.Partition.Incarnation[:]...)
		body = binary.AppendUvarint(body, s.Base)
		body = binary.AppendUvarint(body, s.Through)
		for j := range s.Records {
			record = persistence.AppendRecord(record[:0], &s.Records[j])
			body = wire.AppendBytes(body, record)
		}
	}
	return seal(layoutSegment, body)
}

// DecodeSegment returns what EncodeSegment was given. Errors: persistence.ErrCorrupt.
func DecodeSegment(b []byte) (aggregate string, stretches []Stretch, err error) {
	body, err := unseal(layoutSegment, b)
	if err != nil {
		return "", nil, err
	}
	rd := wire.NewReader(body)
	aggregate = rd.String()
	n := rd.Uvarint()
	for i := uint64(0); i < n; i++ {
		s, err := readStretch(&rd, aggregate)
		if err != nil {
			return "", nil, err
		}
		stretches = append(stretches, s)
	}
	if err := rd.Close(); err != nil {
		return "", nil, fmt.Errorf("segment: %w: %w", persistence.ErrCorrupt, err)
	}
	return aggregate, stretches, nil
}

func readStretch(rd *wire.Reader, aggregate string) (Stretch, error) {
	s := Stretch{Partition: persistence.Partition{
		RootKey: persistence.RootKey{Aggregate: aggregate, Epoch: rd.Uvarint(), Version: rd.Uvarint()},
	}}
	copy(s.Partition.Incarnation[:], rd.Take(len(s.Partition.Incarnation)))
	s.Base, s.Through = rd.Uvarint(), rd.Uvarint()
	for seq := s.Base + 1; seq <= s.Through && seq > s.Base; seq++ {
		r, err := persistence.DecodeRecord(rd.Bytes())
		if err != nil {
			return s, fmt.Errorf("segment: %w", err)
		}
		if r.Sequence != seq {
			return s, fmt.Errorf("segment: record %d in place of %d: %w", r.Sequence, seq, persistence.ErrCorrupt)
		}
		s.Records = append(s.Records, r)
	}
	return s, nil
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

func seal(layout byte, body []byte) []byte {
	return wire.Seal(encoder().EncodeAll(body, []byte{layout}), 0)
}

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
