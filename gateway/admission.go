package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/gateway/auth"
	"licensed/internal/budget"
	"licensed/internal/caller"
	"licensed/messages/licensedv1"
)

// call is what is known about a request in progress. It is the writer of its reply. One
// request has one call, used by the goroutine of its handler; it is in the context under
// callKey.
type call struct {
	http.ResponseWriter
	method *methodMetrics
	// route says how the method is admitted; budgets are those that the request takes
	// from, which are the operators' for requests of this process itself.
	route   *route
	budgets *budgets
	limits  *limits
	// The address that the request comes from, and its principal; none for one of this process.
	holders []budget.Holder
	// claims of the caller; nil where the API is open. source is the address as the audit log has it. caller is what
	// the owner is told of the caller, once the message was authorized.
	claims *auth.Claims
	source string
	caller caller.Caller
	// decoded says that the request was read and understood as a call.
	decoded bool
	// endless says that its duration is the client's doing, and not worth measuring.
	endless bool
	// code of the reply; 0 is success.
	code connect.Code
	// stream is what a stream is counted with while it sends nothing, in bytes.
	stream int64
	// What the call has of its budgets; memory is for its reply, or what its stream sends.
	request, slot, memory budget.Grant
	written, flushed      bool
}

// callKey is the key of a call in the context of its request, where the way to the owner finds the caller.
type callKey = caller.Key

// Caller implements caller.Bearer.
func (c *call) Caller() *caller.Caller {
	if c.claims == nil && c.caller.Reason == "" {
		return nil
	}
	return &c.caller
}

// Write implements http.ResponseWriter.
func (c *call) Write(p []byte) (int, error) {
	c.written, c.flushed = true, false
	return c.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (c *call) Flush() {
	c.flushed = true
	_ = http.NewResponseController(c.ResponseWriter).Flush() // A client that has gone shows at the next write.
}

// Unwrap is for http.ResponseController.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// route is how requests of a method are admitted.
type route struct {
	path    string
	metrics *methodMetrics
	// class of the method's requests, and whether it answers with a stream, or carries calls of others.
	class           *budgets
	stream, session bool
	// body is the largest message it takes.
	body int64
	// reply estimates what a request's reply takes, in bytes, before it is known.
	reply func(proto.Message) int64
}

// admit bounds what requests use, and measures them. The order is deadline, identity, rate, body, place,
// handler. A request holds a place among those in flight only once its body is here;
// until then it holds memory of the budget for bodies, so that a client which sends
// slowly keeps nobody else out. reject writes errors in the protocol of the request.
func (g *Gateway) admit(next http.Handler, reject *connect.ErrorWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, ok := g.routes[r.URL.Path]
		if !ok {
			next.ServeHTTP(w, r) // Not found.
			return
		}
		// Time counts from the headers: a body that comes slowly is a part of the
		// request's duration.
		start := time.Now()
		c := &call{ResponseWriter: w, method: route.metrics, route: route, budgets: route.class, limits: g.limits}
		// The holders are the client's address and its principal: the shares of the budgets go by them.
		// Requests of this process itself have none.
		if holder := budget.FromRemote(r.RemoteAddr); holder != (budget.Holder{}) {
			c.holders = []budget.Holder{holder}
		} else if c.budgets == &g.limits.customers {
			c.budgets = &g.limits.operators // The dashboard.
		}
		deadline := takeDeadline(r.Header, start)
		defer c.release()
		// Before the body: nothing is read of callers that may not call the method at all.
		body, err := &body{}, g.identify(deadline, c, r)
		if err == nil {
			err = c.paced(start)
		}
		if err == nil && !route.session {
			body, err = c.receive(deadline, w, r)
		}
		ctx, cancel := withDeadline(r.Context(), g.capped(route, deadline))
		defer cancel()
		// Before a place is taken: nobody waits for the answer any more.
		if err == nil && ctx.Err() != nil {
			err = cutOff(deadline, ctx.Err())
		}
		if err == nil {
			err = c.admitted(body)
		}
		if err != nil {
			g.refuse(c, err, start, r, reject)
			return
		}
		r = r.WithContext(context.WithValue(ctx, callKey{}, c))
		if !route.session {
			r.Body = body
		}
		next.ServeHTTP(c, r)
		if c.written && !c.flushed && r.ProtoMajor > 1 {
			c.Flush() // Or the end of the reply would wait for a client that does not read, counted nowhere.
		}
		// Package connect answers what it cannot decode by itself, and never calls
		// intercept.
		if !c.decoded {
			c.method.malformed.Inc()
			return
		}
		// A stream that follows a customer lasts for as long as its client wants.
		if !c.endless {
			c.method.observe(c.code, time.Since(start))
		}
	})
}

