package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
)

// silence is the time without a message after which a stream of Follow is taken for dead: three heartbeats.
const silence = 30 * time.Second

// Follow yields the events of a customer after m.AfterSequence as they are recorded, each once and in order, until
// the context ends or the caller stops. Without after_sequence it begins with the first event after the stream was
// opened. A stream that breaks is opened again, also at another gateway, after the last event that was yielded. An
// item is an event, or a gap: a range that cannot be read, for instance because the archive dropped it. To
// continue later, keep the sequence of the last item (of a gap, to_sequence).
//
// The last pair has an error: that of the context, ErrClosed, or *Error if opening the stream again would not help.
func (c *Client) Follow(ctx context.Context, m *licensedv1.FollowRequest) iter.Seq2[*licensedv1.HistoryItem, error] {
	f := &following{Client: c, request: proto.CloneOf(m)}
	return func(yield func(*licensedv1.HistoryItem, error) bool) {
		for {
			err := f.stream(ctx, yield)
			if err == nil {
				return
			}
			var e *Error
			switch {
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case c.closing.Err() != nil:
				err = ErrClosed
			case errors.Is(err, io.EOF), errors.As(err, &e) && e.repeatable():
				f.failures++
				c.options.Listener.Attempted(Attempt{
					Method: licensedv1.HistoryService_Follow_FullMethodName, Number: f.failures, Err: err,
				})
				pause := randomPause(f.failures)
				if e != nil {
					pause += e.RetryAfter
				}
				c.sleep(ctx, pause)
				continue
			}
			yield(nil, err)
			return
		}
	}
}

// following is a Follow with all its streams, one after the other.
type following struct {
	*Client
	request  *licensedv1.FollowRequest // after_sequence is the last that was yielded
	failures int                       // since the last message
}

// stream yields what one stream sends. It returns nil when the caller stopped.
func (f *following) stream(ctx context.Context, yield func(*licensedv1.HistoryItem, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.closing, cancel)()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	s, err := f.history.Follow(ctx, f.request)
	if err != nil {
		return err
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		dead.Stop() // The caller may take its time.
		f.failures = 0
		for _, item := range m.Items {
			at := max(item.GetEvent().GetSequence(), item.GetGap().GetToSequence())
			if f.request.AfterSequence != nil && at <= *f.request.AfterSequence {
				continue
			}
			f.request.AfterSequence = &at
			if !yield(item, nil) {
				return nil
			}
		}
		f.request.AfterSequence = &m.Sequence
		dead.Reset(silence)
	}
}

// NewStream implements grpc.ClientConnInterface: it opens a stream of any service of the API, once. Errors are *Error
// and ErrClosed. Close ends the stream.
func (c *Client) NewStream(
	ctx context.Context, d *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if c.closing.Err() != nil {
		return nil, ErrClosed
	}
	s, err := c.connection.NewStream(ctx, d, method, options...)
	if err != nil {
		return nil, decode(err, time.Time{}, "")
	}
	return stream{s}, nil
}

// stream has the errors of this package.
type stream struct{ grpc.ClientStream }

// RecvMsg implements grpc.ClientStream.
func (s stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		return decode(err, time.Time{}, "")
	}
	return err
}
