package cluster

import (
	"context"
	"errors"
	"sync"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
)

// confirmer lets replies wait for reads of its own lease row.
type confirmer struct {
	i      *incarnation
	mu     sync.Mutex
	queue  lease.Confirmer[chan error]
	closed bool
}

var confirmations = sync.Pool{New: func() any { return make(chan error, 1) }}

// errDead says that the incarnation has ended: its lease was read and is marked dead, or ran out.
var errDead = errors.New("this incarnation is dead")

// wait returns nil when a read begun after the call showed that the incarnation is not dead. Errors:
// errDead, the read's and ctx's.
func (c *confirmer) wait(ctx context.Context) error {
	answer := confirmations.Get().(chan error)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errDead
	}
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
		c.i.node.background.Go(c.read)
	}
}

// close has no more reads begun for callers that come from now on. The loop calls it when the incarnation ends,
// before the node may be told that nothing is in progress.
func (c *confirmer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

func (c *confirmer) read() {
	timeout := c.i.node.config.Protocol.Timing.OpTimeout()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	read := c.i.node.do(ctx, ownership.Confirmation(c.i.id))
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	err := read.Err
	covered, alive := c.queue.Done(read.Lease, err)
	if err == nil && !alive {
		err = errDead
	}
	for _, answer := range covered {
		answer <- err
	}
	c.begin()
}
