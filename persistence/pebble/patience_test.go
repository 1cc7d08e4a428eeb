package pebble

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"licensed/persistence"
)

// fewFiles are the operations that need another file.
var fewFiles = map[string]struct {
	err  error
	when func(errorfs.Op) bool
}{
	"new log":                {syscall.EMFILE, func(op errorfs.Op) bool { return isLog(op) && isCreate(op) }},
	"new log, whole machine": {syscall.ENFILE, func(op errorfs.Op) bool { return isLog(op) && isCreate(op) }},
	"table create":           {syscall.EMFILE, func(op errorfs.Op) bool { return isTable(op) && isCreate(op) }},
	"table open": {syscall.EMFILE, func(op errorfs.Op) bool {
		return isTable(op) && op.Kind == errorfs.OpOpen
	}},
	"any": {syscall.EMFILE, func(op errorfs.Op) bool {
		return isCreate(op) || op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpOpenDir
	}},
}

// TestTooManyOpenFiles: the store waits for files, and continues when there are some again.
func TestTooManyOpenFiles(t *testing.T) {
	for name, fault := range fewFiles {
		t.Run(name, func(t *testing.T) {
			var met, writes atomic.Int64
			broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				if fault.when(op) && met.Add(1)%3 != 0 { // Each needs a third attempt.
					return fmt.Errorf("open %s: %w", op.Path, fault.err)
				}
				return nil
			})}
			o := testOptions(errorfs.Wrap(vfs.NewCrashableMem(), broken))
			o.MemTableSize, o.MaxMutation, o.MaxOpenFiles = 1<<20, 200<<10, 16 // Logs and tables are made often.
			o.Logger = discard
			o.Listener.Failed = func(err error) { t.Errorf("the store stopped: %v", err) }
			s, err := Open(testDir, o)
			if err != nil {
				t.Fatal(err)
			}
			broken.On()
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					id := fmt.Sprint("customer-", i)
					for sequence := uint64(1); sequence <= 400 && !t.Failed(); sequence++ {
						m := testMutation(id, sequence)
						m.Records[0].Data = make([]byte, 10_000)
						if err := <-startAppend(s, m); err != nil {
							t.Errorf("append: %v", err)
						}
						writes.Add(1)
					}
					got, err := s.ReadRecords(t.Context(), testPartition(id), 0, 1<<20)
					if err != nil || len(got) != 400 {
						t.Errorf("%s: %d records, %v", id, len(got), err)
					}
				})
			}
			all.Wait()
			if met.Load() < 3 {
				t.Errorf("%d writes met the fault %d times", writes.Load(), met.Load())
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// renamedFS fails to open a log that is used again after it was renamed, as the operating system's may.
type renamedFS struct {
	vfs.FS
	failed atomic.Int64
}

func (f *renamedFS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.Rename(oldname, newname); err != nil {
		return nil, err
	}
	f.failed.Add(1)
	return nil, syscall.EMFILE
}

func TestTooManyOpenFilesForReuse(t *testing.T) {
	disk := &renamedFS{FS: vfs.NewMem()}
	o := testOptions(disk)
	o.MemTableSize, o.MaxMutation, o.Logger = 1<<20, 200<<10, discard
	o.Listener.Failed = func(err error) { t.Errorf("the store stopped: %v", err) }
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	for sequence := uint64(1); sequence <= 2000 && disk.failed.Load() < 3 && !t.Failed(); sequence++ {
		m := testMutation("a", sequence)
		m.Records[0].Data = make([]byte, 10_000)
		if err := <-startAppend(s, m); err != nil {
			t.Fatal(err)
		}
	}
	if disk.failed.Load() == 0 {
		t.Error("no log was used again")
	}
	if err := s.Close(); err != nil && !errors.Is(err, persistence.ErrClosed) {
		t.Error(err)
	}
}
