package chaos

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
)

// brief is a deployment of one gateway.
type brief struct {
	url   string
	kinds []fault.Kind
	stop  error
}

func (b *brief) Start(context.Context) error       { return nil }
func (b *brief) Stop(context.Context) error        { return b.stop }
func (b *brief) Gateways() []string                { return []string{b.url} }
func (b *brief) Members() []deploy.Member          { return nil }
func (b *brief) Kinds() []fault.Kind               { return b.kinds }
func (b *brief) Notes() []string                   { return nil }
func (b *brief) Coverage() map[string]deploy.Point { return nil }

// short is a run of a moment against it.
func (b *brief) short(t *testing.T) (dir string, v *Verdict, err error) {
	t.Helper()
	dir = t.TempDir()
	c := DefaultConfig(dir, 1, 100*time.Millisecond)
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	c.WarmUp, c.Recovery = time.Millisecond, 50*time.Millisecond
	c.Workload.Clients, c.Workload.Customers, c.Workload.Hot, c.Workload.Patience = 1, 1, 1, 20*time.Millisecond
	s := &stored{policy: c.Rules.Version, report: whole()}
	b.url = s.serve(t)
	v, err = Run(t.Context(), c, b, new(Accidents))
	return dir, v, err
}

// TestNoVerdictBeforeTheEnd leaves none where the deployment could not be stopped.
func TestNoVerdictBeforeTheEnd(t *testing.T) {
	stuck := errors.New("a process does not end")
	dir, _, err := (&brief{stop: stuck}).short(t)
	if !errors.Is(err, stuck) {
		t.Fatalf("ended with %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, verdictFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a verdict: %v", err)
	}
}
