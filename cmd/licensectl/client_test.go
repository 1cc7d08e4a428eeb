package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"licensed/client"
	"licensed/internal/certs"
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
