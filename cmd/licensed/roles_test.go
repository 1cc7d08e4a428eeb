package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// run executes a command line and returns the exit code and all that was written.
func run(t *testing.T, environment map[string]string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	p := &program{stdout: &out, stderr: &out, getenv: func(k string) string { return environment[k] }}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return p.run(ctx, args), out.String()
}

func TestRoleErrors(t *testing.T) {
	const store = "--store=cassandra://127.0.0.1:1/licensed"
	for name, test := range map[string]struct {
		args []string
		says []string
	}{
		"no store":        {[]string{"serve"}, []string{"store", "required", "cassandra://"}},
		"no such store":   {[]string{"node", "--store", "mysql://h"}, []string{"store", "mysql://h"}},
		"archive dir":     {[]string{"node", store, "--archive", "/archive"}, []string{"archive", "directory"}},
		"bad confirm":     {[]string{"node", store, "--confirm", "maybe"}, []string{"confirm", "maybe", "lease or read"}},
		"bad gossip":      {[]string{"gateway", store, "--bind", "7946"}, []string{"bind", "HOST:PORT"}},
		"bad node port":   {[]string{"gateway", store, "--node-listen", "x"}, []string{"node-listen", "HOST:PORT"}},
		"bad host":        {[]string{"node", store, "--host", "[::1]"}, []string{"host", "[::1]"}},
		"no key":          {[]string{"node", store, "--gossip-key-file", "/no/such"}, []string{"gossip-key-file", "/no/such"}},
		"half of TLS":     {[]string{"gateway", store, "--tls-cert", "x.pem"}, []string{"tls-key"}},
		"a secret leaks":  {[]string{"node", "--store", "cassandra://u:hunter2@h/NO"}, []string{"store", "u:xxxxx@h"}},
		"negative copies": {[]string{"schema", "apply", store, "--create-keyspace", "-1"}, []string{"create-keyspace", "-1"}},
		"what schema":     {[]string{"schema", "status", "--store", "nonsense"}, []string{"nonsense"}},
		"health of what":  {[]string{"health", "--admin", "8081"}, []string{"admin", "HOST:PORT"}},
	} {
		code, out := run(t, nil, test.args...)
		if code != exitUsage {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, exitUsage, out)
		}
		for _, words := range test.says {
			if !strings.Contains(out, words) {
				t.Errorf("%s: does not say %q: %s", name, words, out)
			}
		}
		if strings.Contains(out, "hunter2") {
			t.Errorf("%s: shows a password: %s", name, out)
		}
	}
}

// TestSchemaWithoutCassandra: nothing has a schema there.
func TestSchemaWithoutCassandra(t *testing.T) {
	if code, out := run(t, nil, "schema", "status"); code != exitFailed || !strings.Contains(out, "--store cassandra://") {
		t.Errorf("%d: %s", code, out)
	}
}

// TestHelpOfRoles: each shows the flags that matter to it.
func TestHelpOfRoles(t *testing.T) {
	for role, flags := range map[string]struct{ shown, hidden []string }{
		"dev":          {[]string{"--data ", "--demo ", "--store ", "--archive-after "}, []string{"--join ", "--bind ", "--gossip-key-file "}},
		"serve":        {[]string{"--join ", "--listen ", "--capacity ", "--snapshot-every "}, []string{"--demo ", "--data "}},
		"node":         {[]string{"--join ", "--capacity ", "--snapshot-every ", "--confirm "}, []string{"--listen ", "--demo ", "--tls-cert "}},
		"gateway":      {[]string{"--join ", "--listen ", "--tls-cert "}, []string{"--capacity ", "--lease-ttl ", "--snapshot-every "}},
		"schema apply": {[]string{"--store ", "--archive ", "--create-keyspace "}, []string{"--join ", "--listen "}},
	} {
		code, out := run(t, nil, append(strings.Fields(role), "--help")...)
		if code != exitOK {
			t.Errorf("%s: exit code %d", role, code)
		}
		for _, f := range flags.shown {
			if !strings.Contains(out, f) {
				t.Errorf("%s does not show %s", role, f)
			}
		}
		for _, f := range flags.hidden {
			if strings.Contains(out, "  "+f) {
				t.Errorf("%s shows %s", role, f)
			}
		}
	}
}

func TestHostSpreads(t *testing.T) {
	o := newOptions()
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.bind(f)
	if err := f.Parse([]string{"--host", "::1", "--admin", "127.0.0.1:9"}); err != nil {
		t.Fatal(err)
	}
	spread, err := o.spreadHost(f)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(spread); !slices.Equal(spread, []string{"bind", "listen", "node-listen"}) {
		t.Errorf("spread to %v", spread)
	}
	c := &o.config
	if c.Listen != "[::1]:8080" || c.Admin != "127.0.0.1:9" || c.Cluster.Bind != "[::1]:7946" || c.Cluster.NodeListen != "[::1]:7947" {
		t.Errorf("%s %s %s %s", c.Listen, c.Admin, c.Cluster.Bind, c.Cluster.NodeListen)
	}
}

func TestMaskPassword(t *testing.T) {
	for url, want := range map[string]string{
		"cassandra://user:p:a@ss@h1,h2/ks?x=1": "cassandra://user:" + masked + "@h1,h2/ks?x=1",
		"cassandra://user@h/ks":                "cassandra://user@h/ks",
		"cassandra://h/ks":                     "cassandra://h/ks",
		"/a/directory":                         "/a/directory",
		"":                                     "",
	} {
		if got := maskPassword(url); got != want {
			t.Errorf("%q is shown as %q, want %q", url, got, want)
		}
	}
}

func TestConfigMasksPasswords(t *testing.T) {
	code, out := run(t, map[string]string{"LICENSED_STORE": "cassandra://u:hunter2@h/ks", "LICENSED_ARCHIVE": "cassandra://u:hunter3@h2/ks"}, "config")
	if code != exitOK || strings.Contains(out, "hunter") || !strings.Contains(out, "cassandra://u:********@h2/ks") {
		t.Errorf("%d: %s", code, out)
	}
}

func TestHealth(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "draining") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "draining")
	})
	s := httptest.NewServer(mux)
	address := s.Listener.Addr().String()
	if code, out := run(t, nil, "health", "--admin", address); code != exitFailed || !strings.Contains(out, "draining") {
		t.Errorf("not ready: %d %s", code, out)
	}
	if code, out := run(t, map[string]string{"LICENSED_HOST": "nowhere", "LICENSED_ADMIN": address}, "health", "--live"); code != exitOK || out != "draining\n" {
		t.Errorf("the address of the environment: %d %s", code, out)
	}
	if code, out := run(t, map[string]string{"LICENSED_HOST": "no host"}, "health"); code != exitUsage || !strings.Contains(out, "no host") {
		t.Errorf("the host of the environment: %d %s", code, out)
	}
	if code, out := run(t, nil, "health", "--admin", address, "--live"); code != exitOK || out != "draining\n" {
		t.Errorf("live: %d %s", code, out)
	}
	s.Close()
	if code, _ := run(t, nil, "health", "--admin", address); code != exitFailed {
		t.Errorf("nobody there: %d", code)
	}
}
