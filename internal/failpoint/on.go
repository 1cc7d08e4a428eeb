//go:build failpoints

package failpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Enabled says whether this program was built with points.
const Enabled = true

// point is one point. Both fields are changed while calls pass. Its action is exit where
// sleep is negative, nothing where it is 0.
type point struct {
	hits  atomic.Uint64
	sleep atomic.Int64
}

// exit is the value of point.sleep that kills the process.
const exit = -1

var (
	// By name; complete after init, and not changed then.
	points = make(map[string]*point)
	offset atomic.Int64  // of the wall clock
	wrong  atomic.Uint64 // records with a time of it while it was off
	reads  atomic.Uint64 // of it while it was off
)

// init listens on the socket that the environment names. It runs before main, so that
// points of the start can be hit too.
func init() {
	for _, name := range Points() {
		points[name] = new(point)
	}
	path := os.Getenv(Variable)
	if path == "" {
		return
	}
	// That of a process killed before is in the way.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		slog.Error("failpoints", "error", err)
		return
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		slog.Error("failpoints", "error", err)
		return
	}
	slog.Warn("failpoints are on: this program is for tests", "socket", path)
	go func() { slog.Error("failpoints", "error", http.Serve(l, http.HandlerFunc(serve))) }()
}

// hit counts, and does what was asked for. It returns the time the caller is to wait.
func hit(name string) time.Duration {
	p := points[name]
	p.hits.Add(1)
	switch d := p.sleep.Load(); d {
	case 0:
		return 0
	case exit:
		// The error can only be that the signal is unknown.
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	default:
		return time.Duration(d)
	}
}

// Clock returns a clock that is as far off as was asked for.
func Clock(now func() time.Time) func() time.Time {
	return func() time.Time {
		by := time.Duration(offset.Load())
		if by != 0 {
			reads.Add(1)
		}
		return now().Add(by)
	}
}

// Status of a point, as the socket tells it.
type Status struct {
	Hits   uint64 `json:"hits"`
	Action string `json:"action"`
}

// serve answers a request on the socket.
func serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch r.Method {
	case http.MethodGet:
		all := make(map[string]Status, len(points)+1)
		all[WallClock] = Status{Hits: wrong.Load(), Action: time.Duration(offset.Load()).String()}
		all[ClockReads] = Status{Hits: reads.Load()}
		for name, p := range points {
			all[name] = Status{Hits: p.hits.Load(), Action: action(p.sleep.Load())}
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(all); err != nil {
			slog.Warn("failpoints", "error", err)
		}
	case http.MethodPut:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err == nil {
			err = set(name, strings.TrimSpace(string(body)))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

// action returns the action of a point in the words that set takes.
func action(d int64) string {
	switch d {
	case 0:
		return "off"
	case exit:
		return "exit"
	}
	return "sleep " + time.Duration(d).String()
}

// set sets the action of a point, or the clock.
func set(name, to string) error {
	if name == WallClock {
		d, err := time.ParseDuration(to)
		offset.Store(int64(d))
		return err
	}
	p := points[name]
	if p == nil {
		return fmt.Errorf("there is no point %q", name)
	}
	duration, sleeps := strings.CutPrefix(to, "sleep ")
	switch {
	case to == "off":
		p.sleep.Store(0)
	case to == "exit":
		p.sleep.Store(exit)
	case sleeps:
		d, err := time.ParseDuration(duration)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is no time to sleep", duration)
		}
		p.sleep.Store(int64(d))
	default:
		return fmt.Errorf("%q is none of exit, off and sleep DURATION", to)
	}
	return nil
}
