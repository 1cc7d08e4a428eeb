package transport

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/internal/caller"
	"licensed/messages/clusterv1"
)

// timeout returns the time that the work on a request may take.
func (t *Transport) timeout(m *clusterv1.Request) time.Duration {
	if us := m.GetTimeoutMicros(); us > 0 && us < t.config.MaxTimeout.Microseconds() {
		return time.Duration(us) * time.Microsecond
	}
	return t.config.MaxTimeout
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
	if t.config.Tracing != nil {
		ctx = t.config.Tracing.Extract(ctx, m.GetTraceparent())
	}
	if m.GetCaller() != nil {
		ctx = caller.NewContext(ctx, callerOf(m.GetCaller()))
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
		if err := respond(r, codec, a, err); err != nil {
			return err
		}
		// Other answers that are too large leave it open whether the request was executed: see encode.
		if size, most := proto.Size(r)+envelope, t.config.MaxMessageBytes; size > most {
			return fmt.Errorf("%w: answer of %d bytes, at most %d", actors.ErrRejected, size, most)
		}
		return nil
	case *clusterv1.Request_Operator:
		p := body.Operator.GetPayload()
		request, err := codec.UnmarshalRequest(p.GetType(), p.GetData())
		if err != nil {
			return fmt.Errorf("%w: operator's request: %w", actors.ErrNotSupported, err)
		}
		a, err := h.Operate(ctx, m.GetKind(), m.GetAggregate(), request)
		return respond(r, codec, a, err)
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

// envelope is the most that a response's id and its place in a frame add to its size, in bytes.
const envelope = 32

// respond puts an answer into a response, unless there is an error.
func respond(r *clusterv1.Response, codec Codec, a actors.Answer, err error) error {
	if err != nil {
		return err
	}
	answer, err := answerMessage(codec, a)
	r.Body = &clusterv1.Response_Answer{Answer: answer}
	return err
}
