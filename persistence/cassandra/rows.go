package cassandra

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// The columns of selectEvents and rootColumns are in the order in which eventRow.scan and
// rootRow.scan take them; those of the inserts in the order of eventValues and
// rootValues.
const (
	insertEvent = `INSERT INTO events
		(row_id, epoch, incarnation, sequence, aggregate_id, command_id, event_time, event_mapper, event_data)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
	selectEvents = `SELECT sequence, aggregate_id, command_id, event_time, event_mapper, event_data FROM events
		WHERE row_id = ? AND epoch = ? AND incarnation = ? AND sequence > ? LIMIT ?`

	insertRoot = `INSERT INTO snapshots
		(aggregate, epoch, version, incarnation, base, parent_epoch, parent_version, parent_incarnation,
		root_time, archived_through, checksum, snapshot_mapper, snapshot_data)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	rootColumns = `epoch, version, incarnation, base, parent_epoch, parent_version, parent_incarnation,
		root_time, archived_through, checksum, snapshot_mapper, snapshot_data, archive_mark, snapshot_at`
	selectRoots = `SELECT ` + rootColumns + ` FROM snapshots WHERE aggregate = ? LIMIT ?`
	selectBelow = `SELECT ` + rootColumns + ` FROM snapshots WHERE aggregate = ? AND (epoch, version) < (?, ?) LIMIT ?`
	selectRoot  = `SELECT ` + rootColumns + ` FROM snapshots WHERE aggregate = ? AND epoch = ? AND version = ?`

	selectAggregates      = `SELECT DISTINCT aggregate, token(aggregate) FROM snapshots`
	selectAggregatesAfter = selectAggregates + ` WHERE token(aggregate) >= token(?)`
)

// Flags of the envelope around an event, which is kept in event_data: what has no column.
const (
	eventFirst = 1 << iota // Index 0, so Fingerprint and IssuedAt follow
	eventOnly              // Index 0 and Count 1, which are left out
	eventBy                // Principal and Reason, unless both are empty
	eventFlags = eventFirst | eventOnly | eventBy
)

// eventData returns the content of event_data, package persistence's payload of:
//
//	checksum of the columns (4 bytes), flags, [index, count], [fingerprint (8 bytes), time-issued at],
//	[principal, reason], order, the event (to the end)
//
// Numbers without a size are varints. Index and count are missing for the only record of
// a command, which most are; the time of issue is stored as the distance to the event's,
// which is short. Stored bytes are read forever: stored_test.go has golden files of them.
func eventData(p *persistence.Partition, r *persistence.Record) []byte {
	b := make([]byte, 0, 44+len(r.Principal)+len(r.Reason)+len(r.Data))
	// The checksum comes first: what follows it may change with flags.
	b = binary.LittleEndian.AppendUint32(b, eventChecksum(p, r))
	var flags byte
	if r.Index == 0 {
		flags |= eventFirst
		if r.Count == 1 {
			flags |= eventOnly
		}
	}
	if r.Principal != "" || r.Reason != "" {
		flags |= eventBy
	}
	b = append(b, flags)
	if flags&eventOnly == 0 {
		b = binary.AppendUvarint(b, uint64(r.Index))
		b = binary.AppendUvarint(b, uint64(r.Count))
	}
	if flags&eventFirst != 0 {
		b = binary.LittleEndian.AppendUint64(b, r.Fingerprint)
		b = binary.AppendVarint(b, r.Time.UnixMilli()-r.IssuedAt.UnixMilli())
	}
	if flags&eventBy != 0 {
		b = wire.AppendString(wire.AppendString(b, r.Principal), r.Reason)
	}
	b = binary.AppendUvarint(b, r.Order)
	b = append(b, r.Data...)
	return persistence.AppendPayload(make([]byte, 0, len(b)+32+len(r.Header.PolicyVersion)), r.Header, b)
}

// decodeEventData completes a record from event_data; its columns are set already, since
// they are covered by the checksum. Errors: ErrCorrupt. The record keeps parts of data.
func decodeEventData(p *persistence.Partition, r *persistence.Record, data []byte) error {
	h, b, err := persistence.DecodePayload(data)
	if err != nil {
		return err
	}
	// An event that is the only one of its command has neither index nor count.
	r.Header, r.Count = h, 1
	rd := wire.NewReader(b)
	sum := rd.Take(4)
	flags := rd.Byte()
	if flags&eventOnly == 0 {
		r.Index, r.Count = rd.Uint32(), rd.Uint32()
	}
	if flags&eventFirst != 0 {
		r.Fingerprint = rd.Uint64()
		r.IssuedAt = fromMillis(r.Time.UnixMilli() - rd.Varint())
	}
	if flags&eventBy != 0 {
		r.Principal, r.Reason = rd.String(), rd.String()
	}
	r.Order = rd.Uvarint()
	r.Data = rd.Rest()
	// Contradictions are corruption: bytes that no release wrote must not be read as
	// something.
	switch {
	case rd.Close() != nil || flags&^eventFlags != 0 || (flags&eventFirst != 0) != (r.Index == 0) || r.Index >= r.Count,
		(flags&eventBy != 0) != (r.Principal != "" || r.Reason != ""):
		return fmt.Errorf("event_data: %w", persistence.ErrCorrupt)
	case binary.LittleEndian.Uint32(sum) != eventChecksum(p, r):
		return fmt.Errorf("columns differ from what was written: %w", persistence.ErrCorrupt)
	}
	return nil
}

