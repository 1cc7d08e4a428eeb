package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"google.golang.org/grpc"

	"licensed/client"
	"licensed/internal/tlsfiles"
	"licensed/internal/verify"
	"licensed/messages/licensedv1"
)

// connection to a gateway: its three services.
type connection struct {
	*client.Client
	history licensedv1.HistoryServiceClient
	admin   licensedv1.AdminServiceClient
}

// dial returns the connection, which is made with the first request, so that an address
// at which nothing listens is the error of a call. There is one for each program. Errors:
// a usage error for a wrong address or wrong files.
func (p *program) dial() (*connection, error) {
	if p.loop != nil {
		return p.loop, nil
	}
	address, encrypted, err := gatewayAddress(p.server, p.tls)
	if err != nil {
		return nil, err
	}
	certificates, err := p.tls.Open("--tls-", tlsfiles.Options{})
	if err != nil {
		return nil, usagef("%w", err)
	}
	// The caller of the program decides whether to repeat a command.
	o := client.Options{
		Timeout: p.timeout, AttemptTimeout: p.timeout, RetryRatio: -1,
		Listener: client.Listener{Attempted: p.brokeOff},
	}
	if encrypted {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if certificates != nil {
			o.TLS, o.NewTLS = nil, certificates.Client
		}
	}
	if o.Token, err = p.token(); err != nil {
		return nil, err
	}
	if p.reason != "" {
		o.DialOptions = append(o.DialOptions, grpc.WithPerRPCCredentials(stated(p.reason)))
	}
	c, err := client.Dial([]string{address}, o)
	if err != nil {
		return nil, usagef("--server %q: %w", p.server, err)
	}
	p.loop = &connection{c, licensedv1.NewHistoryServiceClient(c), licensedv1.NewAdminServiceClient(c)}
	return p.loop, nil
}

// token returns the source of the bearer token; nil for none. Errors: a usage error for a file that cannot be read.
func (p *program) token() (func(context.Context) (string, error), error) {
	token := p.getenv("LICENSED_TOKEN")
	if p.tokenFile != "" {
		content, err := os.ReadFile(p.tokenFile)
		if err != nil {
			return nil, usagef("--token-file: %w", err)
		}
		token = string(content)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, nil
	}
	return func(context.Context) (string, error) { return token, nil }, nil
}

// stated adds the reason for a call to each request.
type stated string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (s stated) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"licensed-reason": url.PathEscape(string(s))}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. A reason is no secret.
func (stated) RequireTransportSecurity() bool { return false }

// gatewayAddress returns HOST:PORT of an address or URL, and whether it is encrypted: with
// files for TLS one without a scheme is. Errors: a usage error.
func gatewayAddress(server string, files tlsfiles.Files) (address string, encrypted bool, err error) {
	switch {
	case !strings.Contains(server, "://") && files == (tlsfiles.Files{}):
		server = "http://" + server
	case !strings.Contains(server, "://"):
		server = "https://" + server
	}
	if strings.HasPrefix(server, "http://") && files != (tlsfiles.Files{}) {
		return "", false, usagef(
			"--server %q is not encrypted, --tls-ca, --tls-cert and --tls-key are for https", server)
	}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" ||
		u.Scheme != "http" && u.Scheme != "https" {
		return "", false, usagef("--server %q is not HOST:PORT or a URL without a path", server)
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)), u.Scheme == "https", nil
}

// eachCustomer calls f with all customers after an id, in the order of the service, until
// f returns an error, which is returned. Pages are asked for as they are needed.
func (p *program) eachCustomer(ctx context.Context, after string, f func(id string) error) error {
	conn, err := p.dial()
	if err != nil {
		return err
	}
	return verify.Pages(after, func(after string) ([]string, error) { return p.customerPage(ctx, conn, after) }, f)
}

// customerPage returns a page of the customers after an id; empty at the end.
func (p *program) customerPage(ctx context.Context, conn *connection, after string) ([]string, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	res, err := conn.admin.ListCustomers(ctx, &licensedv1.ListCustomersRequest{After: after})
	if err != nil {
		return nil, fmt.Errorf("list customers: %w", err)
	}
	return res.CustomerIds, nil
}
