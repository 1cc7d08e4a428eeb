package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// peer is another process, by its address, and what it owes.
type peer struct {
	transport *Transport
	address   string
	front     *actor.PID
	// As last heard, and what idle goes by; the transport's lock covers them.
	member    bool
	askedID   uint32
	idleSince time.Time

	// queued counts the requests that are with protoactor, not yet written or left out. When a link is
	// closed protoactor forgets what it has, so the count is about right and never negative.
	queued atomic.Int64

	mu     sync.Mutex
	lastID uint32
	calls  map[uint32]*call // that are not over
	link   *link            // nil: protoactor has none
	conn   net.Conn         // the last one that was dialed

	dropped bool // nobody finds it any more

	// What lost goes by: the last number written, and the last one that was there at a moment.
	wroteID uint32
	agedID  uint32
	agedAt  time.Time
}

// errDropped is that a peer was forgotten after it had been found.
var errDropped = errors.New("the peer was dropped")

// idle reports whether nothing has been asked of the peer for a time. The transport is locked.
func (p *peer) idle(now time.Time, atLeast time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) > 0 || p.askedID != p.lastID || p.idleSince.IsZero() {
		p.askedID, p.idleSince = p.lastID, now
		return false
	}
	return now.Sub(p.idleSince) >= atLeast
}

// after reports whether a number was given after another.
func after(id, other uint32) bool { return int32(id-other) > 0 }

// lost ends the calls that protoactor has forgotten: those that it was given while it closed the link before.
// They are some time old, and there is no link, or younger ones were written. If one is not lost but slow,
// that does no harm: it is not written any more.
func (p *peer) lost(now time.Time, old time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.calls) == 0:
		p.agedAt = time.Time{}
	case p.agedAt.IsZero():
		p.agedID, p.agedAt = p.lastID, now
	case now.Sub(p.agedAt) >= old:
		for _, c := range p.calls {
			if c.state == callQueued && !after(c.id, p.agedID) && (p.link == nil || after(p.wroteID, c.id)) {
				c.fail(errClosedLink)
			}
		}
		p.agedID, p.agedAt = p.lastID, now
	}
}

// drop has no more calls begun, if protoactor is done with the peer: a link of its would lead calls of the
// next peer at this address to this one.
func (p *peer) drop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil && len(p.calls) == 0 {
		p.dropped = true
	}
	return p.dropped
}

// callState says how far a call got.
type callState uint8

const (
	callQueued  callState = iota // not executed if it ends now
	callWritten                  // unknown outcome if it ends now
	callOver
)

// call is a request to a peer. Its fields but id and done are the peer's, until done is closed.
type call struct {
	peer  *peer
	id    uint32
	state callState
	on    *connection // that it was written to
	done  chan struct{}

	response *clusterv1.Response
	err      error
}

// begin makes a call, for a request that is about to be given to protoactor. It returns errDropped if there
// may be another peer at the address.
func (p *peer) begin() (*call, error) {
	limit := p.transport.config.MaxInFlight
	if p.queued.Load() >= int64(limit) {
		return nil, fmt.Errorf("%w: %d requests wait to be written to %s", actors.ErrOverloaded, limit, p.address)
	}
	c := &call{peer: p, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, errDropped
	}
	if len(p.calls) >= limit {
		return nil, fmt.Errorf("%w: %s has not answered %d requests", actors.ErrOverloaded, p.address, limit)
	}
	for { // 0 means no number
		p.lastID++
		if _, used := p.calls[p.lastID]; !used && p.lastID != 0 {
			break
		}
	}
	c.id = p.lastID
	p.calls[c.id] = c
	p.queued.Add(1)
	return c, nil
}

// dequeued counts requests that left protoactor's queue.
func (p *peer) dequeued(n int64) {
	for {
		q := p.queued.Load()
		if p.queued.CompareAndSwap(q, max(q-n, 0)) {
			return
		}
	}
}

// write notes that a request is about to be written. It returns false if nobody waits for it any more.
func (p *peer) write(id uint32, on *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls[id]
	if c == nil || c.state != callQueued {
		return false
	}
	c.state, c.on = callWritten, on
	if after(id, p.wroteID) {
		p.wroteID = id
	}
	return true
}

// answered ends a call that was written to the connection with its response. Others are passed over.
func (p *peer) answered(id uint32, on *connection, r *clusterv1.Response, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.calls[id]; c != nil && c.state == callWritten && c.on == on {
		c.over(r, err)
	}
}

// over ends the call; its peer is locked.
func (c *call) over(r *clusterv1.Response, err error) {
	c.state, c.response, c.err = callOver, r, err
	delete(c.peer.calls, c.id)
	close(c.done)
}

// fail ends a call by what is known of it; its peer is locked.
func (c *call) fail(cause error) {
	if c.state == callQueued {
		c.over(nil, fmt.Errorf("%w to %s: %w", ErrNotSent, c.peer.address, cause))
		return
	}
	c.over(nil, fmt.Errorf("%w: %s: %w", actors.ErrUnknownOutcome, c.peer.address, cause))
}

// abandon ends a call, unless it is over, because the context of who waits for it ended.
func (c *call) abandon(cause error) {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	switch c.state {
	case callQueued:
		c.over(nil, fmt.Errorf("%w: it was not sent to %s yet: %w", actors.ErrExpired, c.peer.address, cause))
	case callWritten:
		c.fail(cause)
	}
}

// failWhere ends the calls for which the function says so.
func (p *peer) failWhere(of func(*call) bool, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if of(c) {
			c.fail(cause)
		}
	}
}

// waiting reports whether the peer owes an answer on a connection.
func (p *peer) waiting(on *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c.on == on {
			return true
		}
	}
	return false
}

// leave ends all calls to a member that left. protoactor has let go of the writer before, which closes its
// link in its own time: calls that begin from now on are given to another.
func (p *peer) leave() {
	p.mu.Lock()
	if p.link != nil {
		p.link.left = true
	}
	p.mu.Unlock()
	p.reset(errLeft)
}

// reset ends all calls and breaks the connection.
func (p *peer) reset(cause error) {
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	if l != nil {
		l.drop(cause)
	}
	p.failWhere(func(*call) bool { return true }, cause)
}

// dial is how gRPC connects to peers. The connection is kept at hand, to be closed when the peer does
// not react any more: gRPC itself would find out after ten seconds.
func (t *Transport) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: t.config.DialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	p := t.peers[address]
	t.mu.Unlock()
	if p != nil {
		p.mu.Lock()
		p.conn = conn
		p.mu.Unlock()
	}
	return conn, nil
}

// hangUp closes the connection that was dialed last.
func (p *peer) hangUp() {
	p.mu.Lock()
	conn := p.conn
	p.conn = nil
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}
