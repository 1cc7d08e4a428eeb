package auditexport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdklog "go.opentelemetry.io/otel/sdk/log"

	"licensed/internal/auditlog"
	"licensed/internal/harness"
	"licensed/internal/tracing"
)

// fake is a collector that lets tests wait, and fail.
type fake struct {
	gate  chan struct{} // each Export takes one; nil: none waits
	fails bool

	mu     sync.Mutex
	bodies []string
}

func (f *fake) Export(ctx context.Context, records []sdklog.Record) error {
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails {
		return errors.New("no such service")
	}
	for _, r := range records {
		f.bodies = append(f.bodies, r.Body().AsString())
	}
	return nil
}

func (*fake) Shutdown(context.Context) error   { return nil }
func (*fake) ForceFlush(context.Context) error { return nil }

// open returns an exporter to a fake, an audit log that it hears, the name of its file, and what was logged.
func open(t *testing.T, f *fake) (*Exporter, *auditlog.Log, string, *harness.Log) {
	t.Helper()
	logged := new(harness.Log)
	e, err := start(tracing.Config{}, f, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "audit.log")
	l, err := auditlog.Open(auditlog.Config{
		File: name, Logger: slog.New(slog.DiscardHandler), Listener: auditlog.Listener{Appended: e.Appended},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, l, name, logged
}

func appendAll(t *testing.T, l *auditlog.Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(auditlog.Record{Method: fmt.Sprint("/m", i), Decision: auditlog.Allowed}); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *Exporter) count(result string) int {
	return int(testutil.ToFloat64(e.results.WithLabelValues(result)))
}

// TestCopy: the bodies are the lines of the file, in their order, so that they can be verified.
func TestCopy(t *testing.T) {
	f := &fake{}
	e, l, name, _ := open(t, f)
	appendAll(t, l, 700)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.bodies, "\n") + "\n"; got != string(content) {
		t.Errorf("%d bodies, other than the lines", len(f.bodies))
	}
	if e.count(sent) != 700 || e.count(full) != 0 || e.waiting.Load() != 0 {
		t.Errorf("%d sent, %d full, %d waiting", e.count(sent), e.count(full), e.waiting.Load())
	}
}

// TestSlowCollector: a collector that hangs holds up nobody. What does not fit is counted, and is in the file.
func TestSlowCollector(t *testing.T) {
	f := &fake{gate: make(chan struct{})}
	e, l, name, _ := open(t, f)
	const all = maxWaiting + 100
	appendAll(t, l, all) // It would never return if it waited.
	if got := e.count(full); got != 100 {
		t.Errorf("%d are counted as dropped, want 100", got)
	}
	close(f.gate)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(f.bodies); got != maxWaiting || e.count(sent) != maxWaiting {
		t.Errorf("%d sent, %d counted, want %d", got, e.count(sent), maxWaiting)
	}
	var v auditlog.Verifier
	if findings, err := v.File(name); err != nil || len(findings) > 0 || v.Records() != all {
		t.Errorf("the file: %v, %v, %d records", findings, err, v.Records())
	}
}

// TestNoCollector: records that the collector does not accept are counted, and the log reports it once.
func TestNoCollector(t *testing.T) {
	f := &fake{fails: true}
	e, l, _, logged := open(t, f)
	for range 3 {
		appendAll(t, l, 10)
		if err := e.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if e.count(rejected) != 30 || e.count(sent) != 0 {
		t.Errorf("%d rejected, %d sent", e.count(rejected), e.count(sent))
	}
	if got := strings.Count(logged.String(), "audit log not exported"); got != 1 {
		t.Errorf("logged %d times: %s", got, logged)
	}
	f.mu.Lock()
	f.fails = false
	f.mu.Unlock()
	appendAll(t, l, 1)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.count(sent) != 1 || !strings.Contains(logged.String(), "exported again") {
		t.Errorf("%d sent: %s", e.count(sent), logged)
	}
}
