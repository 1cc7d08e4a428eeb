package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// endless is an API on which a history has many events, and then no end until the client disconnects.
type endless struct {
	licensedv1connect.UnimplementedHistoryServiceHandler
	events uint64
	ends   bool
	waits  chan struct{}
}

func (e *endless) ListEvents(
	ctx context.Context, r *connect.Request[licensedv1.ListEventsRequest],
	stream *connect.ServerStream[licensedv1.ListEventsResponse],
) error {
	if r.Msg.Limit == 0 {
		for i := range e.events {
			item := &licensedv1.HistoryItem{
				Item: &licensedv1.HistoryItem_Event{Event: &licensedv1.HistoryEvent{Sequence: i + 1}},
			}
			if err := stream.Send(&licensedv1.ListEventsResponse{Items: []*licensedv1.HistoryItem{item}}); err != nil {
				return err
			}
		}
		if !e.ends {
			close(e.waits)
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return stream.Send(&licensedv1.ListEventsResponse{End: &licensedv1.HistoryEnd{HeadSequence: e.events}})
}

// downloads returns a dashboard with that API.
func downloads(t *testing.T, e *endless) *Dashboard {
	t.Helper()
	_, handler := licensedv1connect.NewHistoryServiceHandler(e)
	api := httptest.NewServer(handler)
	t.Cleanup(api.Close)
	d, err := New(Config{
		Cluster: new(oneNode), History: licensedv1connect.NewHistoryServiceClient(http.DefaultClient, api.URL),
		Access: NewAccess(AccessConfig{Loopback: true, Now: time.Now}),
		Now:    time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func downloadRequest(t *testing.T) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/dashboard/customer/events.json?id=Bayley", nil)
	r.Host = "localhost"
	return r
}

// bounded takes what is written with a deadline, and nothing else.
type bounded struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (b *bounded) SetReadDeadline(time.Time) error { return nil }

func (b *bounded) SetWriteDeadline(t time.Time) error {
	b.deadline = t
	return nil
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.deadline.IsZero() {
		return 0, errors.New("a write without a deadline")
	}
	return b.ResponseRecorder.Write(p)
}

// TestDownloadBounds: each write of a download has a deadline, and so has what the server sends at the end.
func TestDownloadBounds(t *testing.T) {
	d := downloads(t, &endless{events: 1000, ends: true})
	w := &bounded{ResponseRecorder: httptest.NewRecorder()}
	d.Handler().ServeHTTP(w, downloadRequest(t))
	var all []any
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all) != 1000 {
		t.Errorf("%d events, %v", len(all), err)
	}
	if w.deadline.IsZero() {
		t.Error("the end has no deadline")
	}
}

// TestDownloadEndsWithTheDashboard, and cannot be taken for whole.
func TestDownloadEndsWithTheDashboard(t *testing.T) {
	e := &endless{events: 1, waits: make(chan struct{})}
	d := downloads(t, e)
	go func() {
		<-e.waits
		d.Close()
	}()
	w := httptest.NewRecorder()
	defer func() {
		err, _ := recover().(error)
		if !errors.Is(err, http.ErrAbortHandler) || strings.Contains(w.Body.String(), "]") {
			t.Errorf("ended with %v and %q", err, w.Body)
		}
	}()
	d.Handler().ServeHTTP(w, downloadRequest(t))
}
