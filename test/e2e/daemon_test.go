package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/sources"
)

// The programs under test.
var binary, licensectl string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "licensed-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, licensectl = filepath.Join(dir, "licensed"), filepath.Join(dir, "licensectl")
	arguments := []string{"build", "-o", dir + "/"}
	if raceEnabled {
		arguments = append(arguments, "-race")
	}
	build := exec.Command("go", append(arguments, "licensed/cmd/licensed", "licensed/cmd/licensectl")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	defer stopCassandra()
	return m.Run()
}

// daemon is a running process.
type daemon struct {
	t          testing.TB
	cmd        *exec.Cmd
	out        output
	exited     chan struct{} // closed when the process has ended
	API, Admin string
}

// output keeps what a process wrote.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// launch starts the daemon on free ports, with more arguments, and does not wait.
func launch(t testing.TB, data string, arguments ...string) (d *daemon, ready string) {
	t.Helper()
	return launchRole(t, append([]string{
		"dev", "--data", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
	}, arguments...)...)
}

// launchRole starts a process with these arguments, and does not wait.
func launchRole(t testing.TB, arguments ...string) (d *daemon, ready string) {
	t.Helper()
	return launchProgram(t, binary, arguments...)
}

// lookAtSources makes cached results depend on the daemon's sources. What is looked at before the first test does not count.
var lookAtSources = sync.OnceValue(func() error { return sources.Look("../..") })

// launchProgram starts a process of a program with these arguments, and does not wait.
func launchProgram(t testing.TB, program string, arguments ...string) (d *daemon, ready string) {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	ready = filepath.Join(t.TempDir(), "ready.json")
	d = &daemon{t: t, exited: make(chan struct{})}
	d.cmd = exec.Command(program, append(arguments, "--ready-file", ready)...)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		// How it ended is in ProcessState.
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.kill()
		if strings.Contains(d.out.String(), "WARNING: DATA RACE") { // One that is killed does not tell by its exit code.
			t.Error("the race detector has found something")
		}
		if t.Failed() {
			t.Logf("output of licensed %s:\n%s", strings.Join(arguments, " "), tail(d.out.String()))
		}
	})
	return d, ready
}

func tail(s string) string { return s[max(0, len(s)-8000):] }

// start starts the daemon and waits until it is ready.
func start(t testing.TB, data string, arguments ...string) *daemon {
	t.Helper()
	d, ready := launch(t, data, arguments...)
	d.await(ready)
	return d
}

// startRole starts a process with these arguments and waits until it is ready.
func startRole(t testing.TB, arguments ...string) *daemon {
	t.Helper()
	return startProgram(t, binary, arguments...)
}

// startProgram starts a process of a program with these arguments and waits until it is ready.
func startProgram(t testing.TB, program string, arguments ...string) *daemon {
	t.Helper()
	d, ready := launchProgram(t, program, arguments...)
	d.await(ready)
	return d
}

// await waits until the process is ready.
func (d *daemon) await(ready string) {
	d.t.Helper()
	for {
		content, err := os.ReadFile(ready)
		switch {
		case err == nil:
			if err := json.Unmarshal(content, d); err != nil {
				d.t.Fatalf("ready file %q: %v", content, err)
			}
			return
		case !errors.Is(err, os.ErrNotExist):
			d.t.Fatal(err)
		}
		select {
		case <-d.exited:
			d.t.Fatalf("the daemon ended before it was ready: %v\n%s", d.cmd.ProcessState, d.out.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// says waits until the process has written words: what it wrote before it was ready may come a little later.
func (d *daemon) says(words string) {
	d.t.Helper()
	until(d.t, d, func() bool { return strings.Contains(d.out.String(), words) })
}

// kill ends the process with -9 and waits until it is gone.
func (d *daemon) kill() {
	// It may have ended by itself.
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// wait waits for the process to end and returns its exit code.
func (d *daemon) wait() int {
	<-d.exited
	return d.cmd.ProcessState.ExitCode()
}

// stop asks the process to stop and returns its exit code.
func (d *daemon) stop() int {
	d.signal(syscall.SIGTERM)
	return d.wait()
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatalf("signal %v: %v", s, err)
	}
}

// clients returns one client for each way to speak to the API.
func (d *daemon) clients() []licensedv1connect.LicenseServiceClient {
	h1 := &http.Transport{MaxIdleConnsPerHost: 64}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	d.t.Cleanup(func() { h1.CloseIdleConnections(); h2.CloseIdleConnections() })
	url := "http://" + d.API
	return []licensedv1connect.LicenseServiceClient{
		licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h2}, url, connect.WithGRPC()),
		licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h1}, url, connect.WithProtoJSON()),
		licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h1}, url, connect.WithGRPCWeb()),
	}
}

// post sends JSON as curl would and returns the status and the reply.
func (d *daemon) post(method, body string) (int, string) {
	d.t.Helper()
	res, err := http.Post("http://"+d.API+"/licensed.v1.LicenseService/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(reply)
}

// get returns the status and body of a page.
func get(t testing.TB, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
