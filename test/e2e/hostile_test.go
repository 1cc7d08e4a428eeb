package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/hostile"
)

// Addresses that the hostile clients and the good ones connect from.
var hostileIP, goodIP = net.IPv4(127, 0, 0, 3), net.IPv4(127, 0, 0, 2)

// memoryBound is what a daemon may have had in memory at most after an attack, with requests limited to the default of
// 256 MiB, of which one address may use a quarter.
const memoryBound = 300 << 20

// good are clients of an address, over HTTP/2, on connections of their own.
type good struct {
	licenses licensedv1connect.LicenseServiceClient
	history  licensedv1connect.HistoryServiceClient
	admin    licensedv1connect.AdminServiceClient
}

func (d *daemon) good() good {
	client, url := harness.HTTP2(d.t, goodIP), "http://"+d.API
	return good{
		licensedv1connect.NewLicenseServiceClient(client, url, connect.WithGRPC()),
		licensedv1connect.NewHistoryServiceClient(client, url, connect.WithGRPC()),
		licensedv1connect.NewAdminServiceClient(client, url, connect.WithGRPC()),
	}
}

// use makes each kind of request, as customers and operators do. All have to succeed at the first attempt.
func (g good) use(t *testing.T, customer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := g.licenses.AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1",
	})); err != nil {
		t.Errorf("command: %v", err)
	}
	if _, err := g.licenses.ListLicenses(ctx,
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer})); err != nil {
		t.Errorf("query: %v", err)
	}
	if _, err := g.admin.GetNode(ctx, connect.NewRequest(&licensedv1.GetNodeRequest{})); err != nil {
		t.Errorf("operator: %v", err)
	}
	if _, err := g.admin.ListCustomers(ctx, connect.NewRequest(&licensedv1.ListCustomersRequest{})); err != nil {
		t.Errorf("operator's list: %v", err)
	}
	stream, err := g.history.Follow(ctx, connect.NewRequest(&licensedv1.FollowRequest{CustomerId: customer}))
	if err != nil {
		t.Errorf("stream: %v", err)
		return
	}
	if !stream.Receive() {
		t.Errorf("stream: %v", stream.Err())
	}
	_ = stream.Close()
}

// fill makes customers with the longest ids, and one with many licences.
func (d *daemon) fill(customers, licences int) (many string) {
	d.t.Helper()
	client, many := d.clients()[0], "many"
	acquire := func(customer string, title int) {
		if _, err := client.AcquireLicense(d.t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: customer,
			DeviceId:   "iphone",
			TitleId:    fmt.Sprintf("title-%05d", title),
			CommandId:  fmt.Sprint("c", title),
		})); err != nil {
			d.t.Error(err)
		}
	}
	acquire("first", 0) // All that follow share its connection.
	var all sync.WaitGroup
	for worker := range 32 {
		all.Go(func() {
			for i := worker; i < customers; i += 32 {
				acquire(fmt.Sprintf("%0128d", i), 0)
			}
		})
	}
	for title := range licences {
		acquire(many, title)
	}
	all.Wait()
	return many
}

// peak returns the most memory that the process had, in bytes.
func (d *daemon) peak() int64 {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	n, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n << 10
}

// TestHostileClients: whatever a client does, others are served, and the memory stays bounded. The attacks are on one
// daemon, which must have recovered from each when the next begins. It never has the race detector, with which a
// process needs a multiple of the memory.
func TestHostileClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	d := startProgram(t, filepath.Join(harness.PlainPrograms(t), "licensed"), "dev",
		"--data", filepath.Join(t.TempDir(), "data"),
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error")
	d.fill(3000, 20)
	good := d.good()
	for _, attack := range hostile.All("many") {
		t.Run(strings.ReplaceAll(attack.Name, " ", "-"), func(t *testing.T) {
			running, err := attack.Start(t.Context(), hostile.Target{Address: d.API, From: hostileIP})
			if err != nil {
				t.Fatal(err)
			}
			for round := range 10 {
				good.use(t, fmt.Sprintf("%s %d", attack.Name, round))
			}
			counts := running.Stop()
			t.Logf("%+v, peak so far %d MiB", counts, d.peak()>>20)
			if peak := d.peak(); peak > memoryBound {
				t.Errorf("the daemon had %d MiB", peak>>20)
			}
		})
	}
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestFewFiles: with 96 files in all, idle connections take no file from the store.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "few")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nulimit -n 96 && exec %s \"$@\"\n", licensed(t)),
		0o700); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, script, "dev", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0",
		"--admin", "127.0.0.1:0")
	d.Says(`"open_files":96`)
	running, err := hostile.IdleConnections(90).Start(t.Context(), hostile.Target{Address: d.API, From: hostileIP})
	if err != nil {
		t.Fatal(err)
	}
	good := d.good()
	for round := range 50 {
		good.use(t, fmt.Sprint("good-", round))
	}
	d.fill(500, 0)
	d.Until(func() bool { return running.Counts().Closed > 60 })
	running.Stop()
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
