package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
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
		"no store":      {[]string{"serve"}, []string{"store", "required", "cassandra://"}},
		"no such store": {[]string{"node", "--store", "mysql://h"}, []string{"store", "mysql://h"}},
		"archive dir":   {[]string{"node", store, "--archive", "/archive"}, []string{"archive", "directory"}},
		"bad confirm": {
			[]string{"node", store, "--confirm", "maybe"}, []string{"confirm", "maybe", "lease or read"},
		},
		"bad gossip":    {[]string{"gateway", store, "--bind", "7946"}, []string{"bind", "HOST:PORT"}},
		"bad node port": {[]string{"gateway", store, "--node-listen", "x"}, []string{"node-listen", "HOST:PORT"}},
		"bad host":      {[]string{"node", store, "--host", "[::1]"}, []string{"host", "[::1]"}},
		"no key": {
			[]string{"node", store, "--gossip-key-file", "/no/such"}, []string{"gossip-key-file", "/no/such"},
		},
		"half of TLS": {[]string{"gateway", store, "--tls-cert", "x.pem"}, []string{"tls-key"}},
		"bad origin": {
			[]string{"dev", "--cors-origins", "app.example.com"}, []string{"cors-origins", "app.example.com"},
		},
		"a secret leaks": {
			[]string{"node", "--store", "cassandra://u:hunter2@h/k"}, []string{"--store", "LICENSED_STORE"},
		},
		"negative copies": {
			[]string{"schema", "apply", store, "--create-keyspace", "-1"}, []string{"create-keyspace", "-1"},
		},
		"what schema":  {[]string{"schema", "status", "--store", "nonsense"}, []string{"nonsense"}},
		"no such flag": {[]string{"dev", "--lisen", ":1"}, []string{"--lisen", "did you mean --listen?"}},
		"no such number": {
			[]string{"dev", "--max-in-flight", "many"},
			[]string{`--max-in-flight: "many" is not a whole number, at least 1`},
		},
		"out of range": {
			[]string{"dev", "--max-in-flight", "0"}, []string{"--max-in-flight: is 0, must be at least 1"},
		},
		"too little": {
			[]string{"dev", "--request-memory", "1MiB"}, []string{"--request-memory: is 1MiB, must be at least 16MiB"},
		},
		"health of what": {[]string{"health", "--admin", "8081"}, []string{"admin", "HOST:PORT"}},
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
	if code, out := run(t, nil, "schema", "status"); code != exitFailed ||
		!strings.Contains(out, "--store cassandra://") {
		t.Errorf("%d: %s", code, out)
	}
}

// TestHelpOfRoles: each shows the settings that matter to it, at first those that everyone needs.
func TestHelpOfRoles(t *testing.T) {
	for line, flags := range map[string]struct{ shown, hidden []string }{
		"dev --help": {
			[]string{"--data ", "--demo ", "--store "}, []string{"--join ", "--archive-after ", "--snapshot-every "},
		},
		"dev --help-all": {
			[]string{"--data ", "--archive-after ", "--lease-ttl "},
			[]string{"--join ", "--bind ", "--gossip-key-file "},
		},
		"serve --help-all": {
			[]string{"--join ", "--listen ", "--capacity ", "--snapshot-every "}, []string{"--demo ", "--data "},
		},
		"node --help-all": {
			[]string{"--join ", "--capacity ", "--snapshot-every ", "--confirm "},
			[]string{"--listen ", "--demo ", "--tls-cert "},
		},
		"gateway --help": {
			[]string{"--join ", "--listen ", "--help-all"}, []string{"--tls-cert ", "--max-in-flight "},
		},
		"gateway --help-all": {
			[]string{"--join ", "--listen ", "--tls-cert "},
			[]string{"--capacity ", "--lease-ttl ", "--snapshot-every "},
		},
		"schema apply --help": {
			[]string{"--store ", "--archive ", "--create-keyspace "}, []string{"--join ", "--listen "},
		},
		"store verify --help": {
			[]string{"--data ", "--archive ", "--repair", "--jobs "}, []string{"--join ", "--listen "},
		},
		"health --help":   {[]string{"--admin ", "--host ", "--live"}, []string{"--join ", "--listen "}},
		"settings --help": {[]string{"--admin ", "--join ", "--max-in-flight "}, nil},
	} {
		// What is wrong elsewhere does not keep anybody from reading the help.
		code, out := run(t, map[string]string{"LICENSED_SHARDS": "x"}, strings.Fields(line)...)
		if code != exitOK {
			t.Errorf("%s: exit code %d", line, code)
		}
		for _, f := range flags.shown {
			if !strings.Contains(out, "      "+f) {
				t.Errorf("%s does not show %s: %s", line, f, out)
			}
		}
		for _, f := range flags.hidden {
			if strings.Contains(out, "  "+f) {
				t.Errorf("%s shows %s", line, f)
			}
		}
	}
}

