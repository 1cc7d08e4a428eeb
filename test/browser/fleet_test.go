package browser_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/test/sources"
)

// process is a licensed of its own.
type process struct {
	API, Admin string
	cmd        *exec.Cmd
	exited     chan struct{}
}

// launch starts a process and waits until it is ready.
func launch(t *testing.T, program string, arguments ...string) *process {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	var out bytes.Buffer
	p := &process{cmd: exec.Command(program, append(arguments, "--ready-file", ready)...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &out, &out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // How it ended is not looked at: it is killed.
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	for {
		content, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(content, p); err != nil {
				t.Fatal(err)
			}
			return p
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		select {
		case <-p.exited:
			t.Fatalf("%v ended before it was ready:\n%s", arguments, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends the process with -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // It may have ended.
	<-p.exited
}

// TestRealCluster looks at a cluster of processes on Cassandra through its gateway, and kills one of them.
func TestRealCluster(t *testing.T) {
	cassandratest.SkipIfShort(t)
	base, given, err := cassandratest.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if !given {
		base = cassandratest.Start(t, cassandratest.Config{Env: []string{"HEAP=768M"}}).Options()
	}
	options := cassandratest.Keyspace(t, base, 1)
	if err := sources.Look("../.."); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "licensed")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/licensed").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250))
	store := fmt.Sprintf("cassandra://%s/%s?accept_risk=%s", strings.Join(options.Hosts, ","), options.Keyspace, cassandra.RiskReplication1)
	run := func(role, name string, host int) *process {
		return launch(t, program, role, "--name", name, "--host", fmt.Sprintf("%s.%d", network, host), "--join", network+".1,"+network+".2",
			"--store", store, "--archive", "off", "--cluster", "browser", "--shards", "64", "--lease-ttl", "5s")
	}
	run("node", "n1", 1)
	n2 := run("node", "n2", 2)
	g1 := run("gateway", "g1", 100)

	p := open(t, "http://"+g1.Admin+"/dashboard/", wall)
	p.says(".verdict", "All systems normal")
	p.wait("document.querySelectorAll('.nodes tbody tr').length === 3")
	p.wait(`/64 shards: n1 has \d+, n2 has \d+\.$/.test(document.querySelector("#map svg")?.getAttribute("aria-label"))`)
	p.wait("document.documentElement.dataset.samples >= 2")
	s := &service{T: t, licenses: licensedv1connect.NewLicenseServiceClient(http.DefaultClient, "http://"+g1.API)}
	for i := range 20 {
		s.acquire(fmt.Sprint("customer-", i), "iphone", "GlowS01E01")
	}
	p.says(".legend", "commands")
	p.look("cluster-real")

	n2.kill()
	p.wait(`/n2, which is dead|the lease of n2 was marked dead/.test(document.querySelector(".happenings")?.textContent)`)
	p.says("#map", "64 shards: n1 has 64.")
	p.wait(`[...document.querySelectorAll(".nodes tbody tr")].some(row => row.textContent.includes("n2") && row.matches(".critical"))`)
	p.look("cluster-real-killed")

	// Customers of the dead node are with the other one, with all that they had.
	for i := range 20 {
		s.acquire(fmt.Sprint("customer-", i), "ipad", "GlowS01E01")
	}
	p.run(navigate("http://" + g1.Admin + "/dashboard/customer?id=customer-7"))
	p.says(".where", "Now, after event 8 of 8")
	p.says("#moment", "2 of 2")
}
