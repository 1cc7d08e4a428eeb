package node_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/internal/certs"
	"licensed/internal/node"
	"licensed/internal/tlsfiles"
)

// issued writes a certificate of that serial number, the CA, and its revocation list.
func issued(t *testing.T, a *certs.Authority, serial int64, lists []byte) tlsfiles.Files {
	t.Helper()
	dir := t.TempDir()
	f := tlsfiles.Files{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
		CRL: filepath.Join(dir, "crl.pem"),
	}
	cert, key := a.SignPEM(serial)
	for file, content := range map[string][]byte{f.Cert: cert, f.Key: key, f.CA: a.PEM(), f.CRL: lists} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// fetched returns the body of a page for a client with the certificate of that serial number; empty if it is refused.
func fetched(t *testing.T, a *certs.Authority, serial int64, url string) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: a.Pool(), Certificates: []tls.Certificate{a.Sign(serial)},
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer scraper's")
	res, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestRevokedCertificates are refused by the API and the admin port, which also tell when theirs expire.
func TestRevokedCertificates(t *testing.T) {
	a := certs.New(t)
	until := time.Now().Add(time.Hour)
	c, log := config(t)
	c.APITLS = issued(t, a, 1, a.Revoke(until, 101))
	c.AdminTLS = issued(t, a, 2, a.Revoke(until, 101))
	hash := sha256.Sum256([]byte("scraper's"))
	c.AuthFile = filepath.Join(t.TempDir(), "auth.yaml")
	if err := os.WriteFile(c.AuthFile, []byte(`
tokens:
  - {subject: scraper, roles: [metrics], expires: 2099-01-01T00:00:00Z, sha256: `+hex.EncodeToString(hash[:])+`}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, c)
	admin := "https://" + n.Admin().String()
	told := scrapers{"n": func() string { return fetched(t, a, 100, admin+"/metrics") }}
	during := rehearse(t, told, "LicensedCertificatesRefused")
	for name, url := range map[string]string{"API": n.APIURL(), "admin port": admin} {
		if fetched(t, a, 100, url+"/healthz") == "" || fetched(t, a, 101, url+"/healthz") != "" {
			t.Errorf("%s: not just the revoked certificate is refused", name)
		}
	}
	if !strings.Contains(log.String(), "certificate is revoked") {
		t.Errorf("no word of it:\n%s", log.String())
	}
	during(told)
	metrics := fetched(t, a, 100, admin+"/metrics")
	for _, want := range []string{
		`licensed_certificate_refusals_total{port="api",reason="revoked"} 1`,
		`licensed_certificate_refusals_total{port="admin",reason="revoked"} 1`,
		`licensed_certificate_expiry_timestamp_seconds{file="` + c.APITLS.CRL + `",kind="crl",port="api"`,
		`licensed_certificate_expiry_timestamp_seconds{file="` + c.AdminTLS.Cert + `",kind="certificate",port="admin"`,
		`licensed_certificate_expiry_timestamp_seconds{file="` + c.AuthFile + `",kind="token",port="auth",subject="sha256:` +
			hex.EncodeToString(hash[:6]) + `"} 4.0709088e+09`,
		`licensed_certificate_start_timestamp_seconds{file="` + c.APITLS.CA + `",kind="ca",port="api"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestRevokedProcesses are refused by the node ports of the others.
func TestRevokedProcesses(t *testing.T) {
	a, c := certs.New(t), newCompany(t)
	lists := a.Revoke(time.Now().Add(time.Hour), 11)
	with := func(serial int64) {
		c.with = func(config *node.Config) { config.Cluster.NodeTLS = issued(t, a, serial, lists) }
	}
	with(10)
	c.start("n1", node.RoleNode)
	with(12)
	g := c.start("g1", node.RoleGateway)
	settle(t, admin(g), "n1")
	if _, err := acquire(t, g, "c1"); err != nil {
		t.Fatal(err)
	}
	// It connects, since the certificate of n1 is not revoked, and gets no answer. Nobody awaits it.
	with(11)
	revoked := c.config("g2", node.RoleGateway)
	revoked.Cluster.NodeTLS.CRL = "" // It does not look itself.
	n, err := node.Start(t.Context(), revoked)
	if err == nil {
		defer func() { _ = n.Stop(context.WithoutCancel(t.Context())) }()
		if _, err := acquire(t, n, "c2"); err == nil {
			t.Error("a process with a revoked certificate sends requests")
		}
	}
	if _, err := acquire(t, g, "c3"); err != nil {
		t.Error(err)
	}
}