// eventChecksum covers every column but event_data, which has a checksum of its own.
// Without it a row under another key, after a repair from the wrong backup for example,
// would be believed.
func eventChecksum(p *persistence.Partition, r *persistence.Record) uint32 {
	// The order is part of the stored format, as in rootChecksum.
	b := make([]byte, 0, 256)
	b = wire.AppendString(b, p.Aggregate)
	b = binary.AppendUvarint(b, p.Version)
	b = binary.AppendUvarint(b, p.Epoch)
	b = append(b, p.Incarnation[:]...)
	b = binary.AppendUvarint(b, r.Sequence)
	b = wire.AppendString(b, r.AggregateID)
	b = wire.AppendString(b, r.CommandID)
	b = binary.AppendVarint(b, r.Time.UnixMilli())
	b = wire.AppendString(b, r.Mapper)
	return wire.Checksum(b)
}

// snapshotData returns the content of snapshot_data: package persistence's payload of the
// checksum of the columns (4 bytes) and the snapshot.
func snapshotData(r *persistence.Root) []byte {
	b := make([]byte, 0, 4+len(r.Snapshot))
	b = binary.LittleEndian.AppendUint32(b, snapshotChecksum(r))
	b = append(b, r.Snapshot...)
	return persistence.AppendPayload(make([]byte, 0, len(b)+32+len(r.Header.PolicyVersion)), r.Header, b)
}

// decodeSnapshotData completes a root from snapshot_data; its columns are set already.
// Errors: ErrCorrupt. The root keeps parts of data.
func decodeSnapshotData(r *persistence.Root, data []byte) error {
	h, b, err := persistence.DecodePayload(data)
	if err != nil {
		return err
	}
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != snapshotChecksum(r) {
		return fmt.Errorf("columns differ from what was written: %w", persistence.ErrCorrupt)
	}
	r.Header, r.Snapshot = h, b[4:]
	return nil
}

// rootChecksum covers the columns that a stripped root keeps. It has a column of its own,
// so that the chain of roots can be followed past a snapshot that is damaged or archived.
func rootChecksum(r *persistence.Root) uint32 {
	b := make([]byte, 0, 256)
	b = wire.AppendString(b, r.Key.Aggregate)
	b = binary.AppendUvarint(b, r.Key.Epoch)
	b = binary.AppendUvarint(b, r.Key.Version)
	b = append(b, r.Incarnation[:]...)
	b = binary.AppendUvarint(b, r.Base)
	b = binary.AppendUvarint(b, r.Parent.Epoch)
	b = binary.AppendUvarint(b, r.Parent.Version)
	b = append(b, r.ParentIncarnation[:]...)
	b = binary.AppendVarint(b, r.Time.UnixMilli())
	b = binary.AppendUvarint(b, r.ArchivedThrough)
	return wire.Checksum(b)
}

// snapshotChecksum covers every column that the insert of a root writes, but
// snapshot_data. The mark of the archive is written later and has its own checksum.
func snapshotChecksum(r *persistence.Root) uint32 {
	b := make([]byte, 0, 64)
	b = binary.LittleEndian.AppendUint32(b, rootChecksum(r))
	b = append(b, r.Mapper...)
	return wire.Checksum(b)
}

// eventValues returns the values of insertEvent.
func eventValues(p *persistence.Partition, rowID string, r *persistence.Record) []any {
	return []any{
		rowID, int64(p.Epoch), gocql.UUID(p.Incarnation), int64(r.Sequence),
		r.AggregateID, r.CommandID, r.Time.UnixMilli(), r.Mapper, eventData(p, r),
	}
}

// rootValues returns the values of insertRoot.
func rootValues(r *persistence.Root) []any {
	return []any{
		r.Key.Aggregate, int64(r.Key.Epoch), int64(r.Key.Version), gocql.UUID(r.Incarnation), int64(r.Base),
		int64(r.Parent.Epoch), int64(r.Parent.Version), gocql.UUID(r.ParentIncarnation),
		r.Time.UnixMilli(), int64(r.ArchivedThrough), int32(rootChecksum(r)), r.Mapper, snapshotData(r),
	}
}

