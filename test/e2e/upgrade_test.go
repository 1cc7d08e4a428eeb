package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"licensed/messages/licensedv1"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

// upgrade is a cluster that goes from one release to the next and back.
type upgrade struct {
	*fleet
	second *daemon // gateway
	all    []*daemon
	tr     *traffic
}

// node replaces a node by one of the release in progress.
func (u *upgrade) node(i int) {
	u.t.Helper()
	u.tr.more(u.fleet, 50)
	u.stopped(u.nodes[i])
	u.startNode(i)
	u.all = append(u.all, u.nodes[i])
	u.settled()
	u.tr.more(u.fleet, 50)
}

// gateways replaces both gateways, one after the other, as behind a load balancer.
func (u *upgrade) gateways() {
	u.t.Helper()
	u.secondGateway()
	u.clients.use(u.second)
	u.stopped(u.gateway)
	u.gateway = u.startGateway(1)
	u.all = append(u.all, u.gateway)
	u.clients.use(u.gateway, u.second)
	u.settled()
	u.tr.more(u.fleet, 50)
}

func (u *upgrade) secondGateway() {
	u.t.Helper()
	u.clients.use(u.gateway)
	if u.second != nil {
		u.stopped(u.second)
	}
	u.second = u.startGateway(2)
	u.all = append(u.all, u.second)
	u.clients.use(u.gateway, u.second)
}

// stopped stops a process, which must still be present.
func (u *upgrade) stopped(d *daemon) {
	u.t.Helper()
	if code := d.Stop(); code != 0 {
		u.t.Errorf("licensed %s: exit code %d", strings.Join(d.Cmd.Args[1:4], " "), code)
	}
}

// versions returns the version of each node and gateway that is present, as the first gateway tells.
func (u *upgrade) versions() map[string]string {
	u.t.Helper()
	all := make(map[string]string)
	u.await(func(s *licensedv1.ClusterStatus) bool {
		clear(all)
		for _, n := range s.Nodes {
			if n.State == licensedv1.NodeState_NODE_STATE_READY {
				all[n.Name] = n.Version
			}
		}
		return len(all) == fleetNodes+2
	})
	return all
}

// wantVersions checks how many members say that they are of the next release.
func (u *upgrade) wantVersions(next int) {
	u.t.Helper()
	got := 0
	for _, v := range u.versions() {
		if v == nextVersion {
			got++
		}
	}
	if got != next {
		u.t.Errorf("%d members of the next release, want %d: %v", got, next, u.versions())
	}
}

// novelty is what a customer does whom only the next release understands.
const novelty = `{"customerId":"novel","commandId":"novelty","reason":"holidays"}`

// acquireLater acquires a licence with a field that the next release has.
func acquireLater(customer, command string) string {
	return fmt.Sprintf(`{"customerId":%q,"deviceId":"d","titleId":"t","commandId":%q,"laterText":"later"}`,
		customer, command)
}

// want checks status and words of an answer, and returns the sequence in it.
func (u *upgrade) want(d *daemon, method, body string, status int, words ...string) uint64 {
	u.t.Helper()
	got, reply := d.post(method, body)
	if got != status {
		u.t.Errorf("%s %s: status %d, want %d: %s", method, body, got, status, reply)
	}
	for _, w := range words {
		if !strings.Contains(reply, w) {
			u.t.Errorf("%s %s does not say %q: %s", method, body, w, reply)
		}
	}
	var answer struct {
		Sequence uint64 `json:",string"`
	}
	// Errors have none.
	_ = json.Unmarshal([]byte(reply), &answer)
	return answer.Sequence
}

// TestUpgrade takes a cluster to the next release and back, process by process, while clients continue. No request
// fails and no process ends by itself. What a release does not understand, it reports, and leaves it alone.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	cassandratest.SkipIfShort(t)
	next := buildNext(t)
	u := &upgrade{fleet: startFleet(t)}
	u.all = append(u.all, append(u.nodes, u.gateway)...)
	l := newLoad()
	u.program = next()
	u.tr = u.send(l)

	u.secondGateway() // Before any node, so that it asks all of them for what they do not know.
	u.wantVersions(1)
	u.want(u.second, "PauseDownloads", novelty, http.StatusNotImplemented, "not executed", "UNSUPPORTED")
	u.want(u.second, "ListLicenses", `{"customerId":"novel"}`, http.StatusOK)
	u.want(u.gateway, "AcquireLicense", acquireLater("later", "old gateway"), http.StatusOK)
	u.want(u.second, "AcquireLicense", acquireLater("later", "next gateway"), http.StatusOK)

	for i := range u.nodes {
		u.node(i)
		u.wantVersions(2 + i)
	}
	u.want(u.gateway, "PauseDownloads", novelty, http.StatusNotFound)
	u.gateways()
	u.wantVersions(fleetNodes + 2)
	sequence := u.want(u.gateway, "PauseDownloads", novelty, http.StatusOK)
	u.want(u.second, "PauseDownloads", novelty, http.StatusOK, `"duplicate":true`)

	u.program = licensed(t)
	for i := range u.nodes {
		u.node(i)
	}
	u.want(u.gateway, "PauseDownloads", novelty, http.StatusNotImplemented, "not executed", "UNSUPPORTED")
	u.gateways()
	u.wantVersions(0)
	u.want(u.gateway, "AcquireLicense", acquireLater("novel", "after"), http.StatusInternalServerError, "data_loss",
		"not executed")
	u.want(u.gateway, "AcquireLicense", acquireLater("later", "old gateway"), http.StatusOK, `"duplicate":true`)

	u.tr.more(u.fleet, 50)
	u.tr.end()
	u.tr.wantNoFailures(t, "upgrade and back")
	l.resolve(t, u.gateway)
	for _, d := range append(u.nodes, u.gateway, u.second) {
		u.stopped(d)
	}
	u.wantQuiet()
	u.compare(l, sequence)
}

// wantQuiet checks what the processes logged: nothing panicked, and who met the event of the next release
// named it.
func (u *upgrade) wantQuiet() {
	u.t.Helper()
	named := false
	for _, d := range u.all {
		out := d.Log.String()
		if i := strings.Index(strings.ToLower(out), "panic"); i >= 0 {
			u.t.Errorf("a panic of licensed %s:\n%s", strings.Join(d.Cmd.Args[1:4], " "), out[i:min(len(out), i+2000)])
		}
		named = named || strings.Contains(out, "DownloadsPaused/1") || strings.Contains(out, "LicenseSnapshot/3")
	}
	if !named {
		u.t.Error("no log names what of the next release was met in a history")
	}
}

// compare compares what clients were told with the store, the commands beside the load included.
func (u *upgrade) compare(l *load, sequence uint64) {
	u.t.Helper()
	store, err := cassandra.Open(u.t.Context(), u.options)
	if err != nil {
		u.t.Fatal(err)
	}
	defer store.Close()
	l.commands = append(l.commands,
		&command{customer: "novel", id: "novelty", first: &answer{sequence: sequence}},
		&command{customer: "later", id: "old gateway", first: &answer{sequence: 4}},
		&command{customer: "later", id: "next gateway", first: &answer{sequence: 5}})
	l.compareWithHistory(u.t, store)
	u.t.Logf("%d commands, %d had an unknown outcome, %d were refused", len(l.commands), l.unknown, l.refused())
}
