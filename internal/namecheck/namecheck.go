// Package namecheck finds out whether another live process has the name of this one. Gossip may list former runs of a
// process, which must not keep the next one from starting. So each process that is listed under the name is asked.
package namecheck

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"licensed/cluster"
	"licensed/cluster/membership"
)

// Check asks the processes of one name.
type Check struct {
	// ID of this process, by gossip.
	ID string
	// Others are the members of its name.
	Others []membership.Member
	// TTL of leases.
	TTL time.Duration
	Log *slog.Logger
	// Ask returns the name of the process that answers at an address, and whether it is still starting.
	Ask func(ctx context.Context, address string) (name string, starting bool, err error)
	// Refuses reports whether nothing listens at an address; see [Refuses].
	Refuses func(ctx context.Context, address string) bool
}

// TTLs is the time, in TTLs of leases, after which a process counts as dead that neither answers nor refuses
// connections, and that a gateway waits for gossip. More keeps a gateway from starting for longer after its machine was
// lost; less lets two of one name start when one of them is that slow. A node that slow would have lost its lease
// several times.
const TTLs = 4

// Run asks all of them until each has answered or is found to be dead. Errors: that of cluster.NameTaken.
func (c *Check) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, TTLs*c.TTL)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	for _, o := range c.Others {
		all.Go(func() error { return c.await(ctx, o) })
	}
	return all.Wait()
}

// await asks one process. No answer is no proof that it is dead: its machine may be slow. Of two that start at the same
// time, the one of the greater id gives way. The other waits for that, since it may not have been seen.
func (c *Check) await(ctx context.Context, o membership.Member) error {
	address := o.Meta.GetNodeAddress()
	for {
		question, cancel := context.WithTimeout(ctx, c.TTL)
		name, starting, err := c.Ask(question, address)
		cancel()
		switch {
		case err == nil && name == o.Name && starting && c.ID < o.ID:
		case err == nil && name == o.Name:
			return cluster.NameTaken(o.Name, address)
		// It has another name, or nothing listens there: the former run is gone.
		case err == nil, c.Refuses(ctx, address):
			return nil
		}
		select {
		case <-time.After(c.TTL / 16):
		case <-ctx.Done():
			c.Log.Warn("other process of this name not reached, or still starting; it counts as dead",
				"name", o.Name, "address", address, "error", err)
			return nil
		}
	}
}

// Refuses reports whether the machine of an address says that nothing listens there.
func Refuses(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
