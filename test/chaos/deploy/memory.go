package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"licensed/test/chaos/fault"
)

// cages are control groups that processes are moved into to be short of memory.
type cages struct {
	home  string // the control group of this process, below which cages are made
	limit string // the file with a group's limit
}

// findCages returns where cages can be made: by version 2 of control groups, or by version 1.
func findCages() (*cages, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var c *cages
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[1] == "memory":
			c = &cages{filepath.Join("/sys/fs/cgroup/memory", fields[2]), "memory.limit_in_bytes"}
		case fields[0] == "0" && c == nil:
			c = &cages{filepath.Join("/sys/fs/cgroup", fields[2]), "memory.max"}
		}
	}
	if c == nil {
		return nil, errors.New("no control group of memory")
	}
	// Whether a limit can be set shows only where one is.
	probe := c.path("probe")
	if err := c.make(probe, 1<<30); err != nil {
		return nil, errors.Join(err, os.Remove(probe))
	}
	return c, os.Remove(probe)
}

func (c *cages) path(name string) string {
	return filepath.Join(c.home, fmt.Sprintf("chaos-%d-%s", os.Getpid(), name))
}

func (c *cages) make(dir string, bytes int) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return writeGroup(filepath.Join(dir, c.limit), bytes)
}

// writeGroup writes a number to a file of a control group, which must be there.
func writeGroup(path string, value int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, value)
	return errors.Join(err, f.Close())
}

// move moves a process into a group, with all its threads.
func move(dir string, pid int) error { return writeGroup(filepath.Join(dir, "cgroup.procs"), pid) }

// memoryKind lets a process have only a little more memory than it has. Where that does not suffice the
// kernel ends it, and it is started again when there is enough.
func memoryKind(c *cages, ss []*server, ttl time.Duration) fault.Kind {
	const name = "memory pressure"
	return fault.Kind{Name: name, Weight: 1, Make: func(r *rand.Rand) *fault.Fault {
		s := ss[r.IntN(len(ss))]
		more := []int{8, 24, 64}[r.IntN(3)]
		dir := c.path(s.Process.Name())
		return &fault.Fault{
			Kind: name, Targets: []string{s.Process.Name()}, Detail: fmt.Sprintf("%d MiB more", more), Hold: ttl + time.Duration(r.Int64N(int64(3*ttl))),
			Inject: func(context.Context) error {
				s.Expect(true)
				if err := c.make(dir, more<<20); err != nil {
					return err
				}
				return move(dir, s.PID())
			},
			Heal: func(ctx context.Context) error {
				var err error
				if pid := s.PID(); pid != 0 {
					s.Expect(false)
					err = move(c.home, pid)
				}
				if !s.Running() {
					err = s.Restart(ctx) // Ended by the kernel, perhaps while being moved.
				}
				return errors.Join(err, os.Remove(dir))
			},
		}
	}}
}
