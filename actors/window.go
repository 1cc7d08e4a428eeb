package actors

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/internal/planted"
	"licensed/persistence"
)

// window remembers the commands of an aggregate that were executed lately, so that a repeated id gets
// its first outcome. It is bounded by age and number; what leaves it moves the horizon, and a command
// issued at or before the horizon is never executed, because it could be the repeat of a forgotten
// one.
//
// Entries are packed one after the other, oldest first, times and sequences as differences to the
// entry before: about 40 bytes for an id that is a UUID. A lookup scans; above scanLimit entries a
// map of hashes answers first. The packed bytes are what snapshots carry. An entry would take 8 bytes more as a
// protobuf message (45 in place of 37), so a resident customer with 256 of them 2 KB more: 13.5 KB, and the bound is
// 12 KB (BenchmarkResidentCustomer, 11,528 B).
type window struct {
	buf   []byte // packed entries; those before head are evicted
	head  int
	count int

	// What the first entry's differences count from, and the next entry's.
	firstTime, lastTime int64 // Unix milliseconds
	firstSeq, lastSeq   uint64

	horizon horizon

	// hashes counts the ids by hash; nil while there are few.
	hashes map[uint64]int
}

// horizon is the latest issue time among forgotten commands, Unix milliseconds, apart for those that clients issued
// and those that gateways stamped; 0 for none. A repeat has the same id and the same origin of its time, so a wrong
// clock of a gateway makes nothing too old that clients issue, and the other way round.
type horizon struct{ clients, gateways int64 }

// pass notes that a command is forgotten.
func (h *horizon) pass(e *remembered) {
	if e.fingerprint&1 != 0 && !planted.Bug(planted.OneHorizon) {
		h.gateways = max(h.gateways, e.issuedAt)
	} else {
		h.clients = max(h.clients, e.issuedAt)
	}
}

// WindowConfig bounds the window of remembered commands.
type WindowConfig struct {
	// MaxAge is the time a command is remembered (default 24 h). Longer costs memory: about 40 bytes a
	// command.
	MaxAge time.Duration
	// MaxCommands is the number of commands remembered at most (default 1024).
	MaxCommands int
	// MinAge is the time a command is remembered at least (default 10 min): an aggregate whose window
	// is full of younger ones is rate-limited. (Not while its time is ahead of the clock: ages are not
	// known then, and MaxCommands alone bounds the window.) Shorter lets a hot aggregate go faster, and makes late
	// repeats of its commands "too old" sooner.
	MinAge time.Duration
	// MaxAhead is how far in the future a command may be issued (default 5 min). Must be below MinAge
	// if the horizon shall never reach fresh commands.
	MaxAhead time.Duration
}

// remembered is one entry of the window. Its slices are shared with the window's bytes, which are
// never overwritten.
type remembered struct {
	id          []byte // packed, see packID
	fingerprint uint32 // the lowest bit is Command.Stamped
	issuedAt    int64  // Unix milliseconds
	executedAt  int64  // Unix milliseconds
	sequence    uint64
	outcome     []byte
}

const (
	scanLimit   = 32   // entries up to which a scan beats keeping a set
	packedUUID  = 0x80 // length byte of an id that is a UUID in its canonical form
	maxIDLength = 64
)

// find returns the entry of that id.
func (w *window) find(id string) (remembered, bool) {
	if w.count == 0 {
		return remembered{}, false
	}
	var space [1 + maxIDLength]byte
	key := packID(space[:0], id)
	// A set of hashes, built once it is worth its memory: most windows have few entries.
	if w.count > scanLimit {
		if w.hashes == nil {
			w.index()
		}
		if w.hashes[xxhash.Sum64(key)] == 0 {
			return remembered{}, false
		}
	}
	for i, at := 0, w.head; i < w.count; i++ {
		if bytes.HasPrefix(w.buf[at:], key) {
			return w.entry(i), true
		}
		at += skipEntry(w.buf[at:])
	}
	return remembered{}, false
}

// entry returns the i-th entry.
func (w *window) entry(i int) remembered {
	rest, t, seq := w.buf[w.head:], w.firstTime, w.firstSeq
	for {
		e, n := unpackEntry(rest, t, seq)
		if i == 0 {
			return e
		}
		i--
		rest, t, seq = rest[n:], e.executedAt, e.sequence
	}
}

