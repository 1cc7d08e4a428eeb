package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"licensed/internal/harness"
	"licensed/test/chaos"
	"licensed/test/chaos/deploy"
)

// owner's scripts: how the one who runs a service starts it, and kills it.
const (
	startScript = `rm -f ready
setsid ./licensed dev --data data --archive archive --listen %[1]s --admin %[2]s --policy policy.yaml --ready-file ready \
  --max-deadline 1500ms --snapshot-every 20 --passivate-after 3s --archive-after 5s --archive-segment-bytes 4KiB --archive-rate 0 >>log 2>&1 &
echo $! >pid
until [ -e ready ]; do kill -0 "$(cat pid)" || exit 1; sleep 0.1; done
`
	// Where nobody reaps orphans, one that was killed stays as a zombie.
	killScript = `kill -9 "$(cat pid)"
while kill -0 "$(cat pid)" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$(cat pid)/status" 2>/dev/null; do sleep 0.05; done
`
	staging = `gateways: ["http://%[1]s"]
members: [{name: dev, admin: "http://%[2]s"}]
faults:
  - {name: kill dev, targets: [dev], inject: cd %[3]s && sh kill.sh, heal: cd %[3]s && sh start.sh, hold: 1s}
  - {name: pause dev, targets: [dev], inject: kill -STOP $(cat %[3]s/pid), heal: kill -CONT $(cat %[3]s/pid), hold: 2s}
`
)

// freeAddress returns one that nobody listens on, and that nobody gets by chance while the service is dead: its
// port is below those that systems choose from.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(15_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// ownService starts a service as its owner does, and returns the file that describes it to the tool.
func ownService(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	harness.LookAtSources(t)
	if _, err := deploy.Build(t.Context(), "../../..", dir); err != nil {
		t.Fatal(err)
	}
	var policy, problems bytes.Buffer
	if code := execute(t.Context(), []string{"policy"}, &policy, &problems); code != exitPass {
		t.Fatal(problems.String())
	}
	api, admin := freeAddress(t), freeAddress(t)
	for name, text := range map[string]string{
		"policy.yaml":  policy.String(),
		"kill.sh":      killScript,
		"start.sh":     fmt.Sprintf(startScript, api, admin),
		"staging.yaml": fmt.Sprintf(staging, api, admin, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := func(name string) *exec.Cmd {
		cmd := exec.Command("sh", name)
		cmd.Dir = dir
		return cmd
	}
	t.Cleanup(func() { _ = script("kill.sh").Run() }) // It may not run.
	if out, err := script("start.sh").CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log")) // For the message only.
		t.Fatalf("%v: %s%s", err, out, log)
	}
	return dir
}

// TestAttach breaks a service that is not the tool's, by commands of its owner.
func TestAttach(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: not run with -short")
	}
	dir := ownService(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	var out, problems bytes.Buffer
	code := execute(context.Background(), []string{
		"run", "--attach", path("staging.yaml"), "--policy", path("policy.yaml"), "--dir", path("run"),
		"--length", "12s", "--gap", "500ms", "--calm", "500ms", "--clients", "8", "--customers", "40", "--seed", "1",
	}, &out, &problems)
	if code != exitPass {
		t.Fatalf("code %d: %s%s", code, out.String(), problems.String())
	}
	t.Log(out.String())
	b, err := os.ReadFile(path("run/verdict.json"))
	var v chaos.Verdict
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	if v.Deployment != "attached" || v.Faults["kill dev"].Injected == 0 || v.Faults["pause dev"].Injected == 0 ||
		v.Acknowledged < 100 || len(v.Resources) != 1 {
		t.Errorf("too little happened: %s", out.String())
	}
}
