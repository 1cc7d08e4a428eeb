package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// interceptor surrounds every decoded call, see Gateway.intercept, and every stream.
type interceptor struct{ *Gateway }

func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return i.intercept(next) }

func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler is intercept for streams, which have no deadline but the client's: what bounds
// them is that the client takes what it is sent.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		c := ctx.Value(callKey{}).(*call)
		c.decoded = true
		// The server's limits are for single requests and replies; this request is here, and may be answered
		// for hours. Where limits cannot be set there are none.
		control := http.NewResponseController(c.writer)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
		defer func() {
			_ = control.SetWriteDeadline(time.Now().Add(sendTimeout)) // The end has to be taken, too.
			if p := recover(); p != nil {
				err = i.panicked(c, p)
			}
			if err != nil {
				c.code = connect.CodeOf(err)
			}
		}()
		return next(ctx, conn)
	}
}

// sendTimeout is how long a client may take to take a message before its stream is cut off: one that
// stopped reading must not hold a goroutine, and what it has read so far, for ever.
const sendTimeout = 30 * time.Second

// sendTo sends a message on a stream. The time until the next is not bounded: HTTP/2 resets a stream whose
// deadline passes though nothing waits to be written.
func sendTo[M any](ctx context.Context, stream *connect.ServerStream[M], m *M) error {
	control := http.NewResponseController(ctx.Value(callKey{}).(*call).writer)
	if err := control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	return stream.Send(m)
}
