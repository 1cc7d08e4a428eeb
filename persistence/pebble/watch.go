package pebble

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchedFS is the file system that the engine sees. The first write, sync, creation or renaming that
// fails in the store's directory stops the store and parks the goroutine that met it: the engine
// never learns of it, for it would continue with what it can (a failed sync of a log is worth another
// log to it), or panic with a lock half released, which ends the process without a word. Reading and
// removing files, and a checkpoint's directory, are not watched: their errors go where they belong.
type watchedFS struct {
	vfs.FS
	dir  string // as directory returns it
	stop func(error)
}

// watch returns the file system for an engine whose store is in dir. stop is called with
// the engine's locks held, possibly several times.
func watch(disk vfs.FS, dir string, stop func(error)) *watchedFS {
	w := &watchedFS{FS: disk, stop: stop}
	w.dir = w.directory(dir)
	return w
}

// directory returns the one way to write a directory's name.
func (w *watchedFS) directory(name string) string { return w.PathDir(w.PathJoin(name, "x")) }

// check returns if err is nil or no concern of the store.
func (w *watchedFS) check(operation, name string, err error) {
	// Both are compared: name may be a file in the directory, or the directory itself.
	if err == nil || w.PathDir(name) != w.dir && w.directory(name) != w.dir {
		return
	}
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err // the rest is said here
	}
	w.stop(fmt.Errorf("%s %s: %w", operation, name, err))
	select {} // nothing waits for this goroutine
}

// file watches a file that was opened, or returns the error of opening it.
func (w *watchedFS) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, fs: w, name: name}, nil
}

// Create implements vfs.FS.
func (w *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, c)
	w.check("create", name, err)
	return w.file(name, f, err)
}

// ReuseForWrite implements vfs.FS: the engine's logs are files of earlier logs.
func (w *watchedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(oldname, newname, c)
	w.check("reuse "+w.PathBase(oldname)+" for", newname, err)
	return w.file(newname, f, err)
}

// OpenReadWrite implements vfs.FS. That it fails is not watched: the engine asks for
// files that need not exist.
func (w *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.OpenReadWrite(name, c, opts...)
	return w.file(name, f, err)
}

// OpenDir implements vfs.FS. Directories are synced after a file was created in them.
func (w *watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	return w.file(name, f, err)
}

// Rename implements vfs.FS.
func (w *watchedFS) Rename(oldname, newname string) error {
	err := w.FS.Rename(oldname, newname)
	w.check("rename "+w.PathBase(oldname)+" to", newname, err)
	return err
}

// Unwrap implements vfs.FS.
func (w *watchedFS) Unwrap() vfs.FS { return w.FS }

// watchedFile is a file or directory open for writing.
type watchedFile struct {
	vfs.File
	fs   *watchedFS
	name string
}

// Write implements vfs.File.
func (f *watchedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.check("write", f.name, err)
	return n, err
}

// WriteAt implements vfs.File.
func (f *watchedFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	f.fs.check("write", f.name, err)
	return n, err
}

// Sync implements vfs.File.
func (f *watchedFile) Sync() error {
	err := f.File.Sync()
	f.fs.check("sync", f.name, err)
	return err
}

// SyncData implements vfs.File.
func (f *watchedFile) SyncData() error {
	err := f.File.SyncData()
	f.fs.check("sync", f.name, err)
	return err
}

// SyncTo implements vfs.File.
func (f *watchedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	f.fs.check("sync", f.name, err)
	return full, err
}

// Close implements vfs.File. An error may be that of a write which the system had
// delayed.
func (f *watchedFile) Close() error {
	err := f.File.Close()
	f.fs.check("close", f.name, err)
	return err
}
