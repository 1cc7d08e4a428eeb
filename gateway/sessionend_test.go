package gateway_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/gateway"
	"licensed/messages/licensedv1"
)

// uncompressed has a client get replies as they are, so that their size is certain.
var uncompressed = connect.WithAcceptCompression("gzip", nil, nil)

// TestSessionEnds: whatever a session ends for, its status is true of the calls without an outcome. All reasons why the
// reader stops are combined with what may happen to the calls in progress.
func TestSessionEnds(t *testing.T) {
	list := func(id uint64) *licensedv1.SessionCall {
		return callOf(id, &licensedv1.ListLicensesRequest{CustomerId: "Bayley"})
	}
	send := func(m *licensedv1.SessionRequest) func(*sessionStream, *gateway.Gateway) error {
		return func(s *sessionStream, _ *gateway.Gateway) error { return s.Send(m) }
	}
	stopGateway := func(_ *sessionStream, g *gateway.Gateway) error { g.EndStreams(); return nil }
	nothing := func(*sessionStream, *gateway.Gateway) error { return nil }
	stops := map[string]struct {
		stop   func(*sessionStream, *gateway.Gateway) error
		code   connect.Code // 0: OK
		reason string
	}{
		"close":       {func(s *sessionStream, _ *gateway.Gateway) error { return s.CloseRequest() }, 0, ""},
		"id twice":    {send(callsOf(list(0))), connect.CodeInvalidArgument, licensedv1.ReasonInvalid},
		"many calls":  {send(tooMany()), connect.CodeInvalidArgument, licensedv1.ReasonInvalid},
		"long":        {send(tooLong()), connect.CodeResourceExhausted, licensedv1.ReasonInvalid},
		"gateway":     {stopGateway, connect.CodeUnavailable, licensedv1.ReasonNotExecuted},
		"client deaf": {nothing, connect.CodeResourceExhausted, licensedv1.ReasonOutcomeUnknown},
	}
	// Lists have 24 KB. The third does not fit into what a client accepts that does not read.
	calls := map[string]struct {
		lists         int
		waits         bool // Another call is still in progress when the client has not read for too long.
		late, dropped bool // The client reads late; some outcomes are dropped.
	}{
		"outcomes are read in time":       {lists: 12},
		"outcomes are read late":          {lists: 3, late: true},
		"outcomes are dropped":            {lists: 12, late: true, dropped: true},
		"calls are withdrawn":             {lists: 3, waits: true, late: true, dropped: true},
		"some are dropped, one withdrawn": {lists: 12, waits: true, late: true, dropped: true},
	}
	for why, end := range stops {
		for what, test := range calls {
			if why == "client deaf" && !test.late {
				continue
			}
			t.Run(why+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var executed atomic.Int64
					release := make(chan struct{})
					f := wholeLists(1000)
					answer := f.answer
					f.answer = func(q *licensedv1.Query) (actors.Answer, error) {
						executed.Add(1)
						<-release
						return answer(q)
					}
					f.execute = func(ctx context.Context, id string, c actors.Command) (actors.Reply, error) {
						executed.Add(1)
						return untilGivenUp(ctx, id, c)
					}
					c := gateway.DefaultConfig()
					c.MaxDeadline = time.Hour
					g := gateway.New(c, f)
					s := openSession(t, piped(t, g.Handler())["HTTP/2"], "http://pipe", uncompressed)
					limitsOf(t, s)
					m := &licensedv1.SessionRequest{}
					for id := range uint64(test.lists) {
						m.Calls = append(m.Calls, list(id))
					}
					if test.waits {
						m.Calls = append(m.Calls, acquireCall(1000))
					}
					if err := s.Send(m); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if err := end.stop(s, g); err != nil {
						t.Fatal(err)
					}
					time.Sleep(3 * time.Second) // The gateway ends sessions 2 s after it told the client.
					synctest.Wait()
					close(release)
					if test.late {
						time.Sleep(31 * time.Second)
						synctest.Wait()
					}
					outcomes, err := 0, error(nil)
					for err == nil {
						var m *licensedv1.SessionResponse
						if m, err = s.Receive(); err == nil {
							outcomes += len(m.Outcomes)
						}
					}
					lost := int(executed.Load()) - outcomes
					if want := test.dropped; lost > 0 != want {
						t.Errorf("%d calls of %d have no outcome", lost, executed.Load())
					}
					code, reason := end.code, end.reason
					if test.dropped {
						code, reason = connect.CodeResourceExhausted, licensedv1.ReasonOutcomeUnknown
					}
					if code == 0 {
						if !errors.Is(err, io.EOF) {
							t.Errorf("the session ended with %v, want OK", err)
						}
						return
					}
					checkError(t, "end", err, code, reason, "")
					if test.dropped && strings.Contains(err.Error(), "not executed") {
						t.Errorf("%d calls have no outcome, and the session says: %v", lost, err)
					}
				})
			})
		}
	}
}

// TestSessionOfRefusals: the number of refused calls whose outcomes are not read is bounded, since their memory is that
// of the session.
func TestSessionOfRefusals(t *testing.T) {
	const calls = 1000
	// The first one is executed, and the share of the address has no place for another.
	for what, refused := range map[string]proto.Message{
		"in flight": acquire(), "invalid": &licensedv1.AcquireLicenseRequest{},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := failing(nil)
				f.execute = untilGivenUp
				c := gateway.DefaultConfig()
				registry := prometheus.NewRegistry()
				c.Registry, c.MaxInFlight, c.AddressShare, c.MaxDeadline = registry, 1, 1, time.Hour
				if what == "invalid" {
					c.MaxInFlight, c.Memory = 10_000, 256<<10 // Place for few replies.
				}
				s := openSession(t, piped(t, gateway.New(c, f).Handler())["HTTP/2"], "http://pipe", uncompressed)
				limits := limitsOf(t, s)
				all := []*licensedv1.SessionCall{acquireCall(calls)}
				for id := range uint64(calls) {
					all = append(all, callOf(id, refused))
				}
				if err := sendAll(s, limits, all); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				refusals := observed(t, registry)
				size := 0
				for _, o := range await(t, s, calls) {
					size += proto.Size(o)
				}
				size /= calls
				// What the client accepts, and one message that is being written, are not in the memory of the session.
				if most := (64<<10+32<<10)/size + 100; refusals > most {
					t.Errorf("%d calls were refused with outcomes of %d bytes and nothing was read, want %d at most",
						refusals, size, most)
				}
			})
		})
	}
}

// observed returns the number of calls that a gateway has measured.
func observed(t *testing.T, from prometheus.Gatherer) (n int) {
	t.Helper()
	all, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == "licensed_gateway_request_duration_seconds" {
			for _, series := range family.Metric {
				n += int(series.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}
