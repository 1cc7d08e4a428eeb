package gateway_test

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/actors"
	"licensed/gateway"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// BenchmarkGateway measures what the gateway adds to the stack below it: requests/s over loopback
// through the gateway, on aggregates that answer at once, over requests/s of a handler that only
// returns the same reply. Both run on the same server and client code, in turns, client and server in
// this process; each rate is the best of a sweep over the requests in flight. It measures for a time
// of its own, so one iteration is enough:
//
//	go test -run '^$' -bench Gateway -benchtime 1x ./gateway
func BenchmarkGateway(b *testing.B) {
	instant := instantAggregates(b)
	through := start(b, instant, func(c *gateway.Config) { c.Now = time.Now }).url
	sample, err := protocols(b, through)["grpc"].AcquireLicense(b.Context(), connect.NewRequest(acquire()))
	if err != nil {
		b.Fatal(err)
	}
	_, bare := licensedv1connect.NewLicenseServiceHandler(empty{reply: sample.Msg}, gateway.HandlerOptions()...)
	mux := http.NewServeMux()
	mux.Handle("/"+licensedv1connect.LicenseServiceName+"/", bare)
	raw := serve(b, mux, slog.Default())
	for _, protocol := range []string{"grpc", "connect/h1", "json/h1"} {
		b.Run(protocol, func(b *testing.B) {
			pair := [2]licensedv1connect.LicenseServiceClient{
				protocols(b, raw)[protocol], protocols(b, through)[protocol],
			}
			var best [2]float64
			for b.Loop() {
				for _, inFlight := range []int{8, 32, 128} {
					for i, rate := range compare(b, pair, inFlight) {
						best[i] = max(best[i], rate)
					}
				}
			}
			b.ReportMetric(best[0], "raw-req/s")
			b.ReportMetric(best[1], "gateway-req/s")
			b.ReportMetric(best[1]/best[0], "gateway/raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// compare returns the rates of both clients with that many requests in flight.
func compare(b *testing.B, pair [2]licensedv1connect.LicenseServiceClient, inFlight int) (rates [2]float64) {
	var took [2]time.Duration
	requests := 0
	for ; took[0] < measured; requests += round {
		for i, client := range pair {
			took[i] += load(b, client, inFlight, round)
		}
	}
	for i := range pair {
		rates[i] = float64(requests) / took[i].Seconds()
	}
	return rates
}

// measured is the time each rate is measured.
const measured = time.Second

// round is the number of requests each side makes before it is the other's turn, so that a disturbance of
// the machine hits both.
const round = 2000

// empty is the smallest handler on the stack.
type empty struct {
	licensedv1connect.UnimplementedLicenseServiceHandler
	reply *licensedv1.AcquireLicenseResponse
}

func (e empty) AcquireLicense(
	context.Context, *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	return connect.NewResponse(e.reply), nil
}

// load makes n requests, that many in flight, and returns the time it took.
func load(b *testing.B, client licensedv1connect.LicenseServiceClient, inFlight, n int) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range inFlight {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				r := acquire()
				r.CommandId = "command-" + strconv.FormatInt(i, 10)
				if _, err := client.AcquireLicense(b.Context(), connect.NewRequest(r)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// instantAggregates answer every command with the same accepted outcome.
func instantAggregates(b *testing.B) gateway.Aggregates {
	d := newDomain(b)
	reply, err := d.Execute(b.Context(), "Bayley", actors.Command{
		ID: "c1", Payload: &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{DeviceId: "iphone", TitleId: "GlowS01E01"},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return &instant{reply: reply}
}

type instant struct {
	gateway.Aggregates
	reply actors.Reply
}

func (a *instant) Execute(context.Context, string, actors.Command) (actors.Reply, error) {
	return a.reply, nil
}
