package pebble

import (
	"encoding/binary"
	"fmt"
	"slices"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// First bytes of values; those of records and roots are in package persistence. A layout never
// changes; a new one gets a new number.
const (
	layoutMarker  = 0x41
	layoutCluster = 0x51
	layoutLease   = 0x61
	layoutAddress = 0x62 // a lease with an address
	layoutShard   = 0x71
	layoutStrip   = 0x81
	layoutID      = 0x91
	// The two rows of a root: what holds the chain together, and the snapshot.
	layoutChain    = 0xa1
	layoutSnapshot = 0xb1
)

// format is the version of the store's layout as a whole: keys and values. It is raised when an
// older program must not open the store any more.
//
//	1  a root and its snapshot are one row under one checksum. Such rows are read as before.
//	2  a snapshot has a row of its own.
const (
	format      = 2
	firstFormat = 1
)

// encodeMarker returns layout, format, checksum.
func encodeMarker(format uint64) []byte {
	return wire.Seal(binary.AppendUvarint([]byte{layoutMarker}, format), 0)
}

// decodeMarker returns the format. Errors: ErrCorrupt.
func decodeMarker(b []byte) (format uint64, err error) {
	rd, err := openRow(b, layoutMarker)
	if err != nil {
		return 0, err
	}
	// What follows the number is left to later formats.
	format = rd.Uvarint()
	rd.Rest()
	return format, closeRow(&rd)
}

// encodeCluster returns layout, name, shards, checksum.
func encodeCluster(c persistence.ClusterInfo) []byte {
	b := wire.AppendString([]byte{layoutCluster}, c.Name)
	return wire.Seal(binary.AppendUvarint(b, uint64(c.Shards)), 0)
}

// decodeCluster returns what encodeCluster wrote. Errors: ErrCorrupt.
func decodeCluster(b []byte) (c persistence.ClusterInfo, err error) {
	rd, err := openRow(b, layoutCluster)
	if err != nil {
		return c, err
	}
	c.Name, c.Shards = rd.String(), rd.Uint32()
	return c, closeRow(&rd)
}

// encodeClusterID returns layout, id, checksum.
func encodeClusterID(id persistence.ClusterID) []byte {
	return wire.Seal(append([]byte{layoutID}, id[:]...), 0)
}

// decodeClusterID returns what encodeClusterID wrote. Errors: ErrCorrupt.
func decodeClusterID(b []byte) (id persistence.ClusterID, err error) {
	rd, err := openRow(b, layoutID)
	if err != nil {
		return id, err
	}
	copy(id[:], rd.Take(len(id)))
	return id, closeRow(&rd)
}

// encodeLease returns layout, incarnation, node, [address], counter, dead, checksum. A
// lease without an address is written as by releases that had none, so that its bytes
// stay the same.
func encodeLease(l persistence.Lease) []byte {
	layout := byte(layoutLease)
	if l.Address != "" {
		layout = layoutAddress
	}
	b := append([]byte{layout}, l.Incarnation[:]...)
	b = wire.AppendString(b, l.Node)
	if l.Address != "" {
		b = wire.AppendString(b, l.Address)
	}
	b = binary.AppendUvarint(b, l.Counter)
	dead := byte(0)
	if l.Dead {
		dead = 1
	}
	return wire.Seal(append(b, dead), 0)
}

// decodeLease returns what encodeLease wrote. Errors: ErrCorrupt, also for encodings that
// encodeLease never writes.
func decodeLease(b []byte) (l persistence.Lease, err error) {
	rd, err := openRow(b, layoutLease, layoutAddress)
	if err != nil {
		return l, err
	}
	copy(l.Incarnation[:], rd.Take(len(l.Incarnation)))
	l.Node = rd.String()
	if b[0] == layoutAddress {
		if l.Address = rd.String(); l.Address == "" {
			rd.Fail()
		}
	}
	l.Counter = rd.Uvarint()
	dead := rd.Byte()
	if dead > 1 {
		rd.Fail()
	}
	l.Dead = dead == 1
	return l, closeRow(&rd)
}

// encodeShard returns layout, id, epoch, owner, successor, checksum.
func encodeShard(s persistence.Shard) []byte {
	b := binary.AppendUvarint([]byte{layoutShard}, uint64(s.ID))
	b = binary.AppendUvarint(b, s.Epoch)
	b = append(append(b, s.Owner[:]...), s.Successor[:]...)
	return wire.Seal(b, 0)
}

// decodeShard returns what encodeShard wrote. Errors: ErrCorrupt.
func decodeShard(b []byte) (s persistence.Shard, err error) {
	rd, err := openRow(b, layoutShard)
	if err != nil {
		return s, err
	}
	s.ID, s.Epoch = rd.Uint32(), rd.Uvarint()
	copy(s.Owner[:], rd.Take(len(s.Owner)))
	copy(s.Successor[:], rd.Take(len(s.Successor)))
	return s, closeRow(&rd)
}

// appendChain appends the row of a root: layout, the encoding of the root without its
// snapshot. The checksum of that encoding covers the fields of the chain alone.
func appendChain(dst []byte, r *persistence.Root) []byte {
	chain := *r
	chain.Mapper, chain.Header, chain.Snapshot = "", persistence.Header{}, nil
	return persistence.AppendRoot(append(dst, layoutChain), &chain)
}

// appendSnapshot appends the row of a root's snapshot: layout, the encoding of a root
// with that key, incarnation and snapshot. Key and incarnation are in it so that a
// snapshot under another root's key is noticed.
func appendSnapshot(dst []byte, r *persistence.Root) []byte {
	return persistence.AppendRoot(append(dst, layoutSnapshot), &persistence.Root{
		Key: r.Key, Incarnation: r.Incarnation, Mapper: r.Mapper, Header: r.Header, Snapshot: r.Snapshot,
	})
}

// decodeRoot decodes the row of a root. Its snapshot is in a row of its own if split,
// else the row is of the first format and has it. Errors: ErrCorrupt.
func decodeRoot(b []byte) (r persistence.Root, split bool, err error) {
	if len(b) == 0 || b[0] != layoutChain {
		r, err = persistence.DecodeRoot(b)
		return r, false, err
	}
	r, err = persistence.DecodeRoot(b[1:])
	if err == nil && (r.Mapper != "" || r.Header != persistence.Header{} || len(r.Snapshot) > 0) {
		err = fmt.Errorf("root: %w: the row has a snapshot", persistence.ErrCorrupt)
	}
	return r, true, err
}

// decodeSnapshot completes a root with the row of its snapshot, whose bytes it shares. After an error r is as before.
func decodeSnapshot(r *persistence.Root, b []byte) error {
	if len(b) == 0 || b[0] != layoutSnapshot {
		return fmt.Errorf("%w: unknown layout", persistence.ErrCorrupt)
	}
	s, err := persistence.DecodeRoot(b[1:])
	if err != nil {
		return err
	}
	// All but the snapshot's own fields are zero in this row: anything else was written
	// by nobody.
	if s.Key != r.Key || s.Incarnation != r.Incarnation || s.Base != 0 || !s.Parent.IsZero() ||
		s.ArchivedThrough != 0 || !s.Time.IsZero() {
		return fmt.Errorf("%w: snapshot of root %v under another's key", persistence.ErrCorrupt, s.Key)
	}
	r.Mapper, r.Header, r.Snapshot = s.Mapper, s.Header, s.Snapshot
	return nil
}

// encodeStrip returns layout, where the snapshot is, checksum.
func encodeStrip(snapshotAt string) []byte {
	return wire.Seal(wire.AppendString([]byte{layoutStrip}, snapshotAt), 0)
}

// decodeStrip returns what encodeStrip wrote. Errors: ErrCorrupt.
func decodeStrip(b []byte) (snapshotAt string, err error) {
	rd, err := openRow(b, layoutStrip)
	if err != nil {
		return "", err
	}
	snapshotAt = rd.String()
	return snapshotAt, closeRow(&rd)
}

// openRow checks the checksum and the layout of a row, and returns what follows. Errors:
// ErrCorrupt.
func openRow(b []byte, layouts ...byte) (wire.Reader, error) {
	body, err := wire.Unseal(b)
	if err != nil {
		return wire.Reader{}, fmt.Errorf("%w: %w", persistence.ErrCorrupt, err)
	}
	rd := wire.NewReader(body)
	if got := rd.Byte(); !slices.Contains(layouts, got) {
		return wire.Reader{}, fmt.Errorf("%w: unknown layout %#x", persistence.ErrCorrupt, got)
	}
	return rd, nil
}

// closeRow returns ErrCorrupt if a row was shorter or longer than what was read of it.
func closeRow(rd *wire.Reader) error {
	if err := rd.Close(); err != nil {
		return fmt.Errorf("%w: %w", persistence.ErrCorrupt, err)
	}
	return nil
}