// index builds the set of hashes.
func (w *window) index() {
	w.hashes = make(map[uint64]int, w.count)
	for i, at := 0, w.head; i < w.count; i++ {
		w.hashes[xxhash.Sum64(packedID(w.buf[at:]))]++
		at += skipEntry(w.buf[at:])
	}
}

// oldest returns the entry that would be evicted first.
func (w *window) oldest() (remembered, bool) {
	if w.count == 0 {
		return remembered{}, false
	}
	e, _ := unpackEntry(w.buf[w.head:], w.firstTime, w.firstSeq)
	return e, true
}

// full returns the time until there is room for another command; 0 if there is. If the oldest was executed ahead of
// the clock, its age is not known, and it may be forgotten.
func (w *window) full(now int64, c *WindowConfig) time.Duration {
	if w.count < c.MaxCommands {
		return 0
	}
	e, _ := w.oldest()
	if e.executedAt > now {
		return 0
	}
	return max(0, time.Duration(e.executedAt-now)*time.Millisecond+c.MinAge)
}

// add remembers a command and forgets what exceeds the age or the number. A command exceeds the age if it is by the
// times of events, which are those of nodes' clocks, and by issue times, which are those of gateways or clients: one
// wrong clock forgets nothing early.
func (w *window) add(e remembered, c *WindowConfig) {
	age := c.MaxAge.Milliseconds()
	for {
		old, ok := w.oldest()
		young := old.executedAt >= e.executedAt-age && !planted.Bug(planted.AgeByIssueTimes) ||
			old.issuedAt >= e.issuedAt-age && !planted.Bug(planted.AgeByEventTimes)
		if !ok || w.count < c.MaxCommands && young {
			break
		}
		w.evict(old)
	}
	if w.count == 0 {
		w.firstTime, w.firstSeq = e.executedAt, e.sequence
		w.lastTime, w.lastSeq = e.executedAt, e.sequence
	}
	w.buf = packEntry(w.buf, &e, w.lastTime, w.lastSeq)
	w.lastTime, w.lastSeq = e.executedAt, e.sequence
	w.count++
	if w.hashes != nil {
		w.hashes[xxhash.Sum64(e.id)]++
	}
}

func (w *window) evict(old remembered) {
	_, n := unpackEntry(w.buf[w.head:], w.firstTime, w.firstSeq)
	w.head += n
	w.count--
	w.firstTime, w.firstSeq = old.executedAt, old.sequence
	if !planted.Bug(planted.ForgetHorizon) {
		w.horizon.pass(&old)
	}
	if h := xxhash.Sum64(old.id); w.hashes[h] > 1 {
		w.hashes[h]--
	} else {
		delete(w.hashes, h)
	}
	if w.count == 0 || w.head > 4096 && w.head > len(w.buf)/2 {
		w.buf, w.head = append([]byte(nil), w.buf[w.head:]...), 0
	}
}

// packID appends the packed form of an id: its length and bytes, or packedUUID and 16 bytes.
func packID(dst []byte, id string) []byte {
	if u, ok := uuidBytes(id); ok {
		return append(append(dst, packedUUID), u[:]...)
	}
	return append(append(dst, byte(len(id))), id...)
}

// packedID returns the id at the start of an entry.
func packedID(b []byte) []byte {
	if b[0] == packedUUID {
		return b[:1+16]
	}
	return b[:1+b[0]]
}

// packEntry appends an entry:
//
//	id (packID) | fingerprint (4) | time − former time | time − issue time (zigzag) |
//	sequence − former sequence | length of the outcome | outcome
func packEntry(dst []byte, e *remembered, formerTime int64, formerSeq uint64) []byte {
	dst = append(dst, e.id...)
	dst = binary.LittleEndian.AppendUint32(dst, e.fingerprint)
	dst = binary.AppendUvarint(dst, uint64(e.executedAt-formerTime))
	dst = binary.AppendVarint(dst, e.executedAt-e.issuedAt)
	dst = binary.AppendUvarint(dst, e.sequence-formerSeq)
	dst = binary.AppendUvarint(dst, uint64(len(e.outcome)))
	return append(dst, e.outcome...)
}

// skipEntry returns the length of the first entry of b, which is known to be one.
func skipEntry(b []byte) int {
	at := 1 + 4
	if b[0] == packedUUID {
		at += 16
	} else {
		at += int(b[0])
	}
	for range 3 {
		for b[at] >= 0x80 {
			at++
		}
		at++
	}
	size, n := binary.Uvarint(b[at:])
	return at + n + int(size)
}

