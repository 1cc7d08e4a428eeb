package archive

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// An own codec, since an event stays in the archive forever: the same records one after the other
// (persistence.AppendRecord), compressed alike, take 1.3 times the space in segments of 10 events and 1.6 times in
// those of 2,000.
//
// A segment keeps records by columns, each preceded by its length, since like compresses best beside
// like, and most columns are nearly constant once what can be foretold is taken off:
//
//	shape     index and count, for each record whose index is not 0 or count not 1; a 0 before others
//	command   0 if as the record before; 1 and 16 bytes for a UUID; else its length + 2 and the id
//	print     fingerprint (8 bytes), of the first record of each command
//	issued    time of the event less time of issue, milliseconds, of the first record of each command
//	subject   aggregate id, as a number in a dictionary
//	order     less the order that follows the last one of that aggregate id
//	time      less that of the record before, milliseconds
//	mapper    as a number in a dictionary
//	header    as a number in a dictionary; principal and reason are in the same value
//	size      length of data
//	data      the events, one after the other
//
// A dictionary number is that of an earlier value + 1, or 0 and then a new value. Sequences are not
// kept: a stretch has all from its base on.
const (
	colShape = iota
	colCommand
	colPrint
	colIssued
	colSubject
	colOrder
	colTime
	colMapper
	colHeader
	colSize
	colData
	columnCount
)

// foretell is what encoder and decoder know alike from the records before. A value that
// can be foretold is stored as the difference, which is mostly 0.
type foretell struct {
	// Command id of the record before, time in milliseconds, and the order that comes
	// next by aggregate id.
	command string
	time    int64
	orders  map[string]uint64
}

// columns encodes records. It is used by one goroutine.
type columns struct {
	foretell
	// The bytes of each column so far.
	col [columnCount][]byte
	// The dictionaries: number of each value, from 1.
	subjects, mappers, header map[string]uint64
}

// newColumns returns an encoder of no records.
func newColumns() *columns {
	return &columns{
		foretell: foretell{orders: map[string]uint64{}},
		subjects: map[string]uint64{}, mappers: map[string]uint64{}, header: map[string]uint64{},
	}
}

func (c *columns) uvarint(col int, v uint64) { c.col[col] = binary.AppendUvarint(c.col[col], v) }
func (c *columns) varint(col int, v int64)   { c.col[col] = binary.AppendVarint(c.col[col], v) }

// word adds a string by its number in a dictionary.
func (c *columns) word(col int, words map[string]uint64, s string) {
	if n, ok := words[s]; ok {
		c.uvarint(col, n)
		return
	}
	words[s] = uint64(len(words)) + 1
	c.uvarint(col, 0)
	c.col[col] = wire.AppendString(c.col[col], s)
}

// add adds a record. Its sequence is not stored.
func (c *columns) add(r *persistence.Record) {
	if r.Index == 0 && r.Count == 1 {
		c.uvarint(colShape, 0)
	} else {
		c.uvarint(colShape, uint64(r.Count)+1)
		c.uvarint(colShape, uint64(r.Index))
	}
	c.commandID(r.CommandID)
	now := r.Time.UnixMilli()
	if r.Index == 0 {
		c.col[colPrint] = binary.LittleEndian.AppendUint64(c.col[colPrint], r.Fingerprint)
		c.varint(colIssued, now-r.IssuedAt.UnixMilli())
	}
	c.word(colSubject, c.subjects, r.AggregateID)
	c.varint(colOrder, int64(r.Order-c.orders[r.AggregateID]))
	c.orders[r.AggregateID] = r.Order + 1
	c.varint(colTime, now-c.time)
	c.time = now
	c.word(colMapper, c.mappers, r.Mapper)
	c.word(colHeader, c.header, string(persistence.AppendPayload(nil, r.Header, principal(r))))
	c.uvarint(colSize, uint64(len(r.Data)))
	c.col[colData] = append(c.col[colData], r.Data...)
}

// principal returns what the value of the column header has beside the header: nothing, or principal and reason.
func principal(r *persistence.Record) []byte {
	if r.Principal == "" && r.Reason == "" {
		return nil
	}
	return wire.AppendString(wire.AppendString(nil, r.Principal), r.Reason)
}

// commandID adds a command id. One that is a UUID in its usual form takes 16 bytes;
// another form would not be decoded to the same text.
func (c *columns) commandID(id string) {
	if id == c.command {
		c.uvarint(colCommand, 0)
		return
	}
	c.command = id
	if u, err := uuid.Parse(id); err == nil && u.String() == id {
		c.uvarint(colCommand, 1)
		c.col[colCommand] = append(c.col[colCommand], u[:]...)
		return
	}
	c.uvarint(colCommand, uint64(len(id))+2)
	c.col[colCommand] = append(c.col[colCommand], id...)
}

