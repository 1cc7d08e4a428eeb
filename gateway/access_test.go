package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"licensed/actors"
	"licensed/gateway"
	"licensed/gateway/auth"
	"licensed/gateway/server"
	"licensed/internal/auditlog"
	"licensed/internal/budget"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// tokensFile returns an auth file in which each role has the token "token-ROLE".
func tokensFile(t testing.TB) string {
	t.Helper()
	var f auth.File
	for _, r := range auth.AllRoles() {
		name := auth.RoleName(r)
		token := auth.Token{Subject: name, Roles: []string{name}, SHA256: hashOf("token-" + name)}
		if r == licensedv1.Role_ROLE_CUSTOMER {
			token.Customer = "Bayley"
		}
		f.Tokens = append(f.Tokens, token)
	}
	f.Tokens = append(f.Tokens, auth.Token{
		Subject: "former", Roles: []string{"service"}, SHA256: hashOf("token-former"), Expires: noon,
	})
	content, err := yaml.Marshal(&f)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "auth.yaml")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// guarded starts a gateway with all services that asks for credentials.
func guarded(t testing.TB, a gateway.Aggregates, change ...func(*gateway.Config)) *rig {
	t.Helper()
	v, err := auth.Open(auth.Config{
		File: tokensFile(t), Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return start(t, a, append([]func(*gateway.Config){func(c *gateway.Config) {
		p := newPast(t)
		h := historyConfig(p)
		c.HistoryReader, c.Operations, c.Kind, c.PolicyVersion = h.HistoryReader, h.Operations, h.Kind, h.PolicyVersion
		c.Authenticator, c.Rates = v, budget.Each{}
	}}, change...)...)
}

// ask sends a request with a message in JSON, by the protocol for streams if the method has one, and returns the
// status and the body of the answer.
func ask(t testing.TB, r *rig, method, token, message string, header http.Header) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body, kind := []byte(message), "application/json"
	if streams(method) {
		kind = "application/connect+json"
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
		if strings.HasSuffix(method, "/Session") {
			body = nil
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

func streams(method string) bool {
	return slices.Contains([]string{"ListEvents", "Follow", "VerifyCustomer", "Session"},
		method[strings.LastIndex(method, "/")+1:])
}

// TestRoles asks for each method in each role.
func TestRoles(t *testing.T) {
	r := guarded(t, failing(actors.ErrNotOwner))
	for _, rule := range auth.Rules() {
		if rule.Roles|rule.WithReason == 0 {
			t.Errorf("%s has no option access", rule.Method)
		}
		for _, role := range auth.AllRoles() {
			for _, about := range []string{"Bayley", "Robin"} {
				for _, reason := range []string{"", "lost%20phone"} {
					want := ""
					switch own := about == "Bayley" || strings.HasSuffix(rule.Method, "/Session"); {
					case role == licensedv1.Role_ROLE_CUSTOMER && rule.Roles.Has(role) && !own:
						want = licensedv1.ReasonOtherCustomer
					case rule.Roles.Has(role):
					case rule.WithReason.Has(role) && reason == "":
						want = licensedv1.ReasonNoReason
					case rule.WithReason.Has(role):
					default:
						want = licensedv1.ReasonNotAllowed
					}
					header := http.Header{}
					if reason != "" {
						header.Set(auth.ReasonHeader, reason)
					}
					message := fmt.Sprintf(`{"customerId":%q,"deviceId":"d","titleId":"t","commandId":"c","planId":"p"}`, about)
					if !strings.Contains(rule.Method, "LicenseService") {
						message = fmt.Sprintf(`{"customerId":%q}`, about)
					}
					if slices.Contains([]string{"GetNode", "GetCluster", "ReloadPolicy", "ListCustomers", "DrainNode",
						"UndrainNode"}, rule.Method[strings.LastIndex(rule.Method, "/")+1:]) {
						message = "{}"
					}
					_, got := ask(t, r, rule.Method, "token-"+auth.RoleName(role), message, header)
					denied := strings.Contains(got, "permission_denied") || strings.Contains(got, "unauthenticated")
					if denied != (want != "") || !strings.Contains(got, detailOf(want)) {
						t.Errorf("%s as %s about %s for reason %q: %s; want %q",
							rule.Method, auth.RoleName(role), about, reason, got, want)
					}
				}
			}
		}
	}
}

// detailOf returns how the detail of an error begins in JSON, in base64: package connect adds it in clear as debug.
func detailOf(reason string) string {
	if reason == "" {
		return ""
	}
	return `"reason":"` + reason + `"`
}

// TestCredentials: what is wrong with credentials is told and counted, on every service but health checks.
func TestCredentials(t *testing.T) {
	r := guarded(t, failing(actors.ErrNotOwner))
	const list = licensedv1connect.LicenseServiceListDevicesProcedure
	for name, test := range map[string]struct {
		token, want, metric string
		status              int
	}{
		"none":    {"", licensedv1.ReasonNoCredentials, "missing", 401},
		"unknown": {"token-other", licensedv1.ReasonBadCredentials, "malformed", 401},
		"expired": {"token-former", licensedv1.ReasonExpiredCredentials, "expired", 401},
		"no role": {"token-metrics", licensedv1.ReasonNotAllowed, "not_allowed", 403},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, r, list, test.token, `{"customerId":"Bayley"}`, nil)
			if status != test.status || !strings.Contains(got, detailOf(test.want)) {
				t.Errorf("%d %s; want %d and %q", status, got, test.status, test.want)
			}
			if n := r.metric(t, `licensed_gateway_denied_total{reason="`+test.metric+`"}`); n != "1" {
				t.Errorf("counted %s times", n)
			}
		})
	}
	for _, reflection := range []string{"v1", "v1alpha"} {
		status, got := ask(t, r, "/grpc.reflection."+reflection+".ServerReflection/ServerReflectionInfo", "", "{}", nil)
		if status != http.StatusUnauthorized {
			t.Errorf("reflection %s without credentials: %d %s", reflection, status, got)
		}
	}
	if status, got := ask(t, r, "/grpc.health.v1.Health/Check", "", "{}", nil); status != http.StatusOK {
		t.Errorf("health check without credentials: %d %s", status, got)
	}
}

// TestDeniedBeforeBody: a caller that may not call the method is answered before it sends its message.
func TestDeniedBeforeBody(t *testing.T) {
	r := guarded(t, failing(actors.ErrNotOwner))
	for _, token := range []string{"wrong", "token-metrics"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n"+
			"Authorization: Bearer %s\r\n\r\n", licensedv1connect.LicenseServiceListDevicesProcedure, token)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // The server waits 10 s for a body.
		line := make([]byte, len("HTTP/1.1 401"))
		if _, err := io.ReadFull(c, line); err != nil || !strings.HasPrefix(string(line), "HTTP/1.1 40") {
			t.Errorf("%s: %q, %v", token, line, err)
		}
	}
}

