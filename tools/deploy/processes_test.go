package deploy

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Addresses of this machine, in place of those of pods.
const node, gateway, network = "127.77.0.1", "127.77.0.2", "127.77.0"

// TestProcesses runs the commands of deploy/kubernetes as processes of this machine, with its settings, variables and
// probes, on a Cassandra of its own: a licence is acquired through the gateway, and both stop in good order.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Cassandra")
	}
	store := cassandra(t)
	programs, dev := built(t), t.TempDir()
	licensed := filepath.Join(programs, "licensed")
	if out, err := exec.Command(licensed, "certs", "dev", dev, "--hosts", gateway).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(licensed, "schema", "apply", "--create-keyspace", "1", "--store", store).
		CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objects := decode(t, render(t, ""))
	var running []*exec.Cmd
	for _, pod := range [][2]string{{"node", node}, {"gateway", gateway}} {
		role, ip := pod[0], pod[1]
		m := mount(t, programs, dev, objects, role, "licensed-nodes.licensed.svc", node,
			"spiffe://licensed/", "spiffe://licensed.dev/")
		args := append([]string{}, m.container.Args...)
		args[2] = strings.Replace(args[2], "/etc/licensed", m.etc, 1)
		c := exec.Command(licensed, args...)
		// One copy in one Cassandra is what this machine has in place of the manifests' store.
		c.Env = append(m.environment("licensed-"+role+"-0", ip), "LICENSED_STORE="+store)
		var log bytes.Buffer
		c.Stdout, c.Stderr = &log, &log
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
			if t.Failed() {
				t.Logf("%s:\n%s", role, &log)
			}
		})
		running = append(running, c)
		probe := m.container.StartupProbe.HTTPGet
		ready(t, strings.ToLower(string(probe.Scheme))+"://"+ip+":8081"+probe.Path)
	}
	out, err := exec.Command(filepath.Join(programs, "licensectl"), "--server", "https://"+gateway+":8080",
		"--tls-ca", filepath.Join(dev, "ca.pem"), "--token-file", filepath.Join(dev, "service.token"),
		"acquire", "Bayley", "iphone", "GlowS01E01").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "acquired: GlowS01E01 on iphone for Bayley") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range running {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for _, c := range running {
		if err := c.Wait(); err != nil {
			t.Error(c.Args, err)
		}
	}
}

// cassandra starts one and returns the store on it.
func cassandra(t *testing.T) string {
	t.Helper()
	script := func(args ...string) *exec.Cmd {
		c := exec.Command("scripts/cassandra.sh", args...)
		c.Dir = root
		return c
	}
	environment := append(os.Environ(), "NET="+network, "FIRST=9", "PORT=9042", "HEAP=512M", "DIR="+t.TempDir(),
		"LIB="+filepath.Join(os.Getenv("HOME"), ".cache", "licensed-cassandra", "lib-5.0.5"))
	up, destroy := script("up", "1"), script("destroy")
	up.Env, destroy.Env = environment, environment
	t.Cleanup(func() {
		if out, err := destroy.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return "cassandra://" + network + ".9:9042/licensed?accept_risk=replication-1"
}

// ready waits until a probe succeeds, as a kubelet does: it looks at no certificate.
func ready(t *testing.T, url string) {
	t.Helper()
	client := &http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	last := ""
	for began := time.Now(); time.Since(began) < 3*time.Minute; time.Sleep(100 * time.Millisecond) {
		res, err := client.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		_ = res.Body.Close()
		if last = res.Status; res.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatalf("%s: %s", url, last)
}