// appendTo appends all columns, each with its length.
func (c *columns) appendTo(b []byte) []byte {
	for _, col := range c.col {
		b = wire.AppendBytes(b, col)
	}
	return b
}

// columnReader decodes records. Its input may be damaged: every length is checked by
// [wire.Reader], which returns zero values from the first error on.
type columnReader struct {
	foretell
	col                        [columnCount]wire.Reader
	subjects, mappers, headers []string
	// header has what the texts in headers decode to.
	header map[string]recordHeader
	// A value that the encoder never writes was met.
	bad bool
}

// readColumns takes the columns from a segment.
func readColumns(rd *wire.Reader) *columnReader {
	c := &columnReader{foretell: foretell{orders: map[string]uint64{}}, header: map[string]recordHeader{}}
	for i := range c.col {
		c.col[i] = wire.NewReader(rd.Bytes())
	}
	return c
}

// failed reports whether there is no use in continuing: each record takes a byte of a column at least.
func (c *columnReader) failed() bool { return c.bad || c.col[colShape].Len() == 0 }

// close returns an error if a value was wrong, or a column has more than was read of it.
func (c *columnReader) close() error {
	for i := range c.col {
		if err := c.col[i].Close(); err != nil {
			return err
		}
	}
	if c.bad {
		return wire.ErrMalformed
	}
	return nil
}

// next decodes the next record. After a failure it returns any record; close reports it.
func (c *columnReader) next(sequence uint64) persistence.Record {
	r := persistence.Record{Sequence: sequence, Count: 1}
	if n := c.col[colShape].Uint32(); n > 0 {
		r.Count, r.Index = n-1, c.col[colShape].Uint32()
		c.check(r.Index < r.Count && r.Count > 1)
	}
	r.CommandID = c.commandID()
	c.time += c.col[colTime].Varint()
	r.Time = time.UnixMilli(c.time).UTC()
	if r.Index == 0 {
		r.Fingerprint = c.col[colPrint].Uint64()
		r.IssuedAt = time.UnixMilli(c.time - c.col[colIssued].Varint()).UTC()
	}
	r.AggregateID = c.word(colSubject, &c.subjects)
	r.Order = c.orders[r.AggregateID] + uint64(c.col[colOrder].Varint())
	c.orders[r.AggregateID] = r.Order + 1
	r.Mapper = c.word(colMapper, &c.mappers)
	h := c.recordHeader()
	r.Header, r.Principal, r.Reason = h.Header, h.principal, h.reason
	r.Data = c.col[colData].Take(int(c.col[colSize].Uint32()))
	return r
}

// check fails the decoding unless ok.
func (c *columnReader) check(ok bool) {
	if !ok {
		c.bad = true
	}
}

// word returns the next value of a column with a dictionary.
func (c *columnReader) word(col int, words *[]string) string {
	n := c.col[col].Uvarint()
	if n == 0 {
		*words = append(*words, c.col[col].String())
		n = uint64(len(*words))
	}
	if n > uint64(len(*words)) {
		c.bad = true
		return ""
	}
	return (*words)[n-1]
}

// recordHeader is the value of the column header of a record.
type recordHeader struct {
	persistence.Header
	principal, reason string
}

// recordHeader returns the header of the next record, with its principal. The few that occur are decoded
// once.
func (c *columnReader) recordHeader() recordHeader {
	encoded := c.word(colHeader, &c.headers)
	h, ok := c.header[encoded]
	if !ok {
		header, rest, err := persistence.DecodePayload([]byte(encoded))
		c.check(err == nil)
		h.Header = header
		if len(rest) > 0 {
			rd := wire.NewReader(rest)
			h.principal, h.reason = rd.String(), rd.String()
			c.check(rd.Close() == nil && (h.principal != "" || h.reason != ""))
		}
		c.header[encoded] = h
	}
	return h
}

// commandID returns the command id of the next record. A length above the limit fails
// before anything is allocated for it.
func (c *columnReader) commandID() string {
	switch n := c.col[colCommand].Uvarint(); n {
	case 0:
	case 1:
		var u uuid.UUID
		copy(u[:], c.col[colCommand].Take(len(u)))
		c.command = u.String()
	default:
		c.check(n-2 <= persistence.MaxNameLen)
		c.command = string(c.col[colCommand].Take(int(min(n-2, persistence.MaxNameLen))))
	}
	return c.command
}
