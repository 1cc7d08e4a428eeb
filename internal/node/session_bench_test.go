package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// BenchmarkSession measures acknowledged commands/s on the embedded store, fsync included, over gRPC on loopback:
// those of one session over those of unary calls of grpc-go, in turns, with that many in flight. Client and server
// share the machine. One iteration is enough:
//
//	go test -run '^$' -bench Session -benchtime 1x ./internal/node
func BenchmarkSession(b *testing.B) {
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = b.TempDir(), "127.0.0.1:0", ""
	c.Limits.AddressShare = 1 // All clients are one address.
	c.MaxStreams = 1024
	c.Logger = slog.New(slog.DiscardHandler)
	n := start(b, c)
	connection, err := grpc.NewClient(n.API().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer connection.Close()
	unary := unaryCalls{calls: licensedv1.NewLicenseServiceClient(connection)}
	client := licensedv1connect.NewLicenseServiceClient(harness.HTTP2(b), "http://"+n.API().String(),
		connect.WithGRPC())
	l := &commands{}
	for _, inFlight := range []int{64, 256, 1024} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			s := open(b, client)
			s.send(b, l, inFlight, 10_000) // Now all customers are in memory.
			for b.Loop() {
				var took, worked [2]time.Duration
				requests := 0
				for ; took[0] < 3*time.Second; requests += 4000 {
					began := cpuTime(b)
					took[0] += l.send(b, unary, inFlight, 4000)
					turn := cpuTime(b)
					took[1] += s.send(b, l, inFlight, 4000)
					worked[0] += turn - began
					worked[1] += cpuTime(b) - turn
				}
				for i, name := range []string{"unary", "session"} {
					b.ReportMetric(float64(requests)/took[i].Seconds(), name+"-cmd/s")
					b.ReportMetric(float64(worked[i].Microseconds())/float64(requests), name+"-µs-CPU/cmd")
				}
				b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "session/unary")
				b.ReportMetric(worked[0].Seconds()/worked[1].Seconds(), "CPU-unary/session")
			}
			b.ReportMetric(0, "ns/op")
			s.close(b)
		})
	}
}

// unaryCalls are made with grpc-go, which costs less CPU than the client of package connect.
type unaryCalls struct {
	licensedv1connect.LicenseServiceClient
	calls licensedv1.LicenseServiceClient
}

func (c unaryCalls) AcquireLicense(
	ctx context.Context, r *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	res, err := c.calls.AcquireLicense(ctx, r.Msg)
	return connect.NewResponse(res), err
}

// pipeline is the client of a session that has a number of calls in flight.
type pipeline struct {
	*connect.BidiStreamForClient[licensedv1.SessionRequest, licensedv1.SessionResponse]
	id uint64
}

func open(b *testing.B, client licensedv1connect.LicenseServiceClient) *pipeline {
	b.Helper()
	p := &pipeline{BidiStreamForClient: client.Session(b.Context())}
	if err := p.Send(nil); err != nil {
		b.Fatal(err)
	}
	if m, err := p.Receive(); err != nil || m.Limits == nil {
		b.Fatal(m, err)
	}
	return p
}

func (p *pipeline) close(b *testing.B) {
	b.Helper()
	if err := p.CloseRequest(); err != nil {
		b.Fatal(err)
	}
	if m, err := p.Receive(); err == nil {
		b.Fatal(m)
	}
}

// send makes n calls, that many in flight, and returns the time it took.
func (p *pipeline) send(b *testing.B, l *commands, inFlight, n int) time.Duration {
	b.Helper()
	start := time.Now()
	answered, sent := make(chan int, inFlight), make(chan error, 1)
	go func() { sent <- p.call(l, inFlight, n, answered) }()
	for left := n; left > 0; {
		m, err := p.Receive()
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range m.Outcomes {
			if o.GetAcquireLicense() == nil {
				b.Fatal(o)
			}
		}
		left -= len(m.Outcomes)
		answered <- len(m.Outcomes)
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// call sends n calls, as many in a message as may be in flight when it is made.
func (p *pipeline) call(l *commands, inFlight, n int, answered <-chan int) error {
	for free := inFlight; n > 0; {
		m := &licensedv1.SessionRequest{}
		for ; free > 0 && n > 0 && len(m.Calls) < 256; free, n = free-1, n-1 {
			p.id++
			m.Calls = append(m.Calls, &licensedv1.SessionCall{
				Id: p.id, Request: &licensedv1.SessionCall_AcquireLicense{AcquireLicense: l.request(l.next.Add(1))},
			})
		}
		if err := p.Send(m); err != nil {
			return err
		}
		for wait := free == 0 && n > 0; wait || len(answered) > 0; wait = false {
			free += <-answered
		}
	}
	return nil
}
