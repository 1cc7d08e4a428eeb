package e2e_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/harness"
)

// TestStartErrors is what an operator reads when the daemon cannot start.
func TestStartErrors(t *testing.T) {
	running := start(t, filepath.Join(t.TempDir(), "data"))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		arguments []string
		code      int
		says      []string
	}{
		"port in use": {
			[]string{"--listen", taken.Addr().String()}, 1, []string{"API port", taken.Addr().String(), "--listen"},
		},
		"admin port in use": {
			[]string{"--admin", taken.Addr().String()}, 1, []string{"admin port", taken.Addr().String(), "--admin"},
		},
		"bad address": {[]string{"--listen", "8080"}, 2, []string{"listen", `"8080"`, "HOST:PORT"}},
		"bad port":    {[]string{"--admin", "127.0.0.1:99999"}, 2, []string{"admin", "99999"}},
		"locked": {
			[]string{"--data", dataOf(running)}, 1, []string{dataOf(running), "another licensed", "--data"},
		},
		"data is a file": {[]string{"--data", write("file", "")}, 1, []string{filepath.Join(dir, "file")}},
		"no such policy": {[]string{"--policy", filepath.Join(dir, "none.yaml")}, 1, []string{"none.yaml"}},
		"invalid policy": {
			[]string{"--policy", write("policy.yaml", "version: v1\nplans:\n  p: {devices: many}\n")},
			1,
			[]string{"policy.yaml:3"},
		},
		"unknown flag": {[]string{"--nonsense"}, 2, []string{"--nonsense", "--help"}},
		"bad value":    {[]string{"--snapshot-every", "0"}, 2, []string{"snapshot-every", "at least 1"}},
		"unknown setting": {[]string{"--config", write("settings.yaml", "# ours\nlisten: 127.0.0.1:0\nlissen: x\n")},
			2, []string{"settings.yaml:3", `"lissen"`}},
		"bad setting": {
			[]string{"--config", write("bad.yaml", "passivate-after: soon\n")},
			2,
			[]string{"bad.yaml:1", "passivate-after", "soon"},
		},
		"bad log level":      {[]string{"--log-level", "loud"}, 2, []string{"loud", "debug, info"}},
		"one thing too many": {[]string{"now"}, 2, []string{"now", "--help"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := launch(t, filepath.Join(t.TempDir(), "data"), test.arguments...)
			if code := d.Wait(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, words := range test.says {
				if !strings.Contains(d.Log.String(), words) {
					t.Errorf("does not say %q: %s", words, d.Log.String())
				}
			}
			if strings.Contains(d.Log.String(), "goroutine ") || strings.Contains(d.Log.String(), "Usage:") {
				t.Errorf("says too much: %s", d.Log.String())
			}
			if _, err := os.Stat(d.Ready); err == nil {
				t.Error("claims to be ready")
			}
		})
	}
	if _, err := (&tour{t: t, clients: running.clients()}).acquire("1", "iphone", "Lamb"); err != nil {
		t.Errorf("the running daemon was disturbed: %v", err)
	}
}

// dataOf returns the data directory of a daemon.
func dataOf(d *daemon) string { return d.Cmd.Args[3] }

// TestStopUnderLoad sends SIGTERM while clients continue. What is answered is kept, and nothing is
// answered with an unknown outcome: the daemon takes its time to finish what it took.
func TestStopUnderLoad(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	d := start(t, data)
	clients := d.clients()
	var answered atomic.Int64
	enough := make(chan struct{})
	var wg sync.WaitGroup
	l := newLoad()
	for w := range workers {
		wg.Go(func() {
			for {
				c := l.choose()
				message, err := c.send(t.Context(), clients[w%len(clients)])
				switch a := outcome(message, err); {
				case a != nil:
					if answered.Add(1) == 300 {
						close(enough)
					}
					c.first = a
				case connect.CodeOf(err) == connect.CodeResourceExhausted:
				default:
					// Refused connections, from here on.
					if strings.Contains(err.Error(), "outcome unknown") {
						t.Errorf("%s: %v", c.id, err)
					}
					return
				}
			}
		})
	}
	<-enough
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	wg.Wait()
	if !strings.Contains(d.Log.String(), "stopped") {
		t.Error("the log does not say that it stopped")
	}
	d = start(t, data)
	l.resolve(t, d)
}

