package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// The engine takes the first chunk that it cannot read for the end of a log, unless a chunk of a later block says that
// the log was synced beyond it. Later chunks of the same block are not looked at, nor is any chunk of a MANIFEST. So
// damage near the end of a file would be taken for a write that a crash cut short, and rows that were acknowledged
// would be gone without an error.
//
// So the files that the engine replays are searched before: something behind the first unreadable chunk may prove that
// the chunk was durable once. A crash must never be taken for damage, since that keeps the store from starting. After a
// loss of power any part of what was not synced may be on the disk, in any order, also a later write without an earlier
// one. So only these are proofs:
//
//   - A chunk of the log whose synced offset is beyond the damage. The engine counts only part of what it writes
//     (flushLoop in record/log_writer.go leaves out blocks that are full), so the offset lags, the more the longer the
//     log is. It is never too high.
//   - A batch of the log with a watermark beyond the damage: the batch began when all below its watermark was durable.
//   - The beginning of a record of the MANIFEST. Each record is synced before the next one begins, except for the first
//     two of a file; these are synced before the marker names the file. The engine opens no other MANIFEST.
//
// A chunk is durable as a whole or not at all in all three cases: what is synced ends with a chunk.
//
// A chunk lies within a block of 32 KiB (record.go of the engine):
//
//	CRC (4) | size of the payload (2) | type (1) | in logs: number of the log (4), synced offset (8) | payload
//
// The CRC is of all from the type on. The synced offset is that up to which the file was synced when the chunk was
// written.
const (
	chunkBlock     = 32 << 10
	manifestHeader = 7
	oldHeader      = 11 // of logs without synced offsets
	logHeader      = 19
	// The types of chunks: from the first one on, four in a row say which part of a record the chunk is.
	manifestTypes = 1
	logTypes      = 9
	typeFull      = 0
	typeFirst     = 1
	typeLast      = 3
)

// watermark is the engine's sequence number below which all rows are known to be durable. Batches carry it in the log.
// It is safe for concurrent use.
type watermark struct{ next atomic.Uint64 }

// stamp adds the watermark to a batch that is about to be committed. It goes to the log only.
func (w *watermark) stamp(b *pebbledb.Batch) {
	if err := b.LogData(binary.BigEndian.AppendUint64(nil, w.next.Load()), nil); err != nil {
		panic(fmt.Sprintf("pebble: plain batch refused a watermark: %v", err)) // it never does
	}
}

// raise notes that a batch is durable, and with it all that was committed before. The batch is not closed yet.
func (w *watermark) raise(b *pebbledb.Batch) {
	if b.Empty() { // the engine took the rows of a large batch, and its number with them
		return
	}
	next := uint64(b.SeqNum()) + uint64(b.Count())
	for old := w.next.Load(); old < next && !w.next.CompareAndSwap(old, next); {
		old = w.next.Load()
	}
}

// readWatermark returns the watermark of a batch in the log; 0 if it has none.
func readWatermark(batch []byte) uint64 {
	r := batchrepr.Read(batch)
	for {
		kind, data, _, ok, err := r.Next()
		if !ok || err != nil {
			return 0
		}
		if kind == pebbledb.InternalKeyKindLogData && len(data) == 8 {
			return binary.BigEndian.Uint64(data)
		}
	}
}

// openReplayed opens an engine, and searches the MANIFEST and the logs that it replays for damage that it would take
// for their end. Errors: ErrCorrupt, ErrUnavailable.
func openReplayed(dir string, o *pebbledb.Options) (*pebbledb.DB, error) {
	fsys := &replayedFS{FS: o.FS}
	o.FS = fsys
	fsys.replaying.Store(true)
	db, err := pebbledb.Open(dir, o)
	fsys.replaying.Store(false)
	if refused := fsys.refused.Load(); refused != nil && err != nil {
		return nil, *refused
	}
	return db, classify(err)
}

// replayedFS searches files when the engine opens them for its replay. Others in the directory are of no importance:
// logs whose rows are in tables, kept to be written again, and a MANIFEST that a crash left unfinished.
type replayedFS struct {
	vfs.FS
	replaying atomic.Bool // later the engine reads files that are being written
	refused   atomic.Pointer[error]
}

// Open implements vfs.FS.
func (r *replayedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if r.replaying.Load() {
		if err := checkTail(r.FS, name); err != nil {
			r.refused.CompareAndSwap(nil, &err)
			return nil, err
		}
	}
	return r.FS.Open(name, opts...)
}

// Unwrap implements vfs.FS.
func (r *replayedFS) Unwrap() vfs.FS { return r.FS }

// tail is a log or MANIFEST.
type tail struct {
	data   []byte
	log    bool
	number uint32 // of a log, as its chunks say
}

