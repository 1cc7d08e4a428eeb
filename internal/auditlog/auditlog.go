// Package auditlog records who did what in a file that is only appended to, and tells when the file was changed.
//
// # The model
//
// A record is a line of JSON with a number and the hash of the line before it, so that a line that was changed,
// removed or put in between shows, also where a file continues the one before it. A file that reached its size is
// renamed to NAME.NUMBER, for the number of its first record, and a new one continues it. Nothing removes files.
//
// The end of the last file has no successor. To see that it was cut, compare its last hash with one that was kept
// elsewhere: the process logs the hash at each start, stop and rotation. An intruder that can write the file, and all
// places where hashes were kept, can rewrite history; against that, send the lines to another machine.
package auditlog

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Record of one decision.
type Record struct {
	// Number of the record, from 1, and Prev, the hash of the line before it; empty before the first. Append sets both.
	Number uint64 `json:"number"`
	Prev   string `json:"prev"`
	// Time of the decision.
	Time time.Time `json:"time"`
	// Principal that asked, its roles, and the address it asked from; empty where callers need no credentials.
	Principal string `json:"principal,omitempty"`
	Roles     string `json:"roles,omitempty"`
	Source    string `json:"source,omitempty"`
	// Method that was called, about a customer, for a reason that the caller stated.
	Method   string `json:"method"`
	Customer string `json:"customer,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Decision is "allowed", or why the call was denied.
	Decision string `json:"decision"`
}

// Allowed is the decision about a call that was executed.
const Allowed = "allowed"

// maxLine is the length of the longest line, in bytes. Each field of a record is bounded by the gateway.
const maxLine = 64 << 10

// syncEvery is the interval at which records reach the disk. A crash of the machine may lose those of that time.
const syncEvery = time.Second

// Config of a log.
type Config struct {
	// File is the name of the file, created if missing.
	File string
	// MaxBytes is the size at which a file is renamed; 0 for 64 MiB.
	MaxBytes int64
	// Logger hears of the last hash, and of records that cannot be written.
	Logger *slog.Logger
	// Listener hears what happens.
	Listener Listener
}

// Listener hears what happens.
type Listener struct {
	// Appended is told of each record that was written, in their order, and of its line without the end. It must be
	// quick; nil is not called.
	Appended func(r Record, line []byte)
}

// Log is an open audit log. It is safe for concurrent use.
type Log struct {
	config Config

	// mu guards what follows.
	mu    sync.Mutex
	file  *os.File
	size  int64
	first uint64 // number of the first record in the file
	last  uint64
	hash  string // of the last line
	dirty bool
	err   error // why it is closed

	stop chan struct{}
	done sync.WaitGroup
}

// hashOf returns the hash of a line without its end.
func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Open opens a log and continues after its last record. Errors: the file cannot be read or written, or has a line that
// is no record.
func Open(c Config) (*Log, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
	l := &Log{config: c, stop: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	c.Logger.Info("audit log opened", "file", c.File, "records", l.last, "hash", l.hash)
	l.done.Go(l.syncing)
	return l, nil
}

// open opens the file and finds its end. A line that a crash cut off is ended, and stays.
func (l *Log) open() error {
	f, err := os.OpenFile(l.config.File, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	v := Verifier{last: l.last, hash: l.hash}
	findings, err := v.read(f, l.config.File)
	for _, finding := range findings {
		if err == nil && finding.Kind == Broken {
			err = fmt.Errorf("%s; find out who changed the file, move it away, and start again", finding)
		}
	}
	if err == nil && v.torn {
		_, err = f.WriteString("\n")
	}
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size, l.first, l.last, l.hash = f, info.Size(), v.first, v.last, v.hash
	return nil
}

// Append writes a record. Errors: it could not be written; then what it is about must not be done.
func (l *Log) Append(r Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.size >= l.config.MaxBytes {
		if err := l.rotate(); err != nil {
			return fmt.Errorf("rotate the audit log: %w", err)
		}
	}
	r.Number, r.Prev = l.last+1, l.hash
	line, err := json.Marshal(r)
	if err == nil && len(line) >= maxLine {
		err = fmt.Errorf("the record has %d bytes", len(line))
	}
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		// A part of the line may be in the file: read again what it holds.
		reopened := l.file.Close()
		if reopened = errors.Join(reopened, l.open()); reopened != nil {
			l.err = fmt.Errorf("write the audit log: %w", errors.Join(err, reopened))
		}
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.first = cmp.Or(l.first, r.Number)
	l.last, l.hash, l.size, l.dirty = r.Number, hashOf(line), l.size+int64(len(line))+1, true
	if l.config.Listener.Appended != nil {
		l.config.Listener.Appended(r, line)
	}
	return nil
}

// rotate renames the file and begins another one. The caller holds mu.
func (l *Log) rotate() error {
	name := fmt.Sprintf("%s.%012d", l.config.File, l.first)
	if err := errors.Join(l.file.Sync(), os.Rename(l.config.File, name)); err != nil {
		return err
	}
	f, err := os.OpenFile(l.config.File, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.config.Logger.Info("audit log rotated", "file", l.config.File, "records", l.last, "hash", l.hash)
	_ = l.file.Close() // It is on disk.
	l.file, l.size, l.first = f, 0, 0
	return nil
}

// syncing brings records to the disk.
func (l *Log) syncing() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		file, dirty := l.file, l.dirty
		l.dirty = false
		l.mu.Unlock()
		if !dirty {
			continue
		}
		if err := file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
			l.config.Logger.Error("audit log not on disk", "file", l.config.File, "error", err)
		}
	}
}

// Close brings all records to the disk and closes the file. Append fails from then on.
func (l *Log) Close() error {
	close(l.stop)
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config.Logger.Info("audit log closed", "file", l.config.File, "records", l.last, "hash", l.hash)
	if l.err == nil {
		l.err = errors.New("write the audit log: it is closed")
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}

// Kind of a finding.
type Kind string

// The kinds.
const (
	// Torn: a line that a crash cut off. The line after it continues the log.
	Torn Kind = "torn"
	// Broken: a line does not continue the one before it. Lines were changed, removed or added.
	Broken Kind = "broken"
)

// Finding in a log.
type Finding struct {
	Kind Kind
	File string
	Line int
	Text string
}

// String returns the finding for people.
func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Kind, f.Text) }

// Verifier checks the files of a log, one after the other in their order. The zero value is ready to use.
type Verifier struct {
	// Hash that a line must have, if it is not empty; Seen reports that one has.
	Hash string
	Seen bool

	begins      uint64 // number of the first record of all
	first, last uint64 // numbers of the records of the present file, and of all
	hash        string // of the last line
	torn        bool   // the last line has no end
	records     uint64
}

// Records returns the number of records that were read.
func (v *Verifier) Records() uint64 { return v.records }

// Range returns the numbers of the first and the last record, and the hash of the last line.
func (v *Verifier) Range() (first, last uint64, hash string) { return v.begins, v.last, v.hash }

// File checks the next file. Errors: it cannot be read.
func (v *Verifier) File(name string) ([]Finding, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return v.read(f, name)
}

// read checks the lines of a file.
func (v *Verifier) read(r io.Reader, name string) (findings []Finding, err error) {
	b := bufio.NewReaderSize(r, maxLine)
	v.first = 0
	for n := 1; ; n++ {
		line, err := b.ReadSlice('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return findings, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return findings, fmt.Errorf("read %s, line %d: %w", name, n, err)
		}
		v.torn = errors.Is(err, io.EOF)
		if kind, text := v.line(bytes.TrimSuffix(line, []byte("\n"))); text != "" {
			findings = append(findings, Finding{kind, name, n, text})
		}
		if v.torn {
			return findings, nil
		}
	}
}

// line checks one line, and continues after it whatever it holds.
func (v *Verifier) line(line []byte) (kind Kind, text string) {
	before, last := v.hash, v.last
	v.hash = hashOf(line)
	v.Seen = v.Seen || v.hash == v.Hash
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(&r); err != nil || d.More() || r.Number == 0 {
		return Torn, "is no record; a crash may have cut it off, if it is the only one in its place"
	}
	v.begins, v.first, v.last = cmp.Or(v.begins, r.Number), cmp.Or(v.first, r.Number), r.Number
	v.records++
	switch {
	case last == 0 && r.Number > 1: // An earlier file is not here.
	case r.Number != last+1:
		return Broken, fmt.Sprintf("record %d follows record %d", r.Number, last)
	case r.Prev != before:
		return Broken, fmt.Sprintf("record %d does not continue the line before it, which was changed", r.Number)
	}
	return "", ""
}