// TestTable: every setting is explained, and its default is allowed.
func TestTable(t *testing.T) {
	o := newOptions()
	seen := make(map[string]bool)
	for _, s := range o.table() {
		_, isBool := s.Value.(*bool)
		if seen[s.Name] || s.Help == "" || s.Group == "" || s.Roles == 0 || (s.Unit == "") != isBool {
			t.Errorf("%+v", s)
		}
		if strings.HasPrefix(s.Help, "the ") || strings.HasSuffix(s.Help, ".") || strings.Contains(s.Help, "default") {
			t.Errorf("%s: the help is no phrase, or has the default: %q", s.Name, s.Help)
		}
		if s.Allowed.Check != nil {
			if err := s.Allowed.Check(s.Value); err != nil {
				t.Errorf("%s: the default is not allowed: %v", s.Name, err)
			}
		}
		seen[s.Name] = true
	}
	if len(seen) < 60 {
		t.Errorf("%d settings", len(seen))
	}
}

// rewrite has TestSettingsPage write the page.
var rewrite = flag.Bool("rewrite", false, "write docs/reference/settings.md")

func TestSettingsPage(t *testing.T) {
	const path = "../../docs/reference/settings.md"
	if *rewrite {
		if err := os.WriteFile(path, []byte(settingsPage()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != settingsPage() {
		t.Errorf("%s is not what the table says: go test ./cmd/licensed -run SettingsPage -rewrite", path)
	}
}

// TestCompletion: a shell completes settings with the words that they allow.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"__complete serve --confirm":   "--confirm",
		"__complete serve --confirm ":  "lease\nread\n",
		"__complete dev --log-level w": "warn\n",
		"__complete dev --no-da":       "--no-dashboard",
	} {
		if code, out := run(t, nil, strings.Split(line, " ")...); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%q: %d %s, want %q", line, code, out, want)
		}
	}
}

func TestHostSpreads(t *testing.T) {
	code, out := run(t, nil, "settings", "--host", "::1", "--admin", "127.0.0.1:9")
	if code != exitOK {
		t.Fatal(code, out)
	}
	for _, line := range []string{`listen: .\[::1\]:8080. +# host`, `admin: 127.0.0.1:9 +# flag --admin`,
		`bind: .\[::1\]:7946. +# host`, `node-listen: .\[::1\]:7947. +# host`} {
		if !regexp.MustCompile("(?m)^" + line + "$").MatchString(out) {
			t.Errorf("no line like %q in\n%s", line, out)
		}
	}
}

func TestSettingsMaskPasswords(t *testing.T) {
	code, out := run(t, map[string]string{
		"LICENSED_STORE":   "cassandra://u:hunter2@h/ks",
		"LICENSED_ARCHIVE": "cassandra://u:hunter3@h2/ks",
	}, "settings")
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
	if code, out := run(t, nil, "health", "--admin", address); code != exitFailed ||
		!strings.Contains(out, "draining") {
		t.Errorf("not ready: %d %s", code, out)
	}
	if code, out := run(t, map[string]string{"LICENSED_HOST": "nowhere", "LICENSED_ADMIN": address},
		"health", "--live"); code != exitOK || out != "draining\n" {
		t.Errorf("the address of the environment: %d %s", code, out)
	}
	if code, out := run(t, map[string]string{"LICENSED_HOST": "no host"}, "health"); code != exitUsage ||
		!strings.Contains(out, "no host") {
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

// TestThrowaway: what is made for trying things out is complete, and is not made twice.
func TestThrowaway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	for _, command := range []string{"tokens", "certs"} {
		if code, out := run(t, nil, command, "dev", dir); code != exitOK || !strings.Contains(out, "wrote ") {
			t.Errorf("%s: exit %d, %s", command, code, out)
		}
		if code, out := run(t, nil, command, "dev", dir); code != exitFailed || !strings.Contains(out, "exists") {
			t.Errorf("%s again: exit %d, %s", command, code, out)
		}
		if code, out := run(t, nil, command, "dev", dir, "--if-missing"); code != exitOK {
			t.Errorf("%s if missing: exit %d, %s", command, code, out)
		}
		if code, _ := run(t, nil, command, "dev"); code != exitUsage {
			t.Errorf("%s without a directory: exit %d", command, code)
		}
	}
	// A process that others reach starts with neither the one nor the other.
	for want, args := range map[string][]string{
		"--accept-risk open-api":     {"--listen", ":0"},
		"--accept-risk open-admin":   {"--admin", "0.0.0.0:0"},
		`"open-door" is no risk`:     {"--accept-risk", "open-door"},
		"demo: simulated customers":  {"--demo", "--auth-file", filepath.Join(dir, "auth.yaml")},
		"read the auth file":         {"--auth-file", filepath.Join(dir, "none.yaml")},
		"nobody could call the API":  {"--auth-file", os.DevNull},
		"admin-tls-cert, admin-tls-": {"--admin-tls-cert", filepath.Join(dir, "server.pem")},
	} {
		args = append([]string{"dev", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0"}, args...)
		if code, out := run(t, nil, args...); code == exitOK || !strings.Contains(out, want) {
			t.Errorf("%v: exit %d, %s; want %q", args, code, out, want)
		}
	}
}
