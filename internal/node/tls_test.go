package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/gateway"
)

// issuer signs certificates for 127.0.0.1, with serial numbers that tell them apart.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	_, i.key, _ = ed25519.GenerateKey(rand.Reader)
	der, err := x509.CreateCertificate(rand.Reader, i.cert, i.cert, i.key.Public(), i.key)
	if err == nil {
		i.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// sign returns a certificate and its key in PEM.
func (i *issuer) sign(serial int64) (cert, key []byte) {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, i.cert, public, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		i.t.Fatal(err)
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", pkcs8)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// visitor connects to a server, with a certificate of its own.
type visitor struct {
	*http.Client
	seen int64 // serial number of the server's certificate
	h2   bool
}

func newVisitor(t *testing.T, trusts, of *issuer) *visitor {
	v := &visitor{}
	cert, key := of.sign(100)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(trusts.cert)
	v.Client = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(4),
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
	dir, first, second := t.TempDir(), newIssuer(t), newIssuer(t)
	files := TLSFiles{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	write := func(file string, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := first.sign(7)
	write(files.Cert, cert)
	write(files.Key, key)
	write(files.CA, pemOf("CERTIFICATE", first.cert.Raw))
	var log bytes.Buffer
	c, err := files.openMutual("tls", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 0
	s, err := gateway.Listen("127.0.0.1:0", c.serving(), slog.New(slog.DiscardHandler))
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
	ours, theirs := newVisitor(t, first, first), newVisitor(t, first, second)
	sees := func(v *visitor, want int64) {
		t.Helper()
		if err := v.visit(url); err != nil || v.seen != want || !v.h2 {
			t.Fatalf("served by certificate %d, HTTP/2 %t, %v; want %d", v.seen, v.h2, err, want)
		}
	}
	sees(ours, 7)

	cert, key = first.sign(8)
	write(files.Cert, cert) // The key is yet to come.
	sees(ours, 7)
	sees(ours, 7)
	if n := strings.Count(log.String(), "cannot be used"); n != 1 || !strings.Contains(log.String(), "tls-cert, tls-key") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	write(files.Key, key)
	sees(ours, 8)
	if leaf := c.connecting().Certificates[0].Leaf; leaf.SerialNumber.Int64() != 8 {
		t.Errorf("connects with certificate %v", leaf.SerialNumber)
	}

	// Another CA: its own get in, those of the former do not, not even by a session that was there before.
	if err := theirs.visit(url); err == nil {
		t.Error("a stranger gets in")
	}
	write(files.CA, pemOf("CERTIFICATE", second.cert.Raw))
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
