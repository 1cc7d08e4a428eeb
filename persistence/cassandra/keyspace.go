package cassandra

import (
	"context"
	"fmt"
	"sync"

	"licensed/persistence"
)

// keyspace is an open keyspace: what store and archive have in common. Its fields do not
// change after openKeyspace, except those of its life.
type keyspace struct {
	session    *session
	opts       Options
	risks      []Risk
	dataCenter string // the one that is used; empty: all

	// life makes begin and Close exclude each other: without it, pending could rise from
	// zero while Close waits on it, which a WaitGroup forbids.
	life    sync.RWMutex
	closed  bool
	pending sync.WaitGroup
}

// openKeyspace connects, and checks the schema and what endangers the promise. Errors: as
// [Open]. The caller closes the keyspace.
func openKeyspace(ctx context.Context, o Options, which Schema) (*keyspace, *findings, error) {
	if err := o.Validate(); err != nil {
		return nil, nil, err
	}
	s, err := connectKeyspace(ctx, &o)
	if err != nil {
		return nil, nil, err
	}
	// From here on an error must close the session, which has connections and goroutines.
	k := &keyspace{session: s, opts: o}
	found, err := k.check(ctx, which)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	k.dataCenter = found.dataCenter
	s.policy.setReplicas(found.replicas)
	return k, found, nil
}

// check compares the schema, reads the findings, and fails for those that are not
// accepted. It sets risks.
func (k *keyspace) check(ctx context.Context, which Schema) (*findings, error) {
	if err := checkSchema(ctx, k.session, which); err != nil {
		return nil, err
	}
	found, err := inspect(ctx, k.session, &k.opts, which)
	if err != nil {
		return nil, err
	}
	k.risks = found.risks(&k.opts)
	return found, judge(k.risks, &k.opts)
}

// Risks returns what was found at Open to endanger the promise, accepted risks included.
func (k *keyspace) Risks() []Risk { return k.risks }

// begin lets an operation start unless it is closed; end must follow.
func (k *keyspace) begin() error {
	k.life.RLock()
	defer k.life.RUnlock()
	if k.closed {
		return persistence.ErrClosed
	}
	k.pending.Add(1)
	return nil
}

// end ends an operation that begin let start. It is called after the caller was told the
// outcome.
func (k *keyspace) end() { k.pending.Done() }

// isClosed reports whether Close was called. An operation that waited for its turn asks
// again: it should not start then, although Close waits for it.
func (k *keyspace) isClosed() bool {
	k.life.RLock()
	defer k.life.RUnlock()
	return k.closed
}

// Close waits for what is in progress and closes the connections. That takes about a timeout for a write, two
// for a conditional one that waits for its turn, and up to three, one for each node that is asked, for each
// page of a read.
func (k *keyspace) Close() error {
	k.life.Lock()
	was := k.closed
	k.closed = true
	k.life.Unlock()
	if was {
		return fmt.Errorf("close: %w", persistence.ErrClosed)
	}
	k.pending.Wait()
	k.session.Close()
	return nil
}
