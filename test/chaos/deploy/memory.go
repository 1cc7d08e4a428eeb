package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"licensed/test/chaos/fault"
)

// cages are control groups that processes are moved into to be short of memory. What a process had before
// stays on the account of the group that it came from: the limit is on what it takes from then on.
type cages struct {
	home  string // the control group of this process, where processes are moved back to
	below string // where cages are made
	files groupFiles
}

// groupFiles are the files of a control group that differ between the versions.
type groupFiles struct {
	limit string
	// hits has how often the limit was met, kills how often the kernel killed for it: a number alone, or
	// after a word.
	hits, hitsWord, kills, killsWord string
}

var (
	version1 = groupFiles{"memory.limit_in_bytes", "memory.failcnt", "", "memory.oom_control", "oom_kill"}
	version2 = groupFiles{"memory.max", "memory.events", "max", "memory.events", "oom_kill"}
)

// findCages returns where cages can be made.
func findCages() (*cages, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return findCagesIn(string(own), "/sys/fs/cgroup")
}

// findCagesIn looks through what /proc/self/cgroup says, for control groups mounted at root. In version 2 a
// group with processes has no groups with limits below it, so that cages are made beside it.
func findCagesIn(own, root string) (*cages, error) {
	var errs []error
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var c *cages
		switch {
		case len(fields) != 3:
			continue
		case fields[1] == "memory":
			home := filepath.Join(root, "memory", fields[2])
			c = &cages{home, home, version1}
		case fields[0] == "0" && fields[2] != "/":
			home := filepath.Join(root, fields[2])
			c = &cages{home, filepath.Dir(home), version2}
		default:
			continue
		}
		err := c.probe()
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	if errs == nil {
		return nil, errors.New("no control group of memory that others can be made in")
	}
	return nil, errors.Join(errs...)
}

// probe makes a cage and removes it: whether a limit can be set shows only where one is.
func (c *cages) probe() error {
	dir := c.path("probe")
	err := c.make(dir, 1<<30)
	if err == nil {
		_, _, err = c.met(dir)
	}
	if removed := os.Remove(dir); err == nil {
		err = removed
	}
	return err
}

func (c *cages) path(name string) string {
	return filepath.Join(c.below, fmt.Sprintf("chaos-%d-%s", os.Getpid(), name))
}

func (c *cages) make(dir string, bytes int) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return writeGroup(filepath.Join(dir, c.files.limit), bytes)
}

// met returns how often the limit of a cage was met, and how often the kernel killed for it.
func (c *cages) met(dir string) (hits, kills int, err error) {
	hits, errHits := readGroup(filepath.Join(dir, c.files.hits), c.files.hitsWord)
	kills, errKills := readGroup(filepath.Join(dir, c.files.kills), c.files.killsWord)
	return hits, kills, errors.Join(errHits, errKills)
}

// readGroup reads a number from a file of a control group: that after a word at the beginning of a line.
func readGroup(path, word string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found {
			name, value = "", name
		}
		if name == word {
			return strconv.Atoi(value)
		}
	}
	return 0, fmt.Errorf("%s has no number %s", path, word)
}

// writeGroup writes a number to a file of a control group, which must be present.
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
// kernel kills it, which is part of the fault, and it is started again when there is enough.
func memoryKind(c *cages, ss []*server, ttl time.Duration) fault.Kind {
	const name = "memory pressure"
	return fault.Kind{Name: name, Weight: 1, Make: func(r *rand.Rand) *fault.Fault {
		s := ss[r.IntN(len(ss))]
		more := []int{4, 8, 24}[r.IntN(3)]
		dir := c.path(s.Process.Name())
		made := false
		var came fault.Effect
		return &fault.Fault{
			Kind:    name,
			Targets: []string{s.Process.Name()},
			Detail:  fmt.Sprintf("%d MiB more", more),
			Hold:    ttl + time.Duration(r.Int64N(int64(3*ttl))),
			Inject: func(context.Context) error {
				return alive(s.Process, func() error {
					if err := c.make(dir, more<<20); err != nil {
						return err
					}
					made = true
					s.Doom(true)
					return move(dir, s.PID())
				})
			},
			Heal: func(ctx context.Context) (err error) {
				if !made {
					return nil // The process was not touched.
				}
				came, err = c.release(ctx, dir, s)
				return err
			},
			Came: func() fault.Effect { return came },
		}
	}}
}

// release lets a process out of its cage, or starts it again if the kernel has killed it.
func (c *cages) release(ctx context.Context, dir string, s *server) (fault.Effect, error) {
	var moved error
	if pid := s.PID(); pid != 0 {
		moved = move(c.home, pid) // It may die meanwhile.
	}
	hits, kills, err := c.met(dir)
	came := fault.Effect{Text: fmt.Sprintf("limit met %d times, survived", hits), Idle: hits == 0}
	switch {
	case kills > 0:
		came.Text = fmt.Sprintf("limit met %d times, killed by the kernel", hits)
		err = errors.Join(err, s.Kill(), s.Restart(ctx)) // Kill waits until it is gone.
	default:
		s.Doom(false)
		if err = errors.Join(err, moved); !s.Running() {
			err = errors.Join(err, s.Restart(ctx))
		}
	}
	return came, errors.Join(err, os.Remove(dir))
}
