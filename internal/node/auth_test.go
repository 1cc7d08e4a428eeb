package node_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/internal/throwaway"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestFailClosed: a process with a port that others reach, and that is not protected, does not start, unless that is
// accepted by name; then it reports the risk.
func TestFailClosed(t *testing.T) {
	c, log := config(t)
	c.Listen, c.Admin = "0.0.0.0:0", "0.0.0.0:0"
	_, err := node.Start(t.Context(), c)
	var exposed *node.ExposedError
	if !errors.As(err, &exposed) || len(exposed.Ports) != 2 ||
		!strings.Contains(err.Error(), "--accept-risk open-api") ||
		!strings.Contains(err.Error(), "--accept-risk open-admin") {
		t.Fatalf("%v", err)
	}
	c.AcceptRisks = []string{"open-api"}
	if _, err := node.Start(t.Context(), c); !errors.As(err, &exposed) || len(exposed.Ports) != 1 {
		t.Fatalf("one of two accepted: %v", err)
	}
	c.AcceptRisks = []string{"open-api", "open-admin"}
	n := start(t, c)
	for _, risk := range c.AcceptRisks {
		if strings.Count(log.String(), `level=WARN msg="risk accepted" risk=`+risk) != 1 {
			t.Errorf("%s is not logged once:\n%s", risk, log.String())
		}
	}
	_, port, _ := strings.Cut(n.API().String(), "[::]")
	res, err := licensedv1connect.NewAdminServiceClient(http.DefaultClient, "http://127.0.0.1"+port).GetCluster(
		t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, w := range res.Msg.Cluster.Warnings {
		if strings.Contains(w.Text, "accepts the risk open-a") {
			shown++
		}
	}
	if shown != 2 {
		t.Errorf("%d risks are shown: %v", shown, res.Msg.Cluster.Warnings)
	}
	c.AcceptRisks = []string{"open-door"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `"open-door" is no risk`) {
		t.Errorf("an unknown risk: %v", err)
	}
}

// TestExposure: each port of each role is protected by what belongs to it.
func TestExposure(t *testing.T) {
	certificate := tlsfiles.Files{Cert: "cert.pem", Key: "key.pem"}
	member := func(c *node.Config) {
		c.Store, c.Roles = "cassandra://127.0.0.1/k", node.RoleNode
		c.Admin = ""
	}
	for name, test := range map[string]struct {
		change func(*node.Config)
		want   string
	}{
		"loopback":           {func(*node.Config) {}, ""},
		"IPv6 loopback":      {func(c *node.Config) { c.Listen = "[::1]:8080" }, ""},
		"all of loopback":    {func(c *node.Config) { c.Listen = "127.3.2.1:8080" }, ""},
		"localhost":          {func(c *node.Config) { c.Listen = "localhost:8080" }, ""},
		"every interface":    {func(c *node.Config) { c.Listen = ":8080" }, "open-api"},
		"unknown name":       {func(c *node.Config) { c.Listen = "no-such-host.invalid:8080" }, "open-api"},
		"TLS alone":          {func(c *node.Config) { c.Listen, c.APITLS = ":8080", certificate }, "open-api"},
		"an auth file alone": {func(c *node.Config) { c.Listen, c.AuthFile = ":8080", "auth.yaml" }, "open-api"},
		"TLS and auth file":  {func(c *node.Config) { c.Listen, c.APITLS, c.AuthFile = ":80", certificate, "a" }, ""},
		"operations":         {func(c *node.Config) { c.OperationsListen = ":8082" }, "open-operations"},
		"a node has none":    {func(c *node.Config) { member(c); c.OperationsListen = ":8082" }, ""},
		"admin":              {func(c *node.Config) { c.Admin = "10.0.0.7:8081" }, "open-admin"},
		"admin token alone":  {func(c *node.Config) { c.Admin, c.Dashboard.TokenFile = ":8081", "t" }, "open-admin"},
		"admin TLS and token": {func(c *node.Config) {
			c.Admin, c.AdminTLS, c.Dashboard.TokenFile = ":8081", certificate, "t"
		}, ""},
		"a node has no API": {func(c *node.Config) { member(c); c.Listen = ":8080" }, ""},
		"node port": {
			func(c *node.Config) { member(c); c.Cluster.NodeListen = ":7947" }, "open-node open-callers",
		},
		"node port of a gateway": {func(c *node.Config) {
			member(c)
			c.Roles, c.Cluster.NodeListen = node.RoleGateway, ":7947"
		}, "open-node"},
		"gossip": {func(c *node.Config) { member(c); c.Cluster.Bind = ":7946" }, "open-gossip"},
		"protected member": {func(c *node.Config) {
			member(c)
			c.Cluster.Bind, c.Cluster.NodeListen, c.Cluster.KeyFile, c.Cluster.NodeTLS = ":1", ":2", "key", certificate
			c.AuthFile = "auth.yaml"
		}, ""},
		"embedded has no gossip": {func(c *node.Config) { c.Cluster.Bind, c.Cluster.NodeListen = ":1", ":2" }, ""},
	} {
		c, _ := config(t)
		test.change(&c)
		got := ""
		for _, p := range c.Exposed() {
			got += " " + p.Name
		}
		if got = strings.TrimSpace(got); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// secured is a node with TLS and an auth file, for which a directory has certificates and tokens.
type secured struct {
	*node.Node
	t   *testing.T
	dir string
}

func startSecured(t *testing.T) secured {
	t.Helper()
	s := secured{t: t, dir: t.TempDir()}
	if err := errors.Join(throwaway.Certs(s.dir, nil), throwaway.Tokens(s.dir)); err != nil {
		t.Fatal(err)
	}
	c, _ := config(t)
	c.APITLS = tlsfiles.Files{Cert: s.file("server.pem"), Key: s.file("server-key.pem"), CA: s.file("ca.pem")}
	c.AdminTLS, c.AuthFile = c.APITLS, s.file("auth.yaml")
	c.Listen, c.Admin = "127.0.0.1:0", "127.0.0.1:0"
	s.Node = start(t, c)
	return s
}

func (s secured) file(name string) string { return filepath.Join(s.dir, name) }

// client returns one that shows the certificate of a role, if any, and sends the token of another, if any.
func (s secured) client(certificate, token string) *http.Client {
	s.t.Helper()
	ca, err := os.ReadFile(s.file("ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(ca)
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(s.file(certificate+".pem"), s.file(certificate+"-key.pem"))
		if err != nil {
			s.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if token != "" {
		content, err := os.ReadFile(s.file(token + ".token"))
		if err != nil {
			s.t.Fatal(err)
		}
		token = strings.TrimSpace(string(content))
	}
	transport := &http.Transport{TLSClientConfig: c}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     tokenTransport{transport, token},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type tokenTransport struct {
	http.RoundTripper
	token string
}

func (b tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.RoundTripper.RoundTrip(r)
}

// TestCallersOfTheAPI come with a certificate or a token, over TLS.
func TestCallersOfTheAPI(t *testing.T) {
	s := startSecured(t)
	for _, test := range []struct {
		certificate, token string
		want               connect.Code
	}{
		{"", "", connect.CodeUnauthenticated},
		{"", "metrics", connect.CodePermissionDenied},
		{"", "customer", 0},
		{"", "service", 0},
		{"service", "", 0},
		{"operator", "", connect.CodePermissionDenied},
		{"operator", "service", 0}, // The token takes precedence.
	} {
		_, err := licensedv1connect.NewLicenseServiceClient(s.client(test.certificate, test.token), s.APIURL()).
			ListDevices(t.Context(), connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: throwaway.Customer}))
		if got := connect.Code(0); err != nil {
			if got = connect.CodeOf(err); got != test.want {
				t.Errorf("%+v: %v", test, err)
			}
		} else if test.want != 0 {
			t.Errorf("%+v is allowed", test)
		}
	}
}

// TestAdminPortKnowsRoles: metrics, profiles and dashboard need a role each, and health checks none.
func TestAdminPortKnowsRoles(t *testing.T) {
	s := startSecured(t)
	for _, test := range []struct {
		certificate, token, path string
		want                     int
	}{
		{"", "", "/healthz", http.StatusOK},
		{"", "", "/readyz", http.StatusOK},
		{"", "", "/metrics", http.StatusUnauthorized},
		{"", "metrics", "/metrics", http.StatusOK},
		{"metrics", "", "/metrics", http.StatusOK},
		{"", "service", "/metrics", http.StatusForbidden},
		{"", "", "/debug/pprof/symbol", http.StatusSeeOther},
		{"", "metrics", "/debug/pprof/symbol", http.StatusForbidden},
		{"", "operator", "/debug/pprof/symbol", http.StatusOK},
		{"", "operator", "/debug/pprof/cmdline", http.StatusNotFound},
		{"", "", "/dashboard/", http.StatusSeeOther},
		{"", "service", "/dashboard/", http.StatusForbidden},
		{"", "support", "/dashboard/customers", http.StatusOK},
		{"support", "", "/dashboard/customers", http.StatusOK},
	} {
		res, err := s.client(test.certificate, test.token).Get("https://" + s.Admin().String() + test.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != test.want {
			t.Errorf("%+v: %s", test, res.Status)
		}
	}
}

// TestSupportLogsIn: a browser that logs in with a token of the auth file acts as its owner, until it logs out; an
// exception needs a reason.
func TestSupportLogsIn(t *testing.T) {
	s := startSecured(t)
	shop := licensedv1connect.NewLicenseServiceClient(s.client("", "service"), s.APIURL())
	if _, err := shop.AcquireLicense(t.Context(),
		connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c",
		})); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(s.file("support.token"))
	if err != nil {
		t.Fatal(err)
	}
	browser, base := s.client("", ""), "https://"+s.Admin().String()
	var cookie *http.Cookie
	post := func(path string, form url.Values) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != nil {
			r.AddCookie(cookie)
		}
		res, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, c := range res.Cookies() {
			if c.Value != "" {
				cookie = c
			}
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	if code, _ := post("/dashboard/login", url.Values{"token": {strings.TrimSpace(string(token))}}); cookie == nil ||
		!cookie.Secure || code != http.StatusSeeOther {
		t.Fatalf("log in: %d, %v", code, cookie)
	}
	removal := url.Values{"id": {"Bayley"}, "device": {"iphone"}, "command": {"dashboard-1"}}
	if code, body := post("/dashboard/devices/remove", removal); code/100 != 4 || !strings.Contains(body, "reason") {
		t.Errorf("without a reason: %d %s", code, body)
	}
	removal.Set("reason", "lost it, says the customer – twice")
	if code, body := post("/dashboard/devices/remove", removal); code != http.StatusSeeOther {
		t.Errorf("with a reason: %d %s", code, body)
	}
	if code, _ := post("/dashboard/logout", nil); code != http.StatusSeeOther {
		t.Errorf("log out: %d", code)
	}
	if code, _ := post("/dashboard/devices/remove", removal); code != http.StatusUnauthorized {
		t.Errorf("after the log-out the session is accepted: %d", code)
	}
}

// TestRebinding: no port answers under the name of another site.
func TestRebinding(t *testing.T) {
	c, _ := config(t)
	n := start(t, c)
	for _, url := range []string{
		"http://" + n.API().String() + "/", "http://" + n.Admin().String() + "/metrics",
		"http://" + n.Admin().String() + "/debug/pprof/", "http://" + n.Admin().String() + "/dashboard/",
	} {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example.com"
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", url, res.Status)
		}
	}
}

// TestAuditFile: what support does in the dashboard and what an operator does is in the file, and a file that was
// changed ends the next start.
func TestAuditFile(t *testing.T) {
	c, _ := config(t)
	c.AuditFile = filepath.Join(t.TempDir(), "audit.log")
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Fatal(err)
	}
	passivate(t, n)
	if code, _ := get(t, n.Admin().String(), "/dashboard/customer?id=Bayley"); code != http.StatusOK {
		t.Errorf("dashboard: %d", code)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(c.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"AdminService/PassivateCustomer", "HistoryService/", `"source":"in process"`} {
		if !strings.Contains(string(content), want) {
			t.Errorf("no %s in\n%s", want, content)
		}
	}
	if strings.Contains(string(content), "AcquireLicense") {
		t.Errorf("licence calls are recorded:\n%s", content)
	}
	changed := strings.Replace(string(content), "Bayley", "Robin", 1)
	if err := os.WriteFile(c.AuditFile, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "audit log") {
		t.Errorf("started with a log that was changed: %v", err)
	}
}

// TestAuditExport: the collector gets the lines of the file, also those of the last moment.
func TestAuditExport(t *testing.T) {
	collected, endpoint := startCollector(t)
	c, _ := config(t)
	c.AuditFile, c.Traces.Endpoint = filepath.Join(t.TempDir(), "audit.log"), endpoint
	n, err := node.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Fatal(err)
	}
	passivate(t, n)
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(c.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	collected.mu.Lock()
	defer collected.mu.Unlock()
	var lines strings.Builder
	for _, r := range collected.logs {
		fmt.Fprintln(&lines, r.Body.GetStringValue())
		if r.EventName != "licensed.audit" || len(r.Attributes) < 4 {
			t.Errorf("a record without its fields: %v", r)
		}
	}
	if lines.Len() == 0 || lines.String() != string(content) {
		t.Errorf("collected\n%s\nwant the file\n%s", lines.String(), content)
	}
}

// TestOperationsListen: with a port for operators, the API for clients has no AdminService.
func TestOperationsListen(t *testing.T) {
	c, _ := config(t)
	c.OperationsListen = "127.0.0.1:0"
	n := start(t, c)
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Fatal(err)
	}
	nodeAt := func(address string) error {
		_, err := licensedv1connect.NewAdminServiceClient(http.DefaultClient, "http://"+address).GetNode(t.Context(),
			connect.NewRequest(&licensedv1.GetNodeRequest{}))
		return err
	}
	if err := nodeAt(n.API().String()); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("the API for clients: %v", err)
	}
	if err := nodeAt(n.Operations().String()); err != nil {
		t.Errorf("the port for operators: %v", err)
	}
	if code, _ := get(t, n.Admin().String(), "/dashboard/customers"); code != http.StatusOK {
		t.Errorf("dashboard: %d", code)
	}
}
