package node_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/internal/storage"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// config returns that of a node on free ports with a store of its own.
func config(t *testing.T) (node.Config, *harness.Log) { return configOf(t) }

func configOf(t testing.TB) (node.Config, *harness.Log) {
	log := new(harness.Log)
	c := node.DefaultConfig()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.Listen, c.Admin = "127.0.0.1:0", "127.0.0.1:0"
	c.PolicyPoll = 5 * time.Millisecond
	c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return c, log
}

func start(t testing.TB, c node.Config) *node.Node {
	t.Helper()
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

// testOutput is the output of a test until the test ends: a library may still log a line after its part was stopped.
type testOutput struct {
	mu sync.Mutex
	to io.Writer
}

func outputOf(t testing.TB) *testOutput {
	o := &testOutput{to: t.Output()}
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.to = io.Discard
	})
	return o
}

func (o *testOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.to.Write(p)
}

func client(n *node.Node) licensedv1connect.LicenseServiceClient {
	return licensedv1connect.NewLicenseServiceClient(http.DefaultClient, "http://"+n.API().String())
}

func acquire(t *testing.T, n *node.Node, id string) (*licensedv1.AcquireLicenseResponse, error) {
	t.Helper()
	res, err := client(n).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id, NewDownload: true,
	}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	return harness.Get(t, "http://"+address+path)
}

var until = harness.Until

func TestStartStopStart(t *testing.T) {
	c, log := config(t)
	var last uint64
	for run, id := range []string{"1", "2", "3"} {
		n := start(t, c)
		res, err := acquire(t, n, id)
		if err != nil || res.Duplicate || res.Sequence <= last {
			t.Fatalf("run %d: %v, %v after sequence %d", run, res, err, last)
		}
		last = res.Sequence
		if again, err := acquire(t, n, "1"); err != nil || !again.Duplicate {
			t.Errorf("run %d: the first command again: %v, %v", run, again, err)
		}
		if status, body := get(t, n.Admin().String(), "/readyz"); status != http.StatusOK {
			t.Errorf("run %d: readyz %d %s", run, status, body)
		}
		if err := n.Stop(t.Context()); err != nil {
			t.Errorf("run %d: stop: %v", run, err)
		}
		if err := n.Stop(t.Context()); err != nil {
			t.Errorf("run %d: second stop: %v", run, err)
		}
		for _, a := range []net.Addr{n.API(), n.Admin()} {
			if conn, err := net.Dial("tcp", a.String()); err == nil {
				conn.Close()
				t.Errorf("run %d: %v is still open", run, a)
			}
		}
	}
	stops := log.String()
	order := []string{"readiness", "API port", "runtime", "store", "admin port"}
	at := 0
	for _, part := range order {
		i := strings.Index(stops[at:], "part=\""+part)
		if i < 0 {
			i = strings.Index(stops[at:], "part="+part)
		}
		if i < 0 {
			t.Fatalf("%s is not stopped, or not in the order %v:\n%s", part, order, stops)
		}
		at += i
	}
}