// bounded bounds the requests of services that are not the API's own: health checks, which an orchestrator judges by,
// and reflection, whose streams last as long as the server lets them.
func bounded(next http.Handler, of *budget.Budget) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant, err := of.Take(streamBytes, budget.FromRemote(r.RemoteAddr))
		if err != nil {
			http.Error(w, "overloaded, retry later", http.StatusTooManyRequests)
			return
		}
		defer grant.Release()
		next.ServeHTTP(w, r)
	})
}

// admitted takes a place and memory for a request whose body is here: for a stream,
// memory for what it sends. Errors: budget.ExceededError. What was taken is released by
// release, also after an error.
func (c *call) admitted(body *body) (err error) {
	if c.route.stream {
		c.stream = streamBytes + 2*body.decoded // The request is held as long as the stream.
		if c.route.session {
			c.stream = sessionBytes
		}
		if c.slot, err = c.budgets.open.Take(1, c.holders...); err == nil {
			c.memory, err = c.budgets.streams.Take(c.stream, c.holders...)
		}
		return err
	}
	return c.enter(requestBytes + 2*body.decoded)
}

// paced counts a request that came at a time. Operators may send as many as they like. Errors: budget.ExceededError.
func (c *call) paced(at time.Time) error {
	if c.budgets != &c.limits.customers {
		return nil
	}
	return c.limits.requests.Take(at, c.holders...)
}

// enter takes a place and memory for a request that is to be handled.
func (c *call) enter(size int64) (err error) {
	if c.slot, err = c.budgets.slots.Take(1, c.holders...); err == nil {
		c.request, err = c.budgets.requests.Take(size, c.holders...)
	}
	return err
}

// release gives back everything that the call took. It may be called more than once.
func (c *call) release() {
	c.memory.Release()
	c.request.Release()
	c.slot.Release()
}

// refuse answers a request that is not handled, and counts it: as malformed, or by its
// code if the service is at fault. A client that cannot be written to has gone; nobody
// waits for the answer then.
func (g *Gateway) refuse(c *call, err error, start time.Time, r *http.Request, reject *connect.ErrorWriter) {
	var exceeded *budget.ExceededError
	var typed *connect.Error
	switch {
	case errors.As(err, &exceeded):
		typed = overLimit(exceeded)
		c.method.observe(typed.Code(), time.Since(start))
	case errors.As(err, &typed):
		if _, denied := deniedReasons[reasonOf(typed)]; denied || typed.Code() == connect.CodeDeadlineExceeded {
			c.method.observe(typed.Code(), time.Since(start))
			break
		}
		c.method.malformed.Inc()
	default: // The body was cut off.
		c.method.malformed.Inc()
		typed = connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("read the request: %w; not executed", err))
	}
	writeError(c, r, typed, reject)
}

// writeError answers with an error in the protocol of the request.
func writeError(w http.ResponseWriter, r *http.Request, err *connect.Error, reject *connect.ErrorWriter) {
	status := http.StatusTooManyRequests
	switch err.Code() {
	case connect.CodeUnauthenticated:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer")
	case connect.CodePermissionDenied:
		status = http.StatusForbidden
	}
	if r.ProtoMajor == 1 && status != http.StatusTooManyRequests && r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // Or the server would wait for the body before it answers.
	}
	// A client that speaks none of the protocols of package connect.
	if !reject.IsSupported(r) {
		http.Error(w, err.Message(), status)
		return
	}
	_ = reject.Write(w, r, err)
}

// overLimit makes the error for a request that met a limit. It names the limit, so that an operator finds the setting
// and a client knows whether its own address or principal is the cause.
func overLimit(e *budget.ExceededError) *connect.Error {
	words, retry := limitWords[e.Budget], overloadRetry
	if e.Budget == "streams" || e.Budget == "stream_bytes" {
		retry = streamRetry
	}
	if e.RetryAfter > 0 {
		retry = e.RetryAfter
	}
	if e.Scope != budget.All {
		words += " from " + e.Holder.String()
	}
	return retryAfter(infoError(connect.CodeResourceExhausted, licensedv1.ReasonOverloaded,
		words+"; not executed, retry later", map[string]string{"limit": e.Budget, "scope": string(e.Scope)}), retry)
}

