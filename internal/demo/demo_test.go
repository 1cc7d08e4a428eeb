package demo

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// service counts calls and answers in turns: accepted, refused, overloaded. It knows ids.
type service struct {
	mu    sync.Mutex
	calls map[string]int // by method
	seen  map[string]error
	turn  int
}

func answer[Q, A any](s *service, method string, r Q, duplicate func(*A)) (*A, error) {
	id := any(r).(interface{ GetCommandId() string }).GetCommandId()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[method]++
	err, ok := s.seen[id]
	if !ok {
		s.turn++
		err = s.answers()[s.turn%3]
		s.seen[id] = err
	}
	if err != nil {
		return nil, err
	}
	res := new(A)
	if ok {
		duplicate(res)
	}
	return res, nil
}

func (s *service) answers() []error {
	return []error{
		nil, &client.Refusal{Rule: licensedv1.Rule_RULE_STUDIO_LIMIT},
		&client.Error{Reason: licensedv1.ReasonOverloaded},
	}
}

func (s *service) AcquireLicense(
	_ context.Context, r *licensedv1.AcquireLicenseRequest,
) (*licensedv1.AcquireLicenseResponse, error) {
	return answer(s, "acquire", r, func(a *licensedv1.AcquireLicenseResponse) { a.Duplicate = true })
}

func (s *service) RenewLicense(
	_ context.Context, r *licensedv1.RenewLicenseRequest,
) (*licensedv1.RenewLicenseResponse, error) {
	return answer(s, "renew", r, func(a *licensedv1.RenewLicenseResponse) { a.Duplicate = true })
}

func (s *service) ReleaseLicense(
	_ context.Context, r *licensedv1.ReleaseLicenseRequest,
) (*licensedv1.ReleaseLicenseResponse, error) {
	return answer(s, "release", r, func(a *licensedv1.ReleaseLicenseResponse) { a.Duplicate = true })
}

func (s *service) RecordPlayback(
	_ context.Context, r *licensedv1.RecordPlaybackRequest,
) (*licensedv1.RecordPlaybackResponse, error) {
	return answer(s, "play", r, func(a *licensedv1.RecordPlaybackResponse) { a.Duplicate = true })
}

func (s *service) DeactivateDevice(
	_ context.Context, r *licensedv1.DeactivateDeviceRequest,
) (*licensedv1.DeactivateDeviceResponse, error) {
	return answer(s, "deactivate", r, func(a *licensedv1.DeactivateDeviceResponse) { a.Duplicate = true })
}

// logged is a log that tells when it has lines.
type logged struct {
	lines chan string
}

func (l *logged) Write(p []byte) (int, error) {
	l.lines <- string(bytes.Clone(p))
	return len(p), nil
}

// TestSimulation runs until every kind of call was made and a summary has told of every kind of answer.
func TestSimulation(t *testing.T) {
	s := &service{calls: make(map[string]int), seen: make(map[string]error)}
	log := &logged{lines: make(chan string)}
	c := DefaultConfig()
	c.Rate, c.Summary = 2000, 100*time.Millisecond
	c.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(c, s).Run(ctx)
	}()
	complete := func(line string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, words := range []string{"accepted=", "(studio_limit ", "overloaded", "repeated=", "p99="} {
			if !strings.Contains(line, words) {
				return false
			}
		}
		return len(s.calls) == 5 && !strings.Contains(line, "repeated=0")
	}
	for !complete(<-log.lines) {
	}
	cancel()
	for running := true; running; {
		select {
		case <-log.lines:
		case <-done:
			running = false
		}
	}
}

// TestFallingBehind: a service that does not answer is not sent ever more.
func TestFallingBehind(t *testing.T) {
	c := DefaultConfig()
	c.MaxInFlight = 1
	s := New(c, &service{})
	s.slots <- struct{}{} // Taken.
	var running sync.WaitGroup
	s.start(t.Context(), &running)
	running.Wait()
	if s.period.skipped != 1 {
		t.Errorf("skipped %d", s.period.skipped)
	}
}

func TestChoicesRepeatBySeed(t *testing.T) {
	names := func(seed uint64) string {
		c := DefaultConfig()
		c.Seed = seed
		s := New(c, nil)
		var b strings.Builder
		for range 50 {
			b.WriteString(s.title())
		}
		return b.String()
	}
	first, again, other := names(1), names(1), names(2)
	if first != again || first == other {
		t.Error("choices do not follow the seed")
	}
}

func TestList(t *testing.T) {
	for want, counts := range map[string]map[string]int{
		"0":                 {},
		"3 (a 3)":           {"a": 3},
		"6 (c 4, a 1, b 1)": {"a": 1, "b": 1, "c": 4},
	} {
		if got := list(counts); got != want {
			t.Errorf("%v is %q, want %q", counts, got, want)
		}
	}
}
