package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinksOnlyTheAPI: what the tool and the packages for applications link, through whatever imports, is the API
// and what both programs share.
func TestLinksOnlyTheAPI(t *testing.T) {
	for pkg, ours := range map[string][]string{
		"licensed/cmd/licensectl": apiOfTools,
		"licensed/client":         {"licensed/licensetoken", "licensed/messages/licensedv1"},
	} {
		list := exec.Command("go", "list", "-deps", pkg)
		list.Dir = filepath.Join("..", "..")
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, linked := range strings.Fields(string(out)) {
			if linked != pkg && match("licensed/...", linked) && !matches(ours, linked) ||
				matches(serverLibraries, linked) {
				t.Errorf("%s links %s; go list -deps shows through which import", pkg, linked)
			}
		}
	}
}

// serverLibraries are what only the server needs.
var serverLibraries = []string{
	"github.com/gocql/gocql/...", "github.com/apache/cassandra-gocql-driver/...", "github.com/cockroachdb/pebble/...",
	"github.com/hashicorp/memberlist/...", "github.com/asynkron/protoactor-go/...",
	"github.com/prometheus/client_golang/...", "go.opentelemetry.io/otel/...",
}

// TestLicensectlIsSmall builds the tool as a release does.
func TestLicensectlIsSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("links a program")
	}
	program := filepath.Join(t.TempDir(), "licensectl")
	// Without -trimpath, which adds some KB here, the packages that other tests compiled are used again.
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "licensed/cmd/licensectl")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 20_000_000
	t.Logf("%d bytes", info.Size())
	if info.Size() > limit {
		t.Errorf("licensectl has %d bytes, more than %d: what does it link that is not the API?", info.Size(), limit)
	}
}
