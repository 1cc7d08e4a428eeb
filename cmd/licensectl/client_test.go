package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"licensed/client"
	"licensed/internal/certs"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestTLS: the program reaches a gateway that demands certificates, and says what is wrong where it cannot.
func TestTLS(t *testing.T) {
	ours, others, dir := certs.New(t), certs.New(t), t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, other := write("ca", ours.PEM()), write("other", others.PEM())
	certPEM, keyPEM := ours.SignPEM(2)
	cert, key := write("cert", certPEM), write("key", keyPEM)
	server := httptest.NewUnstartedServer(nil)
	_, server.Config.Handler = licensedv1connect.NewAdminServiceHandler(customers{})
	server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ours.Sign(3)},
		ClientCAs:    ours.Pool(),
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}
	server.StartTLS()
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "https://")
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"--tls-ca $CA --tls-cert $CERT --tls-key $KEY": {exitOK, "Bayley"},
		"--tls-ca $CA": {exitNotNow, "no answer"},
		"--tls-ca $OTHER --tls-cert $CERT --tls-key $KEY":                  {exitNotNow, "certificate"},
		"--tls-ca $CA --tls-cert $CERT":                                    {exitUsage, "--tls-key"},
		"--tls-ca $KEY":                                                    {exitUsage, "no certificate in it"},
		"--tls-ca /nowhere":                                                {exitUsage, "/nowhere"},
		"--tls-ca $CA --tls-cert $CERT --tls-key $CERT":                    {exitUsage, "--tls-cert, --tls-key"},
		"--server http://" + address + " --tls-ca $CA":                     {exitUsage, "http"},
		"--server https://" + address + " --tls-cert $CERT --tls-key $KEY": {exitNotNow, "certificate"},
	} {
		var out bytes.Buffer
		p := &program{stdout: &out, stderr: &out, width: func() int { return 0 }, getenv: environment(address)}
		args := strings.Fields(
			"customers " + strings.NewReplacer("$CA", ca, "$CERT", cert, "$KEY", key, "$OTHER", other).Replace(line),
		)
		if code := p.run(t.Context(), args); code != want.code || !strings.Contains(out.String(), want.says) {
			t.Errorf("%s: exit %d, want %d\n%s", line, code, want.code, out.String())
		}
	}
}

// TestVariablesOfTLS: the files of licensectl have variables of their own. Those of licensed, which earlier releases
// read, are used only where nothing else is said, and with a warning.
func TestVariablesOfTLS(t *testing.T) {
	of := func(prefix string) map[string]string {
		return map[string]string{
			prefix + "_TLS_CA": prefix + " ca", prefix + "_TLS_CERT": prefix + " cert",
			prefix + "_TLS_KEY": prefix + " key",
		}
	}
	former, own, both := of("LICENSED"), of("LICENSECTL"), of("LICENSED")
	maps.Copy(both, own)
	ours := tlsfiles.Files{CA: "LICENSECTL ca", Cert: "LICENSECTL cert", Key: "LICENSECTL key"}
	for name, c := range map[string]struct {
		flags     tlsfiles.Files
		variables map[string]string
		server    string
		want      tlsfiles.Files
		warns     bool
	}{
		"none": {},
		"own":  {variables: own, want: ours},
		"both": {variables: both, want: ours},
		"former": {
			variables: former, warns: true,
			want: tlsfiles.Files{CA: "LICENSED ca", Cert: "LICENSED cert", Key: "LICENSED key"},
		},
		"a flag": {flags: tlsfiles.Files{CA: "flag"}, variables: former, want: tlsfiles.Files{CA: "flag"}},
		"http":   {variables: former, server: "http://127.0.0.1:1"},
	} {
		var out bytes.Buffer
		p := &program{
			stderr: &out, output: outputTable, timeout: time.Second, server: c.server, tls: c.flags,
			getenv: func(name string) string { return c.variables[name] },
		}
		if err := p.checkFlags(); err != nil || p.tls != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, p.tls, err, c.want)
		}
		if warns := strings.Contains(out.String(), "LICENSECTL_TLS_CERT"); warns != c.warns {
			t.Errorf("%s: said %q", name, out.String())
		}
	}
}

// customers is a service with one customer.
type customers struct {
	licensedv1connect.UnimplementedAdminServiceHandler
}

func (customers) ListCustomers(
	_ context.Context, r *connect.Request[licensedv1.ListCustomersRequest],
) (*connect.Response[licensedv1.ListCustomersResponse], error) {
	res := &licensedv1.ListCustomersResponse{}
	if r.Msg.After == "" {
		res.CustomerIds = []string{"Bayley"}
	}
	return connect.NewResponse(res), nil
}

// TestTooOldIsAConflict: a command that may be the repeat of a forgotten one is a conflict for scripts, a wrong
// page is not.
func TestTooOldIsAConflict(t *testing.T) {
	for reason, want := range map[string]int{"COMMAND_TOO_OLD": exitConflict, "": exitNotFound} {
		err := &client.Error{Code: codes.OutOfRange, Reason: reason, Message: "out of range"}
		if e := new(program).explain(err); e.code != want {
			t.Errorf("reason %q: exit %d, want %d", reason, e.code, want)
		}
	}
}
