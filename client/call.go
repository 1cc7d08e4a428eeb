package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"licensed/messages/licensedv1"
)

// transport carries one attempt of a unary call. Its errors are of gRPC; at is the gateway's clock, zero if it is not
// known.
type transport interface {
	invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) (at time.Time, err error)
}

// unary is the transport of a gRPC request for each attempt.
type unary struct{ *grpc.ClientConn }

func (u unary) invoke(
	ctx context.Context, method string, request, reply any, options ...grpc.CallOption,
) (at time.Time, err error) {
	var header, trailer metadata.MD
	err = u.Invoke(ctx, method, request, reply,
		append(slices.Clip(options), grpc.Header(&header), grpc.Trailer(&trailer))...)
	for _, date := range append(header["date"], trailer["date"]...) {
		if t, parseErr := http.ParseTime(date); parseErr == nil {
			at = t
		}
	}
	return at, err
}

// kind is how a method is called: commands and queries are repeated, others are not.
type kind struct{ command, query bool }

var kinds = func() map[string]kind {
	all := make(map[string]kind)
	for _, file := range []protoreflect.FileDescriptor{
		licensedv1.File_licensed_v1_license_service_proto, licensedv1.File_licensed_v1_history_service_proto,
	} {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				o, _ := m.Options().(*descriptorpb.MethodOptions)
				query := o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
				all["/"+string(s.FullName())+"/"+string(m.Name())] = kind{
					!query && m.Input().Fields().ByName(commandID) != nil, query,
				}
			}
		}
	}
	return all
}()

const commandID = "command_id"

// identified returns a command with an id: itself if it has one or only validates, and else a copy with a new one.
func identified(command proto.Message) (with proto.Message, id string) {
	m := command.ProtoReflect()
	field := m.Descriptor().Fields().ByName(commandID)
	id = m.Get(field).String()
	if id != "" || m.Get(m.Descriptor().Fields().ByName("validate_only")).Bool() {
		return command, id
	}
	id, with = uuid.NewString(), proto.Clone(command)
	with.ProtoReflect().Set(field, protoreflect.ValueOfString(id))
	return with, id
}

// call is a unary call in progress.
type call struct {
	*Client
	kind
	method         string
	request, reply proto.Message
	id             string
	options        []grpc.CallOption
	attempts       int
	unknown        bool // An attempt may have executed the command.
}

// Invoke implements grpc.ClientConnInterface: it makes a unary call of any service of the API, with retries where these
// are safe. Errors are *Error, *Refusal and ErrClosed.
func (c *Client) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	done, err := c.begin()
	if err != nil {
		return err
	}
	defer done()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.Timeout)
		defer cancel()
	}
	c.budget.deposit()
	k := &call{
		Client: c, kind: kinds[method], method: method, options: options,
		request: request.(proto.Message), reply: reply.(proto.Message),
	}
	if k.command {
		k.request, k.id = identified(k.request)
	}
	for {
		err := k.attempt(ctx)
		if err == nil {
			return nil
		}
		if e := of(err); !k.again(ctx, e) {
			e.cause = context.Cause(ctx)
			return err
		}
	}
}

// again waits before another attempt; false if there is to be none.
func (k *call) again(ctx context.Context, e *Error) bool {
	if !k.command && !k.query || !e.repeatable() || ctx.Err() != nil {
		return false
	}
	pause := e.RetryAfter + randomPause(k.attempts)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false
	}
	if !k.budget.withdraw(time.Now()) {
		return false
	}
	return k.sleep(ctx, pause)
}

const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second
)

// randomPause returns a pause after this number of failures, from 1: any time up to a bound, which doubles.
func randomPause(failures int) time.Duration {
	return rand.N(min(firstPause<<min(failures-1, 16), mostPause))
}

// sleep waits; false if the call or the client ended meanwhile.
func (c *Client) sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-c.closing.Done():
	}
	return false
}

// attempt sends the request, and a query perhaps a second time.
func (k *call) attempt(ctx context.Context) error {
	k.attempts++
	ctx, cancel := context.WithTimeout(ctx, k.Client.options.AttemptTimeout)
	defer cancel()
	hedge := k.Client.options.HedgeAfter
	if !k.query || hedge <= 0 || slices.ContainsFunc(k.options, ofOneReply) {
		return k.send(ctx, k.reply)
	}
	type answer struct {
		reply proto.Message
		err   error
	}
	answers := make(chan answer, 2)
	send := func() {
		a := answer{reply: k.reply.ProtoReflect().New().Interface()}
		a.err = k.send(ctx, a.reply)
		answers <- a
	}
	go send()
	timer := time.NewTimer(hedge)
	defer timer.Stop()
	for sent := 1; ; {
		select {
		case <-timer.C:
			if k.budget.withdraw(time.Now()) {
				sent++
				go send()
			}
		case a := <-answers:
			if a.err == nil {
				proto.Merge(k.reply, a.reply)
			}
			if sent--; a.err == nil || sent == 0 {
				return a.err
			}
		}
	}
}

// ofOneReply reports whether an option may be a place for the header of a reply, which two attempts must not share. All
// stubs have the other one.
func ofOneReply(o grpc.CallOption) bool {
	_, ok := o.(grpc.StaticMethodCallOption)
	return !ok
}

// send sends the request once.
func (k *call) send(ctx context.Context, reply proto.Message) error {
	began := time.Now()
	at, err := k.transport.invoke(ctx, k.method, k.request, reply, k.options...)
	if err != nil {
		err = decode(err, at, k.id)
		e := of(err)
		e.Attempts = k.attempts
		if e.outcome = outcomeOf(e); k.query && errors.Is(e, ErrOutcomeUnknown) {
			e.outcome = nil // Queries leave none open.
		}
		if k.command {
			k.unknown = k.unknown || errors.Is(e, ErrOutcomeUnknown)
			if k.unknown && errors.Is(e, ErrNotExecuted) { // This attempt was not; an earlier one may have been.
				e.outcome = ErrOutcomeUnknown
			}
		}
	}
	k.Client.options.Listener.Attempted(
		Attempt{Method: k.method, CommandID: k.id, Number: k.attempts, Took: time.Since(began), Err: err},
	)
	return err
}
