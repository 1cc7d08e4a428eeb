package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"licensed/test/chaos/fault"
)

// cassandra is one node of Cassandra, run by scripts/cassandra.sh in a directory of its own.
type cassandra struct {
	name, address string
	script, dir   string
	env           []string
	start         func(*exec.Cmd) error
}

// cassandraPort is Cassandra's own.
const cassandraPort = "9042"

// do runs the script.
func (c *cassandra) do(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.script, args...)
	cmd.Env = append(os.Environ(), c.env...)
	// What the script leaves behind keeps the file open; a pipe would be waited for.
	log, err := os.OpenFile(filepath.Join(c.dir, "script.log"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err = c.start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("cassandra.sh %v of %s: %w, see %s: %s", args, c.name, err, log.Name(), tail(log))
	}
	return nil
}

// revive starts a node, again and again: it may end at once where the others are not running yet, and take
// long on a machine that has much to do.
func revive(ctx context.Context, c *cassandra) error {
	for {
		err := c.do(ctx, "start", "1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// tail returns the last line of a file.
func tail(f *os.File) string {
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(lines[len(lines)-1])
}

// ring is Cassandra, all of it.
type ring struct{ nodes []*cassandra }

func (r *ring) addresses() (hosts []string) {
	for _, c := range r.nodes {
		hosts = append(hosts, net.JoinHostPort(c.address, cassandraPort))
	}
	return hosts
}

// up starts all nodes, one after the other: they join the ring.
func (r *ring) up(ctx context.Context) error {
	for _, c := range r.nodes {
		if err := c.do(ctx, "up", "1"); err != nil {
			return err
		}
	}
	return nil
}

// down removes them with their data.
func (r *ring) down(ctx context.Context) error {
	return r.each(func(c *cassandra) error { return c.do(ctx, "destroy") })
}

// names of the nodes.
func (r *ring) names() (names []string) {
	for _, c := range r.nodes {
		names = append(names, c.name)
	}
	return names
}

// kinds is what can be done to Cassandra's processes.
func (r *ring) kinds(ttl time.Duration) []fault.Kind {
	one := func(name, inject string, heal func(
		context.Context, *cassandra,
	) error, hold func(*rand.Rand) (time.Duration, string)) fault.Kind {
		return fault.Kind{Name: name, Weight: 1, Make: func(random *rand.Rand) *fault.Fault {
			c := r.nodes[random.IntN(len(r.nodes))]
			d, detail := hold(random)
			return &fault.Fault{
				Kind: name, Detail: detail, Targets: []string{c.name}, Hold: d,
				Inject: func(ctx context.Context) error { return c.do(ctx, inject, "1") },
				Heal:   func(ctx context.Context) error { return heal(ctx, c) },
			}
		}}
	}
	resume := func(ctx context.Context, c *cassandra) error { return c.do(ctx, "resume", "1") }
	kinds := []fault.Kind{
		one("kill -9 cassandra", "kill", revive, func(random *rand.Rand) (time.Duration, string) {
			return time.Duration(random.Int64N(int64(3 * ttl))), ""
		}),
		one("pause cassandra", "pause", resume, func(random *rand.Rand) (time.Duration, string) {
			n := []int{1, 1, 3, 10}[random.IntN(4)]
			return time.Duration(n) * ttl, fmt.Sprintf("%d × TTL", n)
		}),
	}
	if len(r.nodes) > 1 {
		kinds = append(kinds, r.killAll(ttl))
	}
	return kinds
}

// killAll kills all nodes at once and starts them again.
func (r *ring) killAll(ttl time.Duration) fault.Kind {
	const name = "kill -9 all of cassandra"
	return fault.Kind{Name: name, Weight: 1, Make: func(random *rand.Rand) *fault.Fault {
		return &fault.Fault{
			Kind: name, Targets: r.names(), Hold: time.Duration(random.Int64N(int64(3 * ttl))),
			Inject: r.kill, Heal: r.revive,
		}
	}}
}

// each does something to all nodes at the same time.
func (r *ring) each(do func(*cassandra) error) error {
	errs := make([]error, len(r.nodes))
	var wg sync.WaitGroup
	for i, c := range r.nodes {
		wg.Go(func() { errs[i] = do(c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// kill kills all nodes.
func (r *ring) kill(ctx context.Context) error {
	return r.each(func(c *cassandra) error { return c.do(ctx, "kill", "1") })
}

// revive starts them again.
func (r *ring) revive(ctx context.Context) error {
	// The first is whom the others ask who is present: without it they end at once.
	if err := revive(ctx, r.nodes[0]); err != nil {
		return err
	}
	return r.each(func(c *cassandra) error { return revive(ctx, c) })
}
