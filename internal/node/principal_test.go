package node_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/gateway/auth"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// tokens writes an auth file with a token "ROLE-token" for each of some roles.
func tokens(t testing.TB, roles ...string) string {
	t.Helper()
	content := "tokens:\n"
	for _, role := range roles {
		content += fmt.Sprintf("  - {subject: %s, roles: [%s], sha256: %x}\n",
			role, role, sha256.Sum256([]byte(role+"-token")))
	}
	name := filepath.Join(t.TempDir(), "auth.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// as is a transport of HTTP for a caller with a token of that role.
type as string

func (role as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(role)+"-token")
	return http.DefaultTransport.RoundTrip(r)
}

// page returns a page of the admin port of a process.
func page(t testing.TB, n *node.Node, role as, path string) string {
	t.Helper()
	res, err := (&http.Client{Transport: role}).Get("http://" + n.Admin().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, res.Status, err)
	}
	return string(body)
}

// TestPrincipal: events have who gave their command and why, also where another process owns the customer, and the
// history, Follow and Why show it.
func TestPrincipal(t *testing.T) {
	c := newCompany(t)
	file := tokens(t, "service", "support")
	c.with = func(config *node.Config) { config.AuthFile = file }
	c.start("n1", node.RoleNode)
	g := c.start("g1", node.RoleGateway)
	services := func(role as) (licensedv1connect.LicenseServiceClient, licensedv1connect.HistoryServiceClient) {
		h := &http.Client{Transport: role}
		return licensedv1connect.NewLicenseServiceClient(h, g.APIURL()),
			licensedv1connect.NewHistoryServiceClient(h, g.APIURL())
	}
	shop, _ := services("service")
	support, history := services("support")
	if _, err := shop.AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "Roma", CommandId: "c1",
	})); err != nil {
		t.Fatal(err)
	}
	remove := connect.NewRequest(&licensedv1.DeactivateDeviceRequest{
		CustomerId: "Bayley", DeviceId: "iphone", CommandId: "c2",
	})
	remove.Header().Set(auth.ReasonHeader, url.PathEscape("lost phone, José"))
	if _, err := support.DeactivateDevice(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	// The reason in a message is that of its events.
	if _, err := support.GrantException(t.Context(), connect.NewRequest(&licensedv1.GrantExceptionRequest{
		CustomerId: "Bayley", CommandId: "c3", Reason: "ticket 4711",
		Kind: &licensedv1.GrantExceptionRequest_Limit{Limit: &licensedv1.OtherLimit{
			Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: new(uint32(5)),
		}}, Until: timestamppb.New(time.Now().Add(time.Hour)),
	})); err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{
		"c1": {"tokens:service", ""}, "c2": {"tokens:support", "lost phone, José"},
		"c3": {"tokens:support", "ticket 4711"},
	}
	check := func(by string, items []*licensedv1.HistoryItem) int {
		for _, i := range items {
			e := i.GetEvent()
			if got := [2]string{e.Principal, e.Reason}; got != want[e.CommandId] {
				t.Errorf("%s: %s of %s is by %q", by, e.Event, e.CommandId, got)
			}
		}
		return len(items)
	}
	events, err := history.ListEvents(t.Context(), connect.NewRequest(
		&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for events.Receive() {
		listed += check("ListEvents", events.Msg().Items)
	}
	if err := events.Err(); err != nil || listed < 5 {
		t.Errorf("%d events, %v", listed, err)
	}
	follow, err := history.Follow(t.Context(), connect.NewRequest(
		&licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: new(uint64(0))}))
	if err != nil {
		t.Fatal(err)
	}
	for followed := 0; followed < listed && follow.Receive(); {
		followed += check("Follow", follow.Msg().Items)
	}
	if err := follow.Close(); err != nil {
		t.Error(err)
	}
	why, err := history.Why(t.Context(), connect.NewRequest(
		&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "Roma"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range why.Msg.Steps {
		if got := [2]string{s.Principal, s.Reason}; got != want[s.CommandId] {
			t.Errorf("Why: %s is by %q", s.Text, got)
		}
	}
	for path, shown := range map[string]string{
		"devices?id=Bayley": "by tokens:support (lost phone, José)", "customer?id=Bayley": "by tokens:service",
		"customer?id=Bayley&whydevice=iphone&whytitle=Roma": "By tokens:support. Reason: lost phone, José.",
	} {
		if !strings.Contains(page(t, g, "support", "/dashboard/"+path), shown) {
			t.Errorf("%s is without %q", path, shown)
		}
	}
}

// TestOwnerDecides: a gateway that asks nobody for credentials gets nothing of a node that has an auth file, and what
// operators ask for needs a token that the node accepts.
func TestOwnerDecides(t *testing.T) {
	c := newCompany(t)
	file := tokens(t, "service", "operator")
	c.with = func(config *node.Config) { config.AuthFile = file }
	n1 := c.start("n1", node.RoleNode)
	g := c.start("g1", node.RoleGateway)
	c.with = func(*node.Config) {}
	open := c.start("g2", node.RoleGateway)

	if _, err := acquire(t, open, "c1"); connect.CodeOf(err) != connect.CodePermissionDenied ||
		!strings.Contains(err.Error(), "does not say who it acts for") {
		t.Errorf("a command for nobody: %v", err)
	}
	if _, err := client(open).ListDevices(t.Context(), connect.NewRequest(
		&licensedv1.ListDevicesRequest{CustomerId: "Bayley"})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a question for nobody: %v", err)
	}
	drain := func(a licensedv1connect.AdminServiceClient) error {
		_, err := a.DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"}))
		return err
	}
	if err := drain(admin(open)); connect.CodeOf(err) != connect.CodePermissionDenied ||
		!strings.Contains(err.Error(), "needs the operator's token") {
		t.Errorf("a drain by nobody: %v", err)
	}
	metrics := page(t, n1, "operator", "/metrics")
	for _, counted := range []string{`reason="no_principal"} 2`, `reason="no_token"} 1`} {
		if !strings.Contains(metrics, "licensed_cluster_denied_requests_total{"+counted) {
			t.Errorf("the node does not count %s", counted)
		}
	}
	operator := licensedv1connect.NewAdminServiceClient(&http.Client{Transport: as("operator")}, g.APIURL())
	if _, err := operator.PassivateCustomer(t.Context(),
		connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
		t.Error(err)
	}
	if err := drain(operator); err != nil {
		t.Error(err)
	}
}
