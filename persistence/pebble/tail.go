package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
)

// The engine takes the first chunk that it cannot read for the end of a log, unless a chunk of a later block says that
// the log was synced beyond it. Later chunks of the same block are not looked at, nor is any chunk of a MANIFEST. So
// damage near the end of a file would be taken for a write that a crash cut short, and rows that were acknowledged
// would be gone without an error. checkTails looks at all that follows the first unreadable chunk.
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
	logHeader      = 19
	// The types of chunks: from the first one on, four in a row say which part of a record the chunk is.
	manifestTypes = 1
	logTypes      = 9
	typeFull      = 0
	typeFirst     = 1
)

// castagnoli is the table of the checksums in the engine's logs and MANIFESTs.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tail is a log or MANIFEST.
type tail struct {
	data   []byte
	log    bool
	number uint32 // of a log, as its chunks say
}

// checkTails returns an error if a log or MANIFEST in the directory is damaged where the engine would take the damage
// for the file's end. Errors: ErrCorrupt, ErrUnavailable.
func checkTails(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return classify(err)
	}
	for _, name := range names {
		base, isLog := strings.CutSuffix(name, ".log")
		number, err := strconv.ParseUint(base, 10, 32)
		if isLog = isLog && err == nil; !isLog && !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		data, err := readFile(fsys, fsys.PathJoin(dir, name))
		if err != nil {
			return classify(err)
		}
		t := tail{data: data, log: isLog, number: uint32(number)}
		if at, damaged := t.damage(); damaged {
			return fmt.Errorf("%w: %s is damaged at byte %d, and was written beyond that; restore a backup",
				persistence.ErrCorrupt, name, at)
		}
	}
	return nil
}

// readFile reads a whole file through the store's file system.
func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// damage returns where the first chunk is that cannot be read, and whether what follows proves that it could be read
// once.
func (t *tail) damage() (at int, damaged bool) {
	for at < len(t.data) {
		if chunkBlock-at%chunkBlock < t.header() { // no room for a chunk
			at += chunkBlock - at%chunkBlock
			continue
		}
		size := t.chunk(at)
		if size == 0 {
			break
		}
		at += size
	}
	// A valid chunk behind the damage was written after it, so the file did not end
	// there.
	for i := at + 1; i < len(t.data); i++ {
		if t.chunk(i) > 0 && t.proves(i, at) {
			return at, true
		}
	}
	return at, false
}

// header returns the size of a chunk's header, in bytes.
func (t *tail) header() int {
	if t.log {
		return logHeader
	}
	return manifestHeader
}

// chunk returns the size of the chunk that begins at a position; 0 if none does.
func (t *tail) chunk(at int) int {
	header, types := t.header(), byte(manifestTypes)
	end := min(len(t.data), at-at%chunkBlock+chunkBlock)
	if at+header > end {
		return 0
	}
	h := t.data[at:]
	if t.log {
		if types = logTypes; binary.LittleEndian.Uint32(h[7:]) != t.number {
			return 0
		}
	}
	size := header + int(binary.LittleEndian.Uint16(h[4:]))
	if h[6]-types > 3 || at+size > end {
		return 0
	}
	crc := crc32.Checksum(h[6:size], castagnoli)
	// LevelDB masks its checksums in this way (util/crc32c.h), and the engine keeps its
	// format.
	if crc = crc>>15 | crc<<17; crc+0xa282ead8 != binary.LittleEndian.Uint32(h) {
		return 0
	}
	return size
}

// proves reports whether the chunk at a position was written when all before it, and with it what is at an earlier
// position, had been synced: a chunk of a log says up to where that was, and a record of a MANIFEST begins when the
// one before it has been synced.
func (t *tail) proves(at, earlier int) bool {
	if t.log {
		return binary.LittleEndian.Uint64(t.data[at+11:]) > uint64(earlier)
	}
	part := t.data[at+6] - manifestTypes
	return part == typeFull || part == typeFirst
}
