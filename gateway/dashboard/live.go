package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// streamTimeout is how long a browser may take to take an event.
const streamTimeout = 10 * time.Second

// openStream starts a stream of events, to which the limits of ordinary requests do not apply.
func openStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	s := &stream{w, http.NewResponseController(w)}
	_ = s.control.SetReadDeadline(time.Time{}) // Where limits cannot be set there are none.
	return s
}

// send sends an event with data as JSON.
func (s *stream) send(event string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, b); err != nil {
		return err
	}
	return s.control.Flush()
}

// live streams the cluster page: all samples first, then each as it comes, the board, and the map when
// it changed.
func (d *Dashboard) live(w http.ResponseWriter, r *http.Request) error {
	defer d.sampler.watch()()
	out := openStream(w)
	var lastMap *mapView // Drawing all shards is most of the work, and they rarely move.
	var lastBoard, lastHappenings []byte
	sent := int64(0)
	reading := d.sampler.first(r.Context())
	for first := true; !reading.closed; first = false {
		samples := d.sampler.history()
		for len(samples) > 0 && samples[0].At <= sent {
			samples = samples[1:]
		}
		if n := len(samples); n > 0 || first {
			if n > 0 {
				sent = samples[n-1].At
			}
			if err := out.send("samples", samples); err != nil {
				return nil // The browser has gone.
			}
		}
		board := boardOf(reading, d.config.Now())
		if err := errors.Join(d.sendPart(out, "board", board, &lastBoard), d.sendPart(out, "happenings", board, &lastHappenings)); err != nil {
			return nil
		}
		if m := mapOf(reading.Status); lastMap == nil || !reflect.DeepEqual(m, *lastMap) {
			lastMap = &m
			if err := d.sendPart(out, "map", m, new([]byte)); err != nil {
				return nil
			}
		}
		select {
		case <-reading.news:
		case <-r.Context().Done():
			return nil
		}
		reading = d.sampler.read()
	}
	return nil
}

// sendPart sends a part of the page, unless it is the one that was sent last.
func (d *Dashboard) sendPart(out *stream, name string, v any, last *[]byte) error {
	b, err := d.part("cluster", name, v)
	if err != nil {
		d.config.Logger.Error("dashboard: a part cannot be made", "part", name, "error", err)
		return err
	}
	if bytes.Equal(b, *last) {
		return nil
	}
	*last = b
	return out.send(name, string(b))
}

// customerLive tells a page about a customer where the history ends now, whenever it grew.
func (d *Dashboard) customerLive(w http.ResponseWriter, r *http.Request) error {
	after, err := sequenceOf(r.FormValue("after"))
	if err != nil {
		return err
	}
	out := openStream(w)
	following, err := d.config.History.Follow(r.Context(), connect.NewRequest(&licensedv1.FollowRequest{
		CustomerId: r.FormValue("id"), AfterSequence: &after,
	}))
	if err != nil {
		return err
	}
	defer following.Close()
	for any := false; ; any = true {
		if !following.Receive() {
			if any {
				return nil // The browser asks again.
			}
			return following.Err()
		}
		if err := out.send("head", following.Msg().Sequence); err != nil {
			return nil
		}
	}
}
