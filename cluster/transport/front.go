package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// receive is the front: it starts the work on a request and does not wait for it.
func (t *Transport) receive(ctx actor.Context) {
	m, ok := ctx.Message().(*clusterv1.Request)
	sender := ctx.Sender()
	if !ok || sender == nil {
		return
	}
	s := t.session(sender.GetId())
	if s == nil {
		return
	}
	id := sender.GetRequestId()
	t.working.Add(1)
	go func() {
		defer t.working.Add(-1)
		s.post(outgoing{id: id, response: t.answer(s.ctx, m)})
	}()
}

// answer does what a request asks for.
func (t *Transport) answer(ctx context.Context, m *clusterv1.Request) (r *clusterv1.Response) {
	defer func() {
		if p := recover(); p != nil {
			t.config.Log.Error("transport: request panicked", "panic", p, "stack", string(debug.Stack()))
			r = failure(fmt.Errorf("%w: panic", ErrInternal))
		}
	}()
	if t.closed.Load() || t.config.Handler == nil {
		return failure(fmt.Errorf("%w: this process does not answer", actors.ErrNotOwner))
	}
	timeout := t.config.MaxTimeout
	if us := m.GetTimeoutMicros(); us > 0 && us < timeout.Microseconds() {
		timeout = time.Duration(us) * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if t.config.Tracing != nil {
		ctx = t.config.Tracing.Extract(ctx, m.GetTraceparent())
	}
	r = &clusterv1.Response{Code: clusterv1.Code_CODE_OK}
	if err := t.handle(ctx, m, r); err != nil {
		return failure(err)
	}
	return r
}

func (t *Transport) handle(ctx context.Context, m *clusterv1.Request, r *clusterv1.Response) error {
	h, codec := t.config.Handler, t.config.Codec
	switch body := m.GetBody().(type) {
	case *clusterv1.Request_Command:
		c, err := commandOf(codec, body.Command)
		if err != nil {
			return err
		}
		reply, err := h.Execute(ctx, m.GetKind(), m.GetAggregate(), c)
		r.Body = &clusterv1.Response_Reply{Reply: replyMessage(reply)}
		return err
	case *clusterv1.Request_Query:
		query, err := queryOf(codec, body.Query)
		if err != nil {
			return err
		}
		a, err := h.Query(ctx, m.GetKind(), m.GetAggregate(), query)
		if err != nil {
			return err
		}
		answer, err := answerMessage(codec, a)
		r.Body = &clusterv1.Response_Answer{Answer: answer}
		return err
	case *clusterv1.Request_Ping:
		r.Body = &clusterv1.Response_Ping{Ping: t.pinged(body.Ping)}
		return nil
	case *clusterv1.Request_Status:
		s, err := h.Status(ctx)
		r.Body = &clusterv1.Response_Status{Status: s}
		return err
	case *clusterv1.Request_Drain:
		r.Body = &clusterv1.Response_Drain{Drain: &clusterv1.DrainResponse{}}
		return h.Drain(ctx)
	case *clusterv1.Request_Undrain:
		r.Body = &clusterv1.Response_Undrain{Undrain: &clusterv1.UndrainResponse{}}
		return h.Undrain(ctx)
	}
	return fmt.Errorf("%w: unknown request type; the caller is a newer release", actors.ErrNotSupported)
}

func overloaded(limit int) *clusterv1.Response {
	return failure(fmt.Errorf("%w: %d requests of one process are in progress", actors.ErrOverloaded, limit))
}

// readable reports whether bytes are a request, so that protoactor's reader can decode them too.
func readable(data []byte) bool { return proto.Unmarshal(data, &clusterv1.Request{}) == nil }

// drainTimeout is the time that closing gives to answers if its caller sets none.
const drainTimeout = 5 * time.Second

// goodbyeTimeout is the time that those who asked have to hang up when this process closes.
const goodbyeTimeout = time.Second

// Close takes no more requests, waits until those of others are answered or ctx ends, and leaves. Requests
// to others that are under way fail. Further calls do nothing.
//
// protoactor's own ways to stop panic when they are used twice, race with requests, and wait for seconds:
// so what it started is stopped here, each part once.
func (t *Transport) Close(ctx context.Context) error {
	var err error
	t.closing.Do(func() {
		t.sayGoodbye()
		err = t.drain(ctx)
		t.closePeers()
		t.awaitHangUp(ctx)
		t.cancel()
		t.closeSessions()
		t.cluster.Remote.Shutdown(false)
		t.stopActors()
		t.system.Shutdown()
		t.running.Wait()
	})
	return err
}

// sayGoodbye tells those who ask to send nothing more. They hang up when they have all their answers,
// which a server that closes its connections could not be sure of.
func (t *Transport) sayGoodbye() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed.Store(true)
	for _, s := range t.sessions {
		s.post(outgoing{message: &remote.RemoteMessage{
			MessageType: &remote.RemoteMessage_DisconnectRequest{DisconnectRequest: &remote.DisconnectRequest{}},
		}})
	}
}

// drain waits for the requests of others.
func (t *Transport) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if !wait(ctx, func() bool { return t.owed() == 0 }) {
		return fmt.Errorf("transport: %d requests of others are not answered: %w", t.owed(), ctx.Err())
	}
	return nil
}

// awaitHangUp waits until those who asked are gone, for a moment.
func (t *Transport) awaitHangUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	wait(ctx, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.sessions) == 0
	})
}

// wait returns true when something is so, or false if ctx ends first.
func wait(ctx context.Context, is func() bool) bool {
	for !is() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Millisecond):
		}
	}
	return true
}

// owed returns how many answers were not written.
func (t *Transport) owed() int64 {
	n := t.working.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		n += s.working.Load()
	}
	return n
}

// errLeaving is why requests to others fail when this process closes.
var errLeaving = errors.New("this process is leaving")
