package throwaway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"licensed/gateway/auth"
)

// TestFiles: each token and each certificate is accepted for its role, the server's is valid for its hosts, nobody else
// can read them, and nothing is overwritten.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	if err := errors.Join(Certs(dir, []string{"gateway-1", "10.0.0.7"}), Tokens(dir)); err != nil {
		t.Fatal(err)
	}
	v, err := auth.Open(auth.Config{File: filepath.Join(dir, AuthFile), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	ca, err := os.ReadFile(filepath.Join(dir, CA))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	for _, role := range auth.AllRoles() {
		name := auth.RoleName(role)
		token, err := os.ReadFile(filepath.Join(dir, name+".token"))
		if err != nil {
			t.Fatal(err)
		}
		claims, err := v.Authenticate(t.Context(), auth.Credentials{Token: strings.TrimSpace(string(token))})
		if err != nil || claims.Roles != auth.RolesOf(role) {
			t.Errorf("the token of %s: %+v, %v", name, claims, err)
		}
		if name == "customer" {
			continue
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		chains, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			t.Fatal(err)
		}
		claims, err = v.Authenticate(t.Context(), auth.Credentials{Certificates: chains[0]})
		if err != nil || claims.Roles != auth.RolesOf(role) {
			t.Errorf("the certificate of %s: %+v, %v", name, claims, err)
		}
	}
	server, err := tls.LoadX509KeyPair(filepath.Join(dir, ServerCert), filepath.Join(dir, ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "gateway-1", "10.0.0.7"} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, process := range []string{"node", "gateway"} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, process+".pem"), filepath.Join(dir, process+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{NodeSAN: process == "node", GatewaySAN: process == "gateway"} {
			names, err := auth.ParseNames([]string{name})
			if err != nil || names.Fit(pair.Leaf) != want {
				t.Errorf("the certificate of a %s and %s: %v", process, name, err)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if err := Certs(dir, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("certificates were made again: %v", err)
	}
	if err := Tokens(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("tokens were made again: %v", err)
	}
}