// checkTail returns an error if a file is a log or MANIFEST, and damaged where the engine would take the damage for its
// end. Errors: ErrCorrupt, ErrUnavailable.
func checkTail(fsys vfs.FS, path string) error {
	name := fsys.PathBase(path)
	base, isLog := strings.CutSuffix(name, ".log")
	number, err := strconv.ParseUint(base, 10, 32)
	if isLog = isLog && err == nil; !isLog && !strings.HasPrefix(name, "MANIFEST-") {
		return nil
	}
	data, err := readFile(fsys, path)
	if err != nil {
		return classify(err)
	}
	t := tail{data: data, log: isLog, number: uint32(number)}
	if at, damaged := t.damage(); damaged {
		return fmt.Errorf("%w: %s is damaged at byte %d, and was written beyond that; restore a backup",
			persistence.ErrCorrupt, name, at)
	}
	return nil
}

// readFile reads a whole file through the store's file system.
func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	var data []byte
	info, err := f.Stat()
	if err == nil {
		data = make([]byte, info.Size())
		_, err = io.ReadFull(f, data)
	}
	return data, errors.Join(err, f.Close())
}

// damage returns where the first chunk is that cannot be read, and whether what follows proves that it was durable.
func (t *tail) damage() (at int, damaged bool) {
	at = -1
	mark := binary.LittleEndian.AppendUint32(nil, t.number)
	var (
		record []byte // the chunks of the record so far
		whole  bool   // its beginning is among them
		// next is the number of the batch that follows the last one before the damage, or, if there is none, that of
		// the first one behind the damage. Numbers in a log ascend.
		next  uint64
		known bool
	)
	for i := 0; i < len(t.data); {
		if left := chunkBlock - i%chunkBlock; left < t.header() { // no room for a chunk
			if at < 0 && !padding(t.data[i:min(i+left, len(t.data))]) {
				at, whole = i, false
			}
			i += left
			continue
		}
		size := t.chunk(i)
		if size == 0 {
			if at < 0 {
				at = i
			}
			whole = false
			i++
			if t.log { // No chunk begins before the next place that has the number of the log.
				next := bytes.Index(t.data[min(i+oldHeader-len(mark), len(t.data)):], mark)
				if next < 0 {
					return at, false
				}
				i += next
			}
			continue
		}
		chunk := t.data[i : i+size]
		i += size
		kind := chunk[6] - t.types()
		begins := kind == typeFull || kind == typeFirst
		if !t.log {
			if at >= 0 && begins {
				return at, true
			}
			continue
		}
		if at >= 0 && binary.LittleEndian.Uint64(chunk[11:]) > uint64(at) {
			return at, true
		}
		if begins {
			record, whole = record[:0], true
		}
		record = append(record, chunk[logHeader:]...)
		if !whole || kind != typeFull && kind != typeLast {
			continue
		}
		whole = false
		if h, ok := batchrepr.ReadHeader(record); ok {
			switch {
			case at < 0:
				next, known = uint64(h.SeqNum)+uint64(h.Count), true
			case !known:
				next, known = uint64(h.SeqNum), true
			case readWatermark(record) > next:
				return at, true
			}
		}
	}
	return at, false
}

// padding reports whether the engine reads on behind the end of a block that has no room for a chunk (nextChunk in
// record/record.go).
func padding(b []byte) bool {
	switch {
	case len(b) < manifestHeader:
		return true
	case len(b) < oldHeader:
		b = b[:manifestHeader]
	}
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// header returns the size of a chunk's header, in bytes.
func (t *tail) header() int {
	if t.log {
		return logHeader
	}
	return manifestHeader
}

// types returns the first of the types of chunks.
func (t *tail) types() byte {
	if t.log {
		return logTypes
	}
	return manifestTypes
}

// chunk returns the size of the chunk that begins at a position; 0 if none does.
func (t *tail) chunk(at int) int {
	header := t.header()
	end := min(len(t.data), at-at%chunkBlock+chunkBlock)
	if at+header > end {
		return 0
	}
	h := t.data[at:]
	if t.log && binary.LittleEndian.Uint32(h[7:]) != t.number {
		return 0
	}
	size := header + int(binary.LittleEndian.Uint16(h[4:]))
	if h[6]-t.types() > typeLast || at+size > end {
		return 0
	}
	crc := wire.Checksum(h[6:size])
	// LevelDB masks its checksums in this way (util/crc32c.h), and the engine keeps its
	// format.
	if crc = crc>>15 | crc<<17; crc+0xa282ead8 != binary.LittleEndian.Uint32(h) {
		return 0
	}
	return size
}
