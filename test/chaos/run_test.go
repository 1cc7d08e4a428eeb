package chaos

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"licensed/test/chaos/check"
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

// TestFaultsThatWereNot takes no run for good that was to have faults and had none.
func TestFaultsThatWereNot(t *testing.T) {
	failing := fault.Kind{Name: "kill", Weight: 1, Make: func(*rand.Rand) *fault.Fault {
		no := func(context.Context) error { return errors.New("no such process") }
		return &fault.Fault{Kind: "kill", Targets: []string{"n1"}, Hold: time.Millisecond, Inject: no, Heal: no}
	}}
	long := fault.Kind{Name: "pause", Weight: 1, Make: func(*rand.Rand) *fault.Fault {
		return &fault.Fault{Kind: "pause", Targets: []string{"n2"}, Hold: time.Hour}
	}}
	for name, c := range map[string]struct {
		kinds []fault.Kind
		found bool
	}{
		"none asked for": {nil, false},
		"all failed":     {[]fault.Kind{failing}, true},
		"none has room":  {[]fault.Kind{long}, true},
	} {
		_, v, err := (&brief{kinds: c.kinds}).short(t)
		if err != nil {
			t.Fatal(err)
		}
		if found := slices.ContainsFunc(v.Violations,
			func(x check.Violation) bool { return x.Check == check.Faults }); found != c.found {
			t.Errorf("%s: found: %v", name, v.Violations)
		}
		if len(v.Faults) != len(c.kinds) {
			t.Errorf("%s: the verdict tells of %v", name, v.Faults)
		}
	}
}

// TestLeftOut counts what was planned and not tried.
func TestLeftOut(t *testing.T) {
	v := new(Verdict)
	planned := fault.Planned{Fault: &fault.Fault{Kind: "kill"}}
	v.plan([]fault.Kind{{Name: "kill"}, {Name: "pause"}}, []fault.Planned{planned, planned, planned})
	v.countFaults([]fault.Record{{Kind: "kill"}, {Kind: "kill", Failed: true}})
	if want := (map[string]fault.Count{
		"kill":  {Injected: 1, Failed: 1, LeftOut: 1},
		"pause": {},
	}); !maps.Equal(v.Faults, want) {
		t.Errorf("counts %v, want %v", v.Faults, want)
	}
}
