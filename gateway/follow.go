package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// heartbeat is the interval at which a stream of Follow shows that it is alive.
const heartbeat = 10 * time.Second

// followed tells the streams of Follow that there may be something new. A token says
// nothing about what is new: the stream reads the history, so that a token which is lost
// or too early costs a look, and never an event.
type followed struct {
	// The number of streams, so that Appended need not lock while there are none.
	n atomic.Int64
	// mu guards streams.
	mu sync.Mutex
	// streams are those of each customer; a token in a channel says that there is news.
	streams map[string]map[chan struct{}]struct{}
}

// count returns the number of open streams.
func (f *followed) count() int64 { return f.n.Load() }

// watch returns a channel with news of a customer until stop is called.
func (f *followed) watch(customer string) (news <-chan struct{}, stop func()) {
	// The counter rises before the stream is entered: Appended may lock for nothing, and
	// never misses a stream.
	f.n.Add(1)
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[customer] == nil {
		f.streams[customer] = make(map[chan struct{}]struct{})
	}
	f.streams[customer][c] = struct{}{}
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if delete(f.streams[customer], c); len(f.streams[customer]) == 0 {
			delete(f.streams, customer)
		}
		f.n.Add(-1)
	}
}

// Appended tells streams that follow the customer to look for news. It is cheap while there are none.
func (g *Gateway) Appended(customer string) {
	f := &g.followed
	if f.n.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Each channel has room for one signal: a stream that has not looked yet will see all
	// that was appended.
	for c := range f.streams[customer] {
		select {
		case c <- struct{}{}:
		default: // It has not looked yet.
		}
	}
}

// Follow implements licensedv1connect.HistoryServiceHandler.
func (s *historyService) Follow(
	ctx context.Context, r *connect.Request[licensedv1.FollowRequest],
	stream *connect.ServerStream[licensedv1.FollowResponse],
) error {
	m := r.Msg
	if err := invalid(checkSubject(m.CustomerId, m.DeviceId, m.TitleId)); err != nil {
		return err
	}
	ctx.Value(callKey{}).(*call).endless = true
	// Before the first look, so that nothing falls between.
	news, stop := s.followed.watch(m.CustomerId)
	defer stop()
	head, err := s.head(ctx, m.CustomerId)
	if err != nil {
		return s.failed(ctx, m.CustomerId, err, false)
	}
	after := head.Sequence
	if m.AfterSequence != nil {
		if after = *m.AfterSequence; after > head.Sequence {
			return apiError(connect.CodeOutOfRange, licensedv1.ReasonPastEnd,
				fmt.Sprintf("the history of customer %s ends at event %d", m.CustomerId, head.Sequence))
		}
	}
	// The first turn of run sends what the client missed, from after on.
	f := &following{historyService: s, request: m, stream: stream, after: after, news: news}
	if err := f.run(ctx, head); err != nil {
		return s.failed(ctx, m.CustomerId, err, false)
	}
	return nil
}

// following is an open stream of Follow. It is used by one goroutine.
type following struct {
	*historyService
	request *licensedv1.FollowRequest
	stream  *connect.ServerStream[licensedv1.FollowResponse]
	news    <-chan struct{}
	after   uint64 // sent up to there
}

// run sends what is new until the client or the node goes. It looks again when the
// customer's events were appended at this process, and at every poll: events of another
// node are not heard of here. head is the end of the history as asked last. Errors: those
// of reading, sending and asking.
func (f *following) run(ctx context.Context, head persistence.Head) error {
	poll, beat := time.NewTicker(f.config.FollowPoll), time.NewTicker(heartbeat)
	defer poll.Stop()
	defer beat.Stop()
	if err := f.send(ctx, nil); err != nil { // The headers: the client knows that it is heard.
		return err
	}
	tries := 0
	for {
		// While a history cannot be read, only time helps: neither an event nor a poll
		// makes it readable.
		news, again := f.news, poll.C
		err := f.catchUp(ctx, head)
		switch {
		case err == nil:
			tries = 0
		case errors.Is(err, errUnreadable) && tries < followTries:
			// The pause is its own, whatever is appended meanwhile.
			news, again = nil, time.After(min(followPause, f.config.FollowPoll)<<tries)
			tries++
		default:
			return err
		}
		if err := f.await(ctx, news, again, beat.C); err != nil {
			return err
		}
		if head, err = f.head(ctx, f.request.CustomerId); err != nil {
			return err
		}
	}
}

// await returns when it is time to look again. Meanwhile the client hears that the stream lives.
func (f *following) await(ctx context.Context, news <-chan struct{}, again, beat <-chan time.Time) error {
	for {
		select {
		case <-news:
			return nil
		case <-again:
			return nil
		case <-beat:
			if err := f.send(ctx, nil); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// What cannot be read now is read again after growing pauses, 12 s in all; then the stream ends at the last event
// that it sent, and the client continues from there.
const (
	followPause = 100 * time.Millisecond
	followTries = 7
)

// errUnreadable says that a part of the history cannot be read now.
var errUnreadable = fmt.Errorf("events cannot be read now: %w", persistence.ErrUnavailable)

// catchUp sends what lies between what was sent and the head. after moves with each batch
// that is sent, so that a failure half-way repeats nothing. Errors: errUnreadable if the
// history cannot be read there now; what is damaged or expired is sent as a gap.
func (f *following) catchUp(ctx context.Context, head persistence.Head) error {
	if head.Sequence <= f.after {
		return nil
	}
	l := &listing{
		gateway: f.Gateway, customer: f.request.CustomerId, device: f.request.DeviceId, title: f.request.TitleId,
		end: &licensedv1.HistoryEnd{}, whole: true,
		send: func(items []*licensedv1.HistoryItem, end *licensedv1.HistoryEnd) error {
			for _, i := range items {
				f.after = max(f.after, i.GetEvent().GetSequence(), i.GetGap().GetToSequence())
			}
			if end != nil {
				// The filter may have left out the last events; they need not be read
				// again.
				f.after = head.Sequence
			}
			return f.send(ctx, items)
		},
	}
	err := l.read(ctx, head, persistence.HistoryRange{After: f.after})
	if errors.Is(err, errUnreadable) && len(l.items) > 0 {
		return errors.Join(l.flush(nil), err) // what came before it is sent
	}
	if err != nil {
		return err
	}
	return l.flush(l.end)
}

// send sends items, or none as a sign of life; the response has the sequence that the
// stream has reached.
func (f *following) send(ctx context.Context, items []*licensedv1.HistoryItem) error {
	return sendTo(ctx, f.stream, &licensedv1.FollowResponse{Items: items, Sequence: f.after})
}