// TestGETIsAuthorized: a query as GET names its customer in the URL.
func TestGETIsAuthorized(t *testing.T) {
	r := guarded(t, newDomain(t))
	for customer, want := range map[string]int{"Bayley": http.StatusOK, "Robin": http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			r.url+licensedv1connect.LicenseServiceListDevicesProcedure+"?encoding=json&connect=v1&message="+
				url.QueryEscape(`{"customerId":"`+customer+`"}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer token-customer")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", customer, res.Status)
		}
	}
}

// withToken adds a token to each request.
type withToken string

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(w))
	return h2c.RoundTrip(r)
}

var h2c = func() http.RoundTripper {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols}
}()

// TestSessionIsAuthorized: each call of a session is about the customer of its token.
func TestSessionIsAuthorized(t *testing.T) {
	r := guarded(t, newDomain(t))
	c := overSession(t, licensedv1connect.NewLicenseServiceClient(
		&http.Client{Transport: withToken("token-customer")}, r.url, connect.WithGRPC()))
	list := func(customer string) error {
		_, err := c.ListDevices(t.Context(),
			connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: customer}))
		return err
	}
	if err := list("Bayley"); err != nil {
		t.Error(err)
	}
	if err := list("Robin"); connect.CodeOf(err) != connect.CodePermissionDenied ||
		reasonOf(err) != licensedv1.ReasonOtherCustomer {
		t.Errorf("another customer: %v", err)
	}
	_, err := c.ChangePlan(t.Context(), connect.NewRequest(&licensedv1.ChangePlanRequest{
		CustomerId: "Bayley", PlanId: "premium", CommandId: "c",
	}))
	if reasonOf(err) != licensedv1.ReasonNotAllowed {
		t.Errorf("another role's call: %v", err)
	}
}

// expiring accepts everybody, until a time.
type expiring struct{ until time.Time }

func (e expiring) Authenticate(context.Context, auth.Credentials) (*auth.Claims, error) {
	return &auth.Claims{
		Subject: "shop", Issuer: "test", Expiry: e.until,
		Roles: auth.RolesOf(licensedv1.Role_ROLE_SERVICE, licensedv1.Role_ROLE_AUDITOR),
	}, nil
}

// TestStreamsEndWithCredentials: a stream does not outlive the credentials it was opened with.
func TestStreamsEndWithCredentials(t *testing.T) {
	r := guarded(t, newPast(t).life(), func(c *gateway.Config) {
		c.Authenticator = expiring{noon.Add(50 * time.Millisecond)}
	})
	stream, err := licensedv1connect.NewHistoryServiceClient(&http.Client{Transport: h2c}, r.url).Follow(t.Context(),
		connect.NewRequest(&licensedv1.FollowRequest{CustomerId: "Bayley"}))
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
	}
	if err := stream.Err(); reasonOf(err) != licensedv1.ReasonExpiredCredentials {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestSessionsGiveWayToNewCredentials: a session says in time that its credentials expire, and calls after that are
// denied.
func TestSessionsGiveWayToNewCredentials(t *testing.T) {
	var now atomic.Pointer[time.Time]
	at := func(x time.Time) { now.Store(&x) }
	at(noon)
	r := guarded(t, newDomain(t), func(c *gateway.Config) {
		c.Authenticator, c.Now = expiring{noon.Add(time.Second)}, func() time.Time { return *now.Load() }
	})
	c := licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h2c}, r.url, connect.WithGRPC())
	stream := c.Session(t.Context())
	call := callOf(1, &licensedv1.ListDevicesRequest{CustomerId: "Bayley"})
	at(noon.Add(time.Second))
	if err := stream.Send(&licensedv1.SessionRequest{Calls: []*licensedv1.SessionCall{call}}); err != nil {
		t.Fatal(err)
	}
	away, denied := false, false
	for !away || !denied {
		m, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		away = away || m.GoingAway
		for _, o := range m.Outcomes {
			denied = reasonOf(errorOf(o.GetError())) == licensedv1.ReasonExpiredCredentials
		}
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// TestInProcessIsAuthorized: a part of the process acts for the caller in its context, and for nobody without one.
func TestInProcessIsAuthorized(t *testing.T) {
	var c gateway.Config
	guarded(t, newDomain(t), func(config *gateway.Config) { c = *config })
	c.Registry, c.Health = prometheus.NewRegistry(), new(gateway.Health)
	client := licensedv1connect.NewLicenseServiceClient(
		server.InProcess(gateway.New(c, newDomain(t)).Handler()), "http://in.process")
	list := func(ctx context.Context) error {
		_, err := client.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: "Bayley"}))
		return err
	}
	if err := list(t.Context()); reasonOf(err) != licensedv1.ReasonNoCredentials {
		t.Errorf("without claims: %v", err)
	}
	support := auth.NewContext(t.Context(), &auth.Claims{Roles: auth.RolesOf(licensedv1.Role_ROLE_SUPPORT)})
	if err := list(support); err != nil {
		t.Errorf("as support: %v", err)
	}
}

// book is an audit log.
type book struct {
	mu      sync.Mutex
	records []auditlog.Record
	fails   error
}

func (b *book) Append(r auditlog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails == nil {
		b.records = append(b.records, r)
	}
	return b.fails
}

// take returns what was recorded since the last time.
func (b *book) take() (all []auditlog.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, b.records = b.records, nil
	return all
}

// TestAudit: what operators and others do, and what is denied, is recorded once; the service's own business is not.
func TestAudit(t *testing.T) {
	b := new(book)
	r := guarded(t, newDomain(t), func(c *gateway.Config) { c.Audit = b })
	const licenses, history, admin = "/licensed.v1.LicenseService/", "/licensed.v1.HistoryService/",
		"/licensed.v1.AdminService/"
	about := `{"customerId":"Bayley"}`
	release := `{"customerId":"Bayley","deviceId":"d","titleId":"t","commandId":"c"}`
	for _, test := range []struct{ method, role, message, want string }{
		{licenses + "ListDevices", "service", about, ""},
		{licenses + "ListDevices", "customer", about, ""},
		{licenses + "ListDevices", "customer", `{"customerId":"Robin"}`, "other_customer"},
		{licenses + "ListDevices", "support", about, "allowed"},
		{licenses + "ListDevices", "auditor", about, "allowed"},
		{licenses + "ListDevices", "metrics", about, "not_allowed"},
		{licenses + "ReleaseLicense", "support", release, "allowed"},
		{history + "GetState", "support", about, "allowed"},
		{history + "ListEvents", "auditor", about, "allowed"},
		{admin + "DrainNode", "operator", `{"name":"n1"}`, "allowed"},
		{admin + "DrainNode", "service", `{"name":"n1"}`, "not_allowed"},
		{admin + "GetCluster", "metrics", `{}`, ""},
	} {
		header := http.Header{auth.ReasonHeader: {"lost%20phone"}}
		_, answer := ask(t, r, test.method, "token-"+test.role, test.message, header)
		all := b.take()
		if test.want == "" {
			if len(all) > 0 {
				t.Errorf("%+v is recorded: %+v", test, all)
			}
			continue
		}
		if len(all) != 1 || all[0].Decision != test.want || all[0].Method != test.method ||
			all[0].Principal != "tokens:"+test.role || all[0].Roles != test.role || all[0].Reason != "lost phone" ||
			!strings.HasPrefix(all[0].Source, "127.0.0.1:") || !all[0].Time.Equal(noon) {
			t.Errorf("%+v: %+v, %s", test, all, answer)
		}
	}
	if n := r.metric(t, "licensed_gateway_audit_records_total"); n != "9" {
		t.Errorf("%s records are counted", n)
	}
	// A message with a reason of its own needs no header.
	b.take()
	_, answer := ask(t, r, licenses+"GrantException", "token-support",
		`{"customerId":"Bayley","commandId":"c","reason":"stolen tablet","removal":{}}`, nil)
	if all := b.take(); len(all) != 1 || all[0].Decision != "allowed" || all[0].Reason != "stolen tablet" {
		t.Errorf("an exception is recorded as %+v, %s", all, answer)
	}
	// What cannot be recorded is not done.
	b.fails = io.ErrShortWrite
	if status, answer := ask(t, r, admin+"DrainNode", "token-operator", `{"name":"n1"}`, nil); status !=
		http.StatusServiceUnavailable || !strings.Contains(answer, "not executed") {
		t.Errorf("%d %s", status, answer)
	}
}
