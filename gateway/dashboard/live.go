package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// event of a stream, encoded as server-sent events are. It is shared by all viewers and
// never changed.
type event struct{ bytes []byte }

// newEvent returns an event with data as JSON.
func newEvent(name string, data any) (*event, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", name, err)
	}
	return &event{fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, b)}, nil
}

// writeTimeout is the time a browser may take to take what was written.
const writeTimeout = 10 * time.Second

// writer writes an answer of any length, to which the limits of ordinary requests do not
// apply: its bound is that what is written is taken within writeTimeout.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// newWriter returns a writer, which is to be finished when all is written.
func newWriter(w http.ResponseWriter) writer {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // Where limits cannot be set there are none.
	_ = control.SetWriteDeadline(time.Time{})
	return writer{w, control}
}

// Write implements io.Writer.
func (w writer) Write(p []byte) (n int, err error) {
	err = w.inTime(func() error { n, err = w.w.Write(p); return err })
	return n, err
}

// flush sends what was written.
func (w writer) flush() error { return w.inTime(w.control.Flush) }

// inTime bounds what writes, and nothing after it: HTTP/2 resets a stream whose deadline passes though nothing waits
// to be written.
func (w writer) inTime(write func() error) error {
	if err := w.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil &&
		!errors.Is(err, http.ErrNotSupported) {
		return err
	}
	defer func() { _ = w.control.SetWriteDeadline(time.Time{}) }()
	return write()
}

// finish bounds the time for what the server still has to send.
func (w writer) finish() { _ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// stream writes server-sent events. It is used by one goroutine.
type stream struct {
	writer
	pending []byte
}

// openStream starts a stream of events, which is to be finished.
func openStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	return &stream{writer: newWriter(w)}
}

// add has an event sent with the next flush.
func (s *stream) add(e *event) { s.pending = append(s.pending, e.bytes...) }

// flush sends what was added, if anything was.
func (s *stream) flush() error {
	if len(s.pending) == 0 {
		return nil
	}
	_, err := s.Write(s.pending)
	s.pending = s.pending[:0]
	if err != nil {
		return err
	}
	return s.writer.flush()
}

// send sends one event with data as JSON, and what was added before it.
func (s *stream) send(name string, data any) error {
	e, err := newEvent(name, data)
	if err != nil {
		return err
	}
	s.add(e)
	return s.flush()
}

// live streams the cluster page: all samples and parts first, then each sample as it comes and the parts
// that changed.
func (d *Dashboard) live(w http.ResponseWriter, r *http.Request) error {
	// While it is watched, the sampler asks every second.
	defer d.sampler.watch()()
	v := &viewer{out: openStream(w), samples: d.sampler.history}
	defer v.out.finish()
	for reading := d.sampler.current(r.Context()); !reading.closed; reading = d.sampler.read() {
		u, err := d.updates.of(&reading)
		if err != nil {
			d.config.Logger.Error("dashboard: cluster page not rendered", "error", err)
			return nil
		}
		if err := v.show(&u); err != nil {
			return nil // The browser has gone.
		}
		// A reading's channel is closed when the next one exists, so that none is missed
		// between the two.
		select {
		case <-reading.news:
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}

// viewer is a page that is sent updates. It gets the parts that differ from those it has,
// and samples without a gap: after a pause, all that it missed.
type viewer struct {
	out     *stream
	samples func() []clusterrates.Sample
	begun   bool
	parts   [3]*event // that it has
	at      int64     // of the last sample that it has
}

// show sends what an update has that the page has not.
func (v *viewer) show(u *update) error {
	switch {
	case v.begun && u.at <= v.at:
	// The page has all samples up to the one before this: the latest is enough.
	case v.begun && u.before == v.at:
		v.out.add(u.sample)
		v.at = u.at
	default: // It came just now, or was too slow.
		// Those that the page has already are left out.
		samples := v.samples()
		for len(samples) > 0 && samples[0].At <= v.at {
			samples = samples[1:]
		}
		e, err := newEvent("samples", samples)
		if err != nil {
			return err
		}
		v.out.add(e)
		if n := len(samples); n > 0 {
			v.at = samples[n-1].At
		}
	}
	// Parts are compared by identity: an update keeps a part that did not change.
	for i, part := range u.parts {
		if part != v.parts[i] {
			v.out.add(part)
		}
	}
	v.begun, v.parts = true, u.parts
	return v.out.flush()
}

// customerLive tells a page about a customer where the history ends now, whenever it grew.
func (d *Dashboard) customerLive(w http.ResponseWriter, r *http.Request) error {
	after, err := sequenceOf(r.FormValue("after"))
	if err != nil {
		return err
	}
	out := openStream(w)
	defer out.finish()
	following, err := d.config.History.Follow(r.Context(), connect.NewRequest(&licensedv1.FollowRequest{
		CustomerId: r.FormValue("id"), AfterSequence: &after,
	}))
	if err != nil {
		return err
	}
	defer following.Close()
	// The first look may fail with an error page; later the stream has begun, and only
	// its end can be told.
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
