package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/pebble"
)

// TestStoreVerify checks the directory of a node: while it runs, when it is stopped, and when its archive is lost.
func TestStoreVerify(t *testing.T) {
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin, c.Logger = t.TempDir(), "127.0.0.1:0", "", slog.New(slog.DiscardHandler)
	c.Runtime.SnapshotEvery = 2
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for i, customer := range []string{"Bayley", "Bayley", "Bayley", "Robin"} {
		_, err = licensedv1connect.NewLicenseServiceClient(http.DefaultClient, n.APIURL()).AcquireLicense(t.Context(),
			connect.NewRequest(&licensedv1.AcquireLicenseRequest{
				CustomerId: customer,
				DeviceId:   "iphone",
				TitleId:    fmt.Sprint("title", i),
				CommandId:  fmt.Sprint("c", i),
			}))
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = licensedv1connect.NewAdminServiceClient(http.DefaultClient, n.APIURL()).ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley", All: true}))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(want int, says string, args ...string) {
		t.Helper()
		code, out := run(t, map[string]string{"LICENSED_DATA": c.Data}, append([]string{"store", "verify"}, args...)...)
		if code != want || !strings.Contains(out, says) {
			t.Errorf("%v: exit %d, want %d and %q: %s", args, code, want, says, out)
		}
	}
	verify(exitLocked, "stop the node first")
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	verify(exitOK, "checked 2 customers, 14 events: 0 errors")
	verify(exitOK, "live state: not compared", "Robin")
	verify(exitOK, `"customerId":"Robin"`, "Robin", "--output", "json")
	verify(exitNotFound, "customer Nobody: no history", "Nobody")
	verify(exitNotFound, "there is no store; name the directory of a node with --data", "--data",
		filepath.Join(c.Data, "nothing"))
	verify(exitUsage, "--jobs must be at least 1", "--jobs", "0")
	verify(exitUsage, "--after is for checking all customers", "Robin", "--after", "Bayley")
	verify(exitUsage, `takes no argument "b"`, "a", "b")
	verify(exitUsage, `--output "xml"`, "-o", "xml")
	if err := errors.Join(os.RemoveAll(filepath.Join(c.Data, "archive")),
		os.Remove(filepath.Join(c.Data, "archive.id"))); err != nil {
		t.Fatal(err)
	}
	verify(exitDamaged, "Bayley    error     records")
	if err := pebble.DamageRoot(t.Context(), c.Data, pebble.Options{Logger: c.Logger},
		"Bayley:LicenseAggregate"); err != nil {
		t.Fatal(err)
	}
	verify(exitDamaged, "Bayley    error     roots") // and continues
	verify(exitDamaged, "checked 2 customers, 4 events: 1 error")
}
