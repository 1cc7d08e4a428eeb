package pebble

import (
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fencedFS is a file system that can be taken away from an engine: once it is fenced, every call that
// would change the disk parks its goroutine for good. So an engine that cannot be closed, because its
// goroutines wait for one another, can be left behind and another one opened in its place.
type fencedFS struct {
	vfs.FS
	// Guards the fields below. It is held to count, not during a call.
	mu sync.Mutex
	// Set once, by fence.
	fenced bool
	// Changes in progress: between enter and leave.
	active int
}

// fence parks all changes from now on.
func (f *fencedFS) fence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fenced = true
}

// idle reports whether the file system is fenced and no change that began before is still in progress.
func (f *fencedFS) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fenced && f.active == 0
}

// enter begins a change; leave ends it.
func (f *fencedFS) enter() {
	f.mu.Lock()
	if f.fenced {
		f.mu.Unlock()
		select {} // nothing waits for this goroutine
	}
	f.active++
	f.mu.Unlock()
}

// leave ends a change. A change that hangs in the kernel never leaves, and idle stays
// false.
func (f *fencedFS) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active--
}

// file fences the changes of a file that was opened for writing, or returns the error of
// opening it.
func (f *fencedFS) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &fencedFile{File: file, fs: f}, nil
}

// change runs a change of the directory.
func (f *fencedFS) change(do func() error) error {
	f.enter()
	defer f.leave()
	return do()
}

// Create implements vfs.FS.
func (f *fencedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.enter()
	defer f.leave()
	return f.file(f.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (f *fencedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f.enter()
	defer f.leave()
	return f.file(f.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (f *fencedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.enter()
	defer f.leave()
	return f.file(f.FS.ReuseForWrite(oldname, newname, c))
}

// OpenDir implements vfs.FS. Opening changes nothing; syncing the directory does.
func (f *fencedFS) OpenDir(name string) (vfs.File, error) { return f.file(f.FS.OpenDir(name)) }

// Link implements vfs.FS.
func (f *fencedFS) Link(oldname, newname string) error {
	return f.change(func() error { return f.FS.Link(oldname, newname) })
}

// Remove implements vfs.FS.
func (f *fencedFS) Remove(name string) error {
	return f.change(func() error { return f.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (f *fencedFS) RemoveAll(name string) error {
	return f.change(func() error { return f.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (f *fencedFS) Rename(oldname, newname string) error {
	return f.change(func() error { return f.FS.Rename(oldname, newname) })
}

// MkdirAll implements vfs.FS.
func (f *fencedFS) MkdirAll(dir string, perm os.FileMode) error {
	return f.change(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Lock gives an engine the lock that the archive holds for all its engines, one after the other.
func (f *fencedFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Unwrap implements vfs.FS.
func (f *fencedFS) Unwrap() vfs.FS { return f.FS }

// fencedFile is a file or directory open for writing. What reads it is not fenced.
type fencedFile struct {
	vfs.File
	fs *fencedFS
}

// Write implements vfs.File.
func (f *fencedFile) Write(p []byte) (int, error) {
	f.fs.enter()
	defer f.fs.leave()
	return f.File.Write(p)
}

// WriteAt implements vfs.File.
func (f *fencedFile) WriteAt(p []byte, offset int64) (int, error) {
	f.fs.enter()
	defer f.fs.leave()
	return f.File.WriteAt(p, offset)
}

// Preallocate implements vfs.File.
func (f *fencedFile) Preallocate(offset, length int64) error {
	return f.fs.change(func() error { return f.File.Preallocate(offset, length) })
}

// Sync implements vfs.File.
func (f *fencedFile) Sync() error { return f.fs.change(f.File.Sync) }

// SyncData implements vfs.File.
func (f *fencedFile) SyncData() error { return f.fs.change(f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *fencedFile) SyncTo(length int64) (bool, error) {
	f.fs.enter()
	defer f.fs.leave()
	return f.File.SyncTo(length)
}
