package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"licensed/internal/tlsfiles"
	"licensed/internal/verify"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// connection to a gateway: its three services over one HTTP/2 transport.
type connection struct {
	transport *http.Transport
	licenses  licensedv1connect.LicenseServiceClient
	history   licensedv1connect.HistoryServiceClient
	admin     licensedv1connect.AdminServiceClient
}

// dial returns the connection, which is made with the first request, so that an address
// at which nothing listens is the error of a call. There is one for each program. Errors:
// a usage error for a wrong address or wrong files.
func (p *program) dial() (*connection, error) {
	if p.loop != nil {
		return p.loop, nil
	}
	base, err := baseURL(p.server, p.tls)
	if err != nil {
		return nil, err
	}
	certificates, err := p.tls.Open("--tls-", nil)
	if err != nil {
		return nil, usagef("%w", err)
	}
	// HTTP/2 in both forms, with TLS and without: one connection carries all calls.
	t := &http.Transport{
		Protocols:           new(http.Protocols),
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		TLSClientConfig:     certificates.Client(),
	}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: t}
	// The gateway is near; compressing histories would take longer than sending them.
	plain := connect.WithAcceptCompression("gzip", nil, nil)
	p.loop = &connection{
		transport: t,
		licenses:  licensedv1connect.NewLicenseServiceClient(client, base, plain),
		history:   licensedv1connect.NewHistoryServiceClient(client, base, plain),
		admin:     licensedv1connect.NewAdminServiceClient(client, base, plain),
	}
	return p.loop, nil
}

// close closes connections that are not in use; the program ends afterwards.
func (c *connection) close() { c.transport.CloseIdleConnections() }

// baseURL returns the URL of an address. With files for TLS one without a scheme is
// https. Errors: a usage error.
func baseURL(server string, files tlsfiles.Files) (string, error) {
	switch {
	case !strings.Contains(server, "://") && files == (tlsfiles.Files{}):
		server = "http://" + server
	case !strings.Contains(server, "://"):
		server = "https://" + server
	}
	if strings.HasPrefix(server, "http://") && files != (tlsfiles.Files{}) {
		return "", usagef("--server %q is not encrypted, --tls-ca, --tls-cert and --tls-key are for https", server)
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", usagef("--server %q is not HOST:PORT or a URL", server)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// customersOfServer completes the first argument, for a shell. It asks the server, within
// a time that a user at a prompt accepts, and is silent if there is no answer.
// The prefix is not sent: the API lists ids after one, which need not exist, so the first
// page is filtered here.
func (p *program) customersOfServer(
	c *cobra.Command, args []string, prefix string,
) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || p.checkFlags() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, err := p.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(c.Context(), p.completion)
	defer cancel()
	res, err := conn.admin.ListCustomers(ctx, connect.NewRequest(&licensedv1.ListCustomersRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, id := range res.Msg.CustomerIds {
		if strings.HasPrefix(id, prefix) {
			ids = append(ids, id)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// customerCommand returns a command whose first argument is a customer.
func (p *program) customerCommand(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = p.customersOfServer
	return c
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
	res, err := unwrapped(conn.admin.ListCustomers(ctx,
		connect.NewRequest(&licensedv1.ListCustomersRequest{After: after})))
	if err != nil {
		return nil, fmt.Errorf("list customers: %w", err)
	}
	return res.CustomerIds, nil
}
