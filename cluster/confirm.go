package cluster

import (
	"context"
	"errors"
	"sync"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
)

// confirmer lets replies wait for reads of its own lease row (see [ConfirmRead]). Replies
// that are decided while a read is in flight share the next one: the read must have begun
// after the reply was decided, or it says nothing about the lease at that moment. At most
// one read is in flight.
type confirmer struct {
	// i is the incarnation whose lease is read.
	i *incarnation
	// mu guards what follows.
	mu sync.Mutex
	// queue has the channels of the callers that wait, each of capacity 1.
	queue  lease.Confirmer[chan error]
	closed bool
}

// confirmations has channels that were answered, and so are empty. One whose caller left
// at the end of its ctx is not put back: the answer to come would reach another caller.
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

// read performs one read of the lease and answers the callers that it covers. A read that
// failed confirms nobody: its callers get the error, and the next read is for those that
// came meanwhile.
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
