package pebble

import (
	"errors"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tooManyFiles reports whether an error says that the process, or the machine, has too many files open. That is no
// failure of the disk, and ends when others close theirs.
func tooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// patientFS waits while too many files are open. The engine would take that for a failure of the disk: it panics where
// it cannot open its log, and gives up what it is at elsewhere.
type patientFS struct {
	vfs.FS
	log *slog.Logger
	dir string
}

const (
	// firstPause and longestPause are how long to wait before another attempt, at first and at most.
	firstPause, longestPause = time.Millisecond, 250 * time.Millisecond
	// readPatience is the time a file that is to be read is waited for; the reader tries again, or its client does.
	readPatience = 5 * time.Second
	// remindAfter is the interval between log lines about a waiting store.
	remindAfter = 10 * time.Second
)

// open calls an operation until its error, if any, is another one, or patience ends;
// patience 0 never ends. It sleeps between attempts on the goroutine of the engine, which
// holds the writers back: they wait rather than fail.
func (p *patientFS) open(name string, patience time.Duration, operation func() (vfs.File, error)) (vfs.File, error) {
	began := time.Now()
	said := time.Duration(-1)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		f, err := operation()
		waited := time.Since(began)
		if !tooManyFiles(err) || patience > 0 && waited > patience {
			return f, err
		}
		if said < 0 || waited-said > remindAfter {
			said = waited
			// On a goroutine of its own: a logger may need a file, too.
			go p.log.Warn("store waits: too many open files", "dir", p.dir, "file", p.PathBase(name),
				"waited", waited.String(),
				"remedy", "raise the limit of open files, or lower --max-connections")
		}
		time.Sleep(pause)
	}
}

// Create implements vfs.FS; it waits for as long as it takes.
func (p *patientFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(name, 0, func() (vfs.File, error) { return p.FS.Create(name, c) })
}

// ReuseForWrite implements vfs.FS. An attempt may fail when the file was renamed already;
// the next one then opens it by its new name.
func (p *patientFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	renamed := false
	return p.open(newname, 0, func() (vfs.File, error) {
		if renamed {
			return p.FS.OpenReadWrite(newname, c)
		}
		f, err := p.FS.ReuseForWrite(oldname, newname, c)
		// The error may be of the rename or of what follows it.
		if tooManyFiles(err) {
			_, gone := p.Stat(oldname)
			renamed = errors.Is(gone, fs.ErrNotExist)
		}
		return f, err
	})
}

// OpenReadWrite implements vfs.FS; it waits for as long as it takes.
func (p *patientFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(name, 0, func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, opts...) })
}

// OpenDir implements vfs.FS; it waits for as long as it takes.
func (p *patientFS) OpenDir(name string) (vfs.File, error) {
	return p.open(name, 0, func() (vfs.File, error) { return p.FS.OpenDir(name) })
}

// Open implements vfs.FS; it waits for readPatience.
func (p *patientFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(name, readPatience, func() (vfs.File, error) { return p.FS.Open(name, opts...) })
}

// Unwrap implements vfs.FS.
func (p *patientFS) Unwrap() vfs.FS { return p.FS }
