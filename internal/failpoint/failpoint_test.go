//go:build failpoints

package failpoint

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/memory"
)

func put(t *testing.T, name, body string) int {
	t.Helper()
	w := httptest.NewRecorder()
	serve(w, httptest.NewRequest(http.MethodPut, "/"+name, strings.NewReader(body)))
	return w.Code
}

func TestPoints(t *testing.T) {
	s := Store(memory.New())
	defer s.Close()
	key := persistence.RootKey{Aggregate: "Matt:LicenseAggregate", Epoch: 1, Version: 1}
	done := make(chan error, 1)
	if put(t, After(RootActivation), "sleep 30ms") != http.StatusOK {
		t.Fatal("a point cannot be set")
	}
	began := time.Now()
	s.PutRoot(context.Background(), &persistence.Root{
		Key: key, Incarnation: persistence.NewIncarnation(), Time: time.Now(),
	}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d < 30*time.Millisecond {
		t.Errorf("told after %v", d)
	}
	if _, err := s.TopRoot(context.Background(), key.Aggregate); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Before(RootActivation), After(RootActivation), Before(ReadTop), After(ReadTop)} {
		if points[name].hits.Load() != 1 {
			t.Errorf("%s was hit %d times", name, points[name].hits.Load())
		}
	}
	w := httptest.NewRecorder()
	serve(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if !strings.Contains(w.Body.String(), `"root.activation.after":{"hits":1,"action":"sleep 30ms"}`) {
		t.Errorf("the socket tells %s", w.Body)
	}
}

func TestSet(t *testing.T) {
	for name, body := range map[string]string{
		"nowhere": "exit", Before(Append): "explode", After(Append): "sleep -1s", "clock": "soon",
	} {
		if put(t, name, body) != http.StatusBadRequest {
			t.Errorf("%s %q is taken", name, body)
		}
	}
	if put(t, "clock", "2h") != http.StatusOK {
		t.Fatal("the clock cannot be set")
	}
	at, before := time.Unix(1e9, 0), reads.Load()
	if got := Clock(func() time.Time { return at })(); !got.Equal(at.Add(2 * time.Hour)) {
		t.Errorf("it is %v", got)
	}
	put(t, "clock", "0s")
	Clock(time.Now)()
	if n := reads.Load() - before; n != 1 {
		t.Errorf("%d readings of a wrong clock, want 1", n)
	}
}

// TestWrongTimes: only events that bear the time of a clock that is off are counted.
func TestWrongTimes(t *testing.T) {
	s := Store(memory.New())
	defer s.Close()
	clock := Clock(time.Now)
	for _, c := range []struct {
		by    string
		times []time.Duration // of the events, from now
		want  uint64
	}{
		{"0s", []time.Duration{0, time.Hour}, 0},
		{"1h", []time.Duration{0, time.Hour, time.Hour - time.Second}, 2},
		{"-1h", []time.Duration{0, time.Second, -time.Hour}, 1},
	} {
		if put(t, WallClock, c.by) != http.StatusOK {
			t.Fatalf("the clock cannot be set by %s", c.by)
		}
		before := wrong.Load()
		var records []persistence.Record
		for _, off := range c.times {
			records = append(records, persistence.Record{Time: time.Now().Add(off)})
		}
		noteTimes(records)
		if got := wrong.Load() - before; got != c.want {
			t.Errorf("off by %s: %d events bear it, want %d", c.by, got, c.want)
		}
	}
	put(t, WallClock, "-1h")
	if off := time.Until(clock()); off > -59*time.Minute {
		t.Errorf("the clock is %v off", off)
	}
	put(t, WallClock, "0s")
}
