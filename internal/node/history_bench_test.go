package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

const manyEvents = 100_000

// roomy allows all that the load asks for.
const roomy = `
version: roomy
default_plan: all
plans: {all: {devices: 100}}
defaults: {studio: any, studio_downloads: unlimited, yearly_limit: unlimited}
`

// BenchmarkHistory measures questions about a customer with 100,000 events, over loopback: all events as
// a stream, the state in the middle of the history, and why a licence is as it is; first with the
// history in the hot tier, then with all that can be in the archive.
func BenchmarkHistory(b *testing.B) {
	h := newLongHistory(b)
	h.grow(manyEvents)
	h.measure(b, "hot")
	if _, err := h.admin.ArchiveCustomer(b.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley", All: true})); err != nil {
		b.Fatal(err)
	}
	h.measure(b, "archived")
	b.ReportMetric(0, "ns/op")
}

// longHistory is a node with a customer whose clock is ours.
type longHistory struct {
	testing.TB
	clock    atomic.Int64 // milliseconds
	licenses licensedv1connect.LicenseServiceClient
	history  licensedv1connect.HistoryServiceClient
	admin    licensedv1connect.AdminServiceClient
}

func newLongHistory(t testing.TB) *longHistory {
	h := &longHistory{TB: t}
	h.clock.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", ""
	c.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(c.Policy, []byte(roomy), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Logger = slog.New(slog.DiscardHandler)
	c.Now = func() time.Time { return time.UnixMilli(h.clock.Load()) }
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	client, url := &http.Client{Transport: transport}, "http://"+n.API().String()
	plain := connect.WithAcceptCompression("gzip", nil, nil)
	h.licenses = licensedv1connect.NewLicenseServiceClient(client, url, plain)
	h.history = licensedv1connect.NewHistoryServiceClient(client, url, plain)
	h.admin = licensedv1connect.NewAdminServiceClient(client, url, plain)
	return h
}

// grow gives commands until the history has this many events: a household with 4 devices and 50 titles, a
// command every 40 seconds.
func (h *longHistory) grow(events uint64) {
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for {
				i := next.Add(1)
				h.clock.Add(40_000)
				device := fmt.Sprint("device-", i/7%4)
				title := fmt.Sprintf("GlowS01E%02d", i/31%50)
				id := fmt.Sprint("c", i)
				last, err := h.command(i, device, title, id)
				switch connect.CodeOf(err) {
				case connect.CodeFailedPrecondition, connect.CodeNotFound, connect.CodeResourceExhausted:
				default: // Refused, or one refusal too many in a second of our clock.
					if err != nil {
						h.Error(err)
						return
					}
				}
				if last >= events {
					return
				}
			}
		})
	}
	clients.Wait()
}

// command gives one command and returns where the history then ended.
func (h *longHistory) command(i int64, device, title, id string) (uint64, error) {
	ctx := h.Context()
	switch i % 10 {
	case 0, 5:
		r, err := h.licenses.AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: device, TitleId: title, CommandId: id,
		}))
		if err != nil {
			return 0, err
		}
		return r.Msg.Sequence, nil
	case 9:
		r, err := h.licenses.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: "Bayley", DeviceId: device, TitleId: title, CommandId: id,
		}))
		if err != nil {
			return 0, err
		}
		return r.Msg.Sequence, nil
	default:
		r, err := h.licenses.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: "Bayley", DeviceId: device, TitleId: title, CommandId: id,
		}))
		if err != nil {
			return 0, err
		}
		return r.Msg.Sequence, nil
	}
}

// measure reports how long each question takes, the best of some.
func (h *longHistory) measure(b *testing.B, where string) {
	b.Helper()
	for _, q := range []struct {
		name string
		ask  func(context.Context) error
	}{
		{"events", h.list},
		{"state-at-middle", func(ctx context.Context) error { return h.stateAt(ctx, manyEvents/2) }},
		{"state-at-first", func(ctx context.Context) error { return h.stateAt(ctx, 60) }},
		{"why", func(ctx context.Context) error {
			_, err := h.history.Why(ctx, connect.NewRequest(
				&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "device-1", TitleId: "GlowS01E07"},
			))
			return err
		}},
		{"verify", h.verify},
	} {
		best := time.Hour
		for range 5 {
			start := time.Now()
			if err := q.ask(b.Context()); err != nil {
				b.Fatalf("%s: %v", q.name, err)
			}
			best = min(best, time.Since(start))
		}
		b.ReportMetric(float64(best.Microseconds())/1000, q.name+"-"+where+"-ms")
	}
}

func (h *longHistory) list(ctx context.Context) error {
	stream, err := h.history.ListEvents(ctx, connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
	if err != nil {
		return err
	}
	defer stream.Close()
	var end *licensedv1.HistoryEnd
	for stream.Receive() {
		end = stream.Msg().End
	}
	if end.GetEvents() < manyEvents || end.GetGaps() > 0 {
		return fmt.Errorf("end %v: %w", end, stream.Err())
	}
	return stream.Err()
}

func (h *longHistory) stateAt(ctx context.Context, sequence uint64) error {
	r, err := h.history.GetState(ctx, connect.NewRequest(&licensedv1.GetStateRequest{
		CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: sequence},
	}))
	if err == nil && r.Msg.Moment.Sequence != sequence {
		err = fmt.Errorf("state at %d", r.Msg.Moment.Sequence)
	}
	return err
}

func (h *longHistory) verify(ctx context.Context) error {
	stream, err := h.admin.VerifyCustomer(ctx,
		connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
	if err != nil {
		return err
	}
	defer stream.Close()
	var report *licensedv1.CustomerReport
	for stream.Receive() {
		report = stream.Msg().Report
	}
	if err := stream.Err(); err != nil {
		return err
	}
	for _, f := range report.GetFindings() {
		if f.Severity != licensedv1.Severity_SEVERITY_NOTE {
			return fmt.Errorf("finding %v", f)
		}
	}
	if !report.GetLiveStateCompared() {
		return fmt.Errorf("the live state was not compared: %v", report)
	}
	return nil
}