// TestFailedStartLeavesNothing: after each failure, whatever was started is stopped, so that a start
// with the cause removed succeeds.
func TestFailedStartLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(bad, []byte("plans: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := config(t)
	for name, test := range map[string]struct {
		change func(*node.Config)
		is     error
		says   string
	}{
		"API port":   {func(c *node.Config) { c.Listen = taken.Addr().String() }, syscall.EADDRINUSE, "API port"},
		"admin port": {func(c *node.Config) { c.Admin = taken.Addr().String() }, syscall.EADDRINUSE, "admin port"},
		"policy":     {func(c *node.Config) { c.Policy = bad }, nil, "policy.yaml:1"},
		"no policy":  {func(c *node.Config) { c.Policy = bad + "x" }, os.ErrNotExist, "policy.yamlx"},
		"data":       {func(c *node.Config) { c.Data = bad }, nil, bad},
		"runtime":    {func(c *node.Config) { c.Runtime.SnapshotEvery = 0 }, nil, "SnapshotEvery"},
	} {
		broken := c
		test.change(&broken)
		_, err := node.Start(t.Context(), broken)
		if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.says)
		}
		if err := start(t, c).Stop(t.Context()); err != nil {
			t.Errorf("%s: the next start: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := node.Start(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	running := start(t, c)
	other := c
	if _, err := node.Start(t.Context(), other); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("a second node on the same data: %v", err)
	}
	if _, err := acquire(t, running, "1"); err != nil {
		t.Errorf("the first node, after that: %v", err)
	}
}

// TestFailure: after a disk error nothing is acknowledged any more, and the health checks report it.
func TestFailure(t *testing.T) {
	c, _ := config(t)
	n := start(t, c)
	if _, err := acquire(t, n, "1"); err != nil {
		t.Fatal(err)
	}
	n.Fail(errors.New("the disk is gone"))
	n.Fail(errors.New("and again"))
	if err := <-n.Failed(); err.Error() != "the disk is gone" {
		t.Errorf("reported %v", err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t, n.API().String(), path); status != http.StatusServiceUnavailable ||
			!strings.Contains(body, "the disk is gone") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if res, err := acquire(t, n, "2"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("acknowledged after a failure: %v, %v", res, err)
	}
	if _, err := acquire(t, n, "1"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a repeat answered after a failure: %v", err)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	n = start(t, c)
	if res, err := acquire(t, n, "1"); err != nil || !res.Duplicate {
		t.Errorf("what was acknowledged before the failure: %v, %v", res, err)
	}
}

func TestPolicyFile(t *testing.T) {
	c, log := config(t)
	c.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(c.Policy+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(c.Policy+".new", c.Policy); err != nil {
			t.Fatal(err)
		}
	}
	const rest = "\ndefault_plan: p\nplans:\n  p: {devices: 1}\n"
	write("version: v1" + rest)
	n := start(t, c)
	if got := n.PolicyVersion(); got != "v1" {
		t.Errorf("version %s", got)
	}
	write("version: v2" + rest)
	until(func() bool { return n.PolicyVersion() == "v2" })
	write("plans: nonsense" + rest)
	until(func() bool { return strings.Contains(log.String(), "policy not reloaded") })
	if got := n.PolicyVersion(); got != "v2" {
		t.Errorf("version %s after a file with mistakes", got)
	}
	write("version: v2" + rest)
	n.ReloadPolicy()
	until(func() bool { return strings.Contains(log.String(), "unchanged") })
}

func TestReloadWithoutFile(t *testing.T) {
	c, log := config(t)
	n := start(t, c)
	n.ReloadPolicy()
	if !strings.Contains(log.String(), "no policy file") {
		t.Error("an operator's signal came to nothing in silence")
	}
}

// TestStopEndsAllGoroutines, but for those of the libraries' that serve the process.
func TestStopEndsAllGoroutines(t *testing.T) {
	c, _ := config(t)
	cycle := func() {
		n := start(t, c)
		if _, err := acquire(t, n, "1"); err != nil {
			t.Fatal(err)
		}
		http.DefaultClient.CloseIdleConnections()
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	before := runtime.NumGoroutine()
	for range 5 {
		cycle()
	}
	until(func() bool { return runtime.NumGoroutine() <= before })
}

func TestNoAdminPort(t *testing.T) {
	c, _ := config(t)
	c.Admin = ""
	if n := start(t, c); n.Admin() != nil {
		t.Errorf("admin port at %v", n.Admin())
	}
}

// TestMetrics shows what an operator sees of the parts below the gateway.
func TestMetrics(t *testing.T) {
	c, _ := config(t)
	c.Runtime.IdleAfter, c.Runtime.SweepEvery = time.Millisecond, time.Millisecond
	c.Runtime.CompactAfter = time.Millisecond
	n := start(t, c)
	if _, err := acquire(t, n, "1"); err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{
		"licensed_activation_duration_seconds_count 1\n", "licensed_passivations_total 1\n",
		"licensed_resident_aggregates 0\n", "licensed_store_syncs_total", "licensed_store_disk_bytes",
		"licensed_build_info{", "process_resident_memory_bytes", "go_goroutines",
	} {
		t.Log("waiting for", series)
		until(func() bool {
			_, body := get(t, n.Admin().String(), "/metrics")
			return strings.Contains(body, "\n"+series)
		})
	}
}

// TestProfilesNeedTheToken: also where there is no dashboard.
func TestProfilesNeedTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	for name, change := range map[string]func(*node.Config){
		"with the dashboard":    func(*node.Config) {},
		"without the dashboard": func(c *node.Config) { c.Dashboard.Off = true },
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := config(t)
			c.Dashboard.TokenFile = filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(c.Dashboard.TokenFile, []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
			change(&c)
			url := "http://" + start(t, c).Admin().String() + "/debug/pprof/symbol"
			for given, want := range map[string]int{
				"": http.StatusUnauthorized, "Bearer wrong": http.StatusUnauthorized, "Bearer " + token: http.StatusOK,
			} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Sec-Fetch-Dest", "empty") // not a person, who would be led to the login
				if given != "" {
					r.Header.Set("Authorization", given)
				}
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != want {
					t.Errorf("%q: %s", given, res.Status)
				}
			}
		})
	}
}
