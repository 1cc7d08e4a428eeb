package node_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/internal/storage"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

const day = 24 * time.Hour

// agedConfig returns that of a node whose clock is behind by so much, and which archives eagerly.
func agedConfig(t *testing.T) (node.Config, *atomic.Int64) {
	c, _ := config(t)
	behind := new(atomic.Int64)
	behind.Store(int64(100 * day))
	c.Now = func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }
	c.Archiver.SegmentBytes = 2000
	c.Archiver.ScanEvery = 5 * time.Millisecond
	c.Archiver.RetryMin = time.Millisecond
	return c, behind
}

func admin(n *node.Node) licensedv1connect.AdminServiceClient {
	return licensedv1connect.NewAdminServiceClient(http.DefaultClient, "http://"+n.API().String())
}

func passivate(t *testing.T, n *node.Node) {
	t.Helper()
	if _, err := admin(n).PassivateCustomer(t.Context(),
		connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
		t.Fatal(err)
	}
}

func renew(t *testing.T, n *node.Node, id string) {
	t.Helper()
	_, err := client(n).RenewLicense(t.Context(), connect.NewRequest(&licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id,
	}))
	if err != nil {
		t.Fatal(err)
	}
}

func archiveStatus(t *testing.T, n *node.Node) *licensedv1.ArchiveStatus {
	t.Helper()
	res, err := admin(n).GetNode(t.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.Archive
}

// wantHistory reads Bayley's history, which must be whole, and returns the number of events each tier has.
func wantHistory(t *testing.T, n *node.Node) (hot, cold int) {
	t.Helper()
	history := licensedv1connect.NewHistoryServiceClient(http.DefaultClient, "http://"+n.API().String())
	stream, err := history.ListEvents(t.Context(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	last := uint64(0)
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			e := i.GetEvent()
			if e.GetSequence() != last+1 {
				t.Fatalf("%v after %d", i, last)
			}
			last = e.Sequence
			if e.Tier == licensedv1.Tier_TIER_ARCHIVE {
				cold++
			} else {
				hot++
			}
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return hot, cold
}

// TestArchiveTier takes a customer through its life: used, archived when it was evicted, idle until
// only a stub is left, and back.
func TestArchiveTier(t *testing.T) {
	c, behind := agedConfig(t)
	n := start(t, c)
	if _, err := acquire(t, n, "first"); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		renew(t, n, fmt.Sprint("c", i))
		if i%4 == 3 {
			passivate(t, n)
		}
	}
	until(func() bool { return archiveStatus(t, n).ArchivedEvents > 0 })
	hot, cold := wantHistory(t, n)
	if hot == 0 || cold == 0 {
		t.Errorf("%d events are hot, %d archived", hot, cold)
	}
	passivate(t, n)
	behind.Store(0)
	until(func() bool {
		_, metrics := get(t, n.Admin().String(), "/metrics")
		return strings.Contains(metrics, "licensed_archive_snapshots_total 1")
	})
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	c.Archive = storage.ArchiveOff
	n = start(t, c)
	if _, err := acquire(t, n, "away"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without its archive: %v, want Unavailable", err)
	}
	if archiveStatus(t, n) != nil {
		t.Error("a node without an archive tells of one")
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	c.Archive = ""
	n = start(t, c)
	res, err := acquire(t, n, "back")
	if err != nil || res.Sequence <= uint64(hot+cold) {
		t.Errorf("woken: %v, %v after %d events", res, err, hot+cold)
	}
	if again, all := wantHistory(t, n); again+all != int(res.Sequence) || all < hot+cold {
		t.Errorf("%d events are hot, %d archived, of %d", again, all, res.Sequence)
	}
	for _, name := range []string{
		"archive_events_total", "archive_lag_seconds 0", "archive_failing_seconds 0", "archive_disk_bytes",
	} {
		if _, metrics := get(t, n.Admin().String(), "/metrics"); !strings.Contains(metrics, "licensed_"+name) {
			t.Errorf("metrics lack %s", name)
		}
	}
	// The stub is closed now; nothing is left in the archive that nobody names.
	passivate(t, n)
	req := &licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley", All: true}
	if _, err := admin(n).ArchiveCustomer(t.Context(), connect.NewRequest(req)); err != nil {
		t.Error(err)
	}
	until(func() bool { return len(findings(t, n)) == 0 }) // a running archiver is a finding, too
}

// findings examines Bayley.
func findings(t *testing.T, n *node.Node) []*licensedv1.Finding {
	t.Helper()
	stream, err := admin(n).VerifyCustomer(t.Context(),
		connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var report *licensedv1.CustomerReport
	for stream.Receive() {
		report = stream.Msg().Report
	}
	if err := stream.Err(); err != nil || report == nil {
		t.Fatalf("%v, %v", report, err)
	}
	return report.Findings
}

// TestArchiveOnDemand archives what is closed, though it is little.
func TestArchiveOnDemand(t *testing.T) {
	c, _ := config(t)
	c.Archiver.ScanEvery = time.Hour
	n := start(t, c)
	for i := range 3 {
		if _, err := acquire(t, n, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
		passivate(t, n)
	}
	req := &licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley"}
	res, err := admin(n).ArchiveCustomer(t.Context(), connect.NewRequest(req))
	if err != nil || res.Msg.Events != 0 {
		t.Errorf("not worth a segment: %v, %v", res, err)
	}
	req.All = true
	res, err = admin(n).ArchiveCustomer(t.Context(), connect.NewRequest(req))
	hot, cold := wantHistory(t, n)
	if err != nil || int(res.Msg.Events) != cold || hot != 0 || cold == 0 || res.Msg.Segments != 1 {
		t.Errorf("%v, %v; %d events are hot, %d archived", res, err, hot, cold)
	}
}

// TestWrongArchive: a node does not start on another archive, nor on an empty directory in its place.
func TestWrongArchive(t *testing.T) {
	c, _ := config(t)
	c.Archive = filepath.Join(t.TempDir(), "other-disk")
	if err := start(t, c).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.Archive, c.Archive+"-unmounted"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := node.Start(t.Context(), c); !errors.Is(err, storage.ErrWrongArchive) {
			t.Fatalf("empty directory: %v, want ErrWrongArchive", err)
		}
	}
	c.Archive += "-unmounted"
	if _, err := acquire(t, start(t, c), "c1"); err != nil {
		t.Error(err)
	}
}

// TestArchiveNobody: a customer without history has nothing to archive, which is no defect.
func TestArchiveNobody(t *testing.T) {
	c, _ := agedConfig(t)
	n := start(t, c)
	_, err := admin(n).ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: "nobody"}))
	if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "nobody has no history") {
		t.Errorf("%v, want NotFound", err)
	}
}
