package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"licensed/internal/failpoint"
	"licensed/test/chaos/process"
)

// server is a licensed process with failpoints.
type server struct {
	*process.Process
	Member
	host    string       // its address without a port
	control *http.Client // of its failpoints

	asking sync.Mutex // held from asking to noting: an older answer never comes after a newer one

	mu     sync.Mutex
	before map[string]uint64 // passed by processes that ended
	last   map[string]uint64 // passed by the present one, as last seen
	died   map[string]int
}

// supervised is for how long a process is started again and again: longer than its store may be unavailable.
const supervised = 10 * time.Minute

// newServer returns a server that does not run yet. Its failpoints listen on the socket.
func newServer(m Member, s process.Spec, socket string, accident func(error)) *server {
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(m.Admin, "http://"))
	out := &server{
		Member: m, host: host, before: map[string]uint64{}, last: map[string]uint64{}, died: map[string]int{},
	}
	s.Env = append(s.Env, failpoint.Variable+"="+socket)
	out.control = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	if s.Ready == nil {
		s.Ready = func(ctx context.Context) error { return get(ctx, m.Admin+"/readyz") }
	}
	out.Process = process.New(s, func(err error) {
		accident(err)
		if !errors.Is(err, process.ErrUnasked) {
			return // The caller that starts it, or has stopped it, knows what to do next.
		}
		// As a supervisor would.
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), supervised)
			defer cancel()
			if err := out.Restart(ctx); err != nil {
				accident(err)
			}
		}()
	})
	return out
}

// get returns nil if a page answers 200.
func get(ctx context.Context, url string) error {
	_, err := fetch(ctx, http.DefaultClient, url)
	return err
}

func fetch(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, res.Status, b)
	}
	return b, err
}

// set sets a failpoint, or the clock.
func (s *server) set(ctx context.Context, point, action string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://failpoints/"+point,
		bytes.NewReader([]byte(action)))
	if err != nil {
		return err
	}
	res, err := s.control.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, err := io.ReadAll(res.Body)
		return errors.Join(fmt.Errorf("failpoint %s %q: %s", point, action, b), err)
	}
	return nil
}

// again is the time to wait before a process that did not answer is asked again.
const again = 100 * time.Millisecond

// insist calls do until it succeeds, and returns whether it did: a process that has ended has nothing to be
// set, but that it has may be known a little later.
func (s *server) insist(ctx context.Context, do func(context.Context) error) (lives bool, err error) {
	for s.Running() {
		if err = do(ctx); err == nil {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return true, err
		case <-time.After(again):
		}
	}
	return false, nil
}

// spare switches off a point at which the process was to die, and returns whether it lives.
func (s *server) spare(ctx context.Context, point string) (lives bool, err error) {
	return s.insist(ctx, func(ctx context.Context) error {
		err := s.set(ctx, point, "off")
		if err == nil {
			// A process that was at the point just then has been there: it answers once more, or has died.
			err = s.poll(ctx)
		}
		if err == nil {
			s.Doom(false)
		}
		return err
	})
}

// reset sets a failpoint, or the clock, back to what it was.
func (s *server) reset(ctx context.Context, point, action string) error {
	_, err := s.insist(ctx, func(ctx context.Context) error { return s.set(ctx, point, action) })
	return err
}

// poll notes how often the points were passed.
func (s *server) poll(ctx context.Context) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	b, err := fetch(ctx, s.control, "http://failpoints/")
	if err != nil {
		return err
	}
	var now map[string]struct{ Hits uint64 }
	if err := json.Unmarshal(b, &now); err != nil {
		return fmt.Errorf("failpoints: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range now {
		if p.Hits < s.last[name] { // Another process.
			s.before[name] += s.last[name]
		}
		s.last[name] = p.Hits
	}
	return nil
}

// look polls. A process that does not answer is asked again later, and counts as far as it has answered.
func (s *server) look(ctx context.Context) { _ = s.poll(ctx) }

// hits returns how often a point was passed, as far as the process has answered.
func (s *server) hits(point string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before[point] + s.last[point]
}

// diedAt notes that the process ended at a point, as it was told to.
func (s *server) diedAt(point string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.died[point]++
}

// coverage adds up what happened at the points of several servers.
func coverage(servers []*server) map[string]Point {
	all := make(map[string]Point)
	for _, name := range failpoint.Points() {
		all[name] = Point{}
	}
	for _, s := range servers {
		s.mu.Lock()
		for name, p := range all {
			p.Passed += s.before[name] + s.last[name] + uint64(s.died[name])
			p.Crashes += s.died[name]
			all[name] = p
		}
		s.mu.Unlock()
	}
	return all
}

// watch polls the failpoints of servers until ctx ends.
func watch(ctx context.Context, servers []*server) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, s := range servers {
				s.look(ctx)
			}
		}
	}
}
