package tlsfiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/gateway/server"
	"licensed/internal/certs"
)

// fixture is a server whose files have revocation lists.
type fixture struct {
	t     *testing.T
	files Files
	c     *Certificates
	url   string
	now   time.Time
	log   bytes.Buffer
}

func newFixture(t *testing.T, of *certs.Authority, lists []byte, o Options) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, now: time.Now(), files: Files{
		Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca"),
		CRL: filepath.Join(dir, "crl"),
	}}
	cert, key := of.SignPEM(7)
	for file, content := range map[string][]byte{
		f.files.Cert: cert, f.files.Key: key, f.files.CA: of.PEM(), f.files.CRL: lists,
	} {
		f.write(file, content)
	}
	o.Log, o.Now = slog.New(slog.NewTextHandler(&f.log, nil)), func() time.Time { return f.now }
	var err error
	if f.c, err = f.files.OpenMutual("tls-", o); err != nil {
		t.Fatal(err)
	}
	c := server.DefaultConfig()
	c.TLS, c.Logger = f.c.Server(), slog.New(slog.DiscardHandler)
	s, err := server.Listen("127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f.url = "https://" + s.Addr().String()
	return f
}

func (f *fixture) write(file string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// client is one with the certificate of that serial number.
func (f *fixture) client(trusts, of *certs.Authority, serial int64) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: trusts.Pool(), Certificates: []tls.Certificate{of.Sign(serial)},
	}}}
}

// admits reports whether a client is served.
func (f *fixture) admits(c *http.Client) bool {
	res, err := c.Get(f.url)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil
}

// TestRevocation: a certificate in the list of its issuer is refused, in both directions, as soon as the file has it;
// so is every one of an issuer without a list, or with one that expired.
func TestRevocation(t *testing.T) {
	ours, other := certs.New(t), certs.New(t)
	f := newFixture(t, ours, ours.Revoke(time.Now().Add(time.Hour), 99), Options{})
	good, bad, foreign := f.client(ours, ours, 100), f.client(ours, ours, 101), f.client(ours, other, 102)
	want := func(when string, goodIn, badIn, foreignIn bool) {
		t.Helper()
		if a, b, c := f.admits(good), f.admits(bad), f.admits(foreign); a != goodIn || b != badIn || c != foreignIn {
			t.Fatalf("%s: good %t, bad %t, of the other authority %t\n%s", when, a, b, c, f.log.String())
		}
	}
	want("nothing of theirs is revoked", true, true, false)
	f.write(f.files.CRL, ours.Revoke(time.Now().Add(time.Hour), 99, 101))
	want("one is revoked", true, false, false)

	// A second authority is trusted, and has no list at first.
	f.write(f.files.CA, append(ours.PEM(), other.PEM()...))
	want("an authority without a list", true, false, false)
	later := time.Now().Add(3 * time.Hour)
	f.write(f.files.CRL, append(ours.Revoke(time.Now().Add(time.Hour), 101), other.Revoke(later)...))
	want("both have a list", true, false, true)

	// A file that cannot be used changes nothing.
	f.write(f.files.CRL, certs.New(t).Revoke(later))
	want("a list of nobody", true, false, true)
	if !strings.Contains(f.log.String(), "no certificate of the CA file signed it") {
		t.Errorf("no word of a foreign list: %s", f.log.String())
	}
	f.now = f.now.Add(2 * time.Hour)
	want("one list expired", false, false, true)

	// The same for those that this process connects to.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: f.c.Client()}}
	res, err := client.Get(f.url)
	if err == nil {
		_ = res.Body.Close()
	}
	if !errors.Is(err, ErrExpiredCRL) {
		t.Errorf("connects to a certificate without a valid list: %v", err)
	}
	n := f.c.Refusals()
	if n["revoked"] == 0 || n["no_crl"] == 0 || n["expired_crl"] == 0 {
		t.Errorf("counted %v", n)
	}
}

// TestExpiredListIsAccepted if the operator wants it; what is in it stays refused.
func TestExpiredListIsAccepted(t *testing.T) {
	ours := certs.New(t)
	f := newFixture(t, ours, ours.Revoke(time.Now().Add(time.Hour), 101), Options{AcceptExpiredCRLs: true})
	f.now = f.now.Add(2 * time.Hour)
	if !f.admits(f.client(ours, ours, 100)) || f.admits(f.client(ours, ours, 101)) {
		t.Error("the list is not used as it is")
	}
}

// TestRevocationFiles: what cannot be used is an error that names the setting.
func TestRevocationFiles(t *testing.T) {
	ours := certs.New(t)
	cert, key := ours.SignPEM(7)
	for name, test := range map[string]struct {
		ca, crl []byte
		want    string
	}{
		"without a CA": {nil, ours.Revoke(time.Now().Add(time.Hour)), "tls-crl: needs tls-ca"},
		"not a list":   {ours.PEM(), cert, "tls-crl"},
		"of another":   {ours.PEM(), certs.New(t).Revoke(time.Now().Add(time.Hour)), "signed it"},
		"damaged": {
			ours.PEM(), []byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "tls-crl",
		},
		"CA of no use":      {key, ours.Revoke(time.Now().Add(time.Hour)), "tls-ca"},
		"CA in another key": {certs.New(t).PEM(), ours.Revoke(time.Now().Add(time.Hour)), "signed it"},
	} {
		dir := t.TempDir()
		f := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CRL: filepath.Join(dir, "crl")}
		content := map[string][]byte{f.Cert: cert, f.Key: key, f.CRL: test.crl}
		if test.ca != nil {
			f.CA = filepath.Join(dir, "ca")
			content[f.CA] = test.ca
		}
		for file, b := range content {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Open("tls-", Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestExpiries: each certificate and list is told, as the files are now.
func TestExpiries(t *testing.T) {
	ours := certs.New(t)
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	f := newFixture(t, ours, ours.Revoke(expires), Options{})
	seen := map[string]time.Time{}
	for _, e := range f.c.Expiries() {
		seen[e.Kind+" "+e.File] = e.Until
	}
	if len(seen) != 3 || !seen["crl "+f.files.CRL].Equal(expires) || seen["ca "+f.files.CA].IsZero() ||
		seen["certificate "+f.files.Cert].IsZero() {
		t.Fatalf("%v", seen)
	}
	later := expires.Add(time.Hour)
	f.write(f.files.CRL, ours.Revoke(later))
	for _, e := range f.c.Expiries() {
		if e.Kind == KindCRL && !e.Until.Equal(later) {
			t.Errorf("the list expires at %v, want %v", e.Until, later)
		}
	}
}

// FuzzRevocationLists: no content of a file ends the process, or is taken for a list that nobody signed.
func FuzzRevocationLists(f *testing.F) {
	ours, other := certs.New(f), certs.New(f)
	f.Add(ours.Revoke(time.Now().Add(time.Hour), 1, 2))
	f.Add(other.Revoke(time.Now().Add(time.Hour), 1))
	f.Add(ours.PEM())
	cas, err := parse(ours.PEM())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		lists, err := parseLists(content, cas)
		if err != nil {
			return
		}
		for _, list := range lists.byIssuer {
			if err := list.CheckSignatureFrom(cas[0]); err != nil {
				t.Fatal(err)
			}
		}
	})
}