// unpackEntry returns the first entry of b and its length, or a length of 0 if b is not one.
func unpackEntry(b []byte, formerTime int64, formerSeq uint64) (remembered, int) {
	var e remembered
	if len(b) == 0 {
		return e, 0
	}
	at := 1
	switch l := int(b[0]); {
	case l == packedUUID:
		at += 16
	case l > 0 && l <= maxIDLength:
		at += l
	default:
		return e, 0
	}
	if at+4 > len(b) {
		return e, 0
	}
	e.id = b[:at:at]
	e.fingerprint = binary.LittleEndian.Uint32(b[at:])
	at += 4
	var n int
	next := func(read func([]byte) int) bool {
		if at > len(b) {
			return false
		}
		n = read(b[at:])
		at += n
		return n > 0
	}
	var di int64
	var dt, ds, size uint64
	ok := next(func(b []byte) (n int) { dt, n = binary.Uvarint(b); return n }) &&
		next(func(b []byte) (n int) { di, n = binary.Varint(b); return n }) &&
		next(func(b []byte) (n int) { ds, n = binary.Uvarint(b); return n }) &&
		next(func(b []byte) (n int) { size, n = binary.Uvarint(b); return n })
	if !ok || size > uint64(len(b)-at) {
		return e, 0
	}
	e.executedAt = formerTime + int64(dt)
	e.issuedAt = e.executedAt - di
	e.sequence = formerSeq + ds
	end := at + int(size)
	e.outcome = b[at:end:end]
	return e, end
}

const maxWindowHeader = 1 + 5*binary.MaxVarintLen64

// encode returns the window in two parts, the first of which it appends to dst:
//
//	version | horizon of clients | of gateways | first time | first sequence | count
//	entries
func (w *window) encode(dst []byte) (header, entries []byte) {
	dst = append(dst, windowVersion)
	dst = binary.AppendVarint(dst, w.horizon.clients)
	dst = binary.AppendVarint(dst, w.horizon.gateways)
	dst = binary.AppendVarint(dst, w.firstTime)
	dst = binary.AppendUvarint(dst, w.firstSeq)
	dst = binary.AppendUvarint(dst, uint64(w.count))
	return dst, w.buf[w.head:]
}

// windowVersion 1 had one horizon for both.
const windowVersion = 2

// decodeWindow reads what encode wrote, in any version. It keeps b.
func decodeWindow(b []byte) (window, error) {
	var w window
	corrupt := func(what string) (window, error) {
		return window{}, fmt.Errorf("window of remembered commands: %s: %w", what, persistence.ErrCorrupt)
	}
	if len(b) == 0 || b[0] == 0 || b[0] > windowVersion {
		return corrupt("unknown version")
	}
	version, n := b[0], [5]int{4: 1}
	b = b[1:]
	var count uint64
	w.horizon.clients, n[0] = binary.Varint(b)
	b = b[max(0, n[0]):]
	if w.horizon.gateways = w.horizon.clients; version > 1 {
		w.horizon.gateways, n[4] = binary.Varint(b)
		b = b[max(0, n[4]):]
	}
	w.firstTime, n[1] = binary.Varint(b)
	b = b[max(0, n[1]):]
	w.firstSeq, n[2] = binary.Uvarint(b)
	b = b[max(0, n[2]):]
	count, n[3] = binary.Uvarint(b)
	b = b[max(0, n[3]):]
	if slices.Min(n[:]) <= 0 || count > uint64(len(b)) {
		return corrupt("short header")
	}
	w.buf, w.count = b[:len(b):len(b)], int(count)
	w.lastTime, w.lastSeq = w.firstTime, w.firstSeq
	size := 0
	for range w.count {
		e, n := unpackEntry(b[size:], w.lastTime, w.lastSeq)
		if n == 0 {
			return corrupt("broken entry")
		}
		size += n
		w.lastTime, w.lastSeq = e.executedAt, e.sequence
	}
	if size != len(b) {
		return corrupt("bytes after the last entry")
	}
	return w, nil
}

// uuidBytes packs a UUID in its canonical lower-case form; no other form, since it must read back the same.
func uuidBytes(s string) (u [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	var digits [32]byte
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '-' && (i == 8 || i == 13 || i == 18 || i == 23):
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
			digits[n] = c
			n++
		default:
			return u, false
		}
	}
	_, err := hex.Decode(u[:], digits[:])
	return u, err == nil
}
