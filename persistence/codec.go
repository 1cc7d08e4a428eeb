package persistence

import (
	"encoding/binary"
	"fmt"
	"time"

	"licensed/persistence/internal/wire"
)

// The first byte of an encoding names what it is and the version of its layout. A layout never
// changes; a new one gets a new number, and the decoder continues reading the old.
const (
	layoutRecord  = 0x11
	layoutRoot    = 0x21
	layoutPayload = 0x31
)

// The second byte tells which optional fields are present. A field that is zero is left out, so that
// each value has one encoding.
const (
	flagFirst     = 1 << iota // record: Index 0, so Fingerprint and IssuedAt follow
	flagOnly                  // record: Index 0 and Count 1, which are left out
	flagParent                // root: has a parent
	flagEncoding              // header: Codec and Compression
	flagKeyID                 // header: KeyID
	flagPolicy                // header: PolicyVersion
	flagPrincipal             // record: Principal and Reason, unless both are empty

	headerFlags  = flagEncoding | flagKeyID | flagPolicy
	flagArchived = flagFirst // root: ArchivedThrough
)

// AppendRecord appends the encoding of r to dst and returns the extended slice. Times are kept in
// milliseconds, Fingerprint and IssuedAt only where Index is 0. The record must be valid, see
// [Mutation.Validate].
//
// The encoding takes about 25 bytes beside r's strings and data. Layout, all integers varints unless
// said otherwise, strings and data preceded by their length:
//
//	0x11, flags, sequence, [index, count], command id, [fingerprint (8 bytes), time-issued at],
//	[principal, reason], aggregate id, order, time, mapper, [header], data, CRC-32C (4 bytes)
func AppendRecord(dst []byte, r *Record) []byte {
	start := len(dst)
	flags := r.Header.flags()
	if r.Index == 0 {
		flags |= flagFirst
		if r.Count == 1 {
			flags |= flagOnly
		}
	}
	if r.hasPrincipal() {
		flags |= flagPrincipal
	}
	now := r.Time.UnixMilli()
	dst = append(dst, layoutRecord, flags)
	dst = binary.AppendUvarint(dst, r.Sequence)
	if flags&flagOnly == 0 {
		dst = binary.AppendUvarint(dst, uint64(r.Index))
		dst = binary.AppendUvarint(dst, uint64(r.Count))
	}
	dst = wire.AppendString(dst, r.CommandID)
	if flags&flagFirst != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, r.Fingerprint)
		dst = binary.AppendVarint(dst, now-r.IssuedAt.UnixMilli())
	}
	if flags&flagPrincipal != 0 {
		dst = wire.AppendString(wire.AppendString(dst, r.Principal), r.Reason)
	}
	dst = wire.AppendString(dst, r.AggregateID)
	dst = binary.AppendUvarint(dst, r.Order)
	dst = binary.AppendVarint(dst, now)
	dst = wire.AppendString(dst, r.Mapper)
	dst = r.Header.append(dst)
	dst = wire.AppendBytes(dst, r.Data)
	return wire.Seal(dst, start)
}

// DecodeRecord returns the record that AppendRecord wrote; Data shares memory with b. Errors:
// ErrCorrupt.
func DecodeRecord(b []byte) (Record, error) {
	rd, flags, err := open(b, layoutRecord, flagFirst|flagOnly|flagPrincipal|headerFlags)
	if err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	r := Record{Sequence: rd.Uvarint(), Count: 1}
	if flags&flagOnly == 0 {
		r.Index, r.Count = rd.Uint32(), rd.Uint32()
		if r.Index >= r.Count || r.Count == 1 {
			rd.Fail()
		}
	}
	if (flags&flagFirst != 0) != (r.Index == 0) {
		rd.Fail()
	}
	r.CommandID = rd.String()
	var age int64
	if flags&flagFirst != 0 {
		r.Fingerprint = rd.Uint64()
		age = rd.Varint()
	}
	if flags&flagPrincipal != 0 {
		if r.Principal, r.Reason = rd.String(), rd.String(); !r.hasPrincipal() {
			rd.Fail()
		}
	}
	r.AggregateID = rd.String()
	r.Order = rd.Uvarint()
	now := rd.Varint()
	r.Time = fromMillis(now)
	if flags&flagFirst != 0 {
		r.IssuedAt = fromMillis(now - age)
	}
	r.Mapper = rd.String()
	r.Header = readHeader(&rd, flags)
	r.Data = rd.Bytes()
	if err := rd.Close(); err != nil {
		return Record{}, corrupt("record", err)
	}
	return r, nil
}

// AppendRoot appends the encoding of r to dst and returns the extended slice. Time is kept in
// milliseconds. The root must be valid, see [Root.Validate]. Layout, as in AppendRecord:
//
//	0x21, flags, aggregate, epoch, version, incarnation (16 bytes), base, [parent's epoch, version and
//	incarnation (16 bytes)], time, mapper, [header], snapshot, [archived through], CRC-32C (4 bytes)
//
// What Housekeeping adds to a root is not part of it.
func AppendRoot(dst []byte, r *Root) []byte {
	start := len(dst)
	flags := r.Header.flags()
	if !r.Parent.IsZero() {
		flags |= flagParent
	}
	if r.ArchivedThrough != 0 {
		flags |= flagArchived
	}
	dst = append(dst, layoutRoot, flags)
	dst = wire.AppendString(dst, r.Key.Aggregate)
	dst = binary.AppendUvarint(dst, r.Key.Epoch)
	dst = binary.AppendUvarint(dst, r.Key.Version)
	dst = append(dst, r.Incarnation[:]...)
	dst = binary.AppendUvarint(dst, r.Base)
	if flags&flagParent != 0 {
		dst = binary.AppendUvarint(dst, r.Parent.Epoch)
		dst = binary.AppendUvarint(dst, r.Parent.Version)
		dst = append(dst, r.ParentIncarnation[:]...)
	}
	dst = binary.AppendVarint(dst, r.Time.UnixMilli())
	dst = wire.AppendString(dst, r.Mapper)
	dst = r.Header.append(dst)
	dst = wire.AppendBytes(dst, r.Snapshot)
	if r.ArchivedThrough != 0 {
		dst = binary.AppendUvarint(dst, r.ArchivedThrough)
	}
	return wire.Seal(dst, start)
}

