package browser_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// service is a node with an embedded store, and clients of it.
type service struct {
	*testing.T
	*node.Node
	licenses licensedv1connect.LicenseServiceClient
	admin    licensedv1connect.AdminServiceClient
	commands int
}

// start starts a node; change adapts its configuration.
func start(t *testing.T, change func(*node.Config)) *service {
	t.Helper()
	c := node.DefaultConfig()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.Listen, c.Admin = "127.0.0.1:0", "127.0.0.1:0"
	c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	c.Runtime.SnapshotEvery = 4
	if change != nil {
		change(&c)
	}
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	url := "http://" + n.API().String()
	return &service{
		T: t, Node: n, licenses: licensedv1connect.NewLicenseServiceClient(http.DefaultClient, url),
		admin: licensedv1connect.NewAdminServiceClient(http.DefaultClient, url),
	}
}

// url returns that of a page of the dashboard.
func (s *service) url(page string) string {
	return "http://" + s.Admin().String() + "/dashboard/" + page
}

// id returns that of the next command.
func (s *service) id() string {
	s.commands++
	return "c" + string(rune('a'+s.commands/26)) + string(rune('a'+s.commands%26))
}

// acquire acquires a licence; a refusal is fine.
func (s *service) acquire(customer, device, title string) {
	s.Helper()
	_, err := s.licenses.AcquireLicense(s.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: device, TitleId: title, CommandId: s.id(),
	}))
	s.fine(err)
}

func (s *service) renew(customer, device, title string) {
	s.Helper()
	_, err := s.licenses.RenewLicense(s.Context(), connect.NewRequest(&licensedv1.RenewLicenseRequest{
		CustomerId: customer, DeviceId: device, TitleId: title, CommandId: s.id(),
	}))
	s.fine(err)
}

func (s *service) release(customer, device, title string) {
	s.Helper()
	_, err := s.licenses.ReleaseLicense(s.Context(), connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
		CustomerId: customer, DeviceId: device, TitleId: title, CommandId: s.id(),
	}))
	s.fine(err)
}

func (s *service) play(customer, device, title string) {
	s.Helper()
	_, err := s.licenses.RecordPlayback(s.Context(), connect.NewRequest(&licensedv1.RecordPlaybackRequest{
		CustomerId: customer, DeviceId: device, TitleId: title, CommandId: s.id(),
	}))
	s.fine(err)
}

func (s *service) archive(customer string) {
	s.Helper()
	res, err := s.admin.ArchiveCustomer(s.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: customer, All: true}))
	if err != nil || res.Msg.Events == 0 {
		s.Fatalf("archive %s: %v, %v", customer, res, err)
	}
}

func (s *service) fine(err error) {
	s.Helper()
	if err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		s.Fatal(err)
	}
}

// life gives a customer some history: a part of it archived, a refusal, a release.
func (s *service) life(customer string) {
	s.Helper()
	s.acquire(customer, "iphone", "GlowS01E01")
	s.acquire(customer, "iphone", "GlowS01E02")
	s.acquire(customer, "ipad", "GlowS01E01")
	s.play(customer, "iphone", "GlowS01E01")
	s.renew(customer, "iphone", "GlowS01E01")
	s.archive(customer)
	s.release(customer, "iphone", "GlowS01E02")
	s.acquire(customer, "tv", "GlowS01E01")
	s.acquire(customer, "phone", "GlowS01E01")
	s.acquire(customer, "laptop", "GlowS01E01")
	s.play(customer, "ipad", "GlowS01E01")
}

// get returns the body of a page.
func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
