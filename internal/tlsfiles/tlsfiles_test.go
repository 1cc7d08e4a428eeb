package tlsfiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"licensed/gateway/server"
	"licensed/internal/certs"
)

// visitor connects to a server, with a certificate of its own.
type visitor struct {
	*http.Client
	seen int64 // serial number of the server's certificate
	h2   bool
}

func newVisitor(trusts, of *certs.Authority) *visitor {
	v := &visitor{}
	v.Client = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			RootCAs:            trusts.Pool(),
			Certificates:       []tls.Certificate{of.Sign(100)},
			ClientSessionCache: tls.NewLRUClientSessionCache(4),
			VerifyConnection: func(s tls.ConnectionState) error {
				v.seen = s.PeerCertificates[0].SerialNumber.Int64()
				return nil
			},
		},
	}}
	return v
}

// visit connects anew.
func (v *visitor) visit(url string) error {
	v.seen = 0
	res, err := v.Get(url)
	if err != nil {
		return err
	}
	v.h2 = res.ProtoMajor == 2
	v.CloseIdleConnections()
	return res.Body.Close()
}

// TestCertificatesAreReadAgain: a connection that begins is secured by what the files hold then. What cannot be
// used leaves the former in force, and is said once.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir, first, second := t.TempDir(), certs.New(t), certs.New(t)
	files := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	write := func(file string, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := first.SignPEM(7)
	write(files.Cert, cert)
	write(files.Key, key)
	write(files.CA, first.PEM())
	var log bytes.Buffer
	c, err := files.OpenMutual("tls-", Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	sc := server.DefaultConfig()
	sc.TLS, sc.Logger = c.Server(), slog.New(slog.DiscardHandler)
	s, err := server.Listen("127.0.0.1:0", sc)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	url := "https://" + s.Addr().String()
	ours, theirs := newVisitor(first, first), newVisitor(first, second)
	sees := func(v *visitor, want int64) {
		t.Helper()
		if err := v.visit(url); err != nil || v.seen != want || !v.h2 {
			t.Fatalf("served by certificate %d, HTTP/2 %t, %v; want %d", v.seen, v.h2, err, want)
		}
	}
	sees(ours, 7)

	cert, key = first.SignPEM(8)
	write(files.Cert, cert) // The key is yet to come.
	sees(ours, 7)
	sees(ours, 7)
	if n := strings.Count(log.String(), "certificates not reloaded"); n != 1 ||
		!strings.Contains(log.String(), "tls-cert, tls-key") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	write(files.Key, key)
	sees(ours, 8)
	if shown, err := c.Client().GetClientCertificate(nil); err != nil || shown.Leaf.SerialNumber.Int64() != 8 {
		t.Errorf("connects with certificate %v, %v", shown, err)
	}

	// Another CA: its own get in, those of the former do not, not even by a session that was present before.
	if err := theirs.visit(url); err == nil {
		t.Error("a stranger gets in")
	}
	write(files.CA, second.PEM())
	sees(theirs, 8)
	if err := ours.visit(url); err == nil {
		t.Error("a certificate of the former CA gets in")
	}
	if err := os.Remove(files.CA); err != nil {
		t.Fatal(err)
	}
	sees(theirs, 8)
	if !strings.Contains(log.String(), "tls-ca: open") {
		t.Errorf("no word of a file that is missing: %s", log.String())
	}
}
