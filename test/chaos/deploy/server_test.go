package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"licensed/test/chaos/fault"
	"licensed/test/chaos/process"
)

// played is a server whose process is a shell and whose failpoints are played by the handler. Its accidents
// are counted.
func played(t *testing.T, handler http.HandlerFunc) (s *server, accidents *atomic.Int64) {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos") // A short name: that of a socket is limited.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: handler}
	go func() { _ = web.Serve(l) }() // It ends by Close.
	t.Cleanup(func() {
		if err := web.Close(); err != nil {
			t.Error(err)
		}
	})
	accidents = new(atomic.Int64)
	s = newServer(Member{Name: "n1"}, process.Spec{
		Name: "n1", Path: "/bin/sh", Args: []string{"-c", "exec sleep 60"}, Log: filepath.Join(dir, "log"),
		Ready: func(context.Context) error { return nil },
	}, socket, func(error) { accidents.Add(1) })
	s.control.Timeout = time.Minute // Unlike a process of the service, the handler may be slow, but answers.
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	})
	return s, accidents
}

// answer writes an answer of the failpoints' socket.
func answer(t *testing.T, w http.ResponseWriter, text string) {
	if _, err := w.Write([]byte(text)); err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

// TestPollsInOrder does not take an old answer that comes late for that of another process.
func TestPollsInOrder(t *testing.T) {
	var asked atomic.Int64
	overtaken := make(chan struct{})
	s, _ := played(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			defer close(overtaken)
			answer(t, w, `{"append.before":{"hits":2}}`)
			return
		}
		select {
		case <-overtaken:
			time.Sleep(50 * time.Millisecond) // Until the other has been noted.
		case <-time.After(500 * time.Millisecond):
		}
		answer(t, w, `{"append.before":{"hits":1}}`)
	})
	first := make(chan error, 1)
	go func() { first <- s.poll(t.Context()) }()
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := errors.Join(s.poll(t.Context()), <-first); err != nil {
		t.Fatal(err)
	}
	if p := coverage([]*server{s})["append.before"]; p.Passed != 2 {
		t.Errorf("passed %d times, want 2", p.Passed)
	}
}

// TestDiesWhileSpared is the process that dies at its point just when that is switched off: no accident.
func TestDiesWhileSpared(t *testing.T) {
	var pid atomic.Int64
	var dies sync.Once
	s, accidents := played(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			return
		}
		dies.Do(func() {
			time.AfterFunc(50*time.Millisecond, func() {
				if err := syscall.Kill(int(pid.Load()), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			})
		})
		panic(http.ErrAbortHandler)
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid.Store(int64(s.PID())) // Once: of a process that has ended it is 0, which is the test's own group.
	s.Doom(true)
	lives, err := s.spare(t.Context(), "append.before")
	if lives || err != nil {
		t.Fatalf("lives %t, %v", lives, err)
	}
	if starts, crashes := s.Starts(); starts != 1 || crashes != 0 || accidents.Load() != 0 {
		t.Errorf("%d starts, %d crashes, %d accidents", starts, crashes, accidents.Load())
	}
}

// TestResetInsists is healed by a process that does not answer at first.
func TestResetInsists(t *testing.T) {
	var asked atomic.Int64
	s, _ := played(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.reset(t.Context(), "clock", "0s"); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// TestDown counts what is done to a process that does not run as having met nothing, and does not heal it.
func TestDown(t *testing.T) {
	s, _ := played(t, func(http.ResponseWriter, *http.Request) { t.Error("a process that is down was asked") })
	ps, ss := []*process.Process{s.Process}, []*server{s}
	kinds := []fault.Kind{
		killKind(Node, ps, time.Second), pauseKind(Node, ps, time.Second), starveKind(Node, ps, time.Second),
		clockKind(ss, time.Second), gatewayClockKind(ss, time.Second), slowKind(ss, time.Second),
		crashKind(ss, []string{"append.before"}, time.Second), memoryKind(&cages{}, ss, time.Second),
	}
	for _, k := range kinds {
		plan := []fault.Planned{{Fault: k.Make(rand.New(rand.NewPCG(1, 1)))}}
		fault.Run(t.Context(), plan, func() time.Duration { return 0 }, func(r fault.Record) {
			if !r.Idle || r.Failed || r.Error != "" {
				t.Errorf("%+v", r)
			}
		})
	}
	if starts, _ := s.Starts(); starts != 0 {
		t.Errorf("%d starts", starts)
	}
}

// TestClockJumps: each kind goes by its own counter, and the first jump of a run is the largest.
func TestClockJumps(t *testing.T) {
	for name, c := range map[string]struct {
		kind    func([]*server, time.Duration) fault.Kind
		counter string
		idle    bool
	}{
		"an event bears the time":        {clockKind, "clock", false},
		"a node only reads its clock":    {clockKind, "clock.reads", true},
		"a gateway reads its clock":      {gatewayClockKind, "clock.reads", false},
		"a gateway that reads no clock":  {gatewayClockKind, "append.before", true},
		"an event, which no gateway has": {gatewayClockKind, "clock", true},
	} {
		hits := 0
		s, _ := played(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				hits++
			}
			fmt.Fprintf(w, `{%q: {"hits": %d}}`, c.counter, hits)
		})
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		f := c.kind([]*server{s}, time.Second).Make(rand.New(rand.NewPCG(1, 1)))
		if err := errors.Join(f.Inject(t.Context()), f.Heal(t.Context())); err != nil {
			t.Fatal(err)
		}
		if came := f.Came(); came.Idle != c.idle || f.Detail != "1h0m0s" {
			t.Errorf("%s: %+v, %s", name, came, f.Detail)
		}
	}
}

// TestNotArmed does not credit a point that could not be armed with the end of the process.
func TestNotArmed(t *testing.T) {
	for name, arms := range map[string]bool{"armed": true, "not armed": false} {
		s, _ := played(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && !arms {
				http.Error(w, "no", http.StatusBadRequest)
			}
		})
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		f := crash(s, "append.before", time.Second)
		if err := f.Inject(t.Context()); (err == nil) != arms {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.Heal(t.Context()); err != nil || f.Came().Idle == arms {
			t.Errorf("%s: %v, %+v", name, err, f.Came())
		}
		if p := coverage([]*server{s})["append.before"]; (p.Crashes == 1) != arms || (p.Passed == 1) != arms {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
