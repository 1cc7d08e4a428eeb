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
		// The server's limit is for requests that trickle in; this one is here, and may be answered for
		// hours. Where limits cannot be set there are none.
		control := http.NewResponseController(c.writer)
		_ = control.SetReadDeadline(time.Time{})
		defer func() {
			_ = control.SetWriteDeadline(time.Time{}) // The connection may be used again.
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

// sendTo sends a message on a stream.
func sendTo[M any](ctx context.Context, stream *connect.ServerStream[M], m *M) error {
	c := ctx.Value(callKey{}).(*call)
	if err := http.NewResponseController(c.writer).SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return stream.Send(m)
}
