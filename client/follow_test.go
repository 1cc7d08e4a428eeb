package client_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// events returns a message with these events, the last of which is where it ends.
func events(sequences ...uint64) *licensedv1.FollowResponse {
	m := &licensedv1.FollowResponse{}
	for _, n := range sequences {
		m.Items = append(m.Items,
			&licensedv1.HistoryItem{Item: &licensedv1.HistoryItem_Event{Event: &licensedv1.HistoryEvent{Sequence: n}}})
		m.Sequence = n
	}
	return m
}

// streams is a history service whose streams send these messages, then end with an error, one stream after the other.
type streams []struct {
	send []*licensedv1.FollowResponse
	err  error
}

// serve returns the gateway's function, and where each stream was to begin.
func (s streams) serve(
	after chan<- *uint64,
) func(*licensedv1.FollowRequest, grpc.ServerStreamingServer[licensedv1.FollowResponse]) error {
	var n atomic.Int64
	return func(m *licensedv1.FollowRequest, stream grpc.ServerStreamingServer[licensedv1.FollowResponse]) error {
		i := int(n.Add(1)) - 1
		after <- m.AfterSequence
		for _, r := range s[i].send {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		return s[i].err
	}
}

// TestFollowResumes: streams that break are opened again where they broke, and each event is yielded once, in order.
func TestFollowResumes(t *testing.T) {
	gap := &licensedv1.FollowResponse{Sequence: 9, Items: []*licensedv1.HistoryItem{{Item: &licensedv1.HistoryItem_Gap{
		Gap: &licensedv1.HistoryGap{FromSequence: 6, ToSequence: 8},
	}}, events(9).Items[0]}}
	after := make(chan *uint64, 6)
	g := (&gateway{follow: streams{
		// Before it said where it begins.
		{err: status.Error(codes.Unavailable, "the node stops")},
		{send: []*licensedv1.FollowResponse{{Sequence: 3}}, err: overloaded(1)}, // Nothing yet.
		// The connection breaks.
		{send: []*licensedv1.FollowResponse{events(4, 5)}, err: status.Error(codes.Internal, "cut")},
		{send: []*licensedv1.FollowResponse{events(5), gap, {Sequence: 12}}}, // The stream ends.
		{
			send: []*licensedv1.FollowResponse{events(13)},
			err:  failure(codes.DataLoss, licensedv1.ReasonCorrupt, "cannot be read"),
		},
	}.serve(after)}).start(t)
	c := dial(t, client.Options{}, g)
	var got []uint64
	var failed error
	for item, err := range c.Follow(t.Context(), &licensedv1.FollowRequest{CustomerId: "Bayley"}) {
		if err != nil {
			failed = err
			break
		}
		got = append(got, max(item.GetEvent().GetSequence(), item.GetGap().GetToSequence()))
	}
	if want := []uint64{4, 5, 8, 9, 13}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	var e *client.Error
	if !errors.As(failed, &e) || e.Reason != licensedv1.ReasonCorrupt {
		t.Errorf("%v", failed)
	}
	for i, want := range []uint64{0, 0, 3, 5, 12} {
		if a := <-after; i < 2 && a != nil || i >= 2 && (a == nil || *a != want) {
			t.Errorf("stream %d begins after %v, want %d", i+1, a, want)
		}
	}
}

// TestFollowEnds when its caller stops, its context ends or the client is closed.
func TestFollowEnds(t *testing.T) {
	g := (&gateway{follow: func(
		_ *licensedv1.FollowRequest, s grpc.ServerStreamingServer[licensedv1.FollowResponse],
	) error {
		if err := s.Send(events(1)); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}}).start(t)
	c := dial(t, client.Options{}, g)
	for _, err := range c.Follow(t.Context(), &licensedv1.FollowRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	end := func(ctx context.Context, f func()) (last error) {
		for _, err := range c.Follow(ctx, &licensedv1.FollowRequest{}) {
			if err == nil {
				f()
			}
			last = err
		}
		return last
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := end(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("the context ended: %v", err)
	}
	if err := end(t.Context(), func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("the client was closed: %v", err)
	}
}
