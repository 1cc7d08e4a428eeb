package gateway

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1/licensedv1connect"
)

// call is what is known about a request on its way through.
type call struct {
	method *methodMetrics
	// decoded says that the request was read and understood as a call.
	decoded bool
	// endless says that its duration is the client's doing, and not worth measuring.
	endless bool
	// code of the reply; 0 is success.
	code connect.Code
	// writer of the reply, for streams.
	writer http.ResponseWriter
}

type callKey struct{}

// admit bounds the requests in flight, reading their bodies included, and measures them.
func (g *Gateway) admit(next http.Handler, reject *connect.ErrorWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method, ok := g.metrics.methods[r.URL.Path]
		if !ok {
			next.ServeHTTP(w, r) // Not found.
			return
		}
		start := time.Now()
		places := g.place(r)
		if places == nil {
			method.observe(connect.CodeResourceExhausted, time.Since(start))
			turnAway(w, r, reject)
			return
		}
		defer places.Add(-1)
		c := call{method: method, writer: w}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, &c)))
		if !c.decoded {
			method.malformed.Inc()
			return
		}
		if !c.endless {
			method.observe(c.code, time.Since(start))
		}
	})
}

// operatorReserve is how many requests of operators are handled beside MaxInFlight: whoever is to help an overloaded
// cluster must be able to look, and to drain a node of it.
const operatorReserve = 64

// place takes a place for a request and returns the count to give it back to; nil if there is none.
func (g *Gateway) place(r *http.Request) *atomic.Int64 {
	if taken(&g.inFlight, g.config.MaxInFlight) {
		return &g.inFlight
	}
	if strings.HasPrefix(r.URL.Path, "/"+licensedv1connect.AdminServiceName+"/") && taken(&g.operators, operatorReserve) {
		return &g.operators
	}
	return nil
}

// taken takes one of a number of places, if one is left.
func taken(places *atomic.Int64, most int) bool {
	if places.Add(1) <= int64(most) {
		return true
	}
	places.Add(-1)
	return false
}

func turnAway(w http.ResponseWriter, r *http.Request, reject *connect.ErrorWriter) {
	if !reject.IsSupported(r) {
		http.Error(w, "overloaded, retry later", http.StatusTooManyRequests)
		return
	}
	// A client that cannot be written to has gone; there is nobody to tell.
	_ = reject.Write(w, r, retryError(connect.CodeResourceExhausted, ReasonOverloaded,
		"too many requests in flight; not executed, retry later", overloadRetry))
}

// intercept surrounds every decoded call: it caps the deadline, and a panic fails that call alone.
func (g *Gateway) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		c := ctx.Value(callKey{}).(*call)
		c.decoded = true
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > g.config.MaxDeadline {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, g.config.MaxDeadline)
			defer cancel()
		}
		defer func() {
			if p := recover(); p != nil {
				res, err = nil, g.panicked(c, p)
			}
			if err != nil {
				c.code = connect.CodeOf(err)
			}
		}()
		return next(ctx, req)
	}
}

// panicked reports a panic in a handler. What the aggregate did is not known here, so neither is the
// outcome of a command.
func (g *Gateway) panicked(c *call, p any) error {
	g.metrics.panics.Inc()
	g.config.Logger.Error("panic while handling a request",
		"method", c.method.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return apiError(connect.CodeInternal, ReasonBug,
		"internal error; outcome unknown, retry with the same command_id to learn it")
}
