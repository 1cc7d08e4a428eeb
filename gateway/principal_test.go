package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/budget"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// as returns a client with the token of a role.
func as(r *rig, role string) licensedv1connect.LicenseServiceClient {
	return licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: withToken("token-" + role)}, r.url)
}

// checkLimit checks that an error names a limit and its scope.
func checkLimit(t *testing.T, name string, err error, limit string, scope budget.Scope) {
	t.Helper()
	checkError(t, name, err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "not executed")
	info, _ := detail[*errdetails.ErrorInfo](t, err)
	if info.GetMetadata()["limit"] != limit || info.GetMetadata()["scope"] != string(scope) {
		t.Errorf("%s: limit %v, want %s of %s", name, info.GetMetadata(), limit, scope)
	}
	if again, ok := detail[*errdetails.RetryInfo](t, err); !ok || again.RetryDelay.AsDuration() <= 0 {
		t.Errorf("%s: no time to retry after", name)
	}
}

// TestPrincipalShare: a customer with credentials of its own uses up its own share, then services use up what there is,
// and support gets through all the same.
func TestPrincipalShare(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := guarded(t, holding(entered, leave), func(c *gateway.Config) {
		c.MaxInFlight, c.AddressShare, c.CustomerShare = 4, 1, 0.5
	})
	done := make(chan error)
	hold := func(role string) {
		go func() {
			_, err := as(r, role).AcquireLicense(context.Background(), connect.NewRequest(acquire()))
			done <- err
		}()
		<-entered
	}
	hold("customer")
	hold("customer")
	_, err := as(r, "customer").AcquireLicense(t.Context(), connect.NewRequest(acquire()))
	checkLimit(t, "a third one", err, "requests", budget.Principal)
	hold("service")
	hold("service")
	_, err = as(r, "service").AcquireLicense(t.Context(), connect.NewRequest(acquire()))
	checkLimit(t, "beside the customer's", err, "requests", budget.All)
	if _, err := as(r, "support").ListLicenses(t.Context(),
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"})); connect.CodeOf(err) ==
		connect.CodeResourceExhausted {
		t.Errorf("support: %v", err)
	}
	close(leave)
	for range 4 {
		if err := <-done; connect.CodeOf(err) != connect.CodeUnavailable {
			t.Error(err)
		}
	}
	if got := r.metric(t, `licensed_gateway_limit_refusals_total{limit="requests",scope="principal"}`); got != "1" {
		t.Errorf("counted %s refusals, want 1", got)
	}
	r.unused(t, allLimits...)
}

// TestPrincipalRate: what is too often for one principal is not executed, alone or in a session, and slows down no
// other one.
func TestPrincipalRate(t *testing.T) {
	f := failing(actors.ErrNotOwner)
	r := guarded(t, f, func(c *gateway.Config) { c.Rates = budget.Each{Customer: 0.5} }) // 5 at once
	s := openSession(t, &http.Client{Transport: withToken("token-customer")}, r.url)     // The first of them.
	limitsOf(t, s)
	sendCalls(t, s, acquireCall(1), acquireCall(2))
	for _, o := range await(t, s, 2) {
		if err := errorOf(o.GetError()); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Error(err)
		}
	}
	acquireAs := func(role string) error {
		_, err := as(r, role).AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		return err
	}
	for range 2 {
		if err := acquireAs("customer"); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Error(err)
		}
	}
	checkLimit(t, "too many", acquireAs("customer"), "request_rate", budget.Principal)
	sendCalls(t, s, acquireCall(3))
	for _, o := range await(t, s, 1) {
		checkLimit(t, "too many in a session", errorOf(o.GetError()), "request_rate", budget.Principal)
	}
	if err := acquireAs("service"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("another principal: %v", err)
	}
	if len(f.commands) != 5 {
		t.Errorf("%d commands reached the aggregates, want 5", len(f.commands))
	}
	_ = s.CloseRequest()
	if got := r.metric(t, `licensed_gateway_limit_refusals_total{limit="request_rate",scope="principal"}`); got != "2" {
		t.Errorf("counted %s refusals, want 2", got)
	}
}

// TestAddressRate holds for an open API, in every protocol.
func TestAddressRate(t *testing.T) {
	r := start(t, failing(actors.ErrNotOwner), func(c *gateway.Config) { c.Rates = budget.Each{Address: 0.1} }) // 1
	for name, client := range protocols(t, r.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		if connect.CodeOf(err) == connect.CodeUnavailable {
			continue // The first.
		}
		if name == "session" { // The stream is refused; the client of this test does not keep the details.
			continue
		}
		checkError(t, name, err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "127.0.0.1")
	}
	if got := r.metric(t, `licensed_gateway_limit_refusals_total{limit="request_rate",scope="share"}`); got == "0" {
		t.Error("no request was refused")
	}
}

// TestNewCustomers: an address may begin a bounded number of histories a minute; customers that exist are served all
// the same.
func TestNewCustomers(t *testing.T) {
	f := failing(actors.ErrNotOwner)
	known := map[string]bool{"Bayley": true}
	r := start(t, &heads{f, known}, func(c *gateway.Config) { c.NewCustomers = 2 })
	acquireFor := func(customer string) error {
		m := acquire()
		m.CustomerId = customer
		_, err := protocols(t, r.url)["grpc"].AcquireLicense(t.Context(), connect.NewRequest(m))
		return err
	}
	for _, customer := range []string{"Bayley", "new1", "new2", "new2", "Bayley"} {
		if err := acquireFor(customer); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: %v", customer, err)
		}
	}
	checkLimit(t, "new3", acquireFor("new3"), "new_customers", budget.Share)
	known["new3"] = true // By another gateway.
	for _, customer := range []string{"new1", "new3"} {
		if err := acquireFor(customer); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s afterwards: %v", customer, err)
		}
	}
	if n := len(f.commands); n != 7 {
		t.Errorf("%d commands reached the aggregates, want 7", n)
	}
}

// heads answers where the histories of customers end.
type heads struct {
	*fake
	known map[string]bool
}

func (h *heads) Query(_ context.Context, customer string, q any) (actors.Answer, error) {
	if _, ok := q.(actors.HeadQuery); !ok {
		return actors.Answer{}, errors.New(fmt.Sprint("not the head: ", q))
	}
	if strings.HasPrefix(customer, "new") && !h.known[customer] {
		return actors.Answer{}, nil
	}
	return actors.Answer{Head: persistence.Head{Sequence: 1}}, nil
}
