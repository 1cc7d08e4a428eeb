package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"licensed/messages/licensedv1"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// interceptor surrounds every decoded call, see Gateway.intercept, and every stream.
type interceptor struct{ *Gateway }

// WrapUnary implements connect.Interceptor.
func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return i.intercept(next) }

// WrapStreamingClient implements connect.Interceptor. The gateway is no client.
func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// sendTimeout is the time a client may take to take a message before its stream is cut off: one that
// stopped reading must not hold a goroutine, and what it has read so far, forever. When the node stops it
// has lastWords.
const (
	sendTimeout = 30 * time.Second
	lastWords   = 5 * time.Second
)

// errStops is what ends the streams of a node that stops.
var errStops = errors.New("the node stops")

// EndStreams ends all streams, present and future ones: the server is about to stop, and would wait for
// them.
func (g *Gateway) EndStreams() { g.stop() }

// WrapStreamingHandler is intercept for streams, which have no deadline but the client's: what bounds
// them is that the client takes what it is sent, and the life of the node.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		c := ctx.Value(callKey{}).(*call)
		c.decoded = true
		// The server's limits are for single requests and replies; this request is here, and may be answered
		// for hours. Where limits cannot be set there are none.
		control := http.NewResponseController(c)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
		client := ctx
		leave := func() {}
		ctx, end := i.untilExpiry(ctx, c)
		defer end()
		if !c.route.session { // Its calls are answered first.
			ctx, leave = i.untilStop(ctx, control)
			conn = authorizedConn{conn, i.Gateway, c}
		}
		defer func() {
			leave()
			if p := recover(); p != nil {
				err = i.panicked(c, p)
			}
			if err != nil && errors.Is(context.Cause(ctx), errCredentialsExpired) {
				err = i.denied(errCredentialsExpired)
			}
			canceled := errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled
			if canceled && errors.Is(context.Cause(ctx), errStops) {
				err = apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted, "the node stops; ask another one")
			}
			if connect.CodeOf(err) == connect.CodeDeadlineExceeded && client.Err() == nil && !c.route.session {
				// The stream has time left; a question that it asked had not.
				err = apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
					"the customer's node or the store did not answer in time; the stream ends, open it again")
			}
			if err != nil {
				if c.code = connect.CodeOf(err); isJSON(conn.RequestHeader(), conn.Peer()) {
					err = namedAsInJSON(err)
				}
			}
		}()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return expired()
		}
		return next(ctx, conn)
	}
}

// untilStop returns the context of a stream, which ends when the node stops. What is then
// being sent has to be taken soon, and so has the end of the stream, which is sent after
// leave. leave must be called once, before the handler returns.
func (g *Gateway) untilStop(ctx context.Context, control *http.ResponseController) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	told := make(chan struct{})
	disarm := context.AfterFunc(g.stopping, func() {
		defer close(told)
		cancel(errStops) // Before the deadline, which sendTo might set again.
		_ = control.SetWriteDeadline(time.Now().Add(lastWords))
	})
	return ctx, func() {
		patience := sendTimeout
		if !disarm() {
			<-told // It uses the writer, which exists for a short time only.
			patience = lastWords
		}
		_ = control.SetWriteDeadline(time.Now().Add(patience))
		cancel(nil)
	}
}

// sendTo sends a message on a stream; an error is that the client has gone, that the
// stream was ended, or that the message does not fit into the budgets. The time until the
// next message is not bounded: HTTP/2 resets a stream whose deadline passes though
// nothing waits to be written. It is called by the goroutine of the stream alone.
func sendTo[M any](ctx context.Context, stream *connect.ServerStream[M], m *M) error {
	c := ctx.Value(callKey{}).(*call)
	if message, ok := any(m).(proto.Message); ok {
		// What is being sent counts until the client took it.
		if err := c.memory.Resize(c.stream + replyFactor*int64(proto.Size(message))); err != nil {
			return asLimit(err)
		}
	}
	control := http.NewResponseController(c)
	if err := control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil &&
		!errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := stream.Send(m); err != nil {
		// The cause does not matter: nobody reads the answer any more.
		return fmt.Errorf("%w: %w", context.Canceled, err)
	}
	_ = control.SetWriteDeadline(time.Time{})
	return c.memory.Resize(c.stream)
}
