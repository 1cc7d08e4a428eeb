package deploy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// errFull is a refusal for want of room.
var errFull = connect.NewError(connect.CodeResourceExhausted, errors.New("full"))

// starving answers requests as it is told.
type starving struct {
	licensedv1connect.UnimplementedAdminServiceHandler
	licensedv1connect.UnimplementedLicenseServiceHandler
	node, query, command error
}

func (s *starving) GetNode(
	context.Context, *connect.Request[licensedv1.GetNodeRequest],
) (*connect.Response[licensedv1.GetNodeResponse], error) {
	return connect.NewResponse(&licensedv1.GetNodeResponse{}), s.node
}

func (s *starving) ListLicenses(
	context.Context, *connect.Request[licensedv1.ListLicensesRequest],
) (*connect.Response[licensedv1.ListLicensesResponse], error) {
	return connect.NewResponse(&licensedv1.ListLicensesResponse{}), s.query
}

func (s *starving) AcquireLicense(
	context.Context, *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	return connect.NewResponse(&licensedv1.AcquireLicenseResponse{}), s.command
}

// TestGoodClient: a server that refuses operators, or that starves customers of queries or commands alone, fails the
// fault.
func TestGoodClient(t *testing.T) {
	for name, c := range map[string]struct {
		server *starving
		want   string
	}{
		"serves all":        {&starving{}, ""},
		"refuses operators": {&starving{node: errFull}, "a good client was refused"},
		"starves queries":   {&starving{query: errFull}, "queries of a good client"},
		"starves commands":  {&starving{command: errFull}, "commands of a good client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.Handle(licensedv1connect.NewAdminServiceHandler(c.server))
			mux.Handle(licensedv1connect.NewLicenseServiceHandler(c.server))
			server := httptest.NewServer(mux)
			defer server.Close()
			p := probe{url: server.URL, within: time.Second}
			if c.want == "" {
				p.within = time.Minute
			}
			p.start()
			if err := p.stop(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q; served %s", err, c.want, &p)
			}
		})
	}
}

// TestGoodClientWaits: a customer that was answered, and then is not for longer than it may wait, fails the fault.
func TestGoodClientWaits(t *testing.T) {
	for wait, fails := range map[time.Duration]bool{9 * time.Second: false, 11 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := probe{within: 10 * time.Second, cancel: cancel}
			began := time.Now()
			p.running.Go(func() {
				p.repeat(ctx, &p.query, func(context.Context, *http.Client) error {
					if d := time.Since(began); d > time.Second && d < time.Second+wait {
						return errFull
					}
					return nil
				})
			})
			time.Sleep(15 * time.Second)
			if err := p.stop(); (err != nil) != fails {
				t.Errorf("refused for %v: %v", wait, err)
			}
		})
	}
}