// capped returns the deadline of a request whose body is here, from that of its client: a client without one would
// wait, and hold its place, for as long as a node takes. Zero is none, as of streams.
func (g *Gateway) capped(route *route, deadline time.Time) time.Time {
	if route.stream {
		return deadline
	}
	if most := time.Now().Add(g.config.MaxDeadline); deadline.IsZero() || deadline.After(most) {
		return most
	}
	return deadline
}

// withDeadline is context.WithDeadline, unless the deadline is zero.
func withDeadline(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline)
}

// intercept surrounds every decoded call: it counts the reply, and a panic fails that call alone.
func (g *Gateway) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	// admit put it there; a call that reaches this is decoded.
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		c := ctx.Value(callKey{}).(*call)
		c.decoded = true
		defer func() {
			if p := recover(); p != nil {
				res, err = nil, g.panicked(c, p)
			}
			if err != nil {
				if c.code = connect.CodeOf(err); isJSON(req.Header(), req.Peer()) {
					err = namedAsInJSON(err)
				}
			}
		}()
		if ctx.Err() != nil {
			return nil, expired()
		}
		if err := g.authorize(c, req.Any(), req.Header()); err != nil {
			return nil, err
		}
		if err := c.reserve(req.Any()); err != nil {
			return nil, err
		}
		if res, err = next(ctx, req); err == nil {
			err = c.settle(res.Any())
		}
		return res, err
	}
}

// reserve takes memory for the reply, before anything is executed: a command whose reply
// cannot be held must not be executed first.
func (c *call) reserve(request any) (err error) {
	size := int64(commandReply)
	if m, ok := request.(proto.Message); ok && c.route.reply != nil {
		size = c.route.reply(m)
	}
	if c.memory, err = c.budgets.replies.Take(size, c.holders...); err != nil {
		return asLimit(err)
	}
	return nil
}

// settle counts the reply as it turned out, until release. That of a command is sent
// whatever it takes: it was executed, and an error would say otherwise.
func (c *call) settle(reply any) error {
	m, ok := reply.(proto.Message)
	if !ok || c.route.reply == nil {
		return nil
	}
	size := commandReply + replyFactor*int64(proto.Size(m))
	if commandMethods[c.method.name] {
		c.memory.Force(max(size, c.memory.Size()))
		return nil
	}
	return asLimit(c.memory.Resize(size))
}

// asLimit makes an error of a budget one of the API.
func asLimit(err error) error {
	var exceeded *budget.ExceededError
	if errors.As(err, &exceeded) {
		return overLimit(exceeded)
	}
	return err
}

// expired is the error for a request whose deadline passed before it was handled.
func expired() *connect.Error {
	return apiError(connect.CodeDeadlineExceeded, licensedv1.ReasonNotExecuted,
		"the deadline passed before execution; not executed")
}

// panicked reports a panic in a handler. What the aggregate did is not known here, so neither is the
// outcome of a command.
func (g *Gateway) panicked(c *call, p any) error {
	g.metrics.panics.Inc()
	g.config.Logger.Error("request panicked",
		"method", c.method.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return apiError(connect.CodeInternal, licensedv1.ReasonBug,
		"internal error; outcome unknown, retry with the same command_id to learn it")
}

// Estimates of replies, in bytes: what is usual for those that are rarely long, and what
// is certain for the others. An estimate that is too low is corrected by settle; the time
// in between is that of the handler.
const (
	listReply   = 16 << 10
	replayReply = 64 << 10
	customerID  = 64
)

// replyEstimates are of the methods whose replies are counted one by one; others' are short.
var replyEstimates = map[string]func(proto.Message) int64{
	"DeactivateDevice": fixed(listReply),
	"ListLicenses":     fixed(listReply),
	"ListDownloads":    fixed(listReply),
	"ListDevices":      fixed(listReply),
	"GetCustomer":      fixed(listReply),
	"GetState":         fixed(replayReply),
	"TryAt":            fixed(replayReply),
	"Why":              fixed(replayReply),
	"GetCluster":       fixed(replayReply),
	"ListCustomers": func(m proto.Message) int64 {
		return commandReply + replyFactor*customerID*int64(customersLimit(m.(*licensedv1.ListCustomersRequest)))
	},
}

// fixed returns an estimate that does not depend on the request.
func fixed(size int64) func(proto.Message) int64 {
	return func(proto.Message) int64 { return size }
}
