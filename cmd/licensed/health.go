package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"licensed/internal/settings"
)

// healthCommand returns the command that asks a process about its health, over HTTP like
// an orchestrator.
func (p *program) healthCommand() *cobra.Command {
	o, timeout, live := newOptions(), 3*time.Second, false
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask a process whether it is ready",
		Long: "health asks the admin port of a process whether it is ready to serve, and exits with 0 if it is\n" +
			"and with 1 if not: a health check for containers, which have no other program.",
		Example: "  licensed health\n  licensed health --admin 127.0.0.2:8081",
		Args:    noArguments,
	}
	c.Flags().DurationVar(&timeout, "timeout", timeout, "longest time to wait for the answer")
	c.Flags().BoolVar(&live, "live", live, "ask whether it has not failed, rather than whether it is ready")
	applies := named("host", "admin", "admin-tls-cert")
	p.takeSettings(c, o, applies, func(c *cobra.Command, _ *settings.Loaded, _ []string) error {
		if o.config.Admin == "" {
			return usageError{errors.New("admin: is empty, so the process has no admin port to ask")}
		}
		path := "/readyz"
		if live {
			path = "/healthz"
		}
		ctx, cancel := context.WithTimeout(c.Context(), timeout)
		defer cancel()
		if o.config.AdminTLS.Cert == "" {
			return p.health(ctx, http.DefaultClient, "http://"+o.config.Admin+path)
		}
		client, err := pinned(o.config.AdminTLS.Cert)
		if err != nil {
			return usageError{fmt.Errorf("admin-tls-cert: %w", err)}
		}
		return p.health(ctx, client, "https://"+o.config.Admin+path)
	})
	return c
}

// health prints the answer of a check, or returns it as the error if it is not 200.
func (p *program) health(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// An answer that is longer is not one of licensed.
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err != nil {
		return err
	}
	state := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, state)
	}
	_, err = fmt.Fprintln(p.stdout, state)
	return err
}

// pinned returns a client of servers that have the certificate in a file: that is the process on this machine, under
// whatever address it is asked.
func pinned(file string) (*http.Client, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // The certificate itself is compared.
		VerifyConnection: func(c tls.ConnectionState) error {
			if len(c.PeerCertificates) == 0 || !bytes.Equal(c.PeerCertificates[0].Raw, block.Bytes) {
				return fmt.Errorf("the process has another certificate than %s", file)
			}
			return nil
		},
	}}}, nil
}
