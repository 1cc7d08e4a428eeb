package cluster

import (
	"context"
	"errors"
	"sync"

	"licensed/cluster/lease"
)

// confirmer lets replies wait for reads of the own lease row.
type confirmer struct {
	i     *incarnation
	mu    sync.Mutex
	queue lease.Confirmer[chan error]
}

var confirmations = sync.Pool{New: func() any { return make(chan error, 1) }}

// errDead says that the own lease was read and is marked dead.
var errDead = errors.New("this incarnation is dead")

// wait returns nil when a read begun after the call showed that the incarnation is not dead. Errors:
// errDead, the read's and ctx's.
func (c *confirmer) wait(ctx context.Context) error {
	answer := confirmations.Get().(chan error)
	c.mu.Lock()
	c.queue.Add(answer)
	c.begin()
	c.mu.Unlock()
	select {
	case err := <-answer:
		confirmations.Put(answer)
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin sends a read if there is something to confirm. Requires c.mu.
func (c *confirmer) begin() {
	if c.queue.Begin() {
		go c.read()
	}
}

func (c *confirmer) read() {
	timeout := c.i.node.config.Protocol.Timing.OpTimeout()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	row, err := c.i.node.config.Ownership.Lease(ctx, c.i.id)
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	covered, alive := c.queue.Done(row, err)
	if err == nil && !alive {
		err = errDead
	}
	for _, answer := range covered {
		answer <- err
	}
	c.begin()
}
