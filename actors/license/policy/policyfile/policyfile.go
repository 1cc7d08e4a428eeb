// Package policyfile reads the policy from a file and reads it again when the file changes.
//
// Changes are found by looking: a file whose size, modification time or identity changed is read once
// it looks the same on two polls in a row, so that a file being written is left alone. That works
// alike for files that are written in place, renamed over, or swapped by way of a symbolic link. A
// new file with mistakes is reported once and changes nothing.
package policyfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"licensed/actors/license/policy"
)

// MaxBytes is the size up to which a file is read: enough for a million titles.
const MaxBytes = 256 << 20

// ErrVersionReused says that a file has other content under the version that is in force.
var ErrVersionReused = errors.New("the content changed, but not the version")

// Load reads the policy from a file. Errors: those of opening and reading, and policy.Errors.
func Load(path string) (*policy.Policy, error) {
	p, _, err := load(path)
	return p, err
}

// load also returns what the file looked like just before it was read.
func load(path string) (*policy.Policy, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, info, fmt.Errorf("policy: %w", err)
	}
	if len(data) > MaxBytes {
		return nil, info, fmt.Errorf("policy: %s is larger than %d MiB", path, MaxBytes>>20)
	}
	p, err := policy.Parse(path, data)
	return p, info, err
}

// File is a policy file that was read and is watched for changes. It is not safe for concurrent use.
type File struct {
	path    string
	policy  *policy.Policy
	read    fs.FileInfo // as of the last reading, whatever came of it
	polled  fs.FileInfo // as of the last poll
	missing bool        // reported missing
}

// Open reads a policy file. Errors: as Load.
func Open(path string) (*File, error) {
	p, info, err := load(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, policy: p, read: info, polled: info}, nil
}

// Policy returns the policy in force: that of the last reading without mistakes.
func (f *File) Policy() *policy.Policy { return f.policy }

// Poll looks whether the file changed. It returns the new policy when there is one, an error when a
// changed file cannot be used, once for each change, and otherwise nil and nil.
func (f *File) Poll() (*policy.Policy, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		if f.missing {
			return nil, nil
		}
		f.missing = true
		return nil, fmt.Errorf("policy: %w", err)
	}
	f.missing = false
	unchanged := same(info, f.polled)
	f.polled = info
	if !unchanged || same(info, f.read) {
		return nil, nil
	}
	return f.Reload()
}

// Reload reads the file now, changed or not, as upon an operator's signal. It returns the new policy,
// or nil if its content is that of the policy in force. Errors: as Load, and ErrVersionReused.
func (f *File) Reload() (*policy.Policy, error) {
	p, info, err := load(f.path)
	if info != nil {
		f.read = info
	}
	switch {
	case err != nil:
		return nil, err
	case p.SameContent(f.policy):
		return nil, nil
	case p.Version() == f.policy.Version():
		return nil, fmt.Errorf("policy: %s: version %s: %w", f.path, p.Version(), ErrVersionReused)
	}
	f.policy = p
	return p, nil
}

// Watch polls at every tick until ctx ends or the channel is closed, and reports each new policy or
// error.
func (f *File) Watch(ctx context.Context, ticks <-chan time.Time, report func(*policy.Policy, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-ticks:
			if !ok {
				return
			}
			if p, err := f.Poll(); p != nil || err != nil {
				report(p, err)
			}
		}
	}
}

// same reports whether a file looks unchanged.
func same(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
