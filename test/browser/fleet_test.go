package browser_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"licensed/internal/harness"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

func TestMain(m *testing.M) { os.Exit(cassandratest.Main(m)) }

// TestRealCluster looks at a cluster of processes on Cassandra through its gateway, and kills one of them.
func TestRealCluster(t *testing.T) {
	options := cassandratest.Keyspace(t, cassandratest.Shared(t), 1)
	program := filepath.Join(harness.Programs(t), "licensed")
	network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250))
	store := cassandratest.URL(options, "accept_risk="+cassandra.RiskReplication1)
	run := func(role, name string, host int) *harness.Program {
		return harness.Start(t, program, role, "--name", name, "--host", fmt.Sprintf("%s.%d", network, host), "--join",
			network+".1,"+network+".2",
			"--store", store, "--archive", "off", "--cluster", "browser", "--shards", "64", "--lease-ttl", "5s")
	}
	run("node", "n1", 1)
	n2 := run("node", "n2", 2)
	g1 := run("gateway", "g1", 100)

	p := open(t, "http://"+g1.Admin+"/dashboard/", wall)
	p.says(".verdict", "All systems normal")
	p.wait("document.querySelectorAll('.nodes tbody tr').length === 3")
	p.wait(
		`/64 shards: n1 has \d+, n2 has \d+\.$/.test(document.querySelector("#map svg")?.getAttribute("aria-label"))`,
	)
	p.wait("document.documentElement.dataset.samples >= 2")
	s := &service{T: t, licenses: licensedv1connect.NewLicenseServiceClient(http.DefaultClient, "http://"+g1.API)}
	for i := range 20 {
		s.acquire(fmt.Sprint("customer-", i), "iphone", "GlowS01E01")
	}
	p.says(".legend", "commands")
	p.look("cluster-real")

	n2.Kill()
	p.wait(
		`/n2, which is dead|the lease of n2 was marked dead/.test(document.querySelector(".happenings")?.textContent)`,
	)
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