// eventsKey returns the partition key of a partition of events as the driver hashes it: each component
// with its length (2 bytes) before and a zero byte after it.
func eventsKey(p *persistence.Partition, rowID string) []byte {
	b := make([]byte, 0, len(rowID)+16+8+9)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rowID)))
	b = append(b, rowID...)
	b = append(b, 0, 0, 8)
	b = binary.BigEndian.AppendUint64(b, p.Epoch)
	b = append(b, 0, 0, 16)
	b = append(b, p.Incarnation[:]...)
	return append(b, 0)
}

// eventRow is one row of selectEvents.
type eventRow struct {
	sequence, time                 int64
	aggregateID, commandID, mapper string
	data                           []byte
}

// scan reads the next row, and reports whether there was one. Nulls of the row before
// must not stay, so it begins empty.
func (w *eventRow) scan(iter *gocql.Iter) bool {
	*w = eventRow{}
	return iter.Scan(&w.sequence, &w.aggregateID, &w.commandID, &w.time, &w.mapper, &w.data)
}

// record returns the row as a record of the partition. Errors: ErrCorrupt.
func (w *eventRow) record(p *persistence.Partition) (persistence.Record, error) {
	r := persistence.Record{
		Sequence: uint64(w.sequence), AggregateID: w.aggregateID, CommandID: w.commandID,
		Time: fromMillis(w.time), Mapper: w.mapper,
	}
	if err := decodeEventData(p, &r, w.data); err != nil {
		return persistence.Record{}, fmt.Errorf("record %d of %v: %w", w.sequence, *p, err)
	}
	return r, nil
}

// rootRow is one row of rootColumns.
type rootRow struct {
	epoch, version, base, parentEpoch, parentVersion, time, archivedThrough int64
	incarnation, parentIncarnation                                          gocql.UUID
	checksum                                                                int32
	mapper                                                                  string
	data, mark                                                              []byte
	// Null unless the root was stripped; empty then for a root that nothing will be
	// recovered from.
	snapshotAt *string
}

// scan reads the next row, and reports whether there was one.
func (w *rootRow) scan(iter *gocql.Iter) bool {
	*w = rootRow{}
	return iter.Scan(&w.epoch, &w.version, &w.incarnation, &w.base, &w.parentEpoch, &w.parentVersion,
		&w.parentIncarnation, &w.time, &w.archivedThrough, &w.checksum, &w.mapper, &w.data, &w.mark, &w.snapshotAt)
}

// root returns the row as a root. Errors: ErrCorrupt, if the columns of the chain or the
// mark of the archive cannot be trusted. A snapshot that cannot be read is no error but
// the root's Damage: the state can be built from the events.
func (w *rootRow) root(aggregate string) (persistence.Root, error) {
	r := persistence.Root{
		Key: persistence.RootKey{
			Aggregate: aggregate, Epoch: uint64(w.epoch), Version: uint64(w.version),
		},
		Incarnation:       persistence.Incarnation(w.incarnation),
		Base:              uint64(w.base),
		ParentIncarnation: persistence.Incarnation(w.parentIncarnation),
		Time:              fromMillis(w.time),
		Mapper:            w.mapper,
		ArchivedThrough:   uint64(w.archivedThrough),
	}
	// Zero and zero is a root without a parent: the first of a customer.
	if w.parentEpoch != 0 || w.parentVersion != 0 {
		r.Parent = persistence.RootKey{
			Aggregate: aggregate, Epoch: uint64(w.parentEpoch), Version: uint64(w.parentVersion),
		}
	}
	if err := w.complete(&r); err != nil {
		return persistence.Root{}, fmt.Errorf("root %v: %w", r.Key, err)
	}
	return r, nil
}

// complete adds what is not a plain column: snapshot, archive mark.
func (w *rootRow) complete(r *persistence.Root) error {
	// The columns first: the mark and the snapshot belong to the root that they describe.
	switch {
	case uint32(w.checksum) != rootChecksum(r):
		return fmt.Errorf("columns differ from what was written: %w", persistence.ErrCorrupt)
	case w.snapshotAt != nil:
		*r = r.Strip(*w.snapshotAt)
	default:
		if err := decodeSnapshotData(r, w.data); err != nil {
			*r = r.Damaged(fmt.Errorf("snapshot of root %v: %w", r.Key, err))
		}
	}
	if w.mark != nil {
		m, err := persistence.DecodeArchiveMark(w.mark)
		if err != nil {
			return err
		}
		r.Archive = &m
	}
	return nil
}

// fits reports whether the numbers can be kept in Cassandra's bigint.
func fits(numbers ...uint64) bool {
	for _, n := range numbers {
		if n > math.MaxInt64 {
			return false
		}
	}
	return true
}

// fromMillis returns a time as it is stored: UTC, in milliseconds.
func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