// DecodeRoot returns the root that AppendRoot wrote; Snapshot shares memory with b. Errors:
// ErrCorrupt.
func DecodeRoot(b []byte) (Root, error) {
	rd, flags, err := open(b, layoutRoot, flagParent|flagArchived|headerFlags)
	if err != nil {
		return Root{}, fmt.Errorf("root: %w", err)
	}
	r := Root{Key: RootKey{Aggregate: rd.String(), Epoch: rd.Uvarint(), Version: rd.Uvarint()}}
	copy(r.Incarnation[:], rd.Take(len(r.Incarnation)))
	r.Base = rd.Uvarint()
	if flags&flagParent != 0 {
		r.Parent = RootKey{Aggregate: r.Key.Aggregate, Epoch: rd.Uvarint(), Version: rd.Uvarint()}
		copy(r.ParentIncarnation[:], rd.Take(len(r.ParentIncarnation)))
		if r.Parent.IsZero() {
			rd.Fail()
		}
	}
	r.Time = fromMillis(rd.Varint())
	r.Mapper = rd.String()
	r.Header = readHeader(&rd, flags)
	r.Snapshot = rd.Bytes()
	if flags&flagArchived != 0 {
		if r.ArchivedThrough = rd.Uvarint(); r.ArchivedThrough == 0 {
			rd.Fail()
		}
	}
	if err := rd.Close(); err != nil {
		return Root{}, corrupt("root", err)
	}
	return r, nil
}

// AppendPayload appends data with the header that tells how it was made and a checksum, for stores
// that keep the other fields of a record or root in columns of their own. Layout, as in AppendRecord:
//
//	0x31, flags, [header], data (to the end), CRC-32C (4 bytes)
func AppendPayload(dst []byte, h Header, data []byte) []byte {
	start := len(dst)
	dst = append(dst, layoutPayload, h.flags())
	dst = h.append(dst)
	dst = append(dst, data...)
	return wire.Seal(dst, start)
}

// DecodePayload returns what AppendPayload wrote; data shares memory with b. Errors: ErrCorrupt.
func DecodePayload(b []byte) (h Header, data []byte, err error) {
	rd, flags, err := open(b, layoutPayload, headerFlags)
	if err != nil {
		return Header{}, nil, fmt.Errorf("payload: %w", err)
	}
	h = readHeader(&rd, flags)
	data = rd.Rest()
	if err := rd.Close(); err != nil {
		return Header{}, nil, corrupt("payload", err)
	}
	return h, data, nil
}

// open verifies checksum, layout and flags of an encoding and returns a reader of what follows.
func open(b []byte, layout, allowed byte) (wire.Reader, byte, error) {
	body, err := wire.Unseal(b)
	if err != nil {
		return wire.Reader{}, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	rd := wire.NewReader(body)
	got, flags := rd.Byte(), rd.Byte()
	if got != layout || flags&^allowed != 0 || flags&(flagFirst|flagOnly) == flagOnly {
		return wire.Reader{}, 0, fmt.Errorf("%w: unknown layout %#x, flags %#x", ErrCorrupt, got, flags)
	}
	return rd, flags, nil
}

// hasPrincipal reports whether the encoding says who gave the command, or why.
func (r *Record) hasPrincipal() bool { return r.Principal != "" || r.Reason != "" }

func corrupt(what string, err error) error { return fmt.Errorf("%s: %w: %w", what, ErrCorrupt, err) }

func (h *Header) flags() byte {
	var f byte
	if h.Codec != 0 || h.Compression != 0 {
		f |= flagEncoding
	}
	if h.KeyID != "" {
		f |= flagKeyID
	}
	if h.PolicyVersion != "" {
		f |= flagPolicy
	}
	return f
}

func (h *Header) append(dst []byte) []byte {
	if h.Codec != 0 || h.Compression != 0 {
		dst = append(dst, h.Codec, h.Compression)
	}
	if h.KeyID != "" {
		dst = wire.AppendString(dst, h.KeyID)
	}
	if h.PolicyVersion != "" {
		dst = wire.AppendString(dst, h.PolicyVersion)
	}
	return dst
}

func readHeader(rd *wire.Reader, flags byte) Header {
	var h Header
	if flags&flagEncoding != 0 {
		h.Codec, h.Compression = rd.Byte(), rd.Byte()
	}
	if flags&flagKeyID != 0 {
		h.KeyID = rd.String()
	}
	if flags&flagPolicy != 0 {
		h.PolicyVersion = rd.String()
	}
	if h.flags() != flags&headerFlags {
		rd.Fail()
	}
	return h
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