// TestSecondSignal stops at once a daemon that is waiting to stop.
func TestSecondSignal(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "data"), "--drain-delay", "1h")
	d.Signal(syscall.SIGTERM)
	d.Until(func() bool {
		status, _ := harness.Get(t, "http://"+d.API+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	// While load balancers take notice, it serves as before.
	if status, reply := d.post("AcquireLicense",
		`{"customerId":"a","deviceId":"b","titleId":"c","commandId":"d"}`); status != http.StatusOK {
		t.Errorf("while draining: %d %s", status, reply)
	}
	d.Signal(syscall.SIGHUP) // Not a reason to stop.
	// Signals right after the first one are taken for the same one.
	for running := true; running; {
		// It fails once the process has ended.
		_ = d.Cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-d.Exited:
			running = false
		case <-time.After(20 * time.Millisecond):
		}
	}
	if code := d.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.Contains(d.Log.String(), "second signal") {
		t.Errorf("does not say why: %s", d.Log.String())
	}
}

// TestPages looks at what is not the API.
func TestPages(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "data"))
	d.post("AcquireLicense", `{"customerId":"a","deviceId":"b","titleId":"c","commandId":"d"}`)
	for url, says := range map[string]string{
		d.API + "/healthz":        "ready",
		d.API + "/readyz":         "ready",
		d.Admin + "/healthz":      "ready",
		d.Admin + "/readyz":       "ready",
		d.Admin + "/debug/pprof/": "goroutine",
		d.API + "/":               "licensed",
		d.Admin +
			"/metrics": `licensed_gateway_request_duration_seconds_count{code="ok",method="AcquireLicense"} 1`,
		d.Admin + "/metrics?again": "licensed_resident_aggregates 1",
	} {
		if status, body := harness.Get(t, "http://"+url); status != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s: %d, does not say %q", url, status, says)
		}
	}
	for _, words := range []string{"http://" + d.API, "http://" + d.Admin, "curl -d", "built in", "AcquireLicense"} {
		d.Says(words)
	}
}

// TestDemo looks at the daemon with simulated customers.
func TestDemo(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "data"), "--demo", "--demo-rate", "200", "--demo-customers", "200")
	d.Until(func() bool {
		_, metrics := harness.Get(t, "http://"+d.Admin+"/metrics")
		for _, series := range []string{
			`licensed_gateway_request_duration_seconds_count{code="ok",method="AcquireLicense"}`,
			`licensed_gateway_request_duration_seconds_count{code="ok",method="ReleaseLicense"}`,
			`licensed_gateway_request_duration_seconds_count{code="ok",method="RecordPlayback"}`,
			`licensed_gateway_duplicate_commands_total{method="AcquireLicense"}`,
			`licensed_gateway_refusals_total{rule="RULE_NO_LICENSE"}`,
		} {
			if strings.Contains(metrics, series+" 0\n") {
				return false
			}
		}
		return true
	})
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSettingsCommand prints what dev would run with.
func TestSettingsCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "licensed.yaml")
	if err := os.WriteFile(file, []byte("data: /somewhere\nsnapshot-every: 50\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(licensed(t), "settings", "--config", file, "--listen", ":9090")
	cmd.Env = append(os.Environ(), "LICENSED_SNAPSHOT_EVERY=70", "LICENSED_PASSIVATE_AFTER=1m")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, line := range []string{
		`data: /somewhere +# file ` + file + `:1`,
		`listen: :9090 +# flag --listen`,
		`snapshot-every: 70 +# environment LICENSED_SNAPSHOT_EVERY`,
		`passivate-after: 1m0s +# environment LICENSED_PASSIVATE_AFTER`,
		`admin: 127\.0\.0\.1:8081 +# default`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).Match(out) {
			t.Errorf("no line like %q in\n%s", line, out)
		}
	}
	again := filepath.Join(t.TempDir(), "again.yaml")
	if err := os.WriteFile(again, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(licensed(t), "settings", "--config", again).CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "snapshot-every: 70") {
		t.Errorf("what settings prints is not a settings file: %v: %s", err, out)
	}
}

// TestNotifiesSystemd: the process tells the supervisor that it is ready, when it is and not before.
func TestNotifiesSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	d := start(t, filepath.Join(t.TempDir(), "data"))
	message := make([]byte, 64)
	n, err := socket.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(message[:n]); got != "READY=1" {
		t.Errorf("notified %q", got)
	}
	if response, err := http.Get("http://" + d.Admin + "/readyz"); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("not ready after the notice: %v", err)
	} else {
		response.Body.Close()
	}
}

// TestVersion: both programs say what they are, in the two ways that people try.
func TestVersion(t *testing.T) {
	for _, program := range []string{licensed(t), licensectl(t)} {
		word, err := exec.Command(program, "version").Output()
		if err != nil {
			t.Fatal(err)
		}
		flag, err := exec.Command(program, "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		if string(word) != string(flag) || !strings.HasPrefix(string(word), filepath.Base(program)+" ") {
			t.Errorf("version prints %q, --version %q", word, flag)
		}
	}
}
