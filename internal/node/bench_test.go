package node_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/gateway"
	"licensed/gateway/server"
	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// BenchmarkService measures the whole service, fsync included: acknowledged commands/s over gRPC on
// loopback, over requests/s of an empty handler on the same stack, in turns. Client and server share
// the machine; each rate is the best of a sweep over the requests in flight. One iteration is enough.
func BenchmarkService(b *testing.B) {
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = b.TempDir(), "127.0.0.1:0", ""
	c.Logger = slog.New(slog.DiscardHandler)
	n, err := node.Start(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := n.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	empty, err := server.Listen("127.0.0.1:0", server.DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	_, handler := licensedv1connect.NewLicenseServiceHandler(emptyService{}, gateway.HandlerOptions()...)
	empty.Start(handler)

	over2 := harness.HTTP2(b)
	var targets [2]licensedv1connect.LicenseServiceClient
	for i, address := range []string{empty.Addr().String(), n.API().String()} {
		targets[i] = licensedv1connect.NewLicenseServiceClient(over2, "http://"+address, connect.WithGRPC())
	}
	var best [2]float64
	for b.Loop() {
		l := &commands{}
		for _, inFlight := range []int{32, 128, 512} {
			var took [2]time.Duration
			requests := 0
			for ; took[1] < 2*time.Second; requests += 4000 {
				for i, target := range targets {
					took[i] += l.send(b, target, inFlight, 4000)
				}
			}
			for i := range best {
				best[i] = max(best[i], float64(requests)/took[i].Seconds())
			}
		}
	}
	b.ReportMetric(best[0], "raw-req/s")
	b.ReportMetric(best[1], "service-cmd/s")
	b.ReportMetric(best[1]/best[0], "service/raw")
	b.ReportMetric(0, "ns/op")
}

type emptyService struct {
	licensedv1connect.UnimplementedLicenseServiceHandler
}

func (emptyService) AcquireLicense(
	_ context.Context, r *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	return connect.NewResponse(&licensedv1.AcquireLicenseResponse{
		License: &licensedv1.License{CustomerId: r.Msg.CustomerId, DeviceId: r.Msg.DeviceId, TitleId: r.Msg.TitleId},
	}), nil
}

// commands are spread over this many customers that none has more than the service remembers.
type commands struct {
	next      atomic.Int64
	customers int64 // 5,000 if it is 0
}

// request returns the command of a number.
func (l *commands) request(i int64) *licensedv1.AcquireLicenseRequest {
	return &licensedv1.AcquireLicenseRequest{
		CustomerId: fmt.Sprintf("customer-%04d", i%cmp.Or(l.customers, 5000)),
		DeviceId:   "iphone",
		TitleId:    "GlowS01E01",
		CommandId:  fmt.Sprintf("command-%08d", i),
	}
}

func (l *commands) send(b *testing.B, target licensedv1connect.LicenseServiceClient, inFlight, n int) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	start := time.Now()
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				i := l.next.Add(1)
				if _, err := target.AcquireLicense(b.Context(), connect.NewRequest(l.request(i))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
